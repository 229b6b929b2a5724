//! The pod's end of the pair, as raw frames.
//!
//! In: a conversation. Out: how it ended. Blocks up to the deadline. Needs `NET_RAW`: frames are the only
//! way to let a packet *come in* at the host from a process that is the host's own, and so to pass
//! what pods' packets pass.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::segment::{Ends, Segment};
use super::talk::{Ended, Talk};

/// After a silence of this length the last words are said again.
const REPEAT: Duration = Duration::from_millis(250);
const FRAME: usize = 2048;

/// How far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To an end.
    Ended(Ended),
    /// The connection was accepted, and then nothing.
    Stalled,
    /// Nothing at all.
    Silent,
}

/// Sends and receives on one interface.
pub(super) struct Wire {
    socket: AsyncFd<OwnedFd>,
}

impl Wire {
    /// Opens a packet socket on the interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let found = getifaddrs()?.find_map(|entry| {
            let address = entry.address?;
            let link = address.as_link_addr()?;
            (entry.interface_name == interface).then_some(*link)
        });
        let link = found.ok_or_else(|| io::Error::other(format!("no interface {interface}")))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .map_err(|errno| match errno {
            Errno::EPERM => io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the self-test needs NET_RAW",
            ),
            other => other.into(),
        })?;
        bind(socket.as_raw_fd(), &link)?;
        #[expect(
            deprecated,
            reason = "its soundness hangs on the descriptor staying open, and an OwnedFd does; the newer one is unsafe"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket })
    }

    /// Carries a conversation to its end, or to the deadline.
    pub async fn carry(
        &self,
        ends: &Ends,
        mut talk: Talk,
        deadline: Instant,
    ) -> io::Result<Outcome> {
        self.send(&ends.frame(&talk.again()))?;
        loop {
            let until = (Instant::now() + REPEAT).min(deadline);
            let Ok(segment) = timeout_at(until, self.next(ends)).await else {
                if Instant::now() >= deadline {
                    break;
                }
                self.send(&ends.frame(&talk.again()))?;
                continue;
            };
            let (say, ended) = talk.on(&segment?);
            if let Some(say) = say {
                self.send(&ends.frame(&say))?;
            }
            if let Some(ended) = ended {
                return Ok(Outcome::Ended(ended));
            }
        }
        Ok(if talk.is_connected() {
            Outcome::Stalled
        } else {
            Outcome::Silent
        })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.get_ref().as_raw_fd(), frame, MsgFlags::empty());
        sent.map(drop).map_err(io::Error::from)
    }

    /// The next segment of the conversation; other frames are passed over.
    async fn next(&self, ends: &Ends) -> io::Result<Segment> {
        let mut frame = vec![0; FRAME];
        loop {
            let read = self.socket.readable().await?.try_io(|socket| {
                let read = recv(socket.get_ref().as_raw_fd(), &mut frame, MsgFlags::empty());
                read.map_err(io::Error::from)
            });
            let Ok(read) = read else { continue };
            if let Some(segment) = ends.read(&frame[..read?]) {
                return Ok(segment);
            }
        }
    }
}
