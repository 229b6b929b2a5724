//! Service accounts: followed only where they count, and little of them kept.

use super::*;

const ACCOUNTS: &str = "serviceaccounts";

/// As a watch of metadata shows one.
fn account(name: &str, client: Option<&str>) -> Value {
    let annotations = client.map(|client| json!({"azure.workload.identity/client-id": client}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"namespace": "a", "name": name, "uid": format!("uid-{name}"), "annotations": annotations}})
}

fn knows(scene: &Scene, name: &str) -> bool {
    scene.world.account(&ObjectName::new("a", name)).is_some()
}

const CLIENT: &str = "11111111-1111-4111-8111-111111111111";

#[tokio::test]
async fn where_they_do_not_count_nobody_asks_for_them() {
    let mut scene = scene(quick(), |fake| {
        fake.put_silently(ACCOUNTS, account("app", Some(CLIENT)));
    })
    .await;
    scene.until_complete().await;
    assert_eq!(scene.fake.asked(ACCOUNTS), 0);
    assert!(!knows(&scene, "app"));
}

#[tokio::test]
async fn they_come_change_break_and_go() {
    let mut scene = scene_of((Assignments::Ignored, true), quick(), |fake| {
        fake.put_silently(ACCOUNTS, account("app", Some(CLIENT)));
        fake.put_silently(ACCOUNTS, account("default", None));
        fake.put_silently(ACCOUNTS, account("broken", Some("payments")));
    })
    .await;
    scene.until_complete().await;
    assert!(knows(&scene, "app") && !knows(&scene, "default") && !knows(&scene, "broken"));
    let malformed = "lanyard_objects_malformed{kind=\"serviceaccounts\"} ";
    assert!(scene.shows(&format!("{malformed}1")));
    scene.fake.put(ACCOUNTS, account("broken", Some(CLIENT)));
    scene
        .until("it to be mended", |scene| knows(scene, "broken"))
        .await;
    assert!(scene.shows(&format!("{malformed}0")));
    scene.fake.put(ACCOUNTS, account("app", None));
    scene
        .until("the annotation to go", |scene| !knows(scene, "app"))
        .await;
    scene.fake.put(ACCOUNTS, account("app", Some(CLIENT)));
    scene
        .until("it to be back", |scene| knows(scene, "app"))
        .await;
    scene.fake.delete(ACCOUNTS, "app");
    scene
        .until("the account to go", |scene| !knows(scene, "app"))
        .await;
}

#[tokio::test]
async fn nothing_is_complete_before_they_were_listed_and_their_role_is_named() {
    let mut scene = scene_of((Assignments::Ignored, true), quick(), |fake| {
        fake.lists(ACCOUNTS, Mood::Refuses(403));
    })
    .await;
    scene
        .until("the missing right", |scene| {
            scene
                .pending()
                .contains("may not list and watch serviceaccounts")
        })
        .await;
    assert!(!scene.complete);
    scene.fake.lists(ACCOUNTS, Mood::Works);
    scene.until_complete().await;
}
