//! Holds what it is given, until it is told to let go, or no agent has come for some time.
//!
//! In: agents, one after the other; one that comes takes the place of the one before. Out: to each, what is held. Holds
//! that nothing is kept for longer than `patience` without an agent: a connection that nobody will answer is better
//! refused.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::packet::Packet;

/// How long an agent may take to hear what is held.
const HEARING: Duration = Duration::from_secs(2);
/// Rest after an error that is not a conversation's.
const PAUSE: Duration = Duration::from_millis(100);

type Held = BTreeMap<String, Vec<OwnedFd>>;

/// Holds until `stop`; then lets go of everything.
pub async fn run(
    mut listener: UnixSeqpacketListener,
    patience: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut held = Held::new();
    let mut agent: Option<UnixSeqpacket> = None;
    let mut end: Option<Instant> = None;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => match accepted {
                Ok(next) => {
                    if greet(&next, &held).await {
                        (agent, end) = (Some(next), None);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an agent, trying again");
                    sleep(PAUSE).await;
                }
            },
            heard = hear(agent.as_ref()) => {
                if let Some(packet) = heard {
                    take(&mut held, packet);
                } else {
                    agent = None;
                    end = (!held.is_empty()).then(|| Instant::now() + patience);
                    tracing::info!(held = held.len(), ?patience, "the agent is gone; holding its listeners");
                }
            }
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                tracing::warn!(held = held.len(), "no agent has come; pods are refused from now on");
                held.clear();
                end = None;
            }
        }
    }
}

/// Tells an agent what is held; whether it has heard it.
async fn greet(agent: &UnixSeqpacket, held: &Held) -> bool {
    let tell = async {
        for (name, sockets) in held {
            Packet::hold(agent, name, sockets).await?;
        }
        Packet::all_told(agent).await
    };
    let told = timeout(HEARING, tell).await;
    match told.map_err(io::Error::from).flatten() {
        Ok(()) => {
            tracing::info!(held = held.len(), "an agent has come");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "an agent has not heard what is held");
            false
        }
    }
}

/// The agent's next word; `None` when it is gone.
async fn hear(agent: Option<&UnixSeqpacket>) -> Option<Packet> {
    let Some(agent) = agent else {
        return pending().await;
    };
    match Packet::receive(agent).await {
        Ok(packet) => packet,
        Err(error) => {
            tracing::warn!(%error, "the agent cannot be understood");
            None
        }
    }
}

fn take(held: &mut Held, packet: Packet) {
    match packet {
        Packet::Hold { name, sockets } => {
            tracing::debug!(name, "held");
            held.insert(name, sockets);
        }
        Packet::Release { name } => {
            tracing::debug!(name, "released");
            held.remove(&name);
        }
        Packet::AllTold => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use tempfile::TempDir;
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    struct Holder {
        folder: TempDir,
        _running: JoinHandle<()>,
    }

    fn holder(patience: Duration) -> Holder {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixSeqpacketListener::bind(folder.path().join("s")).unwrap();
        let running = tokio::spawn(run(listener, patience, pending()));
        Holder {
            folder,
            _running: running,
        }
    }

    impl Holder {
        /// An agent's conversation, and what was held.
        async fn meet(&self) -> (UnixSeqpacket, Held) {
            let socket = UnixSeqpacket::connect(self.folder.path().join("s"));
            let (socket, mut held) = (socket.await.unwrap(), Held::new());
            loop {
                match Packet::receive(&socket).await.unwrap().unwrap() {
                    Packet::AllTold => return (socket, held),
                    packet => take(&mut held, packet),
                }
            }
        }
    }

    fn listening() -> (SocketAddr, [OwnedFd; 1]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), [listener.into()])
    }

    async fn until_refused(address: SocketAddr) {
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, refused).await.unwrap();
    }

    #[tokio::test]
    async fn what_an_agent_leaves_is_the_next_ones() {
        let holder = holder(LONG);
        let (agent, held) = holder.meet().await;
        assert!(held.is_empty());
        let ((kept, sockets), (gone, others)) = (listening(), listening());
        Packet::hold(&agent, "kept", &sockets).await.unwrap();
        Packet::hold(&agent, "gone", &others).await.unwrap();
        Packet::release(&agent, "gone").await.unwrap();
        drop((agent, sockets, others));
        until_refused(gone).await;
        let waiting = TcpStream::connect(kept).await.unwrap();
        let (_agent, mut held) = holder.meet().await;
        let sockets = held.remove("kept").unwrap();
        assert!(held.is_empty());
        let listener = TcpListener::from(sockets.into_iter().next().unwrap());
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }

    #[tokio::test]
    async fn nothing_is_held_for_longer_than_some_time_without_an_agent() {
        let holder = holder(Duration::from_millis(100));
        let (agent, _) = holder.meet().await;
        let (address, sockets) = listening();
        Packet::hold(&agent, "one", &sockets).await.unwrap();
        drop((agent, sockets));
        until_refused(address).await;
        assert!(holder.meet().await.1.is_empty());
    }

    #[tokio::test]
    async fn one_that_cannot_be_understood_is_as_one_that_is_gone() {
        let holder = holder(LONG);
        let (agent, _) = holder.meet().await;
        let (_, sockets) = listening();
        Packet::hold(&agent, "one", &sockets).await.unwrap();
        agent.send(b"?").await.unwrap();
        assert!(Packet::receive(&agent).await.unwrap().is_none());
        assert_eq!(holder.meet().await.1.len(), 1);
    }
}
