//! Credentials that come and go, and clocks that differ, while the simulator runs.

use jiff::SignedDuration;
use lanyard::sim::control::Client;
use lanyard::sim::world::{FederatedCredential, Issuer as Listed, Secret};
use lanyard::sim::{Listen, Simulator, World, secret_id};
use serde_json::json;

use crate::assertion::{claims, post, present, refusal};
use crate::client::{get, token_target};
use crate::issuer::{AUDIENCE, Issuer, SUBJECT};
use crate::signer::{ROBOT, Signer, now};
use crate::world::{PAYMENTS, WORLD, start};

async fn controlled() -> (Simulator, Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let listen = Listen {
        control: Some(path.clone()),
        ..Listen::loopback()
    };
    let world = World::from_yaml(WORLD).unwrap();
    let simulator = Simulator::start(world, listen).await.unwrap();
    (simulator, Client::new(&path), folder)
}

async fn by_secret(simulator: &Simulator, secret: &str) -> u64 {
    let form = format!(
        "grant_type=client_credentials&client_id={ROBOT}&scope=r/.default&client_secret={secret}"
    );
    let answer = post(simulator, "oauth2/v2.0/token", &form).await;
    match answer.status {
        200 => 0,
        _ => refusal(&answer).1,
    }
}

#[tokio::test]
async fn a_secret_rolls() {
    let (simulator, client, _folder) = controlled().await;
    assert_eq!(by_secret(&simulator, "newer").await, 7_000_215);
    let secret = Secret {
        value: "newer".to_owned(),
        expires: None,
    };
    let id = client.add_secret("robot", &secret).await.unwrap();
    assert_eq!(id, secret_id("newer"));
    assert_eq!(by_secret(&simulator, "newer").await, 0);
    assert_eq!(by_secret(&simulator, "old").await, 0, "both, until revoked");
    let old = secret_id("old");
    client.revoke_secret("robot", &old).await.unwrap();
    assert_eq!(by_secret(&simulator, "old").await, 7_000_215);
    let over = Secret {
        expires: Some(jiff::Timestamp::UNIX_EPOCH),
        ..secret
    };
    client.add_secret("robot", &over).await.unwrap();
    assert_eq!(by_secret(&simulator, "newer").await, 7_000_222);
    let stats = simulator.stats();
    assert_eq!((stats.entra_refused, stats.entra_most_concurrent), (3, 1));
    let list = client.credentials("robot").await.unwrap();
    assert!(list.to_string().contains(&id) && !list.to_string().contains("newer"));
    for (refused, named) in [
        (client.revoke_secret("robot", &old).await, old.as_str()),
        (client.revoke_secret("nobody", &old).await, "nobody"),
    ] {
        assert!(refused.unwrap_err().to_string().contains(named));
    }
    let managed = client.add_secret("payments", &secret_of("x")).await;
    assert!(
        managed
            .unwrap_err()
            .to_string()
            .contains("managed identity")
    );
}

fn secret_of(value: &str) -> Secret {
    Secret {
        value: value.to_owned(),
        expires: None,
    }
}

#[tokio::test]
async fn a_certificate_rolls() {
    let (simulator, client, _folder) = controlled().await;
    let signer = Signer::new();
    let ask = async || {
        let answer = present(&simulator, ROBOT, &signer.assertion(|_, _| {}), "").await;
        match answer.status {
            200 => 0,
            _ => refusal(&answer).1,
        }
    };
    assert_eq!(ask().await, 700_027);
    let thumbprint = client.add_certificate("robot", &signer.pem).await.unwrap();
    assert_eq!(thumbprint, signer.thumbprint());
    assert_eq!(ask().await, 0);
    let lower = thumbprint.to_lowercase();
    client.revoke_certificate("robot", &lower).await.unwrap();
    assert_eq!(ask().await, 700_027);
    let nonsense = client.add_certificate("robot", "hello").await.unwrap_err();
    assert!(
        nonsense.to_string().contains("BEGIN CERTIFICATE"),
        "{nonsense}"
    );
}

