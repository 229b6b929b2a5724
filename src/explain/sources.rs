//! Where the granted identities' tokens come from, and what must be prepared for it: what to register
//! in Entra ID for a federated identity, the Secret of a service principal, and whether agents may
//! read or ask. Pure.

use std::collections::BTreeSet;

use serde_json::json;

use super::found::Found;
use super::rights::Right;
use super::yaml::shell;
use super::{Mark, Section, Step, list};
use crate::agent::grants::{PodGrants, grants};
use crate::agent::obtain::AUDIENCE;
use crate::model::facts::{CredentialFacts, CredentialForm, IdentityFacts, PodFacts, SourceFacts};
use crate::model::ids::{ArmId, ObjectName};

/// Stands for the issuer where it could not be read.
const SOME_ISSUER: &str = "ISSUER";
/// Where it is then to be found.
const WHERE_ISSUER: &str =
    "ISSUER is what this says: kubectl get --raw /.well-known/openid-configuration";
/// Longest name of a federated credential.
const LONGEST_NAME: usize = 120;

/// What is to be read beside the objects that decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Namespaces whose Roles matter.
    pub roles: BTreeSet<String>,
    /// Whether the issuer of service accounts' tokens does.
    pub issuer: bool,
}

/// What the sources of the pod's identities need.
#[must_use]
pub fn needs(found: &Found, pod: &ObjectName) -> Needs {
    let mut needs = Needs::default();
    let Some(view) = found.pods.get(pod) else {
        return needs;
    };
    for grant in &grants(&view.facts, &found.world).granted {
        for source in &grant.identity.sources {
            match source {
                SourceFacts::Imds => {}
                SourceFacts::Federated(_) => {
                    needs.issuer = true;
                    needs.roles.insert(pod.namespace.to_string());
                }
                SourceFacts::ServicePrincipal(_) => {
                    let namespace = &grant.identity.name.namespace;
                    needs.roles.insert(namespace.to_string());
                }
            }
        }
    }
    needs
}

/// The section; `None` where all come from the node's IMDS.
pub(super) fn section(found: &Found, grants: &PodGrants) -> Option<Section> {
    let identities = grants.granted.iter().map(|grant| &*grant.identity);
    let identities =
        identities.filter(|identity| identity.sources.iter().any(|s| *s != SourceFacts::Imds));
    let steps: Vec<Step> = identities
        .flat_map(|identity| of(found, &grants.pod, identity))
        .collect();
    (!steps.is_empty()).then(|| Section {
        title: "Where tokens come from".to_owned(),
        steps,
    })
}

fn of(found: &Found, pod: &PodFacts, identity: &IdentityFacts) -> Vec<Step> {
    let name = &identity.name;
    let mut steps = Vec::new();
    for (at, source) in identity.sources.iter().enumerate() {
        // The next is tried only where the one before is not possible.
        let then = if at == 0 { "" } else { ", else" };
        match source {
            SourceFacts::Imds => {
                let text = format!("{name}{then}: the node's metadata service (imds)");
                steps.push(Step::new(Mark::Note, text));
            }
            SourceFacts::Federated(endpoint) => {
                let account = format!("{}/{}", pod.name.namespace, pod.service_account);
                let place = match endpoint {
                    Some(endpoint) => &*endpoint.url,
                    None => "Entra ID",
                };
                let text = format!(
                    "{name}{then}: the token of service account {account} is exchanged at {place} (federated)"
                );
                let mut step = Step::new(Mark::Note, text);
                if endpoint.is_none() {
                    step.details = registration(found, pod, identity);
                }
                steps.push(step);
                steps.extend(right(found, &pod.name.namespace, Right::Tokens));
            }
            SourceFacts::ServicePrincipal(credential) => {
                let namespace = &name.namespace;
                let text = format!(
                    "{name}{then}: a service principal's credential in Secret {namespace}/{}, {}",
                    credential.secret,
                    keys(credential)
                );
                steps.push(Step::new(Mark::Note, text));
                steps.extend(right(found, namespace, Right::Secret(&credential.secret)));
            }
        }
    }
    steps
}

