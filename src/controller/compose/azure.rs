//! The way to Azure: whom to trust, who we are, the client of ARM.
//!
//! In: the configuration. Out: an [`ArmClient`]. Reads the file of certificate authorities and the
//! environment's proxies; asks nobody. What is wrong with what was configured ends the start.

use anyhow::Context;

use crate::azure::access::{Access, AccessConfig};
use crate::azure::arm::ArmClient;
use crate::azure::https::{HttpsClient, HttpsConfig, ProxyRules, Roots};
use crate::controller::config::AzureConfig;
use crate::serve::clock;

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
