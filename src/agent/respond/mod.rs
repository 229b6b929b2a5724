//! Last step: a token or a fault → the answer that SDKs understand. The one table from fault to
//! status. Pure.
//!
//! | kind | status | what SDKs do |
//! |---|---|---|
//! | malformed request, no `Metadata` header, `X-Forwarded-For` | 400 | final |
//! | identity not found / not granted / several | 400, at once, never `Retry-After` | a credential chain goes on |
//! | the identity's own credential is missing or broken | 400 | final |
//! | the source refused for good | 400 with its words | final, the text is shown |
//! | App Service's secret missing or wrong | 401 | final |
//! | at `/host/token`: who asks is not proven, may not, names no pod of this node | 401, 403, 404 | final |
//! | method, path, closed path | 405, 404, 403 | final |
//! | pod or assignment not there yet, source in trouble | 503 + `Retry-After` | retried |
//! | too much at once, source throttles | 429 + `Retry-After` | retried |
//!
//! Source: IMDS's documented error shapes `{"error","error_description"}`, numbers as strings.

pub mod app_service;
pub mod host_token;

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use crate::model::fault::{Fault, FaultKind};
use crate::model::ids::Guid;
use crate::model::query::Selector;
use crate::model::token::{Token, is_plain};

/// The answer to a pod.
pub type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A token's answer. `resource` is echoed byte for byte, `expires_in` is right at `now`; keys in
/// IMDS's order, which has `expires_in` before `expires_on` (one client lets the later one win).
#[must_use]
pub fn token(
    token: &Token,
    left: Duration,
    client_id: Guid,
    resource: &str,
    selector: &Selector,
) -> Answer {
    let mut body = String::with_capacity(token.expose().len() + resource.len() + 320);
    let left = left.as_secs();
    body.push_str("{\"access_token\":\"");
    push_secret(&mut body, token);
    body.push_str("\",\"client_id\":\"");
    client_id.push_to(&mut body);
    body.push_str("\",\"expires_in\":\"");
    push_number(&mut body, left);
    body.push_str("\",\"expires_on\":\"");
    push_number(&mut body, token.expires_on.as_secs());
    body.push_str("\",\"ext_expires_in\":\"");
    push_number(&mut body, left);
    body.push('"');
    if let Selector::ResourceId(id) = selector {
        body.push_str(",\"msi_res_id\":\"");
        push_escaped(&mut body, id.as_written());
        body.push('"');
    }
    body.push_str(",\"not_before\":\"");
    push_number(&mut body, token.not_before.as_secs());
    body.push('"');
    if let Selector::ObjectId(id) = selector {
        body.push_str(",\"object_id\":\"");
        id.push_to(&mut body);
        body.push('"');
    }
    body.push_str(",\"resource\":\"");
    push_escaped(&mut body, resource);
    body.push_str("\",\"token_type\":\"Bearer\"}");
    json(StatusCode::OK, body)
}

