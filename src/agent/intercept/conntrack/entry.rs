//! Conntrack's netlink messages as values: what a connection was meant for and where it goes.
//!
//! In: datagrams of `NETLINK_NETFILTER`, subsystem ctnetlink. Out: [`Entry`] values, and the two
//! requests that we send. Pure, and bounded by the datagram; damaged input yields fewer entries.
//! Source of the shapes: `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::Ipv4Addr;

use crate::agent::intercept::rules::{
    METADATA_ADDRESS, METADATA_PORT, WIRE_SERVER, WIRE_SERVER_PORTS,
};

const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TCP: u8 = 6;

/// One end-to-end view of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
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

fn request(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(20 + attributes.len());
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence, port: one request at a time, the kernel knows the port
    message.extend([2, 0, 0, 0]); // AF_INET, version 0, resource 0
    message.extend(attributes);
    message
}

/// Reads a datagram.
pub fn parse(mut datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(length) = u32_at(datagram, 0).and_then(|length| usize::try_from(length).ok()) {
        if length < 16 || length > datagram.len() {
            break;
        }
        let (message, rest) = datagram.split_at(length);
        datagram = rest.get(align(length) - length..).unwrap_or_default();
        match u16_at(message, 4) {
            Some(CT_NEW) => messages.extend(entry(&message[16..]).map(Message::Entry)),
            Some(DONE) => messages.push(Message::Done),
            Some(ERROR) => {
                let code = message.get(16..20).and_then(|bytes| bytes.try_into().ok());
                messages.push(Message::Status(code.map_or(-22, i32::from_ne_bytes)));
            }
            _ => {}
        }
    }
    messages
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
            key.resize(align(key.len()), 0);
        }
    }
    Some(Entry {
        original: original?,
        reply: reply?,
        key,
    })
}

fn tuple(payload: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut port) = ((None, None), None);
    for (kind, _, inner) in attributes(payload) {
        for (field, _, value) in attributes(inner) {
            match (kind, field) {
                (1, 1) => addresses.0 = address(value),
                (1, 2) => addresses.1 = address(value),
                (2, 1) if value != [TCP] => return None,
                (2, 3) => port = value.try_into().ok().map(u16::from_be_bytes),
                _ => {}
            }
        }
    }
    Some(Tuple {
        source: addresses.0?,
        destination: addresses.1?,
        port: port?,
    })
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// Kind (without flags), the whole attribute, its payload.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let attribute = &bytes[..length];
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, attribute, &attribute[4..]))
    })
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn tuple_bytes(protocol: u8, from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
        let ip = [attribute(1, &from), attribute(2, &to)].concat();
        let ports = [
            attribute(1, &[protocol]),
            attribute(2, &[0, 9]),
            attribute(3, &port.to_be_bytes()),
        ];
        [attribute(0x8001, &ip), attribute(0x8002, &ports.concat())].concat()
    }

    fn message(protocol: u8, answered_by: [u8; 4]) -> Vec<u8> {
        let original = tuple_bytes(protocol, [10, 0, 0, 9], [169, 254, 169, 254], 80);
        let reply = tuple_bytes(protocol, answered_by, [10, 0, 0, 9], 9);
        let body = [
            attribute(0x8001, &original),
            attribute(0x8002, &reply),
            attribute(12, &[1, 2, 3, 4]),
        ];
        let mut message = request(CT_NEW, 2, &body.concat());
        message.extend(request(DONE, 2, &[]));
        message
    }

    const AGENT: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 252);

    #[test]
    fn reads_a_connection_and_tells_where_it_really_goes() {
        let [Message::Entry(past), Message::Done] = &parse(&message(TCP, [169, 254, 169, 254]))[..]
        else {
            panic!("one entry and the end")
        };
        assert_eq!(past.original.port, 80);
        assert!(passes_by(past, AGENT, false, &[]));
        assert!(
            !passes_by(past, AGENT, false, &[Ipv4Addr::new(10, 0, 0, 9)]),
            "the node's own"
        );
        let [Message::Entry(ours), Message::Done] = &parse(&message(TCP, AGENT.octets()))[..]
        else {
            panic!("one entry and the end")
        };
        assert!(!passes_by(ours, AGENT, true, &[]));
    }

    #[test]
    fn the_wire_server_counts_only_while_it_is_guarded() {
        let original = Tuple {
            source: Ipv4Addr::LOCALHOST,
            destination: WIRE_SERVER,
            port: 32526,
        };
        let reply = Tuple {
            source: WIRE_SERVER,
            destination: Ipv4Addr::LOCALHOST,
            port: 1,
        };
        let mut entry = Entry {
            original,
            reply,
            key: Vec::new(),
        };
        assert!(passes_by(&entry, AGENT, true, &[]));
        assert!(!passes_by(&entry, AGENT, false, &[]));
        entry.original.port = 53;
        assert!(
            !passes_by(&entry, AGENT, true, &[]),
            "its DNS is never touched"
        );
    }

    #[test]
    fn other_protocols_are_left_alone() {
        assert_eq!(parse(&message(17, [169, 254, 169, 254])), [Message::Done]);
    }

    #[test]
    fn a_deletion_names_the_entry_by_tuple_and_id() {
        let messages = parse(&message(TCP, [1, 1, 1, 1]));
        let Message::Entry(entry) = &messages[0] else {
            panic!("an entry")
        };
        let request = delete_request(entry);
        assert_eq!(u32_at(&request, 0).unwrap() as usize, request.len());
        let kinds: Vec<u16> = attributes(&request[20..]).map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [TUPLE_ORIG, ID]);
    }

    proptest! {
        #[test]
        fn damaged_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn flipped_bytes_never_panic(at in 0usize..200, value: u8) {
            let mut bytes = message(TCP, [1, 2, 3, 4]);
            let at = at % bytes.len();
            bytes[at] = value;
            parse(&bytes);
        }
    }
}
