//! What the kernel answers by netlink: messages, and what became of a request. Pure.

use std::io;

/// Length of a message's header.
pub(super) const HEADER: usize = 16;
/// The kind of a message that says what became of a request.
pub(super) const ERROR: u16 = 2;

/// Messages with their kinds.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// What became of a request, by the body of its [`ERROR`] message: 0, or an error's number, negative.
pub(super) fn outcome(body: &[u8]) -> io::Result<()> {
    match body
        .first_chunk::<4>()
        .map(|code| i32::from_ne_bytes(*code))
    {
        Some(code) if code != 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}
