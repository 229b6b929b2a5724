//! Takes in what is observed, and works while this process leads.
//!
//! In: batches, what the board tells, the lease. Out: terms of leadership, one after the other. Blocks on
//! nothing but the records at the beginning of a term. Holds that a term never outlives the time of holding
//! the lease that it began with: the next one begins with records that are read anew, since somebody else
//! may have led in between.

use std::time::Duration;

use anyhow::Context;
use prometheus::{IntGauge, Registry};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::metrics::States;
use super::term::{Means, Term};
use crate::controller::world::Batch;
use crate::serve::series::gauge;

/// Between looks at what has become due without an event.
const TICK: Duration = Duration::from_secs(1);
/// From one working out of all statuses to the next, at least: it costs time by the number of objects.
const REPORT: Duration = Duration::from_millis(250);
/// And so many times as long as the last one took: it is to be a hundredth of the work.
const SHARE: u32 = 100;
/// But not longer than this.
const LONGEST: Duration = Duration::from_secs(3);
/// And without any change, at most: some of what is told is about time that has passed.
const REMIND: Duration = Duration::from_mins(1);

/// What works while it leads.
pub struct Leader {
    means: Means,
    core: Core,
    /// The term, with the number of its time of holding the lease.
    term: Option<(u64, Term)>,
    leads: IntGauge,
    states: States,
    /// Whether something changed that is not told yet, and when to tell it.
    report: Option<Instant>,
    reported: Instant,
    pause: Duration,
}

impl Leader {
    /// Nothing was observed yet.
    pub fn new(means: Means, core: Core, registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            leads: gauge(
                registry,
                "lanyard_controller_leader",
                "1 while this one holds the lease and works, 0 while it stands by.",
            )?,
            states: States::register(registry)?,
            means,
            core,
            term: None,
            report: None,
            reported: Instant::now(),
            pause: REPORT,
        })
    }

    /// Works until `end`, and sees what was sent to its end.
    pub async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        end: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = self.means.board.subscribe();
        let guard = self.means.guard.clone();
        loop {
            let report = self.report.filter(|_| self.term.is_some());
            tokio::select! {
                () = end.cancelled() => break,
                () = guard.lost(), if self.term.is_some() => {}
                () = guard.held(), if self.term.is_none() && self.core.complete => {}
                batch = batches.recv() => {
                    self.take(batch.context("nobody observes any more")?);
                }
                Ok(()) = told.changed() => self.changed(),
                () = sleep_until(report.unwrap_or_else(Instant::now)), if report.is_some() => {
                    self.tell();
                }
                _ = tick.tick() => self.tick(),
            }
            self.change_terms().await;
        }
        if let Some((_, term)) = self.term {
            term.end().await;
        }
        Ok(())
    }

    fn take(&mut self, batch: Batch) {
        let taken = self.core.take(batch);
        if !taken.changes.is_empty() {
            self.changed();
        }
        if let Some((_, term)) = &mut self.term {
            term.pass_on(&self.core, &taken);
        }
    }

    fn tick(&mut self) {
        if self.reported.elapsed() > REMIND {
            self.changed();
        }
        if let Some((_, term)) = &mut self.term {
            term.tick(&self.core);
        }
    }

    /// People are to be told, soon: not for each change.
    fn changed(&mut self) {
        let at = self.reported + self.pause;
        self.report.get_or_insert(at.max(Instant::now()));
    }

    fn tell(&mut self) {
        (self.report, self.reported) = (None, Instant::now());
        if let Some((_, term)) = &mut self.term {
            term.report(&self.core);
            self.states.count(&self.means.board);
        }
        self.pause = (self.reported.elapsed() * SHARE).clamp(REPORT, LONGEST);
    }

    /// Ends a term whose lease is not the same any more, and begins one where there is none.
    async fn change_terms(&mut self) {
        let number = self.means.guard.term();
        if let Some((begun, _)) = &self.term
            && number != Some(*begun)
        {
            tracing::warn!("the lease is lost: nothing is written any more until it is held again");
            // Not waited for: the next leader may work already, and each write has its own end.
            self.term = None;
            self.leads.set(0);
            self.states.clear();
        }
        let Some(number) = number.filter(|_| self.term.is_none() && self.core.complete) else {
            return;
        };
        match Term::begin(&self.means, &self.core).await {
            Ok(term) => {
                tracing::info!("leading: the records are read");
                self.term = Some((number, term));
                self.leads.set(1);
                self.changed();
            }
            Err(error) => {
                tracing::warn!(%error, "the records cannot be read; trying again");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}
