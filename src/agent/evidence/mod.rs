//! Local evidence: where, on this node, an address is right now. Invariant 3 (no wrong identity).
//!
//! In: the kernel's links, routes and neighbours, by rtnetlink. Out: [`Sighting`]s, read without a
//! system call on the request path, and a generation that rises whenever one may have changed.
//! Blocks nowhere but in its own task. Invariant: what is not known is said to be unknown; a route
//! whose interface has gone is forgotten at once, whether the kernel says so or not.

mod netlink;
mod table;

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use table::Table;

/// Where an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// The interface that the most specific route leads to: the pod's veth, or its bridge. `None`
    /// when only the default route, or none, covers the address.
    pub ifindex: Option<u32>,
    /// The neighbour's link-layer address on that interface, if the kernel has resolved it.
    pub mac: Option<[u8; 6]>,
    /// If the interface is a bridge: the port on which it last saw that link-layer address.
    pub port: Option<u32>,
    /// When the link that the address was behind was deleted last: 0 for never, else a number that
    /// only rises.
    pub departed: u64,
}

impl Sighting {
    /// Whether `now` contradicts this earlier sighting: something known then is known to be
    /// different now, or its link was deleted since. What was or is unknown contradicts nothing.
    pub fn contradicts(&self, now: &Self) -> bool {
        fn differ<T: PartialEq>(before: Option<T>, now: Option<T>) -> bool {
            matches!((before, now), (Some(before), Some(now)) if before != now)
        }
        differ(self.ifindex, now.ifindex)
            || differ(self.mac, now.mac)
            || differ(self.port, now.port)
            || now.departed > self.departed
    }

    /// This sighting, completed by what `later` knows and it did not.
    #[must_use]
    pub fn completed_by(self, later: &Self) -> Self {
        Self {
            ifindex: self.ifindex.or(later.ifindex),
            mac: self.mac.or(later.mac),
            port: self.port.or(later.port),
            ..self
        }
    }
}

/// Why there is no local evidence.
#[derive(Debug, thiserror::Error)]
#[error("local evidence by rtnetlink ({what}): {why}")]
pub struct EvidenceError {
    /// Which conversation.
    pub what: &'static str,
    /// The system's words.
    pub why: String,
}

/// The node's current state, kept by a task. Clones read the same.
#[derive(Clone, Debug)]
pub struct Evidence {
    table: Arc<RwLock<Table>>,
    generation: watch::Receiver<u64>,
}

impl Evidence {
    /// Reads the state once, and keeps it current until `shutdown`.
    pub async fn start(shutdown: CancellationToken) -> Result<Self, EvidenceError> {
        let table = Arc::<RwLock<Table>>::default();
        let (risen, generation) = watch::channel(1);
        let kernel = netlink::Kernel::open()?;
        kernel.questions.refresh(&table).await?;
        let kept = table.clone();
        tokio::spawn(async move {
            shutdown
                .run_until_cancelled(Box::pin(kernel.keep(&kept, &risen)))
                .await;
        });
        Ok(Self { table, generation })
    }

    /// Where the address is now.
    pub fn of(&self, address: IpAddr) -> Sighting {
        self.table.read().of(address.to_canonical())
    }

    /// The link of its own (veth) that the address was last behind.
    pub fn behind(&self, address: IpAddr) -> Option<u32> {
        self.table.read().behind(address.to_canonical())
    }

    /// Whether the address is on a bridge, where a neighbour may claim it.
    pub fn is_on_bridge(&self, address: IpAddr) -> bool {
        self.table.read().is_on_bridge(address.to_canonical())
    }

    /// Another process on this node saw the address behind this link. If the link has gone, the
    /// address departed when nobody looked.
    pub fn recall(&self, address: IpAddr, link: u32) {
        self.table.write().recall(address.to_canonical(), link);
    }

    /// Rises with every change of routes, links or neighbours that may concern a pod.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(ifindex: Option<u32>, last: Option<u8>) -> Sighting {
        Sighting {
            ifindex,
            mac: last.map(|last| [2, 0, 0, 0, 0, last]),
            ..Sighting::default()
        }
    }

    #[test]
    fn only_something_known_that_became_something_else_is_a_change() {
        let known = sighting(Some(7), Some(1));
        for (now, is_change) in [
            (sighting(Some(7), Some(1)), false),
            (sighting(None, None), false),
            (sighting(Some(7), None), false),
            (sighting(Some(8), None), true),
            (sighting(Some(7), Some(2)), true),
            (sighting(None, Some(2)), true),
        ] {
            assert_eq!(known.contradicts(&now), is_change, "{now:?}");
            assert!(
                !sighting(None, None).contradicts(&now),
                "unknown to known: {now:?}"
            );
        }
    }

    #[test]
    fn a_sighting_is_completed_and_never_overwritten() {
        let completed = sighting(Some(7), None).completed_by(&sighting(Some(8), Some(1)));
        assert_eq!(completed, sighting(Some(7), Some(1)));
    }
}
