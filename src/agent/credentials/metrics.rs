//! How identities' own credentials fare, as Prometheus series. Labels are the names of `AzureIdentity`s
//! that pods of this node are granted (`NAMESPACE/NAME` in one label: one called `namespace` would be
//! taken for the agent's own by whoever scrapes), and a closed list of codes; a series lives as long as
//! its identity has a ring.

use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::model::ids::ObjectName;
use crate::serve::series::{family, registered};

/// Entra's codes (`AADSTS…`) for a credential that it refuses, as `azure::entra` tells them from other
/// refusals.
const CODES: [(u32, &str); 7] = [
    (50_012, "50012"),
    (700_027, "700027"),
    (700_030, "700030"),
    (7_000_213, "7000213"),
    (7_000_214, "7000214"),
    (7_000_215, "7000215"),
    (7_000_222, "7000222"),
];
const OTHER: &str = "other";

/// The series.
#[derive(Clone, Debug)]
pub struct CredentialMetrics {
    expiry: GaugeVec,
    refused: IntCounterVec,
    usable: IntGaugeVec,
}

impl CredentialMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = ["identity"];
        let expiry = Opts::new(
            "lanyard_credential_expiry_timestamp_seconds",
            "When the newest certificate of an AzureIdentity's Secret ends (since the epoch).",
        );
        let usable = Opts::new(
            "lanyard_credential_usable",
            "1 while an AzureIdentity's Secret holds a credential that is valid and not refused.",
        );
        Ok(Self {
            expiry: registered(registry, GaugeVec::new(expiry, &labels)?)?,
            refused: family(
                registry,
                "lanyard_credential_refused_total",
                "Times that Entra ID refused an AzureIdentity's credential, by its error code (AADSTS).",
                &["identity", "code"],
            )?,
            usable: registered(registry, IntGaugeVec::new(usable, &labels)?)?,
        })
    }

    /// An identity's credential is used from now on.
    pub fn begin(&self, identity: &ObjectName) {
        self.usable(identity, false);
    }

    /// Whether an identity has a credential that can be expected to work.
    pub fn usable(&self, identity: &ObjectName, is: bool) {
        let identity = identity.to_string();
        self.usable
            .with_label_values(&[&identity])
            .set(i64::from(is));
    }

    /// When the newest certificate ends (since the epoch); `None`: there is none.
    pub fn expires(&self, identity: &ObjectName, at: Option<Duration>) {
        let identity = identity.to_string();
        match at {
            Some(at) => self
                .expiry
                .with_label_values(&[&identity])
                .set(at.as_secs_f64()),
            // There may be none.
            None => drop(self.expiry.remove_label_values(&[&identity])),
        }
    }

    /// A credential was refused with this code.
    pub fn refused(&self, identity: &ObjectName, code: u32) {
        let known = CODES.iter().find(|(known, _)| *known == code);
        let code = known.map_or(OTHER, |(_, label)| label);
        let identity = identity.to_string();
        self.refused
            .with_label_values(&[identity.as_str(), code])
            .inc();
    }

    /// An identity needs no credential any more.
    pub fn end(&self, identity: &ObjectName) {
        self.expires(identity, None);
        let identity = identity.to_string();
        let _ = self.usable.remove_label_values(&[&identity]);
        for code in CODES.iter().map(|(_, label)| *label).chain([OTHER]) {
            let labels = [identity.as_str(), code];
            let _ = self.refused.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_of_closed_lists_and_go_with_their_identity() {
        let registry = Registry::new();
        let metrics = CredentialMetrics::register(&registry).unwrap();
        let shown = || {
            prometheus::TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap()
        };
        let identity = ObjectName::new("shop", "app");
        metrics.begin(&identity);
        metrics.usable(&identity, true);
        metrics.expires(&identity, Some(Duration::from_secs(7)));
        for code in [7_000_215, 1, 2, 0] {
            metrics.refused(&identity, code);
        }
        let text = shown();
        for line in [
            r#"lanyard_credential_usable{identity="shop/app"} 1"#,
            r#"lanyard_credential_expiry_timestamp_seconds{identity="shop/app"} 7"#,
            r#"lanyard_credential_refused_total{code="7000215",identity="shop/app"} 1"#,
            r#"lanyard_credential_refused_total{code="other",identity="shop/app"} 3"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        metrics.end(&identity);
        assert!(!shown().contains("shop"), "{}", shown());
    }
}
