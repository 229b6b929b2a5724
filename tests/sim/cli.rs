//! `lanyard simulate` as a process: files that announce it, commands, its end.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lanyard::sim::Addresses;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{get, token_target};
use crate::signer::Signer;
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
    let words = "--world world.yaml --imds-listen 127.0.0.1:0 --entra-listen off --arm-listen 127.0.0.1:0 \
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

#[tokio::test]
async fn credentials_roll_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_process, addresses) = start(folder);
    std::fs::write(folder.join("secret"), "brand new\n").unwrap();
    std::fs::write(folder.join("robot.pem"), Signer::new().pem).unwrap();
    let run = |words: &str| {
        let output = command(folder, words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let id = run("add-secret --control control robot secret --expires 2090-01-01T00:00:00Z");
    assert_eq!(
        id,
        lanyard::sim::secret_id("brand new"),
        "without the line end"
    );
    let thumbprint = run("add-certificate --control control robot robot.pem");
    run("add-federated --control control payments shop --issuer https://i --subject s");
    run("trust-issuer --control control https://i --discovery http://127.0.0.1:1");
    let robot = run("credentials --control control robot");
    assert!(
        robot.contains(&id) && robot.contains(&thumbprint),
        "{robot}"
    );
    assert!(!robot.contains("brand new"), "{robot}");
    let payments = run("credentials --control control payments");
    assert!(
        payments.contains("api://AzureADTokenExchange"),
        "{payments}"
    );

    run("revoke-secret --control control robot --file secret");
    let again = command(
        folder,
        &format!("revoke-secret --control control robot {id}"),
    );
    assert_eq!(again.status.code(), Some(1));
    run(&format!(
        "revoke-certificate --control control robot {thumbprint}"
    ));
    run("remove-federated --control control payments shop");
    let robot = run("credentials --control control robot");
    assert!(
        !robot.contains(&id) && !robot.contains(&thumbprint),
        "{robot}"
    );

    run("clock --control control --skew=-4m");
    let target = token_target(&format!("&client_id={PAYMENTS}"));
    let answer = get(addresses.imds.unwrap(), &target).await.json();
    let begins: i64 = answer["not_before"].as_str().unwrap().parse().unwrap();
    let behind = crate::signer::now() - begins;
    assert!((240..=250).contains(&behind), "{behind}");
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

#[tokio::test]
async fn what_arm_holds_changes_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_process, addresses) = start(folder);
    assert!(addresses.arm.is_some() && addresses.arm_tls.is_none());
    let run = |words: &str| {
        let (name, rest) = words.split_once(' ').unwrap();
        let output = command(folder, &format!("{name} --control control {rest}"));
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/billing";
    assert_eq!(run(&format!("put-identity {identity}")), "billing");
    run("add-scale-set pool --instance pool_0=127.0.0.9/32 --identity billing");
    run("scale pool --instance pool_0=127.0.0.9/32 --instance pool_1");
    let resources = run("resources ");
    assert!(
        resources.contains("pool_1") && resources.contains(identity),
        "{resources}"
    );
    let before = run("recreate-identity billing");
    assert!(before.contains("principalID"), "{before}");
    run("unassign pool billing");
    run("operations pool --duration 10m");
    run("operations pool --hold");
    run("operations pool ");
    run("set-state pool updating");
    assert!(run("resources ").contains("\"Updating\""));
    run("poison billing --how late");
    run("poison billing ");
    run("delete-identity billing");
    run("add-vm lone --source 127.0.0.8/32");
    run("delete-compute lone");
    run("grant robot /subscriptions/s --role Reader");
    run("revoke robot /subscriptions/s --role Reader");
    run("grant robot /subscriptions/s --action Microsoft.Compute/*");
    run("delete-group /subscriptions/s/resourceGroups/g");
    let idle = command(folder, "release --control control pool");
    assert_eq!(idle.status.code(), Some(1));
    let message = String::from_utf8(idle.stderr).unwrap();
    assert!(message.contains("no operation runs on `pool`"), "{message}");
}
