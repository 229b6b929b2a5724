//! Composition: binds what is asked for, starts the listeners, answers commands, stops.
//!
//! In: a [`World`] and a [`Listen`]. Out: a running [`Simulator`], whose addresses are known and which
//! answers before [`Simulator::start`] returns. Dropping it stops it; [`Simulator::shutdown`] also waits.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::arm::{Arm, Commands};
use super::azure::{AssignError, Azure};
use super::certificate::CertificateError;
use super::control;
use super::entra::{CredentialError, Entra};
use super::faults::Fault;
use super::http::{self, Service};
use super::imds::Imds;
use super::journal::Entry;
use super::keys::{KeyError, SigningKey};
use super::stats::Stats;
use super::tls::{self, TlsError};
use super::vault::{self, Vaults};
use super::wire::Wire;
use super::world::{FederatedCredential, Issuer, Secret, World, WorldError};

/// Where to listen; a service without an address is not started. Port 0 takes any free port.
#[derive(Debug, Clone, Default)]
pub struct Listen {
    /// Instance metadata service, plain HTTP.
    pub imds: Option<SocketAddr>,
    /// Entra ID, plain HTTP; over TLS it is beside the vaults.
    pub entra: Option<SocketAddr>,
    /// Azure Resource Manager, plain HTTP; over TLS it is beside the vaults.
    pub arm: Option<SocketAddr>,
    /// Azure Resource Manager alone over TLS, whatever host is asked for.
    pub arm_tls: Option<SocketAddr>,
    /// Key Vaults, Entra ID and Azure Resource Manager over TLS, told apart by host name.
    pub vault: Option<SocketAddr>,
    /// The wire server's addresses.
    pub wire: Vec<SocketAddr>,
    /// Path of the control socket to make.
    pub control: Option<PathBuf>,
    /// RSA private key (PEM text) that signs tokens; a new one is made where absent.
    pub signing_key: Option<String>,
}

impl Listen {
    /// Every service on a free port of 127.0.0.1, without a control socket: for tests.
    pub fn loopback() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            imds: Some(any),
            entra: Some(any),
            arm: Some(any),
            vault: Some(any),
            wire: vec![any],
            ..Self::default()
        }
    }
}

/// Where the services listen in truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Instance metadata service.
    pub imds: Option<SocketAddr>,
    /// Entra ID, plain HTTP.
    pub entra: Option<SocketAddr>,
    /// Azure Resource Manager, plain HTTP.
    #[serde(default)]
    pub arm: Option<SocketAddr>,
    /// Azure Resource Manager alone over TLS.
    #[serde(default)]
    pub arm_tls: Option<SocketAddr>,
    /// Key Vaults, Entra ID and Azure Resource Manager over TLS.
    pub vault: Option<SocketAddr>,
    /// The wire server.
    pub wire: Vec<SocketAddr>,
    /// The control socket.
    pub control: Option<PathBuf>,
}

