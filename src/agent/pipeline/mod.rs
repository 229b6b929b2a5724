//! The request pipeline as a whole: `receive → locate → select → obtain → respond`, each step in
//! its own file. What is cached is answered without waiting for anything.

mod app_service;
mod host_token;
mod record;
mod vm_extension;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::assigned;
use super::audit::{self, Audit, Caller};
use super::directory::Published;
use super::events::Events;
use super::forward::Forwarder;
use super::grants::PodGrants;
use super::instance;
use super::locate::Locator;
use super::metrics::AgentMetrics;
use super::observe::Observer;
use super::obtain::{self, Broker, Obtained, TokenSource};
use super::origin::Origin;
use super::passthrough::{self, Opened};
use super::receive::{Ask, MetadataQuery, receive};
use super::respond::{self, Answer};
use super::select::{Chosen, Decision, choose, select};
use crate::model::facts::PodFacts;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::{Asker, Grant};
use crate::model::query::{Dialect, Selector, TokenQuery};
use crate::serve::{self, Peer};

/// How long a request waits for an identity that is on its way to this node.
const ASSIGNMENT_HOLD: Duration = Duration::from_secs(3);

/// Everything that an answer needs.
pub struct Pipeline<S: TokenSource> {
    /// Finds the calling pod.
    pub locator: Locator,
    /// Pods and exceptions.
    pub directory: Arc<Published>,
    /// Obtains tokens.
    pub broker: Arc<Broker<S>>,
    /// Passes opened metadata paths on.
    pub forwarder: Arc<Forwarder>,
    /// Remembers who got what.
    pub audit: Arc<Audit>,
    /// Tells pods' owners of refusals.
    pub events: Events,
    /// Passes on what would be refused, where the agent only observes.
    pub observer: Arc<Observer>,
    /// Counts.
    pub metrics: Arc<AgentMetrics>,
}

impl<S: TokenSource> serve::Answer for Arc<Pipeline<S>> {
    /// Pods by their addresses. Whoever is on the node's own network has many: what no pod claims counts together, too.
    fn whose(&self, peer: SocketAddr) -> Option<Peer> {
        let ip = peer.ip();
        let claimed = self.directory.load().claim(ip).is_some();
        Some(if claimed {
            Peer::Address(ip)
        } else {
            Peer::Stranger(ip)
        })
    }

    async fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Full<bytes::Bytes>> {
        self.answer_to(&Origin::of(peer.ip()), request).await
    }
}

impl<S: TokenSource> Pipeline<S> {
    /// The answer to whoever asks.
    pub async fn answer_to(&self, origin: &Origin, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let asked = receive(&head);
        let answered = match &asked {
            Ok(Ask::Token(query)) => self.token(origin, query).await,
            Ok(Ask::TenantInfo) => self.tenant_info(origin).await,
            Ok(Ask::Probe(nonce)) => Ok(respond::probe(
                instance::VERSION,
                instance::id(),
                nonce.as_str(),
            )),
            Ok(Ask::AppService(ask)) => Box::pin(self.app_service(origin, ask)).await,
            Ok(Ask::Metadata(query)) => self.metadata(origin, query).await,
            Err(fault) => Err(fault.clone()),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(fault) => {
                tracing::debug!(peer = %origin, %fault, "request failed");
                // Boxed: seldom needed, and large.
                Box::pin(self.failed(origin, &asked, &fault, (&head, body))).await
            }
        };
        self.metrics.answered(started.elapsed());
        answer
    }

    /// A fault in the dialect of its request; where the agent only observes, IMDS's answer.
    async fn failed(
        &self,
        origin: &Origin,
        asked: &Result<Ask, Fault>,
        fault: &Fault,
        (head, body): (&Parts, Incoming),
    ) -> Answer {
        if matches!(asked, Ok(Ask::AppService(_))) {
            self.metrics.failed(fault.kind);
            return respond::app_service::fault(fault);
        }
        let pod = self.caller(origin).await;
        let pod = pod.as_ref().map(|grants| &*grants.pod);
        if self.only_observes(pod) {
            return self.observer.pass_on(pod, asked, fault, head, body).await;
        }
        self.metrics.failed(fault.kind);
        respond::fault(fault)
    }

    /// Who is refused. Where that decides between passing on and refusing, somebody who is not known yet
    /// is waited for.
    async fn caller(&self, origin: &Origin) -> Option<Arc<PodGrants>> {
        let known = self.locator.known(origin).ok();
        if known.is_none() && self.observer.is_observing() && self.enforces_some() {
            return Box::pin(self.locator.locate(origin)).await.ok();
        }
        known
    }

