//! A node's text → the compute resource behind it. Pure.
//!
//! Holds that a node without `spec.providerID`, or of another cloud, is a node all the same: nothing is
//! assigned there, and the report can say why.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Malformed;
use crate::controller::world::Node;
use crate::model::compute::Compute;
use crate::model::ids::ArmId;

/// Below this many compute resources nobody looks which are unused.
const SMALL: usize = 64;

#[derive(Deserialize)]
struct Slim {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
}

/// Compute resources that several nodes share.
#[derive(Debug, Default)]
pub struct Computes(HashMap<ArmId, Arc<Compute>>);

impl Computes {
    /// The node in this text.
    pub fn read(&mut self, text: &RawValue) -> Result<Node, Malformed> {
        let slim: Slim =
            serde_json::from_str(text.get()).map_err(|error| Malformed::at("object", error))?;
        let id = slim.spec.provider_id.unwrap_or_default();
        Ok(Node {
            uid: slim.metadata.uid.into(),
            compute: id.parse().map(|compute| self.shared(compute)),
        })
    }

    fn shared(&mut self, compute: Compute) -> Arc<Compute> {
        if self.0.len() >= SMALL && self.0.len() == self.0.capacity() {
            self.0.retain(|_, compute| Arc::strong_count(compute) > 1);
        }
        let shared = self.0.entry(compute.id.clone());
        shared.or_insert_with(|| Arc::new(compute)).clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SET: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool";

    fn read(computes: &mut Computes, id: &Value) -> Node {
        let node = json!({"metadata": {"name": "n", "uid": "u"}, "spec": {"providerID": id}, "status": {"images": [{}]}});
        computes
            .read(&serde_json::value::to_raw_value(&node).unwrap())
            .unwrap()
    }

    #[test]
    fn instances_of_a_scale_set_share_it() {
        let mut computes = Computes::default();
        let mut of = |instance: u32| {
            let id = json!(format!("azure://{SET}/virtualMachines/{instance}"));
            read(&mut computes, &id).compute.unwrap()
        };
        assert!(Arc::ptr_eq(&of(0), &of(17)));
    }

    #[test]
    fn other_nodes_are_nodes_without_a_compute_resource() {
        for id in [
            Value::Null,
            json!(""),
            json!("aws:///eu-west-1a/i-0123"),
            json!("kind://docker/x"),
        ] {
            let node = read(&mut Computes::default(), &id);
            assert!(node.compute.is_err());
            assert_eq!(&*node.uid, "u");
        }
    }

    #[test]
    fn machines_that_are_gone_are_forgotten() {
        let mut computes = Computes::default();
        for n in 0..10_000 {
            let id = format!(
                "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-{n}"
            );
            read(&mut computes, &json!(id));
        }
        assert!(computes.0.len() < 1_000, "{}", computes.0.len());
    }
}
