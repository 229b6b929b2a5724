//! User-assigned identities and their federated credentials: made, used, deleted, made again.

use serde_json::{Value, json};

use super::{Rig, SUB, body, identity, pool};
use crate::client::Answer;

const PAYMENTS: &str = "aaaaaaaa-0000-4000-8000-000000000001";

fn federated(name: &str, credential: &str) -> String {
    format!(
        "{}/federatedIdentityCredentials/{credential}",
        identity(name)
    )
}

fn credential(subject: &str) -> Value {
    json!({"properties": {
        "issuer": "https://issuer",
        "subject": subject,
        "audiences": ["api://AzureADTokenExchange"],
    }})
}

#[tokio::test]
async fn an_identity_is_shown_with_its_principal() {
    let rig = Rig::start("").await;
    let shown = rig.get(&identity("payments")).await.json();
    assert_eq!(shown["properties"]["clientId"], PAYMENTS);
    assert_eq!(
        shown["properties"]["principalId"],
        "aaaaaaaa-0000-4000-8000-000000000002"
    );
    assert_eq!(
        shown["properties"]["tenantId"],
        "7f6d1c1a-0000-4000-8000-000000000001"
    );
    assert_eq!(
        Rig::refusal(&rig.get(&identity("nothing")).await),
        (404, "ResourceNotFound".to_owned())
    );
    let list = format!(
        "{SUB}/resourceGroups/SHOP/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    );
    let list = rig.get(&list).await.json();
    let names = list["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["payments", "reports"]);
}

#[tokio::test]
async fn one_is_made_once_and_works_like_those_of_the_world() {
    let rig = Rig::start("").await;
    let wanted = json!({"location": "westeurope", "tags": {"lanyard-owner": "me"}});
    let made = rig.call("PUT", &identity("fresh"), Some(&wanted)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let ids = made.json()["properties"].clone();
    assert_eq!(made.json()["tags"]["lanyard-owner"], "me");
    let again = rig
        .call(
            "PUT",
            &identity("fresh"),
            Some(&json!({"location": "westeurope"})),
        )
        .await;
    assert_eq!(
        (again.status, &again.json()["properties"]),
        (200, &ids),
        "the same principal"
    );
    assert_eq!(again.json()["tags"], json!({}));
    let moved = rig
        .call(
            "PUT",
            &identity("fresh"),
            Some(&json!({"location": "eastus"})),
        )
        .await;
    assert_eq!(
        Rig::refusal(&moved),
        (409, "InvalidResourceLocation".to_owned())
    );
    let nowhere = identity("fresh").replace("/shop/", "/nowhere/");
    let answer = rig.call("PUT", &nowhere, Some(&wanted)).await;
    assert_eq!(
        Rig::refusal(&answer),
        (404, "ResourceGroupNotFound".to_owned())
    );

    rig.patch(&pool(), &body("UserAssigned", &["fresh"], &[]))
        .await;
    let (status, text) = rig.imds(ids["clientId"].as_str().unwrap()).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_deleted_one_stays_on_the_machine_dead() {
    let rig = Rig::start("").await;
    rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(
        rig.call("DELETE", &identity("payments"), None).await.status,
        200
    );
    assert_eq!(
        rig.call("DELETE", &identity("payments"), None).await.status,
        204
    );
    assert_eq!(rig.shown(&pool()).await, ["payments"]);
    let (status, text) = rig.imds(PAYMENTS).await;
    assert!(
        status == 400 && text.contains("Identity not found"),
        "{text}"
    );

    // Made again under its name it is another one; the machine keeps the dead one until it is removed and added.
    let wanted = json!({"location": "westeurope"});
    let made = rig.call("PUT", &identity("payments"), Some(&wanted)).await;
    assert_eq!(made.status, 201);
    let client = made.json()["properties"]["clientId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(client, PAYMENTS);
    rig.patch(
        &pool(),
        &body("UserAssigned", &["payments", "reports"], &[]),
    )
    .await;
    let shown = rig.get(&pool()).await.json();
    let entry = &shown["identity"]["userAssignedIdentities"][identity("payments")];
    assert_eq!(entry["clientId"], PAYMENTS);
    assert_eq!(rig.imds(&client).await.0, 400);
    rig.patch(&pool(), &body("UserAssigned", &[], &["payments"]))
        .await;
    rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(rig.imds(&client).await.0, 200);
}

#[tokio::test]
async fn a_new_principal_may_take_its_time() {
    let rig = Rig::start("arm: {principalDelay: 10m}").await;
    let wanted = json!({"location": "westeurope"});
    let made = rig.call("PUT", &identity("fresh"), Some(&wanted)).await;
    rig.patch(&pool(), &body("UserAssigned", &["fresh"], &[]))
        .await;
    let client = made.json()["properties"]["clientId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(rig.shown(&pool()).await, ["fresh"]);
    assert_eq!(rig.imds(&client).await.0, 400);
}

#[tokio::test]
async fn federated_credentials_are_written_shown_and_removed() {
    let rig = Rig::start("arm: {federatedLatency: 0s}").await;
    let target = federated("payments", "cluster");
    let made = rig.call("PUT", &target, Some(&credential("a"))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        rig.call("PUT", &target, Some(&credential("b")))
            .await
            .status,
        200
    );
    assert_eq!(rig.get(&target).await.json()["properties"]["subject"], "b");
    let twin = rig
        .call(
            "PUT",
            &federated("payments", "other"),
            Some(&credential("b")),
        )
        .await;
    assert_eq!(twin.status, 409);
    let list = federated("payments", "");
    let list = rig.get(list.trim_end_matches('/')).await.json();
    assert_eq!(list["value"][0]["name"], "cluster");
    assert_eq!(rig.call("DELETE", &target, None).await.status, 200);
    assert_eq!(rig.call("DELETE", &target, None).await.status, 204);
    assert_eq!(rig.get(&target).await.status, 404);
    assert_eq!(rig.get(&federated("nothing", "x")).await.status, 404);
}

#[tokio::test]
async fn an_identity_has_twenty_of_them_at_most() {
    let rig = Rig::start("arm: {federatedLatency: 0s}").await;
    for number in 0..20 {
        let target = federated("payments", &format!("c-{number}"));
        let answer = rig
            .call("PUT", &target, Some(&credential(&number.to_string())))
            .await;
        assert_eq!(answer.status, 201);
    }
    let more = rig
        .call(
            "PUT",
            &federated("payments", "c-20"),
            Some(&credential("20")),
        )
        .await;
    assert_eq!(more.status, 400, "{}", more.text());
}

#[tokio::test]
async fn two_writes_at_once_to_one_identity_are_one_too_many() {
    let rig = Rig::start("arm: {federatedLatency: 1s}").await;
    let write = async |name: &str| {
        let target = federated("payments", name);
        rig.call("PUT", &target, Some(&credential(name))).await
    };
    let (first, second) = tokio::join!(write("one"), write("two"));
    let mut both = [first, second];
    both.sort_by_key(|answer| answer.status);
    assert_eq!(both[0].status, 201);
    let code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
    assert_eq!(Rig::refusal(&both[1]), (409, code.to_owned()));
    let target = federated("reports", "one");
    let other = rig.call("PUT", &target, Some(&credential("one"))).await;
    assert_eq!(other.status, 201);
}

#[tokio::test]
async fn entra_takes_a_federated_credential_at_once() {
    let rig = Rig::start("arm: {federatedLatency: 0s}").await;
    // An issuer that nobody can reach is enough to see that Entra found the credential: it looks for the keys.
    let assertion = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwOi8vMTI3LjAuMC4xOjEiLCJzdWIiOiJhIiwiYXVkIjoiYXBpOi8vQXp1cmVBRFRva2VuRXhjaGFuZ2UiLCJleHAiOjQxMDI0NDQ4MDB9.AA";
    let ask = async || {
        let body = format!(
            "grant_type=client_credentials&client_id={PAYMENTS}&scope=https://vault.azure.net/.default&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={assertion}"
        );
        let text = format!(
            "POST /7f6d1c1a-0000-4000-8000-000000000001/oauth2/v2.0/token HTTP/1.1\r\nHost: login\r\nContent-Type: \
             application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let bytes = crate::client::send(rig.simulator.addresses().entra.unwrap(), &text)
            .await
            .unwrap();
        Answer::parse(&bytes).text().to_owned()
    };
    let before = ask().await;
    assert!(before.contains("AADSTS70021"), "{before}");
    let wanted = json!({"properties": {
        "issuer": "http://127.0.0.1:1",
        "subject": "a",
        "audiences": ["api://AzureADTokenExchange"],
    }});
    rig.call("PUT", &federated("payments", "cluster"), Some(&wanted))
        .await;
    let found = ask().await;
    assert!(found.contains("AADSTS501661"), "{found}");
    rig.call("DELETE", &identity("payments"), None).await;
    let gone = ask().await;
    assert!(gone.contains("AADSTS700016"), "{gone}");
}
