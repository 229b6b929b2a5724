//! What a person is to do about an error of ARM, in words and as a command line. Pure.
//!
//! In: an [`ArmError`]. Out: a sentence for a condition, an Event, a log line. Names the exact role assignment
//! where one is missing. Names from Azure's answer come back only as parsed ids, so that no text of
//! others becomes part of a command.

use std::fmt::Write as _;

use super::answer::is_of_another_tenant;
use super::error::{ArmError, ArmErrorKind};
use crate::model::ids::ArmId;

/// More missing role assignments are counted, not listed.
const LISTED: usize = 3;

impl ArmError {
    /// Azure's words and what to do about them, for a condition or an Event. Without times and request
    /// ids, so that the same trouble is the same text.
    #[must_use]
    pub fn in_full(&self) -> String {
        self.followed_by(&self.advice())
    }

    /// The same where an identity was read that is to be assigned.
    #[must_use]
    pub fn in_full_to_assign(&self) -> String {
        self.followed_by(&self.advice_to_assign())
    }

    fn followed_by(&self, advice: &str) -> String {
        if advice.is_empty() {
            self.to_string()
        } else {
            format!("{self}; {advice}")
        }
    }

    /// What to do about it; empty where waiting is all.
    #[must_use]
    pub fn advice(&self) -> String {
        match self.kind {
            ArmErrorKind::LinkedAuthorization if self.identities.is_empty() => {
                "every identity must be in the tenant of the virtual machine or scale set, and the controller needs the role \"Managed Identity Operator\" on each".to_owned()
            }
            ArmErrorKind::LinkedAuthorization => self.assignments(),
            ArmErrorKind::Forbidden => self.forbidden(),
            ArmErrorKind::BadIdentity | ArmErrorKind::Unauthenticated
                if is_of_another_tenant(&self.code) =>
            {
                "its subscription belongs to another tenant than the controller (--tenant-id): it must be in the same one".to_owned()
            }
            ArmErrorKind::Unauthenticated => "Azure does not take the controller's credential: see --auth, --client-id and --tenant-id, and what is in --credential-dir or --federated-token-file".to_owned(),
            ArmErrorKind::BadIdentity => "the identity does not exist in this tenant: create it in Azure, or correct spec.resourceID".to_owned(),
            ArmErrorKind::NotFound => "it does not exist in Azure".to_owned(),
            ArmErrorKind::GroupOrSubscriptionGone => "its resource group or subscription does not exist, or the controller has no role there".to_owned(),
            ArmErrorKind::TooMany => "Azure takes no more of them: remove some, or use the token source `federated`, which assigns nothing".to_owned(),
            ArmErrorKind::Refused => self.refused(),
            ArmErrorKind::Nonsense => "what answers is not Azure Resource Manager: is there a proxy in between, is --arm-endpoint right?".to_owned(),
            ArmErrorKind::Throttled
            | ArmErrorKind::Conflict
            | ArmErrorKind::Precondition
            | ArmErrorKind::Unavailable => String::new(),
        }
    }

    /// The same about reading an identity that Lanyard only assigns: the role that assigning needs lets
    /// read, and one that lets create and delete would be too much.
    #[must_use]
    pub fn advice_to_assign(&self) -> String {
        let origin = self.origin.as_deref();
        match origin.and_then(|origin| origin.resource.as_ref()) {
            Some(identity) if self.kind == ArmErrorKind::Forbidden => format!(
                "run: {}",
                self.assignment("Managed Identity Operator", identity.as_written())
            ),
            _ => self.advice(),
        }
    }

    fn assignments(&self) -> String {
        let listed = self.identities.iter().take(LISTED);
        let lines: Vec<_> = listed
            .map(|id| self.assignment("Managed Identity Operator", id.as_written()))
            .collect();
        let mut text = format!("run: {}", lines.join(" ; "));
        if self.identities.len() > LISTED {
            let more = self.identities.len() - LISTED;
            // Writing to a String does not fail.
            let _ = write!(
                text,
                " ; and the same for {more} more, or once for their resource group"
            );
        }
        text
    }

    fn forbidden(&self) -> String {
        let origin = self.origin.as_deref();
        let Some(resource) = origin.and_then(|origin| origin.resource.as_ref()) else {
            return "the controller needs a role that allows it".to_owned();
        };
        let (role, scope) = if is_compute(resource) {
            ("Virtual Machine Contributor", resource.as_written())
        } else {
            // Creating and deleting needs the right on the group: what is not there has no rights.
            ("Managed Identity Contributor", group(resource))
        };
        format!("run: {}", self.assignment(role, scope))
    }

    fn refused(&self) -> String {
        match self.code.to_ascii_lowercase().as_str() {
            "scopelocked" => "remove the lock, or take the identity's binding away".to_owned(),
            "requestdisallowedbypolicy" => {
                "an Azure Policy forbids it: exempt the resource".to_owned()
            }
            "readonlydisabledsubscription" => "enable the subscription".to_owned(),
            "missingsubscriptionregistration" => {
                "run: az provider register --namespace Microsoft.ManagedIdentity".to_owned()
            }
            _ => String::new(),
        }
    }

    fn assignment(&self, role: &str, scope: &str) -> String {
        let caller = self.origin.as_deref().and_then(|origin| origin.caller);
        let caller = caller.map(|caller| caller.to_string());
        let caller = caller.as_deref().unwrap_or("OBJECT-ID-OF-THE-CONTROLLER");
        let is_plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '(' | ')');
        // People paste it into a shell, and whoever may write an AzureIdentity chooses its id.
        let scope = if scope.chars().all(is_plain) {
            scope
        } else {
            "THE-ID-OF-THE-RESOURCE"
        };
        format!(
            "az role assignment create --assignee-object-id {caller} --assignee-principal-type ServicePrincipal --role '{role}' --scope '{scope}'"
        )
    }
}

fn is_compute(id: &ArmId) -> bool {
    let id = id.as_written().to_ascii_lowercase();
    id.contains("/providers/microsoft.compute/")
}

/// The resource group of an id, or all of it.
fn group(id: &ArmId) -> &str {
    let id = id.as_written();
    id.match_indices('/').nth(4).map_or(id, |(at, _)| &id[..at])
}
