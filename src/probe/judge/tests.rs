//! What each answer means.

use super::*;

fn reply(status: u16, body: &str) -> Answered {
    Answered::Reply {
        status,
        body: body.to_owned(),
        retry_after: None,
    }
}

#[test]
fn only_our_name_with_the_own_nonce_is_interception() {
    let ours = r#"{"lanyard":"1","instance":"i","nonce":"n"}"#;
    let outcome = |answered: &Answered| {
        let (check, agent) = interception(answered, "n");
        (check.outcome, agent.is_some())
    };
    assert_eq!(outcome(&reply(200, ours)), (Outcome::Ok, true));
    // Azure's own answers, a cached answer of ours, an error that echoes it.
    for other in [
        reply(404, "{}"),
        reply(400, ours),
        reply(200, &ours.replace(r#""n""#, r#""m""#)),
    ] {
        assert_eq!(outcome(&other), (Outcome::Leak, false), "{other:?}");
    }
    for other in [
        Answered::Refused,
        Answered::Silent,
        Answered::Failed("x".into()),
    ] {
        assert_eq!(outcome(&other), (Outcome::Unclear, false), "{other:?}");
    }
}

#[test]
fn what_belongs_to_the_node_and_answers_is_a_leak() {
    assert_eq!(identity_path(&reply(200, "")).outcome, Outcome::Leak);
    assert_eq!(identity_path(&reply(400, "")).outcome, Outcome::Ok);
    assert_eq!(instance(&reply(200, ""), false).outcome, Outcome::Leak);
    assert_eq!(instance(&reply(200, ""), true).outcome, Outcome::Note);
    assert_eq!(instance(&reply(403, ""), true).outcome, Outcome::Ok);
    assert_eq!(wire_server(None, 80, false).outcome, Outcome::Leak);
    assert_eq!(wire_server(None, 80, true).outcome, Outcome::Note);
    assert_eq!(
        wire_server(Some(&Answered::Refused), 80, false).outcome,
        Outcome::Ok
    );
}

#[test]
fn an_agent_that_is_down_does_not_count_as_refusing_a_pod() {
    assert!(meets(&reply(400, ""), Expectation::Refused));
    assert!(!meets(&reply(503, ""), Expectation::Refused));
    assert!(!meets(&Answered::Refused, Expectation::Refused));
    assert!(meets(&reply(200, ""), Expectation::Granted));
}
