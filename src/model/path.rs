//! A metadata path in the one form in which paths are compared and forwarded.
//!
//! Holds invariant 1 (deny by default): what an operator lists and what a pod asks for are read by
//! the same code, so that they cannot be understood differently. Nothing is decoded here.

use std::fmt;
use std::str::FromStr;

/// A path of plain segments (`[a-z0-9._-]+`, never only dots), in lower case, without a trailing
/// slash. Only such a path can ever be forwarded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PlainPath(String);

/// A text that is not such a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a path of plain segments (letters, digits, `.`, `_`, `-`; none empty or only dots)")]
pub struct NotPlain;

impl PlainPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `parent`, or below it.
    #[must_use]
    pub fn is_at_or_below(&self, parent: &str) -> bool {
        let rest = self.0.strip_prefix(parent);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for PlainPath {
    type Err = NotPlain;

    /// Takes any case, and one trailing slash.
    fn from_str(text: &str) -> Result<Self, NotPlain> {
        let inner = text.strip_prefix('/').ok_or(NotPlain)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let is_plain = |segment: &str| {
            let characters = segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            characters && !segment.bytes().all(|b| b == b'.')
        };
        if !inner.is_empty() && !inner.split('/').all(is_plain) {
            return Err(NotPlain);
        }
        Ok(Self(format!("/{}", inner.to_ascii_lowercase())))
    }
}

impl fmt::Display for PlainPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PlainPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_paths() {
        let parse = |text: &str| text.parse::<PlainPath>().map(|path| path.0);
        assert_eq!(
            parse("/Metadata/In_st-an.ce/"),
            Ok("/metadata/in_st-an.ce".to_owned())
        );
        assert_eq!(parse("/"), Ok("/".to_owned()));
        for wrong in [
            "", "a", "/a//", "/a//b", "/a/.", "/a/../b", "/a%2fb", "/a\\b", "/a;b", "/ä",
        ] {
            assert_eq!(parse(wrong), Err(NotPlain), "{wrong}");
        }
    }

    #[test]
    fn below_ends_at_a_segment() {
        let is = |path: &str| {
            path.parse::<PlainPath>()
                .unwrap()
                .is_at_or_below("/metadata/identity")
        };
        assert!(is("/metadata/identity") && is("/metadata/identity/info"));
        assert!(!is("/metadata") && !is("/metadata/identity2"));
    }
}