    /// Whether what would be refused to this pod is passed on. A pod that is not known may be of a
    /// namespace that is enforced, where there is one: a pod's first moment must not be its way out.
    fn only_observes(&self, pod: Option<&PodFacts>) -> bool {
        let enforces = |pod: &PodFacts| {
            let enforced = &self.directory.load().enforced;
            enforced.contains(&pod.name.namespace)
        };
        self.observer.is_observing() && !pod.map_or_else(|| self.enforces_some(), enforces)
    }

    fn enforces_some(&self) -> bool {
        !self.directory.load().enforced.is_empty()
    }

    async fn token(&self, origin: &Origin, query: &TokenQuery) -> Result<Answer, Fault> {
        let pod = self.locator.locate(origin).await;
        let pod = pod.inspect_err(|fault| self.record_nobody(origin, query, fault))?;
        self.token_of(pod, origin, query).await
    }

    /// A token of this pod's. What a pod is granted may change while its token is fetched: then it goes
    /// round again, within the same deadline.
    async fn token_of(
        &self,
        mut pod: Arc<PodGrants>,
        origin: &Origin,
        query: &TokenQuery,
    ) -> Result<Answer, Fault> {
        let mut until = None;
        loop {
            let (grant, chosen) = match select(&pod, query) {
                Decision::Granted(grant, chosen) => (grant, chosen),
                Decision::Refused(refusal) => {
                    let fault = refusal.fault();
                    self.record_fault(origin, &pod, None, query, &fault, Some(&refusal));
                    return Err(fault);
                }
            };
            let asker = &pod.asker;
            if let Some(obtained) = self.broker.try_cached(asked(query, grant, asker)) {
                return Ok(self.hand_out(origin, &pod, grant, chosen, query, &obtained));
            }
            // The clock is read by those only who wait.
            let deadline = || Instant::now() + self.broker.answer_deadline();
            let until = *until.get_or_insert_with(deadline);
            let obtained = async {
                let grant = self.on_this_node(origin, query, &pod, grant).await?;
                self.broker.obtain(asked(query, &grant, asker)).await
            };
            let obtained = timeout_at(until, obtained).await;
            let obtained = obtained.unwrap_or_else(|_| Err(obtain::too_late()));
            // The wait may have been long: what was granted before it is looked at again.
            let outcome = match (obtained, self.standing(origin, query, &pod, grant)) {
                (_, Standing::Changed(now)) if Instant::now() < until => {
                    pod = now;
                    continue;
                }
                (obtained, Standing::Same) => obtained,
                (Ok(_), other) => Err(other.fault()),
                (Err(fault), _) => Err(fault),
            };
            return match outcome {
                Ok(obtained) => Ok(self.hand_out(origin, &pod, grant, chosen, query, &obtained)),
                Err(fault) => {
                    self.record_fault(origin, &pod, Some(grant), query, &fault, None);
                    Err(fault)
                }
            };
        }
    }

    /// Whether the identity is on this node, where that counts; waits a little while it is on its way.
    async fn on_this_node(
        &self,
        origin: &Origin,
        query: &TokenQuery,
        pod: &PodGrants,
        grant: &Grant,
    ) -> Result<Grant, Fault> {
        if assigned::is_on_its_way(&self.directory.load().assignments, grant) {
            let waits = |now: &PodGrants| {
                let same = now.pod.uid == pod.pod.uid;
                let granted = matches!(select(now, query), Decision::Granted(again, _) if again.identity == grant.identity);
                same && granted
                    && assigned::is_on_its_way(&self.directory.load().assignments, grant)
            };
            self.locator
                .wait_while(origin, ASSIGNMENT_HOLD, waits)
                .await?;
            match self.standing(origin, query, pod, grant) {
                Standing::Same => {}
                other => return Err(other.fault()),
            }
        }
        assigned::admit(&self.directory.load().assignments, grant)
    }

    /// What has become of a grant while somebody waited.
    fn standing(
        &self,
        origin: &Origin,
        query: &TokenQuery,
        pod: &PodGrants,
        grant: &Grant,
    ) -> Standing {
        let now = match self.locator.known(origin) {
            Ok(now) => now,
            Err(fault) => return Standing::Gone(fault),
        };
        if now.pod.uid != pod.pod.uid {
            return Standing::Gone(changed());
        }
        match select(&now, query) {
            Decision::Granted(again, _)
                if again.identity == grant.identity
                    && again.scopes == grant.scopes
                    && now.pod.service_account == pod.pod.service_account =>
            {
                Standing::Same
            }
            Decision::Granted(..) => Standing::Changed(now),
            Decision::Refused(refusal) => Standing::Gone(refusal.fault()),
        }
    }

