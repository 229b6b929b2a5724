//! Flags about tokens on behalf of pods.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::agent::host_token::HostTokenConfig;

/// Where they are given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tokens on behalf of pods (/host/token)")]
pub struct HostTokenArgs {
    /// Unix socket of root's, in a folder of its own, at which programs on the node that prove who they are by a bearer
    /// token (audience lanyard.dev) and may `create` `pods/azuretoken` are given tokens on behalf of that pod. From
    /// Kubernetes the agent then needs to create tokenreviews and subjectaccessreviews.
    #[arg(
        long,
        env = "LANYARD_HOST_TOKEN_SOCKET",
        value_name = "PATH",
        conflicts_with = "manifests"
    )]
    host_token_socket: Option<PathBuf>,

    /// The same at a loopback address, as in 127.0.0.1:2579: for programs that can do no other. Host-network pods reach it, too.
    #[arg(long, env = "LANYARD_HOST_TOKEN_LISTEN", value_name = "IP:PORT", value_parser = loopback, conflicts_with = "manifests")]
    host_token_listen: Option<SocketAddr>,
}

impl HostTokenArgs {
    /// As the agent needs it.
    pub fn config(self) -> HostTokenConfig {
        HostTokenConfig {
            socket: self.host_token_socket,
            listen: self.host_token_listen,
        }
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "give an address and a port, as in 127.0.0.1:2579".to_owned())?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(
        "only a loopback address (127.0.0.1, ::1): whoever reaches it may try tokens that he found"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        for text in [
            "127.0.0.1:2579",
            "127.1.2.3:1",
            "[::1]:2579",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(loopback(text).is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0:2579",
            "[::]:2579",
            "10.0.0.1:2579",
            "169.254.169.252:80",
            "[::ffff:10.0.0.1]:80",
        ] {
            let told = loopback(text).unwrap_err();
            assert!(told.contains("only a loopback address"), "{text}: {told}");
        }
        for text in ["localhost:2579", "127.0.0.1", "2579", ""] {
            assert!(loopback(text).is_err(), "{text}");
        }
    }
}
