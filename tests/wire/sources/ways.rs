//! The way to Entra: through a proxy or straight, to the authority that an identity names where policy
//! allows it, to a token endpoint with its own certificates and name. What lives on the node's link is
//! never asked through a proxy.

use lanyard::azure::https::ProxyRules;

use super::cast::{self, FEDERATED, IMDS, Wanted};
use super::composed::Settings;
use super::front::{Proxy, TlsFront};
use super::stage::{APP_POD, BANK_POD, Options, Stage, stage, stage_with};
use crate::world::PAYMENTS;

const PUBLIC: &str = "https://login.microsoftonline.com";

/// A stage whose authority is the public one, reached as `proxies` say.
async fn stage_behind(proxies: ProxyRules) -> Stage {
    let stage = stage_with(Options {
        settings: Settings {
            authority: Some(PUBLIC.to_owned()),
            proxies,
            ..Settings::default()
        },
        ..Options::default()
    })
    .await;
    stage.workload(&Wanted::default());
    stage.client_secret(cast::SECRET);
    stage
}

fn to(proxy: &Proxy, no: &str) -> ProxyRules {
    ProxyRules::new(&format!("http://{}", proxy.address), no).unwrap()
}

/// Another pod, by the node's IMDS.
fn by_imds(stage: &Stage) {
    stage.apply(&cast::pod(
        "shop", "by-imds", "by-imds", "by-imds", BANK_POD,
    ));
    let wanted = Wanted {
        name: "by-imds",
        uid: "uid-by-imds",
        client: PAYMENTS,
        sources: &[IMDS],
        ..Wanted::default()
    };
    stage.apply(&wanted.granted());
}

#[tokio::test]
async fn entra_goes_through_the_proxy_and_imds_never() {
    // Where the tunnel ends is known only when the simulator is there.
    let end = super::front::Later::start().await;
    let proxy = Proxy::start(end.address).await;
    let stage = stage_behind(to(&proxy, "")).await;
    end.is(stage.simulator.addresses().vault.unwrap());
    by_imds(&stage);
    stage.token_at_last(APP_POD).await.claims();
    stage.token_at_last(BANK_POD).await.claims();
    stage.token(APP_POD, "/other").await.claims();
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for line in &asked {
        assert_eq!(line, "CONNECT login.microsoftonline.com:443 HTTP/1.1");
    }
    assert_eq!((stage.exchanges().len(), stage.imds_calls()), (2, 1));
}

/// A proxy that is away is not gone around, and harms nobody who needs none.
#[tokio::test]
async fn a_proxy_that_is_away_is_not_gone_around() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nowhere.local_addr().unwrap();
    drop(nowhere);
    let rules = ProxyRules::new(&format!("http://{address}"), "").unwrap();
    let stage = stage_behind(rules).await;
    by_imds(&stage);
    stage.token(APP_POD, "").await.is_error(503);
    stage.token(BANK_POD, "").await.claims();
    assert!(stage.exchanges().is_empty());
}

/// A host of `NO_PROXY` is reached straight.
#[tokio::test]
async fn what_is_excepted_from_the_proxy_goes_straight() {
    let end = super::front::Later::start().await;
    let front = TlsFront::start(&["127.0.0.1"], end.address).await;
    let proxy = Proxy::start(end.address).await;
    let stage = stage_with(Options {
        settings: Settings {
            authority: Some(format!("https://{}", front.address)),
            ca: Some(front.ca_pem.clone()),
            proxies: to(&proxy, "10.0.0.0/8,127.0.0.1"),
            ..Settings::default()
        },
        ..Options::default()
    })
    .await;
    end.is(stage.simulator.addresses().entra.unwrap());
    stage.workload(&Wanted::default());
    stage.client_secret(cast::SECRET);
    stage.token_at_last(APP_POD).await.claims();
    assert_eq!(proxy.asked(), [""; 0]);
    assert_eq!(front.names().len(), 1);
}

/// An authority of one's own, in front of the same Entra; with the line that a policy needs for it.
async fn other_authority() -> (TlsFront, super::front::Later, String) {
    let end = super::front::Later::start().await;
    let front = TlsFront::start(&["127.0.0.1"], end.address).await;
    let line = format!("  authorityHosts: ['https://{}']\n", front.address);
    (front, end, line)
}

async fn stage_of_authority(policy: &str, front: &TlsFront, end: &super::front::Later) -> Stage {
    let stage = stage_with(Options {
        policy: policy.to_owned(),
        settings: Settings {
            ca: Some(front.ca_pem.clone()),
            ..Settings::default()
        },
        ..Options::default()
    })
    .await;
    end.is(stage.simulator.addresses().entra.unwrap());
    stage.client_secret(cast::SECRET);
    stage.workload(&Wanted {
        more: &format!("  authorityHost: https://{}\n", front.address),
        ..Wanted::default()
    });
    stage
}

#[tokio::test]
async fn an_authority_that_policy_lists_is_asked() {
    let (front, end, policy) = other_authority().await;
    let stage = stage_of_authority(&policy, &front, &end).await;
    stage.token_at_last(APP_POD).await.claims();
    assert_eq!(front.names().len(), 1);
}

