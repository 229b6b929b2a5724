//! Entra ID as the sources ask it: which authority, over which connection, at whose pace.
//!
//! In: a call, and a token endpoint where the identity names one. Out: a [`Target`] that a proof can be
//! sent to, or a fault in the caller's terms. Blocks for a turn and on the network, each attempt at most
//! [`ATTEMPT_LIMIT`], all of it at most until the call's deadline; once also on the system's certificate
//! authorities, which are read when the first token is asked for. Authorities are remembered within
//! bounds, each with its circuit and its governor.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Uri;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use crate::azure::credential::{AssertionAlgorithm, CredentialError};
use crate::azure::entra::{EntraClient, EntraError, Proof, TokenRequest, token_endpoint};
use crate::azure::https::{HttpsClient, HttpsConfig, HttpsConfigError, ProxyRules, Roots};
use crate::model::facts::{EndpointFacts, SourceFacts};
use crate::model::fault::{Fault, FaultKind};
use crate::model::ids::Guid;
use crate::model::token::Token;

use super::clock::Clock;
use super::service::{SOON, Service};
use super::source::{Call, Urgency};
use super::turns::TurnLimits;
use super::upstream::{Judged, Upstream};
use super::upstream_metrics::{CallOutcome, UpstreamMetrics};

/// The most that one call to Entra may take once its turn has come.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
/// Authorities that are remembered, each for one source; those in use beyond that are an error. As many
/// again with a CA bundle or a name for TLS of an identity's own: operators list the others, but of
/// these a team can make any number, which must not push the others out.
const AUTHORITIES: usize = 256;
/// The longest that a caller is told to wait because Entra is in trouble.
const TROUBLE: Duration = Duration::from_secs(30);

/// Where Entra is, and how to get there.
#[derive(Clone, Debug)]
pub struct EntraSetup {
    /// Where an identity states no `authorityHost`: `https://HOST[:PORT]`.
    pub authority_host: String,
    /// The tenant of identities that state none.
    pub tenant: Option<Guid>,
    /// Whom to believe there.
    pub roots: Roots,
    /// Proxies for the way there.
    pub proxies: ProxyRules,
}

/// One authority or token endpoint, for one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    source: &'static str,
    /// Scheme, host and port.
    origin: String,
    ca_bundle: Option<Arc<str>>,
    sni: Option<Arc<str>>,
}

impl Place {
    /// Whether an identity says itself how to get there.
    const fn is_custom(&self) -> bool {
        self.ca_bundle.is_some() || self.sni.is_some()
    }
}

/// What is known of a [`Place`].
#[derive(Debug)]
struct Authority {
    client: EntraClient,
    upstream: Upstream,
    /// Whether it refuses PS256 (AADSTS5002738).
    wants_rs256: AtomicBool,
    /// When it was used last (a count).
    used: AtomicU64,
}

/// All authorities of an agent.
#[derive(Debug)]
pub struct Entra {
    setup: EntraSetup,
    limits: TurnLimits,
    clock: Clock,
    metrics: [UpstreamMetrics; 3],
    /// The connections to everything that is believed by the usual roots.
    usual: OnceCell<HttpsClient>,
    authorities: Mutex<HashMap<Place, Arc<Authority>>>,
    uses: AtomicU64,
}

/// An authority and a tenant there.
#[derive(Debug)]
pub struct Target {
    authority: Arc<Authority>,
    endpoint: Uri,
    clock: Clock,
}

impl Entra {
    /// No authority is known yet. `metrics`: in the order of [`SourceFacts::LABELS`].
    #[must_use]
    pub fn new(
        setup: EntraSetup,
        limits: TurnLimits,
        clock: Clock,
        metrics: [UpstreamMetrics; 3],
    ) -> Self {
        Self {
            setup,
            limits,
            clock,
            metrics,
            usual: OnceCell::new(),
            authorities: Mutex::default(),
            uses: AtomicU64::new(0),
        }
    }

