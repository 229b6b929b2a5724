//! How a refusal of ARM becomes an [`ArmError`]. Pure: status, headers, body and `now` in; the kind by what
//! can be done about it, ARM's words and the identities it names out.
//!
//! Sources: "Common deployment errors" of Resource Manager, "Troubleshooting API throttling errors" of Compute,
//! and the texts of the identity operation, which say in words alone what failed. A code is believed
//! before a status, and a text only where both are shared by causes that want different remedies.

use std::time::Duration;

use hyper::header::HeaderMap;
use serde_json::{Map, Value};

use super::error::{ArmError, ArmErrorKind};
use super::named;
use crate::azure::answer::{plain, retry_after};
use crate::azure::http::HttpError;
use crate::model::ids::{ArmId, Guid};

/// Longer error texts are not searched (bytes).
const SEARCHED: usize = 256 * 1024;
/// Deeper details are not read.
const DEPTH: usize = 6;

/// A lock, a disabled subscription, a policy: they come as conflicts and refusals of all kinds, and none of
/// them passes by waiting.
const LASTING: [&str; 5] = [
    "scopelocked",
    "readonlydisabledsubscription",
    "requestdisallowedbypolicy",
    "missingsubscriptionregistration",
    "invalidresourcelocation",
];

/// What was asked: an error is about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The resource that was asked for or about.
    pub resource: &'a ArmId,
    /// Whether it is a virtual machine or scale set: identities that an error names are others'.
    pub is_compute: bool,
    /// Identities that were to be assigned to it.
    pub added: &'a [ArmId],
}

/// What an error body says.
#[derive(Default)]
struct Said {
    code: String,
    message: String,
    /// Every text and code in it, inner ones too.
    all: String,
}

/// Reads an answer that is no success.
pub(super) fn refusal(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: Duration,
    asked: Asked<'_>,
) -> ArmError {
    let said = serde_json::from_slice(body)
        .ok()
        .and_then(|body| said(&body));
    let mut error = match said {
        Some(said) => typed(Some(status), &said, asked),
        None => without_words(status),
    };
    error.retry_after = retry_after(headers, now);
    error.request_id = request_id(headers);
    error.about(asked.resource)
}

/// Reads the error of an operation that failed.
pub(super) fn failed_operation(body: &Value, asked: Asked<'_>) -> ArmError {
    let error = match said(body) {
        Some(said) => typed(None, &said, asked),
        None => ArmError::new(
            ArmErrorKind::Refused,
            "the operation failed, Azure does not say why",
        ),
    };
    error.about(asked.resource)
}

/// An answer that cannot be used, in words.
pub(super) fn nonsense(status: u16, headers: &HeaderMap, why: &str, resource: &ArmId) -> ArmError {
    let words = format!("the answer cannot be used: {why}");
    ArmError {
        status: Some(status),
        request_id: request_id(headers),
        ..ArmError::new(ArmErrorKind::Nonsense, words).about(resource)
    }
}

/// No answer.
pub(super) fn silence(error: &HttpError, resource: &ArmId) -> ArmError {
    let kind = match error {
        HttpError::TooLarge => ArmErrorKind::Nonsense,
        HttpError::Timeout(_) | HttpError::Broken(_) => ArmErrorKind::Unavailable,
    };
    ArmError::new(kind, plain(&error.to_string())).about(resource)
}

/// An answer without ARM's JSON: from something between us and ARM, or ARM's own gateway.
fn without_words(status: u16) -> ArmError {
    let kind = match status {
        429 => ArmErrorKind::Throttled,
        408 | 500..=599 => ArmErrorKind::Unavailable,
        401 => ArmErrorKind::Unauthenticated,
        412 => ArmErrorKind::Precondition,
        _ => ArmErrorKind::Nonsense,
    };
    let words = match kind {
        ArmErrorKind::Nonsense => format!("status {status} without an error of Azure's"),
        _ => format!("status {status}"),
    };
    ArmError {
        status: Some(status),
        ..ArmError::new(kind, words)
    }
}

