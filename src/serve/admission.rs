//! Who may hold a connection: a count of all, a count for each peer, and a way to cut what is left. Where many listeners
//! are one for each client, each has a part of its own, and more of a pool as far as that goes: no client can take what
//! another needs, and all together have a bound.
//!
//! Asked once for each accepted connection; blocks on nothing but a short lock. Invariant: every
//! admitted connection is counted until its [`Ticket`] is dropped, also when its task is cut.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::limits::Limits;

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Those from an address.
    Address(IpAddr),
    /// The same of one that nobody is known to have; all of these together have a quarter of the listener's.
    Stranger(IpAddr),
    /// Those of somebody who is told otherwise, by name.
    Named(Arc<str>),
    /// The same, by a number.
    Numbered(u64),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

/// Why a connection was closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The listener is not there for this peer.
    Foreign,
    /// The listener has as many connections as it may.
    Total,
    /// This peer has as many connections as it may.
    Peer,
}

/// Connections that listeners share, beyond what each has for itself. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Semaphore>);

impl Pool {
    /// With room for so many.
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }
}

/// The open connections of one listener.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    per_peer: usize,
    /// What the listener has for itself, and whom it asks for more.
    shares: Option<(usize, Pool)>,
    open: Mutex<Open>,
    empty: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    tasks: HashMap<u64, Option<AbortHandle>>,
    peers: HashMap<Peer, usize>,
    /// Those that have their place from the pool.
    pooled: usize,
    /// Those of [`Peer::Stranger`].
    strangers: usize,
}

/// The right to hold one connection; gives it back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    peer: Peer,
    id: u64,
    pooled: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Nothing open yet.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Self::of(limits.connections, limits, None)
    }

    /// The same for a listener that one client has for itself: bounded as a peer, whatever addresses it asks from. `own`
    /// connections are always to be had; what is beyond is taken from the pool.
    pub fn sharing(limits: &Limits, own: usize, pool: &Pool) -> Arc<Self> {
        Self::of(usize::MAX, limits, Some((own, pool.clone())))
    }

    fn of(connections: usize, limits: &Limits, shares: Option<(usize, Pool)>) -> Arc<Self> {
        Arc::new(Admission {
            connections,
            per_peer: limits.connections_per_peer,
            shares,
            open: Mutex::default(),
            empty: Notify::new(),
        })
    }

    /// One more connection of `peer`, or the limit that forbids it.
    pub fn admit(self: &Arc<Self>, peer: impl Into<Peer>) -> Result<Ticket, Refused> {
        let peer = peer.into();
        let mut open = self.open.lock();
        if open.tasks.len() >= self.connections {
            return Err(Refused::Total);
        }
        let count = match &self.shares {
            Some(_) => open.tasks.len(),
            None => open.peers.get(&peer).copied().unwrap_or_default(),
        };
        let is_stranger = matches!(peer, Peer::Stranger(_));
        if count >= self.per_peer || is_stranger && open.strangers >= self.connections / 4 {
            return Err(Refused::Peer);
        }
        let pooled = match &self.shares {
            Some((own, Pool(pool))) if open.tasks.len() - open.pooled >= *own => {
                let place = pool.clone().try_acquire_owned();
                Some(place.map_err(|_| Refused::Total)?)
            }
            _ => None,
        };
        open.pooled += usize::from(pooled.is_some());
        open.strangers += usize::from(is_stranger);
        *open.peers.entry(peer.clone()).or_default() += 1;
        let id = open.next_id;
        open.next_id += 1;
        open.tasks.insert(id, None);
        Ok(Ticket {
            admission: Arc::clone(self),
            peer,
            id,
            pooled,
        })
    }

    /// Remembers how the task that holds ticket `id` is cut. A task that has ended is not remembered.
    pub fn started(&self, id: u64, task: AbortHandle) {
        if let Some(slot) = self.open.lock().tasks.get_mut(&id) {
            *slot = Some(task);
        }
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.open.lock().tasks.len()
    }

    /// Cuts every connection that is still open.
    pub fn cut(&self) {
        for task in self.open.lock().tasks.values().flatten() {
            task.abort();
        }
    }

    /// Ends when no connection is open.
    pub async fn all_closed(&self) {
        let mut empty = std::pin::pin!(self.empty.notified());
        loop {
            empty.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            empty.as_mut().await;
            empty.set(self.empty.notified());
        }
    }
}

