//! Who may hold a connection: a count of all, a count for each peer, and a way to cut what is left.
//!
//! Asked once for each accepted connection; blocks on nothing but a short lock. Invariant: every
//! admitted connection is counted until its [`Ticket`] is dropped, also when its task is cut.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::limits::Limits;

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Those from an address.
    Address(IpAddr),
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

/// The open connections of one listener.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    per_peer: usize,
    open: Mutex<Open>,
    empty: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    tasks: HashMap<u64, Option<AbortHandle>>,
    peers: HashMap<Peer, usize>,
}

/// The right to hold one connection; gives it back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    peer: Peer,
    id: u64,
}

impl Admission {
    /// Nothing open yet.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Admission {
            connections: limits.connections,
            per_peer: limits.connections_per_peer,
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
        let count = open.peers.entry(peer.clone()).or_default();
        if *count >= self.per_peer {
            return Err(Refused::Peer);
        }
        *count += 1;
        let id = open.next_id;
        open.next_id += 1;
        open.tasks.insert(id, None);
        Ok(Ticket {
            admission: Arc::clone(self),
            peer,
            id,
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