    fn hand_out(
        &self,
        origin: &Origin,
        pod: &PodGrants,
        grant: &Grant,
        chosen: Chosen,
        query: &TokenQuery,
        obtained: &Obtained,
    ) -> Answer {
        self.metrics.token_served(obtained.source, obtained.cache);
        self.metrics.served.count(&grant.identity.name);
        self.audit.record(&audit::Decision {
            caller: Caller::Pod(&pod.pod),
            asked_by: origin.asked_by(),
            identity: Some(&grant.identity.name),
            resource: &query.resource,
            outcome: "granted",
            reason: chosen.as_str(),
            cache: obtained.cache.as_str(),
            dialect: query.dialect.as_str(),
        });
        self.metrics.spoke(query.dialect);
        let (token, client_id, resource) = (
            &obtained.token,
            grant.identity.client_id,
            query.resource.as_str(),
        );
        match query.dialect {
            Dialect::Imds | Dialect::VmExtension => {
                respond::token(token, obtained.left, client_id, resource, &query.selector)
            }
            Dialect::AppService2019 | Dialect::AppService2017 => {
                respond::app_service::token(token, client_id, resource)
            }
            Dialect::HostToken => {
                respond::host_token::token(token, obtained.left, client_id, resource)
            }
        }
    }

    /// The tenant of the pod's default identity; it needs no call to anybody.
    async fn tenant_info(&self, origin: &Origin) -> Result<Answer, Fault> {
        let pod = self.locator.locate(origin).await?;
        let (grant, _) = choose(&pod, &Selector::Default).map_err(|refusal| {
            let fault = refusal.fault();
            self.tell_owner(&pod, &fault, Some(&refusal));
            fault
        })?;
        let tenant = grant.identity.tenant_id;
        let tenant =
            tenant.ok_or_else(|| Fault::identity_not_found("the identity states no tenantID"))?;
        Ok(respond::json(
            StatusCode::OK,
            format!("{{\"tenantId\":\"{tenant}\"}}"),
        ))
    }

    async fn metadata(&self, origin: &Origin, query: &MetadataQuery) -> Result<Answer, Fault> {
        let answered = self.passed_on(origin, query).await;
        if let Err(fault) = &answered
            && let Ok(pod) = self.locator.known(origin)
        {
            self.tell_owner(&pod, fault, None);
        }
        answered
    }

    async fn passed_on(&self, origin: &Origin, query: &MetadataQuery) -> Result<Answer, Fault> {
        let directory = self.directory.load().clone();
        let exceptions = &directory.exceptions;
        if exceptions.is_empty() {
            // MSAL's region discovery waits for this answer: no look-up, no wait.
            return Err(passthrough::closed(&query.path));
        }
        let pod = self.locator.known(origin)?;
        let opened = passthrough::decide(exceptions, &pod.pod, &query.path)?;
        let (path, format) = (query.path.as_str(), query.format.as_deref());
        let reply = self
            .forwarder
            .forward(&pod.asker, path, &query.api_version, format)
            .await?;
        self.metrics.passed_on();
        let kind = reply
            .content_type
            .as_ref()
            .and_then(|kind| kind.to_str().ok());
        let body = match opened {
            Opened::Redacted => passthrough::redact(&reply.body, kind).ok_or_else(|| {
                Fault::new(
                    FaultKind::UpstreamInvalid,
                    "The metadata service did not answer properly",
                )
            })?,
            Opened::Whole => reply.body.to_vec(),
        };
        let mut answer = respond::json(reply.status, body);
        if let Some(kind) = reply.content_type {
            answer
                .headers_mut()
                .insert(hyper::header::CONTENT_TYPE, kind);
        }
        Ok(answer)
    }
}

/// What has become of a grant.
enum Standing {
    /// It is as it was.
    Same,
    /// The same pod is granted something else now, by the same request.
    Changed(Arc<PodGrants>),
    /// Nothing is granted any more, or the address is not that pod's.
    Gone(Fault),
}

impl Standing {
    /// Why a token that was obtained is not handed out.
    fn fault(self) -> Fault {
        match self {
            Self::Gone(fault) => fault,
            Self::Same | Self::Changed(_) => changed(),
        }
    }
}

fn changed() -> Fault {
    Fault::new(
        FaultKind::PodUnknown,
        "The calling pod's identities changed, try again",
    )
}

fn asked<'a>(query: &'a TokenQuery, grant: &'a Grant, asker: &'a Asker) -> obtain::Request<'a> {
    obtain::Request {
        claims: query.claims.as_deref(),
        bypass_cache: query.bypass_cache,
        ..obtain::Request::new(grant, &query.resource, asker)
    }
}

#[cfg(test)]
#[allow(
    clippy::unchecked_time_subtraction,
    reason = "a test that underflows fails"
)]
mod tests;
