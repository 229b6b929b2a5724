//! What trials look at and what goes wrong in them, in a few words.
//!
//! In: names of scale sets, machines and identities. Out: what Azure has, what the objects say, faults that
//! strike. Blocks on the API server only.

use std::time::Duration;

use lanyard::sim::arm::ShownCompute;
use lanyard::sim::faults::{Effect, Fault, Matching, Target};
use lanyard::sim::{ArmCall, Entry};
use serde_json::{Value, json};

use crate::rig::{Rig, identity_id};

/// A condition: status, reason, message.
pub type Said = (String, String, String);

/// A fault at ARM for requests with that method and that in their path; `count` times, or without end.
pub fn fault(method: &str, part: &str, count: Option<u64>, effect: Effect) -> Fault {
    Fault {
        target: Target::Arm,
        matching: Matching {
            method: Some(method.to_owned()),
            path_part: Some(part.to_owned()),
            ..Matching::default()
        },
        after: 0,
        count,
        latency: None,
        effect: Some(effect),
        applied: false,
    }
}

/// An answer of that status, in Azure's words.
pub const fn status(code: u16, retry_after: Option<u32>) -> Effect {
    Effect::Status {
        code,
        retry_after,
        body: None,
    }
}

/// What a PATCH said.
pub fn said(entry: &Entry) -> ArmCall {
    entry.arm.clone().unwrap_or_default()
}

impl Rig<'_> {
    /// A machine or scale set as Azure has it.
    pub fn shown(&self, name: &str) -> ShownCompute {
        let all = self.sim().arm().resources().computes;
        let found = all.into_iter().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("no {name} in Azure"))
    }

    /// Whether Azure has the identity there.
    pub fn has(&self, compute: &str, identity: &str) -> bool {
        let ids = self.shown(compute).identities;
        ids.keys()
            .any(|id| id.eq_ignore_ascii_case(&identity_id(identity)))
    }

    /// Whether the record says that the identity is Assigned there, by the ARM id of the resource.
    pub fn assigned(&self, compute: &str, identity: &str) -> bool {
        self.state(compute, identity) == "Assigned"
    }

    /// Waits for that.
    pub fn until_assigned(&self, compute: &str, identity: &str) {
        let what = format!("{identity} on {compute}");
        self.until(&what, || self.assigned(compute, identity));
    }

    /// The entry of an identity in a record: status and spec.
    pub fn entry(&self, compute: &str, identity: &str) -> (Value, Value) {
        let assignment = self.assignment(compute).unwrap_or_default();
        let of = |part: &str| {
            let all = assignment[part]["identities"].as_array().cloned();
            let same = |entry: &Value| {
                let id = entry["resourceID"].as_str().unwrap_or_default();
                id.eq_ignore_ascii_case(&identity_id(identity))
            };
            all.unwrap_or_default()
                .into_iter()
                .find(same)
                .unwrap_or_default()
        };
        (of("status"), of("spec"))
    }

    /// What the record of a compute resource says of itself.
    pub fn synced(&self, compute: &str) -> Said {
        Rig::condition(&self.assignment(compute).unwrap_or_default(), "Synced")
    }

    /// What an identity says of itself.
    pub fn ready(&self, namespace: &str, name: &str) -> Said {
        Rig::condition(&self.object("azureidentities", namespace, name), "Ready")
    }

    /// The changes of a machine or scale set.
    pub fn patches_of(&self, name: &str) -> Vec<Entry> {
        let patches = self.patches().into_iter();
        patches.filter(|entry| said(entry).name == name).collect()
    }

    /// How many pods a binding says that it matches.
    pub fn matched(&self, namespace: &str, name: &str) -> Value {
        let binding = self.object("azureidentitybindings", namespace, name);
        binding["status"]["matchedPods"].clone()
    }

    /// A scale set `pool` with a node, where pods may use everything that is granted.
    pub fn pool(&self, sets: &[&str]) {
        for set in sets {
            self.instance(&format!("node-{set}"), set);
        }
        self.admit_all();
    }

    /// Waits, while that must not happen.
    pub fn never(&self, time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            assert!(!condition(), "{what}: {:?}", self.asked());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Deletes a node.
    pub fn delete_node(&self, name: &str) {
        let path = format!("/api/v1/nodes/{name}");
        self.send("DELETE", &path, &json!(null)).unwrap();
    }
}
