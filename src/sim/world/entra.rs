//! How the simulated Entra ID behaves as a whole, as the world file says it.
//!
//! In: the `entra` mapping of the world file. Out: plain values with Entra's own defaults. Pure.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as friendly;
use serde::Deserialize;

/// How Entra ID behaves as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entra {
    /// Address that discovery documents name (`https://login.microsoftonline.com`).
    #[serde(default = "public")]
    pub authority_host: String,
    /// Further host names under which the TLS listener is Entra, as a custom token endpoint has.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Algorithms that client assertions may be signed by.
    #[serde(default = "both")]
    pub assertion_algorithms: Vec<AssertionAlgorithm>,
    /// Time each token request takes.
    #[serde(default, with = "friendly::required")]
    pub latency: Duration,
    /// Limit of token requests for each application; none where absent.
    #[serde(default)]
    pub throttle: Option<Throttle>,
    /// Resources that exist in the tenant; every one where empty.
    #[serde(default)]
    pub resources: Vec<String>,
}

/// An algorithm for client assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AssertionAlgorithm {
    /// RSASSA-PSS with SHA-256, what Entra asks for.
    PS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, what older authorities take.
    RS256,
}

impl AssertionAlgorithm {
    /// Its name in a JWT's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::PS256 => "PS256",
            Self::RS256 => "RS256",
        }
    }
}

/// A token bucket for each application: what is over it is answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Requests that a second adds.
    pub per_second: f64,
    /// Most requests at once.
    pub burst: u32,
    /// Seconds in `Retry-After`.
    #[serde(default = "ten")]
    pub retry_after: u32,
}

impl Default for Entra {
    fn default() -> Self {
        Self {
            authority_host: public(),
            hosts: Vec::new(),
            assertion_algorithms: both(),
            latency: Duration::ZERO,
            throttle: None,
            resources: Vec::new(),
        }
    }
}

fn public() -> String {
    "https://login.microsoftonline.com".to_owned()
}

fn both() -> Vec<AssertionAlgorithm> {
    vec![AssertionAlgorithm::PS256, AssertionAlgorithm::RS256]
}

fn ten() -> u32 {
    10
}
