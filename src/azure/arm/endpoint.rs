//! Where ARM is, and the URI of a resource there. Pure.
//!
//! In: a configured endpoint, ids. Out: URIs under that endpoint and no other: every segment of an id is
//! encoded, so that no id leads elsewhere.

use hyper::Uri;

use crate::azure::https::is_private;
use crate::model::escape::escaped;
use crate::model::ids::ArmId;

/// An endpoint that is not `https://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no endpoint of Azure Resource Manager (expected https://HOST as in https://management.azure.com; http only for loopback addresses)"
)]
pub struct NotAnArmEndpoint(pub String);

/// An endpoint of ARM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    base: String,
    uri: Uri,
}

impl Endpoint {
    /// Takes `https://host[:port][/path]`.
    pub fn new(text: &str) -> Result<Self, NotAnArmEndpoint> {
        // A user name or password in a URL must not end in a log.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let bad = || NotAnArmEndpoint(shown.chars().take(253).collect());
        let base = text.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| bad())?;
        let is_plain = uri.query().is_none() && !base.contains(['@', '#']) && is_private(&uri);
        if !is_plain {
            return Err(bad());
        }
        Ok(Self {
            base: base.to_owned(),
            uri,
        })
    }

    /// Whose origin counts.
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The URI of a resource, or of what is below it. `None`: it is longer than a URI may be.
    pub fn of(&self, id: &ArmId, below: &[&str], api_version: &str) -> Option<Uri> {
        let mut text = self.base.clone();
        let segments = id.as_written().trim_matches('/').split('/');
        for segment in segments.chain(below.iter().copied()) {
            text.push('/');
            text.push_str(&escaped(segment));
        }
        text.push_str("?api-version=");
        text.push_str(api_version);
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_lead_elsewhere() {
        let endpoint = Endpoint::new("https://management.azure.com/").unwrap();
        let id: ArmId = "/subscriptions/S/resourceGroups/a.b(c)_@host:1/providers/P/x;y&z=/"
            .parse()
            .unwrap();
        let uri = endpoint.of(&id, &["credentials", "a/../b"], "1").unwrap();
        assert_eq!(
            uri.to_string(),
            "https://management.azure.com/subscriptions/S/resourceGroups/a.b%28c%29_%40host%3A1/providers/P/x%3By%26z%3D/credentials/a%2F..%2Fb?api-version=1"
        );
    }

    #[test]
    fn endpoints_are_https_or_loopback() {
        for text in [
            "https://arm.example:8443",
            "https://proxy/arm",
            "http://127.0.0.1:9",
        ] {
            assert!(Endpoint::new(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "management.azure.com",
            "http://management.azure.com",
            "https://u:p@h",
            "https://h?x=y",
            "ftp://h",
        ] {
            let error = Endpoint::new(text).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
