//! A `ServiceAccount` that is set up for Azure Workload Identity → facts. Its metadata is enough.
//!
//! Two annotations count: `azure.workload.identity/client-id` and `/tenant-id`. The rest of that
//! product's (`service-account-token-expiration` and what its webhook reads) is passed by: the agent
//! asks for tokens of its own.

use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use super::Malformed;
use crate::model::account::AccountFacts;
use crate::model::facts::PodFacts;
use crate::model::ids::ObjectName;

/// Annotation of a service account: the application's client id.
pub const CLIENT_ID_ANNOTATION: &str = "azure.workload.identity/client-id";
/// Annotation of a service account: the application's tenant; the agent's own where it is left out.
pub const TENANT_ID_ANNOTATION: &str = "azure.workload.identity/tenant-id";
/// Label by which a pod asks for its service account's identity; its value is `true`.
pub const USE_LABEL: &str = "azure.workload.identity/use";

/// Whether a pod asks for its service account's identity.
#[must_use]
pub fn is_asked_for(pod: &PodFacts) -> bool {
    pod.labels
        .get(USE_LABEL)
        .is_some_and(|asked| asked == "true")
}

/// The pod's service account.
#[must_use]
pub fn of_pod(pod: &PodFacts) -> ObjectName {
    ObjectName {
        namespace: pod.name.namespace.clone(),
        name: pod.service_account.clone(),
    }
}

/// The facts of a service account; `None` where it names no client id. An error names the annotation
/// that is no GUID.
pub fn facts(document: &Value, name: ObjectName) -> Result<Option<AccountFacts>, Malformed> {
    let annotations = document.pointer("/metadata/annotations");
    let annotation = |key: &str| annotations?.get(key)?.as_str();
    let Some(client_id) = annotation(CLIENT_ID_ANNOTATION) else {
        return Ok(None);
    };
    let tenant = annotation(TENANT_ID_ANNOTATION);
    let uid = document.pointer("/metadata/uid").and_then(Value::as_str);
    Ok(Some(AccountFacts {
        name,
        uid: Arc::from(uid.unwrap_or_default()),
        client_id: guid(CLIENT_ID_ANNOTATION, client_id)?,
        tenant_id: tenant
            .map(|text| guid(TENANT_ID_ANNOTATION, text))
            .transpose()?,
    }))
}

fn guid<T: FromStr<Err: std::fmt::Display>>(key: &str, text: &str) -> Result<T, Malformed> {
    let parsed = text.parse();
    parsed.map_err(|error| Malformed::at(format!("metadata.annotations[{key}]"), error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "11111111-1111-4111-8111-111111111111";

    fn read(annotations: &Value) -> Result<Option<AccountFacts>, Malformed> {
        let document = json!({"metadata": {"uid": "u", "annotations": annotations}});
        facts(&document, ObjectName::new("shop", "app"))
    }

    #[test]
    fn the_two_ids_count_and_nothing_else() {
        let read = read(&json!({
            CLIENT_ID_ANNOTATION: ID, TENANT_ID_ANNOTATION: ID.to_uppercase(),
            "azure.workload.identity/service-account-token-expiration": "many",
        }));
        let facts = read.unwrap().unwrap();
        assert_eq!(facts.client_id.to_string(), ID);
        assert_eq!(facts.tenant_id, Some(facts.client_id));
        assert_eq!((&*facts.uid, &*facts.name.name), ("u", "app"));
    }

    #[test]
    fn an_account_of_no_application_does_not_concern_us() {
        for annotations in [json!(null), json!({}), json!({TENANT_ID_ANNOTATION: "x"})] {
            assert_eq!(read(&annotations), Ok(None), "{annotations}");
        }
    }

    #[test]
    fn what_is_no_guid_is_refused_by_its_name() {
        for (annotations, key) in [
            (json!({CLIENT_ID_ANNOTATION: ""}), CLIENT_ID_ANNOTATION),
            (json!({CLIENT_ID_ANNOTATION: "app"}), CLIENT_ID_ANNOTATION),
            (
                json!({CLIENT_ID_ANNOTATION: ID, TENANT_ID_ANNOTATION: "contoso.com"}),
                TENANT_ID_ANNOTATION,
            ),
        ] {
            let problem = read(&annotations).unwrap_err().to_string();
            assert!(
                problem.contains(key) && problem.contains("is not a GUID"),
                "{problem}"
            );
        }
    }
}
