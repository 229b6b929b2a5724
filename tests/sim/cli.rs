//! `lanyard simulate` as a process: files that announce it, commands, its end.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lanyard::sim::Addresses;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{get, token_target};
use crate::world::{PAYMENTS, WORLD};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lanyard(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanyard"));
    command
        .arg("simulate")
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn start(folder: &Path) -> (Process, Addresses) {
    std::fs::write(folder.join("world.yaml"), WORLD).unwrap();
    let words = "--world world.yaml --imds-listen 127.0.0.1:0 --entra-listen off \
                 --vault-listen 127.0.0.1:0 --control control --ca-out ca.pem --ready-file ready";
    let words: Vec<&str> = words.split_whitespace().collect();
    let child = lanyard(folder, &words)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = std::fs::read(folder.join("ready")) {
            return (
                process,
                serde_json::from_slice(&text).expect("never half a file"),
            );
        }
        assert!(Instant::now() < deadline, "not ready within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn command(folder: &Path, words: &str) -> Output {
    let words: Vec<&str> = words.split_whitespace().collect();
    lanyard(folder, &words).output().unwrap()
}

#[tokio::test]
async fn a_developers_session() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut process, addresses) = start(folder);
    assert!(addresses.entra.is_none());
    assert!(
        std::fs::read_to_string(folder.join("ca.pem"))
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );

    let added = command(
        folder,
        "fault --control control imds --status 503 --retry-after 2 --count 1",
    );
    assert!(added.status.success(), "{added:?}");
    let imds = addresses.imds.unwrap();
    let target = token_target(&format!("&client_id={PAYMENTS}"));
    assert_eq!(get(imds, &target).await.status, 503);
    assert_eq!(get(imds, &target).await.status, 200);

    let journal = command(folder, "journal --control control");
    let text = String::from_utf8(journal.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("fault=status") && text.contains("identity=payments"),
        "{text}"
    );
    let stats = command(folder, "stats --control control");
    assert!(
        String::from_utf8(stats.stdout)
            .unwrap()
            .contains("\"tokensIssued\": 1")
    );
    let refused = command(folder, "assign --control control node-1 nobody");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("no identity is named `nobody`")
    );

    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(
        process.0.wait().unwrap().success(),
        "ends well when told to"
    );
    assert!(!folder.join("control").exists());
}

#[test]
fn a_bad_world_is_named_by_file_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let bad = WORLD.replace("userData: c2VjcmV0", "colour: red");
    std::fs::write(folder.path().join("world.yaml"), bad).unwrap();
    let output = command(folder.path(), "--world world.yaml");
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("world.yaml") && message.contains("colour"),
        "{message}"
    );
}
