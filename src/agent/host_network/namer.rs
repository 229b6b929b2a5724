//! From a connection to a pod's UID.
//!
//! In: a peer, the directory. Out: its pod, or why it has none. Blocks on the file system where a cgroup is new, in a thread for
//! that; else it waits for nobody.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use super::cgroups::{Cgroups, Whose};
use super::hierarchy::Hierarchy;
use super::sockets::Sockets;
use crate::agent::directory::Published;
use crate::serve::Peer;

/// Why a connection is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unnamed {
    /// The socket is there no more, or only lingers.
    #[error("its socket is gone")]
    Gone,
    /// It was not meant for the metadata service.
    #[error("it came to the agent's own address, not by the rules")]
    MeantUs,
    /// Its socket was made outside of all pods.
    #[error("its socket is in no pod's cgroup")]
    NoPod,
    /// The kernel does not say.
    #[error("the kernel does not tell: {0}")]
    Kernel(String),
}

/// No cgroup has this number.
const NOBODY: u64 = 0;

/// Tells who is at the other end.
pub struct Namer {
    here: SocketAddrV4,
    sockets: Sockets,
    cgroups: Arc<Cgroups>,
    directory: Arc<Published>,
}

impl Namer {
    /// For a listener at `here`.
    pub fn open(
        here: SocketAddrV4,
        hierarchy: &Hierarchy,
        directory: Arc<Published>,
    ) -> io::Result<Self> {
        Ok(Self {
            here,
            sockets: Sockets::open()?,
            cgroups: Arc::new(Cgroups::of(hierarchy)),
            directory,
        })
    }

    /// Whose a connection is as far as that is known without looking; `None`: it comes from elsewhere than this node's own
    /// network. Does not wait. Connections whose socket is not found count together; those of a cgroup that is no pod's, or not
    /// known yet, by that cgroup.
    pub fn whose(&self, peer: SocketAddr) -> Option<Peer> {
        let SocketAddr::V4(peer) = peer else {
            return None;
        };
        if !self.sockets.is_own(*peer.ip()) {
            return None;
        }
        let Ok(id) = self.sockets.cgroup(self.here, peer) else {
            return Some(Peer::Numbered(NOBODY));
        };
        Some(match self.cgroups.known(id).and_then(Whose::uid) {
            Some(uid) => Peer::Named(uid),
            None => Peer::Numbered(id),
        })
    }

    /// The UID of the peer's pod.
    pub async fn name(&self, peer: SocketAddr) -> Result<Arc<str>, Unnamed> {
        let SocketAddr::V4(peer) = peer else {
            return Err(Unnamed::MeantUs);
        };
        let id = self.sockets.cgroup(self.here, peer)?;
        let whose = match self.cgroups.known(id) {
            Some(known) => known,
            None => self.look(id).await?,
        };
        whose.uid().ok_or(Unnamed::NoPod)
    }

    async fn look(&self, id: u64) -> Result<Whose, Unnamed> {
        let cgroups = self.cgroups.clone();
        let is_elsewhere = is_elsewhere(&self.directory);
        let looked = tokio::task::spawn_blocking(move || cgroups.look(id, is_elsewhere));
        let whose = looked.await.map_err(io::Error::from).flatten();
        whose.map_err(|error| Unnamed::Kernel(error.to_string()))
    }

    /// Follows cgroups as they come and go, so that most are known before they ask. Never ends. Without it each is looked for
    /// when it asks.
    pub fn following(&self) -> impl Future<Output = Infallible> + Send + use<> {
        let (cgroups, directory) = (self.cgroups.clone(), self.directory.clone());
        async move {
            if let Err(error) = follow(cgroups, directory).await {
                tracing::warn!(%error, "cgroups are not followed: each new container's is looked for when it asks");
            }
            pending().await
        }
    }
}

/// Whether a pod is known to have a network of its own.
fn is_elsewhere(directory: &Published) -> impl Fn(&str) -> bool + Send + use<> {
    let directory = directory.load().clone();
    move |uid| directory.of_uid(uid).is_some_and(|of| !of.pod.host_network)
}

async fn follow(cgroups: Arc<Cgroups>, directory: Arc<Published>) -> io::Result<()> {
    let Some(inotify) = cgroups.inotify() else {
        return Ok(()); // told where that was found
    };
    let readable = inotify.as_fd().try_clone_to_owned()?;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; an owned descriptor stays open"
    )]
    let readable = AsyncFd::new(readable)?;
    // Before that every pod might be a host-network pod.
    let mut published = directory.subscribe();
    while directory.is_empty() {
        published.changed().await.map_err(io::Error::other)?;
    }
    let (walking, elsewhere) = (cgroups.clone(), is_elsewhere(&directory));
    tokio::task::spawn_blocking(move || walking.walk(elsewhere)).await?;
    loop {
        // Whoever looks for one reads the events, too: then there are none left.
        readable.readable().await?.clear_ready();
        let (following, elsewhere) = (cgroups.clone(), is_elsewhere(&directory));
        tokio::task::spawn_blocking(move || following.follow(elsewhere)).await?;
    }
}
