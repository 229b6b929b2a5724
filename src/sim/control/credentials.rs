//! Commands that change who may ask Entra for tokens, and with what.
//!
//! In: method, path below `/applications/NAME` or `/issuers`, a JSON body. Out: the id of what was added, or nothing.
//! Answers never hold a secret. Waits for the body only.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::server::{Outcome, body};
use crate::sim::azure::Azure;
use crate::sim::entra::{Client, CredentialError, secret_id};
use crate::sim::http::{json, typed};
use crate::sim::world::{FederatedCredential, Issuer, Secret};

/// A certificate as it is sent.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    pem: String,
}

fn refused(error: &CredentialError) -> (StatusCode, String) {
    let status = match error {
        CredentialError::Unknown(_) | CredentialError::Absent { .. } => StatusCode::NOT_FOUND,
        CredentialError::Managed(_) | CredentialError::Certificate(_) => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

/// One command to the credentials of the application or identity `name`; `rest` is the path behind it.
pub(super) async fn command(
    request: Request<Incoming>,
    azure: &Azure,
    name: &str,
    rest: &[&str],
) -> Outcome {
    let registry = &azure.entra.registry;
    let done = || Ok(typed(StatusCode::NO_CONTENT, "text/plain", ""));
    let id = |id: String| Ok(json(StatusCode::OK, &json!({"id": id})));
    match (request.method(), rest) {
        (&Method::GET, ["credentials"]) => Ok(list(
            &*registry.named(name).map_err(|error| refused(&error))?,
        )),
        (&Method::PUT, ["secrets"]) => {
            let secret: Secret = body(request).await?;
            id(registry
                .add_secret(name, secret)
                .map_err(|error| refused(&error))?)
        }
        (&Method::DELETE, ["secrets", id]) => {
            registry
                .revoke_secret(name, id)
                .map_err(|error| refused(&error))?;
            done()
        }
        (&Method::PUT, ["certificates"]) => {
            let Certificate { pem } = body(request).await?;
            id(registry
                .add_certificate(name, &pem)
                .map_err(|error| refused(&error))?)
        }
        (&Method::DELETE, ["certificates", thumbprint]) => {
            let revoked = registry.revoke_certificate(name, thumbprint);
            revoked.map_err(|error| refused(&error))?;
            done()
        }
        (&Method::PUT, ["federated"]) => {
            let credential: FederatedCredential = body(request).await?;
            registry
                .add_federated(name, credential)
                .map_err(|error| refused(&error))?;
            done()
        }
        (&Method::DELETE, ["federated", credential]) => {
            let removed = registry.remove_federated(name, credential);
            removed.map_err(|error| refused(&error))?;
            done()
        }
        (method, _) => Err((
            StatusCode::NOT_FOUND,
            format!("no command is {method} {}", request.uri().path()),
        )),
    }
}

/// Learns how an issuer is reached; what was fetched of any issuer is forgotten.
pub(super) async fn trust(request: Request<Incoming>, azure: &Azure) -> Outcome {
    let issuer: Issuer = body(request).await?;
    let bad = |error: crate::sim::CertificateError| (StatusCode::BAD_REQUEST, error.to_string());
    azure.entra.trust(issuer).map_err(bad)?;
    Ok(typed(StatusCode::NO_CONTENT, "text/plain", ""))
}

/// What a client has, by the names that the journal uses.
fn list(client: &Client) -> Response<Bytes> {
    let secrets = client.secrets.iter();
    let secrets = secrets.map(|one| json!({"id": secret_id(&one.value), "expires": one.expires}));
    let certificates = client.certificates.iter();
    let certificates =
        certificates.map(|one| json!({"thumbprint": one.thumbprint(), "subject": one.common_name}));
    let list = json!({
        "clientID": client.who.client_id,
        "secrets": secrets.collect::<Vec<_>>(),
        "certificates": certificates.collect::<Vec<_>>(),
        "federatedCredentials": client.federated,
    });
    json(StatusCode::OK, &list)
}
