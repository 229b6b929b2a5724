//! The instance metadata service of the simulated machines.
//!
//! In: requests, told apart by source address. Out: what the real service answers (its documentation
//! and `imds.json` of the public REST API specifications), or a fault. Deliberately as lenient with
//! paths as the real one, so that an agent which forwards a disguised token path is caught.
//! Waits only for the latency that the world or a fault asks for.

mod answers;
mod instance;
mod path;
mod selectors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::arm::Machine;
use super::azure::{Azure, seconds};
use super::broken;
use super::faults::{Effect, Facts, Strike, Target};
use super::http::{Reply, Service};
use super::journal::{Findings, Listener};
use super::token::{Nature, Principal};
use answers::Refusal;
pub(super) use path::decode;

/// IMDS of all machines of the world.
pub(super) struct Imds(pub Arc<Azure>);

/// What a request is to be answered with when nothing goes wrong.
enum Verdict {
    Token {
        who: Principal,
        resource: String,
        /// `bypass_cache=true`: a new token, whatever is cached.
        bypass: bool,
    },
    Plain(Response<Bytes>),
}

impl Service for Imds {
    fn connected(&self) {
        self.0.counters.connection(Listener::Imds);
    }

    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let azure = &*self.0;
        let machine = azure.machine(source.ip());
        let vm = &machine.vm;
        let seq = azure.arrive(Listener::Imds, source, Some(&vm.name), &request);
        let path = path::canonical(request.uri().path());
        let verdict = self.decide(&request, &machine, &path);
        let (client_id, resource) = match &verdict {
            Verdict::Token { who, resource, .. } => {
                (Some(who.client_id.as_str()), Some(resource.as_str()))
            }
            Verdict::Plain(_) => (None, None),
        };
        let token = client_id.is_some();
        let facts = Facts {
            vm: &vm.name,
            client_id,
            resource,
            path: &path,
            method: request.method().as_str(),
            token,
        };
        let strike = azure.strike(Target::Imds, &facts);
        let mut findings = found(&verdict, &strike);
        azure.journal.answer(seq, findings.clone());

        let throttled = path.starts_with(path::IDENTITY) && has_metadata(&request);
        let (reply, status) = self.perform(&machine, verdict, strike, throttled).await;
        findings.status = status;
        azure.journal.answer(seq, findings);
        reply
    }
}

fn found(verdict: &Verdict, strike: &Strike) -> Findings {
    let (identity, resource) = match verdict {
        Verdict::Token { who, resource, .. } => (Some(who.name.clone()), Some(resource.clone())),
        Verdict::Plain(_) => (None, None),
    };
    Findings {
        identity,
        resource,
        fault: strike.name(),
        ..Findings::default()
    }
}

fn has_metadata<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get("metadata")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

impl Imds {
    /// The right answer to a request. The Metadata header comes before everything else.
    fn decide<B>(&self, request: &Request<B>, machine: &Machine, path: &str) -> Verdict {
        let identity = path.starts_with(path::IDENTITY);
        let refuse = |refusal: Refusal| {
            let style = if identity {
                Refusal::of_identity
            } else {
                Refusal::of_instance
            };
            Verdict::Plain(style(&refusal))
        };
        if !has_metadata(request) {
            return refuse(Refusal::bad("Required metadata header not specified"));
        }
        if request.headers().contains_key("x-forwarded-for") {
            return refuse(Refusal::bad(
                "Requests with an X-Forwarded-For header are not served",
            ));
        }
        let query = path::query(request.uri().query().unwrap_or_default());
        if path == path::TOKEN {
            if request.method() != hyper::Method::GET {
                return refuse(Refusal::method());
            }
            let (system, user) = self.0.identities(machine);
            return match selectors::resolve(&query, system, user) {
                Ok((who, resource)) => Verdict::Token {
                    who,
                    resource,
                    bypass: selectors::bypasses_cache(&query),
                },
                Err(refusal) => refuse(refusal),
            };
        }
        match instance::answer(&self.0.world, &machine.vm, request.method(), path, &query) {
            Ok(response) => Verdict::Plain(response),
            Err(refusal) => refuse(refusal),
        }
    }

    /// Gives the answer, late or broken as the strike says, within the machine's limits.
    async fn perform(
        &self,
        machine: &Machine,
        verdict: Verdict,
        strike: Strike,
        throttled: bool,
    ) -> (Reply, Option<u16>) {
        let azure = &*self.0;
        let mut permit = None;
        let mut latency = strike.latency;
        if throttled && !matches!(strike.effect, Some(Effect::Silence | Effect::Reset)) {
            permit = machine
                .throttle
                .enter(Instant::now(), azure.world.imds.throttle);
            let Some(permit) = &permit else {
                azure.counters.throttled();
                let refusal = broken::status(429, Some(1), None, answers::STYLE);
                return (Reply::Answer(answers::signed(refusal)), Some(429));
            };
            azure.counters.concurrent(permit.running);
            latency += azure.world.imds.latency;
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let effect = strike.effect.as_ref();
        let right = || self.render(verdict, effect);
        let reply = broken::spoil(right, effect, answers::STYLE);
        drop(permit);
        reply
    }

    /// The right answer, but for the effects that change the token.
    fn render(&self, verdict: Verdict, effect: Option<&Effect>) -> Response<Bytes> {
        let (who, resource, bypass) = match verdict {
            Verdict::Plain(response) => return response,
            Verdict::Token {
                who,
                resource,
                bypass,
            } => (who, resource, bypass),
        };
        let azure = &*self.0;
        let fresh = |life| azure.fresh_token(&who, &resource, life, &Nature::MANAGED);
        let token = match effect {
            Some(Effect::Expired) => fresh(-3600),
            Some(Effect::Lifetime(life)) => fresh(seconds(*life)),
            _ => azure.token(&who, &resource, bypass),
        };
        let Ok(token) = token else {
            return broken::status(500, None, None, answers::STYLE);
        };
        azure.counters.issued();
        let refresh_in = azure.world.tokens.refresh_in.map(seconds);
        let mut body = answers::token(&token, &who, &resource, refresh_in, azure.now());
        if let Some(Effect::Missing(field)) = effect {
            body.remove(field);
        }
        answers::object(StatusCode::OK, &body)
    }
}
