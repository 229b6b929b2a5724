//! The probe: "is it an agent of Lanyard that answers here?" Anybody may ask; nothing is looked up.
//!
//! In: the query of `GET /lanyard/v1/probe`. Out: the nonce that the answer repeats, or a fault. Pure.
//! The route is ours, not Azure's: IMDS has nothing there, so whoever gets the nonce back with our
//! name was intercepted. The nonce's form is narrow, so that the answer holds nothing but plain words.

use crate::model::fault::{Fault, FaultKind};

/// The route, the only spelling of it.
pub const PATH: &str = "/lanyard/v1/probe";

const LONGEST: usize = 64;

/// What the asker sent to be told again: 1 to 64 of `[A-Za-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the query: exactly `nonce=WORD`.
pub(super) fn nonce(query: &str) -> Result<Nonce, Fault> {
    let word = query.strip_prefix("nonce=").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=LONGEST).contains(&word.len()) && word.bytes().all(plain) {
        return Ok(Nonce(word.to_owned()));
    }
    let public = "A probe needs nonce=WORD, 1 to 64 letters, digits and hyphens, and nothing else";
    Err(Fault::new(FaultKind::BadRequest, public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_plain_word_is_a_nonce() {
        assert_eq!(nonce("nonce=a-Z9").unwrap().as_str(), "a-Z9");
        assert!(nonce(&format!("nonce={}", "a".repeat(64))).is_ok());
        for wrong in [
            "",
            "nonce=",
            "nonce=a&b=c",
            "nonce=a\"",
            "nonce=%61",
            "other=a",
            "nonce=a.b",
        ] {
            assert_eq!(
                nonce(wrong).unwrap_err().kind,
                FaultKind::BadRequest,
                "{wrong}"
            );
        }
        assert!(nonce(&format!("nonce={}", "a".repeat(65))).is_err());
    }
}
