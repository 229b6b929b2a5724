//! What watching tells the operator, as Prometheus series: those of every process that watches, and
//! how looks for single pods ended. Every series exists from the start; all labels come from closed lists.

use prometheus::{IntCounter, Registry};

use crate::kubernetes::watch;
use crate::serve::series;

const NAMES: watch::Names = watch::Names {
    age: "lanyard_watch_age_seconds",
    malformed: "lanyard_objects_malformed",
    restarts: "lanyard_watch_restarts_total",
    degraded: "lanyard_degraded",
    state_age: "lanyard_state_age_seconds",
};

/// How a look for one pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is a pod with that address.
    Found,
    /// There is none.
    Nothing,
    /// The API server did not answer.
    Failed,
    /// Too many at once: it was not asked.
    Limited,
}

/// The series.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    /// Those of every process that watches.
    pub shared: watch::WatchMetrics,
    lookups: [IntCounter; 4],
}

impl Looked {
    const ALL: [Self; 4] = [Self::Found, Self::Nothing, Self::Failed, Self::Limited];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Nothing => "nothing",
            Self::Failed => "failed",
            Self::Limited => "limited",
        }
    }
}

impl WatchMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            shared: watch::WatchMetrics::register(registry, NAMES)?,
            lookups: series::children(
                registry,
                "lanyard_pod_lookups_total",
                "Pods that the watch had not shown yet and that were asked for, by outcome.",
                "outcome",
                Looked::ALL.map(Looked::as_str),
            )?,
        })
    }

    /// A pod was looked for.
    pub fn looked(&self, outcome: Looked) {
        self.lookups[outcome as usize].inc();
    }
}
