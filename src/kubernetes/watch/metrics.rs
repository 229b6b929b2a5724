//! What watching tells the operator, as Prometheus series. Every series exists from the start; all
//! labels come from closed lists.

use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::api::kind::Kind;
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

/// What the series are called, written out: who looks for a name finds it.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Time since a kind was heard of.
    pub age: &'static str,
    /// Objects that cannot be used.
    pub malformed: &'static str,
    /// Watches begun again.
    pub restarts: &'static str,
    /// What the process goes on without.
    pub degraded: &'static str,
    /// Age of what is known.
    pub state_age: &'static str,
}

/// The series.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    ages: [Gauge; Kind::EVERY.len()],
    restarts: IntCounterVec,
    malformed: [IntGauge; Kind::EVERY.len()],
    unreachable: IntGauge,
    state_age: Gauge,
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

impl WatchMetrics {
    /// Registers the series.
    pub fn register(registry: &Registry, names: Names) -> prometheus::Result<Self> {
        let opts = Opts::new(
            names.age,
            "Time since the API server was last heard of a kind (an object, a bookmark, a list).",
        );
        let ages = registered(registry, GaugeVec::new(opts, &["kind"])?)?;
        let opts = Opts::new(names.malformed, "Objects of a kind that cannot be used.");
        let malformed = registered(registry, IntGaugeVec::new(opts, &["kind"])?)?;
        let restarts = series::family(
            registry,
            names.restarts,
            "Watches that had to be begun again before their time, by reason.",
            &["kind", "reason"],
        )?;
        let opts = Opts::new(
            names.degraded,
            "1 while this process goes on without something it depends on.",
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
                names.state_age,
                "Age of the oldest part of what this process knows of the cluster.",
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
}
