//! The agent's side of `lanyard hold`: what we listen at is held there, too, so that it outlives us.
//!
//! In: listeners, by the namespace that they are in and what they are for. Out: to the next agent, those of the one
//! before. A namespace's number is its for as long as a socket is in it, so nothing is ever taken for another pod's. Without
//! a holder all of it does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
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
/// How long a holder may take for a word.
const WORD: Duration = Duration::from_secs(2);
/// Between attempts to reach the holder.
const PAUSE: Duration = Duration::from_secs(1);

/// Where listeners are.
pub type Place = (Number, Face);

/// The holder, as the agent sees it. Clones are the same.
#[derive(Clone)]
pub struct Holder(Option<Arc<Shared>>);

struct Shared {
    socket: PathBuf,
    state: Mutex<State>,
    changed: Notify,
    /// It is known what was left, or not waited for any more. Nothing is taken over from then on: it would be beside
    /// listeners that are there.
    looked: CancellationToken,
    gauge: IntGauge,
}

#[derive(Default)]
struct State {
    ours: BTreeMap<String, Sockets>,
    /// Of the agent before; until somebody takes it.
    left: BTreeMap<String, Vec<OwnedFd>>,
    /// Whether ours are to outlive us, once that is known.
    outlives: Option<bool>,
    /// The holder is told nothing any more.
    is_over: bool,
}

/// Of one place. One that is made anew is another one.
type Sockets = Arc<Vec<OwnedFd>>;

/// What the holder has; of nobody any more where it is from before us.
type Told = BTreeMap<String, Weak<Vec<OwnedFd>>>;

/// What it is to hold by a name from now on, or to let go of.
type Word = (String, Option<Sockets>);

impl Holder {
    /// A holder at this socket, or none. `gauge`: how many places of ours it has.
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
    pub async fn until_looked(&self) {
        let Some(shared) = &self.0 else { return };
        let looked = timeout(FIRST_LOOK, shared.looked.cancelled());
        if looked.await.is_err() {
            tracing::warn!(socket = %shared.socket.display(), "the holder of listeners does not answer");
            let _state = shared.state.lock();
            shared.looked.cancel();
        }
    }

    /// What the agent before listened at. It stays here, too, until it is held anew or let go of.
    pub fn left(&self, place: Place) -> io::Result<Vec<TcpListener>> {
        let Some(shared) = &self.0 else {
            return Ok(Vec::new());
        };
        let state = shared.state.lock();
        let left = state.left.get(&name(place)).into_iter().flatten();
        left.map(|one| Ok(TcpListener::from(one.try_clone()?)))
            .collect()
    }

    /// What the agent before listened at there is to be nobody's.
    pub fn let_go(&self, place: Place) {
        let Some(shared) = &self.0 else { return };
        if let Some(left) = shared.state.lock().left.remove(&name(place)) {
            end(&left);
            shared.changed.notify_one();
        }
    }

    /// From now on these are to outlive us. Where that cannot be, pods are served all the same.
    pub fn hold(&self, place: Place, listeners: &[TcpListener]) {
        let Some(shared) = &self.0 else { return };
        let sockets = listeners.iter().map(|one| Ok(one.try_clone()?.into()));
        let sockets = sockets.collect::<io::Result<Vec<OwnedFd>>>();
        let mut state = shared.state.lock();
        state.left.remove(&name(place));
        match sockets {
            Ok(sockets) => drop(state.ours.insert(name(place), Arc::new(sockets))),
            Err(error) => {
                tracing::warn!(%error, "a pod's listener will not outlive the agent");
                state.ours.remove(&name(place));
            }
        }
        shared.changed.notify_one();
    }

    /// Ends all others. `outlives`: whether ours are to outlive us; they are not forgotten where not. While that is not
    /// known (`None`), what an agent before us had stays as it is.
    pub fn keep_only(&self, places: impl Iterator<Item = Place>, outlives: Option<bool>) {
        let Some(shared) = &self.0 else { return };
        let names: BTreeSet<String> = places.map(name).collect();
        let mut state = shared.state.lock();
        let before = (state.ours.len(), state.outlives);
        for (_, sockets) in state.ours.extract_if(.., |name, _| !names.contains(name)) {
            end(&sockets);
        }
        state.outlives = outlives;
        if before != (state.ours.len(), outlives) {
            shared.changed.notify_one();
        }
    }

    /// The agent ends, and accepts nothing any more: sockets that stayed open here would be nobody's. What the holder has
    /// stays as it is.
    pub fn leave_behind(&self) {
        if let Some(shared) = &self.0 {
            let mut state = shared.state.lock();
            state.is_over = true;
            state.ours.clear();
            state.left.clear();
        }
    }

