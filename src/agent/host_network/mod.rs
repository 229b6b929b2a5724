//! Host-network pods: to netfilter they are the node.
//!
//! While nobody tells them apart they pass the agent by, which is at least told ([`Bypass`]). Told apart they are by
//! their sockets: the node's rules lead what pods' cgroups send to IMDS to a listener of its own, and there the
//! socket at the other end says which cgroup made it, and that says which pod. Programs of the node's own are in
//! no pod's cgroup: they never come here.
//!
//! In: cgroups, netlink. Out: a pod's UID for a connection, or that it is nobody's. Blocks on the kernel only. Holds
//! invariant 3: a socket that cannot be found, or that is in no pod's cgroup, is nobody's, never the node's.

mod answer;
mod apart;
mod bypass;
mod cgroups;
mod conversation;
mod hierarchy;
mod namer;
mod place;
mod sockets;
mod tree;

pub use self::answer::OnHost;
pub use self::apart::{Apart, ApartError};
pub use self::bypass::Bypass;
pub use self::hierarchy::Hierarchy;
pub use self::namer::{Namer, Unnamed};
