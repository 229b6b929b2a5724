//! The report of one term of leadership: what is told, and the tasks that bring it to the API server.
//!
//! In: the world, what is wanted, the board, whenever something changed. Out: statuses and Events.
//! [`Reporter::report`] blocks on nothing; its tasks end with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::draft::{Drafts, drafts};
use super::happenings::Happenings;
use super::write::Writer;
use crate::controller::board::Board;
use crate::controller::desire::Ledger;
use crate::controller::lease::Guard;
use crate::controller::world::World;
use crate::kubernetes::Cluster;
use crate::kubernetes::event::{Report, Reporting};
use crate::serve::clock;

/// Who reports Events.
pub const REPORTER: &str = "lanyard.dev/controller";
/// Events that wait to be sent; what comes beyond is left out.
const QUEUE: usize = 256;

/// Tells people how far everything is.
pub struct Reporter {
    drafts: watch::Sender<Arc<Drafts>>,
    events: mpsc::Sender<Report>,
    happenings: Happenings,
    _tasks: JoinSet<()>,
}

impl Reporter {
    /// Begins. `instance`: which controller this is, for Events. `now`: since the epoch.
    #[must_use]
    pub fn begin(cluster: &Cluster, guard: &Guard, instance: &str, now: Duration) -> Self {
        let (drafts, newest) = watch::channel(Arc::default());
        let (events, queue) = mpsc::channel(QUEUE);
        let by = Reporting {
            controller: REPORTER,
            instance: instance.to_owned(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(Writer::new(cluster.clone(), guard.clone(), newest).run());
        tasks.spawn(send(cluster.clone(), guard.clone(), by, queue));
        Self {
            drafts,
            events,
            happenings: Happenings::new(now),
            _tasks: tasks,
        }
    }

    /// Tells how everything is now. Costs time by the number of our objects and compute resources, not
    /// of pods: to be called when something changed, though not for each change.
    pub fn report(&mut self, world: &World, ledger: &Ledger, board: &Board, now: Duration) {
        let drafted = drafts(world, ledger, board);
        self.drafts.send_if_modified(|before| {
            let differs = **before != drafted;
            if differs {
                *before = Arc::new(drafted);
            }
            differs
        });
        for event in self.happenings.look(world, &board.computes(), now) {
            if self.events.try_send(event).is_err() {
                tracing::debug!("an Event was left out: too many at once");
            }
        }
    }
}

async fn send(cluster: Cluster, guard: Guard, by: Reporting, mut queue: mpsc::Receiver<Report>) {
    while let Some(report) = queue.recv().await {
        if guard.until().is_none() {
            continue;
        }
        if let Err(error) = cluster.report(&report, &by, clock::now()).await {
            let object = &report.regarding.name;
            tracing::debug!(%object, reason = report.reason, %error, "an Event was not sent");
        }
    }
}
