//! Prometheus series, made and registered in one step.
//!
//! In: a registry, a name, a help text. Out: the handle to count with. A family's children are made
//! here from a closed list, so that every series exists from the start and no request makes a new one.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result};

/// Registers a metric and gives it back.
pub fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A counter without labels.
pub fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    registered(registry, IntCounter::new(name, help)?)
}

/// A gauge of whole numbers without labels.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    registered(registry, IntGauge::new(name, help)?)
}

/// A gauge of seconds without labels.
pub fn seconds(registry: &Registry, name: &str, help: &str) -> Result<Gauge> {
    registered(registry, Gauge::new(name, help)?)
}

/// A family of counters.
pub fn family(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

/// A family with one label, as its children in the order of `values`.
pub fn children<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: [&str; N],
) -> Result<[IntCounter; N]> {
    let family = family(registry, name, help, &[label])?;
    Ok(values.map(|value| family.with_label_values(&[value])))
}

/// A count as a gauge's value.
pub fn value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
