//! The client of Azure Resource Manager against the simulator's, over loopback: two encodings of one protocol
//! meet. What is assigned, removed and refused is judged by what the simulator shows afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use lanyard::azure::access::{Access, AccessConfig, How};
use lanyard::azure::arm::{
    ArmClient, ArmError, ArmErrorKind, ComputeShown, FederatedCredential, IdentityPatch,
    IdentityWanted, MOST_CREDENTIALS, MOST_IDENTITIES, Progress, ProvisioningState, Submitted,
};
use lanyard::azure::https::{HttpsClient, HttpsConfig, Roots};
use lanyard::model::compute::Compute;
use lanyard::model::ids::ArmId;
use lanyard::serve::clock;
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use lanyard::sim::{Listen, Simulator, World};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(20);
const SUB: &str = "/subscriptions/5b5b5b5b-0000-4000-8000-000000000001";
const CONTROLLER: &str = "cccccccc-0000-4000-8000-000000000002";

const WORLD: &str = "
tenant: {id: 7f6d1c1a-0000-4000-8000-000000000001}
identities:
  - name: payments
    clientID: aaaaaaaa-0000-4000-8000-000000000001
    principalID: aaaaaaaa-0000-4000-8000-000000000002
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop.eu_(1)/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
  - name: reports
    clientID: bbbbbbbb-0000-4000-8000-000000000001
    principalID: bbbbbbbb-0000-4000-8000-000000000002
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/shop.eu_(1)/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reports
applications:
  - name: controller
    clientID: cccccccc-0000-4000-8000-000000000001
    principalID: cccccccc-0000-4000-8000-000000000002
    secrets: [s3cr3t-value-1]
scaleSets:
  - name: pool
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachineScaleSets/pool
    instances: [{name: pool_0}]
vms:
  - name: lone
    resourceID: /subscriptions/5b5b5b5b-0000-4000-8000-000000000001/resourceGroups/MC_shop/providers/Microsoft.Compute/virtualMachines/lone
    systemAssigned: {clientID: dddddddd-0000-4000-8000-000000000001, principalID: dddddddd-0000-4000-8000-000000000002}
";

struct Rig {
    azure: Simulator,
    arm: ArmClient,
    _credential: tempfile::TempDir,
}

fn access(azure: &Simulator, dir: &Path) -> (HttpsClient, Access) {
    let https = HttpsClient::new(&HttpsConfig {
        roots: Roots::Only(azure.ca_pem().to_owned()),
        ..HttpsConfig::default()
    });
    let https = https.unwrap();
    let access = Access::new(AccessConfig {
        how: How::Secret {
            dir: dir.to_owned(),
        },
        client_id: Some("cccccccc-0000-4000-8000-000000000001".parse().unwrap()),
        tenant: Some("7f6d1c1a-0000-4000-8000-000000000001".parse().unwrap()),
        authority_host: format!("http://{}", azure.addresses().entra.unwrap()),
        audience: "https://management.azure.com".to_owned(),
        https: https.clone(),
        now: clock::since_epoch,
    });
    (https, access.unwrap())
}

impl Rig {
    async fn start(more: &str) -> Self {
        Self::of(&format!("{WORLD}{more}\n")).await
    }

    async fn of(world: &str) -> Self {
        let world = World::from_yaml(world).unwrap();
        let azure = Simulator::start(world, Listen::loopback()).await.unwrap();
        let credential = tempfile::tempdir().unwrap();
        std::fs::write(credential.path().join("clientSecret"), "s3cr3t-value-1\n").unwrap();
        let (https, access) = access(&azure, credential.path());
        let endpoint = format!("http://{}", azure.addresses().arm.unwrap());
        let arm = ArmClient::new(&endpoint, https, access, clock::since_epoch).unwrap();
        Self {
            azure,
            arm,
            _credential: credential,
        }
    }

    async fn shown(&self, compute: &Compute) -> ComputeShown {
        self.arm.compute(compute, LIMIT).await.unwrap()
    }

