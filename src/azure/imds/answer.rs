//! How an answer of IMDS's token route is read. Pure: status, headers, body and `now` in; a token
//! or a typed error out. What a granted answer must hold is one reading for all token endpoints
//! (`azure::answer`); here is what IMDS's refusals mean.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::{Map, Value};

use crate::azure::answer::{Life, plain, retry_after, token};
use crate::model::token::Token;

use super::ImdsError;

/// Reads the answer to a token request. Source: the IMDS protocol, api-version 2018-02-01.
pub fn read_token(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Duration,
) -> Result<Token, ImdsError> {
    match status.as_u16() {
        200 => token(body, now, Life::Until).map_err(ImdsError::Invalid),
        404 | 410 => Err(ImdsError::Updating(status.as_u16())),
        429 => Err(ImdsError::Throttled {
            retry_after: retry_after(headers, now),
        }),
        408 | 500..=599 => Err(ImdsError::Unavailable(format!("status {status}"))),
        400..=499 => Err(refusal(status, body)),
        _ => Err(ImdsError::Invalid(format!("status {status}"))),
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

#[cfg(test)]
mod tests;
