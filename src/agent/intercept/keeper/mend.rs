//! The keeper's hands: lays the rules, mends them, ends what passes them by.
//!
//! In: what differs. Out: one transaction per table, read back to make sure. Blocks on iptables and
//! on the rules' lock, each with a deadline. Invariant: the lock is held from reading the epoch to
//! the swap; without the lock nothing is pointed anywhere, only the door is closed.

use std::time::Duration;

use tokio::time::Instant;

use super::super::address::Addresses;
use super::super::backend::Backend;
use super::super::conntrack::{self, Cut};
use super::super::drift::{Drift, DriftKind, drift};
use super::super::exec::Iptables;
use super::super::rules::{BOLT, DesiredTable, Stamp};
use super::super::save::{Rule, Ruleset};
use super::super::script;
use super::super::{InterceptConfig, InterceptError};
use super::{Keeper, describe};

impl Keeper {
    /// Lays the rules for the first time, with a new epoch.
    pub(super) async fn take_over(&mut self, tools: &Iptables) -> Result<(), InterceptError> {
        let lock = match self.state.lock().await {
            Ok(lock) => lock,
            Err(error) => return self.close_door(tools, error).await,
        };
        let actual = self.read(tools).await?;
        let in_force = Stamp::in_force(&actual).map(|stamp| stamp.epoch);
        let epoch = match self.state.next_epoch(&lock, in_force) {
            Ok(epoch) => epoch,
            Err(error) => return self.close_door(tools, error).await,
        };
        let desired = self.desired(Some(epoch));
        let drifts = drift(&desired, &actual);
        tools
            .restore(&script::repair_script(&desired, &actual, &drifts))
            .await?;
        let enters_pods = self.config.enters_pods;
        self.claim = Some(self.state.claim(&lock, epoch, enters_pods)?);
        self.state.clear_removed(&lock);
        self.metrics
            .epoch
            .set(i64::try_from(epoch).unwrap_or(i64::MAX));
        tracing::info!(epoch, port = self.port, backend = %tools.backend, "rules laid");
        self.leave_other_backend(tools.backend).await;
        self.take_leftovers(tools, &desired, &actual).await?;
        drop(lock);
        self.verify(tools, &desired).await?;
        self.cut().await;
        self.settle(epoch);
        Ok(())
    }

    /// Without the right to say where pods' requests go, they at least go nowhere else.
    async fn close_door<T>(
        &mut self,
        tools: &Iptables,
        error: InterceptError,
    ) -> Result<T, InterceptError> {
        let desired = self.desired(None);
        let actual = self.read(tools).await?;
        let script = script::repair_script(&desired, &actual, &drift(&desired, &actual));
        if !script.is_empty() {
            tools.restore(&script).await?;
            self.cut().await;
        }
        Err(error)
    }

    /// Mends what may be mended now; how long until to look again.
    pub(super) async fn repair(
        &mut self,
        tools: &Iptables,
        desired: &[DesiredTable],
        drifts: Vec<Drift>,
    ) -> Result<Duration, InterceptError> {
        let now = Instant::now();
        let waits = drifts
            .iter()
            .map(|drift| self.budget.wait(now, drift.table));
        let wait = waits.min().unwrap_or_default();
        if !wait.is_zero() {
            return Ok(wait);
        }
        let lock = match self.state.lock().await {
            Ok(lock) => lock,
            Err(error) => return self.close_door(tools, error).await,
        };
        if self.yields().is_some() {
            return Ok(Duration::ZERO);
        }
        let actual = self.read(tools).await?;
        let (due, later): (Vec<_>, Vec<_>) = drift(desired, &actual)
            .into_iter()
            .partition(|drift| self.budget.wait(now, drift.table).is_zero());
        let script = script::repair_script(desired, &actual, &due);
        if !script.is_empty() {
            tools.restore(&script).await?;
            self.count(&holder_dead(&actual, desired, due.clone()));
            let repaired = |table| due.iter().any(|drift| drift.table == table);
            let door = repaired("filter") || repaired(BOLT);
            self.budget.record(now, repaired("nat"), door);
        }
        drop(lock);
        let repaired: Vec<_> = desired
            .iter()
            .filter(|want| due.iter().any(|d| d.table == want.table))
            .cloned()
            .collect();
        let verified = self.verify(tools, &repaired).await;
        self.cut().await;
        if self.budget.is_over(now) {
            // Who fights over the rules undoes them before they can be verified.
            self.alarm(if due.is_empty() { &later } else { &due });
        } else {
            verified?;
        }
        let waits = later.iter().map(|drift| self.budget.wait(now, drift.table));
        Ok(waits.min().unwrap_or_default())
    }

