//! Datagrams as a kernel sent them, and damaged ones.

use proptest::prelude::*;

use super::*;

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
    let [Message::Entry(ours), Message::Done] = &parse(&message(TCP, AGENT.octets()))[..] else {
        panic!("one entry and the end")
    };
    assert!(!passes_by(ours, AGENT, true, &[]));
}

#[test]
fn the_wire_server_counts_only_while_it_is_guarded() {
    let original = Tuple {
        source: Ipv4Addr::LOCALHOST,
        source_port: 1,
        destination: WIRE_SERVER,
        port: 32526,
    };
    let reply = Tuple {
        source: WIRE_SERVER,
        source_port: 32526,
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
    assert_eq!(
        u32::from_ne_bytes(*request.first_chunk().unwrap()) as usize,
        request.len()
    );
    let kinds: Vec<u16> = attributes(&request[20..]).map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [TUPLE_ORIG, ID]);
}

#[test]
fn a_connection_is_asked_for_as_it_is_answered() {
    let (here, peer) = ("169.254.169.252:4444", "10.0.0.9:4711");
    let request = find_request(here.parse().unwrap(), peer.parse().unwrap());
    assert_eq!(
        u32::from_ne_bytes(*request.first_chunk().unwrap()) as usize,
        request.len()
    );
    let (kind, _, payload) = attributes(&request[20..]).next().unwrap();
    let told = tuple(payload).unwrap();
    assert_eq!(kind, TUPLE_REPLY);
    assert_eq!((told.source, told.source_port), (AGENT, 4444));
    assert_eq!(
        (told.destination, told.port),
        (Ipv4Addr::new(10, 0, 0, 9), 4711)
    );
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
