//! Which cluster this is. (Who signs its service-account tokens, [`Cluster::issuer`] says.)

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use crate::kubernetes::{CallError, Cluster};

/// The UID of the namespace `kube-system`, which lives as long as the cluster does.
pub async fn uid(cluster: &Cluster) -> Result<Arc<str>, CallError> {
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let found = cluster.call(namespaces.get_metadata("kube-system")).await?;
    Ok(found.metadata.uid.unwrap_or_default().into())
}
