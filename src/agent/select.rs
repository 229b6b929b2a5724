//! Step 3, the security-critical one: a pod's grants × its request → one identity or a refusal,
//! with the reason as data. Pure and deterministic: never a guess, never the node's identity.

use super::grants::{Missing, PodGrants};
use crate::model::account::{account_of, is_accounts};
use crate::model::fault::{Fault, FaultKind};
use crate::model::grant::Grant;
use crate::model::ids::ObjectName;
use crate::model::query::{Selector, TokenQuery};

/// What was decided and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// This identity.
    Granted(&'a Grant, Chosen),
    /// None.
    Refused(Refusal),
}

/// Why this one of the granted identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chosen {
    /// The request names it.
    ByRequest,
    /// The first name of the pod's annotation.
    FirstInAnnotation,
    /// The only one granted.
    OnlyOne,
    /// The only one whose binding is marked default.
    DefaultBinding,
    /// What the pod's service account names: no binding names the pod.
    ServiceAccount,
}

/// Why none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing is granted to the pod; with what a binding would have given it.
    NothingGranted(Option<(ObjectName, Missing)>),
    /// The request names an identity that the pod was not granted.
    NotGranted,
    /// The annotation names an identity that was not granted, and the request names none.
    AnnotationNotGranted(ObjectName, Missing),
    /// Several are granted and nothing says which.
    Ambiguous,
    /// The identity may not be used for this resource.
    ResourceNotAllowed(ObjectName),
}

impl Chosen {
    /// Log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByRequest => "named by the request",
            Self::FirstInAnnotation => "first in the pod's annotation",
            Self::OnlyOne => "the only one granted",
            Self::DefaultBinding => "its binding is the default",
            Self::ServiceAccount => "named by its service account's annotations",
        }
    }
}

impl Refusal {
    /// All metric labels that [`Refusal::label`] can give.
    pub const LABELS: [&'static str; 5] = [
        "nothing_granted",
        "not_granted",
        "annotation_not_granted",
        "ambiguous",
        "resource_not_allowed",
    ];

    /// Metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NothingGranted(_) => Self::LABELS[0],
            Self::NotGranted => Self::LABELS[1],
            Self::AnnotationNotGranted(..) => Self::LABELS[2],
            Self::Ambiguous => Self::LABELS[3],
            Self::ResourceNotAllowed(_) => Self::LABELS[4],
        }
    }

    /// What the caller is told. Refusals look as Azure's do, whatever the reason: an SDK's chain
    /// of credentials then goes on at once. Which identity exists elsewhere is nobody's business.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NothingGranted(None) => Fault::identity_not_found(
                "nothing is granted to this pod: no AzureIdentityBinding names it",
            ),
            Self::NothingGranted(Some((name, missing))) => {
                let (giver, missing) = (giver(name), missing.as_str());
                Fault::identity_not_found(format!(
                    "nothing is granted to this pod: {giver}, but {missing}"
                ))
            }
            Self::NotGranted => {
                Fault::identity_not_found("the identity asked for is not granted to this pod")
            }
            Self::AnnotationNotGranted(name, missing) => Fault::identity_not_found(format!(
                "the annotation names {name}, but {}",
                missing.as_str()
            )),
            Self::Ambiguous => Fault::new(
                FaultKind::IdentityAmbiguous,
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
            ),
            Self::ResourceNotAllowed(name) => Fault::new(
                FaultKind::IdentityNotFound,
                "The identity may not be used for this resource",
            )
            .with_detail(format!(
                "spec.allowedResources of AzureIdentity {name} does not list it"
            )),
        }
    }
}

/// Decides.
#[must_use]
pub fn select<'a>(grants: &'a PodGrants, query: &TokenQuery) -> Decision<'a> {
    match choose(grants, &query.selector) {
        Ok((grant, chosen)) if allows(grant, &query.resource) => Decision::Granted(grant, chosen),
        Ok((grant, _)) => {
            Decision::Refused(Refusal::ResourceNotAllowed(grant.identity.name.clone()))
        }
        Err(refusal) => Decision::Refused(refusal),
    }
}

/// The choice alone, whatever the identity is to be used for.
pub fn choose<'a>(
    grants: &'a PodGrants,
    selector: &Selector,
) -> Result<(&'a Grant, Chosen), Refusal> {
    let granted = &grants.granted;
    if *selector == Selector::Default {
        return default(grants);
    }
    // Granted identities are in the order of preference, so that equal client ids are no guess.
    let named = granted.iter().find(|grant| {
        let identity = &grant.identity;
        match selector {
            Selector::ClientId(id) => identity.client_id == *id,
            Selector::ObjectId(id) => identity.object_id == Some(*id),
            Selector::ResourceId(id) => identity.resource_id.as_ref() == Some(id),
            Selector::Default | Selector::Unmatchable => false,
        }
    });
    let refusal = if granted.is_empty() {
        Refusal::NothingGranted(grants.near.clone())
    } else {
        Refusal::NotGranted
    };
    named.map(|grant| (grant, Chosen::ByRequest)).ok_or(refusal)
}

fn default(grants: &PodGrants) -> Result<(&Grant, Chosen), Refusal> {
    if let Some(wanted) = &grants.wanted
        && let Some(first) = wanted.first()
    {
        // An annotation that cannot be fulfilled is told, never slid over to the next name.
        if let Some((name, missing)) = wanted.iter().find_map(|w| Some((&w.identity, w.missing?))) {
            return Err(Refusal::AnnotationNotGranted(name.clone(), missing));
        }
        let grant = grants
            .granted
            .iter()
            .find(|grant| grant.identity.name == first.identity);
        return grant
            .map(|grant| (grant, Chosen::FirstInAnnotation))
            .ok_or(Refusal::NothingGranted(None));
    }
    // Bindings come first: the service account's own, which is the last one, answers only where none
    // names the pod. A binding that gives nothing is told, never slid over.
    let (bound, own) = match grants.granted.split_last() {
        Some((last, others)) if is_accounts(&last.identity.name) => (others, Some(last)),
        _ => (grants.granted.as_slice(), None),
    };
    match bound {
        [] => match (own, &grants.near) {
            (Some(own), None) => Ok((own, Chosen::ServiceAccount)),
            (_, near) => Err(Refusal::NothingGranted(near.clone())),
        },
        [only] => Ok((only, Chosen::OnlyOne)),
        several => {
            let mut defaults = several.iter().filter(|grant| grant.default);
            match (defaults.next(), defaults.next()) {
                (Some(only), None) => Ok((only, Chosen::DefaultBinding)),
                _ => Err(Refusal::Ambiguous),
            }
        }
    }
}

/// Who would give an identity of this name.
fn giver(name: &ObjectName) -> String {
    match account_of(name) {
        Some(account) => format!("the annotations of service account {account} name an identity"),
        None => format!("a binding gives it {name}"),
    }
}

/// Audiences are compared without a trailing slash: SDKs differ in it.
fn allows(grant: &Grant, resource: &str) -> bool {
    let allowed = &grant.identity.allowed_resources;
    let plain = |resource: &str| resource.trim_end_matches('/').to_ascii_lowercase();
    allowed.is_empty() || allowed.iter().any(|entry| plain(entry) == plain(resource))
}

#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a test says so by panicking")]
mod tests;
