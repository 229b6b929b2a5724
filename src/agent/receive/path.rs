//! The request path: strict about everything that a second parser could read differently
//! (CVE-2022-23551 and its relatives), lenient only where real clients need it: a doubled leading
//! `/`, a trailing `/`, any case.

use crate::model::fault::{Fault, FaultKind};
use crate::model::path::PlainPath;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Token,
    TenantInfo,
    /// Ours, not Azure's.
    Probe,
    /// App Service's endpoint, in both its dialects.
    AppService,
    /// Under `/metadata`, not an identity path.
    Metadata(PlainPath),
    /// Everything else, the identity paths that must never be forwarded among it.
    Missing,
}

const TOKEN: &str = "/metadata/identity/oauth2/token";
/// As on App Service, where variables name the whole URL: [`crate::api::APP_SERVICE_ENDPOINT`].
pub(super) const APP_SERVICE: &str = "/msi/token";

/// Where a raw path leads.
pub(super) fn route(raw: &str) -> Result<Route, Fault> {
    // As nearly every request has it: nothing to decode, nothing to copy.
    if raw == TOKEN {
        return Ok(Route::Token);
    }
    if raw == super::probe::PATH {
        return Ok(Route::Probe);
    }
    let path = normalise(raw)?;
    Ok(match path.as_str() {
        TOKEN => Route::Token,
        "/metadata/identity/info" => Route::TenantInfo,
        APP_SERVICE => Route::AppService,
        _ if path.is_at_or_below("/metadata/identity") => Route::Missing,
        _ if path.is_at_or_below("/metadata") => Route::Metadata(path),
        _ => Route::Missing,
    })
}

/// Decodes once and refuses what is not plain.
pub(super) fn normalise(raw: &str) -> Result<PlainPath, Fault> {
    let refuse = |what: &'static str| Fault::new(FaultKind::BadRequest, what);
    let decoded = decode_once(raw)
        .ok_or_else(|| refuse("The path is not valid URL encoding of plain text"))?;
    let path = if decoded.starts_with("//") {
        &decoded[1..]
    } else {
        &decoded[..]
    };
    path.parse().map_err(|_| {
        refuse(if path.starts_with('/') {
            "The path holds characters or segments that no metadata path has"
        } else {
            "The path must start with /"
        })
    })
}

/// One pass of percent-decoding. What it yields must not need another: a `%` that is left makes
/// the path not plain, and an escaped `/` is a separator to one parser and none to another.
fn decode_once(raw: &str) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let decoded = super::query::percent_decode(raw, false)?;
    let slashes = |path: &str| path.bytes().filter(|byte| *byte == b'/').count();
    (slashes(&decoded) == slashes(raw)).then_some(decoded)
}
