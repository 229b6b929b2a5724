//! Tokens handed out by identity: the one label that users name, so the one that must be bounded. A
//! series lives as long as a live pod of this node is granted its identity.

use std::collections::{HashMap, HashSet};

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::model::ids::ObjectName;
use crate::serve::series;

/// `lanyard_identity_tokens_served_total{identity="NAMESPACE/NAME"}`.
#[derive(Debug)]
pub struct Served {
    series: IntCounterVec,
    /// Resolved, so that counting is a look-up and an atomic add.
    current: ArcSwap<HashMap<ObjectName, IntCounter>>,
}

impl Served {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let series = series::family(
            registry,
            "lanyard_identity_tokens_served_total",
            "Tokens handed out, by AzureIdentity (namespace/name).",
            &["identity"],
        )?;
        Ok(Self {
            series,
            current: ArcSwap::default(),
        })
    }

    /// A token of this identity was handed out. One whose last pod went in this instant is not
    /// counted any more.
    pub fn count(&self, identity: &ObjectName) {
        if let Some(counter) = self.current.load().get(identity) {
            counter.inc();
        }
    }

    /// These identities are granted to live pods, and no others. One writer.
    pub fn granted(&self, identities: &HashSet<ObjectName>) {
        let before = self.current.load();
        if before.len() == identities.len() && identities.iter().all(|id| before.contains_key(id)) {
            return;
        }
        let now = identities.iter().map(|identity| {
            let counter = self.series.with_label_values(&[&identity.to_string()]);
            (identity.clone(), counter)
        });
        self.current.store(std::sync::Arc::new(now.collect()));
        for gone in before.keys().filter(|id| !identities.contains(*id)) {
            // It was there: made by the line above, some time ago.
            let _ = self.series.remove_label_values(&[&gone.to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: &Registry) -> String {
        let encoder = prometheus::TextEncoder::new();
        encoder.encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_series_lives_as_long_as_its_identity_is_granted() {
        let registry = Registry::new();
        let served = Served::register(&registry).unwrap();
        let (a, b) = (ObjectName::new("shop", "a"), ObjectName::new("shop", "b"));
        served.count(&a);
        served.granted(&[a.clone()].into());
        served.count(&a);
        served.granted(&[a.clone(), b.clone()].into());
        served.count(&a);
        let series = |name: &str, value: u8| {
            format!("lanyard_identity_tokens_served_total{{identity=\"shop/{name}\"}} {value}")
        };
        assert!(shown(&registry).contains(&series("a", 2)));
        assert!(shown(&registry).contains(&series("b", 0)));
        served.granted(&[b].into());
        assert!(!shown(&registry).contains("shop/a"));
    }
}
