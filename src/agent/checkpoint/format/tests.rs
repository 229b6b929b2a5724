use super::*;
use crate::agent::config::NodeMode;
use crate::agent::sightings::Sightings;
use crate::agent::testkit::{arm, binding, identity, namespace, object, pod, policy, world};
use crate::agent::world::World;

fn here() -> Here {
    Here {
        boot: "b".to_owned(),
        network: 7,
        node: "node-1".to_owned(),
    }
}

/// One of everything that decides for a pod, and one identity that does not.
fn known() -> World {
    let subjects = serde_json::json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["p"]}]},
        "namespaceSelector": {}, "serviceAccounts": ["sa-p"]}]);
    let exception = serde_json::json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureMetadataException",
        "metadata": {"name": "scheduled"}, "spec": {"namespace": "a", "serviceAccounts": ["sa-p"], "paths": ["/metadata/scheduledevents"]}});
    world([
        namespace("a", "a"),
        namespace("b", "b"),
        pod("a", "p", "10.0.0.1", Some("one,b/two")),
        identity("a", "one", 1),
        identity("b", "two", 2),
        identity("elsewhere", "three", 3),
        binding("a", "one", &subjects, true),
        binding("b", "two", &subjects, false),
        policy("a", "a", &[&arm("rg-a", "")]),
        object(exception),
    ])
}

fn checkpoint() -> Checkpoint {
    let world = known();
    let mut sightings = Sightings::default();
    for pod in world.pods() {
        for ip in &pod.ips {
            sightings.has_moved(pod, *ip, crate::agent::evidence::Sighting::default());
        }
    }
    Checkpoint {
        here: here(),
        heard: Duration::from_millis(1500),
        content: Content::of(&world, sightings.keep(|_| Some(4))),
    }
}

#[test]
fn what_is_written_is_read_and_grants_the_same() {
    use crate::agent::grants::grants;
    let written = checkpoint();
    let bytes = encode(&written).unwrap();
    let read = decode(&bytes, &here()).unwrap();
    assert_eq!(read, written);
    let (restored, _) = read.content.restore(NodeMode::Redirect);
    let before = known();
    for pod in before.pods() {
        let again = restored.pod(&pod.name).unwrap();
        assert_eq!(grants(again, &restored), grants(pod, &before));
        assert_eq!(grants(pod, &before).granted.len(), 1);
    }
    assert_eq!(restored.exceptions().count(), 1);
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        !text.contains("elsewhere"),
        "what concerns no pod here is left out"
    );
}

#[test]
fn a_pod_without_evidence_is_left_out() {
    let content = Content::of(&known(), Vec::new());
    assert_eq!(
        content.clone().restore(NodeMode::Redirect).0.pods().count(),
        0
    );
    // From inside no address is believed, so none needs evidence.
    assert_eq!(content.restore(NodeMode::InPod).0.pods().count(), 1);
}

#[test]
fn whatever_is_wrong_with_it_is_an_error_and_never_half_believed() {
    let bytes = encode(&checkpoint()).unwrap();
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut], &here()).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(decode(&damaged, &here()).is_err(), "damaged at {at}");
    }
    let other = |here: Here| decode(&bytes, &here).unwrap_err();
    let boot = Here {
        boot: "c".to_owned(),
        ..here()
    };
    assert_eq!(other(boot), Refused::Boot);
    assert_eq!(
        other(Here {
            network: 8,
            ..here()
        }),
        Refused::Network
    );
    let node = Here {
        node: "node-2".to_owned(),
        ..here()
    };
    assert_eq!(other(node), Refused::Node("node-1".to_owned()));
    let mut later = bytes;
    later[MAGIC.len() + 1] = b'2';
    assert_eq!(
        decode(&later, &here()),
        Err(Refused::Format("2".to_owned()))
    );
}

/// A file of format 1 as it was first written. If this fails, raise `FORMAT` (and take this text
/// anew): an agent that is replaced while the API server is away would not understand the file.
#[test]
fn the_format_is_what_it_was() {
    let first = include_bytes!("../format-1.txt");
    let read = decode(first, &here()).unwrap();
    assert_eq!(read.content.pods(), 1);
    assert_eq!(read, checkpoint());
}

#[test]
fn service_accounts_that_name_identities_are_kept_until_they_count_no_more() {
    use crate::agent::grants::grants;
    use crate::agent::testkit::{account_of_pod, pod_at, workload_pod, workload_policy};
    let world = world([
        namespace("a", "a"),
        workload_policy("w", "a", &[7]),
        workload_pod("a", "p", "10.0.0.1", None),
        account_of_pod("a", "p", 7),
        account_of_pod("a", "elsewhere", 8),
    ]);
    let mut sightings = Sightings::default();
    for pod in world.pods() {
        for ip in &pod.ips {
            sightings.has_moved(pod, *ip, crate::agent::evidence::Sighting::default());
        }
    }
    let mut written = checkpoint();
    written.content = Content::of(&world, sightings.keep(|_| Some(4)));
    let bytes = encode(&written).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("elsewhere"));
    let read = decode(&bytes, &here()).unwrap();
    assert_eq!(read, written);
    let pod = pod_at(&world, "10.0.0.1");
    let (restored, _) = read.content.clone().restore(NodeMode::Redirect);
    assert_eq!(grants(&pod, &world).granted.len(), 1);
    assert_eq!(grants(&pod, &restored), grants(&pod, &world));
    let mut content = read.content;
    content.forget_accounts();
    assert_eq!(
        grants(&pod, &content.restore(NodeMode::Redirect).0)
            .granted
            .len(),
        0
    );
}
