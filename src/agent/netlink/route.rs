//! Whether an address is this network namespace's own, as `NETLINK_ROUTE` says it. Pure.
//!
//! Source: `linux/rtnetlink.h`.

use std::net::Ipv4Addr;

use super::{REQUEST, attribute, message};

const GET_ROUTE: u16 = 26;
const IPV4: u8 = 2;
const DESTINATION: u16 = 1;
/// Where an answer has the kind of its route, and the kind of one that ends here.
const KIND: (usize, u8) = (7, 2);

/// Asks for the way to an address.
pub fn request(to: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0; 12];
    body[..2].copy_from_slice(&[IPV4, 32]);
    body.extend(attribute(DESTINATION, &to.octets()));
    message(GET_ROUTE, REQUEST, 0, &body)
}

/// Whether an answer's way ends here.
pub fn ends_here(body: &[u8]) -> bool {
    body.get(KIND.0) == Some(&KIND.1)
}

#[cfg(test)]
mod tests {
    use super::super::messages;
    use super::*;

    #[test]
    fn a_request_is_whole_and_only_local_routes_end_here() {
        let bytes = request(Ipv4Addr::new(10, 0, 0, 1));
        let (kind, body) = messages(&bytes).next().unwrap();
        assert_eq!((kind, body.len()), (GET_ROUTE, 20));
        assert!(body.ends_with(&[8, 0, 1, 0, 10, 0, 0, 1]));
        let answer = |kind: u8| [2, 32, 0, 0, 255, 0, 0, kind, 0, 0, 0, 0];
        assert!(ends_here(&answer(2)) && !ends_here(&answer(1)) && !ends_here(&[]));
    }
}
