//! The broker: from a grant to a token, by the identity's sources in their order.
//!
//! In: a grant, a resource, who asks. Out: a token and how it came about, or a fault; always within
//! `answer_deadline`. A cached token is served without waiting ([`Broker::try_cached`]); otherwise
//! a caller waits for the key's one flight (invariant 5), and his going away ends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::agent::rate::Shares;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::{Asker, Grant};
use crate::model::token::Token;

use super::ObtainConfig;
use super::clock::Clock;
use super::key::IdentityKey;
use super::metrics::ObtainMetrics;
use super::slot::Decision;
use super::source::{SourceError, TokenSource};
use super::table::Table;

/// How the cache took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheState {
    /// Served from the cache.
    Hit,
    /// Served from the cache while it is being renewed.
    Refreshing,
    /// Fetched for this request.
    Miss,
    /// Served from the cache although it should have been renewed: the source fails.
    Stale,
}

impl CacheState {
    /// All states, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Hit, Self::Refreshing, Self::Miss, Self::Stale];

    /// Log field and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Refreshing => "refreshing",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

/// One request.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) grant: &'a Grant,
    pub(super) resource: &'a str,
    pub(super) asker: &'a Asker,
    pub(super) deadline: Instant,
}

/// A token for one answer.
#[derive(Clone, Debug)]
pub struct Obtained {
    /// The token.
    pub token: Arc<Token>,
    /// How the cache took part.
    pub cache: CacheState,
    /// Name of the source that gave it.
    pub source: &'static str,
    /// What was left of its life when it was handed out.
    pub left: Duration,
}

/// Obtains tokens. One for the whole agent.
#[derive(Debug)]
pub struct Broker<S: TokenSource> {
    pub(super) config: ObtainConfig,
    pub(super) source: S,
    pub(super) table: Table,
    pub(super) pods: Mutex<Shares>,
    pub(super) metrics: ObtainMetrics,
    pub(super) clock: Clock,
    pub(super) tasks: TaskTracker,
    pub(super) draining: AtomicBool,
}

impl<S: TokenSource> Broker<S> {
    /// A broker with an empty cache. Fetches run as `tasks`.
    #[must_use]
    pub fn new(
        config: ObtainConfig,
        source: S,
        clock: Clock,
        metrics: ObtainMetrics,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            source,
            table: Table::new(config.bounds),
            pods: Mutex::new(Shares::new(config.pod_fetches)),
            metrics,
            clock,
            tasks,
            draining: AtomicBool::new(false),
        })
    }

    /// The token that is at hand, if it can be served as it is: no wait, nothing copied. Starts the
    /// renewal that is due. `None` says nothing about why: ask [`Broker::obtain`].
    pub fn try_cached(
        self: &Arc<Self>,
        grant: &Grant,
        resource: &str,
        asker: &Asker,
    ) -> Option<Obtained> {
        let now = self.clock.now();
        for source in &grant.identity.sources {
            let key = IdentityKey::of(source, &grant.identity, asker);
            let entry = self.table.find(&key, resource)?;
            let cell = entry.cell.lock();
            match cell.slot.decide(now, self.is_not_yet(grant, now)) {
                decision @ (Decision::Serve | Decision::ServeAndRefresh) => {
                    entry.touch(asker, now.mono);
                    let ask = Ask {
                        grant,
                        resource,
                        asker,
                        deadline: self.clock.instant(now.mono),
                    };
                    let refresh = decision == Decision::ServeAndRefresh;
                    return self.serve(&entry, cell, refresh, source, ask, now).ok();
                }
                Decision::Refuse(_)
                    if matches!(cell.slot.refusal(), Some(SourceError::NotHere(_))) => {}
                _ => return None,
            }
        }
        None
    }

    /// A token for this grant and resource, within the deadline, or why not.
    pub async fn obtain(
        self: &Arc<Self>,
        grant: &Grant,
        resource: &str,
        asker: &Asker,
    ) -> Result<Obtained, Fault> {
        let ask = Ask {
            grant,
            resource,
            asker,
            deadline: Instant::now() + self.config.answer_deadline,
        };
        match tokio::time::timeout_at(ask.deadline, self.hold(ask)).await {
            Ok(result) => result,
            Err(_) => Err(Fault::new(
                FaultKind::UpstreamUnavailable,
                "No token could be had in time",
            )),
        }
    }

    /// Keeps only the identities that live pods may use.
    pub fn retain(&self, alive: impl Fn(&IdentityKey) -> bool) {
        self.table.retain(alive);
        self.metrics.set_entries(self.table.len());
    }

    /// Another instance takes over: no renewals ahead of need any more, and a small share upstream.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.source.drain(true);
    }

    /// The other instance is gone: everything is as before [`Broker::set_draining`].
    pub fn resume(&self) {
        self.draining.store(false, Ordering::Relaxed);
        self.source.drain(false);
    }
}
