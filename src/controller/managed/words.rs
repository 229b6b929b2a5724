//! What is said about a managed identity: a reason in one word, and a sentence that says what to do.
//! Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::Mode;
use crate::api::managed::Owner;
use crate::controller::known::Setback;
use crate::model::ids::{ArmId, ObjectName};

/// More names than this are counted.
const NAMED: usize = 5;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Whether all is as the spec says.
    pub ready: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

fn not_ready(reason: &str, message: impl Into<String>) -> Words {
    Words {
        ready: false,
        reason: reason.to_owned(),
        message: message.into(),
    }
}

pub(super) fn created(accounts: usize) -> Words {
    let message = match accounts {
        0 => "the identity exists in Azure".to_owned(),
        1 => "the identity exists in Azure and trusts 1 service account".to_owned(),
        many => format!("the identity exists in Azure and trusts {many} service accounts"),
    };
    Words {
        ready: true,
        reason: "Created".to_owned(),
        message,
    }
}

pub(super) fn creating() -> Words {
    not_ready("Creating", "the identity is being created in Azure")
}

pub(super) fn federating(account: Option<String>) -> Words {
    let account = account.unwrap_or_default();
    let message = format!("the federated credential of service account {account} is being written");
    not_ready("Federating", message)
}

pub(super) fn malformed(error: &str) -> Words {
    not_ready("Malformed", error)
}

pub(super) fn not_allowed(group: &str) -> Words {
    let message = format!(
        "no AzureIdentityPolicy allows this namespace to have identities in {group}: an operator lists that group under managedResourceGroups of a policy whose namespaces match; until then nothing is created and nothing changed in Azure"
    );
    not_ready("GroupNotAllowed", message)
}

pub(super) fn no_owner(owner: &Owner) -> Words {
    let message = format!(
        "{} {} is not in this namespace: the identity is created when it is there",
        owner.kind, owner.name
    );
    not_ready("OwnerMissing", message)
}

pub(super) fn replaced_owner(owner: &Owner) -> Words {
    let message = format!(
        "{} {} was deleted and created again: this object goes with the old one; create it again for the new one",
        owner.kind, owner.name
    );
    not_ready("OwnerReplaced", message)
}

pub(super) fn unsupported_owner(owner: &Owner) -> Words {
    let message = format!(
        "spec.managed.owner: {} of {} cannot own an identity: name a Deployment or a StatefulSet of apps/v1, or leave owner out",
        owner.kind, owner.api_version
    );
    not_ready("OwnerUnsupported", message)
}

pub(super) fn not_ours(id: &ArmId, tag: &str) -> Words {
    let message = format!(
        "{id} exists in Azure without the tag lanyard-owner={tag}: it is not touched; remove it, or set that tag to let Lanyard have it"
    );
    not_ready("NotOurs", message)
}

pub(super) fn no_issuer() -> Words {
    not_ready(
        "IssuerUnknown",
        "the issuer of the cluster's service-account tokens is not known: name it with --service-account-issuer",
    )
}

pub(super) fn limit(left_out: &[ObjectName]) -> Words {
    let mut names: Vec<String> = left_out
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    if left_out.len() > NAMED {
        names.push(format!("{} more", left_out.len() - NAMED));
    }
    let message = format!(
        "Azure takes 20 federated credentials for an identity, and they are full: no tokens for {}; name fewer service accounts in the bindings, or use several identities",
        names.join(", ")
    );
    not_ready("FederatedLimit", message)
}

pub(super) fn setback(setback: &Setback) -> Words {
    not_ready(&setback.reason, &*setback.message)
}

pub(super) fn leaving() -> Words {
    not_ready("Deleting", "the identity is being removed from Azure")
}

pub(super) fn assigned(computes: &BTreeSet<Arc<str>>) -> Words {
    let named: Vec<&str> = computes.iter().take(NAMED).map(|name| &**name).collect();
    let message = format!(
        "waits until it is taken off {} compute resources (AzureAssignments {}), two minutes at most",
        computes.len(),
        named.join(", ")
    );
    not_ready("Deleting", message)
}

pub(super) fn delayed(setback: &Setback) -> Words {
    let message = format!(
        "the identity could not be removed from Azure, which is tried again until it is: {}: {}. With deletionPolicy: Retain this object goes and the identity stays",
        setback.reason, setback.message
    );
    not_ready("DeletionDelayed", message)
}

pub(super) fn retained(id: &ArmId) -> Words {
    let message = format!("the identity stays in Azure, with its tag: {id}");
    not_ready("Retained", message)
}

pub(super) fn left_alone(id: &ArmId) -> Words {
    let message = format!("{id} does not have our tag lanyard-owner (any more): it stays in Azure");
    not_ready("NotOurs", message)
}

pub(super) fn released(mode: Mode) -> Words {
    match mode {
        Mode::Serve => leaving(),
        _ => not_ready(
            "LanyardLeaves",
            "Lanyard is being removed from the cluster: nothing is created any more",
        ),
    }
}
