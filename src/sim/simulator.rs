//! Composition: binds what is asked for, starts the listeners, answers commands, stops.
//!
//! In: a [`World`] and a [`Listen`]. Out: a running [`Simulator`], whose addresses are known and which
//! answers before [`Simulator::start`] returns. Dropping it stops it; [`Simulator::shutdown`] also waits.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::azure::{AssignError, Azure};
use super::faults::Fault;
use super::http::{self, Service};
use super::imds::Imds;
use super::journal::Entry;
use super::keys::{KeyError, SigningKey};
use super::stats::Stats;
use super::world::{World, WorldError};

/// Where to listen; a service without an address is not started. Port 0 takes any free port.
#[derive(Debug, Clone, Default)]
pub struct Listen {
    /// Instance metadata service, plain HTTP.
    pub imds: Option<SocketAddr>,
}

impl Listen {
    /// Every service on a free port of 127.0.0.1, without a control socket: for tests.
    pub fn loopback() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { imds: Some(any) }
    }
}

/// Where the services listen in truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Instance metadata service.
    pub imds: Option<SocketAddr>,
}

/// Why the simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{service}: cannot listen on {address}: {source}")]
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
    /// No signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A running simulated Azure.
pub struct Simulator {
    azure: Arc<Azure>,
    addresses: Addresses,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Simulator {
    /// Binds, starts, and returns when every service answers. Needs a tokio runtime.
    pub async fn start(world: World, listen: Listen) -> Result<Self, StartError> {
        world.check()?;
        let key = tokio::task::spawn_blocking(SigningKey::generate)
            .await
            .map_err(|_| KeyError::Generate)??;
        let stop = CancellationToken::new();
        let mut simulator = Self {
            azure: Arc::new(Azure::new(world, key)),
            addresses: Addresses::default(),
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        let azure = &simulator.azure;
        simulator.addresses.imds = simulator
            .open("imds", listen.imds, || Imds(azure.clone()))
            .await?;
        Ok(simulator)
    }

    async fn open<S: Service>(
        &self,
        name: &'static str,
        address: Option<SocketAddr>,
        service: impl FnOnce() -> S,
    ) -> Result<Option<SocketAddr>, StartError> {
        let Some(address) = address else {
            return Ok(None);
        };
        let (listener, bound) = bind(name, address).await?;
        let service = Arc::new(service());
        self.tasks
            .spawn(http::serve(listener, None, service, self.stop.clone()));
        Ok(Some(bound))
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

    /// Replaces the user-assigned identities of a machine, by name.
    pub fn assign(&self, vm: &str, identities: &[&str]) -> Result<(), AssignError> {
        let names: Vec<String> = identities.iter().map(|&name| name.to_owned()).collect();
        self.azure.assign(vm, &names)
    }

    /// Lets a new key sign; the old ones stay published. Returns the new `kid`. Takes some 100 ms.
    pub fn roll_keys(&self) -> Result<String, KeyError> {
        self.azure.roll_keys()
    }

    /// Publishes only the signing key from now on.
    pub fn drop_old_keys(&self) {
        self.azure.keys.drop_old();
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.azure.counters.snapshot()
    }

    /// Stops all services and waits until their sockets are closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn bind(
    service: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind {
        service,
        address: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
