//! One renewal: files are read, credentials presented, the best first.
//!
//! In: who we are. Out: a token, "nothing to do", or why there is none. Blocks on disk and network; the caller
//! sets the limit. A credential that Entra refuses makes room for the next one, any other answer ends
//! the renewal. Nothing of a credential gets into an error or a log line.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::candidates::Material;
use super::held::Renewed;
use super::{AccessConfig, AccessError, How, Inner, Party, RENEWAL_LIMIT, files};
use crate::azure::answer::plain;
use crate::azure::credential::{AssertionAlgorithm, AssertionRequest, Certificate};
use crate::azure::entra::{EntraClient, EntraError, Proof, TokenRequest};
use crate::azure::imds::{ImdsClient, ImdsError};
use crate::model::ids::Guid;
use crate::model::token::Token;

/// The most that one answer may take.
const LIMIT: Duration = Duration::from_secs(8);

/// Renews what is due; looks at the files in any case.
pub(super) async fn renewed(inner: &Inner) -> Result<Renewed, AccessError> {
    let now = (inner.config.now)();
    let (is_due, is_refused) = {
        let held = inner.held.lock();
        (held.is_due(now), held.is_refused())
    };
    match &inner.party {
        Party::Imds(_) if !is_due => Ok(Renewed::Unchanged),
        Party::Imds(client) => of_node(inner, client, is_refused).await.map(Renewed::Token),
        // A projected token changes often, and each counts as much as the other.
        Party::Entra { .. } if !is_due && matches!(inner.config.how, How::Federated { .. }) => {
            Ok(Renewed::Unchanged)
        }
        Party::Entra {
            client,
            endpoint,
            client_id,
        } => {
            let is_new = look(inner).await?;
            if !is_due && !is_new {
                return Ok(Renewed::Unchanged);
            }
            let entra = Entra {
                client,
                endpoint,
                client_id: *client_id,
                config: &inner.config,
            };
            by_candidates(inner, &entra).await.map(Renewed::Token)
        }
    }
}

/// Whether the files hold something new. What was read before stays where they cannot be read now.
async fn look(inner: &Inner) -> Result<bool, AccessError> {
    match files::read(&inner.config.how).await {
        Ok(found) => {
            let is_new = inner.candidates.lock().replace(found);
            if is_new && !matches!(inner.config.how, How::Federated { .. }) {
                tracing::info!("the credential for Azure was read");
            }
            Ok(is_new)
        }
        Err(error) if inner.candidates.lock().is_empty() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the credential for Azure cannot be read again, the one of before stays in use");
            Ok(false)
        }
    }
}

async fn by_candidates(inner: &Inner, entra: &Entra<'_>) -> Result<Token, AccessError> {
    let order = inner.candidates.lock().in_order((inner.config.now)());
    let mut refused = None;
    for material in &order {
        match entra.present(material).await? {
            Ok(token) => {
                inner.candidates.lock().proved(material);
                return Ok(token);
            }
            Err(error @ EntraError::Credential { .. }) => {
                let why = error.to_string();
                tracing::warn!(why, "Entra ID refuses a credential for Azure");
                // The newest one's refusal is what people can mend.
                refused.get_or_insert_with(|| entra.told(error, material));
            }
            Err(error) => return Err(entra.told(error, material)),
        }
    }
    Err(refused.unwrap_or(AccessError::Late(RENEWAL_LIMIT)))
}

struct Entra<'a> {
    client: &'a EntraClient,
    endpoint: &'a Uri,
    client_id: Guid,
    config: &'a AccessConfig,
}

impl Entra<'_> {
    async fn present(
        &self,
        material: &Arc<Material>,
    ) -> Result<Result<Token, EntraError>, AccessError> {
        let certificate = match &**material {
            Material::Secret(secret) => return Ok(self.ask(Proof::Secret(secret)).await),
            Material::Assertion(token) => return Ok(self.ask(Proof::Assertion(token)).await),
            Material::Certificate(certificate) => certificate,
        };
        let assertion = self.assertion(certificate, AssertionAlgorithm::Ps256)?;
        match self.ask(Proof::Assertion(&assertion)).await {
            Err(EntraError::Algorithm(_)) => {
                let assertion = self.assertion(certificate, AssertionAlgorithm::Rs256)?;
                Ok(self.ask(Proof::Assertion(&assertion)).await)
            }
            answer => Ok(answer),
        }
    }

    async fn ask(&self, proof: Proof<'_>) -> Result<Token, EntraError> {
        let request = TokenRequest {
            endpoint: self.endpoint,
            client_id: self.client_id,
            resource: &self.config.audience,
            proof,
            claims: None,
        };
        self.client.token(&request, LIMIT, self.config.now).await
    }

    fn assertion(
        &self,
        certificate: &Certificate,
        algorithm: AssertionAlgorithm,
    ) -> Result<SecretString, AccessError> {
        let signed = certificate.assertion(&AssertionRequest {
            client_id: self.client_id,
            audience: &self.endpoint.to_string(),
            now: (self.config.now)(),
            algorithm,
            send_chain: matches!(
                self.config.how,
                How::Certificate {
                    send_chain: true,
                    ..
                }
            ),
        });
        signed.map_err(|error| AccessError::Config(error.to_string()))
    }

    /// With what to do about it.
    fn told(&self, error: EntraError, material: &Material) -> AccessError {
        let client = self.client_id;
        let way_out = match (&error, material) {
            (EntraError::Credential { .. }, Material::Secret(_)) => {
                format!("make a new client secret of {client} and put it into the mounted Secret")
            }
            (EntraError::Credential { .. }, Material::Certificate(certificate)) => format!(
                "register the certificate with SHA-256 {}… at {client}, or mount one that is",
                certificate.thumbprint().get(..16).unwrap_or_default()
            ),
            (
                EntraError::Mismatch { .. } | EntraError::Credential { .. },
                Material::Assertion(token),
            ) => {
                format!(
                    "register a federated credential at {client}: {}",
                    subject(token)
                )
            }
            (EntraError::Refused { .. }, _) => {
                "are --client-id, --tenant-id and --arm-audience right?".to_owned()
            }
            _ => String::new(),
        };
        AccessError::Entra { error, way_out }
    }
}

/// What a token says of itself, and what is to be registered: no secret.
fn subject(token: &SecretString) -> String {
    let payload = token.expose_secret().split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    let told = |name: &str| {
        let value = match claims.get(name) {
            Some(Value::Array(values)) => values.first(),
            value => value,
        };
        plain(value.and_then(Value::as_str).unwrap_or("?"))
    };
    format!(
        "issuer {}, subject {}, audience {}",
        told("iss"),
        told("sub"),
        told("aud")
    )
}

async fn of_node(inner: &Inner, client: &ImdsClient, is_anew: bool) -> Result<Token, AccessError> {
    let config = &inner.config;
    let How::NodeIdentity { client_id, .. } = config.how else {
        return Err(AccessError::Config("no identity of the node".to_owned()));
    };
    let asked = client.node_token(client_id, &config.audience, is_anew, LIMIT, config.now);
    asked.await.map_err(|error| {
        let way_out = match &error {
            ImdsError::NotFound(_) => "assign an identity to this node's virtual machine or scale set, or correct --client-id; the controller must run with the host's network",
            ImdsError::Refused { .. } => "is --client-id one of this node's identities? Where it has several, it must be named",
            _ => "",
        };
        AccessError::Imds {
            error,
            way_out: way_out.to_owned(),
        }
    })
}
