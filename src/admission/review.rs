//! The admission API's words: what the API server asks, and how it is answered.
//!
//! In: the bytes of an `AdmissionReview` (admission.k8s.io/v1, "Dynamic Admission Control"). Out: its
//! [`Request`], of a service account's token a [`Question`], or why it is none; and the bytes of the
//! answer. Pure. Fields that nobody looks at are not read, so that a newer API server may send more.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The extra of a user that the API server takes from the token itself: the node of the pod that the
/// token is bound to (KEP-4193).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// A request for a service account's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The review's own id, to be repeated in the answer.
    pub(super) review: String,
    /// Who asks.
    pub(super) user: String,
    /// The nodes that the asker's token says it is of: one, if it is an agent's.
    pub(super) nodes: Vec<String>,
    /// Whose token.
    pub(super) account: Account,
    /// The pod that the token is to be bound to; `None` where it is to be bound to none.
    pub(super) bound: Option<Bound>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A pod by name and uid, as the request has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) uid: String,
}

/// Why a body is no question of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("no AdmissionReview: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("an AdmissionReview of {0:.64?}: only admission.k8s.io/v1 is understood")]
    Version(String),
    #[error(
        "an AdmissionReview of {operation:.64?} {resource:.64?}/{subresource:.64?}: the webhook's rules are to name CREATE of \
         serviceaccounts/token only"
    )]
    Other {
        operation: String,
        resource: String,
        subresource: String,
    },
}

/// Reads what is asked, whatever it is about.
pub(super) fn read(body: &[u8]) -> Result<Request<'_>, ReviewError> {
    let review: Review<'_> = serde_json::from_slice(body)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::Version(review.api_version));
    }
    Ok(review.request)
}

/// Reads a question about a service account's token.
pub(super) fn question(body: &[u8]) -> Result<Question, ReviewError> {
    let request = read(body)?;
    let ours = request.operation == "CREATE"
        && request.resource.group.is_empty()
        && request.resource.resource == "serviceaccounts"
        && request.sub_resource == "token";
    if !ours {
        return Err(ReviewError::Other {
            operation: request.operation,
            resource: request.resource.resource,
            subresource: request.sub_resource,
        });
    }
    let object: TokenRequest = match request.object {
        Some(object) => serde_json::from_str(object.get())?,
        None => TokenRequest::default(),
    };
    let reference = object.spec.bound_object_ref;
    let bound = reference.filter(|one| one.api_version == "v1" && one.kind == "Pod");
    let mut extra = request.user_info.extra;
    Ok(Question {
        review: request.uid,
        user: request.user_info.username,
        nodes: extra.remove(NODE_NAME).unwrap_or_default(),
        account: Account {
            namespace: request.namespace,
            name: request.name,
        },
        bound: bound.map(|one| Bound {
            name: one.name,
            uid: one.uid,
        }),
    })
}

/// The answer to the review of that id: allowed, or the status (a code and words) that the asker gets.
pub(super) fn answer(review: &str, verdict: Result<(), (u16, &str)>) -> Value {
    let mut response = json!({"uid": review, "allowed": verdict.is_ok()});
    if let Err((code, message)) = verdict {
        let reason = match code {
            400 => "BadRequest",
            503 => "ServiceUnavailable",
            _ => "Forbidden",
        };
        response["status"] = json!({"code": code, "reason": reason, "message": message});
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// The answer that allows and changes: operations of a JSON patch (RFC 6902), and words for whoever asked.
pub(super) fn changed(review: &str, patch: &[Value], warnings: &[String]) -> Value {
    let mut answer = answer(review, Ok(()));
    let response = &mut answer["response"];
    if !patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        // Values of strings and numbers: writing them does not fail.
        let patch = serde_json::to_string(patch).unwrap_or_default();
        response["patch"] = json!(STANDARD.encode(patch));
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    answer
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    #[serde(borrow)]
    request: Request<'a>,
}

/// What the API server asks about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    /// The review's own id, to be repeated in the answer.
    pub(super) uid: String,
    /// CREATE, UPDATE, DELETE or CONNECT.
    pub(super) operation: String,
    pub(super) resource: Resource,
    /// Empty for the object itself.
    #[serde(default)]
    pub(super) sub_resource: String,
    /// Empty for what has none.
    #[serde(default)]
    pub(super) namespace: String,
    /// Empty where the API server is still to make one up.
    #[serde(default)]
    pub(super) name: String,
    user_info: UserInfo,
    /// The object as it would be stored.
    #[serde(borrow, default)]
    pub(super) object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) group: String,
    pub(super) resource: String,
}

