//! Commands and manifests that can be pasted into a shell as they stand.

use serde_json::{Value, json};

use super::found::PodView;
use super::yaml::{scalar, shell};
use crate::api::{API_VERSION, IDENTITY_ANNOTATION};
use crate::model::account::is_accounts;
use crate::model::facts::{IdentityFacts, PodFacts, SourceFacts};
use crate::model::ids::ObjectName;
use crate::model::managed::is_others;

/// Stand-ins for what only a person knows.
const SOME_CLIENT_ID: &str =
    "00000000-0000-0000-0000-000000000000 # the identity's client id in Azure";
const SOME_PREFIX: &str = "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP";

/// An entry that names the pods of the pod's service account.
pub(super) fn subject(pod: &PodFacts, identity: &ObjectName) -> Value {
    let account = &*pod.service_account;
    if pod.name.namespace == identity.namespace {
        return json!({"serviceAccounts": [account]});
    }
    json!({
        "serviceAccounts": [account],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": &*pod.name.namespace}},
    })
}

/// A manifest as a command that can be pasted.
pub(super) fn apply(manifest: &str) -> String {
    format!("kubectl apply -f - <<'EOF'\n{manifest}EOF")
}

pub(super) fn identity_yaml(name: &ObjectName) -> String {
    format!(
        "apiVersion: {API_VERSION}\nkind: AzureIdentity\nmetadata: {{namespace: {}, name: {}}}\nspec:\n  clientID: {SOME_CLIENT_ID}\n  resourceID: {SOME_PREFIX}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}\n",
        scalar(&name.namespace),
        scalar(&name.name),
        name.name
    )
}

pub(super) fn binding_yaml(identity: &ObjectName, name: &str, pod: &PodFacts) -> String {
    format!(
        "apiVersion: {API_VERSION}\nkind: AzureIdentityBinding\nmetadata: {{namespace: {}, name: {}}}\nspec:\n  identity: {}\n  subjects:\n  - {}\n",
        scalar(&identity.namespace),
        scalar(name),
        scalar(&identity.name),
        subject(pod, identity)
    )
}

pub(super) fn policy_yaml(name: &str, identity: &IdentityFacts) -> String {
    let client = identity.client_id.to_string();
    let mut admitted = vec![if is_accounts(&identity.name) {
        format!("clientIDs: [{}]\n  workloadIdentity: true", scalar(&client))
    } else if is_application(identity) {
        format!("clientIDs: [{}]", scalar(&client))
    } else {
        format!("resourceIDPrefixes: [{}]", scalar(&group(identity)))
    }];
    let host = identity.authority_host.as_deref();
    admitted.extend(host.map(|host| format!("authorityHosts: [{}]", scalar(host))));
    let endpoint = endpoint(identity);
    admitted.extend(endpoint.map(|url| format!("tokenEndpoints: [{}]", scalar(url))));
    let admitted = admitted.join("\n  ");
    format!(
        "apiVersion: {API_VERSION}\nkind: AzureIdentityPolicy\nmetadata: {{name: {}}}\nspec:\n  namespaces: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}\n  {admitted}\n",
        scalar(name),
        scalar(&identity.name.namespace),
    )
}

/// Whether an identity is an application's own: it has no ARM id that a policy's prefixes could admit.
pub(super) fn is_application(identity: &IdentityFacts) -> bool {
    let mut sources = identity.sources.iter();
    identity.resource_id.is_none()
        && sources.any(|source| matches!(source, SourceFacts::ServicePrincipal(_)))
}

/// The token endpoint that an identity names.
pub(super) fn endpoint(identity: &IdentityFacts) -> Option<&str> {
    identity.sources.iter().find_map(|source| match source {
        SourceFacts::Federated(Some(endpoint)) => Some(&*endpoint.url),
        _ => None,
    })
}

/// The identity's resource group, as a prefix; all of its id where Lanyard made it for another object.
pub(super) fn group(identity: &IdentityFacts) -> String {
    let others = identity.resource_id.as_ref();
    if let Some(id) = others.filter(|id| is_others(id, &identity.uid)) {
        return id.as_written().to_owned();
    }
    let id = identity
        .resource_id
        .as_ref()
        .map(|id| id.as_written().to_owned());
    let segments = id
        .as_deref()
        .map(|id| id.split('/').take(5).collect::<Vec<_>>().join("/"));
    segments.unwrap_or_else(|| SOME_PREFIX.to_owned())
}

pub(super) fn patch_json(kind: &str, name: &ObjectName, patch: &Value) -> String {
    let namespace = if name.namespace.is_empty() {
        String::new()
    } else {
        format!(" -n {}", name.namespace)
    };
    format!(
        "kubectl{namespace} patch {kind} {} --type=json -p {}",
        name.name,
        shell(&patch.to_string())
    )
}

pub(super) fn default(binding: &ObjectName, default: bool) -> String {
    let patch = json!({"spec": {"default": default}});
    format!(
        "kubectl -n {} patch azureidentitybinding {} --type=merge -p {}",
        binding.namespace,
        binding.name,
        shell(&patch.to_string())
    )
}

/// Sets the annotation.
pub(super) fn annotate(view: &PodView, value: &str) -> String {
    let argument = format!("{IDENTITY_ANNOTATION}={value}");
    set(
        view,
        "annotations",
        IDENTITY_ANNOTATION,
        &value.into(),
        &argument,
    )
}

/// Takes the annotation away.
pub(super) fn unannotate(view: &PodView) -> String {
    let argument = format!("{IDENTITY_ANNOTATION}-");
    set(
        view,
        "annotations",
        IDENTITY_ANNOTATION,
        &Value::Null,
        &argument,
    )
}

/// Gives the pod a label.
pub(super) fn label(view: &PodView, key: &str, value: &str) -> String {
    set(
        view,
        "labels",
        key,
        &value.into(),
        &format!("{key}={value}"),
    )
}

/// Sets a label or an annotation where it lasts: in the template of whoever makes the pod.
fn set(view: &PodView, field: &str, key: &str, value: &Value, argument: &str) -> String {
    let pod = &view.facts.name;
    let patchable = view.owner.as_ref().filter(|owner| {
        matches!(
            owner.kind.as_str(),
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"
        )
    });
    if let Some(owner) = patchable {
        let patch = json!({"spec": {"template": {"metadata": {field: {key: value}}}}});
        return format!(
            "kubectl -n {} patch {} {} --type=merge -p {}",
            pod.namespace,
            owner.kind.to_ascii_lowercase(),
            owner.name,
            shell(&patch.to_string())
        );
    }
    let lasting = view.owner.as_ref().map_or(String::new(), |owner| {
        format!(
            "# for this pod only; the next one needs it in the template of {} {}\n",
            owner.kind, owner.name
        )
    });
    let verb = if field == "labels" {
        "label"
    } else {
        "annotate"
    };
    format!(
        "{lasting}kubectl -n {} {verb} --overwrite pod {} {}",
        pod.namespace,
        pod.name,
        shell(argument)
    )
}
