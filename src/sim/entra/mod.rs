//! Entra ID: discovery documents, published keys, and tokens for applications' secrets.
//!
//! In: requests by plain HTTP, or over TLS under `login.microsoftonline.com`. Out: `OpenID` Connect
//! discovery (v1 and v2), JWKS, and the `AADSTS…` errors clients parse. `client_credentials`
//! with a secret is the one grant. Reads bodies of at most 64 KiB; waits only for a fault's latency.

mod grant;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::azure::{Azure, now, seconds};
use super::broken::{self, perform};
use super::faults::{Effect, Facts, Target};
use super::http::{Reply, Service, json, typed};
use super::journal::{Findings, Listener};
use super::keys::random_guid;
use super::token::{Principal, issuer};
use grant::Refusal;

/// Host names under which the TLS listener is Entra.
pub(super) const HOSTS: [&str; 3] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "sts.windows.net",
];

/// Life of an application's token in seconds, unless the world says less.
const LIFETIME: i64 = 3600;

/// Entra of the world's one tenant.
pub(super) struct Entra(pub Arc<Azure>);

/// What a request is to be answered with when nothing goes wrong.
enum Verdict {
    Token {
        who: Principal,
        resource: String,
        v2: bool,
    },
    Plain(Response<Bytes>),
}

impl Service for Entra {
    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let azure = &*self.0;
        let seq = azure.arrive(Listener::Entra, source, None, &request);
        let path = request.uri().path().to_owned();
        let verdict = self.decide(request, &path).await;
        let mut findings = Findings::default();
        let mut facts = Facts {
            path: &path,
            ..Facts::default()
        };
        if let Verdict::Token { who, resource, .. } = &verdict {
            findings.identity = Some(who.name.clone());
            findings.resource = Some(resource.clone());
            facts.client_id = Some(&who.client_id);
            facts.resource = Some(resource);
            facts.token = true;
        }
        let strike = azure.strike(Target::Entra, &facts);
        findings.fault = strike.name();
        azure.journal.answer(seq, findings.clone());
        let effect = strike.effect.clone();
        let right = || self.render(verdict, effect.as_ref());
        let (reply, status) = perform(right, strike, broken::OAUTH).await;
        findings.status = status;
        azure.journal.answer(seq, findings);
        reply
    }
}

impl Entra {
    async fn decide(&self, request: Request<Incoming>, path: &str) -> Verdict {
        let path = path.trim_matches('/').to_ascii_lowercase();
        let (tenant, rest) = path.split_once('/').unwrap_or((&path, ""));
        let ours = &self.0.world.tenant.id;
        if !matches!(tenant, "common" | "organizations") && !tenant.eq_ignore_ascii_case(ours) {
            let message = format!("Tenant '{tenant}' not found.");
            let refusal = Refusal::new(400, "invalid_tenant", 90_002, &message);
            return Verdict::Plain(refused(&refusal));
        }
        Verdict::Plain(match (request.method(), rest) {
            (&Method::GET, "discovery/keys" | "discovery/v2.0/keys") => self.keys(),
            (&Method::GET, ".well-known/openid-configuration") => self.discovery(false),
            (&Method::GET, "v2.0/.well-known/openid-configuration") => self.discovery(true),
            (&Method::POST, "oauth2/token" | "oauth2/v2.0/token") => {
                let v2 = rest == "oauth2/v2.0/token";
                match Limited::new(request.into_body(), 64 << 10).collect().await {
                    Ok(body) => return self.token(&body.to_bytes(), v2),
                    Err(_) => typed(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", ""),
                }
            }
            (_, "oauth2/token" | "oauth2/v2.0/token") => {
                let message = "The endpoint only accepts POST requests.";
                refused(&Refusal::new(400, "invalid_request", 900_561, message))
            }
            _ => typed(StatusCode::NOT_FOUND, "text/html", ""),
        })
    }

    fn token(&self, body: &[u8], v2: bool) -> Verdict {
        let form = grant::form(&String::from_utf8_lossy(body));
        match grant::decide(&self.0.world, &form, v2) {
            Ok((who, resource)) => Verdict::Token { who, resource, v2 },
            Err(refusal) => Verdict::Plain(refused(&refusal)),
        }
    }

    fn render(&self, verdict: Verdict, effect: Option<&Effect>) -> Response<Bytes> {
        let (who, resource, v2) = match verdict {
            Verdict::Plain(response) => return response,
            Verdict::Token { who, resource, v2 } => (who, resource, v2),
        };
        let lifetime = match effect {
            Some(Effect::Expired) => -LIFETIME,
            Some(Effect::Lifetime(life)) => seconds(*life),
            _ => LIFETIME.min(seconds(self.0.world.tokens.lifetime)),
        };
        let Ok(token) = self.0.fresh_token(&who, &resource, lifetime) else {
            return broken::status(500, None, None, broken::OAUTH);
        };
        self.0.counters.issued();
        let mut body = grant::body(&token, &resource, v2, now());
        if let Some(Effect::Missing(field)) = effect {
            body.remove(field);
        }
        json(StatusCode::OK, &body)
    }

    fn keys(&self) -> Response<Bytes> {
        let published = self.0.keys.published();
        let keys: Vec<Value> = published
            .iter()
            .map(|key| {
                let mut jwk = json!(key.jwk);
                jwk["x5t"] = json!(key.kid);
                jwk
            })
            .collect();
        json(StatusCode::OK, &json!({"keys": keys}))
    }

    fn discovery(&self, v2: bool) -> Response<Bytes> {
        let tenant = &self.0.world.tenant.id;
        let base = format!("https://login.microsoftonline.com/{tenant}");
        let (v, keys_v) = if v2 { ("/v2.0", "/v2.0") } else { ("", "") };
        let issuer = if v2 {
            format!("{base}/v2.0")
        } else {
            issuer(tenant)
        };
        json(
            StatusCode::OK,
            &json!({
                "authorization_endpoint": format!("{base}/oauth2{v}/authorize"),
                "cloud_instance_name": "microsoftonline.com",
                "id_token_signing_alg_values_supported": ["RS256"],
                "issuer": issuer,
                "jwks_uri": format!("{base}/discovery{keys_v}/keys"),
                "response_types_supported": ["code", "id_token"],
                "subject_types_supported": ["pairwise"],
                "token_endpoint": format!("{base}/oauth2{v}/token"),
                "token_endpoint_auth_methods_supported":
                    ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            }),
        )
    }
}

fn refused(refusal: &Refusal) -> Response<Bytes> {
    let Refusal {
        status,
        error,
        code,
        message,
    } = refusal;
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
    let (trace, correlation) = (random_guid(), random_guid());
    let time = jiff::Timestamp::now()
        .strftime("%Y-%m-%d %H:%M:%SZ")
        .to_string();
    let description =
        format!("{message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}");
    json(
        status,
        &json!({
            "correlation_id": correlation,
            "error": error,
            "error_codes": [code],
            "error_description": description,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
            "timestamp": time,
            "trace_id": trace,
        }),
    )
}
