//! The byte stream under hyper: notes in which phase the exchange is, and holds back the empty error
//! that hyper writes by itself, so that a JSON one can be sent instead.
//!
//! Comes in: hyper's reads and writes. Goes out: the same bytes, but for hyper's own errors. Adds no
//! system call, no allocation and no timer; deadlines are `http1`'s, from the [`Progress`] noted here.
//! Invariant: never both an automatic error and a JSON one on the wire.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where an exchange stands, as far as bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The head of a request is awaited or has come in part.
    Head,
    /// A request is being answered.
    Answering,
    /// The client does not read its answer.
    Writing,
    /// All is answered.
    Idle,
}

/// Facts about a connection, shared between its stream and its driver, which are one task: the
/// atomics are for `Sync`, not for ordering.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    phase: AtomicU8,
    turn: AtomicU32,
    held_back: AtomicU16,
    unread_body: AtomicBool,
}

impl Progress {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Head,
            1 => Phase::Answering,
            2 => Phase::Writing,
            _ => Phase::Idle,
        }
    }

    /// Counts the phases entered, so that two stays in one phase can be told apart.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        if self.phase() != phase {
            self.phase.store(phase as u8, Relaxed);
            self.turn.store(self.turn().wrapping_add(1), Relaxed);
        }
    }

    /// The status of the automatic error that was held back.
    pub(crate) fn held_back(&self) -> Option<u16> {
        Some(self.held_back.load(Relaxed)).filter(|status| *status != 0)
    }

    pub(crate) fn note_body(&self) {
        self.unread_body.store(true, Relaxed);
    }

    pub(crate) fn had_body(&self) -> bool {
        self.unread_body.load(Relaxed)
    }
}

/// The stream that hyper reads and writes.
pub(crate) struct Watched<'a> {
    inner: TokioIo<TcpStream>,
    progress: &'a Progress,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(stream: TcpStream, progress: &'a Progress) -> Self {
        Watched {
            inner: TokioIo::new(stream),
            progress,
        }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.inner.into_inner()
    }
}

impl Read for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        // End of stream looks like bytes here; the connection ends then, whatever the phase.
        if self.progress.phase() == Phase::Idle {
            self.progress.enter(Phase::Head);
        }
        Poll::Ready(outcome)
    }
}

impl Write for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let own = match automatic_error(buf) {
            Some((0, status)) => {
                self.progress.held_back.store(status, Relaxed);
                return Poll::Ready(Ok(buf.len()));
            }
            Some((start, _)) => &buf[..start],
            None => buf,
        };
        match Pin::new(&mut self.inner).poll_write(cx, own) {
            Poll::Ready(Ok(written)) => {
                if written == buf.len() {
                    self.progress.enter(Phase::Idle);
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.progress.enter(Phase::Writing);
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Nothing: how the stream is closed is the driver's choice, after hyper has left it.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where in `buf` hyper's automatic error starts, and its status. It is the last thing that hyper
/// writes on a connection, has a 4xx status and no content type; answers of ours have one.
fn automatic_error(buf: &[u8]) -> Option<(usize, u16)> {
    const LINE: &[u8] = b"HTTP/1.";
    if !buf.ends_with(b"\r\n\r\n") {
        return None; // every answer with a body: the hot path ends here
    }
    let start = buf.windows(LINE.len()).rposition(|window| window == LINE)?;
    let head = &buf[start..];
    let status: u16 = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    let has = |name: &[u8]| {
        head.windows(name.len())
            .any(|w| w.eq_ignore_ascii_case(name))
    };
    ((400..500).contains(&status) && !has(b"\r\ncontent-type:")).then_some((start, status))
}

#[cfg(test)]
mod tests {
    use super::automatic_error;

    const AUTOMATIC: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn the_automatic_error_is_found_alone_and_behind_an_answer() {
        assert_eq!(automatic_error(AUTOMATIC.as_bytes()), Some((0, 431)));
        let before = "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\n{}";
        let both = format!("{before}{AUTOMATIC}");
        assert_eq!(automatic_error(both.as_bytes()), Some((before.len(), 431)));
    }

    #[test]
    fn answers_are_left_alone_also_to_head_requests() {
        for answer in [
            "HTTP/1.1 400 Bad Request\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 405 No\r\nContent-Type: a/b\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "tail of a body\r\n\r\n",
        ] {
            assert_eq!(automatic_error(answer.as_bytes()), None, "{answer}");
        }
    }
}
