//! Who asks, as far as the connection tells. Pure.
//!
//! By redirection that is an address, which a neighbour may forge. A listener inside a pod's own network
//! namespace *is* the pod: there no address is believed.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Whoever has this address.
    Address(IpAddr),
    /// The pod of this UID: it asks from inside its network namespace.
    Inside(Arc<str>),
}

impl Origin {
    /// Of a peer. An IPv4 peer of a dual-stack listener comes as `::ffff:a.b.c.d`.
    #[must_use]
    pub const fn of(peer: IpAddr) -> Self {
        Self::Address(peer.to_canonical())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Inside(uid) => write!(f, "inside pod {uid}"),
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
