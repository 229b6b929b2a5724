//! The socket at the other end of a connection, and its cgroup.
//!
//! In: where a connection came in and from whom. Out: the number of a cgroup. Does not wait. Two questions: what the
//! connection was before the rules (whoever connects here by himself meant no metadata service, and could have chosen
//! the port of somebody who did), and whose socket that is.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};

use super::conversation::Conversation;
use super::namer::Unnamed;
use crate::agent::intercept::entry::{Message, Tuple, find_request, read};
use crate::agent::intercept::{METADATA_ADDRESS, METADATA_PORT};
use crate::agent::netlink::inet_diag::{BY_FAMILY, Connection, cgroup, request};
use crate::agent::netlink::route;

/// Where connections are asked about.
#[derive(Debug)]
pub struct Sockets {
    routes: Conversation,
    tracked: Conversation,
    owners: Conversation,
}

impl Sockets {
    /// Opens what is asked.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            routes: Conversation::open(NETLINK_ROUTE)?,
            tracked: Conversation::open(NETLINK_NETFILTER)?,
            owners: Conversation::open(NETLINK_SOCK_DIAG)?,
        })
    }

    /// Whether an address is one of this network namespace's own. Where the kernel does not say, it is not.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        let answer = self.routes.ask(route::request(address));
        answer.is_ok_and(|answer| route::ends_here(&answer))
    }

    /// The cgroup of the socket that `peer` is, to whom we are `here`.
    pub fn cgroup(&self, here: SocketAddrV4, peer: SocketAddrV4) -> Result<u64, Unnamed> {
        let tracked = self.tracked.ask(find_request(here, peer));
        let asked = asked(&tracked.map_err(|error| gone(&error))?)?;
        let target = SocketAddrV4::new(METADATA_ADDRESS, METADATA_PORT);
        let question = request(BY_FAMILY, 0, 0, &Connection::between(asked, target));
        let answer = self.owners.ask(question).map_err(|error| gone(&error))?;
        owner(&answer, asked, target)
    }
}

fn gone(error: &io::Error) -> Unnamed {
    if error.kind() == io::ErrorKind::NotFound {
        Unnamed::Gone
    } else {
        Unnamed::Kernel(error.to_string())
    }
}

/// Who asked the metadata service: the connection's source before the rules.
fn asked(tracked: &[u8]) -> Result<SocketAddrV4, Unnamed> {
    let Some(Message::Entry(entry)) = read(tracked) else {
        return Err(Unnamed::Gone);
    };
    let Tuple {
        source,
        source_port,
        destination,
        port,
    } = entry.original;
    if (destination, port) == (METADATA_ADDRESS, METADATA_PORT) {
        Ok(SocketAddrV4::new(source, source_port))
    } else {
        Err(Unnamed::MeantUs)
    }
}

/// The cgroup in an answer, if that is about this very connection: where there is none any more the kernel takes a
/// listener on its port for it.
fn owner(answer: &[u8], source: SocketAddrV4, target: SocketAddrV4) -> Result<u64, Unnamed> {
    let found = Connection::read(answer).ok_or(Unnamed::Gone)?;
    if (found.source(), found.target()) != (Some(source), Some(target)) {
        return Err(Unnamed::Gone);
    }
    cgroup(answer).ok_or(Unnamed::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::inet_diag::FAMILIES;
    use crate::agent::netlink::inet_diag::tests::answer;

    #[test]
    fn only_an_answer_about_this_very_connection_counts() {
        let at = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        let (source, target) = (at("10.0.0.1:4711"), at("169.254.169.254:80"));
        for family in FAMILIES {
            let one = answer(family, source, target, 77);
            assert_eq!(owner(&one, source, target), Ok(77));
            for (source, target) in [
                // A listener: it leads nowhere.
                (source, at("0.0.0.0:0")),
                (at("0.0.0.0:4711"), at("0.0.0.0:0")),
                (at("10.0.0.2:4711"), target),
                (at("10.0.0.1:4712"), target),
            ] {
                let other = answer(family, source, target, 77);
                let asked = (at("10.0.0.1:4711"), at("169.254.169.254:80"));
                assert_eq!(owner(&other, asked.0, asked.1), Err(Unnamed::Gone));
            }
        }
        assert_eq!(owner(&[], source, target), Err(Unnamed::Gone));
    }
}
