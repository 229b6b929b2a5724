//! What a client is told when its bytes never became a request: status and JSON body, as Azure's
//! metadata service shapes errors (`error`, `error_description`).
//!
//! Pure. hyper answers such bytes by itself, with an empty body; `stream` holds that answer back and
//! one of these is sent in its place.

/// Why a connection ends without the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP, or no valid request line or header.
    Malformed,
    /// The client said that it had finished in the middle of a head.
    Truncated,
    /// The head did not come in time.
    HeadTimeout,
    /// The request line is too long.
    TargetTooLong,
    /// The headers are too many or too long.
    HeadersTooLarge,
    /// The answer did not come in time.
    AnswerTimeout,
}

impl Refusal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Refusal; 6] = [
        Refusal::Malformed,
        Refusal::Truncated,
        Refusal::HeadTimeout,
        Refusal::TargetTooLong,
        Refusal::HeadersTooLarge,
        Refusal::AnswerTimeout,
    ];

    /// Metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Truncated => "truncated",
            Refusal::HeadTimeout => "head_timeout",
            Refusal::TargetTooLong => "target_too_long",
            Refusal::HeadersTooLarge => "headers_too_large",
            Refusal::AnswerTimeout => "answer_timeout",
        }
    }

    /// Status line, `error`, `error_description`.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        let invalid = "invalid_request";
        match self {
            Refusal::Malformed => ("400 Bad Request", invalid, "The request is not valid HTTP"),
            Refusal::Truncated => (
                "400 Bad Request",
                invalid,
                "The request ended before its headers did",
            ),
            Refusal::HeadTimeout => (
                "408 Request Timeout",
                invalid,
                "The request's headers took too long to arrive",
            ),
            Refusal::TargetTooLong => (
                "414 URI Too Long",
                invalid,
                "The request's path and query are too long",
            ),
            Refusal::HeadersTooLarge => (
                "431 Request Header Fields Too Large",
                invalid,
                "The request's headers are too many or too long",
            ),
            Refusal::AnswerTimeout => (
                "503 Service Unavailable",
                "service_unavailable",
                "No answer in time, try again",
            ),
        }
    }

    /// The whole answer as it goes over the wire; the connection closes after it.
    pub fn wire(self) -> String {
        let (status, error, description) = self.parts();
        // Only fixed text without quotes goes in, so it needs no escaping.
        let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
        let retry = if self == Refusal::AnswerTimeout {
            "retry-after: 1\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\n{retry}\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_one_json_object_of_the_stated_length_and_all_has_the_order_of_the_enum() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
            let wire = refusal.wire();
            let (head, body) = wire.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len())),
                "{wire}"
            );
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(
                json["error"].is_string() && json["error_description"].is_string(),
                "{wire}"
            );
        }
    }
}
