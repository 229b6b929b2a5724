//! Keeps the interception rules as they should be, for as long as the agent lives.
//!
//! In: the port that listens, notifications. Out: rules, the `rules` latch, metrics, who owns them.
//! A loop of `read → compare → repair`; every failure is a reason not to be ready and to try again,
//! never an end. Blocks on iptables, never for longer than its deadlines.
//! Invariants: rules point only at a port that listens (the caller has it); the newest living
//! instance owns them; at the end they stay as they are.

mod mend;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::address::Addresses;
use super::backend::{Backend, Decision};
use super::budget::Budget;
use super::drift::{Drift, DriftKind, drift};
use super::epoch::{Claim, StateDir};
use super::exec::{self, Iptables};
use super::rules::{self, DesiredTable, Hosts, Stamp};
use super::save::Ruleset;
use super::watch::Watch;
use super::{InterceptConfig, InterceptError, InterceptMetrics, Ownership};
use crate::model::backoff;
use crate::serve::ready::Latch;

/// A look every now and then, should a notification be missed.
const CALM: Duration = Duration::from_secs(5);
/// The poll where nothing notifies; longer on nodes where reading costs much.
const POLL: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(700));
/// How soon a dead successor is noticed.
const STOOD_DOWN: Duration = Duration::from_millis(200);
/// Pauses after failures: the first, and the longest.
const RETRY: backoff::Bounds = (Duration::from_millis(50), Duration::from_secs(2));
/// A row of changes is over when nothing changed for so long; longer where reading costs much.
const QUIET: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(300));

/// Lays the rules, then keeps them, until `shutdown`; the rules stay, unless the door is open anyway.
///
/// `port` must be listening on the agent's address already. `ready` is closed while the rules are
/// known to be right (this instance's, or those of a newer one).
pub async fn run_keeper(
    config: InterceptConfig,
    port: u16,
    ready: Latch,
    metrics: InterceptMetrics,
    shutdown: CancellationToken,
    ownership: watch::Sender<Ownership>,
) {
    let mut keeper = Keeper {
        state: StateDir::new(&config.state_dir),
        config,
        port,
        ready,
        metrics,
        ownership,
        tools: None,
        claim: None,
        budget: Budget::default(),
        cost: Duration::ZERO,
        contested: false,
    };
    shutdown.run_until_cancelled(Box::pin(keeper.run())).await;
    if keeper.config.open {
        keeper.release().await;
    }
}

struct Keeper {
    config: InterceptConfig,
    port: u16,
    ready: Latch,
    metrics: InterceptMetrics,
    ownership: watch::Sender<Ownership>,
    state: StateDir,
    tools: Option<Iptables>,
    claim: Option<Claim>,
    budget: Budget,
    /// What the last reading took.
    cost: Duration,
    contested: bool,
}

