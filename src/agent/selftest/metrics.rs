//! What the self-test tells the operator, as Prometheus series. Every series exists from the start.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::Failure;
use crate::serve::series;

/// The series of the self-test.
#[derive(Clone, Debug)]
pub struct SelfTestMetrics {
    /// `lanyard_selftest_ok`: 1 while the last tests passed.
    pub ok: IntGauge,
    failures: IntCounterVec,
}

impl SelfTestMetrics {
    /// Registers all series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let ok = series::gauge(
            registry,
            "lanyard_selftest_ok",
            "1 while a packet that comes in like a pod's is known to reach the agent.",
        )?;
        let failures = series::family(
            registry,
            "lanyard_selftest_failures_total",
            "Self-tests that failed, by how far the packet came.",
            &["stage"],
        )?;
        for stage in Failure::STAGES {
            failures.with_label_values(&[stage]);
        }
        Ok(Self { ok, failures })
    }

    /// A test failed.
    pub fn failed(&self, failure: &Failure) {
        self.failures.with_label_values(&[failure.stage()]).inc();
    }
}
