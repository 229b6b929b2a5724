//! Whose token an answer holds: read from the token's claims, the token itself is left where it is.
//! Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::table::Answerer;

/// The one field of a token's answer that is looked at; borrowed, so that no copy is made.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    access_token: &'a str,
}

#[derive(Deserialize)]
struct Claims {
    appid: Option<String>,
    azp: Option<String>,
    xms_mirid: Option<String>,
    tid: Option<String>,
}

/// Whose token it is; `None` where the body is no token's answer, or the token says nothing.
#[must_use]
pub fn of_answer(body: &[u8]) -> Option<Answerer> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let payload = body.access_token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    // Names only: what is longer or odd is no id.
    let plain = |text: String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/()".contains(&b);
        (text.len() <= 512 && text.bytes().all(plain)).then_some(text)
    };
    let answerer = Answerer {
        client_id: claims.appid.or(claims.azp).and_then(plain),
        resource_id: claims.xms_mirid.and_then(plain),
        tenant_id: claims.tid.and_then(plain),
    };
    (answerer != Answerer::default()).then_some(answerer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(claims: &str) -> Vec<u8> {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        serde_json::json!({"access_token": token, "expires_in": "1"})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn the_claims_say_whose_it_is() {
        let body =
            answer(r#"{"appid":"a-1","xms_mirid":"/subscriptions/s/x","tid":"t","oid":"o"}"#);
        let answerer = of_answer(&body).unwrap();
        assert_eq!(answerer.client_id.as_deref(), Some("a-1"));
        assert_eq!(answerer.resource_id.as_deref(), Some("/subscriptions/s/x"));
        assert_eq!(
            of_answer(&answer(r#"{"azp":"b"}"#))
                .unwrap()
                .client_id
                .as_deref(),
            Some("b")
        );
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for body in [
            &b"westeurope"[..],
            b"{}",
            br#"{"access_token":"opaque"}"#,
            &answer("{}"),
            &answer(r#"{"appid":"a\nb: c"}"#),
        ] {
            assert_eq!(of_answer(body), None);
        }
    }
}
