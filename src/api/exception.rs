//! `AzureMetadataException`: metadata paths that the agent forwards for some pods. Written by
//! operators only.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::model::facts::ExceptionFacts;

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

/// The path in the form that requests are compared with: lower case, no trailing slash.
fn check_path(path: &str) -> Result<String, String> {
    let folded = path.trim_end_matches('/').to_ascii_lowercase();
    let segments_plain = folded.split('/').skip(1).all(|segment| {
        let dots_only = segment.bytes().all(|byte| byte == b'.');
        !segment.is_empty()
            && !dots_only
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    });
    if !folded.starts_with("/metadata/") || !segments_plain {
        return Err(format!("`{path}` is not a plain path under /metadata/"));
    }
    if folded == "/metadata/identity" || folded.starts_with("/metadata/identity/") {
        return Err(format!(
            "`{path}`: identity paths are answered by Lanyard and never forwarded"
        ));
    }
    Ok(folded)
}
