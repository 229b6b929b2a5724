//! Answers that are none, rights that are missing, things that are gone: the conditions say what to do,
//! and nothing else is disturbed.

use std::time::Duration;

use lanyard::sim::faults::Effect;
use lanyard::sim::secret_id;
use lanyard::sim::world::{Role, RoleAssignment, Secret};
use serde_json::json;

use crate::Trials;
use crate::looks::{fault, said, status};
use crate::rig::{Rig, SUBSCRIPTION, identity_id, set_id, world};

pub const TRIALS: Trials = &[
    ("html_instead_of_a_scale_set", |rig| {
        unreadable(rig, Effect::Html);
    }),
    ("json_that_is_cut_off", |rig| {
        unreadable(rig, Effect::Truncate);
    }),
    ("bytes_that_are_no_json", |rig| {
        unreadable(rig, Effect::Garbage);
    }),
    ("an_expired_token_is_renewed", an_expired_token_is_renewed),
    (
        "a_token_that_azure_never_takes",
        a_token_that_azure_never_takes,
    ),
    (
        "a_credential_that_entra_refuses",
        a_credential_that_entra_refuses,
    ),
    ("a_secret_that_is_rolled", a_secret_that_is_rolled),
    (
        "no_right_to_assign_an_identity",
        no_right_to_assign_an_identity,
    ),
    ("no_right_to_the_scale_set", no_right_to_the_scale_set),
    (
        "a_resource_group_that_is_gone",
        a_resource_group_that_is_gone,
    ),
    (
        "a_scale_sets_group_that_is_gone",
        a_scale_sets_group_that_is_gone,
    ),
    (
        "an_identity_of_another_tenant",
        an_identity_of_another_tenant,
    ),
    (
        "ids_that_are_none_are_not_admitted",
        ids_that_are_none_are_not_admitted,
    ),
];

const QUICK: &[&str] = &["--debounce=100ms"];
const ROBOT: &str = "controller";

fn two(rig: &mut Rig<'_>, more: &str) {
    rig.azure(&world(&["pay", "more"], &["pool", "other"], &[], more));
    rig.pool(&["pool", "other"]);
    rig.granted("shop", "pay");
    rig.granted("shop", "more");
    for node in ["node-pool", "node-other"] {
        rig.pod("shop", &format!("web-{node}"), node, "pay");
    }
}

fn unreadable(rig: &mut Rig<'_>, effect: Effect) {
    two(rig, "");
    rig.sim()
        .add_fault(fault("GET", "virtualMachineScaleSets/pool", None, effect));
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("other"), "pay");
    rig.until("what is said of it", || {
        let (status, reason, message) = rig.synced(&set_id("pool"));
        status == "False"
            && ["UnreadableAnswer", "AzureUnavailable"].contains(&&*reason)
            && !message.is_empty()
    });
    rig.until("the identity's condition", || {
        let (status, reason, _) = rig.ready("shop", "pay");
        status == "False" && ["UnreadableAnswer", "AzureUnavailable"].contains(&&*reason)
    });
    assert_eq!(rig.patches_of("pool"), []);
    let asked = rig
        .asked()
        .into_iter()
        .filter(|entry| said(entry).name == "pool");
    assert!(asked.count() <= 4, "backoff: {:?}", rig.asked());
    rig.sim().clear_faults();
    rig.until_assigned(&set_id("pool"), "pay");
}

fn an_expired_token_is_renewed(rig: &mut Rig<'_>) {
    two(rig, "");
    rig.sim()
        .add_fault(fault("PATCH", "", Some(1), Effect::Expired));
    rig.controller("controller", QUICK);
    rig.within(Duration::from_secs(10), "both", || {
        rig.assigned(&set_id("pool"), "pay") && rig.assigned(&set_id("other"), "pay")
    });
    assert_eq!(rig.patches().len(), 3, "{:?}", rig.patches());
}

fn a_token_that_azure_never_takes(rig: &mut Rig<'_>) {
    two(rig, "");
    rig.sim()
        .add_fault(fault("GET", "", None, status(401, None)));
    rig.controller("controller", QUICK);
    rig.until("what is said of it", || {
        let (_, reason, message) = rig.synced(&set_id("pool"));
        reason == "Unauthenticated" && message.contains("--credential-dir")
    });
    assert_eq!(rig.patches(), []);
    rig.sim().clear_faults();
    rig.within(Duration::from_mins(1), "both", || {
        rig.assigned(&set_id("pool"), "pay") && rig.assigned(&set_id("other"), "pay")
    });
}

