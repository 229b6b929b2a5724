//! Federated tokens: what another issuer says of a workload, taken for an identity or an application.

use lanyard::sim::world::FederatedCredential;
use lanyard::sim::{Listen, Simulator, World};
use serde_json::{Value, json};

use crate::assertion::{claims, last_exchange, present, refusal, start_with};
use crate::issuer::{AUDIENCE, Issuer, SUBJECT};
use crate::signer::{ROBOT, Signer, now};
use crate::world::{PAYMENTS, PAYMENTS_OID, REPORTS};

async fn start(issuer: &Issuer, more: &str) -> Simulator {
    let world = World::from_yaml(&format!("{}\n{more}\n", issuer.world())).expect("a valid world");
    Simulator::start(world, Listen::loopback())
        .await
        .expect("a started simulator")
}

#[tokio::test]
async fn an_identity_gets_a_token_for_its_workload_s_token_again_and_again() {
    let (issuer, key) = (Issuer::http().await, Signer::new());
    issuer.publish(&[("k0", &Signer::new()), ("k1", &key)]);
    let simulator = start(&issuer, "").await;
    let jwt = issuer.token(&key, |_, _| {});
    for _ in 0..2 {
        let token = claims(&present(&simulator, PAYMENTS, &jwt, "").await);
        assert_eq!(
            (&token["oid"], &token["appidacr"]),
            (&json!(PAYMENTS_OID), &json!("2"))
        );
        let resource = token["xms_mirid"].as_str().unwrap();
        assert!(resource.ends_with("/userAssignedIdentities/payments"));
    }
    let exchange = last_exchange(&simulator);
    assert_eq!(exchange.credential.as_deref(), Some("federated:shop"));
    assert_eq!(
        issuer.asked(),
        2,
        "discovery and keys once, then remembered"
    );
    let one = issuer.token(&key, |_, claims| claims["aud"] = json!(AUDIENCE));
    assert_eq!(present(&simulator, PAYMENTS, &one, "").await.status, 200);
}

#[tokio::test]
async fn an_application_s_token_has_no_resource_id() {
    let (issuer, key) = (Issuer::http().await, Signer::new());
    issuer.publish(&[("k1", &key)]);
    let simulator = start_with(&format!("    {}", issuer.credential()), "").await;
    let jwt = issuer.token(&key, |_, _| {});
    let token = claims(&present(&simulator, ROBOT, &jwt, "").await);
    assert_eq!(token["appid"], ROBOT);
    assert!(token.get("xms_mirid").is_none());
}

#[tokio::test]
async fn each_wrong_token_has_its_code_and_names_what_was_presented() {
    let (issuer, key, stranger) = (Issuer::http().await, Signer::new(), Signer::new());
    issuer.publish(&[("k1", &key)]);
    let simulator = start(&issuer, "").await;
    let set = |name: &'static str, value: Value| {
        issuer.token(&key, move |_, claims| claims[name] = value)
    };
    let right = || issuer.token(&key, |_, _| {});
    let pss = issuer.token(&key, |header, _| header["alg"] = json!("PS256"));
    let unknown = issuer.token(&key, |header, _| header["kid"] = json!("k9"));
    let other = issuer.url.clone() + "/";
    let named = format!("issuer '{other}'");
    let expired = set("exp", json!(now() - 310));
    for (client, jwt, status, code, named) in [
        (REPORTS, right(), 400, 70_021, SUBJECT),
        (
            PAYMENTS,
            set("iss", json!(other)),
            401,
            700_211,
            named.as_str(),
        ),
        (
            PAYMENTS,
            set("sub", json!("system:serviceaccount:shop:Payments")),
            401,
            700_213,
            "subject 'system:serviceaccount:shop:Payments'",
        ),
        (
            PAYMENTS,
            set("aud", json!(["api://azureadtokenexchange"])),
            401,
            700_212,
            "audience 'api://azureadtokenexchange'",
        ),
        (PAYMENTS, expired, 401, 700_024, "valid time range"),
        (PAYMENTS, set("exp", Value::Null), 400, 50_027, "'exp'"),
        (PAYMENTS, pss, 401, 5_002_738, "'PS256'"),
        (PAYMENTS, unknown, 401, 7_000_272, "k9"),
        (
            PAYMENTS,
            issuer.token(&stranger, |_, _| {}),
            401,
            50_013,
            "signature",
        ),
    ] {
        let (got, found, words) = refusal(&present(&simulator, client, &jwt, "").await);
        assert_eq!((got, found), (status, code), "{words}");
        assert!(words.contains(named), "{words}");
    }
    let nobody = "eeeeeeee-0000-4000-8000-000000000001";
    let (_, code, words) = refusal(&present(&simulator, nobody, &right(), "").await);
    assert_eq!(code, 700_016);
    assert!(
        words.contains(nobody) && words.contains("contoso"),
        "{words}"
    );
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_fetched_and_an_old_one_is_refused() {
    let (issuer, old, new) = (Issuer::http().await, Signer::new(), Signer::new());
    issuer.publish(&[("k1", &old)]);
    let simulator = start(&issuer, "").await;
    let by_old = issuer.token(&old, |_, _| {});
    assert_eq!(present(&simulator, PAYMENTS, &by_old, "").await.status, 200);
    issuer.publish(&[("k2", &new)]);
    let by_new = issuer.token(&new, |header, _| header["kid"] = json!("k2"));
    assert_eq!(present(&simulator, PAYMENTS, &by_new, "").await.status, 200);
    let (_, code, _) = refusal(&present(&simulator, PAYMENTS, &by_old, "").await);
    assert_eq!(code, 7_000_272);
}

