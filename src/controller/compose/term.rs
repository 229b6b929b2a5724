//! One term of leadership: what works while this process holds the lease, and ends with it.
//!
//! In: what is wanted, from the core. Out: workers for compute resources and for managed identities.
//! Begins with records that were read anew: what the last leader wrote an instant ago counts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::core::{Core, Taken};
use super::source::{KeptThere, Source};
use crate::azure::arm::ArmClient;
use crate::controller::apply::{Applier, ApplyMetrics, Paces, Surroundings};
use crate::controller::board::Board;
use crate::controller::config::Pace;
use crate::controller::identities::Identities;
use crate::controller::lease::Guard;
use crate::controller::managed::{Managed, Mode, Paced, Settings};
use crate::controller::records::{RecordError, Records};
use crate::controller::report::Reporter;
use crate::controller::world::Change;
use crate::kubernetes::Cluster;
use crate::model::ids::ArmId;
use crate::serve::clock;

/// How long writes that were sent already may take to be told when a term ends.
const LAST_WRITES: Duration = Duration::from_secs(9);

/// What all terms of this process share.
pub struct Means {
    /// Where objects come from and records are kept.
    pub source: Source,
    /// Azure Resource Manager.
    pub arm: ArmClient,
    /// Whether this process leads.
    pub guard: Guard,
    /// How the work is done.
    pub pace: Pace,
    /// What Azure asked to wait for: it counts over terms.
    pub paces: Arc<Paces>,
    /// Where is told how far all are.
    pub board: Arc<Board>,
    /// The series of apply.
    pub metrics: Arc<ApplyMetrics>,
    /// Whether Lanyard stays.
    pub mode: watch::Receiver<Mode>,
    /// What holds for all managed identities; without a cluster there are none.
    pub managed: Option<Settings>,
    /// Who this replica is, in Events.
    pub name: String,
}

/// What works during one term.
pub struct Term {
    applier: Applier<ArmClient, KeptThere, Guard>,
    managed: Option<Managed<Paced, Cluster, Guard>>,
    reporter: Option<Reporter>,
    named: watch::Sender<Arc<BTreeSet<ArmId>>>,
    board: Arc<Board>,
    mode: watch::Receiver<Mode>,
    _asking: JoinSet<anyhow::Result<()>>,
}

impl Term {
    /// Begins with everything that is wanted.
    pub async fn begin(means: &Means, core: &Core) -> Result<Self, RecordError> {
        let records = means.source.records();
        let kept = records.all().await?;
        let (doubts, doubted) = mpsc::channel(64);
        let applier = Applier::new(Surroundings {
            arm: means.arm.clone(),
            records,
            lease: means.guard.clone(),
            paces: means.paces.clone(),
            board: means.board.clone(),
            doubts,
            metrics: means.metrics.clone(),
            now: clock::since_epoch,
            pace: means.pace,
        });
        let (named, wanted) = watch::channel(Arc::new(core.ledger.named().clone()));
        let mut asking = JoinSet::new();
        asking.spawn(
            Identities {
                arm: means.arm.clone(),
                paces: means.paces.clone(),
                board: means.board.clone(),
                wanted,
                doubted,
                interval: means.pace.drift_interval,
                now: clock::since_epoch,
            }
            .run(),
        );
        applier.begin(kept, core.all_wanted());
        let cluster = means.source.cluster();
        let managed = cluster.zip(means.managed.as_ref());
        let managed = managed.map(|(cluster, settings)| {
            let azure = Paced {
                arm: means.arm.clone(),
                paces: means.paces.clone(),
            };
            let mut managed = Managed::new(
                (azure, cluster.clone(), means.guard.clone()),
                settings.clone(),
                means.board.clone(),
                means.mode.clone(),
                clock::since_epoch,
            );
            managed.start(&core.world);
            managed
        });
        let now = clock::since_epoch();
        Ok(Self {
            applier,
            managed,
            reporter: cluster
                .map(|cluster| Reporter::begin(cluster, &means.guard, &means.name, now)),
            named,
            board: means.board.clone(),
            mode: means.mode.clone(),
            _asking: asking,
        })
    }

    /// Passes on what a batch changed.
    pub fn pass_on(&mut self, core: &Core, taken: &Taken) {
        // What is being removed begins nothing.
        let serves = *self.mode.borrow() == Mode::Serve;
        for wanted in taken.computes.iter().filter_map(|id| core.wanted(id)) {
            if serves {
                self.applier.want(wanted);
            }
        }
        for change in &taken.changes {
            if let Change::Assignment(name, None) = change {
                self.applier.lost(name);
            }
        }
        if let Some(managed) = &mut self.managed {
            managed.update(&core.world, &taken.changes);
        }
        self.named.send_if_modified(|before| {
            let differs = **before != *core.ledger.named();
            if differs {
                *before = Arc::new(core.ledger.named().clone());
            }
            differs
        });
    }

    /// What becomes due without a change.
    pub fn tick(&mut self, core: &Core) {
        if let Some(managed) = &mut self.managed {
            managed.update(&core.world, &[]);
        }
    }

    /// Tells people how everything is.
    pub fn report(&mut self, core: &Core) {
        let now = clock::since_epoch();
        if let Some(reporter) = &mut self.reporter {
            reporter.report(&core.world, &core.ledger, &self.board, now);
        }
    }

    /// Ends it: no new writes; waits for those that were sent.
    pub async fn end(self) {
        let managed = async {
            if let Some(managed) = self.managed {
                managed.end(LAST_WRITES).await;
            }
        };
        tokio::join!(self.applier.stop(LAST_WRITES), managed);
    }
}
