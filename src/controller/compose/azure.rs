//! The way to Azure: whom to trust, who we are, the client of ARM.
//!
//! In: the configuration. Out: an [`ArmClient`]. Reads the file of certificate authorities and the
//! environment's proxies; asks nobody. What is wrong with what was configured ends the start.

use std::sync::Arc;

use anyhow::Context;
use hyper::Method;
use prometheus::Registry;

use crate::azure::access::{Access, AccessConfig};
use crate::azure::arm::{ArmClient, ArmErrorKind, Tell};
use crate::azure::https::{HttpsClient, HttpsConfig, ProxyRules, Roots};
use crate::controller::config::AzureConfig;
use crate::serve::clock;
use crate::serve::series::family;

/// What becomes of most requests.
const OK: &str = "OK";

/// The client of ARM.
pub fn arm(config: &AzureConfig) -> anyhow::Result<ArmClient> {
    let roots = match &config.ca_file {
        None => Roots::System,
        Some(file) => {
            let read = std::fs::read_to_string(file);
            Roots::SystemAnd(read.with_context(|| format!("--azure-ca-file {}", file.display()))?)
        }
    };
    let https = HttpsClient::new(&HttpsConfig {
        roots,
        proxies: ProxyRules::from_environment(),
        ..HttpsConfig::default()
    })
    .context("--azure-ca-file")?;
    let access = Access::new(AccessConfig {
        how: config.how.clone(),
        client_id: config.client_id,
        tenant: config.tenant,
        authority_host: config.authority_host.clone(),
        audience: config.arm_audience.clone(),
        https: https.clone(),
        now: clock::since_epoch,
    })?;
    ArmClient::new(&config.arm_endpoint, https, access, clock::since_epoch)
        .context("--arm-endpoint")
}

/// Counts what a client asks. Requests with other methods than these there are none.
pub fn counting(registry: &Registry) -> prometheus::Result<Tell> {
    let requests = family(
        registry,
        "lanyard_controller_arm_requests_total",
        "Requests to Azure Resource Manager, by method and by what became of them.",
        &["method", "result"],
    )?;
    let results = || ArmErrorKind::ALL.iter().map(|kind| kind.reason());
    for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
        for result in results().chain([OK]) {
            requests.with_label_values(&[method.as_str(), result]);
        }
    }
    Ok(Arc::new(move |method, error| {
        let result = error.map_or(OK, ArmErrorKind::reason);
        requests.with_label_values(&[method.as_str(), result]).inc();
    }))
}
