//! A pod that is being created, as much of it as matters here. Small on purpose: who reaches the webhook's
//! port can send what he likes, and a list of empty variables would take thirty times its length in the
//! whole API's types.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Pod {
    kind: Option<String>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    /// The API server sends none without.
    pub(super) spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    /// What the API server is still to make a name of.
    pub(super) generate_name: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) host_network: Option<bool>,
    pub(super) init_containers: Option<Vec<Container>>,
    pub(super) containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
pub(super) struct Container {
    #[serde(default)]
    pub(super) name: String,
    pub(super) env: Option<Vec<Variable>>,
}

#[derive(Deserialize)]
pub(super) struct Variable {
    #[serde(default)]
    pub(super) name: String,
    /// `None` also where it comes from elsewhere (`valueFrom`).
    pub(super) value: Option<String>,
}

impl Pod {
    /// How many it has, init containers included.
    pub(super) fn containers(&self) -> usize {
        let of = |list: &Option<Vec<Container>>| list.as_ref().map_or(0, Vec::len);
        let spec = self.spec.as_ref();
        spec.map_or(0, |spec| of(&spec.containers) + of(&spec.init_containers))
    }

    /// Reads it; the error is where it went wrong, in bytes, and nothing of what was found there.
    pub(super) fn read(json: &str) -> Result<Self, usize> {
        let pod: Self = serde_json::from_str(json).map_err(|error| error.column())?;
        match pod.kind.as_deref() {
            Some("Pod") => Ok(pod),
            _ => Err(0),
        }
    }
}
