//! A pod's own service-account token, made by the API server (`TokenRequest`).
//!
//! In: the account, the pod that the token is bound to, an audience. Out: the token, or an
//! error that says whether this cluster lets the agent ask at all. The token is shown by no `Debug`
//! and no error. Blocks on the network, at most for the given deadline; nothing is retried here.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::Cluster;
use super::collection::{Failure, in_time};
use crate::model::ids::ObjectName;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The agent may not ask for tokens of this namespace at all (403).
    #[error("the agent may not ask for a token of this service account: {0}")]
    Forbidden(String),
    /// There is no such service account, or the pod is gone (404, 409).
    #[error("the service account or the pod is not there (any more): {0}")]
    Gone(String),
    /// The API server refused this one (4xx; by an admission webhook also 403).
    #[error("the API server refused: {0}")]
    Refused(String),
    /// It is away, in trouble, throttling, or answered nonsense.
    #[error("the API server did not give a token: {0}")]
    Unavailable(String),
}

/// For whom and for what a token is.
#[derive(Clone, Copy, Debug)]
pub struct AccountTokenRequest<'a> {
    /// The pod that it is bound to: it dies with it.
    pub pod: &'a ObjectName,
    /// That pod's UID.
    pub uid: &'a str,
    /// The service account, of the pod's namespace.
    pub account: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// How long it is to be valid; the API server takes ten minutes or more.
    pub life: Duration,
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    token: Box<str>,
}

impl Cluster {
    /// Asks for a token, a JWT, that is bound to a pod.
    pub async fn service_account_token(
        &self,
        request: &AccountTokenRequest<'_>,
        deadline: Duration,
    ) -> Result<SecretString, TokenError> {
        let text = in_time(deadline, self.token_text(request)).await;
        let text = text.map_err(told)?;
        // Not the reader's words: they may quote the token.
        let nonsense = || TokenError::Unavailable("an unreadable answer".to_owned());
        let answer: Answer = serde_json::from_slice(&text).map_err(|_| nonsense())?;
        Ok(SecretString::new(answer.status.token))
    }

    async fn token_text(
        &self,
        request: &AccountTokenRequest<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let ObjectName { namespace, name } = request.pod;
        let path = format!(
            "/api/v1/namespaces/{namespace}/serviceaccounts/{}/token",
            request.account
        );
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [request.audience],
                "expirationSeconds": request.life.as_secs(),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": request.uid},
            },
        });
        self.post(&path, &body).await
    }
}

fn told(failure: Failure) -> TokenError {
    match failure {
        Failure::Refused { status, message } => match status {
            403 if !is_denied(&message) => TokenError::Forbidden(message),
            404 | 409 => TokenError::Gone(message),
            400..=499 if !matches!(status, 401 | 408 | 429) => TokenError::Refused(message),
            _ => TokenError::Unavailable(format!("{status}: {message}")),
        },
        other => TokenError::Unavailable(other.to_string()),
    }
}

/// Whether a 403 is admission's and not that of missing rights: only its words tell.
fn is_denied(message: &str) -> bool {
    message.starts_with("admission webhook") || message.contains("ValidatingAdmissionPolicy")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::Value;

    use super::super::testkit::server;
    use super::*;

    async fn ask(status: u16, body: Value) -> (Result<SecretString, TokenError>, (String, Value)) {
        let (server, cluster) = server(status, &body);
        let request = AccountTokenRequest {
            pod: &ObjectName::new("shop", "web"),
            uid: "uid-web",
            account: "payments",
            audience: "api://AzureADTokenExchange",
            life: Duration::from_hours(1),
        };
        let answer = cluster
            .service_account_token(&request, Duration::from_secs(30))
            .await;
        (answer, server.asked().await)
    }

    #[tokio::test]
    async fn the_token_is_bound_to_the_pod_and_of_one_audience() {
        let status = json!({"token": "eyJhbGciOi", "expirationTimestamp": "2026-11-21T10:00:00Z"});
        let (answer, (path, asked)) = ask(201, json!({"status": status})).await;
        let token = answer.unwrap();
        assert_eq!(token.expose_secret(), "eyJhbGciOi");
        assert!(!format!("{token:?}").contains("eyJ"));
        assert_eq!(
            path,
            "POST /api/v1/namespaces/shop/serviceaccounts/payments/token"
        );
        assert_eq!(
            asked["spec"],
            json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 3600,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web"}})
        );
    }

    #[tokio::test]
    async fn who_may_not_ask_is_told_from_who_is_gone_and_from_trouble() {
        let refusal = json!({"kind": "Status", "message": "in words"});
        for (status, is) in [
            (403, "Forbidden"),
            (404, "Gone"),
            (409, "Gone"),
            (400, "Refused"),
            (422, "Refused"),
            (401, "Unavailable"),
            (429, "Unavailable"),
            (500, "Unavailable"),
        ] {
            let error = ask(status, refusal.clone()).await.0.unwrap_err();
            assert!(format!("{error:?}").starts_with(is), "{status}: {error:?}");
            assert!(error.to_string().contains("in words"), "{error}");
        }
        let denied = "admission webhook \"tokens.lanyard.dev\" denied the request: another node's";
        let answer = json!({"kind": "Status", "message": denied});
        let error = ask(403, answer).await.0.unwrap_err();
        assert!(matches!(error, TokenError::Refused(_)), "{error:?}");
        let odd = json!({"status": {"token": ["eyJhbGciOi"], "expirationTimestamp": "never"}});
        let error = ask(201, odd).await.0.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)));
        assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
    }
}
