use super::*;

pub(super) fn dir() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(&dir.path().join("state"));
    (dir, state)
}

#[tokio::test]
async fn epochs_only_rise() {
    let (_dir, state) = dir();
    let lock = state.lock().await.unwrap();
    assert_eq!(state.next_epoch(&lock, None).unwrap(), 1);
    assert_eq!(state.next_epoch(&lock, None).unwrap(), 2);
    assert_eq!(
        state.next_epoch(&lock, Some(40)).unwrap(),
        41,
        "the rules in force know better"
    );
}

#[tokio::test]
async fn damaged_files_count_as_absent() {
    let (_dir, state) = dir();
    let lock = state.lock().await.unwrap();
    for damage in [
        "",
        "seven",
        "-1",
        "99999999999999999999999",
        "18446744073709551615",
        "\u{0}",
    ] {
        fs::write(state.path.join("epoch"), damage).unwrap();
        assert_eq!(state.next_epoch(&lock, Some(3)).unwrap(), 4, "{damage:?}");
    }
    fs::write(state.path.join("epoch"), [0xff, 0xfe]).unwrap();
    for name in [
        "instance-.lock",
        "instance-x.lock",
        "instance-18446744073709551615.lock",
    ] {
        fs::write(state.path.join(name), "").unwrap();
    }
    fs::create_dir(state.path.join("instance-9.lock")).unwrap();
    assert_eq!(state.successor(0), None);
    assert_eq!(state.next_epoch(&lock, None).unwrap(), 10);
}

#[tokio::test]
async fn the_highest_living_instance_is_the_successor_and_a_dead_one_is_none() {
    let (_dir, state) = dir();
    let lock = state.lock().await.unwrap();
    let old = state.claim(&lock, 1, true).unwrap();
    let new = state.claim(&lock, 2, false).unwrap();
    let newest = state.claim(&lock, 3, true).unwrap();
    assert_eq!(state.successor(old.epoch), Some(3));
    assert!(state.enters_pods(3));
    drop(newest);
    assert_eq!(state.successor(old.epoch), Some(2));
    assert!(!state.enters_pods(2));
    drop(new);
    assert_eq!(state.successor(old.epoch), None);
    assert_eq!(state.living(), [1]);
}

#[tokio::test]
async fn a_claim_whose_file_was_deleted_is_renewed() {
    let (_dir, state) = dir();
    let mut claim = state.claim(&state.lock().await.unwrap(), 5, false).unwrap();
    fs::remove_dir_all(&state.path).unwrap();
    assert_eq!(state.successor(1), None);
    state.renew(&mut claim).unwrap();
    assert_eq!(state.successor(1), Some(5));
    assert!(!state.enters_pods(5));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_stays_held_is_an_error_and_not_a_hang() {
    let (_dir, state) = dir();
    let _held = state.lock().await.unwrap();
    assert!(matches!(
        state.lock().await,
        Err(InterceptError::Locked { .. })
    ));
}

#[tokio::test]
async fn clearing_leaves_the_living_and_takes_the_rest() {
    let (_dir, state) = dir();
    let lock = state.lock().await.unwrap();
    let claim = state.claim(&lock, 2, false).unwrap();
    fs::write(state.path.join("instance-1.lock"), "").unwrap();
    state.set_removed(&lock).unwrap();
    assert_eq!(state.clear(lock), ["instance-1.lock"]);
    assert!(state.is_removed(), "the living one must still read it");
    drop(claim);
    state.clear(state.lock().await.unwrap());
    assert!(!state.exists(), "nothing is left");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let state = StateDir::new(&dir.path().join("file"));
    let error = state.lock().await.unwrap_err().to_string();
    assert!(
        error.contains("state directory") && error.contains("file"),
        "{error}"
    );
}

/// A lock that anybody may take is a way to keep every agent from its rules.
#[tokio::test]
async fn nobody_but_the_owner_may_open_what_is_locked() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, state) = dir();
    let lock = state.lock().await.unwrap();
    let epoch = state.next_epoch(&lock, None).unwrap();
    let _claim = state.claim(&lock, epoch, true).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&state.path), 0);
    for name in ["rules.lock", "epoch", &instance(epoch)] {
        assert_eq!(mode(&state.path.join(name)), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_and_links_in_the_directory_neither_stop_us_nor_lead_elsewhere() {
    use std::os::unix::fs::symlink;
    let (dir, state) = dir();
    let lock = state.lock().await.unwrap();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&state.path.join("instance-9.lock"), mode).unwrap();
    nix::unistd::mkfifo(&state.path.join("epoch"), mode).unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "41").unwrap();
    let asked = {
        let state = state.clone();
        tokio::task::spawn_blocking(move || {
            let epoch = state.next_epoch(&lock, None).unwrap();
            (state.successor(0), epoch, lock)
        })
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await;
    let (successor, epoch, lock) = answer.expect("an answer, pipes or not").unwrap();
    assert_eq!((successor, epoch), (None, 10));
    for name in ["epoch", "rules.lock", "instance-11.lock"] {
        let _ = fs::remove_file(state.path.join(name));
        symlink(&victim, state.path.join(name)).unwrap();
    }
    assert!(state.lock().await.is_err(), "a link is not our lock");
    assert_eq!(state.successor(0), None);
    assert_eq!(state.next_epoch(&lock, None).unwrap(), 12, "41 is not ours");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "41");
}