#[tokio::test]
async fn a_federated_credential_comes_and_goes_with_its_issuer() {
    let (simulator, client, _folder) = controlled().await;
    let (issuer, key) = (Issuer::https().await, Signer::new());
    issuer.publish(&[("k1", &key)]);
    let credential = FederatedCredential {
        name: "shop / payments".to_owned(),
        issuer: issuer.url.clone(),
        subject: SUBJECT.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
    };
    client.add_federated("payments", &credential).await.unwrap();
    let ask = async || {
        let jwt = issuer.token(&key, |_, _| {});
        let answer = present(&simulator, PAYMENTS, &jwt, "").await;
        match answer.status {
            200 => 0,
            _ => refusal(&answer).1,
        }
    };
    assert_eq!(ask().await, 501_661, "its TLS is not trusted");
    let listed = Listed {
        issuer: issuer.url.clone(),
        discovery: None,
        keys: Some(format!("{}/keys", issuer.url)),
        ca_file: None,
        ca_pem: Some(issuer.ca.clone()),
    };
    client.trust_issuer(&listed).await.unwrap();
    assert_eq!(ask().await, 0);
    let name = &credential.name;
    client.remove_federated("payments", name).await.unwrap();
    assert_eq!(ask().await, 70_021);
}

#[tokio::test]
async fn the_clock_of_azure_may_differ() {
    let (simulator, client, _folder) = controlled().await;
    let signer = Signer::new();
    simulator.add_certificate("robot", &signer.pem).unwrap();
    let ask = async |nbf: i64, exp: i64| {
        let jwt = signer.assertion(|_, claims| {
            claims["nbf"] = json!(now() + nbf);
            claims["exp"] = json!(now() + exp);
        });
        present(&simulator, ROBOT, &jwt, "").await
    };
    for skew in [240, -240] {
        client
            .set_clock_skew(SignedDuration::from_secs(skew))
            .await
            .unwrap();
        let token = claims(&ask(-300, 600).await);
        let off = token["iat"].as_i64().unwrap() - now();
        assert!((off - skew).abs() <= 5, "{off}");
        // A vault's clock is Azure's clock: its own tokens are good there.
        let imds = simulator.addresses().imds.unwrap();
        let target = token_target(&format!("&client_id={PAYMENTS}"));
        let answer = get(imds, &target).await.json();
        let expires: i64 = answer["expires_on"].as_str().unwrap().parse().unwrap();
        assert!((expires - now() - 86_400 - skew).abs() <= 5);
    }
    let behind = ask(120, 600).await;
    assert_eq!(refusal(&behind).1, 700_024, "6 minutes in Azure's future");
    let world = World::from_yaml(&format!("{WORLD}\ntokens: {{clockSkew: -4m}}\n")).unwrap();
    assert_eq!(world.tokens.clock_skew, SignedDuration::from_secs(-240));
}

#[tokio::test]
async fn bypass_cache_makes_a_new_token() {
    let simulator = start("").await;
    let imds = simulator.addresses().imds.unwrap();
    let ask = async |more: &str| {
        let target = token_target(&format!("&client_id={PAYMENTS}{more}"));
        get(imds, &target).await.json()["access_token"].clone()
    };
    let first = ask("").await;
    assert_eq!(ask("&bypass_cache=false").await, first);
    let fresh = ask("&bypass_cache=true").await;
    assert_ne!(fresh, first);
    assert_eq!(ask("").await, fresh, "the new one is the cached one");
    assert_eq!(simulator.stats().tokens_signed, 2);
}

#[tokio::test]
async fn a_name_for_two_and_a_bad_certificate_are_refused_with_their_place() {
    let twice = WORLD.replace("name: robot", "name: payments");
    let message = World::from_yaml(&twice).unwrap_err().to_string();
    assert!(message.contains("`payments`"), "{message}");
    let bad = WORLD.replace("secrets: [old, new]", "certificates: [nonsense]");
    let message = World::from_yaml(&bad).unwrap_err().to_string();
    assert!(
        message.contains("applications[0].certificates[0]"),
        "{message}"
    );
    let absent = WORLD.replace(
        "secrets: [old, new]",
        "certificates: [{file: not-there.pem}]",
    );
    let message = World::from_yaml(&absent).unwrap_err().to_string();
    assert!(message.contains("not-there.pem"), "{message}");
    for (field, value) in [
        ("assertionAlgorithms", "[]"),
        ("throttle", "{perSecond: 0, burst: 1}"),
        ("authorityHost", "login.example.com"),
    ] {
        let text = format!("{WORLD}\nentra: {{{field}: {value}}}\n");
        let message = World::from_yaml(&text).unwrap_err().to_string();
        assert!(message.contains(&format!("entra.{field}")), "{message}");
    }
}
