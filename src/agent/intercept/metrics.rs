//! What interception tells the operator, as Prometheus series. Every series exists from the start.
//!
//! In: a registry. Out: handles resolved once. No label has a value that a pod can choose.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::drift::DriftKind;
use crate::serve::series;

/// The series of interception.
#[derive(Clone, Debug)]
pub struct InterceptMetrics {
    /// `lanyard_rules_repaired_total{kind}`.
    pub repaired: IntCounterVec,
    /// `lanyard_rules_failures_total`: iptables, its lock, or the state directory failed.
    pub failures: IntCounter,
    /// `lanyard_rules_contested`: 1 while somebody keeps changing the rules.
    pub contested: IntGauge,
    /// `lanyard_rules_epoch`: this instance's.
    pub epoch: IntGauge,
    /// `lanyard_rules_owner`: 1 while new connections come to this instance.
    pub owner: IntGauge,
    /// `lanyard_connections_cut_total`: connections that passed the agent by, and were ended.
    pub cut: IntCounter,
    /// `lanyard_connections_cut_failures_total`: attempts to find them that failed.
    pub cut_failures: IntCounter,
}

impl InterceptMetrics {
    /// Registers all series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| series::counter(registry, name, help);
        let gauge = |name: &str, help: &str| series::gauge(registry, name, help);
        let repaired = series::family(
            registry,
            "lanyard_rules_repaired_total",
            "Repairs of the interception rules, by what was found changed.",
            &["kind"],
        )?;
        for kind in DriftKind::ALL {
            repaired.with_label_values(&[kind.as_str()]);
        }
        Ok(Self {
            repaired,
            failures: counter(
                "lanyard_rules_failures_total",
                "Failed attempts to read or write the interception rules.",
            )?,
            contested: gauge(
                "lanyard_rules_contested",
                "1 while something keeps changing the interception rules.",
            )?,
            epoch: gauge(
                "lanyard_rules_epoch",
                "This instance's epoch; 0 before the first laying.",
            )?,
            owner: gauge(
                "lanyard_rules_owner",
                "1 while new connections come to this instance.",
            )?,
            cut: counter(
                "lanyard_connections_cut_total",
                "Connections to guarded addresses that passed the agent by, and were ended.",
            )?,
            cut_failures: counter(
                "lanyard_connections_cut_failures_total",
                "Failed attempts to find such connections; the REJECT in FORWARD ends them, too.",
            )?,
        })
    }
}
