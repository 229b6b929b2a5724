//! Which cluster this is, and who signs its service-account tokens.
//!
//! In: the API server. Out: a UID and an issuer. Each call has a deadline; nothing is retried here.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::client::Body;
use serde::Deserialize;

use crate::kubernetes::{CallError, Cluster};

/// Discovery documents have a few hundred bytes.
const LONGEST: usize = 64 << 10;

/// The UID of the namespace `kube-system`, which lives as long as the cluster does.
pub async fn uid(cluster: &Cluster) -> Result<Arc<str>, CallError> {
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let found = cluster.call(namespaces.get_metadata("kube-system")).await?;
    Ok(found.metadata.uid.unwrap_or_default().into())
}

/// The issuer, as the API server's OIDC discovery document has it; why not, in words.
pub async fn issuer(cluster: &Cluster) -> Result<Arc<str>, String> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let ask = async {
        let asked = Request::get("/.well-known/openid-configuration").body(Body::empty());
        let asked = asked.map_err(|error| error.to_string())?;
        let answer = cluster.client.send(asked).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the API server answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let found: Discovery = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(found.issuer.into())
    };
    let answered = tokio::time::timeout(std::time::Duration::from_secs(10), ask).await;
    answered.unwrap_or_else(|_| Err("the API server did not answer within 10 s".to_owned()))
}
