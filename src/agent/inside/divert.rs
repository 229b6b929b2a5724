//! The rule inside a pod that leads connections to 169.254.169.254:80 to our listener's port, as netlink bytes. Pure.
//!
//! A listener on port 80 itself would keep the pod's own web server from `0.0.0.0:80`. So a connection's first packet is given
//! to our listener (`tproxy`), whatever else listens on port 80. No packet is changed: the connection's address is what the
//! program asked for, and what follows finds it without a rule. Nothing turns connection tracking on for the pod.
//!
//! Source: `linux/netfilter/nfnetlink.h` and `nf_tables.h`. As `nft` would write it:
//! ```text
//! table ip lanyard { chain in { type filter hook prerouting priority mangle; policy accept;
//!   iif lo ip daddr 169.254.169.254 tcp dport 80 tcp flags & (syn|ack) == syn tproxy to 169.254.169.254:PORT } }
//! ```

use std::net::Ipv4Addr;

use crate::agent::netlink::{self, ACK, REQUEST, attribute, nested};

/// The table's name.
const TABLE: &str = "lanyard";
const CHAIN: &str = "in";
/// The port of the protocol.
const HTTP: u16 = 80;

const NFT: u16 = 10 << 8;
const NEW_TABLE: u16 = NFT;
const DELETE_TABLE: u16 = NFT | 2;
const NEW_CHAIN: u16 = NFT | 3;
const NEW_RULE: u16 = NFT | 6;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// The subsystem that a batch is for.
const NFTABLES: u16 = 10;
const IPV4: u8 = 2;

const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// What is compared passes through this register; the address and the port to divert to are in these.
const REGISTER: u32 = 1;
const PORT_REGISTER: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where the destination's address and port and the flags are, in bytes.
const ADDRESS_AT: u32 = 16;
const PORT_AT: u32 = 2;
const FLAGS_AT: u32 = 13;
const TCP: &[u8] = &[6];
const SYN: &[u8] = &[0x02];
const SYN_AND_ACK: &[u8] = &[0x12];
/// `NFT_META_L4PROTO`.
const TRANSPORT: u32 = 16;
/// `NFT_META_IIF`.
const IN_INTERFACE: u32 = 4;
/// The loopback interface is the first of every namespace.
const LO: u32 = 1;
/// `mangle`.
const PRIORITY: i32 = -150;
/// `NF_INET_PRE_ROUTING`.
const PREROUTING: u32 = 0;

/// A batch, and how many answers come: one for each message that asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Answers to expect where all is done.
    pub answers: usize,
}

/// Makes the table; where it is there already the kernel refuses all of it (`EEXIST`).
pub fn lay(address: Ipv4Addr, port: u16) -> Batch {
    let table = attribute(1, &text(TABLE));
    let hook = [number(1, PREROUTING), attribute(2, &PRIORITY.to_be_bytes())].concat();
    let chain = [
        table.clone(),
        attribute(3, &text(CHAIN)),
        nested(4, &hook),
        // Accept what no rule ends.
        number(5, 1),
        attribute(7, &text("filter")),
    ]
    .concat();
    let rule = [
        table.clone(),
        attribute(2, &text(CHAIN)),
        nested(4, &rule(address, port)),
    ]
    .concat();
    batch(&[
        (NEW_TABLE, CREATE | EXCLUSIVE, table.clone()),
        (NEW_CHAIN, CREATE, chain),
        (NEW_RULE, CREATE | APPEND, rule),
    ])
}

/// Takes the table away.
pub fn remove() -> Batch {
    batch(&[(DELETE_TABLE, 0, attribute(1, &text(TABLE)))])
}