impl Ticket {
    /// The number under which [`Admission::started`] knows this connection.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.tasks.remove(&self.id);
        open.pooled -= usize::from(self.pooled.is_some());
        open.strangers -= usize::from(matches!(self.peer, Peer::Stranger(_)));
        if let Some(count) = open.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.peers.remove(&self.peer);
            }
        }
        if open.tasks.is_empty() {
            self.admission.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_refuses_by_its_name_and_a_dropped_ticket_makes_room() {
        let admission = Admission::new(&Limits {
            connections: 3,
            connections_per_peer: 2,
            ..Limits::default()
        });
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert_eq!(admission.admit(a).unwrap_err(), Refused::Peer);
        let _other = admission.admit(b).unwrap();
        assert_eq!(admission.admit(b).unwrap_err(), Refused::Total);
        drop(first);
        assert!(admission.admit(a).is_ok());
    }

    #[test]
    fn whoever_nobody_knows_has_a_quarter_by_whatever_addresses() {
        let admission = Admission::new(&Limits {
            connections: 16,
            connections_per_peer: 3,
            ..Limits::default()
        });
        let from = |number: u8| IpAddr::from([127, 0, 0, number]);
        let mut strangers: Vec<_> = (0..16)
            .flat_map(|n| admission.admit(Peer::Stranger(from(n))))
            .collect();
        assert_eq!(strangers.len(), 4);
        assert!(admission.admit(from(1)).is_ok(), "a pod's");
        strangers.pop();
        let one = Peer::Stranger(from(1));
        assert!(admission.admit(one).is_ok());
    }

    #[test]
    fn who_takes_all_that_is_shared_takes_nothing_of_anothers_own() {
        let limits = Limits {
            connections_per_peer: 6,
            ..Limits::default()
        };
        let pool = Pool::new(3);
        let [flooded, other] = [(); 2].map(|()| Admission::sharing(&limits, 2, &pool));
        // Whatever it asks from is the same client.
        let from = |number: u8| IpAddr::from([127, 0, 0, number]);
        let mut held: Vec<_> = (0..5).map(|n| flooded.admit(from(n)).unwrap()).collect();
        assert_eq!(flooded.admit(from(9)).unwrap_err(), Refused::Total);
        let own: Vec<_> = (0..2).map(|n| other.admit(from(n)).unwrap()).collect();
        assert_eq!(other.admit(from(1)).unwrap_err(), Refused::Total);
        // One of the shared ones ends: whoever comes next has it.
        held.pop();
        let shared = other.admit(from(1)).unwrap();
        assert_eq!(flooded.admit(from(1)).unwrap_err(), Refused::Total);
        drop((held, own, shared));
        assert_eq!(pool.0.available_permits(), 3);
        let alone = Admission::sharing(&limits, 6, &pool);
        let _held: Vec<_> = (0..6).map(|n| alone.admit(from(n)).unwrap()).collect();
        assert_eq!(alone.admit(from(7)).unwrap_err(), Refused::Peer);
    }

    #[test]
    fn nothing_is_remembered_of_peers_that_left() {
        let admission = Admission::new(&Limits::default());
        drop(admission.admit(IpAddr::from([10, 0, 0, 1])).unwrap());
        assert_eq!(admission.count(), 0);
        assert!(admission.open.lock().peers.is_empty());
    }

    #[tokio::test]
    async fn the_last_one_out_is_noticed() {
        let admission = Admission::new(&Limits::default());
        let ticket = admission.admit(IpAddr::from([10, 0, 0, 1])).unwrap();
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.all_closed().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(ticket);
        waiting.await.unwrap();
    }
}
