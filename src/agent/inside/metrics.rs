//! Series of the listeners inside pods.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

use crate::serve::series::{children, counter, gauge, registered};

/// From 1 ms to 10 s: an idle node takes a few milliseconds.
const BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// The series.
#[derive(Debug)]
pub struct InsideMetrics {
    /// Pods that are served so.
    pub pods: IntGauge,
    /// From the moment at which a sandbox was noticed.
    ready: Histogram,
    /// A namespace could not be entered, or something could not be laid in it.
    pub failed: IntCounter,
    /// A program of the pod's own has what we would lay.
    pub taken: IntCounter,
    /// What was laid had been taken away, and was laid again.
    pub mended: IntCounter,
    /// Threads in pods' networks that did not end in time.
    pub stuck: IntGauge,
    /// Endpoints in pods that are held to outlive the agent.
    pub held: IntGauge,
}

impl InsideMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let ready = HistogramOpts::new(
            "lanyard_inside_ready_seconds",
            "Time from noticing a pod's sandbox to serving inside it.",
        );
        let [failed, taken] = children(
            registry,
            "lanyard_inside_failures_total",
            "Attempts to serve inside a pod that did not succeed, by reason.",
            "reason",
            ["failed", "taken"],
        )?;
        Ok(Self {
            pods: gauge(
                registry,
                "lanyard_inside_pods",
                "Pods that are served from inside their network namespace.",
            )?,
            ready: registered(
                registry,
                Histogram::with_opts(ready.buckets(BUCKETS.to_vec()))?,
            )?,
            failed,
            taken,
            stuck: gauge(
                registry,
                "lanyard_inside_threads_stuck",
                "Threads that entered a pod's network, did not end in time and still have not; their pods are not entered again before.",
            )?,
            held: gauge(
                registry,
                "lanyard_inside_held",
                "Endpoints in pods whose listeners a lanyard hold has, too: if this agent crashes, requests to them wait for the next one.",
            )?,
            mended: counter(
                registry,
                "lanyard_inside_mended_total",
                "Times that the metadata address or its rule was laid again inside a pod that had taken it away.",
            )?,
        })
    }

    /// A sandbox is served, so long after it was noticed.
    pub fn ready(&self, after: Duration) {
        self.ready.observe(after.as_secs_f64());
    }
}
