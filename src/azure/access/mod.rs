//! Tokens for one resource of ours: who we are to Azure Resource Manager.
//!
//! In: how we prove who we are, deadlines. Out: a token with some life left, or why there is none. Blocks
//! on the network and on reading files, at most for the given limit; a renewal goes on when its first
//! caller is gone. One renewal runs at a time; a token is served while it is renewed and while renewal
//! fails, down to 30 s before its end. Files are read again at each renewal, and looked at every 30 s while
//! tokens are asked for.

mod candidates;
mod error;
mod files;
mod held;
mod prove;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Uri;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use error::AccessError;

use super::entra::{EntraClient, token_endpoint};
use super::https::HttpsClient;
use super::imds::ImdsClient;
use crate::model::ids::Guid;
use crate::model::token::Token;
use candidates::Candidates;
use held::{Held, Step};

/// The most that one renewal may take.
const RENEWAL_LIMIT: Duration = Duration::from_secs(20);

/// How we prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By a certificate: `tls.crt` with `tls.key`, or `certificate.pfx` with `password`, in this folder.
    Certificate {
        /// A mounted Secret.
        dir: PathBuf,
        /// Whether the certificate's chain goes along (registrations by subject name and issuer).
        send_chain: bool,
    },
    /// By a client secret: `clientSecret` in this folder.
    Secret {
        /// A mounted Secret.
        dir: PathBuf,
    },
    /// By our own service account's token, which kubelet renews in this file (workload identity).
    Federated {
        /// The projected token.
        token_file: PathBuf,
    },
    /// As the virtual machine that we run on.
    NodeIdentity {
        /// IMDS, `http://ADDRESS`.
        imds_endpoint: String,
        /// Which user-assigned identity of the machine; `None`: the only one that it has.
        client_id: Option<Guid>,
    },
}

/// Who we are, to whom, and how that is proved.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// How it is proved.
    pub how: How,
    /// The application's or the managed identity's client id. Not for the node's identity.
    pub client_id: Option<Guid>,
    /// The tenant that gives the token. Not for the node's identity.
    pub tenant: Option<Guid>,
    /// Entra ID, `https://HOST`.
    pub authority_host: String,
    /// What the token is for (App ID URI), as `https://management.azure.com`.
    pub audience: String,
    /// The way to Entra ID.
    pub https: HttpsClient,
    /// The time since the Unix epoch.
    pub now: fn() -> Duration,
}

/// Tokens. Cheap to clone: clones share the token.
#[derive(Clone, Debug)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: AccessConfig,
    party: Party,
    held: Mutex<Held>,
    candidates: Mutex<Candidates>,
    /// Counts the renewals that ended.
    ended: watch::Sender<u64>,
}

/// Who gives tokens.
#[derive(Debug)]
enum Party {
    Entra {
        client: EntraClient,
        endpoint: Uri,
        client_id: Guid,
    },
    Imds(ImdsClient),
}

impl Access {
    /// Checks the configuration. No file is read and nobody asked yet.
    pub fn new(config: AccessConfig) -> Result<Self, AccessError> {
        let missing = |what: &str| AccessError::Config(format!("{what} is needed for this --auth"));
        let party = if let How::NodeIdentity { imds_endpoint, .. } = &config.how {
            let client = ImdsClient::new(imds_endpoint);
            Party::Imds(client.map_err(|error| AccessError::Config(error.to_string()))?)
        } else {
            let tenant = config.tenant.ok_or_else(|| missing("--tenant-id"))?;
            let endpoint = token_endpoint(&config.authority_host, tenant);
            Party::Entra {
                client: EntraClient::new(config.https.clone()),
                endpoint: endpoint.map_err(|error| AccessError::Config(error.to_string()))?,
                client_id: config.client_id.ok_or_else(|| missing("--client-id"))?,
            }
        };
        let inner = Inner {
            config,
            party,
            held: Mutex::default(),
            candidates: Mutex::default(),
            ended: watch::Sender::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A token with more than 30 s of life.
    pub async fn token(&self, limit: Duration) -> Result<Arc<Token>, AccessError> {
        let until = Instant::now() + limit;
        let mut ended = self.inner.ended.subscribe();
        loop {
            ended.mark_unchanged();
            let step = self.inner.held.lock().step((self.inner.config.now)());
            match step {
                Step::Serve(token) => return Ok(token),
                Step::ServeAndRenew(token) => {
                    self.renew();
                    return Ok(token);
                }
                Step::Renew => self.renew(),
                Step::Wait => {}
                Step::Fail(error) => return Err(error),
            }
            // The sender lives as long as we do.
            if timeout_at(until, ended.changed()).await.is_err() {
                return Err(AccessError::Late(limit));
            }
        }
    }

    /// ARM did not take this token. Whether the next one is another: at most one a minute is asked for so.
    #[must_use]
    pub fn refused(&self, token: &Arc<Token>) -> bool {
        let now = (self.inner.config.now)();
        self.inner.held.lock().refused(token, now)
    }

    /// Our object id in Entra ID, as the token at hand says (`oid`).
    #[must_use]
    pub fn object_id(&self) -> Option<Guid> {
        let token = self.inner.held.lock().token()?;
        object_id(token.expose())
    }

    /// Starts a renewal of its own: it ends even if nobody waits any more.
    fn renew(&self) {
        let access = self.clone();
        tokio::spawn(async move {
            // Ended however it ends: who waits must not wait for a task that is gone.
            let ending = Ending(&access.inner);
            let renewal = tokio::time::timeout(RENEWAL_LIMIT, prove::renewed(&access.inner));
            let outcome = renewal.await;
            let outcome = outcome.unwrap_or(Err(AccessError::Late(RENEWAL_LIMIT)));
            let now = (access.inner.config.now)();
            access.inner.held.lock().end(outcome, now);
            drop(ending);
        });
    }
}

struct Ending<'a>(&'a Inner);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.held.lock().ended();
        self.0.ended.send_modify(|count| *count += 1);
    }
}

/// `oid` of a token's claims, unverified: it is our own, and only told to people.
fn object_id(token: &str) -> Option<Guid> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("oid")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