    /// Keeps the holder informed, for ever.
    pub async fn follow(self) {
        let Some(shared) = self.0 else { return };
        let converse = async {
            loop {
                if let Err(error) = shared.converse().await {
                    tracing::debug!(%error, "no conversation with the holder of listeners");
                }
                shared.looked.cancel();
                shared.gauge.set(0);
                sleep(PAUSE).await;
            }
        };
        let forget = async {
            sleep(LEFT).await;
            shared.state.lock().left.clear();
            shared.changed.notify_one();
        };
        tokio::join!(converse, forget);
    }
}

impl Shared {
    async fn converse(&self) -> io::Result<()> {
        let socket = UnixSeqpacket::connect(&self.socket).await?;
        let mut told = timeout(WORD, self.hear(&socket)).await??;
        self.looked.cancel();
        loop {
            let words = self.state.lock().words(&told);
            for (name, sockets) in words {
                if let Some(sockets) = sockets {
                    timeout(WORD, Packet::hold(&socket, &name, &sockets)).await??;
                    told.insert(name, Arc::downgrade(&sockets));
                } else {
                    timeout(WORD, Packet::release(&socket, &name)).await??;
                    told.remove(&name);
                }
            }
            let ours = told.values().filter(|one| one.strong_count() > 0);
            self.gauge.set(value(ours.count()));
            tokio::select! {
                () = self.changed.notified() => {}
                // It has nothing more to say.
                heard = Packet::receive(&socket) => return heard.map(drop),
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
                    if !self.looked.is_cancelled() {
                        state.left.insert(name.clone(), sockets);
                    }
                    told.insert(name, Weak::new());
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
    fn words(&self, told: &Told) -> Vec<Word> {
        if self.is_over {
            return Vec::new();
        }
        let has = |name: &String, sockets: &Sockets| {
            let told = told.get(name);
            told.is_some_and(|told| told.as_ptr() == Arc::as_ptr(sockets))
        };
        let ours = self.ours.iter().filter(|_| self.outlives == Some(true));
        let new = ours.filter(|(name, sockets)| !has(name, sockets));
        let hold = new.map(|(name, sockets)| (name.clone(), Some(sockets.clone())));
        let stays = |name: &String| {
            self.left.contains_key(name)
                || (self.outlives != Some(false) && self.ours.contains_key(name))
        };
        let gone = told.keys().filter(|name| !stays(name));
        let release = gone.map(|name| (name.clone(), None));
        hold.chain(release).collect()
    }
}

/// Nobody listens at them any more, whoever else has them, too.
fn end(sockets: &[OwnedFd]) {
    for socket in sockets {
        // One that does not listen is not connected either.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
    }
}

fn name((number, face): Place) -> String {
    format!("{number}/{face:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        Arc::default()
    }

    #[test]
    fn the_holder_is_told_what_has_changed() {
        let (kept, replaced) = (sockets(), sockets());
        let mut state = State {
            ours: [("kept", kept.clone()), ("new", sockets())]
                .into_iter()
                .chain([("taken over", sockets()), ("replaced", sockets())])
                .map(|(name, sockets)| (name.to_owned(), sockets))
                .collect(),
            left: [("left".to_owned(), Vec::new())].into(),
            ..State::default()
        };
        let told: Told = [
            ("kept", Arc::downgrade(&kept)),
            ("replaced", Arc::downgrade(&replaced)),
            ("taken over", Weak::new()),
            ("left", Weak::new()),
            ("gone", Weak::new()),
        ]
        .map(|(name, sockets)| (name.to_owned(), sockets))
        .into();
        let words = |state: &State| -> BTreeSet<(String, bool)> {
            let words = state.words(&told).into_iter();
            words
                .map(|(name, sockets)| (name, sockets.is_some()))
                .collect()
        };
        let expected = |hold: &[&str], release: &[&str]| -> BTreeSet<(String, bool)> {
            let hold = hold.iter().map(|name| ((*name).to_owned(), true));
            let release = release.iter().map(|name| ((*name).to_owned(), false));
            hold.chain(release).collect()
        };
        // Not known yet whether another agent is there.
        assert_eq!(words(&state), expected(&[], &["gone"]));
        state.outlives = Some(true);
        let new = ["new", "replaced", "taken over"];
        assert_eq!(words(&state), expected(&new, &["gone"]));
        state.outlives = Some(false);
        let all = ["gone", "kept", "replaced", "taken over"];
        assert_eq!(words(&state), expected(&[], &all));
        state.is_over = true;
        assert_eq!(words(&state), expected(&[], &[]));
    }
}
