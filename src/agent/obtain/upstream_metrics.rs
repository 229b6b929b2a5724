//! What is counted of the calls to token sources. Every label is a closed list, every child is made
//! at start. A source may have several services behind it (authorities): what they wait and pause is
//! added up, each giving its part through a [`Part`].

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec};
use prometheus::{Opts, Registry};

use crate::model::facts::SourceFacts;
use crate::serve::series;

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

/// One giver's part of a gauge that several share; taken back when dropped.
#[derive(Debug)]
pub struct Part {
    gauge: IntGauge,
    told: i64,
}

impl Part {
    /// A part of nothing yet.
    const fn of(gauge: IntGauge) -> Self {
        Self { gauge, told: 0 }
    }

    /// The part is this from now on.
    pub fn set(&mut self, count: usize) {
        let count = series::value(count);
        self.gauge.add(count - self.told);
        self.told = count;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.gauge.sub(self.told);
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
    circuit_open: IntGauge,
}

impl UpstreamMetrics {
    /// Registers them; one for each source, in the order of [`SourceFacts::LABELS`].
    pub fn register(registry: &Registry) -> prometheus::Result<[Self; 3]> {
        let requests = series::family(
            registry,
            "lanyard_upstream_requests_total",
            "Calls to a token source by how they ended.",
            &["source", "outcome"],
        )?;
        let duration = histogram(
            registry,
            "lanyard_upstream_request_duration_seconds",
            "Time that a call to a token source took, without the wait before it.",
            &[
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ],
        )?;
        let queue_length = gauge(
            registry,
            "lanyard_upstream_queue_length",
            "Calls that wait for their turn at a token source.",
        )?;
        let queue_wait = histogram(
            registry,
            "lanyard_upstream_queue_wait_seconds",
            "Time that calls waited for their turn at a token source.",
            &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0],
        )?;
        let paused = gauge(
            registry,
            "lanyard_upstream_paused",
            "Pauses that a token source asked for (429): 1 for all of IMDS, 1 for each application at Entra.",
        )?;
        let circuit_open = gauge(
            registry,
            "lanyard_upstream_circuit_open",
            "Services behind a token source that failed several times in a row and are only tried now and then.",
        )?;
        Ok(SourceFacts::LABELS.map(|source| Self {
            requests: CallOutcome::ALL.map(|name| requests.with_label_values(&[source, name])),
            duration: duration.with_label_values(&[source]),
            queue_length: queue_length.with_label_values(&[source]),
            queue_wait: queue_wait.with_label_values(&[source]),
            paused: paused.with_label_values(&[source]),
            circuit_open: circuit_open.with_label_values(&[source]),
        }))
    }

    pub(super) fn called(&self, outcome: CallOutcome, took: Duration) {
        self.requests[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// One call more waits, until the part is dropped.
    pub(super) fn queued(&self) -> Part {
        let mut part = Part::of(self.queue_length.clone());
        part.set(1);
        part
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// One service's pauses.
    pub(super) fn paused(&self) -> Part {
        Part::of(self.paused.clone())
    }

    /// One service's circuit.
    pub(super) fn circuit(&self) -> Part {
        Part::of(self.circuit_open.clone())
    }

    #[cfg(test)]
    pub(super) fn pauses(&self) -> i64 {
        self.paused.get()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> i64 {
        self.queue_length.get()
    }

    #[cfg(test)]
    pub(super) fn open_circuits(&self) -> i64 {
        self.circuit_open.get()
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
    series::registered(
        registry,
        IntGaugeVec::new(Opts::new(name, help), &["source"])?,
    )
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    series::registered(registry, HistogramVec::new(options, &["source"])?)
}