    async fn verify(
        &mut self,
        tools: &Iptables,
        desired: &[DesiredTable],
    ) -> Result<(), InterceptError> {
        match drift(desired, &self.read(tools).await?).as_slice() {
            [] => Ok(()),
            left => Err(InterceptError::NotInForce {
                backend: tools.backend,
                drift: describe(left),
            }),
        }
    }

    /// Takes the rules away at the end of an agent that only observes, unless a newer instance has
    /// them: where nobody listens pods must reach IMDS as before.
    pub(super) async fn release(&mut self) {
        let (Some(claim), Some(tools)) = (self.claim.take(), self.tools.clone()) else {
            return;
        };
        let outcome = async {
            let lock = self.state.lock().await?;
            if self.state.successor(claim.epoch).is_some() {
                return Ok(false);
            }
            let actual = tools.read_all().await?;
            let theirs = Stamp::in_force(&actual).is_some_and(|stamp| stamp.epoch != claim.epoch);
            let (script, _) = script::removal_script(&actual);
            if theirs || script.is_empty() {
                return Ok(false);
            }
            tools.restore(&script).await?;
            drop(lock);
            Ok::<_, InterceptError>(true)
        };
        match outcome.await {
            Ok(true) => {
                tracing::info!("rules removed: this agent only observed, and nobody takes over");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the rules stay although nobody listens: pods are refused until an agent starts");
            }
        }
        drop(claim);
    }

    async fn cut(&self) {
        if self.config.open {
            return;
        }
        let outcome = async {
            let local = Addresses::open()?.local().await?;
            let InterceptConfig {
                agent_address: agent,
                guard_wire_server,
                ..
            } = self.config;
            conntrack::cut(&Cut {
                agent,
                guard_wire_server,
                local,
            })
            .await
        };
        match outcome.await {
            Ok(0) => {}
            Ok(ended) => {
                self.metrics.cut.inc_by(ended);
                tracing::warn!(ended, "connections that passed the agent by were ended");
            }
            Err(error) => {
                self.metrics.cut_failures.inc();
                tracing::warn!(%error, "cannot look for connections that pass the agent by; the REJECT in FORWARD ends them");
            }
        }
    }

    /// An instance before this one may have told host-network pods apart: its way in leads nowhere now.
    async fn take_leftovers(
        &self,
        tools: &Iptables,
        desired: &[DesiredTable],
        actual: &Ruleset,
    ) -> Result<(), InterceptError> {
        if self.config.hosts.is_some() {
            return Ok(());
        }
        let (script, removed) = script::leftover_script(desired, actual);
        if !script.is_empty() {
            tools.restore(&script).await?;
            tracing::info!(?removed, "removed what an agent before this one was for");
        }
        Ok(())
    }

    /// An instance that used the other backend may have left its rules there.
    async fn leave_other_backend(&self, backend: Backend) {
        let other = Iptables::new(backend.other());
        let Ok(actual) = other.read_all().await else {
            return;
        };
        let (script, removed) = script::removal_script(&actual);
        if script.is_empty() {
            return;
        }
        match other.restore(&script).await {
            Ok(()) => {
                tracing::info!(?removed, backend = %other.backend, "removed from the other backend");
            }
            Err(error) => tracing::warn!(%error, "rules of ours are left in the other backend"),
        }
    }
}

/// What looks like a changed chain is the chain of a newer instance, now dead.
fn holder_dead(actual: &Ruleset, desired: &[DesiredTable], mut drifts: Vec<Drift>) -> Vec<Drift> {
    let ours = desired
        .iter()
        .find(|want| want.table == "nat")
        .map(|want| want.rules.clone());
    let stamp = |rule: &str| Rule::parse(rule).value("--comment").and_then(Stamp::parse);
    let epoch = ours
        .iter()
        .flatten()
        .find_map(|rule| stamp(rule))
        .map(|stamp| stamp.epoch);
    let theirs = Stamp::in_force(actual).map(|stamp| stamp.epoch);
    if theirs > epoch {
        for drift in &mut drifts {
            if drift.table == "nat" && drift.kind == DriftKind::ChainChanged {
                drift.kind = DriftKind::HolderDead;
            }
        }
    }
    drifts
}
