//! The request path: strict about everything that a second parser could read differently
//! (CVE-2022-23551 and its relatives), lenient only where real clients need it: a doubled leading
//! `/`, a trailing `/`, any case.

use std::fmt;

use crate::model::fault::{Fault, FaultKind};

/// A path of plain segments (`[a-z0-9._-]+`, never only dots), once decoded, in lower case,
/// without a trailing slash. Only such a path can ever be forwarded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PlainPath(String);

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Token,
    TenantInfo,
    /// Under `/metadata`, not an identity path.
    Metadata,
    /// Everything else, the identity paths that must never be forwarded among it.
    Missing,
}

impl PlainPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn route(&self) -> Route {
        match self.0.as_str() {
            "/metadata/identity/oauth2/token" => Route::Token,
            "/metadata/identity/info" => Route::TenantInfo,
            path if path == "/metadata/identity" || path.starts_with("/metadata/identity/") => {
                Route::Missing
            }
            path if path == "/metadata" || path.starts_with("/metadata/") => Route::Metadata,
            _ => Route::Missing,
        }
    }
}

impl fmt::Debug for PlainPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
    let path = if path.len() > 1 {
        path.strip_suffix('/').unwrap_or(path)
    } else {
        path
    };
    let Some(inner) = path.strip_prefix('/') else {
        return Err(refuse("The path must start with /"));
    };
    for segment in inner.split('/') {
        let plain = segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let only_dots = segment.bytes().all(|b| b == b'.');
        if !plain || (only_dots && !inner.is_empty()) {
            return Err(refuse(
                "The path holds characters or segments that no metadata path has",
            ));
        }
    }
    Ok(PlainPath(path.to_ascii_lowercase()))
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
