//! A request in a dialect of App Service: whoever is on its fixed path speaks one, whatever else is wrong
//! with it. Pure.
//!
//! Source: Azure's documentation "managed identities for App Service and Azure Functions" (2019-08-01, and
//! 2017-09-01 before it), and what SDKs really send.

use hyper::HeaderMap;
use hyper::header::HeaderName;
use hyper::http::request::Parts;

use super::query::Query;
use super::{forwarded, only_get};
use crate::model::fault::Fault;
use crate::model::presented::SecretDigest;
use crate::model::query::{Dialect, TokenQuery};

/// The header of 2019-08-01.
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");
/// The header of 2017-09-01.
const SECRET: HeaderName = HeaderName::from_static("secret");

/// What such a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppServiceAsk {
    /// The dialect's secret, where it is there once.
    pub secret: Option<SecretDigest>,
    /// The rest. What is wrong with it is told only to those who have shown the secret.
    pub query: Result<TokenQuery, Fault>,
}

/// Reads a request on [`super::path::APP_SERVICE`].
pub(super) fn receive(head: &Parts) -> AppServiceAsk {
    let raw = head.uri.query().unwrap_or_default();
    let query = Query::parse_app_service(raw);
    let dialect = query.as_ref().ok().and_then(Query::app_service);
    let header = match dialect {
        Some(Dialect::AppService2017) => SECRET,
        _ => IDENTITY_HEADER,
    };
    let query = only_get(&head.method)
        .and_then(|()| forwarded(&head.headers))
        .and_then(|()| query?.app_service_token());
    AppServiceAsk {
        secret: once(&head.headers, &header).map(SecretDigest::of),
        query,
    }
}

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}