/// The first packet of a connection to port 80 of the address goes to whoever listens on `port` there.
fn rule(address: Ipv4Addr, port: u16) -> Vec<u8> {
    [
        expression("meta", &[number(2, IN_INTERFACE), number(1, REGISTER)]),
        equals(&LO.to_ne_bytes()),
        load(NETWORK_HEADER, ADDRESS_AT, 4),
        equals(&address.octets()),
        expression("meta", &[number(2, TRANSPORT), number(1, REGISTER)]),
        equals(TCP),
        load(TRANSPORT_HEADER, PORT_AT, 2),
        equals(&HTTP.to_be_bytes()),
        load(TRANSPORT_HEADER, FLAGS_AT, 1),
        keep(SYN_AND_ACK),
        equals(SYN),
        set(REGISTER, &address.octets()),
        set(PORT_REGISTER, &port.to_be_bytes()),
        expression(
            "tproxy",
            &[
                number(1, u32::from(IPV4)),
                number(2, REGISTER),
                number(3, PORT_REGISTER),
            ],
        ),
    ]
    .concat()
}

fn load(header: u32, at: u32, length: u32) -> Vec<u8> {
    expression(
        "payload",
        &[
            number(1, REGISTER),
            number(2, header),
            number(3, at),
            number(4, length),
        ],
    )
}

/// Of what was loaded these bits, and no others.
fn keep(bits: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bits.len()).unwrap_or(u32::MAX);
    let none = vec![0; bits.len()];
    expression(
        "bitwise",
        &[
            number(1, REGISTER),
            number(2, REGISTER),
            number(3, length),
            nested(4, &attribute(1, bits)),
            nested(5, &attribute(1, &none)),
        ],
    )
}

fn set(register: u32, value: &[u8]) -> Vec<u8> {
    let value = nested(2, &attribute(1, value));
    expression("immediate", &[number(1, register), value])
}

fn equals(value: &[u8]) -> Vec<u8> {
    expression(
        "cmp",
        &[
            number(1, REGISTER),
            number(2, 0),
            nested(3, &attribute(1, value)),
        ],
    )
}

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inside = [attribute(1, &text(name)), nested(2, &attributes.concat())].concat();
    nested(1, &inside)
}

fn batch(messages: &[(u16, u16, Vec<u8>)]) -> Batch {
    let mut bytes = message(BATCH_BEGIN, REQUEST, 0, (0, NFTABLES), &[]);
    for (sequence, (kind, flags, body)) in (1..).zip(messages) {
        bytes.extend(message(
            *kind,
            REQUEST | ACK | flags,
            sequence,
            (IPV4, 0),
            body,
        ));
    }
    bytes.extend(message(BATCH_END, REQUEST, 0, (0, NFTABLES), &[]));
    Batch {
        bytes,
        answers: messages.len(),
    }
}

fn message(kind: u16, flags: u16, sequence: u32, (family, of): (u8, u16), body: &[u8]) -> Vec<u8> {
    // Family, version 0, and what else the kind asks for.
    let head = [&[family, 0], &of.to_be_bytes()[..]].concat();
    netlink::message(kind, flags, sequence, &[&head, body].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of the messages that a batch consists of.
    fn lengths(bytes: &[u8]) -> Vec<usize> {
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            assert!(length >= 20 && length.is_multiple_of(4));
            found.push(length);
            at += length;
        }
        assert_eq!(at, bytes.len());
        found
    }

    #[test]
    fn a_batch_is_whole_messages_and_says_how_many_answers_come() {
        let laid = lay(Ipv4Addr::new(169, 254, 169, 254), 50_254);
        assert_eq!((lengths(&laid.bytes).len(), laid.answers), (5, 3));
        let removed = remove();
        assert_eq!((lengths(&removed.bytes).len(), removed.answers), (3, 1));
    }

    #[test]
    fn the_one_address_is_matched_and_diverted_to() {
        let bytes = lay(Ipv4Addr::new(169, 254, 169, 254), 50_254).bytes;
        let count = |part: &[u8]| {
            bytes
                .windows(part.len())
                .filter(|window| window == &part)
                .count()
        };
        assert_eq!(count(&[169, 254, 169, 254]), 2);
        assert_eq!(count(&attribute(1, &80u16.to_be_bytes())), 1);
        assert_eq!(count(&attribute(1, &50_254u16.to_be_bytes())), 1);
    }
}
