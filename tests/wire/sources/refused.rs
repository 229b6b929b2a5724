//! What Entra refuses for good, and what it wants later: the program gets a status that its SDK understands, the owner
//! is told what he can mend, and no proof or token shows in any of it.

use std::time::Duration;

use lanyard::sim::Fault;
use lanyard::sim::faults::{Effect, Target};

use super::cast::{self, CERTIFICATE, FEDERATED, SECRET, Wanted};
use super::certificates;
use super::stage::{APP_POD, Options, Stage, stage_of, stage_with, stage_with_secret};

pub fn entra(effect: Effect) -> Fault {
    Fault::new(Target::Entra, effect)
}

/// Nothing of the credential, nor of a token, in what is shown.
pub fn is_clean(stage: &Stage, body: &str) {
    for shown in [body.to_owned(), stage.api.written(), stage.scrape()] {
        for canary in [SECRET, "eyJ"] {
            assert!(!shown.contains(canary), "{canary} in {shown}");
        }
    }
}

/// Entra refuses for good with this code, and the program reads which.
async fn final_refusal(stage: &Stage, code: u32) {
    stage.simulator.add_fault(Fault::aadsts(code));
    for _ in 0..2 {
        let reply = stage
            .until("a refusal", APP_POD, |reply| reply.status != 503)
            .await;
        reply.is_error_at_once(400);
        let words = reply.text("error_description");
        assert!(words.contains(&format!("AADSTS{code}")), "{words}");
        assert!(!words.contains("Trace ID"), "{words}");
        is_clean(stage, &reply.body);
    }
    let asked = stage.exchanges().len();
    assert!((1..=3).contains(&asked), "{asked} calls");
    stage.simulator.clear_faults();
    mends(stage).await;
}

/// When the trouble is over so is ours, without anybody's doing.
pub async fn mends(stage: &Stage) {
    let reply = stage
        .until("a token", APP_POD, |reply| reply.status == 200)
        .await;
    assert_eq!(reply.claims()["appid"], cast::APP.client_id);
}

async fn refusal_of_a_secret(code: u32) {
    let stage = stage_with_secret().await;
    final_refusal(&stage, code).await;
}

/// A refusal of the credential itself is the owner's to mend.
async fn refusal_that_its_owner_hears(code: u32) {
    let stage = stage_with_secret().await;
    stage.simulator.add_fault(Fault::aadsts(code));
    let reply = stage
        .until("a refusal", APP_POD, |reply| reply.status != 503)
        .await;
    reply.is_error(400);
    let event = stage.event("CredentialRefused").await;
    assert_eq!(event.about, "AzureIdentity/shop/app");
    assert!(event.note.contains(&format!("AADSTS{code}")), "{event:?}");
    let series =
        format!("lanyard_credential_refused_total{{code=\"{code}\",identity=\"shop/app\"}}");
    stage
        .eventually("the metric", || stage.metric(&series) >= Some(1.0))
        .await;
    is_clean(&stage, &reply.body);
}

#[tokio::test]
async fn aadsts7000215_a_wrong_secret() {
    refusal_that_its_owner_hears(7_000_215).await;
    refusal_of_a_secret(7_000_215).await;
}

#[tokio::test]
async fn aadsts7000222_an_expired_secret() {
    refusal_that_its_owner_hears(7_000_222).await;
    refusal_of_a_secret(7_000_222).await;
}

#[tokio::test]
async fn aadsts700016_no_such_application() {
    refusal_of_a_secret(700_016).await;
}

#[tokio::test]
async fn aadsts90002_no_such_tenant() {
    refusal_of_a_secret(90_002).await;
}

#[tokio::test]
async fn aadsts500011_no_such_resource() {
    refusal_of_a_secret(500_011).await;
}

#[tokio::test]
async fn aadsts50034_no_such_account() {
    refusal_of_a_secret(50_034).await;
}

/// With the certificate in place and registered.
async fn stage_with_certificate() -> Stage {
    let stage = stage_of(&[CERTIFICATE]).await;
    let pair = certificates::rsa("app");
    stage
        .simulator
        .add_certificate("app", &pair.certificate)
        .unwrap();
    stage.api.secret("shop", "app-tls", &pair.data());
    stage.usable().await;
    stage
}

async fn refusal_of_a_certificate(code: u32) {
    final_refusal(&stage_with_certificate().await, code).await;
}

#[tokio::test]
async fn aadsts700027_a_certificate_that_is_not_registered() {
    refusal_of_a_certificate(700_027).await;
}

#[tokio::test]
async fn aadsts700024_an_assertion_out_of_its_time() {
    refusal_of_a_certificate(700_024).await;
}

#[tokio::test]
async fn aadsts700030_a_certificate_of_another_name() {
    refusal_of_a_certificate(700_030).await;
}

#[tokio::test]
async fn aadsts5002738_no_algorithm_that_is_taken() {
    refusal_of_a_certificate(5_002_738).await;
}

