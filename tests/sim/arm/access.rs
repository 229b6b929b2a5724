//! Who is let in, and to do what: tokens and roles, with the words that tell a person which role assignment is missing.

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};
use lanyard::sim::world::RoleAssignment;

use super::{Rig, SUB, body, identity, pool, token};
use crate::client::Answer;

const OID: &str = "cccccccc-0000-4000-8000-000000000002";

fn roles(list: &[(&str, &str)]) -> String {
    let line = |(role, scope): &(&str, &str)| {
        format!("  - {{principal: controller, role: {role}, scope: {scope}}}")
    };
    let lines: Vec<String> = list.iter().map(line).collect();
    format!("roleAssignments:\n{}\n", lines.join("\n"))
}

async fn with_header(rig: &Rig, header: &str) -> Answer {
    Answer::parse(&rig.raw("GET", &pool(), header, None).await.unwrap())
}

#[tokio::test]
async fn without_a_good_token_comes_a_challenge() {
    let rig = Rig::start("").await;
    let wrong = token(&rig.simulator, "https://vault.azure.net").await;
    let tampered = format!("{}x", rig.token);
    for (header, code) in [
        (String::new(), "AuthenticationFailed"),
        (
            "Authorization: Basic YTpi\r\n".to_owned(),
            "AuthenticationFailedInvalidHeader",
        ),
        (
            "Authorization: Bearer abc\r\n".to_owned(),
            "InvalidAuthenticationToken",
        ),
        (
            format!("Authorization: Bearer {tampered}\r\n"),
            "InvalidAuthenticationToken",
        ),
        (
            format!("Authorization: Bearer {wrong}\r\n"),
            "InvalidAuthenticationTokenAudience",
        ),
    ] {
        let answer = with_header(&rig, &header).await;
        assert_eq!(Rig::refusal(&answer), (401, code.to_owned()), "{header}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer authorization_uri="),
            "{challenge}"
        );
    }
    let journal = format!("{:?}", rig.simulator.journal());
    assert!(!journal.contains("eyJ"), "no token in the journal");
}

#[tokio::test]
async fn each_spelling_of_the_audience_is_taken() {
    let rig = Rig::start("").await;
    for audience in [
        "https://management.azure.com",
        "https://management.core.windows.net/",
        "https://management.usgovcloudapi.net",
        "https://management.chinacloudapi.cn/",
    ] {
        let token = token(&rig.simulator, audience).await;
        let header = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(with_header(&rig, &header).await.status, 200, "{audience}");
    }
}

#[tokio::test]
async fn a_token_that_ended_is_named_so() {
    let rig = Rig::start("").await;
    rig.simulator
        .add_fault(Fault::new(Target::Entra, Effect::Expired).times(1));
    let old = token(&rig.simulator, "https://management.azure.com").await;
    let answer = with_header(&rig, &format!("Authorization: Bearer {old}\r\n")).await;
    assert_eq!(
        Rig::refusal(&answer),
        (401, "ExpiredAuthenticationToken".to_owned())
    );
    rig.simulator.roll_keys().unwrap();
    rig.simulator.drop_old_keys();
    assert_eq!(
        Rig::refusal(&rig.get(&pool()).await).1,
        "InvalidAuthenticationToken"
    );
}

#[tokio::test]
async fn an_identity_of_the_node_may_ask_too() {
    let rig = Rig::start("").await;
    rig.simulator.assign("pool", &["payments"]).unwrap();
    let target = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/";
    let imds = rig.simulator.addresses().imds.unwrap();
    let token = crate::client::get(imds, target).await.json()["access_token"].clone();
    let header = format!("Authorization: Bearer {}\r\n", token.as_str().unwrap());
    assert_eq!(with_header(&rig, &header).await.status, 200);
    let last = rig.simulator.journal().pop().unwrap();
    assert_eq!(last.identity.as_deref(), Some("payments"));
}

#[tokio::test]
async fn a_right_that_lacks_is_named_with_its_scope() {
    let group = format!("{SUB}/resourceGroups/MC_shop");
    let rig = Rig::start(&roles(&[("Reader", &group)])).await;
    assert_eq!(rig.get(&pool()).await.status, 200);
    let answer = rig
        .patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(
        Rig::refusal(&answer),
        (403, "AuthorizationFailed".to_owned())
    );
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        OID,
        "'Microsoft.Compute/virtualMachineScaleSets/write'",
        &format!("'{}'", pool()),
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // Existence is told only to those who may read.
    let answer = rig.get(&identity("nothing")).await;
    assert_eq!(
        Rig::refusal(&answer),
        (403, "AuthorizationFailed".to_owned())
    );
}

#[tokio::test]
async fn assigning_takes_the_right_on_each_identity() {
    let group = format!("{SUB}/resourceGroups/MC_shop");
    let rig = Rig::start(&roles(&[
        ("Virtual Machine Contributor", &group),
        ("Managed Identity Operator", &identity("payments")),
    ]))
    .await;
    let both = body("UserAssigned", &["payments", "reports"], &[]);
    let answer = rig.patch(&pool(), &both).await;
    assert_eq!(
        Rig::refusal(&answer),
        (403, "LinkedAuthorizationFailed".to_owned())
    );
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        OID,
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
        &format!("linked scope(s) '{}'", identity("reports")),
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(rig.shown(&pool()).await.is_empty());

    let grant = RoleAssignment {
        principal: "controller".to_owned(),
        role: Some(lanyard::sim::world::Role::ManagedIdentityOperator),
        actions: vec![],
        scope: format!("{SUB}/resourceGroups/shop"),
    };
    rig.simulator.arm().grant(grant.clone()).unwrap();
    assert_eq!(rig.patch(&pool(), &both).await.status, 200);
    rig.simulator.arm().revoke(&grant).unwrap();
    // Taking off needs no right on the identity.
    let off = body("UserAssigned", &[], &["reports"]);
    assert_eq!(rig.patch(&pool(), &off).await.status, 200);
    let again = body("UserAssigned", &["reports"], &[]);
    assert_eq!(rig.patch(&pool(), &again).await.status, 403);
}

#[tokio::test]
async fn a_world_with_an_empty_list_lets_nobody_do_anything() {
    let rig = Rig::start("roleAssignments: []").await;
    assert_eq!(rig.get(&pool()).await.status, 403);
}

#[tokio::test]
async fn another_tenants_subscription_is_closed() {
    let rig = Rig::start(
        "arm: {foreignSubscriptions: {6c6c6c6c-0000-4000-8000-000000000001: 99999999-0000-4000-8000-000000000001}}",
    )
    .await;
    let foreign = identity("theirs").replace("5b5b5b5b", "6c6c6c6c");
    let answer = rig.get(&foreign).await;
    assert_eq!(
        Rig::refusal(&answer),
        (401, "InvalidAuthenticationTokenTenant".to_owned())
    );
    let add = serde_json::json!({"identity": {
        "type": "UserAssigned",
        "userAssignedIdentities": {foreign: {}},
    }});
    let answer = rig.patch(&pool(), &add).await;
    assert_eq!(
        Rig::refusal(&answer),
        (403, "LinkedAuthorizationFailed".to_owned())
    );
    assert!(
        answer
            .text()
            .contains("not authorized to access linked subscription")
    );
}
