//! What the outcome of a conversation proves.
//!
//! In: how it ended, the question, who we are. Out: passed, or the stage that failed in words for an
//! operator. Pure. Passed means: a packet that came in at an interface of this host, from an address
//! that is none of its own, met our redirect, reached an agent and the answer found its way back. It
//! does not say that each pod's interface is wired the same way.

use serde::Deserialize;

use super::super::intercept::Ownership;
use super::talk::Ended;
use super::wire::Outcome;

/// Why the test did not pass. The closed list is the label `stage` of the metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The test itself could not be made.
    #[error("cannot test: {0}")]
    Setup(String),
    /// No answer to the first packet.
    #[error(
        "no answer: packets from pods to the metadata address vanish on this node. Something drops them before or after our \
         rules (another firewall, a datapath that does not pass the host's netfilter)"
    )]
    Silent,
    /// The backstop answered, not the redirect.
    #[error(
        "refused: packets from pods are not redirected to the agent; the rule in FORWARD closed the door. Something takes them \
         before our rule in PREROUTING"
    )]
    Refused,
    /// Accepted, and then nothing.
    #[error("the connection stands, but no answer comes back to the pod")]
    Stalled,
    /// Somebody else answered.
    #[error(
        "NOT INTERCEPTED: something that is no agent of Lanyard answered a pod's request to the metadata address (status {0})"
    )]
    Foreign(u16),
    /// An agent that should not.
    #[error("another instance of the agent answers, though the rules are this one's: `{0}`")]
    OtherInstance(String),
}

impl Failure {
    /// All stages, for metrics that exist from the start.
    pub const STAGES: [&str; 6] = [
        "setup",
        "silent",
        "refused",
        "stalled",
        "foreign",
        "other_instance",
    ];

    /// The stage.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Stalled => "stalled",
            Self::Foreign(_) => "foreign",
            Self::OtherInstance(_) => "other_instance",
        }
    }
}

#[derive(Deserialize)]
struct Told {
    lanyard: String,
    instance: String,
    nonce: String,
}

/// Judges. While a newer instance owns the rules, that one answers.
pub(super) fn judge(
    outcome: Outcome,
    nonce: &str,
    own: &str,
    owned: Ownership,
) -> Result<(), Failure> {
    let answer = match outcome {
        Outcome::Silent => return Err(Failure::Silent),
        Outcome::Ended(Ended::Refused) => return Err(Failure::Refused),
        Outcome::Stalled | Outcome::Ended(Ended::Cut) => return Err(Failure::Stalled),
        Outcome::Ended(Ended::Answered(answer)) => answer,
    };
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let told: Option<Told> = serde_json::from_str(body).ok();
    match told.filter(|told| status == 200 && told.nonce == nonce && !told.lanyard.is_empty()) {
        None => Err(Failure::Foreign(status)),
        Some(told) if told.instance != own && matches!(owned, Ownership::Owner { .. }) => {
            Err(Failure::OtherInstance(told.instance))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Ownership = Ownership::Owner {
        epoch: 1,
        alone: true,
    };

    fn answered(status: u16, body: &str) -> Outcome {
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-type: a\r\n\r\n{body}");
        Outcome::Ended(Ended::Answered(answer.into_bytes()))
    }

    #[test]
    fn only_the_agents_own_word_with_our_nonce_passes() {
        let ours = r#"{"lanyard":"1","instance":"me","nonce":"n"}"#;
        let judged =
            |outcome, owned| judge(outcome, "n", "me", owned).map_err(|failure| failure.stage());
        assert_eq!(judged(answered(200, ours), OWNER), Ok(()));
        assert_eq!(judged(answered(404, ours), OWNER), Err("foreign"));
        assert_eq!(judged(answered(200, "{}"), OWNER), Err("foreign"));
        assert_eq!(
            judged(answered(200, &ours.replace(r#""n""#, r#""m""#)), OWNER),
            Err("foreign")
        );
        let newer = ours.replace("me", "other");
        assert_eq!(judged(answered(200, &newer), OWNER), Err("other_instance"));
        assert_eq!(
            judged(
                answered(200, &newer),
                Ownership::StoodDown {
                    by: 2,
                    enters_pods: false
                }
            ),
            Ok(())
        );
        assert_eq!(judged(Outcome::Silent, OWNER), Err("silent"));
        assert_eq!(judged(Outcome::Stalled, OWNER), Err("stalled"));
        assert_eq!(
            judged(Outcome::Ended(Ended::Refused), OWNER),
            Err("refused")
        );
    }
}
