//! Entra ID: discovery documents, published keys, and tokens for whoever proves to be an application or identity.
//!
//! In: requests by plain HTTP, or over TLS under Entra's host names. Out: `OpenID` Connect discovery (v1 and v2), JWKS,
//! tokens, and the `AADSTS…` errors clients parse. `client_credentials` is the one grant; it is proved by a secret, an
//! assertion signed by a certificate, or a federated token. Reads bodies of at most 64 KiB; waits for a fault's latency,
//! the world's, and the keys of an issuer.

mod assertion;
mod documents;
mod federated;
mod fetch;
mod grant;
mod issuers;
mod limit;
mod proof;
mod refusal;
mod registry;
mod replay;
mod signed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};

use super::azure::{Azure, seconds};
use super::broken::{self, perform};
use super::certificate::CertificateError;
use super::faults::{Effect, Facts, Target};
use super::http::{Reply, Service, json, typed};
use super::journal::{Exchange, Findings, Listener};
use super::token::{Nature, Principal};
use super::world::{Issuer, World};
use grant::Form;
use proof::{Proof, Scene};
use refusal::{Refusal, Words};
pub(super) use registry::{Client, Registry, authorities};
pub use registry::{CredentialError, secret_id};

/// Host names under which the TLS listener is Entra, whatever the world says.
pub(super) const HOSTS: [&str; 5] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.windows.net",
    "sts.windows.net",
];

/// Life of an application's token in seconds, unless the world says less.
const LIFETIME: i64 = 3600;

/// Entra of the world's one tenant.
pub(super) struct Entra(pub Arc<Azure>);

/// What Entra remembers between requests.
pub(super) struct State {
    pub registry: Registry,
    replays: replay::Replays,
    limits: limit::Limits,
    issuers: issuers::Issuers,
}

impl State {
    pub fn new(world: &World) -> Result<Self, CertificateError> {
        Ok(Self {
            registry: Registry::new(world)?,
            replays: replay::Replays::default(),
            limits: limit::Limits::default(),
            issuers: issuers::Issuers::new(world.issuers.clone()),
        })
    }

    /// Learns how an issuer is reached. The keys of all issuers are fetched anew.
    pub fn trust(&self, issuer: Issuer) -> Result<(), CertificateError> {
        if let Some(pem) = &issuer.ca_pem {
            authorities(pem)?;
        }
        self.issuers.trust(issuer);
        Ok(())
    }
}

/// Every host name under which the TLS listener is Entra.
pub(super) fn hosts(world: &World) -> impl Iterator<Item = &str> {
    let authority = world.entra.authority_host.split_once("://");
    let authority = authority.map(|(_, rest)| rest.split(['/', ':']).next().unwrap_or_default());
    let own = world.entra.hosts.iter().map(String::as_str);
    HOSTS.into_iter().chain(own).chain(authority)
}

/// What a request is to be answered with when nothing goes wrong.
enum Verdict {
    Token(Box<Granted>),
    Refused(Refusal),
    Plain(Response<Bytes>),
}

/// A token that is to be made.
struct Granted {
    who: Principal,
    resource: String,
    nature: Nature,
    v2: bool,
}

impl Service for Entra {
    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let azure = &*self.0;
        let seq = azure.arrive(Listener::Entra, source, None, &request);
        let path = request.uri().path().to_owned();
        let mut findings = Findings::default();
        let method = request.method().clone();
        let asks = method == Method::POST;
        let _running = asks.then(|| azure.counters.entra_begins());
        let verdict = Box::pin(self.decide(request, &path, &mut findings)).await;
        let mut facts = Facts {
            path: &path,
            method: method.as_str(),
            ..Facts::default()
        };
        if let Verdict::Token(granted) = &verdict {
            findings.identity = Some(granted.who.name.clone());
            findings.resource = Some(granted.resource.clone());
            facts.token = true;
        }
        let exchange = findings.exchange.clone().unwrap_or_default();
        facts.client_id = exchange.client_id.as_deref();
        facts.resource = findings.resource.as_deref();
        let mut strike = azure.strike(Target::Entra, &facts);
        if findings.exchange.is_some() {
            strike.latency += azure.world.entra.latency;
        }
        findings.fault = strike.name();
        azure.journal.answer(seq, findings.clone());
        let effect = strike.effect.clone();
        let right = || self.render(verdict, effect.as_ref(), &mut findings);
        let (reply, status) = perform(right, strike, broken::OAUTH).await;
        findings.status = status;
        azure.journal.answer(seq, findings);
        reply
    }
}

fn refuse(code: u32, value: &str) -> Verdict {
    let words = Words {
        value,
        ..Words::default()
    };
    Verdict::Refused(Refusal::of(code, &words))
}

