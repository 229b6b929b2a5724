//! Two controllers: one writes, the other waits; whoever may have lost the lease writes nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Trials;
use crate::looks::{fault, said, status};
use crate::rig::{Rig, set_id, world};

pub const TRIALS: Trials = &[
    ("a_killed_leader_is_followed", a_killed_leader_is_followed),
    (
        "a_leader_that_is_told_to_go_gives_its_lease_back",
        a_leader_that_is_told_to_go_gives_its_lease_back,
    ),
    (
        "a_leader_that_is_cut_off_writes_nothing",
        a_leader_that_is_cut_off_writes_nothing,
    ),
];

const HOLDS: &str = "this controller holds the lease";
const QUICK: &[&str] = &["--debounce=100ms"];
/// Who the second controller is to Azure.
const SECOND: &str = "c0000000-0000-4000-8000-00000000000a";
const SECOND_OBJECT: &str = "c0000000-0000-4000-8000-00000000000b";

fn begin(rig: &mut Rig<'_>) {
    rig.azure(&world(&["pay", "more"], &["pool"], &[], ""));
    rig.pool(&["pool"]);
    rig.granted("shop", "pay");
    rig.granted("shop", "more");
    rig.pod("shop", "web", "node-pool", "pay");
    rig.controller("first", QUICK);
    rig.until_assigned(&set_id("pool"), "pay");
    rig.controller("second", QUICK);
    rig.until("the second one's look", || {
        rig.log("second").contains("metrics and health")
    });
    rig.forget();
}

fn a_killed_leader_is_followed(rig: &mut Rig<'_>) {
    begin(rig);
    assert!(!rig.log("second").contains(HOLDS));
    rig.kill("first");
    let killed = Instant::now();
    rig.pod("shop", "late", "node-pool", "more");
    rig.until_assigned(&set_id("pool"), "more");
    assert!(
        killed.elapsed() < Duration::from_secs(20),
        "{:?}",
        killed.elapsed()
    );
    assert!(rig.log("second").contains(HOLDS));
    assert_eq!(rig.patches().len(), 1, "{:?}", rig.patches());
}

fn a_leader_that_is_told_to_go_gives_its_lease_back(rig: &mut Rig<'_>) {
    begin(rig);
    rig.signal("first", Signal::SIGTERM);
    let told = Instant::now();
    assert!(rig.ended("first", Duration::from_secs(10)));
    rig.within(Duration::from_secs(8), "the second one", || {
        rig.log("second").contains(HOLDS)
    });
    assert!(
        told.elapsed() < Duration::from_secs(10),
        "{:?}",
        told.elapsed()
    );
    rig.pod("shop", "late", "node-pool", "more");
    rig.until_assigned(&set_id("pool"), "more");
    assert_eq!(rig.patches().len(), 1, "{:?}", rig.patches());
}

/// A way to the API server that can be closed: bytes wait, connections are taken and lead nowhere.
struct Way {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Way {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let shared = closed.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let shared = shared.clone();
                std::thread::spawn(move || {
                    pause(&shared);
                    let Ok(far) = TcpStream::connect("127.0.0.1:6443") else {
                        return;
                    };
                    let there = (near.try_clone().unwrap(), far.try_clone().unwrap());
                    let other = shared.clone();
                    std::thread::spawn(move || carry(there.0, there.1, &other));
                    carry(far, near, &shared);
                });
            }
        });
        Self { address, closed }
    }

    fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
    }
}

