//! Who takes part: 250 pods on the node, each with an identity of its own, and one identity that 200
//! of them share. Text only: the simulator's world and the agent's manifests.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Pods with an identity of their own.
pub const PODS: u8 = 250;
/// Of these, so many may also use the shared identity.
pub const SHARING: u8 = 200;
/// A pod that nothing is bound to.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 245, 1, 254);
/// Pods whose manifests come late, one after the other.
pub const LATE: u8 = 10;
/// The networks of all these pods; one network namespace holds their addresses.
pub const NETWORKS: [&str; 2] = ["10.245.1.0/24", "10.245.2.0/24"];

const TENANT: &str = "72f988bf-0000-4000-8000-2d7cd011db47";
const SUBSCRIPTION: &str = "/subscriptions/0b1f6471-0000-4000-8000-000000000001";

/// The address of pod `number` (1 to [`PODS`]).
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 245, 1, number)
}

/// The address of late pod `number` (1 to [`LATE`]).
pub fn late_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 245, 2, number)
}

/// The client id of identity `number`; 0 is the shared one.
pub fn client_id(number: u8) -> String {
    format!("c0000000-0000-4000-8000-{number:012x}")
}

fn resource_id(number: u8) -> String {
    format!(
        "{SUBSCRIPTION}/resourceGroups/bench/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity-{number}"
    )
}

/// The request target for a token for `resource` (percent-encoded), of identity `selector`.
pub fn target(resource: &str, selector: Option<u8>) -> String {
    let mut target = format!(
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2F{resource}"
    );
    if let Some(number) = selector {
        let _ = write!(target, "&client_id={}", client_id(number));
    }
    target
}

/// Everything assigned to the one machine, and IMDS without its throttle.
pub fn world(latency_ms: u32) -> String {
    let numbers = 0..=PODS;
    let mut yaml = format!(
        "tenant: {{id: {TENANT}}}\nimds: {{latency: {latency_ms}ms, throttle: false}}\nidentities:\n"
    );
    for number in numbers.clone() {
        let _ = writeln!(
            yaml,
            "  - {{name: identity-{number}, clientID: {}, principalID: \
             a0000000-0000-4000-8000-{number:012x}, resourceID: {}}}",
            client_id(number),
            resource_id(number)
        );
    }
    let names: Vec<String> = numbers.map(|number| format!("identity-{number}")).collect();
    let _ = writeln!(
        yaml,
        "vms:\n  - {{name: node-1, identities: [{}]}}",
        names.join(", ")
    );
    yaml
}

/// Namespace, policy, identities and bindings.
pub fn objects() -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: bench, labels: {{team: bench}}}}\n---\n\
         apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {{name: bench}}\n\
         spec: {{namespaces: {{matchLabels: {{team: bench}}}}, resourceIDPrefixes: [{SUBSCRIPTION}/]}}\n"
    );
    for number in 0..=PODS {
        let subject = if number == 0 {
            "shared: 'yes'".to_owned()
        } else {
            format!("app: pod-{number}")
        };
        let _ = write!(
            yaml,
            "---\napiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentity\n\
             metadata: {{namespace: bench, name: identity-{number}}}\n\
             spec: {{clientID: {}, tenantID: {TENANT}, resourceID: {}}}\n---\n\
             apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityBinding\n\
             metadata: {{namespace: bench, name: identity-{number}}}\n\
             spec: {{identity: identity-{number}, subjects: [{{podSelector: {{matchLabels: {{{subject}}}}}}}]}}\n",
            client_id(number),
            resource_id(number),
        );
    }
    yaml
}

/// All pods but the late one.
pub fn pods() -> String {
    let mut yaml = String::new();
    for number in 1..=PODS {
        let sharing = if number <= SHARING {
            ", shared: 'yes'"
        } else {
            ""
        };
        let labels = format!("app: pod-{number}{sharing}");
        let shared = if number <= SHARING { ",identity-0" } else { "" };
        let identity = format!("identity-{number}{shared}");
        yaml += &pod(
            &format!("pod-{number}"),
            &labels,
            Some(&identity),
            address(number),
        );
    }
    yaml += &pod("stranger", "app: stranger", None, STRANGER);
    yaml
}

/// One pod; `identity` is its annotation.
pub fn pod(name: &str, labels: &str, identity: Option<&str>, ip: Ipv4Addr) -> String {
    let annotations = identity
        .map(|names| format!(", annotations: {{lanyard.dev/identity: \"{names}\"}}"))
        .unwrap_or_default();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: bench, name: {name}, uid: uid-{name}, \
         labels: {{{labels}}}{annotations}}}\n\
         spec: {{nodeName: node-1, serviceAccountName: {name}, containers: [{{name: main, image: none}}]}}\n\
         status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n"
    )
}
