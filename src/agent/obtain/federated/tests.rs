//! What the caller is told where the exchange fails.

use super::*;
use crate::agent::obtain::fake::{call, jwt};

fn sa_token(aud: &Value) -> SecretString {
    jwt(&serde_json::json!({
        "iss": "https://issuer.example/cluster-1", "sub": "system:serviceaccount:shop:app", "aud": aud,
    }))
    .into()
}

#[test]
fn a_missing_registration_is_named_and_the_token_is_not() {
    let error = || EntraError::Mismatch {
        code: 70_021,
        description: "AADSTS70021: No matching federated identity record found.".to_owned(),
    };
    for aud in [Value::from(AUDIENCE), serde_json::json!([AUDIENCE])] {
        let token = sa_token(&aud);
        let fault = mismatch(&token, &call(1), error());
        assert_eq!(fault.kind, FaultKind::UpstreamRefused);
        assert_eq!(
            fault.public,
            format!(
                "AADSTS70021: No matching federated identity record found. To be registered as a \
                 federated credential of client {}: issuer https://issuer.example/cluster-1, subject \
                 system:serviceaccount:shop:app, audience api://AzureADTokenExchange",
                call(1).grant.identity.client_id
            )
        );
        assert!(!fault.to_string().contains("eyJ"));
    }
    let opaque = SecretString::from("opaque");
    let fault = mismatch(&opaque, &call(1), error());
    assert!(fault.public.ends_with("issuer ?, subject ?, audience ?"));
    assert!(!fault.to_string().contains("opaque"));
}

#[test]
fn only_what_this_cluster_does_not_allow_is_not_here() {
    let of = |error: TokenError| match not_given(&error) {
        SourceError::NotHere(_) => None,
        SourceError::Fault(fault) => Some(fault.kind),
    };
    assert_eq!(of(TokenError::Forbidden("no".into())), None);
    for (error, kind) in [
        (TokenError::Gone("pod".into()), FaultKind::PodUnknown),
        (
            TokenError::Refused("422".into()),
            FaultKind::CredentialUnusable,
        ),
        (
            TokenError::Unavailable("away".into()),
            FaultKind::UpstreamUnavailable,
        ),
    ] {
        assert_eq!(of(error), Some(kind));
    }
}
