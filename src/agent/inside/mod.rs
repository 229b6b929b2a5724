//! Mode `in-pod`: a listener inside each pod's network namespace. There the listener *is* the identity: no source
//! address is believed, so none can be forged; and it works where the node's netfilter does not see pods' packets.
//!
//! In: the runtime's bundles, the directory. Out: listeners that come and go with their pods' sandboxes. Blocks on the
//! kernel and the disk. Holds that nothing but a pod's own namespace is entered, that what is answered there is that
//! pod's or nobody's, and that nothing of a sandbox that is gone is held. The node's rules stay: they close the metadata
//! address until a listener stands, and where a pod takes its own away.

mod answer;
mod bundles;
mod divert;
mod enter;
mod errands;
mod holder;
mod lay;
mod leaving;
mod listeners;
mod metrics;
mod namespace;
mod roster;
mod sandbox;
mod sever;
mod stage;
mod unheard;

use std::path::PathBuf;

use tokio::task::JoinSet;

pub use self::enter::Door;
pub use self::holder::Holder;
pub use self::leaving::Leaving;
pub use self::listeners::Listeners;
pub use self::metrics::InsideMetrics;
use self::namespace::Namespace;
pub use self::unheard::Unheard;
use crate::agent::config::NodeMode;

/// What a pod finds inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Face {
    /// IMDS, at 169.254.169.254.
    Imds,
    /// The virtual machine extension's endpoint, at localhost:50342.
    VmExtension,
}

impl Face {
    const ALL: [Self; 2] = [Self::Imds, Self::VmExtension];

    /// Connections that each listener has for itself, whatever other pods do.
    const fn own_part(self) -> usize {
        match self {
            Self::Imds => 16,
            Self::VmExtension => 4,
        }
    }
}

/// What is served where.
#[derive(Clone, Debug)]
pub struct InsideConfig {
    /// Which pods are served so.
    pub mode: NodeMode,
    /// Whether such pods have the virtual machine extension's endpoint, too, unless they say otherwise.
    pub vm_extension: bool,
    /// Where pods' networks are found.
    pub folders: Folders,
    /// Of a `lanyard hold`, at which listeners outlive the agent.
    pub hold_socket: Option<PathBuf>,
}

/// Where pods' networks are found.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The runtime's bundles, a folder for each container.
    pub bundles: PathBuf,
    /// Named network namespaces.
    pub namespaces: PathBuf,
}

impl Folders {
    /// Takes what was laid out of all pods of this node; from how many. Listeners end with their agents. One pod that
    /// cannot be cleared keeps no other from it; the error names the first.
    pub async fn clear(&self, door: &Door) -> anyhow::Result<usize> {
        let mut work = JoinSet::new();
        for sandbox in bundles::now(&self.bundles) {
            let (door, namespaces) = (door.clone(), self.namespaces.clone());
            work.spawn(async move {
                let cleared = match Namespace::open(&namespaces, &sandbox.namespace) {
                    Ok(namespace) => door.enter(namespace, lay::clear, async || {}).await,
                    Err(error) => Err(error),
                };
                (sandbox.uid, cleared)
            });
        }
        let (mut cleared, mut failed) = (0, None);
        while let Some(done) = work.join_next().await {
            match done? {
                (_, Ok(was_there)) => cleared += usize::from(was_there),
                // It went meanwhile.
                (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                (uid, Err(error)) => {
                    tracing::warn!(uid = &*uid, %error, "a pod's network cannot be cleared");
                    failed.get_or_insert((uid, error));
                }
            }
        }
        match failed {
            None => Ok(cleared),
            Some((uid, error)) => {
                anyhow::bail!("the network of pod {uid} cannot be cleared: {error}")
            }
        }
    }
}
