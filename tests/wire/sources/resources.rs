//! A resource as SDKs ask for it at IMDS, and the audience of the token that Entra gives for its scope:
//! the same token as IMDS would give, whatever the source, and the resource echoed byte for byte.

use super::cast::{FEDERATED, IMDS, USUAL, Wanted};
use super::stage::{APP_POD, BANK_POD, Stage, stage, stage_with};
use crate::world::PAYMENTS;

/// Those of the issue, as SDKs write them, and custom ones.
const RESOURCES: [&str; 9] = [
    "https://management.azure.com/",
    "https://vault.azure.net",
    "https://datalake.azure.net/",
    "https://database.windows.net/",
    "https://eventhubs.azure.net",
    "https://servicebus.azure.net",
    "api://0f0f0f0f-0000-4000-8000-000000000001",
    "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
    "https://api.example.com/orders",
];

async fn audience(stage: &Stage, pod: &str, resource: &str) -> String {
    let reply = stage
        .token_for(pod, &lanyard::model::escape::escaped(resource))
        .await;
    let aud = reply.claims()["aud"].as_str().unwrap().to_owned();
    assert_eq!(reply.text("resource"), resource);
    aud
}

/// `payments` by IMDS for one pod and by `source` for another: no difference.
async fn as_imds_does(stage: Stage, source: &str) {
    stage.client_secret(super::cast::SECRET);
    stage.workload(&Wanted {
        client: PAYMENTS,
        sources: &[source],
        ..Wanted::default()
    });
    stage.apply(&super::cast::pod(
        "shop", "by-imds", "by-imds", "app", BANK_POD,
    ));
    let by_imds = Wanted {
        name: "by-imds",
        uid: "uid-by-imds",
        client: PAYMENTS,
        sources: &[IMDS],
        ..Wanted::default()
    };
    stage.apply(&by_imds.granted());
    stage.token_at_last(APP_POD).await.claims();
    for resource in RESOURCES {
        let other = match resource.strip_suffix('/') {
            Some(bare) => bare.to_owned(),
            None => format!("{resource}/"),
        };
        for asked in [resource, &other] {
            let expected = audience(&stage, BANK_POD, asked).await;
            let got = audience(&stage, APP_POD, asked).await;
            assert_eq!(got, expected, "asked for {asked}");
            assert_eq!(got, asked);
        }
    }
}

fn generous() -> super::stage::Options {
    let mut options = super::stage::Options::default();
    // 18 resources at once are not what this is about.
    options.settings.obtain.pod_fetches.burst = 100;
    options
}

#[tokio::test]
async fn a_federated_identitys_audiences_are_imds_own() {
    as_imds_does(stage_with(generous()).await, FEDERATED).await;
}

/// `payments` as an application with a secret: Entra knows it as such for once.
#[tokio::test]
async fn a_service_principals_audiences_are_imds_own() {
    let stage = stage_with(generous()).await;
    stage.client_secret(super::cast::SECRET);
    stage.workload(&Wanted::default());
    assert_eq!(Wanted::default().sources, [USUAL]);
    stage.token_at_last(APP_POD).await.claims();
    for resource in RESOURCES {
        assert_eq!(audience(&stage, APP_POD, resource).await, resource);
    }
    for resource in RESOURCES.map(|one| format!("{one}/")) {
        assert_eq!(audience(&stage, APP_POD, &resource).await, resource);
    }
}

/// One is not the other's: a slash makes another token, with its own entry in the cache.
#[tokio::test]
async fn a_slash_is_part_of_the_key() {
    let stage = stage().await;
    stage.client_secret(super::cast::SECRET);
    stage.workload(&Wanted::default());
    stage.token_at_last(APP_POD).await.claims();
    stage.mark();
    for _ in 0..2 {
        for resource in ["https://a.example", "https://a.example/"] {
            assert_eq!(audience(&stage, APP_POD, resource).await, resource);
        }
    }
    assert_eq!(stage.exchanges().len(), 2);
}
