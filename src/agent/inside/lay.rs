//! What makes a pod's namespace answer: a listener, a rule, and last the address, which leads packets to both: before it
//! nothing changes, after it somebody listens. Called inside.
//!
//! In: the address and the port. Out: a listener. Blocks on the kernel only. Whoever comes second (another agent that
//! takes over) finds address and rule there, and listens beside the first.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, getsockopt, listen,
    setsockopt, socket, sockopt,
};

use super::divert::{self, Batch};
use super::sever::sever;
use crate::agent::intercept::{self, Addresses};
use crate::agent::netlink::{ERROR, messages, outcome};

/// The metadata address.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where we listen in every pod: the next agent listens there, too, and the rule need not change.
pub const PORT: u16 = 50_254;
/// The port of the virtual machine extension's endpoint.
const VM_EXTENSION: u16 = 50_342;

/// What a program of the pod's own has already. It keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The metadata address.
    Address,
    /// A port that we would listen on.
    Port(u16),
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self {
            Self::Port(VM_EXTENSION) => "the virtual machine extension's endpoint is not there",
            Self::Port(_) | Self::Address => "no identities are served inside the pod's network",
        };
        match self {
            Self::Address => write!(f, "{what}: it has the address {METADATA} already"),
            Self::Port(port) => {
                write!(
                    f,
                    "{what}: a program of the pod listens on port {port} already"
                )
            }
        }
    }
}

/// What the thread inside gives.
pub type Laid = io::Result<Result<Vec<TcpListener>, Taken>>;

/// Lays all of it; a listener that accepts: the one that an agent before `left` here, or a new one.
pub async fn lay(left: Vec<TcpListener>) -> Laid {
    let listeners = if left.is_empty() {
        match listener(SocketAddrV4::new(METADATA, PORT)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Ok(Err(Taken::Port(PORT)));
            }
            bound => vec![bound?],
        }
    } else {
        left
    };
    // Looked at before the table: another agent of ours makes that first, too.
    let addresses = Addresses::open().map_err(io::Error::other)?;
    let was_there = addresses.has(METADATA).await.map_err(io::Error::other)?;
    if lay_table()? && was_there {
        send(&divert::remove())?;
        return Ok(Err(Taken::Address));
    }
    // From here on packets to the address stay inside, and meet the rule.
    let claimed = intercept::claim_address(METADATA).await;
    claimed.map_err(io::Error::other)?;
    sever(METADATA)?;
    Ok(Ok(listeners))
}

/// Lays again what was taken away from beside a listener of ours; whether anything was.
pub async fn mend() -> io::Result<bool> {
    let table = lay_table()?;
    let addresses = Addresses::open().map_err(io::Error::other)?;
    let address = addresses.claim(METADATA).await.map_err(io::Error::other)?;
    Ok(table || address)
}

/// Makes the table; whether it was absent.
fn lay_table() -> io::Result<bool> {
    match send(&divert::lay(METADATA, PORT)) {
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(false),
        laid => laid.map(|()| true),
    }
}

/// Of listeners that an agent before left, those that are still some: a pod that administers its network can end them.
pub fn still_listening(left: Vec<TcpListener>) -> Vec<TcpListener> {
    let is_one = |one: &TcpListener| getsockopt(one, sockopt::AcceptConn).unwrap_or(false);
    left.into_iter().filter(is_one).collect()
}

/// The virtual machine extension's endpoint, on the pod's own loopback; without IPv6 on IPv4 alone.
pub fn vm_extension() -> Laid {
    let both = || {
        let mut listeners = vec![listener(SocketAddrV4::new(
            Ipv4Addr::LOCALHOST,
            VM_EXTENSION,
        ))?];
        match listener6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, VM_EXTENSION, 0, 0)) {
            Ok(second) => listeners.push(second),
            Err(error) if without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(listeners)
    };
    match both() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(Err(Taken::Port(VM_EXTENSION)))
        }
        bound => bound.map(Ok),
    }
}

fn without_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

/// Takes rule and address away, so that packets leave the pod again and meet the node's rules; whether there was
/// anything of ours.
pub async fn clear() -> io::Result<bool> {
    match send(&divert::remove()) {
        // Then the address, if it is there, is the pod's own.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(false),
        removed => removed?,
    }
    let released = async { Addresses::open()?.release(METADATA).await };
    released.await.map_err(io::Error::other)?;
    Ok(true)
}

fn listener(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = stream(AddressFamily::Inet)?;
    // Connections to port 80 are diverted to it; and the address comes last.
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    listening(socket)
}

fn listener6(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = stream(AddressFamily::Inet6)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    listening(socket)
}

fn stream(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    // A neighbour reaches the address over the pod's other interfaces, too: there nobody listens.
    setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // The agent that takes over listens beside the one that goes.
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    Ok(socket)
}

fn listening(socket: OwnedFd) -> io::Result<TcpListener> {
    listen(&socket, Backlog::new(128)?)?;
    Ok(TcpListener::from(socket))
}

/// Sends a batch and hears what became of it: the first refusal is the error.
fn send(batch: &Batch) -> io::Result<()> {
    let mut netlink = Socket::new(NETLINK_NETFILTER)?;
    netlink.bind_auto()?;
    netlink.send_to(&batch.bytes, &NetlinkAddr::new(0, 0), 0)?;
    let mut heard = 0;
    while heard < batch.answers {
        let (answers, _) = netlink.recv_from_full()?;
        for (_, body) in messages(&answers).filter(|(kind, _)| *kind == ERROR) {
            heard += 1;
            outcome(body)?;
        }
    }
    Ok(())
}
