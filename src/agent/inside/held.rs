//! The agent's side of `lanyard hold`: what we listen at is held there, too, so that it outlives us.
//!
//! In: listeners, by the namespace that they are in and what they are for. Out: to the next agent, those of the one
//! before. A namespace's number is its for as long as a socket is in it, so nothing is ever taken for another pod's. Without
//! a holder all of it does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_seqpacket::UnixSeqpacket;
use tokio_util::sync::CancellationToken;

use super::Face;
use super::namespace::Number;
use crate::hold::Packet;
use crate::serve::series::value;

/// How long pods wait for a holder that does not answer.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long what another agent left waits to be taken. Whose pod is gone, or is not to be served any more, is not.
const LEFT: Duration = Duration::from_secs(10);
/// Between attempts to reach the holder.
const PAUSE: Duration = Duration::from_secs(1);

/// Where listeners are.
pub type Place = (Number, Face);

/// The agent's side. Clones are the same.
#[derive(Clone)]
pub struct Held(Option<Arc<Shared>>);

struct Shared {
    socket: PathBuf,
    state: Mutex<State>,
    changed: Notify,
    /// The holder has told what was left, or there is none.
    looked: CancellationToken,
    gauge: IntGauge,
}

#[derive(Default)]
struct State {
    ours: BTreeMap<String, Listening>,
    /// Of the agent before; until somebody takes it.
    left: BTreeMap<String, Vec<OwnedFd>>,
    /// Nothing more is taken over: what was left late would be beside listeners that are there.
    is_late: bool,
    /// Ours are to outlive us.
    is_active: bool,
    latest: u64,
}

/// Sockets that we listen at.
struct Listening {
    /// No others of ours have it.
    edition: u64,
    sockets: Vec<OwnedFd>,
}

/// What the holder has of us: an edition for each name; 0 for what it had before us.
type Told = BTreeMap<String, u64>;

/// What it is to be told.
#[derive(Debug)]
enum Word {
    Hold(String, u64, Vec<OwnedFd>),
    Release(String),
}

impl Held {
    /// A holder at this socket, or none. `gauge`: names that it has of us.
    pub fn at(socket: Option<PathBuf>, gauge: IntGauge) -> Self {
        Self(socket.map(|socket| {
            Arc::new(Shared {
                socket,
                state: Mutex::default(),
                changed: Notify::new(),
                looked: CancellationToken::new(),
                gauge,
            })
        }))
    }

    /// Until it is known what was left; not for long.
    pub async fn looked(&self) {
        let Some(shared) = &self.0 else { return };
        if timeout(FIRST_LOOK, shared.looked.cancelled())
            .await
            .is_err()
        {
            tracing::warn!(socket = %shared.socket.display(), "the holder of listeners does not answer");
        }
        let mut state = shared.state.lock();
        state.is_late = true;
    }

    /// Takes over what the agent before listened at.
    pub fn take(&self, place: Place) -> Vec<TcpListener> {
        let Some(shared) = &self.0 else {
            return Vec::new();
        };
        let left = shared.state.lock().left.remove(&name(place));
        left.into_iter().flatten().map(TcpListener::from).collect()
    }

    /// From now on these are to outlive us.
    pub fn hold(&self, place: Place, listeners: &[TcpListener]) -> io::Result<()> {
        let Some(shared) = &self.0 else {
            return Ok(());
        };
        let sockets = listeners.iter().map(|one| Ok(one.try_clone()?.into()));
        let sockets = sockets.collect::<io::Result<_>>()?;
        let mut state = shared.state.lock();
        state.latest += 1;
        let edition = state.latest;
        let listening = Listening { edition, sockets };
        state.ours.insert(name(place), listening);
        shared.changed.notify_one();
        Ok(())
    }

    /// Lets go of all others. Unless `is_active` nothing of ours outlives us; it is not forgotten.
    pub fn keep_only(&self, places: impl Iterator<Item = Place>, is_active: bool) {
        let Some(shared) = &self.0 else { return };
        let names: BTreeSet<String> = places.map(name).collect();
        let mut state = shared.state.lock();
        let before = (state.ours.len(), state.is_active);
        state.ours.retain(|name, _| names.contains(name));
        state.is_active = is_active;
        if before != (state.ours.len(), is_active) {
            shared.changed.notify_one();
        }
    }

    /// The agent ends: only the holder has them still, and is told nothing any more (who follows has ended).
    pub fn part(&self) {
        if let Some(shared) = &self.0 {
            shared.state.lock().ours.clear();
        }
    }

    /// Keeps the holder informed, for ever.
    pub async fn follow(self) {
        let Some(shared) = self.0 else { return };
        loop {
            if let Err(error) = shared.converse().await {
                tracing::debug!(%error, "no conversation with the holder of listeners");
            }
            shared.looked.cancel();
            shared.gauge.set(0);
            sleep(PAUSE).await;
        }
    }
}

impl Shared {
    async fn converse(&self) -> io::Result<()> {
        let socket = UnixSeqpacket::connect(&self.socket).await?;
        let mut told = self.hear(&socket).await?;
        self.looked.cancel();
        let end = Instant::now() + LEFT;
        loop {
            let words = self.state.lock().words(&told)?;
            for word in words {
                match word {
                    Word::Hold(name, edition, sockets) => {
                        Packet::hold(&socket, &name, &sockets).await?;
                        told.insert(name, edition);
                    }
                    Word::Release(name) => {
                        Packet::release(&socket, &name).await?;
                        told.remove(&name);
                    }
                }
            }
            let is_left = !self.state.lock().left.is_empty();
            self.gauge.set(value(told.len()));
            tokio::select! {
                () = self.changed.notified() => {}
                // It has nothing more to say.
                heard = Packet::receive(&socket) => return heard.map(drop),
                () = sleep_until(end), if is_left => self.state.lock().left.clear(),
            }
        }
    }

    /// What is held there.
    async fn hear(&self, socket: &UnixSeqpacket) -> io::Result<Told> {
        let mut told = Told::new();
        while let Some(packet) = Packet::receive(socket).await? {
            match packet {
                Packet::Hold { name, sockets } => {
                    let mut state = self.state.lock();
                    if !state.is_late {
                        state.left.insert(name.clone(), sockets);
                    }
                    told.insert(name, 0);
                }
                Packet::Release { .. } => {}
                Packet::AllTold => return Ok(told),
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

impl State {
    /// From what the holder has to what it is to have.
    fn words(&self, told: &Told) -> io::Result<Vec<Word>> {
        let mut words = Vec::new();
        let ours = || self.ours.iter().filter(|_| self.is_active);
        for (name, listening) in ours() {
            if told.get(name) != Some(&listening.edition) {
                let sockets = listening.sockets.iter().map(OwnedFd::try_clone);
                let sockets = sockets.collect::<io::Result<_>>()?;
                words.push(Word::Hold(name.clone(), listening.edition, sockets));
            }
        }
        let stays =
            |name: &String| self.left.contains_key(name) || ours().any(|(ours, _)| ours == name);
        let gone = told.keys().filter(|name| !stays(name));
        words.extend(gone.map(|name| Word::Release(name.clone())));
        Ok(words)
    }
}

fn name((number, face): Place) -> String {
    format!("{number}/{face:?}")
}
