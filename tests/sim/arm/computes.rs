//! Identities of machines and scale sets: what GET shows, what each PATCH makes of it, what IMDS then knows.

use serde_json::json;

use super::{Rig, body, identity, lone, pool};

const PAYMENTS: &str = "aaaaaaaa-0000-4000-8000-000000000001";

#[tokio::test]
async fn a_patch_assigns_and_imds_knows_on_each_machine_of_the_set() {
    let rig = Rig::start("").await;
    let before = rig.get(&pool()).await.json();
    assert!(before.get("identity").is_none(), "{before}");
    assert_eq!(before["properties"]["provisioningState"], "Succeeded");
    assert_eq!(rig.imds(PAYMENTS).await.0, 400);

    let answer = rig
        .patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = rig.get(&pool()).await.json();
    assert_eq!(shown["identity"]["type"], "UserAssigned");
    let entry = &shown["identity"]["userAssignedIdentities"][identity("payments")];
    assert_eq!(entry["clientId"], PAYMENTS);
    assert_eq!(entry["principalId"], "aaaaaaaa-0000-4000-8000-000000000002");
    assert_eq!(rig.imds(PAYMENTS).await.0, 200);
    let instance = crate::client::get(
        rig.simulator.addresses().imds.unwrap(),
        "/metadata/instance/compute?api-version=2021-02-01",
    );
    let compute = instance.await.json();
    assert_eq!(
        (&compute["name"], &compute["vmScaleSetName"]),
        (&json!("pool_0"), &json!("pool"))
    );

    let last = rig
        .simulator
        .journal()
        .into_iter()
        .rfind(|entry| entry.method == "PATCH")
        .unwrap();
    let call = last.arm.unwrap();
    assert_eq!(
        (call.kind.as_str(), call.name.as_str()),
        ("virtualMachineScaleSets", "pool")
    );
    assert_eq!(call.added, [identity("payments")]);
    assert_eq!(
        call.caller.as_deref(),
        Some("cccccccc-0000-4000-8000-000000000002")
    );
    assert_eq!(last.identity.as_deref(), Some("controller"));
}

#[tokio::test]
async fn what_is_not_named_stays_and_null_removes() {
    let rig = Rig::start("").await;
    rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    rig.patch(&pool(), &body("UserAssigned", &["reports"], &[]))
        .await;
    assert_eq!(rig.shown(&pool()).await, ["payments", "reports"]);
    rig.patch(&pool(), &body("UserAssigned", &[], &["payments"]))
        .await;
    assert_eq!(rig.shown(&pool()).await, ["reports"]);
    assert_eq!(rig.imds(PAYMENTS).await.0, 400);
    // Removed once more, it is gone as before.
    assert_eq!(
        rig.patch(&pool(), &body("UserAssigned", &[], &["payments"]))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_type_decides_what_becomes_of_the_system_assigned_one() {
    let rig = Rig::start("").await;
    let both = body("SystemAssigned, UserAssigned", &["payments"], &[]);
    rig.patch(&lone(), &both).await;
    let shown = rig.get(&lone()).await.json();
    assert_eq!(shown["identity"]["type"], "SystemAssigned, UserAssigned");
    assert_eq!(
        shown["identity"]["principalId"],
        "dddddddd-0000-4000-8000-000000000002"
    );

    rig.patch(&lone(), &body("UserAssigned", &["reports"], &[]))
        .await;
    let shown = rig.get(&lone()).await.json();
    assert_eq!(shown["identity"]["type"], "UserAssigned");
    assert!(
        shown["identity"].get("principalId").is_none(),
        "dropped: {shown}"
    );
}

#[tokio::test]
async fn removing_the_last_one_takes_another_type() {
    let rig = Rig::start("").await;
    rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    let answer = rig
        .patch(&pool(), &body("UserAssigned", &[], &["payments"]))
        .await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "MissingIdentityIds".to_owned())
    );
    let answer = rig.patch(&pool(), &body("None", &[], &["payments"])).await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "FailedIdentityOperation".to_owned())
    );
    assert_eq!(
        rig.shown(&pool()).await,
        ["payments"],
        "nothing was changed"
    );
    assert_eq!(
        rig.patch(&pool(), &body("None", &[], &[])).await.status,
        200
    );
    assert_eq!(
        rig.get(&pool()).await.json()["identity"],
        json!({"type": "None"})
    );

    let both = body("SystemAssigned, UserAssigned", &["payments"], &[]);
    rig.patch(&lone(), &both).await;
    rig.patch(&lone(), &body("SystemAssigned", &[], &[])).await;
    let shown = rig.get(&lone()).await.json();
    assert_eq!(shown["identity"]["type"], "SystemAssigned");
    assert!(shown["identity"].get("userAssignedIdentities").is_none());
}

