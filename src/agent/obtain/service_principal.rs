//! The source `servicePrincipal`: an application proves itself with a secret or a certificate of its own.
//!
//! In: a call. Out: a token, or a fault in the caller's terms. Waits for its Secret to be read the first
//! time, then for Entra. Credentials are tried in the ring's order within one deadline: one that Entra
//! refuses is told to the ring and the next is tried; any other answer ends the fetch. Nothing of a
//! credential gets into an error.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::agent::credentials::{Credential, Credentials, Material, Ring, Unusable};
use crate::azure::credential::AssertionRequest;
use crate::azure::entra::{EntraError, Proof};
use crate::model::facts::{CredentialFacts, CredentialForm};
use crate::model::fault::{Fault, FaultKind};
use crate::model::token::Token;

use super::clock::Clock;
use super::entra::{Entra, Evidence, Target, in_callers_terms};
use super::source::{Call, SourceError, Urgency};

/// How long a fetch waits for a Secret that is being read.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Applications with credentials of their own.
#[derive(Clone, Debug)]
pub struct ServicePrincipalSource {
    credentials: Credentials,
    clock: Clock,
}

impl ServicePrincipalSource {
    /// Applications whose credentials are these.
    #[must_use]
    pub const fn new(credentials: Credentials, clock: Clock) -> Self {
        Self { credentials, clock }
    }

    /// Fetches one token.
    pub async fn fetch(
        &self,
        entra: &Entra,
        facts: &CredentialFacts,
        call: &Call,
        mut urgency: Urgency,
    ) -> Result<Token, SourceError> {
        let target = entra.target(call, None).await?;
        let identity = &call.grant.identity;
        let until = call.deadline.min(Instant::now() + READ_WAIT);
        let reading = self.credentials.ring_when_read(identity, facts);
        let ring = match timeout_at(until, reading).await {
            Ok(read) => read,
            Err(_) => self.credentials.ring(identity, facts),
        };
        let ring = ring.map_err(|why| unusable(&why))?;
        let mut last = None;
        for credential in ring.candidates(self.clock.wall()) {
            let answer = self
                .present(&target, &credential, facts, call, &mut urgency)
                .await?;
            match answer {
                Ok(token) => {
                    ring.proved(&credential);
                    return Ok(token);
                }
                Err(error) => last = Some(self.refused(&ring, &credential, error)?),
            }
        }
        Err(last.unwrap_or_else(gone).into())
    }

    /// Tells the ring of a refused credential. `Err`: another one would not do either.
    fn refused(
        &self,
        ring: &Ring,
        credential: &Credential,
        error: EntraError,
    ) -> Result<Fault, Fault> {
        let EntraError::Credential { code, .. } = error else {
            return Err(in_callers_terms(error));
        };
        ring.refused(credential, code, self.clock.wall());
        Ok(in_callers_terms(error))
    }

    async fn present(
        &self,
        target: &Target,
        credential: &Credential,
        facts: &CredentialFacts,
        call: &Call,
        urgency: &mut Urgency,
    ) -> Result<Result<Token, EntraError>, Fault> {
        let certificate = match credential.material() {
            Material::Secret(secret) => {
                let evidence = Evidence::Proof(Proof::Secret(secret));
                return target.token(call, urgency, evidence).await;
            }
            Material::Certificate(certificate) => certificate,
        };
        let audience = target.endpoint().to_string();
        loop {
            let algorithm = target.algorithm();
            let sign = || {
                certificate.assertion(&AssertionRequest {
                    client_id: call.grant.identity.client_id,
                    audience: &audience,
                    now: self.clock.wall(),
                    algorithm,
                    send_chain: sends_chain(&facts.form),
                })
            };
            let answer = target.token(call, urgency, Evidence::Signed(&sign));
            match answer.await? {
                Err(EntraError::Algorithm(_)) if target.refuses(algorithm) => {}
                answer => return Ok(answer),
            }
        }
    }
}

const fn sends_chain(form: &CredentialForm) -> bool {
    match form {
        CredentialForm::Secret { .. } => false,
        CredentialForm::Pem { send_chain, .. } | CredentialForm::Pkcs12 { send_chain, .. } => {
            *send_chain
        }
    }
}

/// The pod reads that it is so; which Secret and why is for the log and for its owner's Event.
fn unusable(why: &Unusable) -> Fault {
    let fault = if why.may_retry() {
        Fault::new(
            FaultKind::UpstreamUnavailable,
            "The identity's credential could not be read yet",
        )
    } else {
        Fault::new(
            FaultKind::CredentialUnusable,
            "The identity's credential is missing or cannot be used",
        )
    };
    fault.with_detail(why.to_string())
}

/// The ring was emptied since it was looked at.
fn gone() -> Fault {
    Fault::new(
        FaultKind::UpstreamUnavailable,
        "The identity's credential could not be read yet",
    )
    .with_detail("its Secret changed in this moment")
}