impl Entra {
    async fn decide(
        &self,
        request: Request<Incoming>,
        path: &str,
        findings: &mut Findings,
    ) -> Verdict {
        let azure = &*self.0;
        let path = path.trim_matches('/').to_ascii_lowercase();
        let (tenant, rest) = path.split_once('/').unwrap_or((&path, ""));
        let ours = &azure.world.tenant.id;
        if !matches!(tenant, "common" | "organizations") && !tenant.eq_ignore_ascii_case(ours) {
            return refuse(90_002, tenant);
        }
        let discovery = |v2| {
            let document = documents::discovery(&azure.world.entra.authority_host, ours, v2);
            Verdict::Plain(json(StatusCode::OK, &document))
        };
        match (request.method(), rest) {
            (&Method::GET, "discovery/keys" | "discovery/v2.0/keys") => {
                let keys = documents::keys(&azure.keys.published());
                Verdict::Plain(json(StatusCode::OK, &keys))
            }
            (&Method::GET, ".well-known/openid-configuration") => discovery(false),
            (&Method::GET, "v2.0/.well-known/openid-configuration") => discovery(true),
            (&Method::POST, "oauth2/token" | "oauth2/v2.0/token") => {
                let v2 = rest == "oauth2/v2.0/token";
                let host = request.headers().get(HOST);
                let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
                let host = request.uri().authority().map_or(host, |own| own.as_str());
                let host = host.to_owned();
                match Limited::new(request.into_body(), 64 << 10).collect().await {
                    Ok(body) => self.token(&body.to_bytes(), v2, &host, findings).await,
                    Err(_) => {
                        Verdict::Plain(typed(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", ""))
                    }
                }
            }
            (_, "oauth2/token" | "oauth2/v2.0/token") => refuse(900_561, ""),
            _ => Verdict::Plain(typed(StatusCode::NOT_FOUND, "text/html", "")),
        }
    }

    async fn token(&self, body: &[u8], v2: bool, host: &str, findings: &mut Findings) -> Verdict {
        let form = Form::of(&String::from_utf8_lossy(body));
        let exchange = findings.exchange.insert(Exchange::default());
        exchange.client_id = form.get("client_id").map(str::to_owned);
        exchange.claims = form.get("claims").is_some();
        match self.grant(&form, v2, host, exchange).await {
            Ok(granted) => Verdict::Token(Box::new(granted)),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    async fn grant(
        &self,
        form: &Form,
        v2: bool,
        host: &str,
        exchange: &mut Exchange,
    ) -> Result<Granted, Refusal> {
        let azure = &*self.0;
        let world = &azure.world;
        let tenant = world.tenant.name.as_deref().unwrap_or(&world.tenant.id);
        form.check()?;
        let client_id = form.need("client_id")?;
        let words = Words {
            client: client_id,
            tenant,
            ..Words::default()
        };
        let client = azure.entra.registry.client(client_id);
        let client = client.ok_or_else(|| Refusal::of(700_016, &words))?;
        if let Some(rate) = world.entra.throttle
            && !azure.entra.limits.pass(client_id, rate, Instant::now())
        {
            return Err(Refusal::of(90_055, &words));
        }
        let claims = form.claims()?;
        let scene = Scene {
            world,
            state: &azure.entra,
            host,
            now: azure.now(),
        };
        let proof: Proof = proof::prove(form, &client, &scene, exchange).await?;
        let resource = form.resource(v2)?;
        let resources = &world.entra.resources;
        if !resources.is_empty() && !resources.iter().any(|known| known == resource) {
            let words = Words {
                value: resource,
                ..words
            };
            return Err(Refusal::of(500_011, &words));
        }
        Ok(Granted {
            who: client.who.clone(),
            resource: resource.to_owned(),
            nature: Nature {
                appidacr: proof.appidacr(),
                capabilities: grant::capabilities(claims.as_ref()),
            },
            v2,
        })
    }

    fn render(
        &self,
        verdict: Verdict,
        effect: Option<&Effect>,
        findings: &mut Findings,
    ) -> Response<Bytes> {
        let azure = &*self.0;
        let verdict = match effect {
            Some(Effect::Aadsts { code, status, .. }) => {
                Verdict::Refused(self.struck(*code, *status, findings))
            }
            _ => verdict,
        };
        let granted = match verdict {
            Verdict::Plain(response) => return response,
            Verdict::Refused(refusal) => {
                findings.aadsts = Some(refusal.code);
                azure.counters.entra_refused();
                let mut response = refusal.answer(azure.now());
                let retry_after = match effect {
                    Some(Effect::Aadsts { retry_after, .. }) => *retry_after,
                    _ => azure.world.entra.throttle.map(|rate| rate.retry_after),
                };
                if effect.is_some() || refusal.code == 90_055 {
                    broken::retry_after(&mut response, retry_after);
                }
                return response;
            }
            Verdict::Token(granted) => granted,
        };
        let lifetime = match effect {
            Some(Effect::Expired) => -LIFETIME,
            Some(Effect::Lifetime(life)) => seconds(*life),
            _ => LIFETIME.min(seconds(azure.world.tokens.lifetime)),
        };
        let Granted {
            who,
            resource,
            nature,
            v2,
        } = *granted;
        let Ok(token) = azure.fresh_token(&who, &resource, lifetime, &nature) else {
            return broken::status(500, None, None, broken::OAUTH);
        };
        azure.counters.issued();
        let mut body = grant::body(&token, &resource, v2, azure.now());
        if let Some(Effect::Missing(field)) = effect {
            body.remove(field);
        }
        json(StatusCode::OK, &body)
    }

    /// The refusal that a fault asks for, in the words of the request it strikes.
    fn struck(&self, code: u32, status: Option<u16>, findings: &Findings) -> Refusal {
        let tenant = &self.0.world.tenant;
        let client = findings.exchange.as_ref();
        let words = Words {
            client: client
                .and_then(|exchange| exchange.client_id.as_deref())
                .unwrap_or_default(),
            tenant: tenant.name.as_deref().unwrap_or(&tenant.id),
            ..Words::default()
        };
        let mut refusal = Refusal::of(code, &words);
        if let Some(status) = status {
            refusal.status = status;
        }
        refusal
    }
}
