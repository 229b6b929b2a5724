//! Connections as `NETLINK_SOCK_DIAG` names them: requests about them, and what it answers. Pure.
//!
//! Source: `linux/sock_diag.h` and `inet_diag.h`.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{REQUEST, TCP, attributes, message};

/// Asks for one connection, or for many.
pub const BY_FAMILY: u16 = 20;
/// Ends one.
pub const DESTROY: u16 = 21;
/// IPv4, and IPv6 with IPv4 addresses in it.
pub const FAMILIES: [u8; 2] = [2, 10];

/// All states but LISTEN and TIME-WAIT.
const STATES: u32 = 0xfff & !(1 << 10) & !(1 << 6);
/// What is before the connection's id in an answer.
const BEFORE_ID: usize = 4;
/// Ports, addresses, interface and cookie.
const ID: usize = 48;
/// Where the id has what.
const PORTS: [usize; 2] = [0, 2];
const ADDRESSES: [usize; 2] = [4, 20];
const COOKIE: usize = 40;
/// What follows the id in an answer, before the attributes.
const AFTER_ID: usize = 20;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP: u16 = 21;

/// A connection, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    family: u8,
    id: [u8; ID],
}

impl Connection {
    /// No one: for a list of all of a family.
    pub const fn any(family: u8) -> Self {
        Self {
            family,
            id: [0; ID],
        }
    }

    /// The one between these two. Found by it are IPv6 sockets with IPv4 addresses, too.
    pub fn between(source: SocketAddrV4, target: SocketAddrV4) -> Self {
        let mut id = [0; ID];
        for (end, at) in [source, target].into_iter().zip([0, 1]) {
            id[PORTS[at]..][..2].copy_from_slice(&end.port().to_be_bytes());
            id[ADDRESSES[at]..][..4].copy_from_slice(&end.ip().octets());
        }
        // No cookie: whichever socket has it.
        id[COOKIE..].fill(0xff);
        Self {
            family: FAMILIES[0],
            id,
        }
    }

    /// Its source, where that is one of IPv4.
    pub fn source(&self) -> Option<SocketAddrV4> {
        self.end(0)
    }

    /// Where it leads, likewise.
    pub fn target(&self) -> Option<SocketAddrV4> {
        self.end(1)
    }

    fn end(&self, at: usize) -> Option<SocketAddrV4> {
        let port = u16::from_be_bytes(*self.id[PORTS[at]..].first_chunk()?);
        Some(SocketAddrV4::new(self.address(ADDRESSES[at])?, port))
    }

    fn address(&self, at: usize) -> Option<Ipv4Addr> {
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let four = |at: usize| Some(Ipv4Addr::from(*self.id.get(at..)?.first_chunk::<4>()?));
        if self.family == FAMILIES[0] {
            return four(at);
        }
        (self.id.get(at..at + 12)? == MAPPED).then(|| four(at + 12))?
    }

    /// The connection that an answer is about.
    pub fn read(body: &[u8]) -> Option<Self> {
        let family = *body.first()?;
        let id = *body.get(BEFORE_ID..)?.first_chunk::<ID>()?;
        Some(Self { family, id })
    }
}

/// A request about a connection.
pub fn request(kind: u16, flags: u16, sequence: u32, of: &Connection) -> Vec<u8> {
    let states = STATES.to_ne_bytes();
    let body = [&[of.family, TCP, 0, 0], &states[..], &of.id].concat();
    message(kind, REQUEST | flags, sequence, &body)
}

/// The cgroup that the socket of an answer was made in: its inode's number in the v2 hierarchy. Sockets that
/// only linger have none.
pub fn cgroup(body: &[u8]) -> Option<u64> {
    let (_, _, value) =
        attributes(body.get(BEFORE_ID + ID + AFTER_ID..)?).find(|(kind, ..)| *kind == CGROUP)?;
    Some(u64::from_ne_bytes(*value.first_chunk()?))
}

#[cfg(test)]
pub mod tests {
    use super::super::{attribute, messages};
    use super::*;

    /// An answer's body, as a kernel writes it.
    pub fn answer(family: u8, source: SocketAddrV4, target: SocketAddrV4, cgroup: u64) -> Vec<u8> {
        let mut one = Connection::between(source, target);
        if family != FAMILIES[0] {
            one.family = family;
            for (at, end) in [(ADDRESSES[0], source), (ADDRESSES[1], target)] {
                one.id[at..at + 16].copy_from_slice(&end.ip().to_ipv6_mapped().octets());
            }
        }
        let head = [family, 1, 0, 0];
        let mark = attribute(15, &[0; 4]);
        let cgroup = attribute(CGROUP, &cgroup.to_ne_bytes());
        [&head[..], &one.id, &[0; AFTER_ID], &mark, &cgroup].concat()
    }

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn a_request_has_the_kernels_length_and_an_answer_is_read_back() {
        let one = Connection::between(at("10.0.0.1:4711"), at("169.254.169.254:80"));
        let bytes = request(DESTROY, 4, 7, &one);
        assert_eq!(bytes.len(), 72);
        let (kind, body) = messages(&bytes).next().unwrap();
        assert_eq!(kind, DESTROY);
        // In an answer the id is four bytes earlier.
        let read = Connection::read(&[&body[..4], &body[8..]].concat()).unwrap();
        assert_eq!(read, one);
        assert_eq!(read.source(), Some(at("10.0.0.1:4711")));
        assert_eq!(read.target(), Some(at("169.254.169.254:80")));
        assert_eq!(messages(&bytes[..40]).count(), 0);
    }

    #[test]
    fn an_ipv6_sockets_ipv4_addresses_are_read_and_others_are_not() {
        for family in FAMILIES {
            let body = answer(family, at("10.0.0.1:4711"), at("169.254.169.254:80"), 77);
            let read = Connection::read(&body).unwrap();
            assert_eq!(read.target(), Some(at("169.254.169.254:80")));
            assert_eq!(cgroup(&body), Some(77));
        }
        let mut other = answer(10, at("10.0.0.1:4711"), at("169.254.169.254:80"), 77);
        other[4 + 20] = 0xfd;
        assert_eq!(Connection::read(&other).unwrap().target(), None);
    }

    #[test]
    fn an_answer_without_a_cgroup_or_cut_short_has_none() {
        let whole = answer(2, at("10.0.0.1:4711"), at("169.254.169.254:80"), 77);
        for length in 0..whole.len() - 4 {
            assert_eq!(cgroup(&whole[..length]), None, "{length}");
        }
    }
}
