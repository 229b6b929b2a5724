//! The broker: from a grant to a token, by the identity's sources in their order.
//!
//! In: a [`Request`]. Out: a token and how it came about, or a fault; always within `answer_deadline`.
//! A cached token is served without waiting ([`Broker::try_cached`]); otherwise a caller waits for the
//! key's one flight (invariant 5), and his going away ends nothing. What a token for `claims` says is
//! for its caller only, so that is neither cached nor shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::agent::rate::Shares;
use crate::model::fault::{Fault, FaultKind};
use crate::model::token::Token;

use super::ObtainConfig;
use super::clock::Clock;
use super::key::IdentityKey;
use super::metrics::ObtainMetrics;
use super::request::Request;
use super::slot::Decision;
use super::source::{SourceError, TokenSource};
use super::table::Table;

/// What the rate of uncached tokens calls a second is so many seconds.
const ANEW_SLOWED: u32 = 10;

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

/// One request and until when it is answered.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) request: Request<'a>,
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
    pub(super) anew: Mutex<Shares>,
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
            anew: Mutex::new(Shares::slowed(config.pod_anew, ANEW_SLOWED)),
            metrics,
            clock,
            tasks,
            draining: AtomicBool::new(false),
        })
    }

    /// The token that is at hand, if it can be served as it is: no wait, nothing copied. Starts the
    /// renewal that is due. `None` says nothing about why: ask [`Broker::obtain`].
    pub fn try_cached(self: &Arc<Self>, request: Request<'_>) -> Option<Obtained> {
        if request.is_anew() {
            return None;
        }
        let now = self.clock.now();
        let grant = request.grant;
        for source in &grant.identity.sources {
            let key = IdentityKey::of(source, &grant.identity, request.asker);
            let entry = self.table.find(&key, request.resource)?;
            let cell = entry.cell.lock();
            match cell.slot.decide(now, self.is_not_yet(grant, now)) {
                decision @ (Decision::Serve | Decision::ServeAndRefresh) => {
                    entry.touch(request.asker, now.mono);
                    let ask = Ask {
                        request,
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

    /// A token for this request, within the deadline, or why not.
    pub async fn obtain(self: &Arc<Self>, request: Request<'_>) -> Result<Obtained, Fault> {
        let ask = Ask {
            request,
            deadline: Instant::now() + self.config.answer_deadline,
        };
        if request.is_anew() {
            self.take_anew(request.asker)?;
        }
        match tokio::time::timeout_at(ask.deadline, self.hold(ask)).await {
            Ok(result) => result,
            Err(_) => Err(too_late()),
        }
    }

    /// The time within which a request is answered.
    #[must_use]
    pub fn answer_deadline(&self) -> Duration {
        self.config.answer_deadline
    }

    /// A credential changed: tokens of the matching keys are served on but renewed with the next request
    /// for them, and what was refused is tried again at once.
    pub fn renew(&self, matching: impl Fn(&IdentityKey) -> bool) {
        let now = self.clock.now();
        self.table.each(matching, |entry| {
            entry.cell.lock().slot.renew(now);
        });
    }

    /// The wall clock that lives are measured by (since the Unix epoch).
    #[cfg(test)]
    pub(in crate::agent) fn wall(&self) -> Duration {
        self.clock.wall()
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

/// The deadline came first.
pub(in crate::agent) fn too_late() -> Fault {
    Fault::new(
        FaultKind::UpstreamUnavailable,
        "No token could be had in time",
    )
}
