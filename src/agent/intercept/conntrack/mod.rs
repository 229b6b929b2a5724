//! Ends connections that were open before the rules and pass the agent by.
//!
//! In: what counts as passing by. Out: how many the kernel forgot; a forgotten connection's next
//! packet meets the rules as a new one. By netlink; blocks on the kernel only, with a deadline.
//! Needs `NET_ADMIN` and conntrack. Where it fails nothing is lost but speed: the REJECT in FORWARD
//! answers such a connection's next packet with a reset all the same.

pub mod entry;

use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::time::timeout;

use super::InterceptError;
use entry::{Entry, Message};

const DEADLINE: Duration = Duration::from_secs(2);
/// More than this at once is somebody's flood; the REJECT sees to the rest.
const MOST: usize = 65_536;

/// Which connections to end.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The agent's address: connections that go there stay.
    pub agent: Ipv4Addr,
    /// Whether those to the wire server are ended, too.
    pub guard_wire_server: bool,
    /// The node's own addresses: its own connections stay.
    pub local: Vec<Ipv4Addr>,
}

/// Ends them; how many.
pub async fn cut(what: &Cut) -> Result<u64, InterceptError> {
    let failed = |why| InterceptError::Netlink {
        what: "conntrack",
        why,
    };
    match timeout(DEADLINE, converse(what)).await {
        Ok(done) => done.map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed(format!("no end within {DEADLINE:?}"))),
    }
}

async fn converse(what: &Cut) -> std::io::Result<u64> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    let mut found: Vec<Entry> = Vec::new();
    send(&mut socket, &entry::list_request()).await?;
    'list: loop {
        for message in receive(&mut socket).await? {
            match message {
                Message::Entry(entry) => {
                    let passes =
                        entry::passes_by(&entry, what.agent, what.guard_wire_server, &what.local);
                    if passes && found.len() < MOST {
                        found.push(entry);
                    }
                }
                Message::Done => break 'list,
                Message::Status(code) => return Err(std::io::Error::from_raw_os_error(-code)),
            }
        }
    }
    let mut ended = 0;
    for entry in &found {
        send(&mut socket, &entry::delete_request(entry)).await?;
        let answers = receive(&mut socket).await?;
        // It may have ended by itself meanwhile.
        ended += u64::from(answers.contains(&Message::Status(0)));
    }
    Ok(ended)
}

async fn send(socket: &mut TokioSocket, request: &[u8]) -> std::io::Result<()> {
    socket
        .send_to(request, &SocketAddr::new(0, 0))
        .await
        .map(drop)
}

async fn receive(socket: &mut TokioSocket) -> std::io::Result<Vec<Message>> {
    let (datagram, _) = socket.recv_from_full().await?;
    Ok(entry::parse(&datagram))
}
