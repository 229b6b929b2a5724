use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::agent::sightings::Kept;
use crate::agent::testkit::{pod, world};

/// The content for one pod of this name.
fn content(name: &str) -> Arc<Content> {
    let world = world([pod("a", name, "10.0.0.1", None)]);
    let kept = Kept {
        pod: crate::model::ids::ObjectName::new("a", name),
        uid: format!("uid-{name}").into(),
        ip: "10.0.0.1".parse().unwrap(),
        version: "1".into(),
        ifindex: Some(4),
        mac: None,
        port: None,
        link: Some(4),
        moved: false,
    };
    Arc::new(Content::of(&world, vec![kept]))
}

fn store(dir: &Path) -> Store {
    Store::new(dir, "node-1").unwrap()
}

fn written(store: &Store, name: &str) {
    let bytes = store
        .encode(&content(name), Duration::from_secs(5))
        .unwrap();
    store.save(&bytes).unwrap();
}

#[test]
fn a_checkpoint_is_found_again_with_its_age_and_only_by_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let store = store(&state);
    assert!(store.load().unwrap().is_none(), "nothing was kept");
    written(&store, "p");
    let (found, age) = store.load().unwrap().unwrap();
    assert_eq!(found, *content("p"));
    assert!(
        age >= Duration::from_secs(5) && age < Duration::from_mins(5),
        "{age:?}"
    );
    let file = state.join(NAME);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        fs::read_dir(&state).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn what_others_may_have_written_and_what_leads_elsewhere_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    written(&store, "p");
    let file = dir.path().join(NAME);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(
        store.load(),
        Err(LoadError::Exposed { mode: 0o604, .. })
    ));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(store.load().is_ok());
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &file).unwrap();
    assert!(matches!(store.load(), Err(LoadError::Io(_))));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(store.load().is_err());
    fs::remove_dir(&file).unwrap();
    let large = File::create(&file).unwrap();
    large
        .set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    large.set_len(1 << 40).unwrap();
    assert!(matches!(store.load(), Err(LoadError::Large(_))));
}

#[test]
fn another_node_finds_nothing_to_go_on_with() {
    let dir = tempfile::tempdir().unwrap();
    written(&store(dir.path()), "p");
    let other = Store::new(dir.path(), "node-2").unwrap().load();
    assert!(matches!(other, Err(LoadError::Refused(Refused::Node(_)))));
}

/// Waits for a condition, bounded.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

fn health() -> Arc<Health> {
    Arc::new(Health::new(&crate::agent::watch::ALWAYS))
}

#[tokio::test]
async fn the_last_of_many_changes_is_written_and_not_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (sender, receiver) = watch::channel(Arc::default());
    let keeping = tokio::spawn(store.clone().keep(receiver, health()));
    let begun = Instant::now();
    let mut changes = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        sender.send_replace(content(&format!("p{changes}")));
        changes += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sender.send_replace(content("last"));
    let found = || store.load().ok().flatten().map(|(content, _)| content);
    until("the last change", || {
        found().as_ref() == Some(&*content("last"))
    })
    .await;
    drop(sender);
    keeping.await.unwrap();
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::write(&state, "in the way").unwrap();
    let store = store(&state);
    let (sender, receiver) = watch::channel(Arc::default());
    let keeping = tokio::spawn(store.clone().keep(receiver, health()));
    sender.send_replace(content("p"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    fs::remove_file(&state).unwrap();
    sender.send_replace(content("q"));
    let found = || store.load().ok().flatten().is_some();
    until("a disk that works again", found).await;
    drop(sender);
    keeping.await.unwrap();
}
