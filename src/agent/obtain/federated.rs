//! The source `federated`: the pod's own service-account token is exchanged for Entra's.
//!
//! In: a call. Out: a token, "not here" where this cluster does not let the agent ask for such tokens, or
//! a fault. Waits for the API server, then for Entra. The service-account token is bound to the asking
//! pod, is for Entra's audience only, and is in no error; its issuer, subject and audience are told
//! where nobody registered them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::agent::events::reason::REGISTER;
use crate::azure::entra::{EntraError, Proof};
use crate::kubernetes::{AccountTokenRequest, Cluster, TokenError};
use crate::model::facts::EndpointFacts;
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Asker;
use crate::model::token::Token;

use super::entra::{Entra, Evidence, in_callers_terms};
use super::source::{Call, SourceError, Urgency};
use super::verify::payload;

/// What Entra's federated credentials expect.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
/// How long a service-account token is to be valid: it is used once, at once.
const LIFE: Duration = Duration::from_hours(1);
/// The most that the API server may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Requests for service accounts' tokens at once.
const AT_ONCE: usize = 8;
/// Longest name of an issuer, subject or audience that is told (characters).
const TOLD: usize = 300;

/// Who gives tokens of service accounts.
pub trait AccountTokens: fmt::Debug + Send + Sync {
    /// A token of the asking pod's service account, bound to that pod, for [`AUDIENCE`].
    fn token<'a>(&'a self, asker: &'a Asker, limit: Duration) -> AccountAnswer<'a>;
}

/// A service account's token, or why there is none.
pub type AccountAnswer<'a> =
    Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + 'a>>;

/// The API server.
#[derive(Clone)]
pub struct ApiServer(pub Cluster);

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiServer").finish_non_exhaustive()
    }
}

impl AccountTokens for ApiServer {
    fn token<'a>(&'a self, asker: &'a Asker, limit: Duration) -> AccountAnswer<'a> {
        Box::pin(async move {
            let request = AccountTokenRequest {
                pod: &asker.pod,
                uid: &asker.uid,
                account: &asker.service_account,
                audience: AUDIENCE,
                life: LIFE,
            };
            self.0.service_account_token(&request, limit).await
        })
    }
}

/// Pods' own service accounts.
#[derive(Clone, Debug)]
pub struct FederatedSource {
    accounts: Option<Arc<dyn AccountTokens>>,
    /// Requests that run at the API server: tokens that are due together must not be a burst there.
    room: Arc<Semaphore>,
}

impl FederatedSource {
    /// Service accounts of this cluster; `None`: there is no cluster.
    #[must_use]
    pub fn new(accounts: Option<Arc<dyn AccountTokens>>) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { accounts, room }
    }

    /// Fetches one token.
    pub async fn fetch(
        &self,
        entra: &Entra,
        endpoint: Option<&EndpointFacts>,
        call: &Call,
        mut urgency: Urgency,
    ) -> Result<Token, SourceError> {
        let Some(accounts) = &self.accounts else {
            let words = "federated: there is no API server to ask for service-account tokens";
            return Err(SourceError::NotHere(words.to_owned()));
        };
        let target = entra.target(call, endpoint).await?;
        let assertion = self.account_token(accounts.as_ref(), call).await;
        let assertion = assertion.map_err(|error| not_given(&error))?;
        let evidence = Evidence::Proof(Proof::Assertion(&assertion));
        let answer = target.token(call, &mut urgency, evidence).await?;
        answer.map_err(|error| match error {
            EntraError::Mismatch { .. } => mismatch(&assertion, call, error).into(),
            error => in_callers_terms(error).into(),
        })
    }
}

impl FederatedSource {
    async fn account_token(
        &self,
        accounts: &dyn AccountTokens,
        call: &Call,
    ) -> Result<SecretString, TokenError> {
        let late = |_| TokenError::Unavailable("too many requests wait".to_owned());
        let room = timeout_at(call.deadline, self.room.acquire()).await;
        let _held = room.map_err(late)?;
        let limit = LIMIT.min(call.deadline.saturating_duration_since(Instant::now()));
        accounts.token(&call.asker, limit).await
    }
}

fn not_given(error: &TokenError) -> SourceError {
    let detail = format!("federated: {error}");
    let fault = match error {
        TokenError::Forbidden(_) => return SourceError::NotHere(detail),
        TokenError::Gone(_) => Fault::new(
            FaultKind::PodUnknown,
            "The calling pod is not known to the API server any more, try again",
        ),
        TokenError::Refused(_) => Fault::new(
            FaultKind::CredentialUnusable,
            "The API server refuses a token of the pod's service account",
        ),
        TokenError::Unavailable(_) => Fault::new(
            FaultKind::UpstreamUnavailable,
            "The API server gives no token of the pod's service account",
        ),
    };
    SourceError::Fault(fault.with_detail(detail))
}

/// Names what is to be registered: the token says it of itself, and it is no secret.
fn mismatch(assertion: &SecretString, call: &Call, error: EntraError) -> Fault {
    let fault = in_callers_terms(error);
    let claims = payload(assertion.expose_secret()).unwrap_or_default();
    let told = |name: &str| -> String {
        let value = match claims.get(name) {
            Some(Value::Array(values)) => values.first(),
            value => value,
        };
        let text = value.and_then(Value::as_str).unwrap_or("?");
        let plain = text.chars().filter(|c| !c.is_control());
        plain.take(TOLD).collect()
    };
    let public = format!(
        "{}. {REGISTER} of client {}: issuer {}, subject {}, audience {}",
        fault.public.trim_end_matches(['.', ' ']),
        call.grant.identity.client_id,
        told("iss"),
        told("sub"),
        told("aud"),
    );
    Fault {
        public: public.into(),
        ..fault
    }
}

#[cfg(test)]
mod tests;
