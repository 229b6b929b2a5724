//! Who may do what: Azure's own roles, and roles of one's own.
//!
//! In: role assignments (the world's, then commands), an object id, an action, a scope. Out: whether it may. A world
//! without role assignments lets everybody do everything. Names become object ids when they are granted: an identity
//! that is deleted and made again has lost its rights, as in Azure. Short locks.

use parking_lot::RwLock;

use super::estate::fold;
use crate::sim::world::{Role, RoleAssignment, World};

/// All role assignments.
pub(in crate::sim) struct Roles(RwLock<Option<Vec<Granted>>>);

struct Granted {
    written: RoleAssignment,
    oid: String,
}

impl Roles {
    pub fn new(world: &World) -> Self {
        let granted = |written: &RoleAssignment| {
            let oid = world.principal_id(&written.principal);
            Granted {
                oid: oid.unwrap_or(&written.principal).to_owned(),
                written: written.clone(),
            }
        };
        let all = world.role_assignments.as_ref();
        Self(RwLock::new(
            all.map(|all| all.iter().map(granted).collect()),
        ))
    }

    /// Adds a role assignment for that object id; from the first one on, what is not granted is refused.
    pub fn add(&self, written: RoleAssignment, oid: String) {
        let granted = Granted { written, oid };
        self.0.write().get_or_insert_default().push(granted);
    }

    /// Removes role assignments that are written so. Says whether there was one.
    pub fn remove(&self, written: &RoleAssignment) -> bool {
        let mut all = self.0.write();
        let all = all.get_or_insert_default();
        let before = all.len();
        all.retain(|one| {
            let other = &one.written;
            !(other.principal == written.principal
                && other.role == written.role
                && other.actions == written.actions
                && fold(&other.scope) == fold(&written.scope))
        });
        all.len() < before
    }

    /// Whether `oid` may do `action` on `scope`.
    pub fn allow(&self, oid: &str, action: &str, scope: &str) -> bool {
        let all = self.0.read();
        let Some(all) = &*all else {
            return true;
        };
        let own = all.iter().filter(|one| one.oid.eq_ignore_ascii_case(oid));
        let mut covering = own.filter(|one| covers(&one.written.scope, scope));
        covering.any(|one| one.written.allows(action))
    }
}

/// Whether `scope` is what `granted` names, or below it.
fn covers(granted: &str, scope: &str) -> bool {
    let (granted, scope) = (fold(granted), fold(scope));
    let rest = scope.strip_prefix(&granted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl RoleAssignment {
    fn allows(&self, action: &str) -> bool {
        let own = self.actions.iter().map(String::as_str);
        let role = self.role.map(Role::actions).unwrap_or_default();
        let mut patterns = own.chain(role.iter().copied());
        patterns.any(|pattern| matches(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase()))
    }
}

impl Role {
    /// What it allows, of what is simulated. Source: the definitions of Azure's built-in roles.
    fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Owner | Self::Contributor => &["*"],
            Self::Reader => &["*/read"],
            Self::ManagedIdentityOperator => &[
                "Microsoft.ManagedIdentity/userAssignedIdentities/read",
                "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
                "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
            ],
            Self::ManagedIdentityContributor => &[
                "Microsoft.ManagedIdentity/userAssignedIdentities/read",
                "Microsoft.ManagedIdentity/userAssignedIdentities/write",
                "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/*",
            ],
            Self::VirtualMachineContributor => &[
                "Microsoft.Compute/virtualMachines/*",
                "Microsoft.Compute/virtualMachineScaleSets/*",
                "Microsoft.Compute/locations/*",
            ],
        }
    }
}

/// Whether a pattern with `*` for any run of characters fits.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.any(|at| matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSIGN: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";

    fn roles(list: &str) -> Roles {
        let all: Vec<RoleAssignment> = serde_saphyr::from_str(list).unwrap();
        let granted = |written: RoleAssignment| Granted {
            oid: written.principal.clone(),
            written,
        };
        Roles(RwLock::new(Some(all.into_iter().map(granted).collect())))
    }

    #[test]
    fn a_role_counts_on_its_scope_and_below_and_nowhere_else() {
        let roles = roles(
            "[{principal: me, role: Managed Identity Operator, scope: /subscriptions/S/resourceGroups/g}]",
        );
        let on = |scope: &str| roles.allow("ME", ASSIGN, scope);
        assert!(on("/subscriptions/s/resourcegroups/G/providers/x/y"));
        assert!(!on("/subscriptions/s/resourcegroups/g2/providers/x/y"));
        assert!(!on("/subscriptions/s"));
        assert!(!roles.allow("you", ASSIGN, "/subscriptions/s/resourceGroups/g"));
    }

    #[test]
    fn making_identities_does_not_allow_assigning_them() {
        let roles = roles("[{principal: me, role: Managed Identity Contributor, scope: /}]");
        assert!(!roles.allow("me", ASSIGN, "/subscriptions/s"));
        let write = "microsoft.managedidentity/userassignedidentities/write";
        assert!(roles.allow("me", write, "/subscriptions/s"));
    }

    #[test]
    fn a_role_of_ones_own_is_its_actions() {
        let roles = roles(
            "[{principal: me, actions: ['Microsoft.Compute/*/read'], scope: /subscriptions/s}]",
        );
        assert!(roles.allow(
            "me",
            "Microsoft.Compute/virtualMachines/read",
            "/subscriptions/s/x"
        ));
        assert!(!roles.allow(
            "me",
            "Microsoft.Compute/virtualMachines/write",
            "/subscriptions/s/x"
        ));
    }
}
