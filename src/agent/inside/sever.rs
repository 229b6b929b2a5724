//! Ends a pod's connections that began before its own listener stood.
//!
//! They lead to the node's redirection, whose answers come from the very address that is now the pod's own: the kernel
//! drops such packets (a "martian source"), and a program would wait for an answer until its own patience ends. Ended here
//! it hears of it at once, and asks again.
//!
//! Called inside; blocks on the kernel only. Source: `linux/sock_diag.h` and `inet_diag.h`.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use super::netlink::{ERROR, HEADER, messages, outcome};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const TCP: u8 = 6;
/// IPv4, and IPv6 with IPv4 addresses in it.
const FAMILIES: [u8; 2] = [2, 10];
/// All states but LISTEN and TIME-WAIT.
const STATES: u32 = 0xfff & !(1 << 10) & !(1 << 6);
/// What is before the connection's id in a request and in an answer.
const BEFORE_ID: (usize, usize) = (8, 4);
/// Ports, addresses, interface and cookie.
const ID: usize = 48;
const HTTP: u16 = 80;

/// A connection, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    family: u8,
    id: [u8; ID],
}

impl Connection {
    /// Whether it leads to port 80 of the address, and does not come from there: what is asked inside does.
    fn is_before(&self, address: Ipv4Addr) -> bool {
        let port = u16::from_be_bytes([self.id[2], self.id[3]]);
        let [source, target] = [4, 20].map(|at| self.address(at));
        port == HTTP && target == Some(address) && source != Some(address)
    }

    fn address(&self, at: usize) -> Option<Ipv4Addr> {
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let four = |at: usize| Some(Ipv4Addr::from(*self.id.get(at..)?.first_chunk::<4>()?));
        if self.family == FAMILIES[0] {
            return four(at);
        }
        (self.id.get(at..at + 12)? == MAPPED).then(|| four(at + 12))?
    }
}

/// Ends them; how many. A kernel that cannot (`CONFIG_INET_DIAG_DESTROY`) ends none.
pub fn sever(address: Ipv4Addr) -> io::Result<usize> {
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    let mut ended = 0;
    for family in FAMILIES {
        for connection in list(&netlink, family)? {
            if !connection.is_before(address) {
                continue;
            }
            match destroy(&netlink, &connection) {
                Ok(()) => ended += 1,
                // It ended by itself.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                    return Ok(ended);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

fn list(netlink: &Socket, family: u8) -> io::Result<Vec<Connection>> {
    let any = Connection {
        family,
        id: [0; ID],
    };
    netlink.send_to(&request(BY_FAMILY, DUMP, &any), &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = netlink.recv_from_full()?;
        for (kind, body) in messages(&answer) {
            match kind {
                DONE => return Ok(found),
                ERROR => outcome(body)?,
                _ => found.extend(connection(body)),
            }
        }
    }
}

fn destroy(netlink: &Socket, connection: &Connection) -> io::Result<()> {
    netlink.send_to(
        &request(DESTROY, ACK, connection),
        &SocketAddr::new(0, 0),
        0,
    )?;
    let (answer, _) = netlink.recv_from_full()?;
    let mut answers = messages(&answer).filter(|(kind, _)| *kind == ERROR);
    answers.try_for_each(|(_, body)| outcome(body))
}

fn request(kind: u16, flags: u16, of: &Connection) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + BEFORE_ID.0 + ID);
    let length = u32::try_from(HEADER + BEFORE_ID.0 + ID).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([of.family, TCP, 0, 0]);
    bytes.extend(STATES.to_ne_bytes());
    bytes.extend(of.id);
    bytes
}

fn connection(body: &[u8]) -> Option<Connection> {
    let family = *body.first()?;
    let id = *body.get(BEFORE_ID.1..)?.first_chunk::<ID>()?;
    Some(Connection { family, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

    fn between(family: u8, source: Ipv4Addr, target: Ipv4Addr, port: u16) -> Connection {
        let mut id = [0; ID];
        id[2..4].copy_from_slice(&port.to_be_bytes());
        for (at, address) in [(4, source), (20, target)] {
            if family == FAMILIES[0] {
                id[at..at + 4].copy_from_slice(&address.octets());
            } else {
                id[at..at + 16].copy_from_slice(&address.to_ipv6_mapped().octets());
            }
        }
        Connection { family, id }
    }

    #[test]
    fn only_what_left_the_pod_for_the_metadata_address_is_ended() {
        let pod = Ipv4Addr::new(10, 0, 0, 1);
        for family in FAMILIES {
            let is =
                |source, target, port| between(family, source, target, port).is_before(METADATA);
            assert!(is(pod, METADATA, 80));
            assert!(!is(METADATA, METADATA, 80), "asked inside");
            assert!(!is(pod, METADATA, 443));
            assert!(!is(pod, pod, 80));
        }
        // Another IPv6 address that ends alike.
        let mut other = between(10, pod, METADATA, 80);
        other.id[20] = 0xfd;
        assert!(!other.is_before(METADATA));
    }

    #[test]
    fn a_request_has_the_kernels_length_and_an_answer_is_read_back() {
        let one = between(2, Ipv4Addr::new(10, 0, 0, 1), METADATA, 80);
        let bytes = request(DESTROY, ACK, &one);
        assert_eq!(bytes.len(), 72);
        let (kind, body) = messages(&bytes).next().unwrap();
        assert_eq!(kind, DESTROY);
        // In an answer the id is four bytes earlier.
        assert_eq!(connection(&[&body[..4], &body[8..]].concat()), Some(one));
        assert_eq!(messages(&bytes[..40]).count(), 0);
    }
}
