//! The same at `/host/token`, as AAD Pod Identity answered there. Pure.
//!
//! The token's answer inside of another object, all values strings; `refresh_token` is there and empty. Faults are
//! IMDS's ([`super::fault`]): the provider reads nothing but the status.

use std::time::Duration;

use hyper::StatusCode;

use super::{Answer, json, push_escaped, push_number, push_secret};
use crate::model::ids::Guid;
use crate::model::token::Token;

/// A token's answer; `expires_in` is right at `now`.
#[must_use]
pub fn token(token: &Token, left: Duration, client_id: Guid, resource: &str) -> Answer {
    let mut body = String::with_capacity(token.expose().len() + resource.len() + 320);
    body.push_str("{\"token\":{\"access_token\":\"");
    push_secret(&mut body, token);
    body.push_str("\",\"refresh_token\":\"\",\"expires_in\":\"");
    push_number(&mut body, left.as_secs());
    body.push_str("\",\"expires_on\":\"");
    push_number(&mut body, token.expires_on.as_secs());
    body.push_str("\",\"not_before\":\"");
    push_number(&mut body, token.not_before.as_secs());
    body.push_str("\",\"resource\":\"");
    push_escaped(&mut body, resource);
    body.push_str("\",\"token_type\":\"Bearer\"},\"clientid\":\"");
    client_id.push_to(&mut body);
    body.push_str("\"}");
    json(StatusCode::OK, body)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::header::WWW_AUTHENTICATE;

    use super::*;
    use crate::model::fault::{Fault, FaultKind};

    #[tokio::test]
    async fn the_golden_body_is_the_predecessors_all_strings() {
        let seconds = Duration::from_secs;
        let given = Token::new(
            "ey.Jh.bG".into(),
            seconds(1_795_218_191),
            seconds(1_795_218_191),
            seconds(1_795_304_591),
        );
        let guid = crate::agent::testkit::guid(1).parse().unwrap();
        let answer = token(
            &given,
            Duration::from_millis(86_399_900),
            guid,
            "https://a/b",
        );
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"token":{"access_token":"ey.Jh.bG","refresh_token":"","expires_in":"86399","expires_on":"1795304591","not_before":"1795218191","resource":"https://a/b","token_type":"Bearer"},"clientid":"00000000-0000-4000-8000-000000000001"}"#
        );
    }

    #[test]
    fn who_asks_in_vain_is_told_so_by_status() {
        for (kind, status) in [
            (FaultKind::HostTokenUnproven, 401),
            (FaultKind::HostTokenForbidden, 403),
            (FaultKind::PodNotHere, 404),
            (FaultKind::ReviewUnavailable, 503),
        ] {
            let answer = super::super::fault(&Fault::new(kind, "x"));
            assert_eq!(answer.status(), status);
            let challenge = answer.headers().get(WWW_AUTHENTICATE);
            assert_eq!(challenge.is_some(), status == 401, "{kind:?}");
        }
    }
}
