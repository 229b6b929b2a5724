//! The same in the dialects of App Service. Pure.
//!
//! All values are strings, `expires_on` is seconds since the epoch: every client of both dialects reads
//! that. There is no `expires_in`.

use hyper::StatusCode;

use super::{Answer, add_headers, json, push_escaped, push_number, push_secret, status};
use crate::model::fault::Fault;
use crate::model::ids::Guid;
use crate::model::token::Token;

/// A token's answer.
#[must_use]
pub fn token(token: &Token, client_id: Guid, resource: &str) -> Answer {
    let mut body = String::with_capacity(token.expose().len() + resource.len() + 256);
    body.push_str("{\"access_token\":\"");
    push_secret(&mut body, token);
    body.push_str("\",\"client_id\":\"");
    client_id.push_to(&mut body);
    body.push_str("\",\"expires_on\":\"");
    push_number(&mut body, token.expires_on.as_secs());
    body.push_str("\",\"not_before\":\"");
    push_number(&mut body, token.not_before.as_secs());
    body.push_str("\",\"resource\":\"");
    push_escaped(&mut body, resource);
    body.push_str("\",\"token_type\":\"Bearer\"}");
    json(StatusCode::OK, body)
}

/// A fault's answer: `{"statusCode": …, "message": …}`.
#[must_use]
pub fn fault(fault: &Fault) -> Answer {
    let (status, _) = status(fault.kind);
    let mut body = String::with_capacity(64 + fault.public.len());
    body.push_str("{\"statusCode\":");
    push_number(&mut body, u64::from(status.as_u16()));
    body.push_str(",\"message\":\"");
    push_escaped(&mut body, &fault.public);
    body.push_str("\"}");
    let mut answer = json(status, body);
    add_headers(&mut answer, fault);
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use hyper::header::RETRY_AFTER;
    use serde_json::Value;

    use super::*;
    use crate::model::fault::FaultKind;

    async fn body(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_golden_body_is_all_strings() {
        let seconds = Duration::from_secs;
        let given = Token::new(
            "ey.Jh.bG".into(),
            seconds(1_795_218_191),
            seconds(1_795_218_191),
            seconds(1_795_304_591),
        );
        let guid = crate::agent::testkit::guid(1).parse().unwrap();
        assert_eq!(
            body(token(&given, guid, "https://a/b")).await,
            r#"{"access_token":"ey.Jh.bG","client_id":"00000000-0000-4000-8000-000000000001","expires_on":"1795304591","not_before":"1795218191","resource":"https://a/b","token_type":"Bearer"}"#
        );
    }

    #[tokio::test]
    async fn faults_have_this_dialects_shape_and_imdss_statuses() {
        for kind in FaultKind::ALL {
            let told = Fault::new(kind, "a \"quoted\" word");
            let (answer, imds) = (fault(&told), super::super::fault(&told));
            assert_eq!(answer.status(), imds.status());
            let after = |answer: &Answer| answer.headers().get(RETRY_AFTER).cloned();
            assert_eq!(after(&answer), after(&imds), "{kind:?}");
            let status = answer.status().as_u16();
            let body: Value = serde_json::from_str(&body(answer).await).unwrap();
            assert_eq!(body["statusCode"], status);
            assert_eq!(body["message"], "a \"quoted\" word");
        }
    }
}
