//! Azure Resource Manager, as far as it concerns identities: machines and scale sets, user-assigned identities, federated
//! credentials.
//!
//! In: requests by plain HTTP, or over TLS under ARM's host names. Out: resources as ARM shows them, asynchronous
//! operations, ARM's limits and its refusals; what is assigned here is what IMDS knows. Sources: the public REST API
//! specifications (Microsoft.Compute, Microsoft.ManagedIdentity), "Track asynchronous Azure operations". Reads bodies of at
//! most 4 MiB; waits for the world's latencies and a fault's.

mod buckets;
mod call;
mod caller;
mod commands;
mod computes;
mod estate;
mod federated;
mod identities;
mod patch;
mod path;
mod refusal;
mod roles;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

use super::azure::Azure;
use super::broken;
use super::faults::{Effect, Facts, Strike, Target};
use super::http::{Reply, Service};
use super::journal::{Findings, Listener};
use super::keys::random_guid;
use super::world::World;
use call::{Call, Outcome};
pub use commands::{CommandError, Commands, Operations, Resources, ShownCompute, ShownIdentity};
use estate::Estate;
pub use estate::{Failure, Poison, State as ProvisioningState};
pub(super) use estate::{Holdings, Machine};
use path::Subject;
use refusal::Refusal;

/// Host names under which the TLS listener is ARM, whatever the world says.
const HOSTS: [&str; 3] = [
    "management.azure.com",
    "management.usgovcloudapi.net",
    "management.chinacloudapi.cn",
];

/// Every host name under which the TLS listener is ARM.
pub(super) fn hosts(world: &World) -> impl Iterator<Item = &str> {
    let own = world.arm.hosts.iter().map(String::as_str);
    HOSTS.into_iter().chain(own)
}

/// What ARM remembers between requests.
pub(super) struct State {
    pub estate: Estate,
    roles: roles::Roles,
    buckets: buckets::Buckets,
}

impl State {
    pub fn new(world: &World, now: Instant) -> Self {
        Self {
            estate: Estate::new(world, now),
            roles: roles::Roles::new(world),
            buckets: buckets::Buckets::default(),
        }
    }
}

/// ARM of the world's one tenant.
pub(super) struct Arm {
    pub azure: Arc<Azure>,
    /// `http` or `https`: how the addresses in its answers begin.
    pub scheme: &'static str,
}

impl Service for Arm {
    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let azure = &*self.azure;
        let seq = azure.arrive(Listener::Arm, source, None, &request);
        let (parts, body) = request.into_parts();
        let keys = azure.keys.published();
        let claims = caller::verify(&parts.headers, &keys, &azure.world.tenant.id, azure.now());
        let body = Limited::new(body, 4 << 20).collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let mut call = Call::read(&parts, body, self.scheme, claims);
        let strike = azure.strike(Target::Arm, &facts(&call));
        let mut findings = Findings {
            identity: call.claims.as_ref().ok().map(|one| azure.name_of(&one.oid)),
            fault: strike.name(),
            arm: Some(call.record.clone()),
            ..Findings::default()
        };
        azure.journal.answer(seq, findings.clone());
        let (reply, status) = Box::pin(self.perform(&mut call, strike)).await;
        findings.status = status;
        findings.arm = Some(call.record);
        azure.journal.answer(seq, findings);
        reply
    }
}

fn facts(call: &Call) -> Facts<'_> {
    Facts {
        vm: call.place.as_ref().map_or("", |place| &place.name),
        client_id: call
            .claims
            .as_ref()
            .ok()
            .map(|claims| claims.appid.as_str()),
        path: &call.path,
        method: call.method.as_str(),
        // `expired` says that the caller's token has ended.
        token: true,
        ..Facts::default()
    }
}