    /// Where this call's tokens are asked for: at `endpoint`, else at the identity's authority, else at
    /// the cloud's.
    pub async fn target(
        &self,
        call: &Call,
        endpoint: Option<&EndpointFacts>,
    ) -> Result<Target, Fault> {
        let identity = &call.grant.identity;
        let tenant = identity.tenant_id.or(self.setup.tenant).ok_or_else(|| {
            Fault::new(
                FaultKind::CredentialUnusable,
                "The identity's tenant is not known: its AzureIdentity states no tenantID",
            )
            .with_detail(format!(
                "AzureIdentity {} states no tenantID, and the agent has no --tenant-id",
                identity.name
            ))
        })?;
        let base = endpoint.map_or_else(
            || {
                let own = identity.authority_host.as_deref();
                own.unwrap_or(&self.setup.authority_host)
            },
            |endpoint| &endpoint.url,
        );
        let unusable = |why: String| {
            Fault::new(
                FaultKind::CredentialUnusable,
                "The identity's token endpoint cannot be used",
            )
            .with_detail(format!("AzureIdentity {}: {why}", identity.name))
        };
        let uri = token_endpoint(base, tenant).map_err(|error| unusable(error.to_string()))?;
        let place = Place {
            source: call.source.as_str(),
            origin: origin(&uri),
            ca_bundle: endpoint.and_then(|endpoint| endpoint.ca_bundle.clone()),
            sni: endpoint.and_then(|endpoint| endpoint.sni.clone()),
        };
        let known = self.authorities.lock().get(&place).cloned();
        let authority = if let Some(authority) = known {
            authority
        } else {
            let client = self.client(&place).await;
            self.remember(place, client.map_err(|error| unusable(error.to_string()))?)?
        };
        let use_number = self.uses.fetch_add(1, Ordering::Relaxed);
        authority.used.store(use_number, Ordering::Relaxed);
        Ok(Target {
            authority,
            endpoint: uri,
            clock: self.clock.clone(),
        })
    }

    async fn client(&self, place: &Place) -> Result<HttpsClient, HttpsConfigError> {
        let usual = HttpsConfig {
            roots: self.setup.roots.clone(),
            server_name: None,
            proxies: self.setup.proxies.clone(),
        };
        if place.ca_bundle.is_none() && place.sni.is_none() {
            let made = self.usual.get_or_try_init(|| made(usual)).await;
            return made.cloned();
        }
        let only = place.ca_bundle.as_deref();
        made(HttpsConfig {
            roots: only.map_or(usual.roots, |pem| Roots::Only(pem.to_owned())),
            server_name: place.sni.as_deref().map(str::to_owned),
            ..usual
        })
        .await
    }

    /// Remembers an authority; whoever was faster is kept. Makes room by forgetting the one that was
    /// used least lately and is not in use.
    fn remember(&self, place: Place, client: HttpsClient) -> Result<Arc<Authority>, Fault> {
        let mut authorities = self.authorities.lock();
        let like = |other: &Place| other.is_custom() == place.is_custom();
        let alike = authorities.keys().filter(|other| like(other)).count();
        if !authorities.contains_key(&place) && alike >= AUTHORITIES {
            let idle = authorities.iter().filter(|(other, _)| like(other));
            let idle = idle.filter(|(_, authority)| Arc::strong_count(authority) == 1);
            let oldest = idle.min_by_key(|(_, authority)| authority.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(place, _)| place.clone());
            let oldest = oldest.ok_or_else(|| {
                Fault::new(
                    FaultKind::Overloaded,
                    "Too many token endpoints are in use on this node",
                )
            })?;
            authorities.remove(&oldest);
        }
        let at = SourceFacts::LABELS
            .iter()
            .position(|label| *label == place.source);
        let metrics = self.metrics[at.unwrap_or_default()].clone();
        let authority = authorities.entry(place).or_insert_with(|| {
            Arc::new(Authority {
                client: EntraClient::new(client),
                upstream: Upstream::new(Service::Entra, self.limits, self.clock.clone(), metrics),
                wants_rs256: AtomicBool::new(false),
                used: AtomicU64::new(0),
            })
        });
        Ok(Arc::clone(authority))
    }
}

/// What is presented.
#[derive(Clone, Copy)]
pub enum Evidence<'a> {
    /// This, as it is.
    Proof(Proof<'a>),
    /// An assertion that is signed when its turn has come: it does not age in the queue, and a node whose
    /// tokens are due together does not sign for all of them at once.
    Signed(&'a Sign<'a>),
}

/// Signs an assertion.
pub type Sign<'a> = dyn Fn() -> Result<SecretString, CredentialError> + Send + Sync + 'a;

impl Target {
    /// Asks for the call's token with this evidence: what Entra says, or a fault where it is not asked.
    pub async fn token(
        &self,
        call: &Call,
        urgency: &mut Urgency,
        evidence: Evidence<'_>,
    ) -> Result<Result<Token, EntraError>, Fault> {
        let attempt = |limit| async move {
            let signed;
            let proof = match evidence {
                Evidence::Proof(proof) => proof,
                Evidence::Signed(sign) => {
                    signed = sign().map_err(|error| EntraError::Invalid(error.to_string()))?;
                    Proof::Assertion(&signed)
                }
            };
            let request = TokenRequest {
                endpoint: &self.endpoint,
                client_id: call.grant.identity.client_id,
                resource: &call.resource,
                proof,
                claims: call.claims.as_deref(),
            };
            let client = &self.authority.client;
            client.token(&request, limit, || self.clock.wall()).await
        };
        let upstream = &self.authority.upstream;
        upstream.call(call, urgency, ATTEMPT_LIMIT, attempt).await
    }