#[tokio::test]
async fn an_issuer_over_tls_is_believed_by_its_authority_only() {
    let (issuer, key) = (Issuer::https().await, Signer::new());
    issuer.publish(&[("k1", &key)]);
    let jwt = issuer.token(&key, |_, _| {});
    let listed = |ca: &str| format!("issuers: [{{issuer: '{}', caPem: {ca:?}}}]", issuer.url);
    let simulator = start(&issuer, &listed(&issuer.ca)).await;
    assert_eq!(present(&simulator, PAYMENTS, &jwt, "").await.status, 200);
    let other = crate::signer::Authority::new("another");
    for more in [listed(&other.pem), String::new()] {
        let simulator = start(&issuer, &more).await;
        let (status, code, words) = refusal(&present(&simulator, PAYMENTS, &jwt, "").await);
        assert_eq!((status, code), (400, 501_661), "{words}");
        assert!(words.contains(&issuer.url), "{words}");
    }
}

#[tokio::test]
async fn an_issuer_may_be_fetched_from_elsewhere_and_must_say_who_it_is() {
    let (issuer, key) = (Issuer::http().await, Signer::new());
    issuer.publish(&[("k1", &key)]);
    let cluster = "https://kubernetes.default.svc.cluster.local";
    let listed = format!(
        "issuers: [{{issuer: '{cluster}', discovery: '{}'}}]",
        issuer.url
    );
    let simulator = start_with("", &listed).await;
    let credential = FederatedCredential {
        name: "cluster".to_owned(),
        issuer: cluster.to_owned(),
        subject: SUBJECT.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
    };
    simulator
        .add_federated("robot", credential.clone())
        .unwrap();
    simulator.add_federated("payments", credential).unwrap();
    let jwt = issuer.token(&key, |_, claims| claims["iss"] = json!(cluster));
    let (_, code, words) = refusal(&present(&simulator, ROBOT, &jwt, "").await);
    assert_eq!(code, 90_061, "{words}");
    issuer.pretend(cluster);
    for client in [ROBOT, PAYMENTS] {
        assert_eq!(present(&simulator, client, &jwt, "").await.status, 200);
    }
    simulator.remove_federated("payments", "cluster").unwrap();
    let (_, code, _) = refusal(&present(&simulator, PAYMENTS, &jwt, "").await);
    assert_eq!(code, 70_021);
    assert_eq!(present(&simulator, ROBOT, &jwt, "").await.status, 200);
}

#[tokio::test]
async fn nobody_makes_entra_fetch_from_where_he_likes() {
    let (issuer, trap, key) = (Issuer::http().await, Issuer::http().await, Signer::new());
    trap.publish(&[("k1", &key)]);
    let simulator = start(&issuer, "").await;
    let jwt = trap.token(&key, |_, _| {});
    let (_, code, _) = refusal(&present(&simulator, PAYMENTS, &jwt, "").await);
    assert_eq!((code, trap.asked(), issuer.asked()), (700_211, 0, 0));
}
