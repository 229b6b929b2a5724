//! Conntrack's netlink messages as values: what a connection was meant for and where it goes.
//!
//! In: datagrams of `NETLINK_NETFILTER`, subsystem ctnetlink. Out: [`Entry`] values, and the three
//! requests that we send. Pure, and bounded by the datagram; damaged input yields fewer entries.
//! Source of the shapes: `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::agent::netlink::{
    ACK, DONE, DUMP, ERROR, REQUEST, TCP, attribute, attributes, message, messages, nested,
};

use super::super::rules::{METADATA_ADDRESS, METADATA_PORT, WIRE_SERVER, WIRE_SERVER_PORTS};

const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// One end-to-end view of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub port: u16,
}

/// A tcp connection that the kernel tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the client sees it.
    pub original: Tuple,
    /// As whoever answers sees it: its source is where the packets really go.
    pub reply: Tuple,
    /// The attributes that name it in a deletion.
    key: Vec<u8>,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// One connection.
    Entry(Entry),
    /// The end of a list.
    Done,
    /// An answer to a request: 0, or a negative errno.
    Status(i32),
}

/// Whether this connection of a pod passes the agent by.
///
/// `local` are the node's own addresses: its own connections (the agent's to IMDS among them) are
/// not intercepted and not touched.
pub fn passes_by(
    entry: &Entry,
    agent: Ipv4Addr,
    guard_wire_server: bool,
    local: &[Ipv4Addr],
) -> bool {
    let Tuple {
        source,
        destination,
        port,
        ..
    } = entry.original;
    let metadata = destination == METADATA_ADDRESS && port == METADATA_PORT;
    let wire_server =
        guard_wire_server && destination == WIRE_SERVER && WIRE_SERVER_PORTS.contains(&port);
    !local.contains(&source) && ((metadata && entry.reply.source != agent) || wire_server)
}

/// A request for all IPv4 connections.
pub fn list_request() -> Vec<u8> {
    request(CT_GET, REQUEST | DUMP, &[])
}

/// A request to forget one.
pub fn delete_request(entry: &Entry) -> Vec<u8> {
    request(CT_DELETE, REQUEST | ACK, &entry.key)
}

/// A request for the connection between one of this node's addresses and a peer, as seen from there: after
/// whatever the rules made of it.
pub fn find_request(here: SocketAddrV4, peer: SocketAddrV4) -> Vec<u8> {
    let of = |address: [&[u8]; 2], ports: [u16; 2]| {
        let ip = [attribute(1, address[0]), attribute(2, address[1])].concat();
        let [from, to] = ports.map(u16::to_be_bytes);
        let ports = [attribute(1, &[TCP]), attribute(2, &from), attribute(3, &to)].concat();
        [nested(1, &ip), nested(2, &ports)].concat()
    };
    let addresses = [here, peer].map(|end| end.ip().octets());
    let tuple = of([&addresses[0], &addresses[1]], [here.port(), peer.port()]);
    request(CT_GET, REQUEST, &nested(TUPLE_REPLY, &tuple))
}

fn request(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    // AF_INET, version 0, resource 0. No sequence: one request at a time.
    message(kind, flags, 0, &[&[2, 0, 0, 0], attributes].concat())
}

/// Reads a datagram.
pub fn parse(datagram: &[u8]) -> Vec<Message> {
    let read = |(kind, body): (u16, &[u8])| match kind {
        CT_NEW => entry(body).map(Message::Entry),
        DONE => Some(Message::Done),
        ERROR => {
            let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code));
            Some(Message::Status(code.unwrap_or(-22)))
        }
        _ => None,
    };
    messages(datagram).filter_map(read).collect()
}

/// Reads one answer's body, without its header.
pub fn read(body: &[u8]) -> Option<Message> {
    entry(body).map(Message::Entry)
}

fn entry(body: &[u8]) -> Option<Entry> {
    let (mut original, mut reply, mut key) = (None, None, Vec::new());
    for (kind, attribute, payload) in attributes(body.get(4..)?) {
        match kind {
            TUPLE_ORIG => original = Some(tuple(payload)?),
            TUPLE_REPLY => reply = Some(tuple(payload)?),
            _ => {}
        }
        if matches!(kind, TUPLE_ORIG | ID | ZONE) {
            key.extend_from_slice(attribute);
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    Some(Entry {
        original: original?,
        reply: reply?,
        key,
    })
}

fn tuple(payload: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut ports) = ((None, None), (None, None));
    let number = |value: &[u8]| value.try_into().ok().map(u16::from_be_bytes);
    for (kind, _, inner) in attributes(payload) {
        for (field, _, value) in attributes(inner) {
            match (kind, field) {
                (1, 1) => addresses.0 = address(value),
                (1, 2) => addresses.1 = address(value),
                (2, 1) if value != [TCP] => return None,
                (2, 2) => ports.0 = number(value),
                (2, 3) => ports.1 = number(value),
                _ => {}
            }
        }
    }
    Some(Tuple {
        source: addresses.0?,
        source_port: ports.0?,
        destination: addresses.1?,
        port: ports.1?,
    })
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests;
