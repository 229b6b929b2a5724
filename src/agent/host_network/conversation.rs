//! A netlink socket for single questions.
//!
//! In: a request. Out: the kernel's answer to it. Does not wait: the kernel answers within the call that asks. One
//! socket for the agent's life, whoever asks takes turns.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use parking_lot::Mutex;

use crate::agent::netlink::{ERROR, messages, outcome};

/// More than the kernel says about one connection.
const ANSWER: usize = 4096;
/// Where a message has its sequence number.
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// The socket.
#[derive(Debug)]
pub struct Conversation {
    turn: Mutex<(Socket, u32)>,
}

impl Conversation {
    /// Opens it.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        Ok(Self {
            turn: Mutex::new((socket, 0)),
        })
    }

    /// The body of the answer; an error is the kernel's.
    pub fn ask(&self, mut request: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut turn = self.turn.lock();
        let (socket, sequence) = &mut *turn;
        *sequence = sequence.wrapping_add(1);
        if let Some(place) = request.get_mut(SEQUENCE) {
            place.copy_from_slice(&sequence.to_ne_bytes());
        }
        socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        loop {
            let mut answer = Vec::with_capacity(ANSWER);
            socket.recv(&mut answer, libc::MSG_DONTWAIT)?;
            // What an earlier question left behind, if any did.
            if answer.get(SEQUENCE) != Some(&sequence.to_ne_bytes()[..]) {
                continue;
            }
            let (kind, body) = messages(&answer)
                .next()
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            if kind == ERROR {
                outcome(body)?;
            }
            return Ok(body.to_vec());
        }
    }
}
