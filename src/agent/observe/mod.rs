//! Observing instead of enforcing: what would be refused goes to the node's IMDS as it stands, its
//! answer goes back as it stands, and it is counted, told and remembered for `lanyard suggest`.
//!
//! Loudly outside of invariant 2: while an agent observes, pods reach the node's identities as
//! before. It is for moving a live cluster. Namespaces with the label `lanyard.dev/enforce: "true"` are
//! refused as usual. May block on IMDS, at most for [`LIMIT`]; memory is bounded.

mod answerer;
mod page;
pub mod table;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};
use tokio::sync::Semaphore;

pub use self::page::Local;
use self::table::{Passed, Report, Table, What};
use super::config::Enforcement;
use super::receive::Ask;
use super::respond::{self, Answer};
use crate::api::ENFORCE_LABEL;
use crate::azure::relay::Relay;
use crate::model::facts::PodFacts;
use crate::model::fault::{Fault, FaultKind};
use crate::model::query::Selector;
use crate::serve::series;

/// From the request to IMDS's answer. IMDS may take long to fetch a token.
const LIMIT: Duration = Duration::from_secs(30);
/// Largest body of a request that is passed on. IMDS's requests have none.
const MAX_BODY: usize = 64 * 1024;
/// Requests passed on at once. IMDS serves five; the others wait there as they did before.
const CONCURRENCY: usize = 64;
/// How often the log says that nothing is enforced.
const REMINDER: Duration = Duration::from_hours(1);
/// A pod that is not known yet is waited for so long only: what is passed on is to be as fast as
/// without an agent, and SDKs give their probe one second.
pub const POD_WAIT: Duration = Duration::from_millis(300);

/// Passes on what would be refused; or enforces, and does nothing.
#[derive(Debug)]
pub struct Observer {
    observing: Option<Observing>,
}

#[derive(Debug)]
struct Observing {
    relay: Relay,
    turns: Semaphore,
    table: Mutex<Table>,
    /// By kind of fault.
    observed: Vec<IntCounter>,
}

impl Observer {
    /// Registers the series. `relay` leads to the node's IMDS.
    pub fn register(
        enforcement: Enforcement,
        relay: Relay,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let enforcing = series::gauge(
            registry,
            "lanyard_enforcing",
            "1 while what is not granted is refused; 0 while the agent only observes.",
        )?;
        let observed = series::family(
            registry,
            "lanyard_observed_total",
            "Requests passed on to the node's IMDS that would have been refused, by the kind of refusal.",
            &["outcome"],
        )?;
        enforcing.set(i64::from(enforcement == Enforcement::Enforce));
        let observing = Observing {
            relay,
            turns: Semaphore::new(CONCURRENCY),
            table: Mutex::default(),
            observed: FaultKind::ALL
                .iter()
                .map(|kind| observed.with_label_values(&[kind.as_str()]))
                .collect(),
        };
        Ok(Self {
            observing: (enforcement == Enforcement::Observe).then_some(observing),
        })
    }

    /// Whether this agent only observes.
    #[must_use]
    pub fn is_observing(&self) -> bool {
        self.observing.is_some()
    }

    /// What was observed so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let observing = self.observing.as_ref();
        observing.map_or_else(Report::default, |observing| observing.table.lock().report())
    }

    /// Says at once and each hour that nothing is enforced; never ends where that is so.
    pub async fn remind(&self) {
        while self.is_observing() {
            tracing::warn!(
                label = ENFORCE_LABEL,
                "--enforcement observe: what would be refused is passed on to the node's own identities; \
                 nothing is protected but namespaces with the label"
            );
            tokio::time::sleep(REMINDER).await;
        }
    }

    /// Passes a request on that would be refused with `fault`, and gives IMDS's answer.
    pub async fn pass_on(
        &self,
        pod: Option<&PodFacts>,
        asked: &Result<Ask, Fault>,
        fault: &Fault,
        head: &Parts,
        body: Incoming,
    ) -> Answer {
        let Some(observing) = &self.observing else {
            return respond::fault(fault);
        };
        observing.observed[fault.kind as usize].inc();
        let answer = observing.relay(head, body).await;
        let answerer = matches!(asked, Ok(Ask::Token(_)))
            .then(|| answer.as_ref().ok())
            .flatten()
            .and_then(|reply| answerer::of_answer(&reply.1));
        let status = answer
            .as_ref()
            .map_or(StatusCode::BAD_GATEWAY, |reply| reply.0.status());
        observing.table.lock().record(Passed {
            pod,
            what: what(asked, fault),
            refusal: fault.kind.as_str(),
            status: status.as_u16(),
            answerer,
        });
        match answer {
            Ok((response, body)) => response.map(|()| Full::new(body)),
            Err(why) => respond::fault(
                &Fault::new(FaultKind::UpstreamUnavailable, "IMDS does not answer")
                    .with_detail(why),
            ),
        }
    }
}

impl Observing {
    async fn relay(&self, head: &Parts, body: Incoming) -> Result<(Response<()>, Bytes), String> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let whole = async {
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(|error| format!("the request's body: {error}"))?;
            let turn = self.turns.acquire().await;
            let _turn = turn.map_err(|error| error.to_string())?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let reply = self.relay.pass(head, body.to_bytes(), left).await;
            reply.map_err(|error| error.to_string())
        };
        let reply = tokio::time::timeout_at(deadline, whole).await;
        let reply = reply.map_err(|_| "no answer in time".to_owned())??;
        let mut response = Response::new(());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        Ok((response, reply.body))
    }
}

/// What a request asked for, as far as granting it goes.
fn what(asked: &Result<Ask, Fault>, fault: &Fault) -> What {
    match asked {
        Ok(Ask::Token(query)) => What::Token {
            resource: query.resource.clone(),
            selector: match &query.selector {
                Selector::Unmatchable => Some("an id that is none".to_owned()),
                named => named.parameter(),
            },
        },
        Ok(Ask::Metadata(query)) => What::Path {
            path: query.path.as_str().to_owned(),
        },
        Ok(Ask::TenantInfo | Ask::Probe(_) | Ask::AppService(_)) | Err(_) => What::Other {
            fault: fault.kind.as_str().to_owned(),
        },
    }
}