    /// The token endpoint: an assertion's audience.
    #[must_use]
    pub const fn endpoint(&self) -> &Uri {
        &self.endpoint
    }

    /// By which algorithm assertions for this authority are signed.
    #[must_use]
    pub fn algorithm(&self) -> AssertionAlgorithm {
        if self.authority.wants_rs256.load(Ordering::Relaxed) {
            AssertionAlgorithm::Rs256
        } else {
            AssertionAlgorithm::Ps256
        }
    }

    /// The authority refused this algorithm. Whether another one is left to try.
    pub fn refuses(&self, algorithm: AssertionAlgorithm) -> bool {
        self.authority.wants_rs256.store(true, Ordering::Relaxed);
        algorithm != AssertionAlgorithm::Rs256
    }
}

impl Judged for EntraError {
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::Credential { .. }
            | Self::Mismatch { .. }
            | Self::Algorithm(_)
            | Self::Refused { .. } => CallOutcome::Refused,
            Self::Throttled { .. } => CallOutcome::Throttled,
            Self::Unavailable { .. } => CallOutcome::Unavailable,
            Self::Invalid(_) => CallOutcome::Invalid,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What the pod reads. Entra's words are passed on where it refused for good; otherwise they are for
/// the log.
#[must_use]
pub fn in_callers_terms(error: EntraError) -> Fault {
    let (detail, asked) = (error.to_string(), error.retry_after());
    let refused = |description: String| Fault::new(FaultKind::UpstreamRefused, description);
    let fault = match error {
        EntraError::Credential { description, .. }
        | EntraError::Mismatch { description, .. }
        | EntraError::Algorithm(description) => refused(description).with_code("invalid_client"),
        EntraError::Refused {
            error, description, ..
        } => refused(description).with_code(error),
        EntraError::Throttled { .. } => {
            let latest = Service::Entra.longest_pause();
            Service::Entra.throttles(asked.unwrap_or(SOON).clamp(SOON, latest))
        }
        EntraError::Unavailable { .. } => Service::Entra
            .unavailable()
            .with_retry_after(asked.unwrap_or(SOON).clamp(SOON, TROUBLE)),
        EntraError::Invalid(_) => Service::Entra.invalid(),
    };
    fault.with_detail(detail)
}

/// A client; the system's roots are read from disk where nobody waits for another.
async fn made(config: HttpsConfig) -> Result<HttpsClient, HttpsConfigError> {
    let made = tokio::task::spawn_blocking(move || HttpsClient::new(&config)).await;
    made.unwrap_or_else(|broken| {
        let why = crate::azure::https::RootsError::System(broken.to_string());
        Err(HttpsConfigError::Roots(why))
    })
}

fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", authority.unwrap_or_default()).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::obtain::ObtainConfig;
    use crate::agent::obtain::fake::Steps;

    fn place(sni: Option<usize>) -> Place {
        Place {
            source: "federated",
            origin: "https://login.example".to_owned(),
            ca_bundle: None,
            sni: sni.map(|n| format!("tenant-{n}.example").into()),
        }
    }

    #[tokio::test]
    async fn names_that_a_team_makes_up_push_no_authority_of_the_operators_out() {
        let key = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let client = HttpsClient::new(&HttpsConfig {
            roots: Roots::Only(key.cert.pem()),
            ..HttpsConfig::default()
        });
        let client = client.unwrap();
        let setup = EntraSetup {
            authority_host: "https://login.example".to_owned(),
            tenant: None,
            roots: Roots::System,
            proxies: ProxyRules::default(),
        };
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new()).unwrap();
        let (limits, clock) = (ObtainConfig::default().entra, Steps::default().clock());
        let entra = Entra::new(setup, limits, clock, metrics);
        let remember = |sni| entra.remember(place(sni), client.clone());
        let known = Arc::downgrade(&remember(None).unwrap());
        let busy: Vec<_> = (0..2 * AUTHORITIES).map(|n| remember(Some(n))).collect();
        assert_eq!(busy.iter().flatten().count(), AUTHORITIES);
        assert!(known.upgrade().is_some(), "with its circuit and its pauses");
        assert!(remember(None).is_ok());
    }
}
