//! Broken answers, the same for every service: late, cut, silent, not what they should be.
//!
//! In: the right answer, the [`Strike`] and the service's error style. Out: the reply and the status for
//! the journal. Sleeps for the strike's latency. IMDS adds what concerns tokens and its own limits.

use bytes::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::faults::{Effect, Strike};
use super::http::{self, Reply};

/// How a service words an error for a status.
pub(super) type Style = fn(u16) -> Value;

/// `{"error","error_description"}`, as OAuth 2.0 has it.
pub(super) const OAUTH: Style = |code| {
    let error = match code {
        429 => "temporarily_unavailable",
        400..500 => "invalid_request",
        _ => "server_error",
    };
    json!({"error": error, "error_description": format!("A fault answers {code}")})
};

/// `{"error":{"code","message"}}`, as Azure's resource APIs have it.
pub(super) const RESOURCE: Style = |code| {
    let name = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "SecretNotFound",
        429 => "Throttled",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    };
    json!({"error": {"code": name, "message": format!("A fault answers {code}")}})
};

/// The same with ARM's codes.
pub(super) const ARM: Style = |code| {
    let name = match code {
        401 => "AuthenticationFailed",
        403 => "AuthorizationFailed",
        404 => "ResourceNotFound",
        409 => "Conflict",
        412 => "PreconditionFailed",
        429 => "SubscriptionRequestsThrottled",
        503 => "ServerTimeout",
        504 => "GatewayTimeout",
        400..500 => "BadRequest",
        _ => "InternalServerError",
    };
    json!({"error": {"code": name, "message": format!("A fault answers {code}")}})
};

/// Waits and breaks as the strike says; effects that concern tokens are for `right` to follow.
pub(super) async fn perform(
    right: impl FnOnce() -> Response<Bytes>,
    strike: Strike,
    style: Style,
) -> (Reply, Option<u16>) {
    if !strike.latency.is_zero() {
        tokio::time::sleep(strike.latency).await;
    }
    spoil(right, strike.effect.as_ref(), style)
}

/// The answer as the effect leaves it; the right one is made only where it is needed.
pub(super) fn spoil(
    right: impl FnOnce() -> Response<Bytes>,
    effect: Option<&Effect>,
    style: Style,
) -> (Reply, Option<u16>) {
    let response = match effect {
        Some(Effect::Silence) => return (Reply::Silence, None),
        Some(Effect::Reset) => return (Reply::Reset, None),
        Some(Effect::Truncate) => {
            let right = right();
            let status = right.status().as_u16();
            return (Reply::Truncated(right), Some(status));
        }
        Some(Effect::Status {
            code,
            retry_after,
            body,
        }) => status(*code, *retry_after, body.clone(), style),
        Some(Effect::Garbage) => {
            let body = b"\x00\x01}{ not json \xff".as_slice();
            http::typed(StatusCode::OK, http::JSON, body)
        }
        Some(Effect::Html) => {
            let body = "<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>";
            http::typed(StatusCode::OK, "text/html; charset=utf-8", body)
        }
        Some(Effect::Huge(bytes)) => {
            let filler = "a".repeat(usize::try_from(*bytes).unwrap_or(usize::MAX).min(1 << 30));
            http::json(
                StatusCode::OK,
                &json!({"access_token": filler, "token_type": "Bearer"}),
            )
        }
        Some(
            Effect::Aadsts { .. } | Effect::Expired | Effect::Lifetime(_) | Effect::Missing(_),
        )
        | None => right(),
    };
    let status = response.status().as_u16();
    (Reply::Answer(response), Some(status))
}

/// A status with the service's words for it, unless a body is given.
pub(super) fn status(
    code: u16,
    retry_after: Option<u32>,
    body: Option<String>,
    style: Style,
) -> Response<Bytes> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match body {
        Some(body) => http::typed(status, http::JSON, body),
        None => http::json(status, &style(code)),
    };
    self::retry_after(&mut response, retry_after);
    response
}

/// Puts `Retry-After` into an answer, where there is one.
pub(super) fn retry_after(response: &mut Response<Bytes>, seconds: Option<u32>) {
    if let Some(seconds) = seconds {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}
