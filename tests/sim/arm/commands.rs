//! What changes outside of ARM calls, by the control socket's client: drift, new identities, scaled and deleted sets.

use lanyard::sim::arm::{Failure, Operations, Poison, ProvisioningState};
use lanyard::sim::control::{Client, ControlError};
use lanyard::sim::world::{Instance, Role, RoleAssignment, ScaleSet};
use lanyard::sim::{Listen, Simulator, World};

use super::{Rig, SUB, WORLD, body, identity, pool, token};

struct Running {
    rig: Rig,
    client: Client,
    _folder: tempfile::TempDir,
}

async fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listen = Listen {
        control: Some(path.clone()),
        ..Listen::loopback()
    };
    let simulator = Simulator::start(World::from_yaml(WORLD).unwrap(), listen)
        .await
        .unwrap();
    let token = token(&simulator, "https://management.azure.com/").await;
    Running {
        rig: Rig { simulator, token },
        client: Client::new(path),
        _folder: folder,
    }
}

#[tokio::test]
async fn identities_drift_die_and_come_back_as_others() {
    let Running {
        rig,
        client,
        _folder,
    } = start().await;
    client
        .assign("pool", &["reports", "payments"])
        .await
        .unwrap();
    assert_eq!(rig.shown(&pool()).await.len(), 2);
    client.unassign("pool", "payments").await.unwrap();
    assert_eq!(rig.shown(&pool()).await, ["reports"]);
    assert!(client.unassign("pool", "payments").await.is_err());

    let before = rig.get(&identity("reports")).await.json();
    let reborn = client.recreate_identity("reports").await.unwrap();
    let after = rig.get(&identity("reports")).await.json();
    assert_ne!(before["properties"], after["properties"]);
    assert_eq!(
        after["properties"]["principalId"],
        reborn.principal_id.as_str()
    );
    let resources = client.resources().await.unwrap();
    assert_eq!(resources, rig.simulator.arm().resources());
    let set = resources
        .computes
        .iter()
        .find(|one| one.name == "pool")
        .unwrap();
    assert_eq!(set.machines, ["pool_0", "pool_1"]);
    assert_ne!(
        set.identities[&identity("reports")],
        reborn.principal_id,
        "dead"
    );
    client.delete_identity("reports").await.unwrap();
    assert_eq!(rig.get(&identity("reports")).await.status, 404);

    let name = client
        .put_identity(&identity("billing"), None)
        .await
        .unwrap();
    assert_eq!(name, "billing");
    client.assign("pool_1", &["billing"]).await.unwrap();
    assert_eq!(
        rig.shown(&pool()).await,
        ["billing"],
        "an instance means its set"
    );
    let twice = client
        .put_identity(&identity("BILLING"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(twice, ControlError::Refused { status: 409, .. }),
        "{twice}"
    );
}

#[tokio::test]
async fn operations_are_held_and_released() {
    let Running {
        rig,
        client,
        _folder,
    } = start().await;
    client
        .set_operations("pool", Operations::Hold)
        .await
        .unwrap();
    let add = body("UserAssigned", &["payments"], &[]);
    assert_eq!(rig.patch(&pool(), &add).await.status, 202);
    let failure = Failure {
        code: "InternalExecutionError".to_owned(),
        message: "no".to_owned(),
    };
    client.release("pool", Some(&failure)).await.unwrap();
    assert!(client.release("pool", None).await.is_err());
    client
        .set_operations("pool", Operations::World)
        .await
        .unwrap();
    client
        .set_state("pool", ProvisioningState::Updating)
        .await
        .unwrap();
    assert_eq!(rig.patch(&pool(), &add).await.status, 409);
    client
        .set_state("pool", ProvisioningState::Succeeded)
        .await
        .unwrap();
    client
        .poison("payments", Some(Poison::Named))
        .await
        .unwrap();
    assert_eq!(rig.patch(&pool(), &add).await.status, 400);
    client.poison("payments", None).await.unwrap();
    assert_eq!(rig.patch(&pool(), &add).await.status, 200);
}

#[tokio::test]
async fn a_node_pool_grows_and_goes() {
    let Running {
        rig,
        client,
        _folder,
    } = start().await;
    client.assign("pool", &["payments"]).await.unwrap();
    let instance = |number: u8| Instance {
        name: format!("pool_{number}"),
        sources: vec![format!("127.0.0.{}/32", number + 1).parse().unwrap()],
    };
    let all: Vec<Instance> = (0..20).map(instance).collect();
    client.scale("pool", &all).await.unwrap();
    let set = client
        .resources()
        .await
        .unwrap()
        .computes
        .into_iter()
        .find(|one| one.name == "pool");
    assert_eq!(set.unwrap().machines.len(), 20);
    assert_eq!(
        rig.imds("aaaaaaaa-0000-4000-8000-000000000001").await.0,
        200
    );

    let id = pool().replace("/pool", "/other");
    let set: ScaleSet = serde_json::from_value(serde_json::json!({
        "name": "other", "resourceID": id, "identities": ["reports"],
        "instances": [{"name": "other_0", "sources": ["127.0.1.1/32"]}],
    }))
    .unwrap();
    client.add_scale_set(&set).await.unwrap();
    assert_eq!(rig.shown(&id).await, ["reports"]);
    let mut clash = set.clone();
    clash.resource_id = Some(format!("{id}2"));
    assert!(
        client.add_scale_set(&clash).await.is_err(),
        "its machines' names are taken"
    );
    client.delete_compute("other").await.unwrap();
    assert_eq!(rig.get(&id).await.status, 404);

    client
        .delete_group(&format!("{SUB}/resourceGroups/mc_SHOP"))
        .await
        .unwrap();
    assert_eq!(
        Rig::refusal(&rig.get(&pool()).await),
        (404, "ResourceGroupNotFound".to_owned())
    );
}

#[tokio::test]
async fn rights_are_granted_and_taken_away() {
    let Running {
        rig,
        client,
        _folder,
    } = start().await;
    let grant = |role, principal: &str| RoleAssignment {
        principal: principal.to_owned(),
        role: Some(role),
        actions: vec![],
        scope: SUB.to_owned(),
    };
    assert_eq!(
        rig.get(&pool()).await.status,
        200,
        "nothing is granted, everything allowed"
    );
    client
        .grant(&grant(Role::Reader, "payments"))
        .await
        .unwrap();
    assert_eq!(rig.get(&pool()).await.status, 403);
    client
        .grant(&grant(Role::Contributor, "controller"))
        .await
        .unwrap();
    assert_eq!(rig.get(&pool()).await.status, 200);
    client
        .revoke(&grant(Role::Contributor, "controller"))
        .await
        .unwrap();
    assert_eq!(rig.get(&pool()).await.status, 403);
    let error = client
        .grant(&grant(Role::Reader, "somebody"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("somebody"), "{error}");
}
