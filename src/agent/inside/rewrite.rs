//! The rule inside a pod that leads 169.254.169.254:80 to our listener's port, as netlink bytes. Pure.
//!
//! A listener on port 80 itself would keep the pod's own web server from `0.0.0.0:80`. So packets to port 80 of that
//! one address are rewritten, both ways, without state: nothing turns connection tracking on for the pod.
//!
//! Source: `linux/netfilter/nfnetlink.h` and `nf_tables.h`. As `nft` would write it:
//! ```text
//! table ip lanyard { chain out { type route hook output priority -300; policy accept;
//!   oif lo ip daddr 169.254.169.254 tcp dport 80 tcp dport set PORT
//!   oif lo ip saddr 169.254.169.254 tcp sport PORT tcp sport set 80 } }
//! ```

use std::net::Ipv4Addr;

/// The table's name.
const TABLE: &str = "lanyard";
const CHAIN: &str = "out";
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

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// What is compared and written passes through this register.
const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where the destination's and the source's address and port are, in bytes.
const DESTINATION: (u32, u32) = (16, 2);
const SOURCE: (u32, u32) = (12, 0);
const TCP: &[u8] = &[6];
/// `NFT_META_L4PROTO`.
const TRANSPORT: u32 = 16;
/// `NFT_META_OIF`.
const OUT_INTERFACE: u32 = 5;
/// The loopback interface is the first of every namespace.
const LO: u32 = 1;
/// TCP's checksum: of the Internet, at this offset.
const CHECKSUM: (u32, u32) = (1, 16);
const PRIORITY: i32 = -300;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;

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
    let hook = [number(1, OUTPUT), attribute(2, &PRIORITY.to_be_bytes())].concat();
    let chain = [
        table.clone(),
        attribute(3, &text(CHAIN)),
        nested(4, &hook),
        // Accept what no rule ends.
        number(5, 1),
        attribute(7, &text("route")),
    ]
    .concat();
    let rule = |at, from, to| {
        let rule = rule(address, at, from, to);
        [table.clone(), attribute(2, &text(CHAIN)), nested(4, &rule)].concat()
    };
    batch(&[
        (NEW_TABLE, CREATE | EXCLUSIVE, table.clone()),
        (NEW_CHAIN, CREATE, chain),
        (NEW_RULE, CREATE | APPEND, rule(DESTINATION, HTTP, port)),
        (NEW_RULE, CREATE | APPEND, rule(SOURCE, port, HTTP)),
    ])
}

/// Takes the table away.
pub fn remove() -> Batch {
    batch(&[(DELETE_TABLE, 0, attribute(1, &text(TABLE)))])
}

/// Packets of this address and this port, at one end, get another port there.
fn rule(address: Ipv4Addr, (address_at, port_at): (u32, u32), from: u16, to: u16) -> Vec<u8> {
    [
        expression("meta", &[number(2, OUT_INTERFACE), number(1, REGISTER)]),
        equals(&LO.to_ne_bytes()),
        load(NETWORK_HEADER, address_at, 4),
        equals(&address.octets()),
        expression("meta", &[number(2, TRANSPORT), number(1, REGISTER)]),
        equals(TCP),
        load(TRANSPORT_HEADER, port_at, 2),
        equals(&from.to_be_bytes()),
        expression(
            "immediate",
            &[
                number(1, REGISTER),
                nested(2, &attribute(1, &to.to_be_bytes())),
            ],
        ),
        store(port_at),
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

/// Writes two bytes into the transport header, and mends its checksum.
fn store(at: u32) -> Vec<u8> {
    expression(
        "payload",
        &[
            number(5, REGISTER),
            number(2, TRANSPORT_HEADER),
            number(3, at),
            number(4, 2),
            number(6, CHECKSUM.0),
            number(7, CHECKSUM.1),
        ],
    )
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
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(20 + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(of.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, inside: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, inside)
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
        assert_eq!((lengths(&laid.bytes).len(), laid.answers), (6, 4));
        let removed = remove();
        assert_eq!((lengths(&removed.bytes).len(), removed.answers), (3, 1));
    }

    #[test]
    fn both_ways_are_rewritten_and_only_for_the_one_address() {
        let bytes = lay(Ipv4Addr::new(169, 254, 169, 254), 50_254).bytes;
        let count = |part: &[u8]| {
            bytes
                .windows(part.len())
                .filter(|window| window == &part)
                .count()
        };
        assert_eq!(count(&[169, 254, 169, 254]), 2);
        // Each port is matched once and written once.
        assert_eq!(count(&attribute(1, &80u16.to_be_bytes())), 2);
        assert_eq!(count(&attribute(1, &50_254u16.to_be_bytes())), 2);
    }
}
