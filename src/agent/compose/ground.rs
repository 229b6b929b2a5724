//! What the token sources stand on: IMDS, Entra, Secrets, service accounts.
//!
//! In: the configuration, and a connection to the API server where there is one. Out: a [`Ground`]. Reads the
//! file of certificate authorities and the environment's proxies; asks nobody. What is wrong with what was
//! configured ends the start: the first token would be late to tell.

use std::sync::Arc;

use anyhow::Context;

use crate::agent::config::{Config, EntraConfig};
use crate::agent::credentials::Credentials;
use crate::agent::obtain::{ApiServer, Broker, EntraSetup, Ground, Sources};
use crate::azure::entra::token_endpoint;
use crate::azure::https::{HttpsClient, HttpsConfig, ProxyRules, Roots};
use crate::azure::imds::ImdsClient;
use crate::kubernetes::Cluster;

/// A new credential is used at once: its identity's tokens are due.
pub fn renew_with(credentials: &Credentials, broker: &Arc<Broker<Sources>>) {
    let broker = Arc::downgrade(broker);
    credentials.on_new(move |identity| {
        if let Some(broker) = broker.upgrade() {
            broker.renew(|key| key.owner() == Some(&identity.name));
        }
    });
}

/// What the token sources stand on.
pub fn ground(
    config: &Config,
    credentials: Credentials,
    cluster: Option<&Cluster>,
) -> anyhow::Result<Ground> {
    Ok(Ground {
        imds: ImdsClient::marked(&config.imds_endpoint, config.own_sockets())
            .context("--imds-endpoint")?,
        entra: entra(&config.entra)?,
        credentials,
        accounts: cluster.map(|cluster| Arc::new(ApiServer(cluster.clone())) as _),
    })
}

/// Where Entra is, and whom to believe there.
fn entra(config: &EntraConfig) -> anyhow::Result<EntraSetup> {
    let roots = match &config.ca_file {
        None => Roots::System,
        Some(file) => {
            let shown = || format!("--azure-ca-file {}", file.display());
            let roots = Roots::SystemAnd(std::fs::read_to_string(file).with_context(shown)?);
            let tried = HttpsConfig {
                roots: roots.clone(),
                ..HttpsConfig::default()
            };
            HttpsClient::new(&tried).with_context(shown)?;
            roots
        }
    };
    let anyone = "00000000-0000-0000-0000-000000000000".parse()?;
    token_endpoint(&config.authority_host, anyone).context("--authority-host")?;
    Ok(EntraSetup {
        authority_host: config.authority_host.clone(),
        tenant: config.tenant,
        roots,
        proxies: ProxyRules::from_environment(),
    })
}