fn pause(closed: &AtomicBool) {
    while closed.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, closed: &AtomicBool) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes) {
        pause(closed);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A command line with another way to the API server, or another name to Azure.
fn told(rig: &Rig<'_>, more: &[&str], way: Option<&Way>, client: Option<&str>) -> Vec<String> {
    let mut args = rig.controller_args(more);
    for arg in &mut args {
        if let (Some(way), Some(path)) = (way, arg.strip_prefix("--kubeconfig=")) {
            let text = std::fs::read_to_string(path).unwrap();
            let text = text.replace(
                "https://127.0.0.1:6443",
                &format!("https://{}", way.address),
            );
            let path = rig.file("by-the-way.kubeconfig", text.as_bytes());
            *arg = format!("--kubeconfig={}", path.display());
        } else if let (Some(client), true) = (client, arg.starts_with("--client-id=")) {
            *arg = format!("--client-id={client}");
        }
    }
    args
}

/// Who holds the lease, and when that was renewed.
fn lease(rig: &Rig<'_>) -> (String, Option<Timestamp>) {
    let path = "/apis/coordination.k8s.io/v1/namespaces/lanyard-system/leases/lanyard-controller";
    let spec = rig.send("GET", path, &Value::Null).unwrap_or_default()["spec"].clone();
    let renewed = spec["renewTime"]
        .as_str()
        .and_then(|time| time.parse().ok());
    (
        spec["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        renewed,
    )
}

fn a_leader_that_is_cut_off_writes_nothing(rig: &mut Rig<'_>) {
    let sets = ["p0", "p1", "p2", "p3", "p4", "p5"];
    let second = format!(
        "- {{name: second, clientID: {SECOND}, principalID: {SECOND_OBJECT}, secrets: [{{value: of-the-tests}}]}}\nidentities:\n"
    );
    let world = world(&["pay"], &sets, &[], "").replacen("identities:\n", &second, 1);
    rig.azure(&world);
    rig.pool(&sets);
    rig.granted("shop", "pay");
    for set in &sets {
        rig.pod("shop", &format!("web-{set}"), &format!("node-{set}"), "pay");
    }
    // It has something to do all the time: each change is refused for two seconds.
    rig.sim().add_fault(fault(
        "PATCH",
        "virtualMachineScaleSets",
        None,
        status(429, Some(2)),
    ));
    let way = Way::open();
    let first = told(rig, QUICK, Some(&way), None);
    rig.start("first", &first);
    let by_second =
        |entry: &lanyard::sim::Entry| said(entry).caller.as_deref() == Some(SECOND_OBJECT);
    rig.until("its tries", || rig.patches().len() >= sets.len());
    let (holder, _) = lease(rig);
    let second = told(rig, QUICK, None, Some(SECOND));
    rig.start("second", &second);
    rig.until("the second one's look", || {
        rig.log("second").contains("metrics and health")
    });
    way.close(true);
    let (still, renewed) = lease(rig);
    assert_eq!(still, holder);
    let end = renewed.unwrap() + SignedDuration::from_secs(15);
    // What was on its way to the server when the way was closed may have renewed it once more.
    let mut last = end;
    rig.within(Duration::from_secs(40), "the second one", || {
        let (now, renewed) = lease(rig);
        if now == holder {
            last = last.max(renewed.unwrap() + SignedDuration::from_secs(15));
        }
        rig.patches().iter().any(by_second)
    });
    let patches = rig.patches();
    let (_, of_first): (Vec<_>, Vec<_>) = patches.iter().partition(|entry| by_second(entry));
    let closed = end - SignedDuration::from_secs(15);
    assert!(
        of_first.iter().any(|entry| entry.time > closed),
        "it tries while it may"
    );
    assert!(
        of_first.iter().all(|entry| entry.time < last),
        "{last}: {of_first:?}"
    );
    let begun = patches.iter().find(|entry| by_second(entry)).unwrap().time;
    assert!(
        of_first.iter().all(|entry| entry.time < begun),
        "{begun}: {of_first:?}"
    );
    rig.sim().clear_faults();
    for set in &sets {
        rig.until_assigned(&set_id(set), "pay");
    }
    // The way is there again: it is a candidate, and asks for nothing.
    way.close(false);
    rig.forget();
    rig.until("its candidacy", || {
        rig.log("first")
            .contains("does not hold the lease any more")
    });
    rig.never(Duration::from_secs(4), "a PATCH of the first", || {
        rig.patches().iter().any(|entry| !by_second(entry))
    });
    rig.kill("second");
    rig.within(Duration::from_secs(30), "its second term", || {
        lease(rig).0 == holder
    });
}
