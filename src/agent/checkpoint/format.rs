//! A checkpoint as bytes: one line with the format's number, a checksum and a length, then JSON. Pure.
//!
//! Holds invariant 7: what is damaged, of another boot, node or network namespace, or of another
//! format is refused with the reason, and never half believed.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::content::Content;

/// Raised whenever files of before cannot be read any more.
const FORMAT: u32 = 1;
/// A node's pods and what decides for them take some hundred KiB; more is a mistake.
pub const LARGEST: usize = 16 << 20;
const MAGIC: &str = "lanyard-checkpoint";

/// Where and when a checkpoint counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// The kernel's boot id: interface indices mean something else after a boot.
    pub boot: String,
    /// The network namespace's inode, for the same reason.
    pub network: u64,
    /// The node's name.
    pub node: String,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where it counts.
    pub here: Here,
    /// When the API server was last heard of everything in it: time since boot.
    pub heard: Duration,
    /// What was known.
    pub content: Content,
}

/// Why a checkpoint is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not what we wrote.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Written by another version.
    #[error("its format is {0}, not {FORMAT}")]
    Format(String),
    /// The machine was booted since.
    #[error("it is from another boot of this machine")]
    Boot,
    /// The network namespace is another one.
    #[error("it is from another network namespace")]
    Network,
    /// It is about another node.
    #[error("it is about the node `{0}`")]
    Node(String),
    /// It cannot be read.
    #[error("it does not parse: {0}")]
    Unreadable(String),
}

/// The bytes of a checkpoint.
pub fn encode(checkpoint: &Checkpoint) -> serde_json::Result<Vec<u8>> {
    let body = serde_json::to_vec(checkpoint)?;
    let head = format!("{MAGIC} {FORMAT} {} {}\n", checksum(&body), body.len());
    let mut bytes = Vec::with_capacity(head.len() + body.len());
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The checkpoint in these bytes, if it counts here.
pub fn decode(bytes: &[u8], here: &Here) -> Result<Checkpoint, Refused> {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let line = line.ok_or(Refused::Damaged("it has no first line"))?;
    let (head, body) = (&bytes[..line], &bytes[line + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| Refused::Damaged("its first line"))?;
    let mut words = head.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(Refused::Damaged("its first word"));
    }
    let format = words.next().unwrap_or_default();
    if format != FORMAT.to_string() {
        return Err(Refused::Format(format.chars().take(16).collect()));
    }
    let (sum, length) = (words.next().unwrap_or_default(), words.next());
    if length.and_then(|length| length.parse().ok()) != Some(body.len()) {
        return Err(Refused::Damaged("its length"));
    }
    if sum != checksum(body) {
        return Err(Refused::Damaged("its checksum"));
    }
    let checkpoint: Checkpoint =
        serde_json::from_slice(body).map_err(|error| Refused::Unreadable(error.to_string()))?;
    let theirs = &checkpoint.here;
    if theirs.boot != here.boot {
        return Err(Refused::Boot);
    }
    if theirs.network != here.network {
        return Err(Refused::Network);
    }
    if theirs.node != here.node {
        return Err(Refused::Node(theirs.node.clone()));
    }
    Ok(checkpoint)
}

fn checksum(body: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, body).as_ref() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