fn a_credential_that_entra_refuses(rig: &mut Rig<'_>) {
    two(rig, "");
    rig.sim()
        .revoke_secret(ROBOT, &secret_id("of-the-tests"))
        .unwrap();
    rig.controller("controller", QUICK);
    rig.until("what is said of it", || {
        let (_, reason, message) = rig.synced(&set_id("pool"));
        reason == "Unauthenticated"
            && message.contains("7000215")
            && message.contains("--credential-dir")
    });
    assert_eq!(rig.asked(), [], "without a token nothing is asked");
    let secret = Secret {
        value: "of-the-tests".to_owned(),
        expires: None,
    };
    rig.sim().add_secret(ROBOT, secret).unwrap();
    rig.within(Duration::from_mins(1), "both", || {
        rig.assigned(&set_id("pool"), "pay") && rig.assigned(&set_id("other"), "pay")
    });
}

fn a_secret_that_is_rolled(rig: &mut Rig<'_>) {
    two(rig, "");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    let secret = Secret {
        value: "the-next-one".to_owned(),
        expires: None,
    };
    rig.sim().add_secret(ROBOT, secret).unwrap();
    rig.sim()
        .revoke_secret(ROBOT, &secret_id("of-the-tests"))
        .unwrap();
    rig.file("clientSecret", b"the-next-one");
    // The token it has is over.
    rig.sim()
        .add_fault(fault("PATCH", "", Some(1), Effect::Expired));
    rig.pod("shop", "late", "node-pool", "more");
    rig.until_assigned(&set_id("pool"), "more");
    assert!(!rig.log("controller").contains("the-next-one"));
}

fn grant(principal: &str, role: Role, scope: &str) -> RoleAssignment {
    RoleAssignment {
        principal: principal.to_owned(),
        role: Some(role),
        actions: Vec::new(),
        scope: scope.to_owned(),
    }
}

fn subscription() -> String {
    format!("/subscriptions/{SUBSCRIPTION}")
}

/// Its own rights as a role of its own: everything but to assign.
fn all_but_assign() -> String {
    format!(
        "roleAssignments:\n- {{principal: {ROBOT}, role: Reader, scope: {0}}}\n- {{principal: {ROBOT}, role: Virtual Machine Contributor, scope: {0}}}\n",
        subscription()
    )
}

fn no_right_to_assign_an_identity(rig: &mut Rig<'_>) {
    two(rig, &all_but_assign());
    let may = grant(ROBOT, Role::ManagedIdentityOperator, &identity_id("more"));
    rig.sim().arm().grant(may).unwrap();
    rig.pod("shop", "late", "node-pool", "more");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "more");
    let line = format!(
        "az role assignment create --assignee-object-id c0000000-0000-4000-8000-000000000002 --assignee-principal-type ServicePrincipal --role 'Managed Identity Operator' --scope '{}'",
        identity_id("pay")
    );
    rig.until("the line to run", || {
        let (status, reason, message) = rig.ready("shop", "pay");
        status == "False" && reason == "LinkedAuthorizationFailed" && message.contains(&line)
    });
    rig.until("the same on the record", || {
        let (entry, _) = rig.entry(&set_id("pool"), "pay");
        entry["state"] == "Failed"
            && entry["message"]
                .as_str()
                .unwrap_or_default()
                .contains(&line)
    });
    rig.until("the other's condition", || {
        rig.ready("shop", "more").0 == "True"
    });
    let may = grant(ROBOT, Role::ManagedIdentityOperator, &identity_id("pay"));
    rig.sim().arm().grant(may).unwrap();
    let edit = json!({"spec": {"allowedResources": ["https://vault.azure.net"]}});
    rig.merge("azureidentities", "shop", "pay", &edit);
    rig.until_assigned(&set_id("pool"), "pay");
}

fn no_right_to_the_scale_set(rig: &mut Rig<'_>) {
    let other = set_id("other");
    let more = format!(
        "roleAssignments:\n- {{principal: {ROBOT}, role: Managed Identity Operator, scope: {}}}\n- {{principal: {ROBOT}, role: Virtual Machine Contributor, scope: {other}}}\n",
        subscription()
    );
    two(rig, &more);
    rig.controller("controller", QUICK);
    rig.until_assigned(&other, "pay");
    rig.until("the line to run", || {
        let (_, reason, message) = rig.synced(&set_id("pool"));
        reason == "Forbidden"
            && message.contains("az role assignment create")
            && message.contains("'Virtual Machine Contributor'")
            && message.contains(&set_id("pool"))
    });
    rig.until("the identity's condition", || {
        let (_, reason, message) = rig.ready("shop", "pay");
        reason == "Forbidden" && message.contains("az role assignment create")
    });
    let may = grant(ROBOT, Role::VirtualMachineContributor, &set_id("pool"));
    rig.sim().arm().grant(may).unwrap();
    rig.until_assigned(&set_id("pool"), "pay");
}

