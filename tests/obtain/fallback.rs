//! Several sources: the next one is asked only where the one before says "not possible here".

use lanyard::agent::credentials::Seen;
use lanyard::agent::obtain::Request;
use lanyard::kubernetes::TokenError;
use lanyard::model::facts::SourceFacts;
use lanyard::model::fault::FaultKind;
use lanyard::sim::faults::{Effect, Fault as Trouble, Target};

use crate::rig::{APP, Rig, SECRET, VAULT, asker, by_secret, grant_by, rig};

const FEDERATED: SourceFacts = SourceFacts::Federated(None);
const IMDS: SourceFacts = SourceFacts::Imds;

/// Which source gave the token, or what was said instead.
async fn asked(rig: &Rig, n: usize, sources: Vec<SourceFacts>) -> Result<&'static str, FaultKind> {
    let grant = grant_by(n, sources);
    rig.need(&grant);
    if n == APP {
        rig.secret(&grant, &[("clientSecret", SECRET)]);
    }
    let obtained = rig.ask_for(&grant, VAULT).await;
    rig.broker.retain(|_| false);
    obtained.map(|one| one.source).map_err(|fault| fault.kind)
}

#[tokio::test]
async fn not_possible_here_leads_to_the_next_source() {
    let rig = rig().await;
    // The agent may not ask for this namespace's tokens.
    assert_eq!(asked(&rig, 1, vec![FEDERATED, IMDS]).await, Ok("imds"));
    // The application is no managed identity on any node, and tokens of its pods may not be had.
    for before in [IMDS, FEDERATED] {
        let sources = vec![before, by_secret()];
        assert_eq!(asked(&rig, APP, sources).await, Ok("service_principal"));
    }
    let all = vec![IMDS, FEDERATED, by_secret()];
    assert_eq!(asked(&rig, APP, all).await, Ok("service_principal"));
    // None of them: final, with every reason.
    let grant = grant_by(0, vec![FEDERATED, IMDS]);
    let fault = rig.ask_for(&grant, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::IdentityNotFound);
    assert!(
        fault.detail.contains("federated: ") && fault.detail.contains("; IMDS"),
        "{fault}"
    );
}

#[tokio::test]
async fn a_federated_identity_alone_is_refused_at_once_also_when_it_is_new() {
    let rig = rig().await;
    let mut grant = grant_by(1, vec![FEDERATED]);
    grant.first_seen = lanyard::serve::clock::since_epoch();
    let fault = rig.ask_for(&grant, VAULT).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::IdentityNotFound, "{fault}");
}

#[tokio::test]
async fn a_refusal_is_the_last_word() {
    let rig = rig().await;
    // Entra knows no federated credential of the identity, or no issuer.
    let token = jwt(
        r#"{"iss":"https://issuer.invalid","sub":"system:serviceaccount:a:b","aud":"api://AzureADTokenExchange"}"#,
    );
    *rig.account.lock() = Ok(token);
    for next in [IMDS, by_secret()] {
        let answer = asked(&rig, 1, vec![FEDERATED, next]).await;
        assert_eq!(answer, Err(FaultKind::UpstreamRefused));
    }
    // The pod is gone, the API server is away: neither says that it is not possible here.
    *rig.account.lock() = Err(TokenError::Gone);
    let answer = asked(&rig, 1, vec![FEDERATED, IMDS]).await;
    assert_eq!(answer, Err(FaultKind::PodUnknown));
    *rig.account.lock() = Err(TokenError::Unavailable);
    let answer = asked(&rig, 1, vec![FEDERATED, IMDS]).await;
    assert_eq!(answer, Err(FaultKind::UpstreamUnavailable));
    // IMDS refuses the resource.
    rig.trouble(1, status(403));
    for next in [FEDERATED, by_secret()] {
        let answer = asked(&rig, 1, vec![IMDS, next]).await;
        assert_eq!(answer, Err(FaultKind::UpstreamRefused));
    }
    // IMDS is in trouble.
    rig.trouble(2, status(500));
    let answer = asked(&rig, 2, vec![IMDS, FEDERATED]).await;
    assert_eq!(answer, Err(FaultKind::UpstreamUnavailable));
    // A credential that is refused, or that is not there.
    for (value, kind) in [
        (Some("wrong"), FaultKind::UpstreamRefused),
        (None, FaultKind::CredentialUnusable),
    ] {
        let grant = grant_by(APP, vec![by_secret(), IMDS]);
        rig.need(&grant);
        match value {
            Some(value) => rig.secret(&grant, &[("clientSecret", value)]),
            None => rig.seen(&grant, &Seen::Missing),
        }
        rig.broker.retain(|_| false);
        let imds = rig.azure.stats().imds_requests;
        assert_eq!(rig.ask_for(&grant, VAULT).await.unwrap_err().kind, kind);
        assert_eq!(rig.azure.stats().imds_requests, imds, "{kind:?}");
    }
}

#[tokio::test]
async fn a_source_that_was_not_possible_here_stays_so_while_it_is_in_trouble() {
    let rig = rig().await;
    let (grant, pod) = (grant_by(1, vec![FEDERATED, IMDS]), asker("pod"));
    let ask = async || {
        let request = Request::new(&grant, VAULT, &pod);
        match rig.broker.try_cached(request) {
            Some(obtained) => Ok(obtained),
            None => rig.broker.obtain(request).await,
        }
    };
    assert_eq!(ask().await.unwrap().source, "imds");
    // The API server goes away; what it said last is kept for five seconds, and then asked for again.
    *rig.account.lock() = Err(TokenError::Unavailable);
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(6) {
        assert_eq!(ask().await.unwrap().source, "imds");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn entra_in_trouble_is_left_alone_after_a_while_and_comes_back() {
    let rig = rig().await;
    let grant = grant_by(APP, vec![by_secret()]);
    rig.need(&grant);
    rig.secret(&grant, &[("clientSecret", SECRET)]);
    let open = "lanyard_upstream_circuit_open{source=\"service_principal\"}";
    assert_eq!(rig.metric(open), "0");
    rig.azure
        .add_fault(Trouble::new(Target::Entra, status(503)));
    for n in 0..7 {
        let fault = rig.ask_for(&grant, &format!("https://{n}.example")).await;
        let fault = fault.unwrap_err();
        assert_eq!(fault.kind, FaultKind::UpstreamUnavailable);
        assert!(fault.retry_after.is_some());
    }
    assert_eq!(rig.metric(open), "1");
    assert!(rig.azure.stats().imds_requests == 0);
    rig.azure.clear_faults();
    let begun = std::time::Instant::now();
    while rig.ask_for(&grant, VAULT).await.is_err() {
        assert!(begun.elapsed() < std::time::Duration::from_mins(1));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(rig.metric(open), "0");
}

fn status(code: u16) -> Effect {
    Effect::Status {
        code,
        retry_after: None,
        body: None,
    }
}

fn jwt(claims: &str) -> String {
    use base64::Engine;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{}",
        part(r#"{"alg":"RS256","kid":"k"}"#),
        part(claims),
        part("sig")
    )
}
