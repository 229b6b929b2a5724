//! The series of apply. Labels are closed lists and ids of subscriptions; every series exists from the
//! start. In: what workers did. Out: counters on the registry.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use crate::azure::arm::ArmErrorKind;
use crate::serve::series::{children, gauge, registered};

/// What became of a PATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// Azure did it.
    Done,
    /// Azure refused it.
    Refused,
    /// Too many requests.
    Throttled,
    /// Another operation runs, or the resource had changed.
    Conflict,
    /// Nobody knows yet.
    Unknown,
}

impl Patched {
    const LABELS: [&str; 5] = ["done", "refused", "throttled", "conflict", "unknown"];

    /// By what Azure said.
    #[must_use]
    pub const fn by(kind: ArmErrorKind) -> Self {
        match kind {
            ArmErrorKind::Throttled => Self::Throttled,
            ArmErrorKind::Conflict | ArmErrorKind::Precondition => Self::Conflict,
            ArmErrorKind::Unavailable | ArmErrorKind::Nonsense => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// From half a second (the debounce window alone) to an hour.
const BUCKETS: [f64; 13] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// The series.
#[derive(Debug)]
pub struct ApplyMetrics {
    queue: IntGauge,
    patches: [IntCounter; 5],
    throttled: GaugeVec,
    assignment: Histogram,
}

impl ApplyMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let patches = children(
            registry,
            "lanyard_controller_patches_total",
            "Changes of compute resources that were asked of Azure, by what became of them.",
            "result",
            Patched::LABELS,
        )?;
        let throttled = Opts::new(
            "lanyard_controller_throttled_until_seconds",
            "Until when (since the epoch) Azure last asked to wait in a subscription.",
        );
        let assignment = HistogramOpts::new(
            "lanyard_controller_assignment_seconds",
            "Time from when an identity was first wanted on a compute resource until it was Assigned.",
        );
        Ok(Self {
            queue: gauge(
                registry,
                "lanyard_controller_queue_depth",
                "Compute resources with something to do.",
            )?,
            patches,
            throttled: registered(registry, GaugeVec::new(throttled, &["subscription"])?)?,
            assignment: registered(
                registry,
                Histogram::with_opts(assignment.buckets(BUCKETS.to_vec()))?,
            )?,
        })
    }

    /// A compute resource has something to do, until this is dropped.
    #[must_use]
    pub fn queued(&self) -> Queued {
        self.queue.inc();
        Queued(self.queue.clone())
    }

    /// A PATCH came to its end.
    pub fn patched(&self, result: Patched) {
        self.patches[result as usize].inc();
    }

    /// Azure asks to wait until then (since the epoch).
    pub fn throttled(&self, subscription: &str, until: Duration) {
        let gauge = self.throttled.with_label_values(&[subscription]);
        gauge.set(gauge.get().max(until.as_secs_f64()));
    }

    /// An identity is Assigned, this long after it was first wanted.
    pub fn assigned(&self, after: Duration) {
        self.assignment.observe(after.as_secs_f64());
    }
}

/// Counts while it lives.
#[derive(Debug)]
pub struct Queued(IntGauge);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_counts_under_its_own_label() {
        let registry = Registry::new();
        let metrics = ApplyMetrics::register(&registry).unwrap();
        metrics.patched(Patched::by(ArmErrorKind::Throttled));
        metrics.patched(Patched::Unknown);
        drop(metrics.queued());
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "lanyard_controller_patches_total{result=\"throttled\"} 1",
            "lanyard_controller_patches_total{result=\"unknown\"} 1",
            "lanyard_controller_patches_total{result=\"done\"} 0",
            "lanyard_controller_queue_depth 0",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
