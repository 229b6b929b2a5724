//! How an answer of IMDS's token route is read. Pure: status, headers, body and `now` in; a token
//! or a typed error out. Lenient where Azure's own stacks differ (numbers as strings or numbers,
//! absent optional fields), strict where a mistake would reach a pod: nothing without a token, with
//! an unreadable life, or with 30 s of it or less, gets through.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};

use crate::model::ids::Guid;
use crate::model::token::{Token, UNUSABLE};

use super::ImdsError;

/// Longer texts of IMDS are cut before they are passed on (characters).
const TEXT_LIMIT: usize = 1000;
/// Longer words in such texts are not passed on (bytes); Azure's names have up to 128.
const WORD_LIMIT: usize = 128;
/// Longer bearer texts are no tokens (bytes).
const TOKEN_LIMIT: usize = 64 * 1024;
/// End of the year 9999 (seconds since the epoch): larger times are nonsense.
const LAST_SECOND: u64 = 253_402_300_799;

/// Reads the answer to a token request. Source: the IMDS protocol, api-version 2018-02-01.
pub fn read_token(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Duration,
) -> Result<Token, ImdsError> {
    match status.as_u16() {
        200 => token(body, now),
        404 | 410 => Err(ImdsError::Updating(status.as_u16())),
        429 => Err(ImdsError::Throttled {
            retry_after: retry_after(headers),
        }),
        408 | 500..=599 => Err(ImdsError::Unavailable(format!("status {status}"))),
        400..=499 => Err(refusal(status, body)),
        _ => Err(ImdsError::Invalid(format!("status {status}"))),
    }
}

fn token(body: &[u8], now: Duration) -> Result<Token, ImdsError> {
    let invalid = |text: String| ImdsError::Invalid(text);
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("no JSON object: {:?}", error.classify())))?;
    let secret = match fields.get("access_token") {
        Some(Value::String(text))
            if !text.is_empty()
                && text.len() <= TOKEN_LIMIT
                && text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            text.clone()
        }
        _ => return Err(invalid("no usable access_token".to_owned())),
    };
    if let Some(Value::String(kind)) = fields.get("token_type")
        && !kind.eq_ignore_ascii_case("Bearer")
    {
        return Err(invalid("token_type is not Bearer".to_owned()));
    }
    let expires_on = match (
        seconds(&fields, "expires_on")?,
        seconds(&fields, "expires_in")?,
    ) {
        (Some(on), _) => on,
        (None, Some(left)) => Duration::from_secs(now.as_secs()) + left,
        (None, None) => return Err(invalid("neither expires_on nor expires_in".to_owned())),
    };
    if expires_on.saturating_sub(now) <= UNUSABLE {
        return Err(invalid(format!(
            "a token that expired at {}; this node's clock says {}",
            expires_on.as_secs(),
            now.as_secs()
        )));
    }
    let not_before =
        seconds(&fields, "not_before")?.unwrap_or_else(|| Duration::from_secs(now.as_secs()));
    let mut token = Token::new(secret, now, not_before, expires_on);
    token.refresh_on = seconds(&fields, "refresh_in")?.map(|after| now + after);
    token.client_id = match fields.get("client_id") {
        Some(Value::String(text)) if !text.is_empty() => Some(
            text.parse::<Guid>()
                .map_err(|_| invalid("client_id is no GUID".to_owned()))?,
        ),
        _ => None,
    };
    Ok(token)
}

/// Whole seconds as a string or a number; absent, null and empty are the same.
fn seconds(fields: &Map<String, Value>, name: &str) -> Result<Option<Duration>, ImdsError> {
    let parsed = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse::<u64>().ok(),
        Some(Value::Number(number)) => number.as_u64(),
        Some(_) => None,
    };
    match parsed {
        Some(value) if value <= LAST_SECOND => Ok(Some(Duration::from_secs(value))),
        _ => Err(ImdsError::Invalid(format!(
            "{name} is no number of seconds"
        ))),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ImdsError {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(plain);
    let error = text("error").unwrap_or_else(|| "invalid_request".to_owned());
    let description =
        text("error_description").unwrap_or_else(|| format!("IMDS answered {status}"));
    if status == StatusCode::BAD_REQUEST
        && error == "invalid_request"
        && description
            .to_ascii_lowercase()
            .contains("identity not found")
    {
        return ImdsError::NotFound(description);
    }
    ImdsError::Refused {
        status: status.as_u16(),
        error,
        description,
    }
}

/// Whole seconds only; IMDS sends no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse::<u64>().ok().map(Duration::from_secs)
}

/// A text for an answer or a log line: bounded, without control characters, and without words that
/// could be a token or a key (invariant 4): no name, GUID or segment of an ARM id is as long.
fn plain(text: &str) -> String {
    let joins = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !joins(c)).unwrap_or(rest.len());
        let taken = word.max(first.len_utf8());
        if word > WORD_LIMIT {
            plain.push_str("[removed]");
        } else {
            plain.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    plain
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests;