pub(super) fn request_id(headers: &HeaderMap) -> Option<Box<str>> {
    let names = ["x-ms-correlation-request-id", "x-ms-request-id"];
    let found = names.iter().find_map(|name| headers.get(*name));
    let text = found?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| plain(text).into())
}

/// The `error` object, or the body itself: some resource providers leave the envelope out.
fn said(body: &Value) -> Option<Said> {
    let fields = body.as_object()?;
    let error = match fields.get("error") {
        Some(Value::Object(error)) => error,
        Some(Value::String(_)) => return Some(oauth_like(fields)),
        _ => fields,
    };
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let code = text("code")?;
    let mut said = Said {
        code: plain(code),
        message: plain(text("message").unwrap_or_default()),
        all: String::new(),
    };
    collect(error, &mut said.all, DEPTH);
    if said.message.is_empty() {
        said.message.push_str("Azure gives no reason");
    }
    Some(said)
}

/// `{"error": WORD, "error_description": …}`: what stands before ARM may answer so.
fn oauth_like(fields: &Map<String, Value>) -> Said {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    Said {
        code: plain(text("error")),
        message: plain(text("error_description")),
        all: text("error_description").to_owned(),
    }
}

fn collect(fields: &Map<String, Value>, all: &mut String, depth: usize) {
    for value in fields.values() {
        match value {
            Value::String(text) if all.len() + text.len() <= SEARCHED => {
                all.push_str(text);
                all.push('\n');
            }
            Value::Object(inner) if depth > 0 => collect(inner, all, depth - 1),
            Value::Array(items) if depth > 0 => {
                for inner in items.iter().filter_map(Value::as_object) {
                    collect(inner, all, depth - 1);
                }
            }
            _ => {}
        }
    }
}

/// Whether the resource is in another tenant than our token: another token would not do either.
pub(super) fn is_of_another_tenant(code: &str) -> bool {
    code.eq_ignore_ascii_case("InvalidAuthenticationTokenTenant")
}

fn typed(status: Option<u16>, said: &Said, asked: Asked<'_>) -> ArmError {
    let all = said.all.to_ascii_lowercase();
    let mut identities = named::identities(&said.all);
    let code = said.code.to_ascii_lowercase();
    let mut kind = kind(status, &code, &all);
    if asked.is_compute {
        let theirs = culprits(kind, &said.all, asked);
        let is_theirs = match kind {
            // The group that is gone is an identity's, not that of the one that was to be changed.
            ArmErrorKind::GroupOrSubscriptionGone => !theirs.is_empty(),
            ArmErrorKind::NotFound => !identities.is_empty(),
            ArmErrorKind::Refused => !identities.is_empty() && !LASTING.contains(&&*code),
            _ => false,
        };
        if is_theirs {
            kind = ArmErrorKind::BadIdentity;
        }
        if identities.is_empty() {
            identities = theirs;
        }
    } else if is_of_another_tenant(&code) {
        kind = ArmErrorKind::BadIdentity;
        identities = vec![asked.resource.clone()];
    }
    ArmError {
        status,
        code: said.code.clone(),
        message: said.message.clone(),
        identities,
        ..ArmError::new(kind, "").asked_by(caller(&said.all))
    }
}

/// Identities to be assigned that lie in the group or the subscription which the text names.
fn culprits(kind: ArmErrorKind, text: &str, asked: Asked<'_>) -> Vec<ArmId> {
    let segment = |id: &ArmId, at: usize| id.as_written().split('/').nth(at).map(str::to_lowercase);
    let found = |word: &str, at: usize| {
        let name = named::quoted_after(text, word)?.to_lowercase();
        let own = segment(asked.resource, at)? == name;
        let of = |id: &&ArmId| segment(id, at).as_ref() == Some(&name);
        (!own).then(|| asked.added.iter().filter(of).cloned().collect::<Vec<_>>())
    };
    match kind {
        ArmErrorKind::GroupOrSubscriptionGone => {
            found("resource group", 4).or_else(|| found("subscription", 2))
        }
        ArmErrorKind::LinkedAuthorization => found("linked subscription", 2),
        _ => None,
    }
    .unwrap_or_default()
}

