//! Obtain: a grant and a resource in, a token out.
//!
//! ```text
//! Broker ── Table (entries by identity and resource, bounded)
//!   │         └── Slot: serve | serve and renew | fetch | wait | refuse      (pure)
//!   └── flight: one fetch per key, in its own task
//!         └── Sources ── imds | service_principal | federated
//!               ├── Upstream, one for each service: Circuit (pure), Governor ── Turns (pure)
//!               └── claims_of / admit: whose token is this, may this pod have it   (pure)
//! ```
//!
//! May wait for a fetch, at most `answer_deadline`; a cached token needs no wait at all. Keeps
//! invariants 4 and 5: a token shows nowhere but in its answer, and one key has at most one fetch
//! in flight.

mod ask;
mod broker;
mod circuit;
mod clock;
mod entra;
mod entry;
#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
pub(super) mod fake;
mod federated;
mod flight;
mod governor;
mod imds;
mod key;
mod metrics;
mod request;
mod service;
mod service_principal;
mod slot;
mod source;
mod table;
mod turns;
mod upstream;
mod upstream_metrics;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::credentials::Credentials;
use super::rate::Rate;
use crate::azure::imds::ImdsClient;
use crate::model::facts::SourceFacts;
use crate::model::token::Token;

pub(in crate::agent) use broker::too_late;
pub use broker::{Broker, CacheState, Obtained};
pub use clock::{Clock, Moment};
pub use entra::EntraSetup;
pub use federated::{AUDIENCE, AccountAnswer, AccountTokens, ApiServer};
pub use key::IdentityKey;
pub use metrics::ObtainMetrics;
pub use request::Request;
pub use source::{Call, SourceError, TokenSource, Urgency};
pub use table::Bounds;
pub use turns::TurnLimits;
pub use upstream_metrics::UpstreamMetrics;

use entra::Entra;
use federated::FederatedSource;
use imds::ImdsSource;
use service::Service;
use service_principal::ServicePrincipalSource;
use upstream::Upstream;

/// How obtaining is done. The defaults are what the documentation promises.
#[derive(Clone, Copy, Debug)]
pub struct ObtainConfig {
    /// Every request is answered within this time.
    pub answer_deadline: Duration,
    /// What may be sent to IMDS.
    pub upstream: TurnLimits,
    /// What may be sent to each of Entra's authorities.
    pub entra: TurnLimits,
    /// For this long after its first sight, an identity that IMDS does not know is "not yet".
    pub not_yet_window: Duration,
    /// For this long a request for such an identity is held.
    pub not_yet_hold: Duration,
    /// Fetches that one pod may cause.
    pub pod_fetches: Rate,
    /// Requests of one pod that the cache will not do for (`claims`, `bypass_cache`); `per_second` is
    /// counted for ten seconds.
    pub pod_anew: Rate,
    /// How much is cached.
    pub bounds: Bounds,
}

impl Default for ObtainConfig {
    fn default() -> Self {
        Self {
            answer_deadline: Duration::from_secs(20),
            // IMDS allows the whole node 20 in a second and 5 at once. Of these 15 and 3 at most
            // are for tokens: the rest is for a draining instance, for forwarded metadata, and for
            // calls that left apart and arrive together.
            upstream: TurnLimits {
                rate: Rate {
                    per_second: 12,
                    burst: 3,
                },
                concurrency: 3,
                per_identity: 2,
                waiting: 1024,
                waiting_per_asker: 64,
            },
            // Entra's own limits are per application and far higher; these keep a node that starts
            // cold from being a burst.
            entra: TurnLimits {
                rate: Rate {
                    per_second: 50,
                    burst: 50,
                },
                concurrency: 8,
                per_identity: 2,
                waiting: 1024,
                waiting_per_asker: 64,
            },
            not_yet_window: Duration::from_mins(10),
            not_yet_hold: Duration::from_secs(3),
            pod_fetches: Rate {
                per_second: 2,
                burst: 20,
            },
            pod_anew: Rate {
                per_second: 1,
                burst: 5,
            },
            bounds: Bounds {
                per_identity: 64,
                total: 10_000,
            },
        }
    }
}

/// The sources of an agent: each kind of [`SourceFacts`] has its place here.
#[derive(Debug)]
pub struct Sources {
    imds: ImdsSource,
    entra: Entra,
    service_principal: ServicePrincipalSource,
    federated: FederatedSource,
}

impl TokenSource for Sources {
    async fn fetch(&self, call: Call, urgency: Urgency) -> Result<Token, SourceError> {
        match &call.source {
            SourceFacts::Imds => self.imds.fetch(&call, urgency).await,
            SourceFacts::Federated(endpoint) => {
                let (endpoint, source) = (endpoint.as_deref(), &self.federated);
                source.fetch(&self.entra, endpoint, &call, urgency).await
            }
            SourceFacts::ServicePrincipal(credential) => {
                let source = &self.service_principal;
                source.fetch(&self.entra, credential, &call, urgency).await
            }
        }
    }

    fn drain(&self, draining: bool) {
        // Entra counts applications' requests, not the node's: there is no share to give up.
        self.imds.drain(draining);
    }
}

/// What the sources stand on.
#[derive(Debug)]
pub struct Ground {
    /// The node's IMDS.
    pub imds: ImdsClient,
    /// Entra ID.
    pub entra: EntraSetup,
    /// Credentials of service principals.
    pub credentials: Credentials,
    /// Tokens of service accounts; `None` without an API server.
    pub accounts: Option<Arc<dyn AccountTokens>>,
}

/// Puts a broker together: all sources behind their governors behind the cache. `wall` reads the wall
/// clock (since the Unix epoch); fetches run as `tasks`. Fails only if the metrics are registered already.
pub fn compose(
    config: ObtainConfig,
    ground: Ground,
    wall: impl Fn() -> Duration + Send + Sync + 'static,
    registry: &prometheus::Registry,
    tasks: TaskTracker,
) -> prometheus::Result<Arc<Broker<Sources>>> {
    let clock = Clock::new(wall);
    let upstreams = UpstreamMetrics::register(registry)?;
    let [of_imds, ..] = upstreams.clone();
    let upstream = Upstream::new(Service::Imds, config.upstream, clock.clone(), of_imds);
    let sources = Sources {
        imds: ImdsSource::new(ground.imds, upstream, clock.clone()),
        entra: Entra::new(ground.entra, config.entra, clock.clone(), upstreams),
        service_principal: ServicePrincipalSource::new(ground.credentials, clock.clone()),
        federated: FederatedSource::new(ground.accounts),
    };
    let metrics = ObtainMetrics::register(registry)?;
    Ok(Broker::new(config, sources, clock, metrics, tasks))
}

#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
mod tests;
