//! What is said by netlink: messages, attributes, and what became of a request. Pure.

pub mod inet_diag;
pub mod route;

use std::io;

/// Length of a message's header.
pub const HEADER: usize = 16;
/// The kind of a message that says what became of a request.
pub const ERROR: u16 = 2;
/// The kind of a list's last message.
pub const DONE: u16 = 3;
/// A request's flag: it is one.
pub const REQUEST: u16 = 1;
/// A request's flag: it is to be answered in any case.
pub const ACK: u16 = 4;
/// A request's flag: for a list.
pub const DUMP: u16 = 0x300;
/// The protocol's number.
pub const TCP: u8 = 6;
/// An attribute's flag: it holds attributes.
const NESTED: u16 = 0x8000;

/// A message with its header. The kernel knows who sent it.
pub fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Messages with their kinds.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// What became of a request, by the body of its [`ERROR`] message: 0, or an error's number, negative.
pub fn outcome(body: &[u8]) -> io::Result<()> {
    match body
        .first_chunk::<4>()
        .map(|code| i32::from_ne_bytes(*code))
    {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// An attribute, filled up to where the next one may begin.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute of attributes.
pub fn nested(kind: u16, inside: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, inside)
}

/// Kind (without flags), the whole attribute, its payload.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let attribute = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, attribute, &attribute[4..]))
    })
}
