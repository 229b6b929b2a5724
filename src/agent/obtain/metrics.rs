//! What obtaining counts. Every label is a closed list, every child is made at start, so series
//! exist at 0 and nothing that a pod sends can make a new one.

use prometheus::{IntCounter, IntGauge, Registry};

use super::slot::Renewal;
use crate::serve::series;

/// Result of a cache look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A good token was there.
    Hit,
    /// A caller had to wait for a fetch.
    Miss,
    /// A token was served although a longer one could not be had.
    Stale,
    /// A refusal was there.
    Negative,
}

impl Lookup {
    const ALL: [&'static str; 4] = ["hit", "miss", "stale", "negative"];
}

/// Of the cache.
#[derive(Clone, Debug)]
pub struct ObtainMetrics {
    entries: IntGauge,
    lookups: [IntCounter; 4],
    refreshes: [IntCounter; 3],
}

impl ObtainMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let entries = series::gauge(
            registry,
            "lanyard_cache_entries",
            "Cache keys (identity and resource) that are known, with or without a token.",
        )?;
        let lookups = series::children(
            registry,
            "lanyard_cache_lookups_total",
            "Token requests by what the cache had.",
            "result",
            Lookup::ALL,
        )?;
        let refreshes = series::children(
            registry,
            "lanyard_token_refreshes_total",
            "Fetches of tokens by what they brought.",
            "outcome",
            ["renewed", "unchanged", "failed"],
        )?;
        Ok(Self {
            entries,
            lookups,
            refreshes,
        })
    }

    pub(super) fn set_entries(&self, count: usize) {
        self.entries.set(series::value(count));
    }

    pub(super) fn lookup(&self, result: Lookup) {
        self.lookups[result as usize].inc();
    }

    pub(super) fn refreshed(&self, outcome: Renewal) {
        self.refreshes[outcome as usize].inc();
    }
}