    /// Reads, changes, and waits for the end.
    async fn change(
        &self,
        compute: &Compute,
        add: &[ArmId],
        remove: &[ArmId],
    ) -> Result<(), ArmError> {
        let shown = self.arm.compute(compute, LIMIT).await?;
        let patch = IdentityPatch::of(&shown, add.to_vec(), remove.to_vec());
        let operation = match self.arm.patch(compute, &patch, LIMIT).await? {
            Submitted::Done(_) => return Ok(()),
            Submitted::Running(operation) => operation,
        };
        let until = Instant::now() + LIMIT;
        loop {
            match self.arm.progress(&operation, LIMIT).await? {
                Progress::Succeeded => return Ok(()),
                Progress::Failed(error) => return Err(error),
                Progress::Running { .. } if Instant::now() < until => {
                    sleep(Duration::from_millis(20)).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Identities that ARM shows, by name.
    async fn names(&self, compute: &Compute) -> Vec<String> {
        let shown = self.shown(compute).await;
        let names = shown.identities.keys().map(ArmId::as_written);
        names
            .map(|id| id.rsplit('/').next().unwrap().to_lowercase())
            .collect()
    }
}

fn identity(name: &str) -> ArmId {
    let text = format!(
        "{SUB}/resourceGroups/shop.eu_(1)/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    );
    text.parse().unwrap()
}

fn compute(kind: &str, name: &str) -> Compute {
    let text = format!("{SUB}/resourceGroups/MC_shop/providers/Microsoft.Compute/{kind}/{name}");
    text.parse().unwrap()
}

fn pool() -> Compute {
    compute("virtualMachineScaleSets", "pool")
}

fn lone() -> Compute {
    compute("virtualMachines", "lone")
}

#[tokio::test]
async fn identities_come_and_go_at_once_or_by_an_operation_in_any_case() {
    for more in [
        "arm: {idCase: upperGroups}",
        "arm: {operationDuration: 300ms, idCase: lower}",
    ] {
        let rig = Rig::start(more).await;
        let (payments, reports) = (identity("payments"), identity("reports"));
        rig.change(&pool(), &[payments.clone(), reports.clone()], &[])
            .await
            .unwrap();
        let shown = rig.shown(&pool()).await;
        assert_eq!(shown.state, ProvisioningState::Succeeded);
        let principal = shown.identities[&payments].principal_id.unwrap();
        assert_eq!(
            principal.to_string(),
            "aaaaaaaa-0000-4000-8000-000000000002"
        );
        rig.change(&pool(), &[], std::slice::from_ref(&reports))
            .await
            .unwrap();
        assert_eq!(rig.names(&pool()).await, ["payments"]);
        rig.change(&pool(), &[], &[payments]).await.unwrap();
        assert!(rig.names(&pool()).await.is_empty());
        let journal = rig.azure.journal();
        let types = journal
            .iter()
            .filter_map(|entry| entry.arm.as_ref()?.identity_type.clone());
        let types: Vec<_> = types.collect();
        assert_eq!(types, ["UserAssigned", "UserAssigned", "None"], "{more}");
    }
}

#[tokio::test]
async fn the_system_assigned_identity_stays() {
    let rig = Rig::start("").await;
    rig.change(&lone(), &[identity("payments")], &[])
        .await
        .unwrap();
    let shown = rig.shown(&lone()).await;
    assert!(shown.system_assigned && shown.identities.len() == 1);
    rig.change(&lone(), &[], &[identity("payments")])
        .await
        .unwrap();
    let shown = rig.shown(&lone()).await;
    assert!(shown.system_assigned && shown.identities.is_empty());
    let journal = rig.azure.journal();
    let types: Vec<_> = journal
        .iter()
        .filter_map(|entry| entry.arm.as_ref()?.identity_type.clone())
        .collect();
    assert_eq!(types, ["SystemAssigned, UserAssigned", "SystemAssigned"]);
}

#[tokio::test]
async fn a_hundred_and_fifty_go_in_one_request() {
    let many: Vec<_> = (0..=MOST_IDENTITIES)
        .map(|at| {
            format!(
                "  - {{name: i{at}, clientID: 00000000-0000-4000-8000-{at:012}, principalID: 00000000-0000-4000-9000-{at:012}, resourceID: {}}}\n",
                identity(&format!("i{at}"))
            )
        })
        .collect();
    let world = WORLD.replace("identities:\n", &format!("identities:\n{}", many.concat()));
    let rig = Rig::of(&world).await;
    let all: Vec<_> = (0..=MOST_IDENTITIES)
        .map(|at| identity(&format!("i{at}")))
        .collect();
    let error = rig.change(&pool(), &all, &[]).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::TooMany, "{error}");
    rig.change(&pool(), &all[1..], &[]).await.unwrap();
    assert_eq!(rig.names(&pool()).await.len(), MOST_IDENTITIES);
}

#[tokio::test]
async fn what_changed_meanwhile_and_what_is_busy_is_told() {
    let rig = Rig::start("arm: {operationDuration: 60s}").await;
    let shown = rig.shown(&pool()).await;
    let patch = IdentityPatch::of(&shown, vec![identity("payments")], Vec::new());
    let submitted = rig.arm.patch(&pool(), &patch, LIMIT).await.unwrap();
    let Submitted::Running(operation) = submitted else {
        panic!("{submitted:?}");
    };
    assert!(operation.after >= Duration::from_secs(1));
    let progress = rig.arm.progress(&operation, LIMIT).await.unwrap();
    assert!(matches!(progress, Progress::Running { .. }), "{progress:?}");
    let shown = rig.shown(&pool()).await;
    assert_eq!(shown.state, ProvisioningState::Updating);
    let again = IdentityPatch::of(&shown, vec![identity("reports")], Vec::new());
    let error = rig.arm.patch(&pool(), &again, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Conflict, "{error}");
    let stale = IdentityPatch {
        etag: Some("\"0\"".to_owned()),
        ..again
    };
    let error = rig.arm.patch(&lone(), &stale, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Precondition, "{error}");
    assert!(error.is_transient() && error.advice().is_empty());
}

#[tokio::test]
async fn one_bad_identity_is_named() {
    let rig = Rig::start("").await;
    let (good, gone) = (identity("payments"), identity("gone"));
    let error = rig
        .change(&pool(), &[good, gone.clone()], &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::BadIdentity, "{error}");
    assert_eq!(error.identities, [gone]);
    assert!(rig.names(&pool()).await.is_empty());
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let rig = Rig::start("").await;
    let kind = async |compute: Compute| rig.arm.compute(&compute, LIMIT).await.unwrap_err().kind;
    let set = "virtualMachineScaleSets";
    assert_eq!(kind(compute(set, "other")).await, ArmErrorKind::NotFound);
    let gone = ArmErrorKind::GroupOrSubscriptionGone;
    for (from, to) in [("MC_shop", "MC_other"), ("5b5b5b5b", "6b6b6b6b")] {
        let id = pool().id.as_written().replace(from, to);
        assert_eq!(kind(id.parse().unwrap()).await, gone, "{to}");
    }
    let error = rig
        .arm
        .identity(&identity("gone"), LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::NotFound);
}

#[tokio::test]
async fn missing_roles_are_named_as_the_command_that_gives_them() {
    let roles = format!(
        "roleAssignments:\n  - {{principal: controller, role: Virtual Machine Contributor, scope: {SUB}/resourceGroups/MC_shop}}"
    );
    let rig = Rig::start(&roles).await;
    let error = rig
        .change(&pool(), &[identity("payments")], &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::LinkedAuthorization, "{error}");
    assert_eq!(error.identities, [identity("payments")]);
    let expected = format!(
        "run: az role assignment create --assignee-object-id {CONTROLLER} --assignee-principal-type ServicePrincipal --role 'Managed Identity Operator' --scope '{}'",
        identity("payments")
    );
    assert_eq!(error.advice(), expected);
    let error = rig
        .arm
        .identity(&identity("payments"), LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Forbidden, "{error}");
    let none = format!("roleAssignments:\n  - {{principal: payments, role: Reader, scope: {SUB}}}");
    let rig = Rig::start(&none).await;
    let error = rig.arm.compute(&pool(), LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Forbidden);
    let advice = error.advice();
    assert!(
        advice.contains(CONTROLLER) && advice.contains("'Virtual Machine Contributor'"),
        "{advice}"
    );
}

#[tokio::test]
async fn another_tenant_s_identity_is_told() {
    let other = "5c5c5c5c-0000-4000-8000-000000000001";
    let more =
        format!("arm: {{foreignSubscriptions: {{{other}: 7f6d1c1a-0000-4000-8000-000000000002}}}}");
    let rig = Rig::start(&more).await;
    let id = identity("payments")
        .as_written()
        .replace("5b5b5b5b", "5c5c5c5c");
    let foreign: ArmId = id.parse().unwrap();
    let error = rig.arm.identity(&foreign, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::BadIdentity, "{error}");
    assert!(error.advice().contains("another tenant"));
    let added = [identity("payments"), foreign.clone()];
    let error = rig.change(&pool(), &added, &[]).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::LinkedAuthorization, "{error}");
    assert_eq!(error.identities, [foreign]);
}

#[tokio::test]
async fn throttling_says_how_long() {
    let rig = Rig::start("").await;
    let shown = rig.shown(&pool()).await;
    let patch = IdentityPatch {
        etag: None,
        ..IdentityPatch::of(&shown, vec![identity("payments")], Vec::new())
    };
    for _ in 0..50 {
        let Err(error) = rig.arm.patch(&pool(), &patch, LIMIT).await else {
            continue;
        };
        assert_eq!(error.kind, ArmErrorKind::Throttled, "{error}");
        assert!(error.retry_after.unwrap() >= Duration::from_secs(1));
        assert!(error.request_id.is_some());
        return;
    }
    panic!("never throttled");
}

#[tokio::test]
async fn trouble_is_typed_and_a_read_gets_over_an_expired_token() {
    let rig = Rig::start("").await;
    let status = |code, retry_after| Effect::Status {
        code,
        retry_after,
        body: None,
    };
    for (effect, kind) in [
        (status(429, Some(7)), ArmErrorKind::Throttled),
        (status(500, None), ArmErrorKind::Unavailable),
        (status(503, Some(7)), ArmErrorKind::Unavailable),
        (Effect::Reset, ArmErrorKind::Unavailable),
        (Effect::Truncate, ArmErrorKind::Unavailable),
        (Effect::Garbage, ArmErrorKind::Nonsense),
        (Effect::Html, ArmErrorKind::Nonsense),
        (Effect::Huge(4 << 20), ArmErrorKind::Nonsense),
    ] {
        rig.azure.clear_faults();
        rig.azure.add_fault(Fault::new(Target::Arm, effect.clone()));
        let error = rig.arm.compute(&pool(), LIMIT).await.unwrap_err();
        assert_eq!(error.kind, kind, "{effect:?}: {error}");
        if let Effect::Status { retry_after, .. } = effect {
            let seconds = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
            assert_eq!(error.retry_after, seconds);
        }
    }
    rig.azure.clear_faults();
    let once = Fault {
        count: Some(1),
        matching: Matching {
            method: Some("GET".to_owned()),
            ..Matching::default()
        },
        ..Fault::new(Target::Arm, Effect::Expired)
    };
    rig.azure.add_fault(once);
    rig.shown(&pool()).await;
}

#[tokio::test]
async fn identities_and_their_credentials_live_and_die() {
    let rig = Rig::start("arm: {federatedLatency: 1ms}").await;
    let id = identity("made");
    let wanted = IdentityWanted {
        location: "westeurope".to_owned(),
        tags: [("lanyard-owner".to_owned(), "u/ns/name/u2".to_owned())].into(),
    };
    let made = rig.arm.put_identity(&id, &wanted, LIMIT).await.unwrap();
    assert!(made.client_id.is_some() && made.principal_id.is_some());
    let shown = rig.arm.identity(&id, LIMIT).await.unwrap();
    assert_eq!((&shown, &shown.tags), (&made, &wanted.tags));
    let credential = |at: usize| FederatedCredential {
        name: format!("lanyard-{at}"),
        issuer: "https://issuer.example".to_owned(),
        subject: format!("system:serviceaccount:shop:a{at}"),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    for at in 0..MOST_CREDENTIALS {
        let credential = credential(at);
        let put = rig.arm.put_federated_credential(&id, &credential, LIMIT);
        put.await.unwrap();
    }
    let one_more = credential(MOST_CREDENTIALS);
    let error = rig
        .arm
        .put_federated_credential(&id, &one_more, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::TooMany, "{error}");
    let twin = FederatedCredential {
        name: "twin".to_owned(),
        ..credential(0)
    };
    let error = rig
        .arm
        .put_federated_credential(&id, &twin, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Refused, "{error}");
    let mut listed = rig.arm.federated_credentials(&id, LIMIT).await.unwrap();
    listed.sort_by_key(|one| one.subject.len());
    assert_eq!(
        (listed.len(), &listed[0]),
        (MOST_CREDENTIALS, &credential(0))
    );
    let delete = |name| rig.arm.delete_federated_credential(&id, name, LIMIT);
    assert!(delete("lanyard-0").await.unwrap());
    assert!(!delete("lanyard-0").await.unwrap());
    assert!(rig.arm.delete_identity(&id, LIMIT).await.unwrap());
    assert!(!rig.arm.delete_identity(&id, LIMIT).await.unwrap());
    let again = rig.arm.put_identity(&id, &wanted, LIMIT).await.unwrap();
    assert_ne!(again.principal_id, made.principal_id);
}

#[tokio::test]
async fn without_a_valid_credential_it_says_what_to_do() {
    let rig = Rig::start("").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("clientSecret"), "another-value-9").unwrap();
    let (https, access) = access(&rig.azure, dir.path());
    let endpoint = format!("http://{}", rig.azure.addresses().arm.unwrap());
    let arm = ArmClient::new(&endpoint, https, access, clock::since_epoch).unwrap();
    let error = arm.compute(&pool(), LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ArmErrorKind::Unauthenticated, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("AADSTS7000215")
            && said.contains("new client secret")
            && !said.contains("another-value"),
        "{said}"
    );
    assert!(arm.prepare(LIMIT).await.is_err());
    assert!(rig.azure.journal().iter().all(|entry| entry.arm.is_none()));
}
