//! The world that the tests share.

use lanyard::sim::{Listen, Simulator, World};

pub const TENANT: &str = "7f6d1c1a-0000-4000-8000-000000000001";
pub const PAYMENTS: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub const PAYMENTS_OID: &str = "aaaaaaaa-0000-4000-8000-000000000002";
pub const REPORTS: &str = "bbbbbbbb-0000-4000-8000-000000000001";

pub const WORLD: &str = "
tenant: {id: 7f6d1c1a-0000-4000-8000-000000000001, name: contoso}
identities:
  - name: payments
    clientID: aaaaaaaa-0000-4000-8000-000000000001
    principalID: aaaaaaaa-0000-4000-8000-000000000002
    resourceID: /subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
  - name: reports
    clientID: bbbbbbbb-0000-4000-8000-000000000001
    principalID: bbbbbbbb-0000-4000-8000-000000000002
    resourceID: /subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reports
applications:
  - name: robot
    clientID: cccccccc-0000-4000-8000-000000000001
    principalID: cccccccc-0000-4000-8000-000000000002
    secrets: [old, new]
vms:
  - {name: node-1, identities: [payments, reports], userData: c2VjcmV0}
  - {name: node-2, sources: [127.0.0.2/32], identities: [reports]}
vaults:
  - name: demo
    secrets: {db-password: hunter2}
    allow: {get: [payments]}
";

/// The world with `more` YAML behind it, on free loopback ports.
pub async fn start(more: &str) -> Simulator {
    let world = World::from_yaml(&format!("{WORLD}\n{more}\n")).expect("a valid world");
    Simulator::start(world, Listen::loopback())
        .await
        .expect("a started simulator")
}
