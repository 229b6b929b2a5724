//! Who shows a token, and what he may: the API server's own word (`TokenReview`, `SubjectAccessReview`).
//!
//! In: a token and an audience; who asks, and what for. Out: a user, or that the token proves none; yes or no. The token
//! is shown by no `Debug` and no error. Blocks on the network, at most for the given deadline; nothing is retried here.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Cluster;
use super::collection::{Failure, in_time};

/// Where a token that is bound to a pod says on which node that is (Kubernetes 1.30 and later).
const NODE: &str = "authentication.kubernetes.io/node-name";

/// A user as the API server knows him.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reviewed {
    /// As in `system:serviceaccount:NAMESPACE:NAME`; never empty.
    pub username: String,
    /// Of the account.
    pub uid: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// What else the token says, as of the pod that it is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Reviewed {
    /// The node that the token says it was given on; none where it is bound to no pod.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        self.extra.get(NODE).map_or(&[], Vec::as_slice)
    }
}

/// What became of a token's review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenReview {
    /// It is this user's, and for the audience.
    Proven(Reviewed),
    /// It proves nothing: why, for the log.
    Unproven(String),
}

/// What somebody would like to do.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// As in `create`.
    pub verb: &'a str,
    /// As in `pods`, of the core group.
    pub resource: &'a str,
    /// As in `azuretoken`.
    pub subresource: &'a str,
    /// Never empty: that would be all of them.
    pub namespace: &'a str,
    /// Never empty: that would be all of them.
    pub name: &'a str,
}

#[derive(Deserialize)]
struct Answer<S> {
    status: S,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    user: Reviewed,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
    denied: bool,
}

impl Cluster {
    /// Whose token that is. A token for other audiences proves nothing, and neither does one of which the API server does
    /// not say that it is for this one.
    pub async fn who(
        &self,
        token: &SecretString,
        audience: &str,
        deadline: Duration,
    ) -> Result<TokenReview, Failure> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.expose_secret(), "audiences": [audience]},
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let status: TokenStatus = in_time(deadline, self.review(path, &body))
            .await
            .map_err(|failure| without(token, failure))?;
        Ok(judge(status, audience, token))
    }

    /// Whether that user may do that.
    pub async fn may(
        &self,
        who: &Reviewed,
        what: Access<'_>,
        deadline: Duration,
    ) -> Result<bool, Failure> {
        let Access {
            verb,
            resource,
            subresource,
            namespace,
            name,
        } = what;
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": who.username, "uid": who.uid, "groups": who.groups, "extra": who.extra,
                "resourceAttributes": {"verb": verb, "group": "", "version": "v1", "resource": resource,
                    "subresource": subresource, "namespace": namespace, "name": name},
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let status: AccessStatus = in_time(deadline, self.review(path, &body)).await?;
        Ok(status.allowed && !status.denied)
    }

    async fn review<S: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        review: &Value,
    ) -> Result<S, Failure> {
        let body = self.post(path, review).await?;
        // Not the reader's words: the answer repeats the token.
        let nonsense = |_| Failure::Nonsense("it is no review".to_owned());
        let answer: Answer<S> = serde_json::from_slice(&body).map_err(nonsense)?;
        Ok(answer.status)
    }
}

fn judge(status: TokenStatus, audience: &str, token: &SecretString) -> TokenReview {
    let unproven = |why: &str| TokenReview::Unproven(why.to_owned());
    if !status.authenticated {
        return unproven(&untold(token, status.error));
    }
    // An API server that knows nothing of audiences says yes to tokens of all of them.
    if !status.audiences.iter().any(|one| one == audience) {
        return unproven("the API server does not say that the token is for this audience");
    }
    if status.user.username.is_empty() {
        return unproven("the token is nobody's");
    }
    TokenReview::Proven(status.user)
}

fn without(token: &SecretString, failure: Failure) -> Failure {
    match failure {
        Failure::Refused { status, message } => Failure::Refused {
            status,
            message: untold(token, message),
        },
        other => other,
    }
}

