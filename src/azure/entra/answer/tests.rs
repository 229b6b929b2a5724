//! Every answer that Entra is known to give, and some that it never should.

use hyper::header::{HeaderValue, RETRY_AFTER};

use super::*;

const NOW: Duration = Duration::from_hours(500_000);
const PROOF: &str = "q8Q~hunter+2/=";
const TRACE: &str = " Trace ID: 0ab8dd2a-5a3a-4f3a-8d5f-4a1f3a7f0b00\\r\\nCorrelation ID: 6cf5c7c1-1d2e-4a3b-9c4d-5e6f7a8b9c0d Timestamp: 2027-01-15 08:00:00Z";

type Is<'a> = &'a dyn Fn(&EntraError) -> bool;

fn read_with(status: u16, headers: &HeaderMap, body: &str) -> Result<Token, EntraError> {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    read_token(status, headers, body.as_bytes(), NOW, PROOF)
}

fn read(status: u16, body: &str) -> Result<Token, EntraError> {
    read_with(status, &HeaderMap::new(), body)
}

/// As Entra writes refusals.
fn refusal(error: &str, code: u32, words: &str) -> String {
    format!(
        r#"{{"error":"{error}","error_description":"AADSTS{code}: {words}{TRACE}","error_codes":[{code}],"timestamp":"2027-01-15 08:00:00Z","trace_id":"x","correlation_id":"y","error_uri":"https://login.microsoftonline.com/error?code={code}"}}"#
    )
}

#[test]
fn the_golden_answer() {
    let body = r#"{"token_type":"Bearer","expires_in":86399,"ext_expires_in":86399,"refresh_in":43199,"access_token":"a.b.c"}"#;
    let token = read(200, body).unwrap();
    assert_eq!(token.expose(), "a.b.c");
    assert_eq!(token.left(NOW).as_secs(), 86_399);
    assert_eq!(token.refresh_on, Some(NOW + Duration::from_secs(43_199)));
    assert_eq!((token.not_before, token.client_id), (NOW, None));
}

#[test]
fn a_life_is_counted_by_this_node_s_clock() {
    let body = r#"{"expires_in":"3600","expires_on":"1700000000","access_token":"t"}"#;
    assert_eq!(read(200, body).unwrap().left(NOW).as_secs(), 3_600);
}

