//! The control socket, by its Rust client.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lanyard::sim::control::{Client, ControlError};
use lanyard::sim::faults::{Effect, Fault, Target};
use lanyard::sim::{Listen, Simulator, World};

use crate::client::{get, token_target};
use crate::world::{REPORTS, WORLD};

struct Running {
    simulator: Simulator,
    client: Client,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

async fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listen = Listen {
        control: Some(path.clone()),
        ..Listen::loopback()
    };
    let simulator = Simulator::start(World::from_yaml(WORLD).unwrap(), listen)
        .await
        .unwrap();
    Running {
        simulator,
        client: Client::new(&path),
        path,
        _folder: folder,
    }
}

#[tokio::test]
async fn every_command_does_what_it_says() {
    let running = start().await;
    let (simulator, client) = (&running.simulator, &running.client);
    client.healthz().await.unwrap();
    assert_eq!(&client.addresses().await.unwrap(), simulator.addresses());
    let imds = simulator.addresses().imds.unwrap();

    let fault = Fault::new(Target::Imds, Effect::Garbage).times(3).after(1);
    client.add_fault(&fault).await.unwrap();
    assert_eq!(client.faults().await.unwrap(), [fault]);
    client.clear_faults().await.unwrap();
    assert!(client.faults().await.unwrap().is_empty());

    client.assign("node-1", &["reports"]).await.unwrap();
    assert_eq!(
        get(imds, &token_target("")).await.json()["client_id"],
        REPORTS
    );

    let journal = client.journal(0).await.unwrap();
    assert_eq!(journal, simulator.journal());
    assert_eq!((journal.len(), journal[0].status), (1, Some(200)));
    assert!(client.journal(1).await.unwrap().is_empty());
    client.clear_journal().await.unwrap();
    assert!(client.journal(0).await.unwrap().is_empty());

    let kid = client.roll_keys().await.unwrap();
    let keys = get(
        simulator.addresses().entra.unwrap(),
        "/common/discovery/keys",
    )
    .await
    .json();
    assert_eq!(keys["keys"][0]["kid"], kid);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    client.drop_old_keys().await.unwrap();
    let keys = get(
        simulator.addresses().entra.unwrap(),
        "/common/discovery/keys",
    )
    .await
    .json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);

    assert_eq!(client.stats().await.unwrap(), simulator.stats());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let running = start().await;
    let client = &running.client;
    let error = client.assign("node-1", &["nobody"]).await.unwrap_err();
    assert!(
        matches!(error, ControlError::Refused { status: 404, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("nobody"));
    let effectless = Fault {
        effect: None,
        ..Fault::new(Target::Imds, Effect::Silence)
    };
    let error = client.add_fault(&effectless).await.unwrap_err();
    assert!(error.to_string().contains("no effect"), "{error}");
}

#[tokio::test]
async fn the_socket_is_its_owners_and_goes_with_the_simulator() {
    let Running {
        simulator,
        client,
        path,
        _folder,
    } = start().await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listen = Listen {
        control: Some(path.clone()),
        ..Listen::default()
    };
    let second = Simulator::start(World::from_yaml(WORLD).unwrap(), listen.clone()).await;
    assert!(
        second.is_err(),
        "a living simulator's socket is not taken away"
    );
    simulator.shutdown().await;
    assert!(!path.exists());
    let error = client.stats().await.unwrap_err();
    assert!(error.to_string().contains("lanyard simulate"), "{error}");
    // A dead socket, as a killed simulator leaves it, is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let third = Simulator::start(World::from_yaml(WORLD).unwrap(), listen)
        .await
        .unwrap();
    client.healthz().await.unwrap();
    third.shutdown().await;
}
