//! Tokens of other issuers, taken for an application or an identity that has a federated credential for them.
//!
//! In: the assertion, the client's federated credentials, the issuers' keys, now. Out: which credential matched, or the
//! refusal, which names what was presented. Issuer, subject and audience are compared byte for byte. Keys are
//! asked for only when a credential names the issuer: nobody can make Entra fetch from where he likes. Waits for them.
//! Source: "Workload identity federation" of the Microsoft identity platform.

use super::assertion::Assertion;
use super::issuers::{Issuers, KeysError};
use super::refusal::{Refusal, Words};
use super::registry::Client;
use crate::sim::journal::Exchange;
use crate::sim::world::FederatedCredential;

/// Accepts the token as proof of being that client.
pub(super) async fn check(
    assertion: &Assertion<'_>,
    client: &Client,
    issuers: &Issuers,
    now: i64,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let credential = matching(assertion, &client.federated)?;
    exchange.credential = Some(format!("federated:{}", credential.name));
    let algorithm = assertion.algorithm(&["RS256"])?;
    assertion.check_time(now)?;

    let issuer = &credential.issuer;
    let kid = assertion.header.kid.as_deref().unwrap_or_default();
    let key = issuers.key(issuer, kid).await.map_err(|error| {
        let reason = error.to_string();
        let (code, value) = match &error {
            KeysError::Unreachable { .. } => (501_661, reason.as_str()),
            KeysError::Malformed { .. } => (90_061, reason.as_str()),
            KeysError::NoKey => (7_000_272, kid),
        };
        let words = Words {
            issuer,
            value,
            ..Words::default()
        };
        Refusal::of(code, &words)
    })?;
    if assertion.is_signed_by(&key, algorithm) {
        return Ok(());
    }
    let words = Words {
        value: "Key was found, but use of the key to verify the signature failed.",
        ..Words::default()
    };
    Err(Refusal::of(50_013, &words))
}

/// The credential for the presented issuer, subject and audience; the refusal says which of them none has.
fn matching<'c>(
    assertion: &Assertion<'_>,
    credentials: &'c [FederatedCredential],
) -> Result<&'c FederatedCredential, Refusal> {
    let claims = &assertion.claims;
    let audiences = claims.aud.all();
    let words = Words {
        issuer: &claims.iss,
        subject: &claims.sub,
        audience: &audiences.join(", "),
        ..Words::default()
    };
    let refuse = |code| Err(Refusal::of(code, &words));
    if credentials.is_empty() {
        return refuse(70_021);
    }
    let mut left: Vec<_> = credentials.iter().collect();
    left.retain(|one| one.issuer == claims.iss);
    if left.is_empty() {
        return refuse(700_211);
    }
    left.retain(|one| one.subject == claims.sub);
    if left.is_empty() {
        return refuse(700_213);
    }
    left.retain(|one| one.audiences.iter().any(|aud| audiences.contains(aud)));
    match left.first() {
        Some(credential) => Ok(credential),
        None => refuse(700_212),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn code(credentials: &[FederatedCredential], claims: &str) -> (u32, String) {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let jwt = format!("{}.{}.", encode(r#"{"alg":"RS256"}"#), encode(claims));
        let assertion = Assertion::parse(&jwt).unwrap();
        match matching(&assertion, credentials) {
            Ok(credential) => (0, credential.name.clone()),
            Err(refusal) => (refusal.code, refusal.message),
        }
    }

    #[test]
    fn the_refusal_names_the_first_thing_that_no_credential_has() {
        let credential = |name: &str, subject: &str| FederatedCredential {
            name: name.to_owned(),
            issuer: "https://one/".to_owned(),
            subject: subject.to_owned(),
            audiences: vec!["aud".to_owned()],
        };
        let both = [credential("first", "a"), credential("second", "b")];
        let ask = |iss: &str, sub: &str, aud: &str| {
            let claims = format!(r#"{{"iss":"{iss}","sub":"{sub}","aud":["{aud}"]}}"#);
            code(&both, &claims)
        };
        assert_eq!(ask("https://one/", "b", "aud"), (0, "second".to_owned()));
        for (iss, sub, aud, want, named) in [
            ("https://one", "b", "aud", 700_211, "issuer 'https://one'"),
            ("https://one/", "B", "aud", 700_213, "subject 'B'"),
            ("https://one/", "b", "Aud", 700_212, "audience 'Aud'"),
        ] {
            let (code, message) = ask(iss, sub, aud);
            assert_eq!(code, want);
            assert!(message.contains(named), "{message}");
        }
        let (none, message) = code(&[], r#"{"iss":"i","sub":"s","aud":"a"}"#);
        assert_eq!(none, 70_021);
        let named = "Issuer: 'i'. Assertion Subject: 's'. Assertion Audience: 'a'.";
        assert!(message.contains(named), "{message}");
    }
}
