//! Names of things: GUIDs, ARM ids, object references. Parsed once, compared as Azure compares
//! (GUIDs and ARM ids without regard to case).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A GUID (client id, object id, tenant id). Compared by value, shown in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(u128);

/// A text that is not a GUID of the form `8-4-4-4-12` hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID (expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)")]
pub struct NotAGuid(pub String);

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let bytes = text.as_bytes();
        let bad = || NotAGuid(text.chars().take(64).collect());
        if bytes.len() != 36 {
            return Err(bad());
        }
        let mut value = 0u128;
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return Err(bad());
                }
                continue;
            }
            let digit = char::from(*byte).to_digit(16).ok_or_else(bad)?;
            value = value << 4 | u128::from(digit);
        }
        Ok(Self(value))
    }
}

impl Guid {
    /// Appends the GUID as [`fmt::Display`] writes it, without the cost of formatting.
    pub fn push_to(self, text: &mut String) {
        for nibble in (0..32).rev() {
            if matches!(nibble, 23 | 19 | 15 | 11) {
                text.push('-');
            }
            let value = (self.0 >> (nibble * 4) & 0xf) as u32;
            text.push(char::from_digit(value, 16).unwrap_or('0'));
        }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = |shift: u32, mask: u128| self.0 >> shift & mask;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits(96, 0xffff_ffff),
            bits(80, 0xffff),
            bits(64, 0xffff),
            bits(48, 0xffff),
            bits(0, 0xffff_ffff_ffff)
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Azure Resource Manager id. Keeps the spelling it was written with, compares without case.
#[derive(Clone)]
pub struct ArmId {
    written: Arc<str>,
    folded: Arc<str>,
}

/// A text that is not an ARM id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an ARM id (expected /subscriptions/…)")]
pub struct NotAnArmId(pub String);

impl ArmId {
    /// Whether this id lies under `prefix`: the same, or below it at a `/`. Case does not matter,
    /// nor does a trailing slash of the prefix.
    #[must_use]
    pub fn is_under(&self, prefix: &str) -> bool {
        // On the path of every cached token: nothing is copied.
        let prefix = prefix.trim_end_matches('/').as_bytes();
        let (written, id) = (self.written.as_bytes(), self.folded.as_bytes());
        // Mostly the spelling is the same, and that is found without a look at each byte.
        matches!(id.get(prefix.len()), None | Some(b'/'))
            && id.len() >= prefix.len()
            && (written.starts_with(prefix) || id[..prefix.len()].eq_ignore_ascii_case(prefix))
    }

    /// Whether this id is `whole`, but for case and a trailing slash.
    #[must_use]
    pub fn is(&self, whole: &str) -> bool {
        self.folded.len() == whole.trim_end_matches('/').len() && self.is_under(whole)
    }

    /// The id in lower case, as it is compared.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// The id as it was written.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }
}

impl FromStr for ArmId {
    type Err = NotAnArmId;

    fn from_str(text: &str) -> Result<Self, NotAnArmId> {
        let folded = text.trim_end_matches('/').to_ascii_lowercase();
        let plain = text.len() <= 2048
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'%' | b'?' | b'#'))
            && !folded.contains("//")
            && !folded
                .split('/')
                .any(|segment| segment == "." || segment == "..");
        if !plain || !folded.starts_with("/subscriptions/") {
            return Err(NotAnArmId(text.chars().take(128).collect()));
        }
        Ok(Self {
            written: text.into(),
            folded: folded.into(),
        })
    }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for ArmId {}

impl PartialOrd for ArmId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArmId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded.cmp(&other.folded)
    }
}

impl std::hash::Hash for ArmId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl fmt::Debug for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Written and read as the text that `Display` and `FromStr` agree on.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(Guid);
serde_as_text!(ArmId);
serde_as_text!(super::path::PlainPath);

/// A namespaced object's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// `namespace/name`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_compare_without_case_and_show_in_lower_case() {
        let upper: Guid = "0A1B2C3D-0000-4000-8000-00000000ABCD".parse().unwrap();
        let lower: Guid = "0a1b2c3d-0000-4000-8000-00000000abcd".parse().unwrap();
        assert_eq!(upper, lower);
        assert_eq!(upper.to_string(), "0a1b2c3d-0000-4000-8000-00000000abcd");
        let mut pushed = String::new();
        upper.push_to(&mut pushed);
        assert_eq!(pushed, upper.to_string());
    }

    #[test]
    fn what_is_not_a_guid_is_refused() {
        for text in [
            "",
            "payments",
            "0a1b2c3d-0000-4000-8000-00000000abc",
            "0a1b2c3d00004000-8000-00000000abcd--",
            "0a1b2c3d-0000-4000-8000-00000000abcé",
            "{0a1b2c3d-0000-4000-8000-00000000abcd}",
        ] {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
    }

    #[test]
    fn arm_ids_compare_without_case_and_prefixes_end_at_a_segment() {
        let id: ArmId = "/subscriptions/S/resourceGroups/RG-team/providers/x"
            .parse()
            .unwrap();
        let same: ArmId = "/Subscriptions/s/resourcegroups/rg-TEAM/providers/X/"
            .parse()
            .unwrap();
        assert_eq!(id, same);
        assert!(id.is_under("/subscriptions/s/resourceGroups/rg-team"));
        assert!(id.is_under("/subscriptions/s/resourceGroups/rg-team/"));
        assert!(!id.is_under("/subscriptions/s/resourceGroups/rg"));
        assert!(id.is_under("/subscriptions"));
    }

    #[test]
    fn odd_arm_ids_are_refused() {
        for text in [
            "",
            "/",
            "subscriptions/s",
            "/subscriptions/s/../t",
            "/subscriptions//s",
            "/subscriptions/s%2f",
            "/subscriptions/s?x",
        ] {
            assert!(text.parse::<ArmId>().is_err(), "{text}");
        }
    }
}
