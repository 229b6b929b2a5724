//! Ends a pod's connections that began before its own listener stood.
//!
//! They lead to the node's redirection, whose answers come from the very address that is now the pod's own: the kernel
//! drops such packets (a "martian source"), and a program would wait for an answer until its own patience ends. Ended here
//! it hears of it at once, and asks again.
//!
//! Called inside; blocks on the kernel only.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::agent::netlink::inet_diag::{BY_FAMILY, Connection, DESTROY, FAMILIES, request};
use crate::agent::netlink::{ACK, DONE, DUMP, ERROR, messages, outcome};

const HTTP: u16 = 80;

/// Whether it leads to port 80 of the address, and does not come from there: what is asked inside does.
fn is_before(connection: &Connection, address: Ipv4Addr) -> bool {
    let target = SocketAddrV4::new(address, HTTP);
    let source = connection.source().map(|source| *source.ip());
    connection.target() == Some(target) && source != Some(address)
}

/// Ends them; how many. A kernel that cannot (`CONFIG_INET_DIAG_DESTROY`) ends none.
pub fn sever(address: Ipv4Addr) -> io::Result<usize> {
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    let mut ended = 0;
    for family in FAMILIES {
        for connection in list(&netlink, family, address)? {
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

/// Those to be ended: a pod may have any number of others.
fn list(netlink: &Socket, family: u8, address: Ipv4Addr) -> io::Result<Vec<Connection>> {
    let all = request(BY_FAMILY, DUMP, 0, &Connection::any(family));
    netlink.send_to(&all, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = netlink.recv_from_full()?;
        for (kind, body) in messages(&answer) {
            match kind {
                DONE => return Ok(found),
                ERROR => outcome(body)?,
                _ => found.extend(Connection::read(body).filter(|one| is_before(one, address))),
            }
        }
    }
}

fn destroy(netlink: &Socket, connection: &Connection) -> io::Result<()> {
    netlink.send_to(
        &request(DESTROY, ACK, 0, connection),
        &SocketAddr::new(0, 0),
        0,
    )?;
    let (answer, _) = netlink.recv_from_full()?;
    let mut answers = messages(&answer).filter(|(kind, _)| *kind == ERROR);
    answers.try_for_each(|(_, body)| outcome(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::netlink::inet_diag::tests::answer;

    #[test]
    fn only_what_left_the_pod_for_the_metadata_address_is_ended() {
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        let pod = Ipv4Addr::new(10, 0, 0, 1);
        for family in FAMILIES {
            let is = |source, target, port| {
                let (source, target) = (
                    SocketAddrV4::new(source, 4711),
                    SocketAddrV4::new(target, port),
                );
                let answered = answer(family, source, target, 0);
                is_before(&Connection::read(&answered).unwrap(), metadata)
            };
            assert!(is(pod, metadata, 80));
            assert!(!is(metadata, metadata, 80), "asked inside");
            assert!(!is(pod, metadata, 443));
            assert!(!is(pod, pod, 80));
        }
    }
}
