//! What the agent and who holds its listeners tell each other: packets over a unix socket of sequenced packets (unix(7)),
//! with open sockets beside them (`SCM_RIGHTS`).
//!
//! Each begins with a byte that says what it is; the rest is a name, which means something to the agent alone.

use std::io;
use std::os::fd::OwnedFd;

use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

/// Of a packet, in bytes.
const LONGEST: usize = 128;
const HOLD: u8 = b'+';
const RELEASE: u8 = b'-';
const ALL_TOLD: u8 = b'.';

/// One packet.
#[derive(Debug)]
pub enum Packet {
    /// To who holds: hold these, instead of what had the name. From it: these are held.
    Hold {
        /// The agent's name for them.
        name: String,
        /// Open sockets.
        sockets: Vec<OwnedFd>,
    },
    /// To who holds: let go of what has this name.
    Release {
        /// The name.
        name: String,
    },
    /// From who holds, once in each conversation: everything that is held has been named.
    AllTold,
}

/// Room for four sockets: a pod's endpoint has one for each family of addresses. They are read where they lie, so they must
/// be aligned.
#[repr(align(8))]
struct Control([u8; 32]);

impl Packet {
    /// The next one; `None` at the end of the conversation. May be dropped at any time: no packet is lost.
    pub async fn receive(from: &UnixSeqpacket) -> io::Result<Option<Self>> {
        let (mut text, mut control) = ([0; LONGEST], Control([0; 32]));
        let received = from.recv_with_ancillary(&mut text, &mut control.0).await?;
        let (told, beside) = received;
        let mut sockets = Vec::new();
        for message in beside.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(more) = message {
                sockets.extend(more);
            }
        }
        if told.truncated() || told.ancillary_truncated() {
            return Err(malformed("it did not come whole"));
        }
        let Some((kind, name)) = text[..told.bytes_read()].split_first() else {
            return Ok(None);
        };
        let name =
            String::from_utf8(name.to_vec()).map_err(|_| malformed("its name is not UTF-8"))?;
        match (*kind, sockets.len()) {
            (HOLD, 1..) => Ok(Some(Self::Hold { name, sockets })),
            (RELEASE, 0) => Ok(Some(Self::Release { name })),
            (ALL_TOLD, 0) => Ok(Some(Self::AllTold)),
            _ => Err(malformed("of no known kind")),
        }
    }

    /// "Hold these", or "these are held".
    pub async fn hold(to: &UnixSeqpacket, name: &str, sockets: &[OwnedFd]) -> io::Result<()> {
        let mut control = Control([0; 32]);
        let mut beside = AncillaryMessageWriter::new(&mut control.0);
        let added = beside.add_fds(sockets);
        added.map_err(|_| malformed("too many sockets of one name"))?;
        let text = [&[HOLD], name.as_bytes()].concat();
        to.send_with_ancillary(&text, &mut beside).await.map(drop)
    }

    /// "Let go."
    pub async fn release(to: &UnixSeqpacket, name: &str) -> io::Result<()> {
        let text = [&[RELEASE], name.as_bytes()].concat();
        to.send(&text).await.map(drop)
    }

    /// "That is all."
    pub async fn all_told(to: &UnixSeqpacket) -> io::Result<()> {
        to.send(&[ALL_TOLD]).await.map(drop)
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a packet about held listeners: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn sockets_come_out_as_they_went_in() {
        let (here, there) = UnixSeqpacket::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Packet::hold(&here, "4:17/imds", &[listener.into()])
            .await
            .unwrap();
        Packet::release(&here, "4:17/imds").await.unwrap();
        Packet::all_told(&here).await.unwrap();
        drop(here);
        let Some(Packet::Hold { name, mut sockets }) = Packet::receive(&there).await.unwrap()
        else {
            panic!("nothing to hold");
        };
        assert_eq!((&*name, sockets.len()), ("4:17/imds", 1));
        let listener = TcpListener::from(sockets.remove(0));
        assert_eq!(listener.local_addr().unwrap(), address);
        let next = Packet::receive(&there).await.unwrap();
        assert!(matches!(next, Some(Packet::Release { name }) if name == "4:17/imds"));
        let next = Packet::receive(&there).await.unwrap();
        assert!(matches!(next, Some(Packet::AllTold)));
        assert!(Packet::receive(&there).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_none_of_these_is_an_error() {
        let (here, there) = UnixSeqpacket::pair().unwrap();
        let long = [b'-'; LONGEST + 1];
        for text in [&b"?"[..], b"+without sockets", b"-\xff", &long] {
            here.send(text).await.unwrap();
            let told = Packet::receive(&there).await.unwrap_err();
            assert_eq!(told.kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
        // Nothing of it stays behind.
        Packet::all_told(&here).await.unwrap();
        assert!(Packet::receive(&there).await.is_ok());
    }
}
