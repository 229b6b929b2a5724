//! How an answer of Entra's token endpoint is read. Pure: status, headers, body and `now` in; a token or
//! an error out that is typed by what can be done about it: try another credential, tell the owner what
//! to register, wait, give up.
//!
//! Sources: "Client credentials flow", "Microsoft Entra authentication and authorization error codes".
//! Entra's words are passed on without its trace ids and times, so that the same error has the same text.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::{Map, Value};

use crate::azure::answer::{Life, plain, retry_after, token};
use crate::model::escape::escaped;
use crate::model::token::Token;

/// What Entra can answer instead of a token. Texts are Entra's own, shortened, never a token or a proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntraError {
    /// This secret, certificate or assertion is refused: wrong, expired, not registered. Another may do.
    #[error("Entra refuses the credential: {description}")]
    Credential {
        /// `AADSTS` number; 0 where none was given.
        code: u32,
        /// Entra's `error_description`.
        description: String,
    },
    /// No federated credential of the client matches the assertion's issuer, subject and audience.
    #[error("no federated credential matches: {description}")]
    Mismatch {
        /// `AADSTS` number.
        code: u32,
        /// Entra's `error_description`; it names what was presented.
        description: String,
    },
    /// This authority does not take the assertion's signature algorithm.
    #[error("Entra does not take the assertion's algorithm: {0}")]
    Algorithm(String),
    /// Any other final answer: unknown client, tenant or resource, a policy.
    #[error("Entra refused ({status}): {error}: {description}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `AADSTS` number; 0 where none was given.
        code: u32,
        /// Entra's `error` word.
        error: String,
        /// Entra's `error_description`.
        description: String,
    },
    /// Too many requests, for the client or its tenant.
    #[error("Entra throttles these requests")]
    Throttled {
        /// Its `Retry-After`, from when the answer came.
        retry_after: Option<Duration>,
    },
    /// Trouble of Entra's own, no connection, or silence.
    #[error("Entra is unavailable: {why}")]
    Unavailable {
        /// What is known of it.
        why: String,
        /// Its `Retry-After`, if it answered at all.
        retry_after: Option<Duration>,
    },
    /// An answer that is none: not JSON, cut, too large, without a token, or with an expired one.
    #[error("Entra answered nonsense: {0}")]
    Invalid(String),
}

/// The secret or the assertion is refused: invalid, expired, revoked, not registered, unusable.
const CREDENTIAL: [u32; 7] = [
    50_012, 700_027, 700_030, 7_000_213, 7_000_214, 7_000_215, 7_000_222,
];
/// No federated credential: for any of it, for the issuer, the audience, the subject.
const MISMATCH: [u32; 4] = [70_021, 700_211, 700_212, 700_213];
/// The assertion's signature algorithm.
const ALGORITHM: u32 = 5_002_738;
/// Of one client that asks in a loop, as Entra sees it: others are served; of the whole tenant.
const THROTTLED: [u32; 2] = [50_196, 90_055];
/// Directory or token service in trouble, timeouts: it passes.
const UNAVAILABLE: [u32; 4] = [90_006, 90_012, 90_024, 90_033];
/// Words `invalid_client` where no other credential would help: the assertion's time or names, a public
/// client, nothing sent.
const NOT_THE_CREDENTIAL: [u32; 7] = [
    700_016, 700_021, 700_023, 700_024, 700_025, 7_000_216, 7_000_218,
];

/// Reads the answer to a token request; `now` is since the Unix epoch. `proof` is cut out wherever the
/// answer repeats it.
pub fn read_token(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Duration,
    proof: &str,
) -> Result<Token, EntraError> {
    match status.as_u16() {
        200 => token(body, now, Life::For).map_err(EntraError::Invalid),
        429 => Err(EntraError::Throttled {
            retry_after: retry_after(headers, now),
        }),
        408 | 500..=599 => Err(EntraError::Unavailable {
            why: Refusal::read(status, body, proof).map_or_else(
                || format!("status {status}"),
                |said| format!("status {status}: {}", said.description),
            ),
            retry_after: retry_after(headers, now),
        }),
        400..=499 => Err(match Refusal::read(status, body, proof) {
            Some(said) => said.typed(status, retry_after(headers, now)),
            // Entra always says why; a proxy or a captive portal does not. It may pass.
            None => EntraError::Invalid(format!("status {status} without an OAuth error")),
        }),
        _ => Err(EntraError::Invalid(format!("status {status}"))),
    }
}

/// An OAuth error (RFC 6749, section 5.2) with Entra's number.
struct Refusal {
    code: u32,
    error: String,
    description: String,
}

impl Refusal {
    /// None where the body is no OAuth error.
    fn read(status: StatusCode, body: &[u8], proof: &str) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let error = plain(&hidden(text("error")?, proof));
        let said = hidden(text("error_description").unwrap_or_default(), proof);
        let code = first_code(&fields).or_else(|| code_in(&said)).unwrap_or(0);
        let description = match without_trace(&said) {
            "" => format!("status {status}"),
            words => plain(words),
        };
        Some(Self {
            code,
            error,
            description,
        })
    }

    fn typed(self, status: StatusCode, retry_after: Option<Duration>) -> EntraError {
        let Self {
            code,
            error,
            description,
        } = self;
        if THROTTLED.contains(&code) {
            EntraError::Throttled { retry_after }
        } else if UNAVAILABLE.contains(&code) || error == "temporarily_unavailable" {
            EntraError::Unavailable {
                why: description,
                retry_after,
            }
        } else if code == ALGORITHM {
            EntraError::Algorithm(description)
        } else if MISMATCH.contains(&code) {
            EntraError::Mismatch { code, description }
        } else if CREDENTIAL.contains(&code)
            || error == "invalid_client" && !NOT_THE_CREDENTIAL.contains(&code)
        {
            EntraError::Credential { code, description }
        } else {
            EntraError::Refused {
                status: status.as_u16(),
                code,
                error,
                description,
            }
        }
    }
}

fn first_code(fields: &Map<String, Value>) -> Option<u32> {
    let codes = fields.get("error_codes")?.as_array()?;
    u32::try_from(codes.first()?.as_u64()?).ok()
}

/// The number after the first `AADSTS` of a text.
fn code_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// What stands before `Trace ID: … Correlation ID: … Timestamp: …`.
fn without_trace(text: &str) -> &str {
    let words = text
        .split_once("Trace ID:")
        .map_or(text, |(words, _)| words);
    words.trim()
}

/// `text` without `proof`, as it is or as it was sent.
fn hidden(text: &str, proof: &str) -> String {
    if proof.is_empty() {
        return text.to_owned();
    }
    text.replace(proof, "[removed]")
        .replace(&escaped(proof), "[removed]")
}

#[cfg(test)]
mod tests;