fn a_resource_group_that_is_gone(rig: &mut Rig<'_>) {
    two(rig, "");
    let elsewhere = identity_id("gone").replace("/resourceGroups/ids/", "/resourceGroups/nowhere/");
    rig.identity("shop", "gone", &json!({"resourceID": elsewhere}));
    rig.bound("shop", "gone", "gone");
    rig.pod("shop", "gone", "node-pool", "gone");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until("what is said of it", || {
        let (status, _, message) = rig.ready("shop", "gone");
        status == "False"
            && (message.contains("create it") || message.contains("does not exist"))
            && message.to_ascii_lowercase().contains("nowhere")
    });
    rig.until("the other's condition", || {
        rig.ready("shop", "pay").0 == "True"
    });
    assert!(rig.patches().len() <= 4, "{:?}", rig.patches());
}

fn a_scale_sets_group_that_is_gone(rig: &mut Rig<'_>) {
    two(rig, "");
    let lost = set_id("lost").replace("/resourceGroups/nodes/", "/resourceGroups/nowhere/");
    rig.node("lost", &format!("azure://{lost}/virtualMachines/0"));
    rig.pod("shop", "lost", "lost", "pay");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until_assigned(&set_id("other"), "pay");
    rig.until("what is said of it", || {
        let (_, reason, message) = rig.synced(&lost);
        reason == "ComputeGone" && message.contains("does not exist")
    });
    rig.until("the identity's condition", || {
        let (status, reason, message) = rig.ready("shop", "pay");
        status == "False" && reason == "ComputeGone" && message.contains("2 of 3")
    });
}

fn an_identity_of_another_tenant(rig: &mut Rig<'_>) {
    let foreign = "5d9c1e00-0000-4000-8000-0000000000ff";
    let theirs = identity_id("theirs").replace(SUBSCRIPTION, foreign);
    let more = format!(
        "arm: {{foreignSubscriptions: {{{foreign}: 72f988bf-0000-4000-8000-0000000000ff}}}}\n"
    );
    let world = world(&["pay", "more"], &["pool"], &[], &more).replacen(
        "scaleSets:\n",
        &format!("- {{name: theirs, clientID: 1f000000-0000-4000-8000-000000000001, principalID: 1f000000-0000-4000-8000-000000000002, resourceID: {theirs}}}\nscaleSets:\n"),
        1,
    );
    rig.azure(&world);
    rig.pool(&["pool"]);
    rig.make(
        &json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy",
        "metadata": {"name": "theirs"},
        "spec": {"namespaces": {}, "resourceIDPrefixes": [format!("/subscriptions/{foreign}")]}}),
    );
    rig.granted("shop", "pay");
    // What it states spares the look-up: then only the PATCH tells.
    rig.identity(
        "shop",
        "theirs",
        &json!({"resourceID": theirs,
        "clientID": "1f000000-0000-4000-8000-000000000001"}),
    );
    rig.bound("shop", "theirs", "theirs");
    rig.pod("shop", "web", "node-pool", "pay");
    rig.pod("shop", "other", "node-pool", "theirs");
    rig.controller("controller", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.until("what is said of it", || {
        let (status, _, message) = rig.ready("shop", "theirs");
        status == "False" && message.contains("tenant")
    });
    rig.until("the other's condition", || {
        rig.ready("shop", "pay").0 == "True"
    });
    assert!(rig.patches().len() <= 3, "{:?}", rig.patches());
}

fn ids_that_are_none_are_not_admitted(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay"], &["pool"], &[], ""));
    let path = "/apis/lanyard.dev/v1alpha1/namespaces/shop/azureidentities";
    for id in [
        "pay",
        "/subscriptions/x/resourceGroups/ids",
        "/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/ids/providers/Microsoft.Compute/virtualMachines/pay",
        &format!("{}/../more", identity_id("pay")),
    ] {
        let object = json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"namespace": "shop", "name": "bad"}, "spec": {"resourceID": id}});
        let refused = rig.send("POST", path, &object).unwrap_err();
        assert!(refused.contains("spec.resourceID"), "{id}: {refused}");
    }
}