/// An authority that takes RS256 alone costs one more call, once.
#[tokio::test]
async fn an_authority_of_the_old_algorithm() {
    let stage = stage_with(Options {
        azure: "entra: {assertionAlgorithms: [RS256]}",
        ..Options::default()
    })
    .await;
    stage.workload(&Wanted {
        sources: &[CERTIFICATE],
        ..Wanted::default()
    });
    let pair = certificates::rsa("app");
    stage
        .simulator
        .add_certificate("app", &pair.certificate)
        .unwrap();
    stage.api.secret("shop", "app-tls", &pair.data());
    stage.token_at_last(APP_POD).await.claims();
    let algorithms = |stage: &Stage| -> Vec<String> {
        let all = stage.exchanges().into_iter();
        all.map(|one| one.algorithm.unwrap_or_default()).collect()
    };
    assert_eq!(algorithms(&stage), ["PS256", "RS256"]);
    stage.mark();
    stage.token(APP_POD, "/other").await.claims();
    assert_eq!(algorithms(&stage), ["RS256"]);
}

/// Registered by its name and its authority's: the chain goes along where that is wished, and only there.
#[tokio::test]
async fn a_certificate_that_is_registered_by_subject_and_issuer() {
    let (pair, root) = certificates::chained("app");
    let authority = root.replace('\n', "\\n");
    let application =
        format!("    certificateSubjects: [{{subject: app, authority: \"{authority}\"}}]\n");
    for (more, status) in [(", sendChain: true", 200), ("", 400)] {
        let stage = stage_with(Options {
            application: application.clone(),
            ..Options::default()
        })
        .await;
        let source = format!("servicePrincipal: {{certificateRef: {{name: app-tls{more}}}}}");
        stage.workload(&Wanted {
            sources: &[&source],
            ..Wanted::default()
        });
        stage.api.secret("shop", "app-tls", &pair.data());
        let reply = stage.token_at_last(APP_POD).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.body.contains("AADSTS700027"), status == 400);
    }
}

async fn mismatch(code: u32) {
    let stage = stage_of(&[FEDERATED]).await;
    stage.simulator.add_fault(Fault::aadsts(code));
    let reply = stage.token_at_last(APP_POD).await;
    reply.is_error(400);
    let words = reply.text("error_description");
    for word in [
        &format!("AADSTS{code}"),
        &stage.api.issuer(),
        "system:serviceaccount:shop:app",
        cast::EXCHANGE,
    ] {
        assert!(words.contains(word), "no {word} in {words}");
    }
    is_clean(&stage, &reply.body);
}

#[tokio::test]
async fn aadsts70021_no_federated_credential() {
    mismatch(70_021).await;
}

#[tokio::test]
async fn aadsts700211_another_issuer() {
    mismatch(700_211).await;
}

#[tokio::test]
async fn aadsts700212_another_audience() {
    mismatch(700_212).await;
}

#[tokio::test]
async fn aadsts700213_another_subject() {
    mismatch(700_213).await;
}

/// An API server that says nothing for long is not waited for till the client gives up.
#[tokio::test]
async fn an_api_server_that_gives_no_token_in_time() {
    use super::apiserver::{Call, Mood};
    let stage = stage_of(&[FEDERATED]).await;
    stage.api.mood(Call::Tokens, Mood::Slow(60_000));
    let reply = stage.token(APP_POD, "").await;
    reply.is_error(503);
    assert!(reply.took < Duration::from_secs(15), "{reply:?}");
    stage.api.mood(Call::Tokens, Mood::Works);
    mends(&stage).await;
}

/// Four minutes apart are none: assertions are taken, and tokens are served.
#[tokio::test]
async fn clocks_that_differ_by_four_minutes() {
    for skew in [-240, 240] {
        for source in [CERTIFICATE, FEDERATED] {
            let stage = stage_of(&[source]).await;
            stage.simulator.set_clock_skew(skew);
            let pair = certificates::rsa("app");
            let added = stage.simulator.add_certificate("app", &pair.certificate);
            added.unwrap();
            stage.api.secret("shop", "app-tls", &pair.data());
            let reply = stage.token_at_last(APP_POD).await;
            reply.claims();
            let left: u64 = reply.text("expires_in").parse().unwrap();
            assert!(left > 3000, "{skew}: {left}");
        }
    }
}

/// Too many requests: when to come back is passed on, and Entra is left alone meanwhile.
#[tokio::test]
async fn throttling_is_obeyed() {
    let stage = stage_with_secret().await;
    let effect = Effect::Status {
        code: 429,
        retry_after: Some(20),
        body: None,
    };
    stage.simulator.add_fault(entra(effect));
    let mut replies = Vec::new();
    for _ in 0..3 {
        replies.push(stage.token(APP_POD, "").await);
    }
    for reply in &replies {
        assert!(matches!(reply.status, 429 | 503), "{reply:?}");
        reply.is_error(reply.status);
        is_clean(&stage, &reply.body);
    }
    let after: u32 = replies[2].header("retry-after").unwrap().parse().unwrap();
    assert!((10..=20).contains(&after), "{after}");
    let hit = stage
        .since()
        .iter()
        .filter(|one| one.status == Some(429))
        .count();
    assert_eq!(hit, 1);
}