/// The object id of `The client 'X' with object id 'Y' …`.
fn caller(text: &str) -> Option<Guid> {
    named::quoted_after(text, "object id")?.parse().ok()
}

fn kind(status: Option<u16>, code: &str, all: &str) -> ArmErrorKind {
    let is = |codes: &[&str]| codes.contains(&code);
    if status == Some(429) || is(&["toomanyrequests"]) || code.ends_with("requeststhrottled") {
        return ArmErrorKind::Throttled;
    }
    if status == Some(401) {
        return ArmErrorKind::Unauthenticated;
    }
    if is(&["linkedauthorizationfailed"]) {
        return ArmErrorKind::LinkedAuthorization;
    }
    if is(&[
        "authorizationfailed",
        "forbidden",
        "authorizationpermissionmismatch",
    ]) {
        return ArmErrorKind::Forbidden;
    }
    if is(&LASTING) {
        return ArmErrorKind::Refused;
    }
    let is_too_many = ["exceed limit", "maximum number", "limit exceeded"]
        .iter()
        .any(|words| all.contains(words));
    // As a conflict the same words mean "at once".
    if is_too_many || status == Some(400) && all.contains("too many") {
        return ArmErrorKind::TooMany;
    }
    if is(&["toomanyuserassignedidentities"]) {
        return ArmErrorKind::TooMany;
    }
    if is(&["failedidentityoperation"]) {
        return failed_identity(all);
    }
    if is(&[
        "linkedinvalidpropertyid",
        "invalididentityvalues",
        "identitynotfound",
        "invalidprincipalid",
    ]) {
        return ArmErrorKind::BadIdentity;
    }
    if is(&[
        "resourcegroupnotfound",
        "subscriptionnotfound",
        "invalidsubscriptionid",
        "resourcegroupbeingdeleted",
    ]) {
        return ArmErrorKind::GroupOrSubscriptionGone;
    }
    by_status(status, code, all)
}

/// The text repeats the status that the identity's own service gave.
fn failed_identity(all: &str) -> ArmErrorKind {
    match named::quoted_after(all, "status:").unwrap_or_default() {
        "toomanyrequests" | "429" => ArmErrorKind::Throttled,
        "conflict" | "409" => ArmErrorKind::Conflict,
        "internalservererror"
        | "serviceunavailable"
        | "badgateway"
        | "gatewaytimeout"
        | "requesttimeout"
        | "500"
        | "502"
        | "503"
        | "504" => ArmErrorKind::Unavailable,
        _ => ArmErrorKind::BadIdentity,
    }
}

fn by_status(status: Option<u16>, code: &str, all: &str) -> ArmErrorKind {
    let is_gone = matches!(
        code,
        "resourcenotfound" | "notfound" | "parentresourcenotfound"
    );
    match status {
        Some(404) => ArmErrorKind::NotFound,
        None if is_gone => ArmErrorKind::NotFound,
        Some(403) => ArmErrorKind::Forbidden,
        // The same issuer and subject twice in one identity.
        Some(409) if all.contains("combination already exists") => ArmErrorKind::Refused,
        Some(409) => ArmErrorKind::Conflict,
        None if matches!(
            code,
            "conflict" | "operationpreempted" | "anotheroperationinprogress" | "preempted"
        ) =>
        {
            ArmErrorKind::Conflict
        }
        Some(412) => ArmErrorKind::Precondition,
        Some(408 | 500..=599) => ArmErrorKind::Unavailable,
        None if matches!(
            code,
            "internalexecutionerror"
                | "internalservererror"
                | "serviceunavailable"
                | "vmssinternalerror"
        ) =>
        {
            ArmErrorKind::Unavailable
        }
        _ => ArmErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests;
