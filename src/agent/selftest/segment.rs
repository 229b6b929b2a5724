//! One TCP segment in its IPv4 packet in its Ethernet frame: written and read.
//!
//! In: a segment and where it goes. Out: bytes of a frame, and back. Pure. Only what the self-test
//! needs: no options, no fragments. What the kernel sends over a veth has no finished checksum, so
//! that is not looked at; a frame that is anybody else's is `None`.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Both ends of the conversation, as the pod's side sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The pretended pod.
    pub pod: SocketAddrV4,
    /// Its MAC.
    pub pod_mac: [u8; 6],
    /// Whom it asks.
    pub server: SocketAddrV4,
    /// The MAC of the host's end, its way to everybody.
    pub host_mac: [u8; 6],
}

/// What a segment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
const IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_TCP: u8 = 6;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0x00];
const HOPS: u8 = 64;
const WINDOW: u16 = 0xFFFF;

impl Ends {
    /// The frame that carries `segment` from the pod to the server.
    pub fn frame(&self, segment: &Segment) -> Vec<u8> {
        let tcp = self.tcp(segment);
        let length = u16::try_from(IP + tcp.len()).unwrap_or(u16::MAX);
        let mut ip = Vec::with_capacity(IP);
        ip.extend([0x45, 0]);
        ip.extend(length.to_be_bytes());
        ip.extend([0, 0]);
        ip.extend(DONT_FRAGMENT);
        ip.extend([HOPS, PROTOCOL_TCP, 0, 0]);
        ip.extend(self.pod.ip().octets());
        ip.extend(self.server.ip().octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&self.host_mac[..], &self.pod_mac, &IPV4, &ip, &tcp].concat()
    }

    fn tcp(&self, segment: &Segment) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(TCP + segment.payload.len());
        tcp.extend(self.pod.port().to_be_bytes());
        tcp.extend(self.server.port().to_be_bytes());
        tcp.extend(segment.seq.to_be_bytes());
        tcp.extend(segment.ack.to_be_bytes());
        tcp.extend([0x50, segment.flags]);
        tcp.extend(WINDOW.to_be_bytes());
        tcp.extend([0, 0, 0, 0]);
        tcp.extend(&segment.payload);
        let length = u16::try_from(tcp.len()).unwrap_or(u16::MAX).to_be_bytes();
        let (from, to) = (self.pod.ip().octets(), self.server.ip().octets());
        let sum = checksum(&[&from, &to, &[0, PROTOCOL_TCP], &length, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    /// The segment that a frame carries from the server to the pod.
    pub fn read(&self, frame: &[u8]) -> Option<Segment> {
        let ip = frame.get(ETHERNET..)?;
        if frame.get(12..ETHERNET)? != IPV4 || ip.first()? >> 4 != 4 || *ip.get(9)? != PROTOCOL_TCP
        {
            return None;
        }
        let (head, total) = (usize::from(ip[0] & 0x0F) * 4, usize::from(two(ip, 2)?));
        let is_fragment = two(ip, 6)? & 0x3FFF != 0;
        let address = |at| Some(Ipv4Addr::from(four(ip, at)?));
        let tcp = ip.get(head..total)?;
        let from = SocketAddrV4::new(address(12)?, two(tcp, 0)?);
        let to = SocketAddrV4::new(address(16)?, two(tcp, 2)?);
        if is_fragment || from != self.server || to != self.pod {
            return None;
        }
        let data = usize::from(*tcp.get(12)? >> 4) * 4;
        Some(Segment {
            seq: four(tcp, 4)?,
            ack: four(tcp, 8)?,
            flags: *tcp.get(13)?,
            payload: tcp.get(data..)?.to_vec(),
        })
    }
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// RFC 1071. Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            pod: "169.254.169.251:4660".parse().unwrap(),
            pod_mac: [2, 0, 0, 0, 0, 2],
            server: "169.254.169.254:80".parse().unwrap(),
            host_mac: [2, 0, 0, 0, 0, 1],
        }
    }

    /// As the kernel would send it: the same frame, seen from the other side.
    fn answer(segment: &Segment) -> Vec<u8> {
        let there = ends();
        let back = Ends {
            pod: there.server,
            server: there.pod,
            ..there
        };
        back.frame(segment)
    }

    #[test]
    fn what_is_written_has_sums_that_a_kernel_accepts() {
        let frame = ends().frame(&Segment {
            seq: 7,
            ack: 9,
            flags: ACK | PSH,
            payload: b"odd".to_vec(),
        });
        assert_eq!(frame.len(), ETHERNET + IP + TCP + 3);
        let (ip, tcp) = (&frame[ETHERNET..ETHERNET + IP], &frame[ETHERNET + IP..]);
        assert_eq!(checksum(&[ip]), 0);
        assert_eq!(checksum(&[&ip[12..20], &[0, 6], &[0, 23], tcp]), 0);
        // The example of RFC 1071, section 3.
        assert_eq!(
            checksum(&[&[0, 1, 0xF2, 3, 0xF4, 0xF5, 0xF6, 0xF7]]),
            !0xDDF2
        );
    }

    #[test]
    fn an_answer_is_read_without_padding_and_others_frames_are_not() {
        let segment = Segment {
            seq: 1,
            ack: 2,
            flags: SYN | ACK,
            payload: b"x".to_vec(),
        };
        let mut frame = answer(&segment);
        frame.extend([0; 5]);
        assert_eq!(ends().read(&frame), Some(segment.clone()));
        // Its own frames are seen, too.
        assert_eq!(ends().read(&ends().frame(&segment)), None);
        for cut in 0..answer(&segment).len() {
            assert_eq!(ends().read(&frame[..cut]), None, "{cut}");
        }
        let mut fragment = frame;
        fragment[ETHERNET + 6] = 0x20;
        assert_eq!(ends().read(&fragment), None);
    }
}