#[tokio::test]
async fn an_authority_that_no_policy_lists_is_not_even_asked() {
    let (front, end, _) = other_authority().await;
    for policy in [
        "",
        "  authorityHosts: ['https://login.microsoftonline.us']\n",
    ] {
        let stage = stage_of_authority(policy, &front, &end).await;
        stage.token(APP_POD, "").await.is_identity_not_found();
        assert_eq!(front.names(), []);
        assert_eq!(stage.api.asked("secrets"), 0, "nor is the Secret read");
    }
}

/// Nobody is believed but by the system's authorities and the configured one.
#[tokio::test]
async fn an_authority_with_a_strangers_certificate_gets_no_secret() {
    let (front, end, policy) = other_authority().await;
    let stage = stage_with(Options {
        policy: policy.clone(),
        ..Options::default()
    })
    .await;
    end.is(stage.simulator.addresses().entra.unwrap());
    stage.client_secret(cast::SECRET);
    stage.workload(&Wanted {
        more: &format!("  authorityHost: https://{}\n", front.address),
        ..Wanted::default()
    });
    stage.token(APP_POD, "").await.is_error(503);
    assert!(stage.exchanges().is_empty());
}

/// As AKS identity bindings have it: a path, an authority and a name of their own.
async fn stage_of_endpoint(allowed: bool, ca: Option<&str>, sni: &str) -> (Stage, TlsFront) {
    let end = super::front::Later::start().await;
    let front = TlsFront::start(&["tokens.example.com"], end.address).await;
    let url = format!("https://{}", front.address);
    let policy = if allowed {
        format!("  tokenEndpoints: ['{url}']\n")
    } else {
        String::new()
    };
    let stage = stage_with(Options {
        policy,
        ..Options::default()
    })
    .await;
    end.is(stage.simulator.addresses().entra.unwrap());
    let bundle = ca.unwrap_or(&front.ca_pem).replace('\n', "\\n");
    let source =
        format!("federated: {{tokenEndpoint: '{url}', sni: {sni}, caBundle: \"{bundle}\"}}");
    stage.workload(&Wanted {
        sources: &[&source],
        ..Wanted::default()
    });
    (stage, front)
}

#[tokio::test]
async fn a_token_endpoint_with_its_own_authority_and_name() {
    let (stage, front) = stage_of_endpoint(true, None, "tokens.example.com").await;
    stage.token_at_last(APP_POD).await.claims();
    assert_eq!(front.names(), [Some("tokens.example.com".to_owned())]);
    let used = stage.exchanges();
    assert!(
        used[0]
            .credential
            .as_ref()
            .unwrap()
            .starts_with("federated:"),
        "{used:?}"
    );
}

#[tokio::test]
async fn a_token_endpoint_that_no_policy_lists_gets_no_token() {
    let (stage, front) = stage_of_endpoint(false, None, "tokens.example.com").await;
    stage.token(APP_POD, "").await.is_identity_not_found();
    assert_eq!(front.names(), []);
    assert_eq!(stage.api.tokens(), [""; 0], "nor is a token asked for");
}

#[tokio::test]
async fn a_token_endpoint_of_another_name_gets_no_token() {
    let (stage, _) = stage_of_endpoint(true, None, "login.example.com").await;
    stage.token(APP_POD, "").await.is_error(503);
    assert!(stage.exchanges().is_empty());
}

#[tokio::test]
async fn a_token_endpoint_of_another_authority_gets_no_token() {
    let other = TlsFront::start(&["tokens.example.com"], ([127, 0, 0, 1], 9).into()).await;
    let (stage, _) = stage_of_endpoint(true, Some(&other.ca_pem), "tokens.example.com").await;
    stage.token(APP_POD, "").await.is_error(503);
    assert!(stage.exchanges().is_empty());
}

/// The tenant: an identity's own, else the agent's; without either it is said.
#[tokio::test]
async fn an_identity_without_a_tenant_has_the_agents() {
    let without = Wanted {
        sources: &[FEDERATED],
        more: "  # tenantID is left out\n",
        ..Wanted::default()
    };
    let stage = stage().await;
    stage.workload(&without);
    let refused = stage.token_at_last(APP_POD).await;
    refused.is_error(400);
    assert!(refused.body.contains("tenantID"), "{refused:?}");
    assert!(stage.exchanges().is_empty());
    let stage = stage_with(Options {
        settings: Settings {
            tenant: Some(crate::world::TENANT.parse().unwrap()),
            ..Settings::default()
        },
        ..Options::default()
    })
    .await;
    stage.workload(&without);
    stage.token_at_last(APP_POD).await.claims();
}

/// Federation through the usual authority, for comparison.
#[tokio::test]
async fn a_federated_token_is_exchanged() {
    let stage = stage().await;
    stage.workload(&Wanted {
        client: PAYMENTS,
        sources: &[FEDERATED],
        ..Wanted::default()
    });
    let reply = stage.token_at_last(APP_POD).await;
    let claims = reply.claims();
    assert_eq!(claims["oid"], PAYMENTS.object_id);
    assert_eq!(claims["xms_mirid"], PAYMENTS.resource_id);
    assert_eq!(stage.imds_calls(), 0);
}
