//! `AzureMetadataException`: metadata paths that the agent forwards for some pods. Written by
//! operators only.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::model::facts::ExceptionFacts;
use crate::model::path::PlainPath;

/// Forwards named metadata paths (GET only) for the pods of some service accounts.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lanyard.dev",
    version = "v1alpha1",
    kind = "AzureMetadataException"
)]
#[kube(
    plural = "azuremetadataexceptions",
    shortname = "azmex",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureMetadataExceptionSpec {
    /// The pods' namespace.
    pub namespace: String,
    /// The pods' service accounts.
    pub service_accounts: Vec<String>,
    /// Exact paths, such as `/metadata/instance/compute/location`. Nothing below a path is opened
    /// with it, and no path under `/metadata/identity` can be opened.
    pub paths: Vec<String>,
    /// Whether `userData` and `customData` are open, too: they often hold the node's secrets.
    #[serde(default)]
    pub allow_node_identity: bool,
}

impl AzureMetadataException {
    /// The facts that passing on works with.
    pub fn facts(&self, name: &str) -> Result<ExceptionFacts, Malformed> {
        let paths = self.spec.paths.iter().enumerate();
        let path = |(at, path): (usize, &String)| {
            check_path(path).map_err(|problem| Malformed::at(format!("spec.paths[{at}]"), problem))
        };
        Ok(ExceptionFacts {
            name: name.into(),
            namespace: self.spec.namespace.as_str().into(),
            service_accounts: self.spec.service_accounts.clone(),
            paths: paths.map(path).collect::<Result<_, _>>()?,
            allow_node_identity: self.spec.allow_node_identity,
        })
    }
}

/// The path in the form that requests are compared with.
fn check_path(path: &str) -> Result<PlainPath, String> {
    let plain: Option<PlainPath> = path.trim_end_matches('/').parse().ok();
    match plain {
        Some(plain) if plain.is_at_or_below("/metadata/identity") => Err(format!(
            "`{path}`: identity paths are answered by Lanyard and never forwarded"
        )),
        Some(plain) if plain.as_str() != "/metadata" && plain.is_at_or_below("/metadata") => {
            Ok(plain)
        }
        _ => Err(format!("`{path}` is not a plain path under /metadata/")),
    }
}
