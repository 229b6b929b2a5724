//! Pods that are set up for Azure Workload Identity: the service account's annotations choose the
//! identity, and standalone, without an API server, its tokens are not possible here.

use crate::testkit::{Stage, stage};
use crate::world;

const POD: &str = "127.0.0.31";
const CLIENT: &str = "99999999-0000-4000-8000-00000000000a";

fn account(client: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: web\n  namespace: shop\n  \
         annotations: {{azure.workload.identity/client-id: {client}}}"
    )
}

fn pod(label: &str) -> String {
    world::pod("shop", "web", POD).replace("{app: web}", &format!("{{app: web{label}}}"))
}

const LABEL: &str = ", azure.workload.identity/use: 'true'";
const POLICY: &str = "apiVersion: lanyard.dev/v1alpha1\nkind: AzureIdentityPolicy\nmetadata: {name: workload}\n\
     spec: {namespaces: {matchLabels: {team: shop}}, clientIDs: [99999999-0000-4000-8000-00000000000a], workloadIdentity: true}";

/// Requests that selection refused.
fn refused(stage: &Stage) -> u64 {
    let scrape = stage.scrape();
    let lines = scrape
        .lines()
        .filter(|line| line.starts_with("lanyard_refusals_total{"));
    let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

/// The identity was chosen, and IMDS was not asked in the place of its source.
async fn is_chosen(stage: &Stage, more: &str) {
    let before = refused(stage);
    let reply = stage.token(POD, more).await;
    assert_ne!(reply.status, 200, "{reply:?}");
    assert_eq!(refused(stage), before, "{more}: {reply:?}");
    assert!(stage.upstream().is_empty(), "{:?}", stage.upstream());
}

#[tokio::test]
async fn the_accounts_identity_is_the_default_and_answers_to_its_client_id() {
    let stage = stage().await;
    for object in [POLICY, &account(CLIENT), &pod(LABEL)] {
        stage.apply(object);
    }
    is_chosen(&stage, "").await;
    is_chosen(&stage, &format!("&client_id={CLIENT}")).await;
    let other = format!("&client_id={}", world::PAYMENTS.client_id);
    stage.token(POD, &other).await.is_identity_not_found();
}

#[tokio::test]
async fn without_the_label_the_policy_or_the_account_there_is_none() {
    for (policy, account, pod) in [
        (None, Some(account(CLIENT)), pod(LABEL)),
        (Some(POLICY), None, pod(LABEL)),
        (Some(POLICY), Some(account(CLIENT)), pod("")),
        (
            Some(POLICY),
            Some(account(CLIENT)),
            pod(LABEL).replace("'true'", "'True'"),
        ),
        (
            Some(POLICY),
            Some(account("99999999-0000-4000-8000-00000000000b")),
            pod(LABEL),
        ),
    ] {
        let stage = stage().await;
        let objects = [policy.map(str::to_owned), account, Some(pod)];
        objects
            .iter()
            .flatten()
            .for_each(|object| stage.apply(object));
        for more in ["", "&client_id=99999999-0000-4000-8000-00000000000a"] {
            let before = refused(&stage);
            stage.token(POD, more).await.is_identity_not_found();
            assert_eq!(refused(&stage), before + 1);
        }
        assert!(stage.upstream().is_empty());
    }
}

#[tokio::test]
async fn what_a_binding_gives_comes_first() {
    let stage = stage().await;
    for object in [
        POLICY,
        &account(CLIENT),
        &pod(LABEL),
        &world::binding("shop", "payments", "web"),
    ] {
        stage.apply(object);
    }
    stage.token(POD, "").await.is_token_of(world::PAYMENTS);
    stage.delete(&world::binding("shop", "payments", "web"));
    let reply = stage.token(POD, "").await;
    assert_ne!(reply.status, 200, "{reply:?}");
    assert_eq!(refused(&stage), 0, "its own identity was chosen then");
}