/// Which keys of the Secret are read.
fn keys(credential: &CredentialFacts) -> String {
    let names: Vec<&str> = match &credential.form {
        CredentialForm::Secret { key } => vec![key],
        CredentialForm::Pem {
            certificate,
            private_key,
            ..
        } => vec![certificate, private_key],
        CredentialForm::Pkcs12 {
            store, password, ..
        } => [Some(&**store), password.as_deref()]
            .into_iter()
            .flatten()
            .collect(),
    };
    let word = if names.len() == 1 { "key" } else { "keys" };
    format!("{word} {}", list(names))
}

/// Whether agents have a right; nothing to say about a folder.
fn right(found: &Found, namespace: &str, right: Right<'_>) -> Option<Step> {
    let agents = found.agents.as_ref()?;
    let what = match right {
        Right::Secret(name) => format!("read Secret {namespace}/{name}"),
        Right::Tokens => format!("ask for tokens of service accounts in {namespace}"),
    };
    let agent = agents.first().map_or_else(
        || "system:serviceaccount:lanyard-system:lanyard-agent".to_owned(),
        |agent| {
            format!(
                "system:serviceaccount:{}:{}",
                agent.name.namespace, agent.account
            )
        },
    );
    let question = right.question(namespace, &agent);
    Some(match found.rights.has(namespace, right) {
        Some(true) => Step::new(Mark::Fine, format!("the chart's Role lets agents {what}")),
        Some(false) => Step::new(
            Mark::Wrong,
            format!("no Role of the chart's in {namespace} lets agents {what}"),
        )
        .with(format!("the chart's value: {}", right.value(namespace)))
        .with(format!("whether they may all the same: {question}")),
        None => Step::new(
            Mark::Unknown,
            format!(
                "Roles in {namespace} cannot be listed: whether agents may {what} is not known"
            ),
        )
        .with(format!("look: {question}")),
    })
}

/// What to register so that Entra ID takes the pod's token.
fn registration(found: &Found, pod: &PodFacts, identity: &IdentityFacts) -> Vec<String> {
    let issuer = found.issuer.as_deref().unwrap_or(SOME_ISSUER);
    let (namespace, account) = (&pod.name.namespace, &pod.service_account);
    let subject = format!("system:serviceaccount:{namespace}:{account}");
    let mut name = format!("{namespace}-{account}").replace('.', "-");
    name.truncate(LONGEST_NAME);
    let managed = |identity: &str, group: &str, more: &str| {
        format!(
            "az identity federated-credential create --name {name} --identity-name {identity} --resource-group {group}{more} --issuer {} --subject {subject} --audiences {AUDIENCE}",
            shell(issuer)
        )
    };
    let mut lines = vec![format!(
        "Entra ID must know issuer {issuer}, subject {subject}, audience {AUDIENCE}; once:"
    )];
    if let Some((subscription, group, identity)) = identity.resource_id.as_ref().and_then(parts) {
        let more = format!(" --subscription {}", shell(subscription));
        lines.push(managed(&shell(identity), &shell(group), &more));
    } else {
        let parameters =
            json!({"name": name, "issuer": issuer, "subject": subject, "audiences": [AUDIENCE]});
        let client = identity.client_id;
        lines.push(format!("for a managed identity (its name and group: az identity list --query \"[?clientId=='{client}']\"):"));
        lines.push(managed("NAME", "GROUP", ""));
        lines.push("for an application:".to_owned());
        lines.push(format!(
            "az ad app federated-credential create --id {client} --parameters {}",
            shell(&parameters.to_string())
        ));
    }
    if found.issuer.is_none() {
        lines.push(WHERE_ISSUER.to_owned());
    }
    lines
}

/// Subscription, resource group and name of a user-assigned identity.
fn parts(id: &ArmId) -> Option<(&str, &str, &str)> {
    let segments: Vec<&str> = id.as_written().trim_matches('/').split('/').collect();
    match segments[..] {
        [_, subscription, groups, group, _, _, kind, name]
            if groups.eq_ignore_ascii_case("resourceGroups")
                && kind.eq_ignore_ascii_case("userAssignedIdentities") =>
        {
            Some((subscription, group, name))
        }
        _ => None,
    }
}
