//! A client of the control socket, for tests, benches, the demo and the command line.
//!
//! In: commands as methods. Out: typed answers. Waits for the simulator's answer; a simulator
//! that is not there is an error at once.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::sim::faults::Fault;
use crate::sim::journal::Entry;
use crate::sim::simulator::Addresses;
use crate::sim::stats::Stats;
use crate::sim::world::{FederatedCredential, Issuer, Secret};

/// Commands one simulator.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers at the socket.
    #[error("nobody answers at control socket {}; is `lanyard simulate --control` running?", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the control socket broke")]
    Http(#[from] hyper::Error),
    /// The command could not be put into a request.
    #[error("not a command for the control socket")]
    Request(#[from] hyper::http::Error),
    /// The simulator refused the command.
    #[error("simulator: {message} ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The simulator's words.
        message: String,
    },
    /// The answer is not what this version understands.
    #[error("unknown answer; do client and simulator have the same version?")]
    Answer(#[from] serde_json::Error),
}

/// What a command comes back with.
pub(super) type Outcome<T> = Result<T, ControlError>;

/// The path of something of the application or identity `name`.
fn applications(name: &str, rest: &[&str]) -> String {
    let parts = std::iter::once(name).chain(rest.iter().copied());
    let encoded = parts.map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
    let encoded: Vec<String> = encoded.collect();
    format!("/applications/{}", encoded.join("/"))
}

impl Client {
    /// A client for the socket at `path`; connects with each command.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
        }
    }

    /// Whether the simulator answers.
    pub async fn healthz(&self) -> Outcome<()> {
        self.send(Method::GET, "/healthz", Bytes::new())
            .await
            .map(drop)
    }

    /// Where the services listen.
    pub async fn addresses(&self) -> Outcome<Addresses> {
        self.read("/addresses").await
    }

    /// Counters since the start.
    pub async fn stats(&self) -> Outcome<Stats> {
        self.read("/stats").await
    }

    /// Requests with a sequence number above `since`, oldest first; 0 for all.
    pub async fn journal(&self, since: u64) -> Outcome<Vec<Entry>> {
        let path = format!("/journal?since={since}");
        let lines = self.send(Method::GET, &path, Bytes::new()).await?;
        let lines = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| Ok(serde_json::from_slice(line)?))
            .collect()
    }

    /// Forgets all requests.
    pub async fn clear_journal(&self) -> Outcome<()> {
        self.send(Method::DELETE, "/journal", Bytes::new())
            .await
            .map(drop)
    }

    /// The faults that stand.
    pub async fn faults(&self) -> Outcome<Vec<Fault>> {
        self.read("/faults").await
    }

    /// Adds a fault.
    pub async fn add_fault(&self, fault: &Fault) -> Outcome<()> {
        self.write(Method::PUT, "/faults", fault).await
    }

    /// Removes all faults.
    pub async fn clear_faults(&self) -> Outcome<()> {
        self.send(Method::DELETE, "/faults", Bytes::new())
            .await
            .map(drop)
    }

    /// Replaces the user-assigned identities of a machine, by name.
    pub async fn assign(&self, vm: &str, identities: &[&str]) -> Outcome<()> {
        self.write(Method::PUT, &format!("/vms/{vm}/identities"), &identities)
            .await
    }

    /// Lets a new key sign; the old ones stay published. Returns the new `kid`.
    pub async fn roll_keys(&self) -> Outcome<String> {
        #[derive(serde::Deserialize)]
        struct Rolled {
            kid: String,
        }
        let body = self.send(Method::POST, "/keys/roll", Bytes::new()).await?;
        Ok(serde_json::from_slice::<Rolled>(&body)?.kid)
    }

    /// Publishes only the signing key from now on.
    pub async fn drop_old_keys(&self) -> Outcome<()> {
        self.send(Method::POST, "/keys/drop-old", Bytes::new())
            .await
            .map(drop)
    }

    /// What the application or identity `name` may prove itself by, as JSON; no secret is in it.
    pub async fn credentials(&self, name: &str) -> Outcome<Value> {
        self.read(&applications(name, &["credentials"])).await
    }

    /// Lets a secret be accepted from now on, beside the others. Returns its id.
    pub async fn add_secret(&self, application: &str, secret: &Secret) -> Outcome<String> {
        let path = applications(application, &["secrets"]);
        self.add(&path, secret).await
    }

    /// Refuses the secret with that id from now on.
    pub async fn revoke_secret(&self, application: &str, id: &str) -> Outcome<()> {
        self.delete(&applications(application, &["secrets", id]))
            .await
    }

    /// Registers a certificate (PEM). Returns its thumbprint.
    pub async fn add_certificate(&self, application: &str, pem: &str) -> Outcome<String> {
        let path = applications(application, &["certificates"]);
        self.add(&path, &json!({"pem": pem})).await
    }

    /// Refuses the certificate with that thumbprint from now on.
    pub async fn revoke_certificate(&self, application: &str, thumbprint: &str) -> Outcome<()> {
        self.delete(&applications(application, &["certificates", thumbprint]))
            .await
    }

    /// Adds a federated credential to an application or identity; one of the same name is replaced.
    pub async fn add_federated(&self, name: &str, credential: &FederatedCredential) -> Outcome<()> {
        let path = applications(name, &["federated"]);
        self.write(Method::PUT, &path, credential).await
    }

    /// Removes the federated credential of that name.
    pub async fn remove_federated(&self, name: &str, credential: &str) -> Outcome<()> {
        self.delete(&applications(name, &["federated", credential]))
            .await
    }

    /// Says how an issuer of federated tokens is reached (`caFile` is not read here: give `ca_pem`). The keys of
    /// all issuers are fetched anew.
    pub async fn trust_issuer(&self, issuer: &Issuer) -> Outcome<()> {
        self.write(Method::PUT, "/issuers", issuer).await
    }

    /// Sets how far simulated Azure's clock is ahead of the machine's; negative: behind.
    pub async fn set_clock_skew(&self, skew: SignedDuration) -> Outcome<()> {
        let skew = json!({"skew": skew});
        self.write(Method::PUT, "/clock", &skew).await
    }

    pub(super) async fn add(&self, path: &str, body: &impl Serialize) -> Outcome<String> {
        #[derive(serde::Deserialize)]
        struct Added {
            id: String,
        }
        let body = serde_json::to_vec(body)?.into();
        let answer = self.send(Method::PUT, path, body).await?;
        Ok(serde_json::from_slice::<Added>(&answer)?.id)
    }

    pub(super) async fn delete(&self, path: &str) -> Outcome<()> {
        let none = Bytes::new();
        self.send(Method::DELETE, path, none).await.map(drop)
    }

    pub(super) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Outcome<T> {
        let answer = self.send(method, path, Bytes::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        self.ask(Method::GET, path).await
    }

    pub(super) async fn write(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Outcome<()> {
        let body = serde_json::to_vec(body)?.into();
        self.send(method, path, body).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Outcome<Bytes> {
        let unreachable = |source| ControlError::Connect {
            path: self.path.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "simulator")
            .body(Full::new(body))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            // The connection ends with its sender.
            drop(sender);
            Ok::<_, hyper::Error>((status, body))
        };
        let (exchange, _) = tokio::join!(exchange, connection);
        let (status, body) = exchange?;
        if status.is_success() {
            return Ok(body);
        }
        let error: Option<String> = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|value| value["error"].as_str().map(str::to_owned));
        Err(ControlError::Refused {
            status: status.as_u16(),
            message: error.unwrap_or_default(),
        })
    }
}