/// Why the simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{service}: cannot listen on {address}")]
    Bind {
        /// Which service.
        service: &'static str,
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The world contradicts itself.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A registered certificate cannot be used.
    #[error("an application's certificate is not usable")]
    Certificate(#[from] CertificateError),
    /// No signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A running simulated Azure.
pub struct Simulator {
    azure: Arc<Azure>,
    addresses: Arc<Addresses>,
    ca_pem: String,
    services: Services,
    _stop_on_drop: DropGuard,
}

/// The running listeners.
struct Services {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Services {
    async fn open<S: Service>(
        &self,
        name: &'static str,
        address: Option<SocketAddr>,
        tls: Option<TlsAcceptor>,
        service: impl FnOnce() -> S,
    ) -> Result<Option<SocketAddr>, StartError> {
        let Some(address) = address else {
            return Ok(None);
        };
        let failed = |source| StartError::Bind {
            service: name,
            address: address.to_string(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let service = Arc::new(service());
        self.tasks
            .spawn(http::serve(listener, tls, service, self.stop.clone()));
        Ok(Some(bound))
    }

    fn control(
        &self,
        path: &Path,
        azure: &Arc<Azure>,
        addresses: &Arc<Addresses>,
    ) -> Result<(), StartError> {
        let listener = control::bind(path).map_err(|source| StartError::Bind {
            service: "control",
            address: path.display().to_string(),
            source,
        })?;
        let (azure, addresses, stop) = (azure.clone(), addresses.clone(), self.stop.clone());
        self.tasks.spawn(control::serve(
            listener,
            path.to_owned(),
            azure,
            addresses,
            stop,
        ));
        Ok(())
    }
}

impl Simulator {
    /// Binds, starts, and returns when every service answers. Needs a tokio runtime.
    pub async fn start(world: World, listen: Listen) -> Result<Self, StartError> {
        world.check()?;
        let pem = listen.signing_key.clone();
        let make = move || pem.map_or_else(SigningKey::generate, |pem| SigningKey::from_pem(&pem));
        let key = tokio::task::spawn_blocking(make)
            .await
            .map_err(|_| KeyError::Generate)??;
        let azure = Arc::new(Azure::new(world, key)?);
        let (ca_pem, acceptor) = tls::acceptor(vault::hosts(&azure))?;
        let stop = CancellationToken::new();
        let services = Services {
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        };
        let stop_on_drop = stop.drop_guard();

        let entra = || Entra(azure.clone());
        let arm = |scheme| Arm {
            azure: azure.clone(),
            scheme,
        };
        let vaults = || Vaults {
            azure: azure.clone(),
            entra: entra(),
            arm: arm("https"),
        };
        let mut wire = Vec::new();
        for address in &listen.wire {
            let bound = services.open("wire server", Some(*address), None, || Wire(azure.clone()));
            wire.extend(bound.await?);
        }
        let addresses = Arc::new(Addresses {
            imds: services
                .open("imds", listen.imds, None, || Imds(azure.clone()))
                .await?,
            entra: services.open("entra", listen.entra, None, entra).await?,
            arm: services
                .open("arm", listen.arm, None, || arm("http"))
                .await?,
            arm_tls: services
                .open(
                    "arm over TLS",
                    listen.arm_tls,
                    Some(acceptor.clone()),
                    || arm("https"),
                )
                .await?,
            vault: services
                .open("vault", listen.vault, Some(acceptor), vaults)
                .await?,
            wire,
            control: listen.control,
        });
        if let Some(path) = &addresses.control {
            services.control(path, &azure, &addresses)?;
        }
        Ok(Self {
            azure,
            addresses,
            ca_pem,
            services,
            _stop_on_drop: stop_on_drop,
        })
    }

    /// The certificate authority behind the vaults' TLS, as PEM: clients must trust it.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where the services listen.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Every request so far (the latest 100,000), oldest first.
    pub fn journal(&self) -> Vec<Entry> {
        self.azure.journal.since(0)
    }

    /// Requests with a sequence number above `seq`.
    pub fn journal_since(&self, seq: u64) -> Vec<Entry> {
        self.azure.journal.since(seq)
    }

    /// Forgets all requests; numbers go on.
    pub fn clear_journal(&self) {
        self.azure.journal.clear();
    }

    /// Adds a fault behind those that stand.
    pub fn add_fault(&self, fault: Fault) {
        self.azure.faults.add(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.azure.faults.clear();
    }

    /// The faults that stand.
    pub fn faults(&self) -> Vec<Fault> {
        self.azure.faults.list()
    }

    /// Replaces the user-assigned identities of a machine or scale set, by name, behind everybody's back.
    pub fn assign(&self, vm: &str, identities: &[&str]) -> Result<(), AssignError> {
        let names: Vec<String> = identities.iter().map(|&name| name.to_owned()).collect();
        self.azure.assign(vm, &names)
    }

    /// Commands about machines, scale sets, identities, operations and roles.
    pub fn arm(&self) -> Commands<'_> {
        Commands(&self.azure)
    }

    /// Lets a new key sign; the old ones stay published. Returns the new `kid`. Takes some 100 ms.
    pub fn roll_keys(&self) -> Result<String, KeyError> {
        self.azure.roll_keys()
    }

    /// Publishes only the signing key from now on.
    pub fn drop_old_keys(&self) {
        self.azure.keys.drop_old();
    }

    /// Lets a secret of an application be accepted from now on, beside the others. Returns its id.
    pub fn add_secret(&self, application: &str, secret: Secret) -> Result<String, CredentialError> {
        let registry = &self.azure.entra.registry;
        registry.add_secret(application, secret)
    }

    /// Refuses the secret with that id ([`secret_id`](super::secret_id)) from now on.
    pub fn revoke_secret(&self, application: &str, id: &str) -> Result<(), CredentialError> {
        self.azure.entra.registry.revoke_secret(application, id)
    }

    /// Registers a certificate (PEM) with an application. Returns its thumbprint.
    pub fn add_certificate(&self, application: &str, pem: &str) -> Result<String, CredentialError> {
        self.azure.entra.registry.add_certificate(application, pem)
    }

    /// Refuses the certificate with that thumbprint from now on.
    pub fn revoke_certificate(
        &self,
        application: &str,
        thumbprint: &str,
    ) -> Result<(), CredentialError> {
        let registry = &self.azure.entra.registry;
        registry.revoke_certificate(application, thumbprint)
    }

    /// Adds a federated credential to an application or identity; one of the same name is replaced.
    pub fn add_federated(
        &self,
        name: &str,
        credential: FederatedCredential,
    ) -> Result<(), CredentialError> {
        self.azure.entra.registry.add_federated(name, credential)
    }

    /// Removes the federated credential of that name.
    pub fn remove_federated(&self, name: &str, credential: &str) -> Result<(), CredentialError> {
        self.azure.entra.registry.remove_federated(name, credential)
    }

    /// Learns how an issuer of federated tokens is reached. The keys of all issuers are fetched anew.
    pub fn trust_issuer(&self, issuer: Issuer) -> Result<(), CertificateError> {
        self.azure.entra.trust(issuer)
    }

    /// Sets how many seconds simulated Azure's clock is ahead of this machine's; negative: behind.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.azure.set_clock_skew(seconds);
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.azure.counters.snapshot()
    }

    /// Stops all services and waits until their sockets are closed.
    pub async fn shutdown(self) {
        self.services.stop.cancel();
        self.services.tasks.close();
        self.services.tasks.wait().await;
    }
}
