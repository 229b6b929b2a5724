//! Bodies of the instance metadata service: tokens, errors, and what faults make of them.
//!
//! In: decided values. Out: responses with the real service's headers. Success: every value a string, keys
//! in alphabetical order. Errors: `{"error","error_description"}` on identity paths, `{"error"}` elsewhere. Pure.

use bytes::Bytes;
use hyper::header::{ALLOW, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::sim::broken::Style;
use crate::sim::http;
use crate::sim::keys::random_guid;
use crate::sim::token::{Principal, Token};

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error: &'static str,
    pub description: String,
}

impl Refusal {
    pub fn bad(description: &str) -> Self {
        Self {
            status: 400,
            error: "invalid_request",
            description: description.to_owned(),
        }
    }

    pub fn method() -> Self {
        let description = "The HTTP method is not supported; use GET".to_owned();
        Self {
            status: 405,
            error: "method_not_allowed",
            description,
        }
    }

    pub fn not_found() -> Self {
        let description = "The requested resource was not found".to_owned();
        Self {
            status: 404,
            error: "not_found",
            description,
        }
    }

    /// As identity paths say it.
    pub fn of_identity(&self) -> Response<Bytes> {
        self.respond(&json!({"error": self.error, "error_description": self.description}))
    }

    /// As all other paths say it.
    pub fn of_instance(&self) -> Response<Bytes> {
        let prefix = match self.status {
            404 => "Not found. ",
            405 => "Method not allowed. ",
            _ => "Bad request. ",
        };
        let mut body = json!({"error": format!("{prefix}{}", self.description)});
        if self.description.contains("api-version") {
            body["newest-versions"] = json!(["2025-04-07", "2023-11-15", "2023-07-01"]);
        }
        self.respond(&body)
    }

    fn respond(&self, body: &Value) -> Response<Bytes> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = signed(http::json(status, body));
        if self.status == 405 {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

/// The fields of a token answer. Times are epoch seconds; `now` is the moment of the answer.
pub(super) fn token(
    token: &Token,
    who: &Principal,
    resource: &str,
    refresh_in: Option<i64>,
    now: i64,
) -> Map<String, Value> {
    let left = (token.expires_on - now).to_string();
    let mut body = Map::new();
    let mut put = |name: &str, value: &str| body.insert(name.to_owned(), value.into());
    put("access_token", &token.jwt);
    put("client_id", &who.client_id);
    put("expires_in", &left);
    put("expires_on", &token.expires_on.to_string());
    put("ext_expires_in", &left);
    put("not_before", &token.not_before.to_string());
    if let Some(refresh_in) = refresh_in {
        put("refresh_in", &refresh_in.to_string());
    }
    put("resource", resource);
    put("token_type", "Bearer");
    body
}

/// A JSON object with IMDS's headers.
pub(super) fn object(status: StatusCode, body: &impl serde::Serialize) -> Response<Bytes> {
    signed(http::json(status, body))
}

/// Plain text with IMDS's headers.
pub(super) fn text(body: String) -> Response<Bytes> {
    signed(http::typed(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        body,
    ))
}

/// IMDS's words for a status that a fault answers.
pub(super) const STYLE: Style = |code| {
    let (error, description) = match code {
        400 => ("invalid_request", "Identity not found"),
        403 => ("forbidden", "Forbidden"),
        404 => ("not_found", "The metadata endpoint is being updated"),
        410 => (
            "gone",
            "The metadata endpoint is being updated; it is back within 70 seconds",
        ),
        429 => (
            "too_many_requests",
            "Too many requests; at most 20 a second and 5 at once",
        ),
        503 => ("service_unavailable", "Service unavailable"),
        _ => (
            "server_error",
            "Failed to retrieve token from the authority",
        ),
    };
    json!({"error": error, "error_description": description})
};

/// IMDS's own headers.
pub(super) fn signed(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("IMDS/150.870.65.1475"));
    if let Ok(id) = HeaderValue::from_str(&random_guid()) {
        headers.insert(HeaderName::from_static("x-ms-request-id"), id);
    }
    response
}
