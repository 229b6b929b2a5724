//! What obtaining counts. Every label is a closed list, every child is made at start, so series
//! exist at 0 and nothing that a pod sends can make a new one.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};

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

/// How a call to a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// A token.
    Ok,
    /// The identity is not there (yet).
    NotFound,
    /// Refused for good.
    Refused,
    /// "Being updated": try again.
    Updating,
    /// 429.
    Throttled,
    /// Failed or silent.
    Unavailable,
    /// Nonsense.
    Invalid,
}

impl CallOutcome {
    const ALL: [&'static str; 7] = [
        "ok",
        "not_found",
        "refused",
        "updating",
        "throttled",
        "unavailable",
        "invalid",
    ];
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

/// Of the calls to one source.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    requests: [IntCounter; 7],
    duration: Histogram,
    queue_length: IntGauge,
    queue_wait: Histogram,
    paused: IntGauge,
}

impl UpstreamMetrics {
    /// Registers them for the source `imds`, the only one so far.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = series::family(
            registry,
            "lanyard_upstream_requests_total",
            "Calls to a token source by how they ended.",
            &["source", "outcome"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "lanyard_upstream_request_duration_seconds",
                "Time that a call to a token source took, without the wait before it.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            &["source"],
        )?;
        let duration = series::registered(registry, duration)?;
        let queue_length = series::gauge(
            registry,
            "lanyard_upstream_queue_length",
            "Calls that wait for their turn at IMDS.",
        )?;
        let queue_wait = Histogram::with_opts(
            HistogramOpts::new(
                "lanyard_upstream_queue_wait_seconds",
                "Time that calls waited for their turn at IMDS.",
            )
            .buckets(vec![
                0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
            ]),
        )?;
        let queue_wait = series::registered(registry, queue_wait)?;
        let paused = series::gauge(
            registry,
            "lanyard_upstream_paused",
            "1 while IMDS asked for a pause (429), else 0.",
        )?;
        Ok(Self {
            requests: CallOutcome::ALL.map(|name| requests.with_label_values(&["imds", name])),
            duration: duration.with_label_values(&["imds"]),
            queue_length,
            queue_wait,
            paused,
        })
    }

    pub(super) fn called(&self, outcome: CallOutcome, took: Duration) {
        self.requests[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn queued(&self, length: usize) {
        self.queue_length.set(series::value(length));
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
    }

    #[cfg(test)]
    pub(super) fn is_paused(&self) -> i64 {
        self.paused.get()
    }
}
