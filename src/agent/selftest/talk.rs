//! A TCP client for one question: connects, asks, reads to the end.
//!
//! In: segments from the other side, the passing of time. Out: segments to send, and how it ended.
//! Pure. The way is one veth pair on one host: nothing is lost but what a rule takes, so there is no
//! window to mind, and the only repetition is the last words after a silence.

use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other side answered, and closed: all that it said.
    Answered(Vec<u8>),
    /// Refused at the first segment.
    Refused,
    /// Cut off later.
    Cut,
}

/// The conversation.
#[derive(Debug)]
pub(super) struct Talk {
    request: Vec<u8>,
    /// The next number of ours.
    next: u32,
    /// The next of theirs; `None` before they answered.
    theirs: Option<u32>,
    answer: Vec<u8>,
    last: Segment,
}

/// No answer to this question is longer.
const LARGEST: usize = 64 * 1024;

impl Talk {
    /// Begins at number `first`; the first segment to send is [`Talk::again`].
    pub fn new(first: u32, request: Vec<u8>) -> Self {
        Self {
            request,
            next: first.wrapping_add(1),
            theirs: None,
            answer: Vec::new(),
            last: Segment {
                seq: first,
                flags: SYN,
                ..Segment::default()
            },
        }
    }

    /// What was said last, to be said again after a silence.
    pub fn again(&self) -> Segment {
        self.last.clone()
    }

    /// Whether the other side has accepted the connection.
    pub fn is_connected(&self) -> bool {
        self.theirs.is_some()
    }

    /// Takes a segment; what to send now, and whether that was the end.
    pub fn on(&mut self, segment: &Segment) -> (Option<Segment>, Option<Ended>) {
        let Some(theirs) = self.theirs else {
            return self.on_first(segment);
        };
        if segment.flags & RST != 0 {
            return (None, Some(Ended::Cut));
        }
        let length = u32::try_from(segment.payload.len()).unwrap_or_default();
        let is_next = segment.seq == theirs && segment.flags & SYN == 0;
        if !is_next {
            // Said a second time: our word of having heard it was lost.
            return (Some(self.again()), None);
        }
        if length == 0 && segment.flags & FIN == 0 {
            return (None, None);
        }
        self.answer.extend(&segment.payload);
        if self.answer.len() > LARGEST {
            return (Some(self.say(RST | ACK)), Some(Ended::Cut));
        }
        let fin = u32::from(segment.flags & FIN != 0);
        self.theirs = Some(theirs.wrapping_add(length).wrapping_add(fin));
        if fin == 0 {
            return (Some(self.say(ACK)), None);
        }
        let answer = std::mem::take(&mut self.answer);
        (Some(self.say(FIN | ACK)), Some(Ended::Answered(answer)))
    }

    fn on_first(&mut self, segment: &Segment) -> (Option<Segment>, Option<Ended>) {
        if segment.ack != self.next {
            return (None, None);
        }
        if segment.flags & RST != 0 {
            return (None, Some(Ended::Refused));
        }
        if segment.flags & (SYN | ACK) != SYN | ACK {
            return (None, None);
        }
        self.theirs = Some(segment.seq.wrapping_add(1));
        let (seq, payload) = (self.next, std::mem::take(&mut self.request));
        let length = u32::try_from(payload.len()).unwrap_or_default();
        self.next = self.next.wrapping_add(length);
        self.last = Segment {
            seq,
            ack: self.theirs.unwrap_or_default(),
            flags: ACK | PSH,
            payload,
        };
        (Some(self.again()), None)
    }

    fn say(&mut self, flags: u8) -> Segment {
        self.last = Segment {
            seq: self.next,
            ack: self.theirs.unwrap_or_default(),
            flags,
            payload: Vec::new(),
        };
        self.again()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Segment {
        Segment {
            seq,
            ack,
            flags,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn asks_and_reads_to_the_end_across_the_numbers_wrap() {
        let mut talk = Talk::new(u32::MAX, b"ask".to_vec());
        assert_eq!(talk.again(), segment(u32::MAX, 0, SYN, b""));
        let (ask, ended) = talk.on(&segment(u32::MAX, 0, SYN | ACK, b""));
        assert_eq!(
            (ask.unwrap(), ended),
            (segment(0, 0, ACK | PSH, b"ask"), None)
        );
        assert!(talk.is_connected());
        assert_eq!(talk.on(&segment(0, 3, ACK, b"")), (None, None));
        let (heard, _) = talk.on(&segment(0, 3, ACK | PSH, b"ans"));
        assert_eq!(heard.unwrap(), segment(3, 3, ACK, b""));
        // Repeated: heard once.
        assert_eq!(
            talk.on(&segment(0, 3, ACK | PSH, b"ans")).0.unwrap(),
            segment(3, 3, ACK, b"")
        );
        let (bye, ended) = talk.on(&segment(3, 3, FIN | ACK, b"wer"));
        assert_eq!(bye.unwrap(), segment(3, 7, FIN | ACK, b""));
        assert_eq!(ended, Some(Ended::Answered(b"answer".to_vec())));
    }

    #[test]
    fn a_refusal_counts_only_when_it_is_to_our_word() {
        let mut talk = Talk::new(9, Vec::new());
        assert_eq!(talk.on(&segment(0, 3, RST | ACK, b"")), (None, None));
        assert_eq!(
            talk.on(&segment(0, 10, RST | ACK, b"")),
            (None, Some(Ended::Refused))
        );
        let mut talk = Talk::new(9, Vec::new());
        talk.on(&segment(5, 10, SYN | ACK, b""));
        assert_eq!(talk.on(&segment(6, 10, RST, b"")), (None, Some(Ended::Cut)));
    }
}
