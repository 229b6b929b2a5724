//! Who asks, as far as the connection tells. Pure.
//!
//! By redirection that is an address, which a neighbour may forge. A listener inside a pod's own network
//! namespace *is* the pod: there no address is believed. On the node's own network the address is everybody's, and the
//! socket tells. And somebody on the node may ask on behalf of a pod that he names, where the API server says that he may.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::host_network::Unnamed;
use crate::model::ids::ObjectName;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Whoever has this address.
    Address(IpAddr),
    /// The pod of this UID: it asks from inside its network namespace.
    Inside(Arc<str>),
    /// The host-network pod of this UID: the socket at the other end was made in its cgroup.
    Host(Arc<str>),
    /// A socket on the node's own network that is no pod's.
    Nobody(SocketAddr, Unnamed),
    /// Somebody who may ask on behalf of a pod.
    Named(Arc<Named>),
}

/// A pod, and who asks on its behalf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    /// The pod.
    pub pod: ObjectName,
    /// The user name of who asks, as the API server says it.
    pub by: Arc<str>,
}

impl Origin {
    /// Of a peer. An IPv4 peer of a dual-stack listener comes as `::ffff:a.b.c.d`.
    #[must_use]
    pub const fn of(peer: IpAddr) -> Self {
        Self::Address(peer.to_canonical())
    }

    /// Who asks on the pod's behalf; `None`: it asks itself.
    #[must_use]
    pub fn asked_by(&self) -> Option<&str> {
        match self {
            Self::Named(named) => Some(&named.by),
            Self::Address(_) | Self::Inside(_) | Self::Host(_) | Self::Nobody(..) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Inside(uid) => write!(f, "inside pod {uid}"),
            Self::Named(named) => write!(f, "on behalf of {}", named.pod),
            Self::Host(uid) => write!(f, "host-network pod {uid}"),
            // Without the port: any number of them would be any number of callers.
            Self::Nobody(peer, why) => write!(f, "{} on the node's network ({why})", peer.ip()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_the_same() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), Origin::Inside("10.0.0.1".into()));
    }
}
