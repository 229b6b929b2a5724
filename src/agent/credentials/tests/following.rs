//! Secrets from an API server, which is a fake one here, and from a folder.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;
use crate::agent::watch::Timing;
use crate::agent::watch::fake::{Fake, Mood};

const SECRETS: &str = "secrets";
const PATIENCE: Duration = Duration::from_secs(30);

fn quick() -> Timing {
    let millis = Duration::from_millis;
    Timing {
        call: millis(500),
        silence: Duration::from_mins(1),
        first_pause: millis(5),
        longest_pause: millis(50),
        ..Timing::default()
    }
}

fn named(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "shop", "name": name},
        "data": {"clientSecret": STANDARD.encode(text)}})
}

/// A store that follows a fake API server, with one identity.
async fn following(before: impl FnOnce(&Fake)) -> (Scene, Fake) {
    let (scene, fake) = (scene(year(2026)), Fake::start().await);
    before(&fake);
    let follow = super::super::follow::follow(scene.credentials.clone(), fake.cluster(), quick());
    tokio::spawn(follow);
    scene.need(&[&by_secret()]);
    (scene, fake)
}

/// Waits until the best candidate is this one; `None`: until there is none.
async fn until(scene: &Scene, wanted: Option<&str>) {
    let mut read = scene.credentials.shared.read.subscribe();
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            let ring = scene.ring(&by_secret());
            let is = match (&ring, wanted) {
                (Ok(ring), Some(text)) => ring.candidates(year(2026))[0].is_same(&secret(text)),
                (Err(unusable), None) => unusable.problem != Problem::NotRead,
                _ => false,
            };
            if is {
                return;
            }
            read.changed().await.unwrap();
        }
    });
    ended
        .await
        .unwrap_or_else(|_| panic!("not {wanted:?}: {:?}", scene.ring(&by_secret())));
}

