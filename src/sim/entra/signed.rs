//! Client assertions that an application signed by a certificate of its own.
//!
//! In: the assertion, the client with its registrations, where it was sent, now. Out: which certificate has signed, or
//! the refusal. By thumbprint (`x5t#S256`, else `x5t`) among the registered ones; or, where the application is registered
//! by subject name and issuer, the first of `x5c` if its chain leads to that authority. Pure but for the memory of ids.
//! Source: "Application authentication certificate credentials" of the Microsoft identity platform.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;

use super::assertion::{Assertion, SKEW};
use super::refusal::{Refusal, Words};
use super::registry::{Client, Subject};
use super::replay::Replays;
use crate::sim::certificate::{Certificate, hex};
use crate::sim::journal::Exchange;
use crate::sim::world::World;

/// Where the assertion was sent, and when.
pub(super) struct Place<'a> {
    pub world: &'a World,
    /// The request's `Host`.
    pub host: &'a str,
    /// Host names that are Entra, whatever the request says.
    pub hosts: &'a [&'a str],
    pub now: i64,
}

/// Accepts the assertion as proof of being that client.
pub(super) fn check(
    assertion: &Assertion<'_>,
    client: &Client,
    place: &Place<'_>,
    replays: &Replays,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let client_id = &client.who.client_id;
    let claims = &assertion.claims;
    let algorithms = place.world.entra.assertion_algorithms.iter();
    let allowed: Vec<&str> = algorithms.map(|algorithm| algorithm.name()).collect();
    let algorithm = assertion.algorithm(&allowed)?;
    if !claims.sub.eq_ignore_ascii_case(client_id) {
        return Err(Refusal::of(700_021, &Words::default()));
    }
    if !claims.aud.all().iter().any(|aud| is_ours(aud, place)) {
        return Err(Refusal::of(700_023, &Words::default()));
    }
    assertion.check_time(place.now)?;

    let certificate = certificate(assertion, client, place.now)?;
    let refuse = |reason: &str| {
        let words = Words {
            client: client_id,
            value: reason,
            more: &certificate.thumbprint(),
            ..Words::default()
        };
        Err(Refusal::of(700_027, &words))
    };
    if !assertion.is_signed_by(&certificate.key, algorithm) {
        return refuse("Key was found, but use of the key to verify the signature failed.");
    }
    if certificate.not_after < place.now {
        return refuse("The key used is expired.");
    }
    if certificate.not_before > place.now.saturating_add(SKEW) {
        return refuse("The key used is not valid yet.");
    }
    exchange.credential = Some(format!("certificate:{}", certificate.thumbprint()));
    let Some(id) = &claims.jti else {
        let words = Words {
            value: "The 'jti' claim is missing.",
            ..Words::default()
        };
        return Err(Refusal::of(50_027, &words));
    };
    // It could be used as long as its life is forgiven.
    let until = claims.exp.unwrap_or_default().saturating_add(SKEW);
    if !replays.is_new(client_id, id, until, place.now) {
        let words = Words {
            value: &format!("The assertion with jti '{id}' was already used."),
            ..Words::default()
        };
        return Err(Refusal::of(50_013, &words));
    }
    Ok(())
}

/// The certificate that the assertion says it is signed by, if it is registered.
fn certificate(
    assertion: &Assertion<'_>,
    client: &Client,
    now: i64,
) -> Result<Arc<Certificate>, Refusal> {
    let (sha256, sha1) = assertion.thumbprints();
    let named = |one: &&Arc<Certificate>| match (&sha256, &sha1) {
        (Some(sum), _) => one.sha256 == *sum,
        (None, Some(sum)) => one.sha1 == *sum,
        (None, None) => false,
    };
    if let Some(registered) = client.certificates.iter().find(named) {
        return Ok(registered.clone());
    }
    let chain = assertion.chain();
    if let (Some(signer), false) = (chain.first(), client.subjects.is_empty()) {
        let signer = Certificate::from_der(signer.clone()).map_err(|error| {
            let words = Words {
                value: &error.to_string(),
                ..Words::default()
            };
            Refusal::of(50_012, &words)
        })?;
        check_chain(&signer, &chain[1..], &client.subjects, now)?;
        return Ok(Arc::new(signer));
    }
    if sha256.is_none() && sha1.is_none() {
        let words = Words {
            value: "No certificate thumbprint specified in token header.",
            ..Words::default()
        };
        return Err(Refusal::of(50_027, &words));
    }
    let sum = sha1.or(sha256).unwrap_or_default();
    let words = Words {
        client: &client.who.client_id,
        value: "The key was not found.",
        more: &hex(&sum).to_ascii_uppercase(),
        ..Words::default()
    };
    Err(Refusal::of(700_027, &words))
}

/// Whether that certificate may sign by its name (AADSTS700030), and its chain is good (AADSTS50012).
fn check_chain(
    signer: &Certificate,
    intermediates: &[rustls::pki_types::CertificateDer<'_>],
    subjects: &[Subject],
    now: i64,
) -> Result<(), Refusal> {
    let mut named = subjects
        .iter()
        .filter(|subject| {
            subject
                .common_name
                .eq_ignore_ascii_case(&signer.common_name)
        })
        .peekable();
    if named.peek().is_none() {
        let words = Words {
            value: &signer.common_name,
            ..Words::default()
        };
        return Err(Refusal::of(700_030, &words));
    }
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let leads = |subject: &Subject| -> Result<(), String> {
        let roots = subject.authorities.clone();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let verified = verifier.verify_client_cert(&signer.der, intermediates, now);
        verified.map(drop).map_err(|error| error.to_string())
    };
    let mut why = String::new();
    for subject in named {
        match leads(subject) {
            Ok(()) => return Ok(()),
            Err(error) => why = error,
        }
    }
    let words = Words {
        value: &format!("The certificate chain is not valid: {why}."),
        ..Words::default()
    };
    Err(Refusal::of(50_012, &words))
}

/// Whether an audience means this tenant: its token endpoints, or its issuer names, of both versions.
fn is_ours(audience: &str, place: &Place<'_>) -> bool {
    let Some((_, rest)) = audience.split_once("://") else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let entra = &place.world.entra;
    let authority = entra.authority_host.split_once("://");
    let configured = authority.map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let known = place.hosts.iter().copied();
    let known = known
        .chain(entra.hosts.iter().map(String::as_str))
        .chain(configured)
        .chain([place.host]);
    if !known
        .into_iter()
        .any(|name| name.eq_ignore_ascii_case(host))
    {
        return false;
    }
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let (tenant, service) = path.split_once('/').unwrap_or((&path, ""));
    tenant.eq_ignore_ascii_case(&place.world.tenant.id)
        && matches!(service, "" | "v2.0" | "oauth2/token" | "oauth2/v2.0/token")
}
