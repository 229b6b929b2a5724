//! What watching tells the operator, as Prometheus series. Every series exists from the start; all
//! labels come from closed lists.

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::kind::Kind;
use crate::serve::series::{self, registered};

/// Why a watch was begun again before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Nothing came, not even a bookmark.
    Silent,
    /// The server has forgotten the version from which it was to go on.
    Expired,
    /// The connection or the server failed.
    Failed,
}

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
    ages: [Gauge; Kind::EVERY.len()],
    restarts: IntCounterVec,
    malformed: [IntGauge; Kind::EVERY.len()],
    unreachable: IntGauge,
    state_age: Gauge,
    lookups: [IntCounter; 4],
}

impl Restart {
    const ALL: [Self; 3] = [Self::Silent, Self::Expired, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }
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
        let opts = Opts::new(
            "lanyard_watch_age_seconds",
            "Time since the API server was last heard of a kind (an object, a bookmark, a list).",
        );
        let ages = registered(registry, GaugeVec::new(opts, &["kind"])?)?;
        let opts = Opts::new(
            "lanyard_objects_malformed",
            "Objects of a kind that cannot be used.",
        );
        let malformed = registered(registry, IntGaugeVec::new(opts, &["kind"])?)?;
        let restarts = series::family(
            registry,
            "lanyard_watch_restarts_total",
            "Watches that had to be begun again before their time, by reason.",
            &["kind", "reason"],
        )?;
        let opts = Opts::new(
            "lanyard_degraded",
            "1 while the agent goes on without something it depends on.",
        );
        let degraded = registered(registry, IntGaugeVec::new(opts, &["reason"])?)?;
        for kind in Kind::EVERY {
            for reason in Restart::ALL {
                restarts.with_label_values(&[kind.as_str(), reason.as_str()]);
            }
        }
        Ok(Self {
            ages: Kind::EVERY.map(|kind| ages.with_label_values(&[kind.as_str()])),
            restarts,
            malformed: Kind::EVERY.map(|kind| malformed.with_label_values(&[kind.as_str()])),
            unreachable: degraded.with_label_values(&["api_unreachable"]),
            state_age: series::seconds(
                registry,
                "lanyard_state_age_seconds",
                "Age of the oldest part of what the agent knows of the cluster.",
            )?,
            lookups: series::children(
                registry,
                "lanyard_pod_lookups_total",
                "Pods that the watch had not shown yet and that were asked for, by outcome.",
                "outcome",
                Looked::ALL.map(Looked::as_str),
            )?,
        })
    }

    /// The age of what is known of a kind, in seconds.
    pub fn age(&self, kind: Kind, seconds: f64) {
        self.ages[kind as usize].set(seconds);
    }

    /// The age of the oldest part, in seconds.
    pub fn state_age(&self, seconds: f64) {
        self.state_age.set(seconds);
    }

    /// A watch is begun again.
    pub fn restarted(&self, kind: Kind, why: Restart) {
        let labels = [kind.as_str(), why.as_str()];
        self.restarts.with_label_values(&labels).inc();
    }

    /// How many objects of a kind cannot be used.
    pub fn malformed(&self, kind: Kind, count: usize) {
        self.malformed[kind as usize].set(series::value(count));
    }

    /// Whether the API server is out of reach.
    pub fn unreachable(&self, is: bool) {
        self.unreachable.set(i64::from(is));
    }

    /// A pod was looked for.
    pub fn looked(&self, outcome: Looked) {
        self.lookups[outcome as usize].inc();
    }
}
