//! The world that the tests share: two teams, their identities and pods as manifests, and the same
//! identities as Azure has them. The machine has an identity of its own and secrets in its user
//! data: what shows up of either in a pod's answer is a leak.

/// The tenant of everything.
pub const TENANT: &str = "7f6d1c1a-0000-4000-8000-000000000001";

/// An identity as Azure and the manifests know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names)] // Azure's own names
pub struct Identity {
    pub client_id: &'static str,
    pub object_id: &'static str,
    pub resource_id: &'static str,
}

pub const PAYMENTS: Identity = Identity {
    client_id: "aaaaaaaa-0000-4000-8000-00000000000a",
    object_id: "aaaaaaaa-0000-4000-8000-00000000000b",
    resource_id: "/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments",
};
pub const REPORTS: Identity = Identity {
    client_id: "bbbbbbbb-0000-4000-8000-00000000000a",
    object_id: "bbbbbbbb-0000-4000-8000-00000000000b",
    resource_id: "/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reports",
};
/// Another team's.
pub const LEDGER: Identity = Identity {
    client_id: "cccccccc-0000-4000-8000-00000000000a",
    object_id: "cccccccc-0000-4000-8000-00000000000b",
    resource_id: "/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-bank/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ledger",
};
/// Exists in Azure, but not on this machine.
pub const ABSENT: Identity = Identity {
    client_id: "dddddddd-0000-4000-8000-00000000000a",
    object_id: "dddddddd-0000-4000-8000-00000000000b",
    resource_id: "/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/absent",
};
/// The machine's own.
pub const NODE_CLIENT: &str = "eeeeeeee-0000-4000-8000-00000000000a";

/// Granted `payments` alone.
pub const PAYMENTS_POD: &str = "127.0.0.11";
/// Granted `reports` alone.
pub const REPORTS_POD: &str = "127.0.0.12";
/// Granted both; nothing says which is the default.
pub const DESK_POD: &str = "127.0.0.13";
/// Granted nothing.
pub const STRANGER_POD: &str = "127.0.0.14";
/// Annotated with `reports,payments`.
pub const ANNOTATED_POD: &str = "127.0.0.15";
/// The other team's.
pub const TELLER_POD: &str = "127.0.0.16";
/// Granted an identity that Azure has, but not on this machine.
pub const ABSENT_POD: &str = "127.0.0.17";
/// Granted `stolen`: an `AzureIdentity` of team shop with the bank's client id and a resource id of
/// its own, which policy admits.
pub const THIEF_POD: &str = "127.0.0.18";
/// An address that no manifest names.
pub const UNKNOWN_POD: &str = "127.0.0.99";

/// Azure's side. Keys may be added behind it.
pub fn azure(more: &str) -> String {
    let identity = |name: &str, id: Identity| {
        format!(
            "  - {{name: {name}, clientID: {}, principalID: {}, resourceID: {}}}\n",
            id.client_id, id.object_id, id.resource_id
        )
    };
    format!(
        "tenant: {{id: {TENANT}}}
identities:
{}{}{}{}vms:
  - name: node-1
    location: westeurope
    identities: [payments, reports, ledger]
    systemAssigned: {{clientID: {NODE_CLIENT}, principalID: eeeeeeee-0000-4000-8000-00000000000b}}
    userData: bm9kZS11c2VyLWRhdGE=
    customData: bm9kZS1jdXN0b20tZGF0YQ==
{more}
",
        identity("payments", PAYMENTS),
        identity("reports", REPORTS),
        identity("ledger", LEDGER),
        identity("absent", ABSENT),
    )
}

/// The cluster's side.
pub fn manifests() -> String {
    let mut all = vec![
        namespace("shop"),
        namespace("bank"),
        policy("shop"),
        policy("bank"),
        identity("shop", "payments", PAYMENTS),
        identity("shop", "reports", REPORTS),
        identity("shop", "absent", ABSENT),
        identity("bank", "ledger", LEDGER),
        // Of the victim's it can name anything but the resource id, which policy would refuse.
        format!(
            "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: stolen, namespace: shop}}\n\
             spec: {{clientID: {}, resourceID: {}}}",
            LEDGER.client_id, PAYMENTS.resource_id
        ),
        binding("shop", "payments", "payments, desk, annotated"),
        binding("shop", "reports", "reports, desk, annotated"),
        binding("shop", "absent", "absent"),
        binding("shop", "stolen", "thief"),
        binding("bank", "ledger", "teller"),
    ];
    for (name, ip) in [
        ("payments", PAYMENTS_POD),
        ("reports", REPORTS_POD),
        ("desk", DESK_POD),
        ("stranger", STRANGER_POD),
        ("absent", ABSENT_POD),
        ("thief", THIEF_POD),
    ] {
        all.push(pod("shop", name, ip));
    }
    all.push(pod("bank", "teller", TELLER_POD));
    all.push(annotated("annotated", ANNOTATED_POD, "reports,payments"));
    all.join("\n---\n")
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {name}}}}}")
}

fn policy(team: &str) -> String {
    format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: {team}}}\n\
         spec:\n  namespaces: {{matchLabels: {{team: {team}}}}}\n  \
         resourceIDPrefixes: [/subscriptions/5ab5c71b-0000-4000-8000-000000000001/resourceGroups/rg-{team}]"
    )
}

/// An `AzureIdentity`.
pub fn identity(namespace: &str, name: &str, id: Identity) -> String {
    format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clientID: {}, tenantID: {TENANT}, objectID: {}, resourceID: {}}}",
        id.client_id, id.object_id, id.resource_id
    )
}

/// A binding of an identity to the pods with these `app` labels.
pub fn binding(namespace: &str, identity: &str, apps: &str) -> String {
    format!(
        "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\nmetadata: {{name: {identity}, namespace: {namespace}}}\n\
         spec:\n  identity: {identity}\n  subjects:\n  - podSelector: {{matchExpressions: [{{key: app, operator: In, values: [{apps}]}}]}}"
    )
}

/// A running pod with the label `app: NAME`.
pub fn pod(namespace: &str, name: &str, ip: &str) -> String {
    pod_in_phase(namespace, name, ip, "Running")
}

/// A pod in any phase.
pub fn pod_in_phase(namespace: &str, name: &str, ip: &str, phase: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, uid: uid-{name}, labels: {{app: {name}}}}}\n\
         spec: {{containers: [], serviceAccountName: {name}}}\nstatus: {{phase: {phase}, podIP: {ip}}}"
    )
}

/// A pod of team shop that asks for identities by name.
pub fn annotated(name: &str, ip: &str, wanted: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  uid: uid-{name}\n  labels: {{app: {name}}}\n  \
         annotations: {{lanyard.dev/identity: '{wanted}'}}\nspec: {{containers: [], serviceAccountName: {name}}}\n\
         status: {{phase: Running, podIP: {ip}}}"
    )
}
