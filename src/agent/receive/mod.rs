//! Step 1: an HTTP request → what it asks for, or a fault. Looks nothing up and blocks on nothing:
//! SDKs give their probe one second.
//!
//! Holds invariant 1 (deny by default) together with `passthrough`: what is not recognised here
//! as one of the known routes can only end in an error from us.
//!
//! Source: Azure's IMDS documentation (instance-metadata-service, "how to use managed identities
//! to acquire an access token") and what SDKs really send.

mod app_service;
pub mod host_token;
mod path;
pub mod probe;
mod query;
pub mod vm_extension;

#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a test says so by panicking")]
mod tests;

use std::borrow::Cow;

use hyper::header::HeaderName;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

pub use self::app_service::AppServiceAsk;
use self::path::Route;
use self::probe::Nonce;
use crate::model::fault::{Fault, FaultKind};
use crate::model::path::PlainPath;
use crate::model::query::TokenQuery;

/// Made once: a name as text is parsed with each request.
static METADATA: HeaderName = HeaderName::from_static("metadata");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A token.
    Token(TokenQuery),
    /// The tenant of the pod's identity (`/metadata/identity/info`).
    TenantInfo,
    /// Whether it is an agent that answers (`/lanyard/v1/probe`).
    Probe(Nonce),
    /// A token, in a dialect of App Service (`/msi/token`).
    AppService(AppServiceAsk),
    /// Another metadata path: closed unless an exception opens it.
    Metadata(MetadataQuery),
}

/// A request for a metadata path that is not an identity path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataQuery {
    /// The path: once decoded, lower case, no trailing slash.
    pub path: PlainPath,
    /// `api-version`, checked to be a date.
    pub api_version: String,
    /// `format`, if given: `json` or `text`.
    pub format: Option<String>,
}

/// Reads a request's head. The order is part of the protocol: what needs no `Metadata` header
/// comes first (look-alike paths, routes that do not exist), then the header, then the rest.
pub fn receive(head: &Parts) -> Result<Ask, Fault> {
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        let public = "The request target must be a path, not an absolute URL";
        return Err(Fault::new(FaultKind::BadRequest, public));
    }
    let route = path::route(head.uri.path())?;
    if route == Route::Missing {
        return Err(Fault::new(
            FaultKind::PathNotFound,
            "The requested path does not exist",
        ));
    }
    if route == Route::Probe {
        only_get(&head.method)?;
        return Ok(Ask::Probe(probe::nonce(
            head.uri.query().unwrap_or_default(),
        )?));
    }
    if route == Route::AppService {
        return Ok(Ask::AppService(app_service::receive(head)));
    }
    check_metadata_header(&head.headers)?;
    forwarded(&head.headers)?;
    only_get(&head.method)?;
    let query = query::Query::parse(head.uri.query().unwrap_or_default())?;
    match route {
        Route::Token => Ok(Ask::Token(query.token()?)),
        Route::TenantInfo => {
            query.api_version()?;
            Ok(Ask::TenantInfo)
        }
        Route::Metadata(path) => {
            let api_version = query.api_version()?.into_owned();
            let format = query.format()?.map(Cow::into_owned);
            Ok(Ask::Metadata(MetadataQuery {
                path,
                api_version,
                format,
            }))
        }
        Route::Probe | Route::AppService | Route::Missing => {
            Err(Fault::new(FaultKind::Internal, "Internal error"))
        }
    }
}

fn forwarded(headers: &HeaderMap) -> Result<(), Fault> {
    if !headers.contains_key(&FORWARDED_FOR) {
        return Ok(());
    }
    let public = "Requests with an X-Forwarded-For header are not accepted";
    Err(Fault::new(FaultKind::Forwarded, public))
}

fn only_get(method: &Method) -> Result<(), Fault> {
    if *method == Method::GET {
        return Ok(());
    }
    let public = "Only GET is allowed on this path";
    Err(Fault::new(FaultKind::MethodNotAllowed, public).with_detail(method.as_str()))
}

/// The header that a browser or a naive proxy cannot be made to send. The text is Azure's own.
fn check_metadata_header(headers: &HeaderMap) -> Result<(), Fault> {
    let mut values = headers.get_all(&METADATA).iter();
    let is_true = values
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if is_true && values.next().is_none() {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::MetadataHeaderMissing,
        "Required metadata header not specified",
    ))
}
