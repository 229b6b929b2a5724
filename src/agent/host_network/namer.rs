//! From a connection to a pod's UID.
//!
//! In: a peer, the directory. Out: its pod, or why it has none. Blocks on the file system where a cgroup is new, in a thread for
//! that; else it waits for nobody.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use super::cgroups::Cgroups;
use super::hierarchy::Hierarchy;
use super::sockets::Sockets;
use crate::agent::directory::Published;

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
        hierarchy: Hierarchy,
        directory: Arc<Published>,
    ) -> io::Result<Self> {
        Ok(Self {
            here,
            sockets: Sockets::open()?,
            cgroups: Arc::new(Cgroups::of(hierarchy)),
            directory,
        })
    }

    /// The UID of the peer's pod.
    pub async fn name(&self, peer: SocketAddr) -> Result<Arc<str>, Unnamed> {
        let SocketAddr::V4(peer) = peer else {
            return Err(Unnamed::MeantUs);
        };
        let id = self.sockets.cgroup(self.here, peer)?;
        if let Some(known) = self.cgroups.known(id) {
            return known.ok_or(Unnamed::NoPod);
        }
        let cgroups = self.cgroups.clone();
        let directory = self.directory.load().clone();
        let looked = tokio::task::spawn_blocking(move || {
            let is_elsewhere =
                |uid: &str| directory.of_uid(uid).is_some_and(|of| !of.pod.host_network);
            cgroups.look(id, is_elsewhere)
        });
        let looked = looked.await;
        let uid = looked.map_err(|error| Unnamed::Kernel(error.to_string()))?;
        uid.ok_or(Unnamed::NoPod)
    }
}