#[derive(Default, Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
struct TokenRequest {
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    bound_object_ref: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review() -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "r-1",
                "operation": "CREATE",
                "resource": {"group": "", "version": "v1", "resource": "serviceaccounts"},
                "subResource": "token",
                "namespace": "shop",
                "name": "app",
                "userInfo": {"username": "agent", "extra": {NODE_NAME: ["node-a"], "other": ["x"]}},
                "object": {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "till", "uid": "u-1"}}},
            },
        })
    }

    fn read(review: &Value) -> Result<Question, ReviewError> {
        question(review.to_string().as_bytes())
    }

    #[test]
    fn a_question_is_read() {
        let question = read(&review()).unwrap();
        assert_eq!(question.nodes, ["node-a"]);
        assert_eq!(question.account.name, "app");
        assert_eq!(question.account.namespace, "shop");
        assert_eq!(
            question.bound.map(|bound| (bound.name, bound.uid)),
            Some(("till".to_owned(), "u-1".to_owned()))
        );
    }

    #[test]
    fn what_is_bound_to_something_else_is_bound_to_no_pod() {
        for (field, value) in [("kind", "Secret"), ("kind", "Node"), ("apiVersion", "v2")] {
            let mut review = review();
            review["request"]["object"]["spec"]["boundObjectRef"][field] = json!(value);
            assert_eq!(read(&review).unwrap().bound, None, "{value}");
        }
        let mut unbound = review();
        unbound["request"]["object"]["spec"]["boundObjectRef"] = Value::Null;
        assert_eq!(read(&unbound).unwrap().bound, None);
    }

    #[test]
    fn what_the_rules_should_not_send_is_named() {
        for (field, value) in [("operation", "UPDATE"), ("subResource", "")] {
            let mut review = review();
            review["request"][field] = json!(value);
            let error = read(&review).unwrap_err().to_string();
            assert!(error.contains("serviceaccounts/token"), "{error}");
        }
        let mut beta = review();
        beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert!(read(&beta).unwrap_err().to_string().contains("v1beta1"));
        assert!(matches!(
            question(b"<html>"),
            Err(ReviewError::Malformed(_))
        ));
    }

    #[test]
    fn an_answer_that_changes_nothing_has_no_patch() {
        let same = changed("r-1", &[], &[]);
        assert_eq!(same, answer("r-1", Ok(())));
        let patch = [json!({"op": "add", "path": "/x", "value": 1})];
        let response = &changed("r-1", &patch, &["look".to_owned()])["response"];
        assert_eq!(response["patchType"], "JSONPatch");
        let decoded = STANDARD.decode(response["patch"].as_str().unwrap());
        let decoded: Value = serde_json::from_slice(&decoded.unwrap()).unwrap();
        assert_eq!(decoded, json!(patch));
        assert_eq!(response["warnings"], json!(["look"]));
    }

    #[test]
    fn an_answer_repeats_the_id_and_says_why() {
        let denied = answer("r-1", Err((403, "another node's")));
        assert_eq!(denied["response"]["uid"], "r-1");
        assert_eq!(denied["response"]["allowed"], false);
        assert_eq!(denied["response"]["status"]["message"], "another node's");
        assert_eq!(answer("r-1", Ok(()))["response"]["allowed"], true);
    }
}
