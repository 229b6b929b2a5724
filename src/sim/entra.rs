//! Entra ID: discovery documents, published keys, and the token endpoint's refusals.
//!
//! In: requests by plain HTTP, or over TLS under `login.microsoftonline.com`. Out: `OpenID` Connect
//! discovery (v1 and v2), JWKS, and the `AADSTS…` errors clients parse. No grant is served yet: nothing
//! registers applications. Reads bodies of at most 64 KiB; waits only for a fault's latency.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::azure::Azure;
use super::broken::{self, perform};
use super::faults::{Facts, Target};
use super::http::{Reply, Service, json, typed};
use super::imds::decode;
use super::journal::{Findings, Listener};
use super::keys::random_guid;
use super::token::issuer;

/// Host names under which the TLS listener is Entra.
pub(super) const HOSTS: [&str; 3] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "sts.windows.net",
];

/// Entra of the world's one tenant.
pub(super) struct Entra(pub Arc<Azure>);

impl Service for Entra {
    async fn answer(&self, request: Request<Incoming>, source: SocketAddr) -> Reply {
        let azure = &*self.0;
        let seq = azure.arrive(Listener::Entra, source, None, &request);
        let path = request.uri().path().to_owned();
        let facts = Facts {
            path: &path,
            ..Facts::default()
        };
        let strike = azure.strike(Target::Entra, &facts);
        let mut findings = Findings {
            fault: strike.name(),
            ..Findings::default()
        };
        azure.journal.answer(seq, findings.clone());
        let right = self.route(request, &path).await;
        let (reply, status) = perform(right, strike, broken::OAUTH).await;
        findings.status = status;
        azure.journal.answer(seq, findings);
        reply
    }
}

impl Entra {
    async fn route(&self, request: Request<Incoming>, path: &str) -> Response<Bytes> {
        let path = path.trim_end_matches('/').to_ascii_lowercase();
        let (tenant, rest) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or((&path, ""));
        let ours = &self.0.world.tenant.id;
        if !matches!(tenant, "common" | "organizations") && !tenant.eq_ignore_ascii_case(ours) {
            let message = format!("AADSTS90002: Tenant '{tenant}' not found.");
            return refused(StatusCode::BAD_REQUEST, "invalid_tenant", 90_002, &message);
        }
        match (request.method(), rest) {
            (&Method::GET, "discovery/keys" | "discovery/v2.0/keys") => self.keys(),
            (&Method::GET, ".well-known/openid-configuration") => self.discovery(false),
            (&Method::GET, "v2.0/.well-known/openid-configuration") => self.discovery(true),
            (&Method::POST, "oauth2/token" | "oauth2/v2.0/token") => {
                let body = Limited::new(request.into_body(), 64 << 10).collect().await;
                match body {
                    Ok(body) => token(&String::from_utf8_lossy(&body.to_bytes())),
                    Err(_) => typed(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", ""),
                }
            }
            (_, "oauth2/token" | "oauth2/v2.0/token") => {
                let message = "AADSTS900561: The endpoint only accepts POST requests.";
                refused(StatusCode::BAD_REQUEST, "invalid_request", 900_561, message)
            }
            _ => typed(StatusCode::NOT_FOUND, "text/html", ""),
        }
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

/// The refusal for a token request's form body.
fn token(form: &str) -> Response<Bytes> {
    let field = |name: &str| {
        form.split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(other, value)| (decode(other, true) == name).then(|| decode(value, true)))
    };
    let missing = |name: &str| {
        let message = format!(
            "AADSTS900144: The request body must contain the following parameter: '{name}'."
        );
        refused(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            900_144,
            &message,
        )
    };
    let Some(grant) = field("grant_type") else {
        return missing("grant_type");
    };
    if grant != "client_credentials" {
        let message =
            format!("AADSTS70003: The app requested an unsupported grant type '{grant}'.");
        return refused(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            70_003,
            &message,
        );
    }
    let Some(client) = field("client_id") else {
        return missing("client_id");
    };
    let message = format!(
        "AADSTS700016: Application with identifier '{client}' was not found in the directory."
    );
    refused(
        StatusCode::BAD_REQUEST,
        "unauthorized_client",
        700_016,
        &message,
    )
}

fn refused(status: StatusCode, error: &str, code: u32, message: &str) -> Response<Bytes> {
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
