//! One errand in one pod's network: what is done there, and what became of it.
//!
//! In: a sandbox, an errand. Out: listeners, or what was in the way. Blocks on the kernel, in a thread of its own.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use super::enter::Door;
use super::holder::Holder;
use super::lay::{self, Taken};
use super::namespace::{Namespace, Number};
use super::sandbox::Sandbox;
use super::stage::Errand;
use super::{Face, Folders};

/// What was done in a namespace.
#[derive(Debug)]
pub enum Did {
    /// It is served by these.
    Laid(Number, Vec<TcpListener>),
    /// A program of the pod's own was there first.
    Taken(Taken),
    /// Whether anything was amiss.
    Mended(bool),
    /// Nothing of ours is there.
    Cleared,
}

/// Whether what comes too late is to be taken away again.
pub type IsToBeClear = Arc<dyn Fn() -> bool + Send + Sync>;

/// Where errands are run.
#[derive(Clone)]
pub struct Errands {
    /// Where namespaces are.
    pub folders: Folders,
    /// The way into them.
    pub door: Door,
    /// Whether nothing of ours is to be in pods any more. A thread that ends after its deadline asks.
    pub is_to_be_clear: IsToBeClear,
    /// What an agent before left.
    pub holder: Holder,
}

impl Errands {
    /// Runs one.
    pub async fn run(self, sandbox: Sandbox, face: Face, errand: Errand) -> io::Result<Did> {
        let Self {
            folders,
            door,
            is_to_be_clear,
            holder,
        } = self;
        let open = || Namespace::open(&folders.namespaces, &sandbox.namespace);
        let nothing = async || {};
        let undo = async move || {
            if is_to_be_clear() {
                // The pod may be gone, and nobody is there to hear of anything else.
                let _ = lay::clear().await;
            }
        };
        match (face, errand) {
            (_, Errand::Lay) => {
                let namespace = open()?;
                let number = namespace.number();
                let left = lay::still_listening(holder.left((number, face))?);
                let laid = match face {
                    Face::Imds => door.enter(namespace, || lay::lay(left), undo).await,
                    Face::VmExtension if !left.is_empty() => Ok(Ok(left)),
                    Face::VmExtension => {
                        let lay = async || lay::vm_extension();
                        door.enter(namespace, lay, nothing).await
                    }
                };
                laid.map(|laid| laid.map_or_else(Did::Taken, |all| Did::Laid(number, all)))
            }
            (Face::Imds, Errand::Mend) => {
                let mended = door.enter(open()?, lay::mend, undo).await;
                mended.map(Did::Mended)
            }
            (Face::Imds, Errand::Clear) => {
                let namespace = open()?;
                holder.let_go((namespace.number(), face));
                let cleared = door.enter(namespace, lay::clear, nothing).await;
                cleared.map(|_| Did::Cleared)
            }
            // There is nothing but the listeners.
            (Face::VmExtension, Errand::Mend) => Ok(Did::Mended(false)),
            (Face::VmExtension, Errand::Clear) => {
                // Of a namespace that is gone nothing was left.
                if let Ok(namespace) = open() {
                    holder.let_go((namespace.number(), face));
                }
                Ok(Did::Cleared)
            }
        }
    }
}
