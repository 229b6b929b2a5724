//! Series that no part owns alone: how long taking in takes, how far identities are. Labels are closed
//! lists; every series exists from the start.

use prometheus::{GaugeVec, Histogram, HistogramOpts, Opts, Registry, Result};

use crate::api::assignment::AssignmentState;
use crate::controller::board::Board;
use crate::serve::series::registered;

/// From a tenth of a millisecond to the two seconds of everything at once.
const SECONDS: [f64; 11] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0,
];
const STATES: [(AssignmentState, &str); 4] = [
    (AssignmentState::Pending, "Pending"),
    (AssignmentState::Assigned, "Assigned"),
    (AssignmentState::Failed, "Failed"),
    (AssignmentState::Removing, "Removing"),
];

/// How long it takes to take in a batch.
pub fn reconcile_seconds(registry: &Registry) -> Result<Histogram> {
    let opts = HistogramOpts::new(
        "lanyard_controller_reconcile_seconds",
        "Time to take in what was observed together and to work out what is wanted because of it.",
    );
    registered(
        registry,
        Histogram::with_opts(opts.buckets(SECONDS.to_vec()))?,
    )
}

/// How many identities are how far.
#[derive(Clone)]
pub struct States(GaugeVec);

impl States {
    /// Registers the series.
    pub fn register(registry: &Registry) -> Result<Self> {
        let opts = Opts::new(
            "lanyard_controller_identities",
            "Identities of virtual machines and scale sets, by how far they are; one counts once for each. 0 while another controller leads.",
        );
        let states = Self(registered(registry, GaugeVec::new(opts, &["state"])?)?);
        states.clear();
        Ok(states)
    }

    /// Counts.
    pub fn count(&self, board: &Board) {
        let computes = board.computes();
        let entries = || {
            computes
                .values()
                .flat_map(|told| told.record.entries.values())
        };
        for (state, label) in STATES {
            let count = entries().filter(|entry| entry.state == state).count();
            self.set(label, count);
        }
    }

    /// This one does not lead (any more).
    pub fn clear(&self) {
        for (_, label) in STATES {
            self.set(label, 0);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "no cluster has 2^52 identities")]
    fn set(&self, label: &str, count: usize) {
        self.0.with_label_values(&[label]).set(count as f64);
    }
}