/// A probe's answer: who answers, and the asker's own word. `instance` and `nonce` are plain words.
#[must_use]
pub fn probe(version: &str, instance: &str, nonce: &str) -> Answer {
    let body =
        format!("{{\"lanyard\":\"{version}\",\"instance\":\"{instance}\",\"nonce\":\"{nonce}\"}}");
    json(StatusCode::OK, body)
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// A fault's answer.
#[must_use]
pub fn fault(fault: &Fault) -> Answer {
    let (status, usual_code) = status(fault.kind);
    let code = if fault.code.is_empty() {
        usual_code
    } else {
        &fault.code
    };
    let mut body = String::with_capacity(96 + fault.public.len());
    body.push_str("{\"error\":\"");
    push_escaped(&mut body, code);
    body.push_str("\",\"error_description\":\"");
    push_escaped(&mut body, &fault.public);
    body.push_str("\"}");
    let mut answer = json(status, body);
    add_headers(&mut answer, fault);
    answer
}

/// What a fault's answer says beside its body.
fn add_headers(answer: &mut Answer, fault: &Fault) {
    if let Some(after) = fault.retry_after {
        let seconds = after.as_secs_f64().ceil().max(1.0);
        if let Ok(value) = HeaderValue::try_from(format!("{seconds:.0}")) {
            answer.headers_mut().insert(RETRY_AFTER, value);
        }
    }
    let more = match fault.kind {
        FaultKind::MethodNotAllowed => (ALLOW, "GET"),
        FaultKind::HostTokenUnproven => (WWW_AUTHENTICATE, "Bearer"),
        _ => return,
    };
    answer
        .headers_mut()
        .insert(more.0, HeaderValue::from_static(more.1));
}

/// The table: status and the word of IMDS's error list.
#[must_use]
pub const fn status(kind: FaultKind) -> (StatusCode, &'static str) {
    match kind {
        FaultKind::MetadataHeaderMissing
        | FaultKind::Forwarded
        | FaultKind::BadRequest
        | FaultKind::IdentityNotFound
        | FaultKind::IdentityAmbiguous
        | FaultKind::CredentialUnusable
        | FaultKind::UpstreamRefused => (StatusCode::BAD_REQUEST, "invalid_request"),
        FaultKind::AppServiceHeader | FaultKind::HostTokenUnproven => {
            (StatusCode::UNAUTHORIZED, "unauthorized")
        }
        FaultKind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        FaultKind::PathNotFound | FaultKind::PodNotHere => (StatusCode::NOT_FOUND, "not_found"),
        FaultKind::PathForbidden | FaultKind::HostTokenForbidden => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
        FaultKind::PodUnknown
        | FaultKind::PodAmbiguous
        | FaultKind::PodMoved
        | FaultKind::AskedFromOutside
        | FaultKind::StateTooOld
        | FaultKind::ReviewUnavailable
        | FaultKind::NotYetAssigned
        | FaultKind::UpstreamUnavailable
        | FaultKind::UpstreamInvalid => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
        FaultKind::PodThrottled | FaultKind::Overloaded | FaultKind::UpstreamThrottled => {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_requests")
        }
        FaultKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    }
}

/// Appends a number in decimal: this is done for every token, and `format!` costs more than the rest
/// of the body.
fn push_number(body: &mut String, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len() - 1;
    loop {
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
        first -= 1;
    }
    body.extend(digits[first..].iter().map(|digit| char::from(*digit)));
}

/// Appends the token as the inside of a JSON string. Each byte was looked at when it came: doing that for
/// each answer cost as much as half of what hyper does for it.
fn push_secret(body: &mut String, token: &Token) {
    if token.is_plain() {
        body.push_str(token.expose());
    } else {
        push_escaped(body, token.expose());
    }
}

/// Appends `text` as the inside of a JSON string.
fn push_escaped(body: &mut String, text: &str) {
    if is_plain(text) {
        body.push_str(text);
        return;
    }
    for character in text.chars() {
        match character {
            '"' => body.push_str("\\\""),
            '\\' => body.push_str("\\\\"),
            control if u32::from(control) < 0x20 => {
                let _ = write!(body, "\\u{:04x}", u32::from(control));
            }
            other => body.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    async fn body(answer: Answer) -> String {
        String::from_utf8(
            answer
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap()
    }

    fn guid() -> Guid {
        crate::agent::testkit::guid(1).parse().unwrap()
    }

    fn a_token() -> Token {
        let seconds = Duration::from_secs;
        Token::new(
            "ey.Jh.bG".into(),
            seconds(1_795_218_191),
            seconds(1_795_218_191),
            seconds(1_795_304_591),
        )
    }

    #[tokio::test]
    async fn the_golden_body_strings_where_azure_has_strings_in_imds_order() {
        let answer = token(
            &a_token(),
            Duration::from_millis(86_399_900),
            guid(),
            "https://a/b",
            &Selector::Default,
        );
        assert_eq!(
            answer.headers()[CONTENT_TYPE],
            "application/json; charset=utf-8"
        );
        assert_eq!(
            body(answer).await,
            r#"{"access_token":"ey.Jh.bG","client_id":"00000000-0000-4000-8000-000000000001","expires_in":"86399","expires_on":"1795304591","ext_expires_in":"86399","not_before":"1795218191","resource":"https://a/b","token_type":"Bearer"}"#
        );
    }

    #[test]
    fn numbers_are_written_as_rust_writes_them() {
        for number in [0, 9, 10, 86_399, 1_795_304_591, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }

    #[tokio::test]
    async fn a_hostile_resource_stays_inside_its_string() {
        let hostile = "a\",\"access_token\":\"x\\";
        let answer = token(
            &a_token(),
            Duration::ZERO,
            guid(),
            hostile,
            &Selector::Default,
        );
        let value: Value = serde_json::from_str(&body(answer).await).unwrap();
        assert_eq!(
            (&value["resource"], &value["access_token"]),
            (&hostile.into(), &"ey.Jh.bG".into())
        );
    }

    #[tokio::test]
    async fn a_hostile_token_stays_inside_its_string_in_every_dialect() {
        for hostile in ["a\",\"resource\":\"x", "a\\", "a\nb"] {
            let given = Token::new(
                hostile.into(),
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
            );
            let left = Duration::ZERO;
            let answers = [
                token(&given, left, guid(), "r", &Selector::Default),
                app_service::token(&given, guid(), "r"),
                host_token::token(&given, left, guid(), "r"),
            ];
            for answer in answers {
                let value: Value = serde_json::from_str(&body(answer).await).unwrap();
                let value = value.get("token").unwrap_or(&value);
                assert_eq!(
                    (&value["access_token"], &value["resource"]),
                    (&hostile.into(), &"r".into())
                );
            }
        }
    }

    #[tokio::test]
    async fn a_refused_identity_looks_like_azures_and_is_final() {
        let answer = fault(
            &Fault::identity_not_found("secret detail").with_retry_after(Duration::from_secs(9)),
        );
        assert_eq!(answer.status(), 400);
        assert!(!answer.headers().contains_key(RETRY_AFTER));
        assert_eq!(
            body(answer).await,
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#
        );
    }

    /// SDKs retry a 400 that has Retry-After, and some do not retry a 429 without one.
    #[tokio::test]
    async fn retry_after_goes_exactly_with_the_statuses_that_are_retried() {
        for kind in FaultKind::ALL {
            let answer = fault(&Fault::new(kind, "x").with_retry_after(Duration::from_millis(10)));
            let retried = matches!(answer.status().as_u16(), 429 | 503);
            let after = answer
                .headers()
                .get(RETRY_AFTER)
                .map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(after, retried.then(|| "1".to_owned()), "{kind:?}");
            assert_eq!(retried, kind.may_retry(), "{kind:?}");
            assert!(
                serde_json::from_str::<Value>(&body(answer).await)
                    .unwrap()
                    .is_object()
            );
        }
    }
}