#[tokio::test]
async fn one_bad_identity_fails_the_whole_request_and_is_named() {
    let rig = Rig::start("").await;
    let answer = rig
        .patch(
            &pool(),
            &body("UserAssigned", &["payments", "vanished"], &[]),
        )
        .await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "FailedIdentityOperation".to_owned())
    );
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    let named = format!("Resource '{}' was not found.", identity("vanished"));
    assert!(
        message.contains(&named) && message.contains("Identity operation for resource"),
        "{message}"
    );
    assert!(rig.shown(&pool()).await.is_empty());

    let nonsense =
        json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": {"payments": {}}}});
    let answer = rig.patch(&pool(), &nonsense).await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "LinkedInvalidPropertyId".to_owned())
    );
}

#[tokio::test]
async fn an_etag_that_is_over_is_refused() {
    let rig = Rig::start("").await;
    let first = rig.get(&pool()).await;
    let etag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.json()["etag"], etag.as_str());
    let condition = format!("If-Match: {etag}\r\n");
    let add = body("UserAssigned", &["payments"], &[]);
    let answer = rig
        .call_with("PATCH", &pool(), &condition, Some(&add))
        .await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("etag"), Some(etag.as_str()));
    let answer = rig
        .call_with("PATCH", &pool(), &condition, Some(&add))
        .await;
    assert_eq!(
        Rig::refusal(&answer),
        (412, "PreconditionFailed".to_owned())
    );
    let any = rig
        .call_with("PATCH", &pool(), "If-Match: *\r\n", Some(&add))
        .await;
    assert_eq!(any.status, 200);
    let call = rig.simulator.journal().pop().unwrap().arm.unwrap();
    assert_eq!(call.if_match.as_deref(), Some("*"));
}

#[tokio::test]
async fn what_is_not_there_says_which_part() {
    let rig = Rig::start("").await;
    let elsewhere = |from: &str, to: &str| pool().replace(from, to);
    for (target, code) in [
        (elsewhere("/pool", "/puddle"), "ResourceNotFound"),
        (elsewhere("MC_shop", "MC_gone"), "ResourceGroupNotFound"),
        (elsewhere("5b5b5b5b", "6c6c6c6c"), "SubscriptionNotFound"),
    ] {
        assert_eq!(
            Rig::refusal(&rig.get(&target).await),
            (404, code.to_owned()),
            "{target}"
        );
    }
    let upper = pool().to_ascii_uppercase();
    assert_eq!(
        rig.get(&upper).await.status,
        200,
        "ids are compared without letter case"
    );
    let answer = rig.call("PUT", &pool(), Some(&json!({}))).await;
    assert_eq!(answer.status, 405);
    let answer = rig.get(&format!("{}?api-version=", pool())).await;
    assert_eq!(
        Rig::refusal(&answer),
        (400, "MissingApiVersionParameter".to_owned())
    );
}

#[tokio::test]
async fn answers_may_spell_ids_in_their_own_way() {
    let rig = Rig::start("arm: {idCase: upperGroups}").await;
    let answer = rig
        .patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await
        .json();
    let ids = answer["identity"]["userAssignedIdentities"]
        .as_object()
        .unwrap();
    let id = ids.keys().next().unwrap();
    assert!(id.contains("/resourcegroups/SHOP/providers"), "{id}");
    assert!(
        answer["id"]
            .as_str()
            .unwrap()
            .contains("/resourcegroups/MC_SHOP/")
    );
}

#[tokio::test]
async fn imds_may_know_later() {
    let rig = Rig::start("imds: {assignmentDelay: 400ms}").await;
    rig.patch(&pool(), &body("UserAssigned", &["payments"], &[]))
        .await;
    let (status, text) = rig.imds(PAYMENTS).await;
    assert!(
        status == 400 && text.contains("Identity not found"),
        "{text}"
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while rig.imds(PAYMENTS).await.0 != 200 {
        assert!(std::time::Instant::now() < deadline, "never known");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