impl Arm {
    /// Carries a request out, late or not at all as the strike says.
    async fn perform(&self, call: &mut Call, strike: Strike) -> (Reply, Option<u16>) {
        let azure = &*self.azure;
        let latency = azure.world.arm.latency + strike.latency;
        if !strike.applied && !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let effect = match strike.effect {
            Some(Effect::Expired) => {
                let now = azure.now();
                let refusal = caller::expired(now - 3600, now, &azure.world.tenant.id);
                let refused = signed(render(Err(refusal), call), call);
                return (Reply::Answer(refused), Some(401));
            }
            effect => effect,
        };
        let answers = matches!(effect, None | Some(Effect::Truncate));
        let mut right = Response::default();
        if answers || strike.applied {
            let outcome = self.decide(call).await;
            right = signed(render(outcome, call), call);
        }
        if strike.applied && !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        broken::spoil(|| right, effect.as_ref(), broken::ARM)
    }

    /// The right answer to a request, and what it changes.
    async fn decide(&self, call: &mut Call) -> Outcome {
        let azure = &*self.azure;
        if let Err(refusal) = &call.claims {
            return Err(refusal.clone());
        }
        let Some(place) = call.place.clone() else {
            return Err(Refusal::nothing_there(&call.path));
        };
        check_version(call)?;
        let foreign = &azure.world.arm.foreign_subscriptions;
        let mut foreign = foreign.iter();
        if let Some((_, tenant)) =
            foreign.find(|(id, _)| id.eq_ignore_ascii_case(&place.subscription))
        {
            let own = &azure.world.tenant.id;
            let message = format!(
                "The access token is from the wrong issuer 'https://sts.windows.net/{own}/'. It must match \
                 the tenant 'https://sts.windows.net/{tenant}/' associated with this subscription. Please use \
                 the authority (URL) 'https://login.windows.net/{tenant}' to get the token."
            );
            let code = "InvalidAuthenticationTokenTenant";
            return Err(Refusal::unauthenticated(code, message, tenant));
        }
        call.limit_subscription(azure, &place.subscription)?;
        match &place.subject {
            Subject::Compute(kind) => computes::answer(azure, call, &place, *kind),
            Subject::Operation => computes::operation(azure, call, &place),
            Subject::Identity => identities::answer(azure, call, &place),
            Subject::Identities => identities::list(azure, call, &place),
            Subject::FederatedList => federated::answer(azure, call, &place, None).await,
            Subject::Federated { credential } => {
                federated::answer(azure, call, &place, Some(credential)).await
            }
        }
    }
}

/// Whether an api-version is there and has the form of one.
fn check_version(call: &Call) -> Result<(), Refusal> {
    let version = &call.api_version;
    if version.is_empty() {
        let message =
            "The api-version query parameter (?api-version=) is required for all requests.";
        return Err(Refusal::bad(
            "MissingApiVersionParameter",
            message.to_owned(),
        ));
    }
    let date = version.trim_end_matches("-preview");
    let digits = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if date.len() == 10 && digits {
        return Ok(());
    }
    let message = format!("The api-version '{version}' is invalid. It is a date, '2024-11-01'.");
    Err(Refusal::bad("InvalidApiVersionParameter", message))
}

/// The answer; a refusal's code goes into the journal.
fn render(outcome: Outcome, call: &mut Call) -> Response<Bytes> {
    outcome.unwrap_or_else(|refusal| {
        call.record.code = Some(refusal.code.clone());
        refusal.answer()
    })
}

/// The answer with the headers that all of ARM's have.
fn signed(mut response: Response<Bytes>, call: &Call) -> Response<Bytes> {
    if response.status() == StatusCode::NO_CONTENT {
        *response.body_mut() = Bytes::new();
    }
    let id = random_guid();
    let mut all = vec![
        ("x-ms-request-id", random_guid()),
        ("x-ms-correlation-request-id", id.clone()),
        ("x-ms-routing-request-id", format!("WESTEUROPE:{id}")),
        ("cache-control", "no-cache".to_owned()),
    ];
    if let Some((name, left)) = call.left {
        all.push((name, left.to_string()));
    }
    if !call.resource_left.is_empty() {
        all.push((
            "x-ms-ratelimit-remaining-resource",
            call.resource_left.join(","),
        ));
    }
    let headers = response.headers_mut();
    for (name, value) in all {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