/// The words, unless they quote the token: whatever authenticates tokens may write what it likes.
fn untold(token: &SecretString, words: String) -> String {
    let quotes = token
        .expose_secret()
        .split('.')
        .any(|part| part.len() > 8 && words.contains(part));
    if quotes {
        "words that quote the token".to_owned()
    } else {
        words
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::server;
    use super::*;

    const AUDIENCE: &str = "lanyard.dev";
    const DEADLINE: Duration = Duration::from_secs(30);

    fn provider() -> Value {
        json!({"username": "system:serviceaccount:kube-system:provider", "uid": "u-1",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {NODE: ["node-a"], "authentication.kubernetes.io/pod-name": ["provider-x"]}})
    }

    async fn who(status: Value) -> TokenReview {
        let (_, cluster) = server(201, &json!({"status": status}));
        let token = "ey.payload-of-it.signature".into();
        cluster.who(&token, AUDIENCE, DEADLINE).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_asked_about_for_one_audience() {
        let status = json!({"authenticated": true, "user": provider(), "audiences": [AUDIENCE]});
        let (server, cluster) = server(201, &json!({"status": status}));
        let token = "ey.payload-of-it.signature".into();
        let found = cluster.who(&token, AUDIENCE, DEADLINE).await.unwrap();
        let TokenReview::Proven(user) = found else {
            panic!("{found:?}")
        };
        assert_eq!(user.username, "system:serviceaccount:kube-system:provider");
        assert_eq!(user.nodes(), ["node-a"]);
        let (path, body) = server.asked().await;
        assert_eq!(path, "POST /apis/authentication.k8s.io/v1/tokenreviews");
        assert_eq!(
            body["spec"],
            json!({"token": "ey.payload-of-it.signature", "audiences": [AUDIENCE]})
        );
    }

    #[tokio::test]
    async fn only_what_is_said_to_be_for_the_audience_proves_anything() {
        let of = |authenticated: bool, audiences: Value| json!({"authenticated": authenticated, "user": provider(), "audiences": audiences});
        assert!(matches!(
            who(of(true, json!(["other", AUDIENCE]))).await,
            TokenReview::Proven(_)
        ));
        for status in [
            json!({}),
            of(false, json!([AUDIENCE])),
            // As an API server says that ignores audiences.
            of(true, json!([])),
            json!({"authenticated": true, "user": provider()}),
            of(true, json!(["https://kubernetes.default.svc"])),
            of(true, json!(["lanyard.dev.example.com"])),
            json!({"authenticated": true, "audiences": [AUDIENCE]}),
            json!({"authenticated": true, "user": {"username": ""}, "audiences": [AUDIENCE]}),
        ] {
            let found = who(status.clone()).await;
            assert!(matches!(found, TokenReview::Unproven(_)), "{status}");
        }
    }

    #[tokio::test]
    async fn the_token_is_in_no_error() {
        let token: SecretString = "ey.payload-of-it.signature".into();
        let quoting = "invalid bearer token ey.payload-of-it.signature";
        let status = json!({"authenticated": false, "error": quoting});
        let found = who(status).await;
        assert!(!format!("{found:?}").contains("payload"), "{found:?}");
        let plain = who(json!({"error": "token has expired"})).await;
        assert_eq!(plain, TokenReview::Unproven("token has expired".to_owned()));
        for (status, body) in [
            (400, json!({"kind": "Status", "message": quoting})),
            (
                201,
                json!({"spec": {"token": "ey.payload-of-it.signature"}}),
            ),
            (
                201,
                json!({"status": {"authenticated": "ey.payload-of-it.signature"}}),
            ),
        ] {
            let (_, cluster) = server(status, &body);
            let failed = cluster.who(&token, AUDIENCE, DEADLINE).await.unwrap_err();
            assert!(
                !format!("{failed:?} {failed}").contains("payload"),
                "{failed}"
            );
        }
    }

    #[tokio::test]
    async fn access_is_asked_for_with_all_that_is_known_of_who_asks() {
        let what = Access {
            verb: "create",
            resource: "pods",
            subresource: "azuretoken",
            namespace: "shop",
            name: "web-0",
        };
        let user: Reviewed = serde_json::from_value(provider()).unwrap();
        for (status, allowed) in [
            (json!({"allowed": true}), true),
            (json!({"allowed": false}), false),
            (json!({"allowed": true, "denied": true}), false),
            (json!({"reason": "no opinion"}), false),
        ] {
            let (server, cluster) = server(201, &json!({"status": status}));
            let may = cluster.may(&user, what, DEADLINE).await.unwrap();
            assert_eq!(may, allowed, "{status}");
            let (path, body) = server.asked().await;
            assert_eq!(
                path,
                "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"
            );
            let mut expected = json!({"resourceAttributes": {"verb": "create", "group": "", "version": "v1",
                "resource": "pods", "subresource": "azuretoken", "namespace": "shop", "name": "web-0"}});
            for (ours, theirs) in [
                ("user", "username"),
                ("uid", "uid"),
                ("groups", "groups"),
                ("extra", "extra"),
            ] {
                expected[ours] = provider()[theirs].clone();
            }
            assert_eq!(body["spec"], expected);
        }
    }
}
