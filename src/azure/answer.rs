//! What the answers of token endpoints have in common, whoever gives them: IMDS, Entra, a token proxy.
//!
//! In: a body or headers, and `now`. Out: a token, or why there is none. Pure. Lenient where Azure's own
//! stacks differ (numbers as strings or numbers, absent optional fields), strict where a mistake would
//! reach a pod: nothing without a token, with an unreadable life, or with 30 s of it or less, gets
//! through. Texts that are passed on are bounded and hold no word that could be a token or a key.

use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};

use crate::model::ids::Guid;
use crate::model::token::{Token, UNUSABLE};

/// Longer texts of others are cut before they are passed on (characters).
const TEXT_LIMIT: usize = 1000;
/// Longer words in such texts are not passed on (bytes); Azure's names have up to 128.
const WORD_LIMIT: usize = 128;
/// What every JSON object in base64 starts with, a JWT's header too.
const JSON_START: &str = "eyJ";
/// Longer bearer texts are no tokens (bytes).
const TOKEN_LIMIT: usize = 64 * 1024;
/// End of the year 9999 (seconds since the epoch): larger times are nonsense.
const LAST_SECOND: u64 = 253_402_300_799;
/// The longest wait that an answer may ask for: a number of any size is added to times of ours.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Which statement about a token's life counts where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// `expires_on`: IMDS answers from a cache of its own.
    Until,
    /// `expires_in`: the clock of the other side may differ from ours.
    For,
}

/// Reads the body of a granted token request (RFC 6749, section 5.1, and what Azure adds to it).
///
/// `now` and the times of the token are durations since the Unix epoch. The error says in words what
/// is wrong and holds nothing of the body.
pub(super) fn token(body: &[u8], now: Duration, life: Life) -> Result<Token, String> {
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| format!("no JSON object: {:?}", error.classify()))?;
    let secret = match fields.get("access_token") {
        Some(Value::String(text))
            if !text.is_empty()
                && text.len() <= TOKEN_LIMIT
                && text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            text.clone()
        }
        _ => return Err("no usable access_token".to_owned()),
    };
    if let Some(Value::String(kind)) = fields.get("token_type")
        && !kind.eq_ignore_ascii_case("Bearer")
    {
        return Err("token_type is not Bearer".to_owned());
    }
    let (until, left) = (
        seconds(&fields, "expires_on")?,
        seconds(&fields, "expires_in")?.map(|left| Duration::from_secs(now.as_secs()) + left),
    );
    let stated = match life {
        Life::Until => until.or(left),
        Life::For => left.or(until),
    };
    let expires_on = stated.ok_or("neither expires_on nor expires_in")?;
    if expires_on.saturating_sub(now) <= UNUSABLE {
        return Err(format!(
            "a token that expired at {}; this node's clock says {}",
            expires_on.as_secs(),
            now.as_secs()
        ));
    }
    let not_before =
        seconds(&fields, "not_before")?.unwrap_or_else(|| Duration::from_secs(now.as_secs()));
    let mut token = Token::new(secret, now, not_before, expires_on);
    token.refresh_on = seconds(&fields, "refresh_in")?.map(|after| now + after);
    token.client_id = match fields.get("client_id") {
        Some(Value::String(text)) if !text.is_empty() => Some(
            text.parse::<Guid>()
                .map_err(|_| "client_id is no GUID".to_owned())?,
        ),
        _ => None,
    };
    Ok(token)
}

/// Whole seconds as a string or a number; absent, null and empty are the same.
fn seconds(fields: &Map<String, Value>, name: &str) -> Result<Option<Duration>, String> {
    let parsed = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse::<u64>().ok(),
        Some(Value::Number(number)) => number.as_u64(),
        Some(_) => None,
    };
    match parsed {
        Some(value) if value <= LAST_SECOND => Ok(Some(Duration::from_secs(value))),
        _ => Err(format!("{name} is no number of seconds")),
    }
}

/// What is left to wait by `Retry-After` (RFC 9110, section 10.2.3): whole seconds or a date; a date
/// that has passed is no wait, and none is longer than a day.
pub(super) fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(now).min(LONGEST_WAIT))
}

/// A text for an answer or a log line: bounded, without control characters, and without words that
/// could be a token or a key (invariant 4): no name, GUID or segment of an ARM id is as long, none
/// starts as a JWT does.
pub(super) fn plain(text: &str) -> String {
    let joins = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !joins(c)).unwrap_or(rest.len());
        let taken = word.max(first.len_utf8());
        if word > WORD_LIMIT || rest[..word].starts_with(JSON_START) {
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
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    #[test]
    fn either_clock_may_state_the_life() {
        let body = br#"{"access_token":"t","expires_in":3600,"expires_on":"1800007200"}"#;
        let left = |life| token(body, NOW, life).unwrap().left(NOW).as_secs();
        assert_eq!((left(Life::Until), left(Life::For)), (7200, 3600));
        let body = br#"{"access_token":"t","expires_on":1800007200}"#;
        let token = token(body, NOW, Life::For).unwrap();
        assert_eq!(token.left(NOW).as_secs(), 7200);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, NOW).map(|wait| wait.as_secs())
        };
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Fri, 15 Jan 2027 08:00:30 GMT", Some(30)),
            ("Fri, 15 Jan 2027 07:59:00 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("18446744073709551615", Some(86_400)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn words_that_could_be_secrets_are_removed() {
        let text = format!("a {} b eyJhbGciOiJ9.e30.c2ln c", "s".repeat(129));
        assert_eq!(plain(&text), "a [removed] b [removed] c");
        let text = "'id-1' /subscriptions/x \r\n\u{7f}\u{0}é 'x'";
        assert_eq!(plain(text), "'id-1' /subscriptions/x     é 'x'");
        assert_eq!(plain(&"é".repeat(5_000)).chars().count(), TEXT_LIMIT);
    }
}