/// Which kind each code is, with the status and the word that Entra sends with it.
#[test]
fn codes_are_typed_by_what_can_be_done() {
    let credential = |error: &EntraError| matches!(error, EntraError::Credential { .. });
    let mismatch = |error: &EntraError| matches!(error, EntraError::Mismatch { .. });
    let refused = |error: &EntraError| matches!(error, EntraError::Refused { .. });
    let unavailable = |error: &EntraError| matches!(error, EntraError::Unavailable { .. });
    let cases: [(u16, &str, u32, Is<'_>); 22] = [
        (401, "invalid_client", 7_000_215, &credential),
        (401, "invalid_client", 7_000_222, &credential),
        (401, "invalid_client", 700_027, &credential),
        (401, "invalid_client", 700_030, &credential),
        (401, "invalid_client", 7_000_214, &credential),
        (401, "invalid_client", 999_999, &credential),
        (400, "invalid_request", 70_021, &mismatch),
        (401, "invalid_client", 700_211, &mismatch),
        (401, "invalid_client", 700_212, &mismatch),
        (401, "invalid_client", 700_213, &mismatch),
        (401, "invalid_client", 700_024, &refused),
        (401, "invalid_client", 7_000_218, &refused),
        (400, "unauthorized_client", 700_016, &refused),
        (400, "invalid_request", 90_002, &refused),
        (400, "invalid_resource", 500_011, &refused),
        (400, "invalid_scope", 1_002_012, &refused),
        (400, "invalid_grant", 53_003, &refused),
        (400, "server_error", 90_033, &unavailable),
        (503, "invalid_request", 50_196, &unavailable),
        (400, "temporarily_unavailable", 1, &unavailable),
        (503, "temporarily_unavailable", 90_033, &unavailable),
        (504, "server_error", 90_012, &unavailable),
    ];
    for (status, word, code, expected) in cases {
        let error = read(status, &refusal(word, code, "Some words.")).unwrap_err();
        assert!(expected(&error), "{code}: {error:?}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("AADSTS{code}: Some words.")),
            "{text}"
        );
        assert!(!text.contains("Trace") && !text.contains("2027"), "{text}");
    }
    let error = read(401, &refusal("invalid_client", 5_002_738, "alg")).unwrap_err();
    assert_eq!(
        error,
        EntraError::Algorithm("AADSTS5002738: alg".to_owned())
    );
    for code in [50_196, 90_055] {
        let error = read(400, &refusal("invalid_request", code, "too much")).unwrap_err();
        assert_eq!(error, EntraError::Throttled { retry_after: None }, "{code}");
    }
}

#[test]
fn a_code_is_found_in_the_words_too() {
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired"}"#;
    let expected = EntraError::Credential {
        code: 7_000_222,
        description: "AADSTS7000222: expired".to_owned(),
    };
    assert_eq!(read(401, body).unwrap_err(), expected);
    let bare = EntraError::Refused {
        status: 403,
        code: 0,
        error: "access_denied".to_owned(),
        description: "status 403 Forbidden".to_owned(),
    };
    assert_eq!(read(403, r#"{"error":"access_denied"}"#).unwrap_err(), bare);
    for codes in ["[]", "null", "[-1]", "[99999999999]", r#"["7"]"#, "7"] {
        let body = format!(r#"{{"error":"x","error_codes":{codes}}}"#);
        let error = read(400, &body).unwrap_err();
        assert!(
            matches!(error, EntraError::Refused { code: 0, .. }),
            "{codes}"
        );
    }
}

#[test]
fn waits_are_read_from_seconds_and_dates() {
    for (value, expected) in [
        ("9", Some(9)),
        ("Fri, 15 Jan 2027 08:00:30 GMT", Some(30)),
        ("later", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        let retry_after = expected.map(Duration::from_secs);
        let throttled = read_with(429, &headers, "").unwrap_err();
        assert_eq!(throttled, EntraError::Throttled { retry_after });
        let error = read_with(503, &headers, "<html>").unwrap_err();
        let why = "status 503 Service Unavailable".to_owned();
        assert_eq!(error, EntraError::Unavailable { why, retry_after });
    }
}

#[test]
fn what_is_no_answer_is_nonsense() {
    for (status, body) in [
        (200, ""),
        (200, "<html>log in to the hotel</html>"),
        (200, r#"{"access_token":"secret"}"#),
        (200, r#"{"access_token":"secret","expires_in":30}"#),
        (
            200,
            r#"{"access_token":"secret","expires_in":3600,"token_type":"pop"}"#,
        ),
        (302, ""),
        (204, ""),
        (400, ""),
        (400, "<html>"),
        (403, "[]"),
        (401, r#"{"error":{"code":"x"}}"#),
    ] {
        let error = read(status, body).unwrap_err();
        assert!(
            matches!(error, EntraError::Invalid(_)),
            "{status} {body}: {error:?}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn proofs_and_tokens_are_in_no_error() {
    let sent = escaped(PROOF);
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
    for status in [400, 401, 503] {
        for word in ["invalid_client", "x", PROOF] {
            let words = format!("'{PROOF}' {sent} {jwt} {}", PROOF.repeat(200));
            let error = read(status, &refusal(word, 7_000_215, &words)).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains(PROOF) && !shown.contains(&sent), "{shown}");
                assert!(
                    !shown.contains("eyJ") && !shown.contains("hunter"),
                    "{shown}"
                );
                assert!(shown.len() < 2_000);
            }
        }
    }
}
