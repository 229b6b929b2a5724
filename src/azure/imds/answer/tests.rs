//! Every answer that IMDS is known to give, and some that it never should.

use super::*;
use hyper::header::{HeaderValue, RETRY_AFTER};

const NOW: Duration = Duration::from_hours(500_000);
const ID: &str = "00000001-0000-4000-8000-000000000001";

fn read(status: u16, body: &str) -> Result<Token, ImdsError> {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    read_token(status, &HeaderMap::new(), body.as_bytes(), NOW)
}

fn invalid(body: &str) -> String {
    match read(200, body) {
        Err(ImdsError::Invalid(why)) => why,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn the_golden_answer() {
    let body = format!(
        r#"{{"access_token":"a.b.c","client_id":"{ID}","expires_in":"86399","expires_on":"1800086399","ext_expires_in":"86399","not_before":"1799999700","resource":"r","token_type":"Bearer"}}"#
    );
    let token = read(200, &body).unwrap();
    assert_eq!(token.expose(), "a.b.c");
    assert_eq!(token.client_id, Some(ID.parse().unwrap()));
    assert_eq!(token.expires_on.as_secs(), 1_800_086_399);
    assert_eq!(token.not_before.as_secs(), 1_799_999_700);
    assert_eq!((token.obtained_at, token.refresh_on), (NOW, None));
}

#[test]
fn numbers_may_be_numbers_and_optional_fields_absent() {
    let token = read(
        200,
        r#"{"access_token":"t","expires_on":1800003600,"refresh_in":1800}"#,
    )
    .unwrap();
    assert_eq!(token.left(NOW), Duration::from_hours(1));
    assert_eq!(token.refresh_on, Some(NOW + Duration::from_mins(30)));
    assert_eq!((token.not_before, token.client_id), (NOW, None));
    let token = read(
        200,
        r#"{"access_token":"t","expires_in":"3600","expires_on":"","refresh_in":null}"#,
    );
    assert_eq!(token.unwrap().left(NOW), Duration::from_hours(1));
}

#[test]
fn what_is_no_token_is_invalid_and_says_why_without_the_token() {
    for (body, word) in [
        ("", "JSON"),
        ("<html>", "JSON"),
        ("[]", "JSON"),
        ("null", "JSON"),
        (r#"{"access_token":"secret","expires_on":"18000"#, "JSON"),
        (r#"{"expires_on":"1800003600"}"#, "access_token"),
        (
            r#"{"access_token":"","expires_on":"1800003600"}"#,
            "access_token",
        ),
        (
            r#"{"access_token":7,"expires_on":"1800003600"}"#,
            "access_token",
        ),
        (
            r#"{"access_token":"secret\r\nx: y","expires_on":"1800003600"}"#,
            "access_token",
        ),
        (
            r#"{"access_token":"secret\"","expires_on":"1800003600","token_type":"pop"}"#,
            "token_type",
        ),
        (r#"{"access_token":"secret"}"#, "expires"),
        (
            r#"{"access_token":"secret","expires_on":"2027-01-15T08:00:00Z"}"#,
            "expires_on",
        ),
        (r#"{"access_token":"secret","expires_on":-5}"#, "expires_on"),
        (
            r#"{"access_token":"secret","expires_on":"99999999999999999999"}"#,
            "expires_on",
        ),
        (
            r#"{"access_token":"secret","expires_on":1e300}"#,
            "expires_on",
        ),
        (
            r#"{"access_token":"secret","expires_on":"18446744073709551615"}"#,
            "expires_on",
        ),
        (
            r#"{"access_token":"secret","expires_on":"1800000030"}"#,
            "expired",
        ),
        (r#"{"access_token":"secret","expires_on":"1"}"#, "expired"),
        (r#"{"access_token":"secret","expires_in":0}"#, "expired"),
        (
            r#"{"access_token":"secret","expires_in":"3600","client_id":"me"}"#,
            "client_id",
        ),
    ] {
        let why = invalid(body);
        assert!(why.contains(word), "{body}: {why}");
        assert!(!why.contains("secret"), "{why}");
    }
}

#[test]
fn statuses_are_typed() {
    let unavailable = |result| matches!(result, Err(ImdsError::Unavailable(_)));
    assert!(
        unavailable(read(500, "")) && unavailable(read(503, "{}")) && unavailable(read(408, ""))
    );
    assert_eq!(read(404, "").unwrap_err(), ImdsError::Updating(404));
    assert_eq!(read(410, "").unwrap_err(), ImdsError::Updating(410));
    for status in [100, 204, 301, 302, 307] {
        assert!(
            matches!(read(status, ""), Err(ImdsError::Invalid(_))),
            "{status}"
        );
    }
    let mut headers = HeaderMap::new();
    for (value, expected) in [("7", Some(7)), ("soon", None), ("-1", None), ("", None)] {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        let error = read_token(StatusCode::TOO_MANY_REQUESTS, &headers, b"", NOW).unwrap_err();
        let retry_after = expected.map(Duration::from_secs);
        assert_eq!(error, ImdsError::Throttled { retry_after });
    }
}

#[test]
fn only_imds_s_own_word_means_not_found() {
    let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    assert!(matches!(read(400, body), Err(ImdsError::NotFound(_))));
    assert!(matches!(
        read(403, body),
        Err(ImdsError::Refused { status: 403, .. })
    ));
    let other = r#"{"error":"invalid_resource","error_description":"AADSTS500011: Identity not found\u0000\n"}"#;
    let Err(ImdsError::Refused {
        status: 400,
        error,
        description,
    }) = read(400, other)
    else {
        panic!("not refused");
    };
    assert_eq!(error, "invalid_resource");
    assert_eq!(description, "AADSTS500011: Identity not found  ");
    let long = format!(
        r#"{{"error":"x","error_description":"{}"}}"#,
        "é".repeat(5_000)
    );
    let Err(ImdsError::Refused { description, .. }) = read(401, &long) else {
        panic!("not refused");
    };
    assert_eq!(description.chars().count(), 1_000);
    for body in ["", "<html>", "[]", r#"{"error":{"code":"x"}}"#] {
        let refused = read(400, body);
        assert!(
            matches!(&refused, Err(ImdsError::Refused { error, .. }) if error == "invalid_request"),
            "{refused:?}"
        );
    }
}

#[test]
fn words_that_could_be_a_token_are_not_passed_on() {
    let token = format!("{0}.{0}.{0}", "eyJ0_-Ab".repeat(20));
    let arm = "/subscriptions/00000001-0000-4000-8000-000000000001/resourceGroups/a.b-c/é";
    let body = format!(
        r#"{{"error":"{token}","error_description":"No {token}\nfor {arm} (AADSTS70001)"}}"#
    );
    let Err(ImdsError::Refused {
        error, description, ..
    }) = read(400, &body)
    else {
        panic!("{body}");
    };
    assert_eq!(error, "[removed]");
    assert_eq!(description, format!("No [removed] for {arm} (AADSTS70001)"));
}