/// Waits until the fake was asked.
async fn asked(fake: &Fake, part: &str, times: usize) {
    let ended = tokio::time::timeout(PATIENCE, async {
        while fake.asked(part) < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    ended
        .await
        .unwrap_or_else(|_| panic!("not asked {times} times for {part}"));
}

const GET: &str = "/api/v1/namespaces/shop/secrets/creds?";
const WATCH: &str =
    "/api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Dcreds&watch=true";

#[tokio::test]
async fn secrets_are_understood_off_the_event_loop() {
    // A PKCS#12 store may take seconds to open.
    let (scene, fake) = following(|_| ()).await;
    let threads = Arc::new(RwLock::new(Vec::new()));
    let seen = threads.clone();
    let hook = move |_: &IdentityFacts| seen.write().push(std::thread::current().id());
    scene.credentials.on_new(hook);
    fake.put(SECRETS, named("creds", "one"));
    until(&scene, Some("one")).await;
    let own = std::thread::current().id();
    assert!(threads.read().iter().all(|thread| *thread != own));
    assert!(!threads.read().is_empty());
}

#[tokio::test]
async fn one_secret_is_read_and_watched_by_its_name_and_nothing_is_listed() {
    let (scene, fake) = following(|fake| {
        fake.put_silently(SECRETS, named("creds", "one"));
        fake.put_silently(SECRETS, named("stranger", "x"));
    })
    .await;
    until(&scene, Some("one")).await;
    asked(&fake, WATCH, 1).await;
    fake.put(SECRETS, named("stranger", "y"));
    fake.put(SECRETS, named("creds", "two"));
    until(&scene, Some("two")).await;
    assert_eq!(fake.asked(GET), 1, "the change came by the watch");
    assert_eq!(fake.asked("stranger"), 0);
    assert_eq!(fake.asked("limit="), 0, "no list");
}

#[tokio::test]
async fn a_secret_that_comes_later_is_seen_when_it_comes_and_one_that_goes_when_it_goes() {
    let (scene, fake) = following(|_| {}).await;
    until(&scene, None).await;
    assert_eq!(
        scene.ring(&by_secret()).unwrap_err().problem,
        Problem::Missing
    );
    fake.put(SECRETS, named("creds", "one"));
    until(&scene, Some("one")).await;
    asked(&fake, WATCH, 1).await;
    fake.delete(SECRETS, "creds");
    until(&scene, None).await;
    fake.put(SECRETS, named("creds", "two"));
    until(&scene, Some("two")).await;
}

#[tokio::test]
async fn what_changed_while_a_watch_had_ended_or_was_forgotten_is_found() {
    let (scene, fake) = following(|fake| {
        fake.put_silently(SECRETS, named("creds", "one"));
    })
    .await;
    until(&scene, Some("one")).await;
    asked(&fake, WATCH, 1).await;
    fake.end_watches();
    asked(&fake, WATCH, 2).await;
    fake.put(SECRETS, named("creds", "two"));
    until(&scene, Some("two")).await;
    fake.put_silently(SECRETS, named("creds", "three"));
    fake.tell(
        SECRETS,
        "ERROR",
        &json!({"kind": "Status", "code": 410, "message": "too old"}),
    );
    until(&scene, Some("three")).await;
}

#[tokio::test]
async fn who_may_not_read_is_told_so_and_who_has_read_keeps_it_while_the_server_is_away() {
    let (scene, _fake) = following(|fake| {
        fake.put_silently(SECRETS, named("creds", "one"));
        fake.lists(SECRETS, Mood::Refuses(403));
    })
    .await;
    until(&scene, None).await;
    assert_eq!(
        scene.ring(&by_secret()).unwrap_err().problem,
        Problem::Forbidden
    );

    let (scene, fake) = following(|fake| {
        fake.put_silently(SECRETS, named("creds", "one"));
        fake.lists(SECRETS, Mood::Refuses(500));
    })
    .await;
    until(&scene, None).await;
    assert!(scene.ring(&by_secret()).unwrap_err().may_retry());
    fake.lists(SECRETS, Mood::Works);
    until(&scene, Some("one")).await;
    asked(&fake, WATCH, 1).await;
    fake.lists(SECRETS, Mood::Refuses(500));
    fake.watches(SECRETS, Mood::Refuses(500));
    fake.end_watches();
    let before = fake.asked(GET);
    asked(&fake, GET, before + 3).await;
    assert!(scene.ring(&by_secret()).is_ok());
    fake.put_silently(SECRETS, named("creds", "two"));
    fake.lists(SECRETS, Mood::Works);
    fake.watches(SECRETS, Mood::Works);
    until(&scene, Some("two")).await;
}

#[tokio::test]
async fn what_no_pod_needs_any_more_is_not_followed_and_comes_back_when_it_does() {
    let (scene, fake) = following(|fake| {
        fake.put_silently(SECRETS, named("creds", "one"));
    })
    .await;
    until(&scene, Some("one")).await;
    asked(&fake, WATCH, 1).await;
    scene.need(&[]);
    fake.put(SECRETS, named("creds", "two"));
    scene.need(&[&by_secret()]);
    until(&scene, Some("two")).await;
    assert_eq!(fake.asked(GET), 2);
}

#[tokio::test]
async fn a_folders_secret_is_followed_like_one_of_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.yaml");
    let write = |text: &str| {
        let other = named("stranger", "x");
        std::fs::write(&file, format!("{}\n---\n{other}\n", named("creds", text))).unwrap();
    };
    write("one");
    let scene = scene(year(2026));
    let path = folder.path().to_owned();
    tokio::spawn(super::super::folder::follow(
        path,
        scene.credentials.clone(),
    ));
    scene.need(&[&by_secret()]);
    until(&scene, Some("one")).await;
    write("two");
    until(&scene, Some("two")).await;
    std::fs::remove_file(&file).unwrap();
    until(&scene, None).await;
    assert_eq!(
        scene.ring(&by_secret()).unwrap_err().problem,
        Problem::Missing
    );
}