impl Keeper {
    async fn run(&mut self) {
        let mut failures = 0_u32;
        let mut watch: Option<(Backend, Watch)> = None;
        loop {
            let outcome = self
                .step(watch.as_ref().is_some_and(|(_, watch)| watch.notifies()))
                .await;
            let pause = match outcome {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    self.metrics.failures.inc();
                    if failures == 0 {
                        tracing::error!(%error, "interception is not as it should be; trying again");
                    }
                    self.ready.not_ready(error.to_string());
                    let pause = backoff::pause(RETRY, failures);
                    failures = failures.saturating_add(1);
                    sleep(pause).await;
                    continue;
                }
            };
            let Some(tools) = &self.tools else { continue };
            let watch = match &mut watch {
                Some((_, watch)) => watch,
                // From here on nothing is missed; what changed before is found by one more look.
                none => {
                    *none = Some((tools.backend, Watch::open(tools.backend)));
                    continue;
                }
            };
            let quiet = (self.cost * 4).clamp(QUIET.0, QUIET.1);
            let _ = timeout(pause, watch.changed(quiet)).await;
        }
    }

    /// One look, with whatever it leads to; how long until the next one.
    async fn step(&mut self, notified: bool) -> Result<Duration, InterceptError> {
        let tools = self.tools().await?;
        if let Some(pause) = self.yields() {
            return Ok(pause);
        }
        let address_missing = Addresses::open()?.claim(self.config.agent_address).await?;
        let Some(epoch) = self.claim.as_ref().map(|claim| claim.epoch) else {
            self.take_over(&tools).await?;
            return Ok(Duration::ZERO);
        };
        if address_missing {
            tracing::warn!(address = %self.config.agent_address, "address was gone from lo; put back");
            self.count(&[Drift {
                table: "lo",
                hook: "",
                kind: DriftKind::AddressMissing,
            }]);
        }
        let desired = self.desired(Some(epoch));
        let drifts = drift(&desired, &self.read(&tools).await?);
        let poll = if notified {
            CALM
        } else {
            (self.cost * 10).clamp(POLL.0, POLL.1)
        };
        if drifts.is_empty() {
            self.settle(epoch);
            return Ok(poll);
        }
        // While one table has to wait for its repair, the other is still looked at.
        Ok(self.repair(&tools, &desired, drifts).await?.min(poll))
    }

    async fn tools(&mut self) -> Result<Iptables, InterceptError> {
        if let Some(tools) = &self.tools {
            return Ok(tools.clone());
        }
        let Decision { backend, why } = exec::choose(self.config.backend).await?;
        tracing::info!(%backend, why, "iptables backend");
        Ok(self.tools.insert(Iptables::new(backend)).clone())
    }

    fn desired(&self, epoch: Option<u64>) -> Vec<DesiredTable> {
        let stamp = epoch.map(|epoch| Stamp {
            epoch,
            port: self.port,
        });
        let agent = stamp.map(|stamp| (self.config.agent_address, stamp));
        let hosts = self.config.hosts.as_ref().map(|(apart, port)| Hosts {
            cgroups: apart.hierarchy.of_pods(),
            group: apart.own.group,
            port: *port,
        });
        // Without a cgroup what was laid stays as it is: it matches pods that are still there.
        let hosts = hosts.filter(|hosts| !hosts.cgroups.is_empty());
        if self.config.open {
            return rules::desired_open(agent, hosts.as_ref());
        }
        rules::desired(agent, self.config.guard_wire_server, hosts.as_ref())
    }

    async fn read(&mut self, tools: &Iptables) -> Result<Ruleset, InterceptError> {
        let start = Instant::now();
        let ruleset = tools.read().await?;
        self.cost = start.elapsed();
        Ok(ruleset)
    }

    /// Whether the rules are another's to keep; how long until to look again.
    fn yields(&mut self) -> Option<Duration> {
        let Some(claim) = &mut self.claim else {
            return None;
        };
        let to = if self.state.is_removed() {
            self.ready
                .not_ready("`lanyard uninstall` removed the rules; restart to lay them again");
            Ownership::Removed
        } else if let Some(by) = self.state.successor(claim.epoch) {
            self.ready.ready();
            let enters_pods = self.state.enters_pods(by);
            Ownership::StoodDown { by, enters_pods }
        } else {
            let mut kept = self.state.renew(claim);
            if let Some((apart, _)) = &self.config.hosts {
                kept = kept.and(self.state.put_group_back(apart.own.group));
            }
            // Rules are kept all the same: a full disk must not open the node.
            if let Err(error) = kept {
                tracing::warn!(%error, "what this instance is known by cannot be written");
            }
            return None;
        };
        if self.own(to) {
            tracing::info!(?to, "the rules are no longer this instance's to keep");
        }
        Some(STOOD_DOWN)
    }

    fn count(&self, drifts: &[Drift]) {
        for drift in drifts {
            self.metrics
                .repaired
                .with_label_values(&[drift.kind.as_str()])
                .inc();
        }
        tracing::warn!(drift = describe(drifts), "rules repaired");
    }

    fn alarm(&mut self, drifts: &[Drift]) {
        let repairs = self.budget.recent(Instant::now());
        let error = InterceptError::Contested {
            repairs,
            drift: describe(drifts),
        };
        if !std::mem::replace(&mut self.contested, true) {
            tracing::error!(%error, "interception is contested");
        }
        self.metrics.contested.set(1);
        self.ready.not_ready(error.to_string());
    }

    /// All is as it should be.
    fn settle(&mut self, epoch: u64) {
        let alone = self.state.living().iter().all(|one| *one == epoch);
        self.own(Ownership::Owner { epoch, alone });
        if self.contested && self.budget.is_over(Instant::now()) {
            return;
        }
        self.contested = false;
        self.metrics.contested.set(0);
        match &self.config.hosts {
            Some((apart, _)) if apart.hierarchy.of_pods().is_empty() => {
                let root = apart.hierarchy.root().to_owned();
                let error = InterceptError::NoPodsCgroup { root };
                self.ready.not_ready(error.to_string());
            }
            _ => self.ready.ready(),
        }
    }

    fn own(&self, ownership: Ownership) -> bool {
        self.metrics
            .owner
            .set(i64::from(matches!(ownership, Ownership::Owner { .. })));
        self.ownership
            .send_if_modified(|now| std::mem::replace(now, ownership) != ownership)
    }
}

fn describe(drifts: &[Drift]) -> String {
    let words = drifts
        .iter()
        .map(|drift| format!("{} in {} {}", drift.kind.as_str(), drift.table, drift.hook));
    words
        .map(|word| word.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}
