//! What each answer means for a pod.
//!
//! In: what came of a request. Out: a [`Check`]. Pure. What a check can prove is said in its words: an
//! address that refuses is closed, and nothing more; only the agent's own word is interception.

use serde::Deserialize;

use super::exchange::Answered;
use super::report::{Check, Expectation, Outcome};
use super::token::Shown;

#[derive(Deserialize)]
pub(super) struct Agent {
    pub lanyard: String,
    pub instance: String,
    nonce: String,
}

pub(super) fn interception(answered: &Answered, nonce: &str) -> (Check, Option<Agent>) {
    let check = |outcome, text| Check {
        name: "interception",
        outcome,
        text,
    };
    match answered {
        Answered::Reply { status, body, .. } => {
            let agent = serde_json::from_str::<Agent>(body).ok();
            if let Some(agent) = agent.filter(|agent| *status == 200 && agent.nonce == nonce) {
                let text = format!(
                    "lanyard {} answers (instance {})",
                    agent.lanyard, agent.instance
                );
                return (check(Outcome::Ok, text), Some(agent));
            }
            let text = format!(
                "NOT intercepted: something else answers at the metadata address (status {status}). Is the agent running on this \
                 node, is this a host-network pod, does the network's datapath pass the host's netfilter?"
            );
            (check(Outcome::Leak, text), None)
        }
        Answered::Refused => {
            let text = "the connection is refused: closed, but no agent answers. Look at the agent of this node (`kubectl get pods \
                        -n lanyard-system -o wide`)";
            (check(Outcome::Unclear, text.to_owned()), None)
        }
        Answered::Silent => {
            let text = "no answer: packets to the metadata address vanish. Is there a NetworkPolicy in the way, or a datapath \
                        that does not pass the host's netfilter?";
            (check(Outcome::Unclear, text.to_owned()), None)
        }
        Answered::Failed(why) => (check(Outcome::Unclear, format!("cannot ask: {why}")), None),
    }
}

/// An agent and IMDS both answer 400 here, at once: SDKs take another answer for "no metadata service".
pub(super) fn no_header(answered: &Answered) -> Check {
    let (outcome, text) = match answered {
        Answered::Reply { status: 400, .. } => (
            Outcome::Ok,
            "a request without the Metadata header is answered with 400".to_owned(),
        ),
        Answered::Reply { status, .. } => (
            Outcome::Unclear,
            format!("a request without the Metadata header is answered with {status}, not 400"),
        ),
        other => (Outcome::Unclear, silence(other)),
    };
    Check {
        name: "sdk probe",
        outcome,
        text,
    }
}

pub(super) fn identity_path(answered: &Answered) -> Check {
    let (outcome, text) = match answered {
        Answered::Reply { status, .. } if (200..300).contains(status) => (
            Outcome::Leak,
            "an escaped spelling of the token path is answered: it reaches the node's identity"
                .to_owned(),
        ),
        Answered::Reply { status, .. } if (400..500).contains(status) => (
            Outcome::Ok,
            format!("an escaped spelling of the token path is refused ({status})"),
        ),
        Answered::Reply { status, .. } => (
            Outcome::Unclear,
            format!("an escaped spelling of the token path is answered with {status}"),
        ),
        Answered::Refused => (Outcome::Ok, "closed (connection refused)".to_owned()),
        other => (Outcome::Unclear, silence(other)),
    };
    Check {
        name: "token path",
        outcome,
        text,
    }
}

pub(super) fn instance(answered: &Answered, intercepted: bool) -> Check {
    let (outcome, text) = match answered {
        Answered::Reply { status: 200, .. } if intercepted => (
            Outcome::Note,
            "/metadata/instance is open: by an AzureMetadataException for this pod, or because the agent only observes".to_owned(),
        ),
        Answered::Reply { status: 200, .. } => {
            (Outcome::Leak, "/metadata/instance shows the node's metadata".to_owned())
        }
        Answered::Reply { status, .. } => (Outcome::Ok, format!("/metadata/instance is closed ({status})")),
        Answered::Refused => (Outcome::Ok, "closed (connection refused)".to_owned()),
        other => (Outcome::Unclear, silence(other)),
    };
    Check {
        name: "metadata",
        outcome,
        text,
    }
}

/// `knocked`: how connecting failed, `None` when it did not.
pub(super) fn wire_server(knocked: Option<&Answered>, port: u16, meant_open: bool) -> Check {
    let (outcome, text) = match knocked {
        None if meant_open => (Outcome::Note, format!("port {port} is open, as expected")),
        None => (
            Outcome::Leak,
            format!(
                "port {port} of 168.63.129.16 is open: it hands out the node's secrets. Start the agent with --guard-wire-server"
            ),
        ),
        Some(Answered::Refused) => (Outcome::Ok, format!("port {port} is closed")),
        Some(Answered::Silent | Answered::Failed(_)) => {
            (Outcome::Ok, format!("port {port} cannot be reached"))
        }
        Some(Answered::Reply { .. }) => (
            Outcome::Unclear,
            format!("port {port} gave an answer nobody asked for"),
        ),
    };
    Check {
        name: "wire server",
        outcome,
        text,
    }
}

pub(super) fn token_request(answered: &Answered) -> (Check, Option<Shown>) {
    let check = |outcome, text| Check {
        name: "token",
        outcome,
        text,
    };
    match answered {
        Answered::Reply {
            status: 200, body, ..
        } => match Shown::read(body) {
            Some(shown) => (check(Outcome::Ok, "granted".to_owned()), Some(shown)),
            None => (
                check(Outcome::Unclear, "status 200 without a token".to_owned()),
                None,
            ),
        },
        Answered::Reply { status, body, .. } => {
            let said: Option<Refusal> = serde_json::from_str(body).ok();
            let said =
                said.map_or_else(String::new, |said| format!(": {}", said.error_description));
            (
                check(Outcome::Note, format!("not granted ({status}){said}")),
                None,
            )
        }
        other => (check(Outcome::Unclear, silence(other)), None),
    }
}

#[derive(Deserialize)]
struct Refusal {
    error_description: String,
}

pub(super) fn meets(answered: &Answered, expected: Expectation) -> bool {
    let Answered::Reply { status, .. } = answered else {
        return false;
    };
    match expected {
        Expectation::Granted => *status == 200,
        Expectation::Refused => matches!(status, 400 | 403 | 404),
    }
}

fn silence(answered: &Answered) -> String {
    match answered {
        Answered::Refused => "the connection is refused".to_owned(),
        Answered::Silent => "no answer in time".to_owned(),
        Answered::Failed(why) => why.clone(),
        Answered::Reply { status, .. } => format!("status {status}"),
    }
}

#[cfg(test)]
mod tests;
