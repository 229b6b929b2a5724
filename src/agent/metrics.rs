//! The agent's own series. Labels come from closed lists only (but for [`Served`]), and every series
//! exists from the start, so that a scrape shows zeros and an attacker adds nothing. Children are resolved once:
//! counting is an atomic add.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use super::directory::Directory;
use super::obtain::CacheState;
use super::select::Refusal;
use super::served::Served;
use crate::model::facts::SourceFacts;
use crate::model::fault::FaultKind;
use crate::model::query::Dialect;
use crate::serve::series::{counter, family, gauge, registered, value};

/// The series.
#[derive(Debug)]
pub struct AgentMetrics {
    /// By source, then by cache state.
    tokens: [(&'static str, [IntCounter; CacheState::ALL.len()]); SourceFacts::LABELS.len()],
    /// By dialect.
    dialects: [IntCounter; Dialect::ALL.len()],
    /// By identity.
    pub served: Served,
    faults: Vec<IntCounter>,
    refusals: Vec<(&'static str, IntCounter)>,
    forwarded: IntCounter,
    duration: Histogram,
    pods: IntGauge,
    /// Pods whose address a neighbour may claim, and that are served by it.
    pub spoofable: IntGauge,
    bindings: IntGauge,
    identities: IntGauge,
    malformed: IntGauge,
}

/// From 100 µs to 30 s: a cached token takes tens of microseconds, a held request seconds.
const BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
    30.0,
];

impl AgentMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let tokens = family(
            registry,
            "lanyard_tokens_served_total",
            "Tokens handed out, by where they came from.",
            &["source", "cache"],
        )?;
        let dialects = family(
            registry,
            "lanyard_tokens_served_by_dialect_total",
            "Tokens handed out, by the dialect that they were asked for in.",
            &["dialect"],
        )?;
        let requests = family(
            registry,
            "lanyard_requests_failed_total",
            "Requests answered with an error, by its kind.",
            &["kind"],
        )?;
        let refusals = family(
            registry,
            "lanyard_refusals_total",
            "Token requests refused by selection, by reason.",
            &["reason"],
        )?;
        let forwarded = counter(
            registry,
            "lanyard_metadata_forwarded_total",
            "Metadata requests passed on to IMDS under an AzureMetadataException.",
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "lanyard_request_duration_seconds",
                "Time from a request's head to its answer.",
            )
            .buckets(BUCKETS.to_vec()),
        )?;
        let duration = registered(registry, duration)?;
        let info = Opts::new("lanyard_build_info", "Always 1; the version is the label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let info = IntGauge::with_opts(info)?;
        registered(registry, info)?.set(1);
        Ok(Self {
            tokens: SourceFacts::LABELS.map(|source| {
                let of = |cache: CacheState| tokens.with_label_values(&[source, cache.as_str()]);
                (source, CacheState::ALL.map(of))
            }),
            dialects: Dialect::ALL.map(|one| dialects.with_label_values(&[one.as_str()])),
            served: Served::register(registry)?,
            faults: FaultKind::ALL
                .iter()
                .map(|kind| requests.with_label_values(&[kind.as_str()]))
                .collect(),
            refusals: Refusal::LABELS
                .iter()
                .map(|label| (*label, refusals.with_label_values(&[*label])))
                .collect(),
            forwarded,
            duration,
            pods: gauge(
                registry,
                "lanyard_pods",
                "Live pods known, with an address of their own.",
            )?,
            spoofable: gauge(
                registry,
                "lanyard_pods_spoofable",
                "Live pods that are served by their address on a bridge, where a neighbour may claim it.",
            )?,
            bindings: gauge(registry, "lanyard_bindings", "AzureIdentityBindings known.")?,
            identities: gauge(
                registry,
                "lanyard_identities_granted",
                "Identities granted to live pods.",
            )?,
            malformed: gauge(
                registry,
                "lanyard_manifests_malformed",
                "Manifest documents that cannot be used.",
            )?,
        })
    }

    /// A token of this source was handed out.
    pub fn token_served(&self, source: &'static str, cache: CacheState) {
        if let Some((_, counters)) = self.tokens.iter().find(|(label, _)| *label == source) {
            counters[cache as usize].inc();
        }
    }

    /// A token was handed out in this dialect.
    pub fn spoke(&self, dialect: Dialect) {
        self.dialects[dialect as usize].inc();
    }

    /// A request failed.
    pub fn failed(&self, kind: FaultKind) {
        self.faults[kind as usize].inc();
    }

    /// Selection refused.
    pub fn refused(&self, refusal: &Refusal) {
        let label = refusal.label();
        if let Some((_, counter)) = self.refusals.iter().find(|(name, _)| *name == label) {
            counter.inc();
        }
    }

    /// A metadata request was passed on.
    pub fn passed_on(&self) {
        self.forwarded.inc();
    }

    /// A request was answered after this time.
    pub fn answered(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
    }

    /// The directory changed.
    pub fn known(&self, directory: &Directory) {
        self.pods.set(value(directory.known.pods));
        self.identities.set(value(directory.granted.len()));
        self.served.granted(&directory.granted);
    }

    /// So many bindings are known, whether or not they concern a pod here.
    pub fn bindings(&self, count: usize) {
        self.bindings.set(value(count));
    }

    /// The folder was read.
    pub fn malformed(&self, documents: usize) {
        self.malformed.set(value(documents));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start_and_counts_under_its_own_name() {
        let registry = Registry::new();
        let metrics = AgentMetrics::register(&registry).unwrap();
        for kind in FaultKind::ALL {
            metrics.failed(kind);
        }
        metrics.failed(FaultKind::Internal);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(text.contains("lanyard_requests_failed_total{kind=\"internal\"} 2"));
        assert!(text.contains("lanyard_requests_failed_total{kind=\"metadata_header_missing\"} 1"));
        assert!(text.contains("lanyard_tokens_served_total{cache=\"hit\",source=\"imds\"} 0"));
        assert!(text.contains("lanyard_refusals_total{reason=\"ambiguous\"} 0"));
    }
}
