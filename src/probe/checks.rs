//! The questions of `lanyard probe`, and what each answer means for a pod.
//!
//! In: where to ask. Out: a [`Report`]. Blocks on the network, each question with its own deadline.
//! The judging functions are pure. What a check can prove is said in its words: an address that
//! refuses is closed, and nothing more.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::exchange::{Answered, Request};
use super::report::{Check, Expectation, Outcome, Report, verdict};
use super::token::Shown;

const QUICK: Duration = Duration::from_secs(3);

/// Where the platform's endpoints are.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// The instance metadata service.
    pub metadata: SocketAddrV4,
    /// The wire server's ports.
    pub wire: [SocketAddrV4; 2],
}

impl Default for Targets {
    fn default() -> Self {
        let wire = Ipv4Addr::new(168, 63, 129, 16);
        Self {
            metadata: SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80),
            wire: [80, 32526].map(|port| SocketAddrV4::new(wire, port)),
        }
    }
}

/// What else to ask.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Ask for a token for this audience.
    pub resource: Option<String>,
    /// By this client id.
    pub client_id: Option<String>,
    /// What that should come to.
    pub expect: Option<Expectation>,
    /// How long to try while the answer is "try again".
    pub patience: Duration,
    /// The wire server is meant to be open to pods.
    pub wire_server_open: bool,
}

/// Asks everything.
pub fn run(targets: &Targets, wanted: &Wanted) -> Report {
    let nonce = format!("{:016x}", fastrand::u64(..));
    let get = |target: &str, metadata| {
        let request = Request {
            target,
            metadata,
            within: QUICK,
        };
        request.tcp(targets.metadata)
    };
    let (first, agent) = interception(
        &get(&format!("/lanyard/v1/probe?nonce={nonce}"), false),
        &nonce,
    );
    let mut checks = vec![first];
    let token_path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x";
    checks.push(no_header(&get(token_path, false)));
    let trick = "/metadata/identity%2Foauth2%2Ftoken?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";
    checks.push(identity_path(&get(trick, true)));
    checks.push(instance(
        &get("/metadata/instance?api-version=2021-02-01", true),
        agent.is_some(),
    ));
    for to in targets.wire {
        checks.push(wire_server(
            Request::knock(to, QUICK).as_ref(),
            to.port(),
            wanted.wire_server_open,
        ));
    }
    let (mut token, mut as_expected) = (None, None);
    if let Some(resource) = &wanted.resource {
        if agent.is_some() {
            let answered = ask_token(targets.metadata, resource, wanted);
            let (check, shown) = token_request(&answered);
            as_expected = wanted.expect.map(|expected| meets(&answered, expected));
            checks.push(check);
            token = shown;
        } else {
            checks.push(Check {
                name: "token",
                outcome: Outcome::Unclear,
                text: "not asked for: who is not our agent would give the node's".to_owned(),
            });
        }
    }
    Report {
        verdict: verdict(&checks, agent.is_some()),
        lanyard: agent.as_ref().map(|agent| agent.lanyard.clone()),
        instance: agent.map(|agent| agent.instance),
        checks,
        token,
        as_expected,
    }
}

/// Asks until the answer is final, or patience ends.
fn ask_token(to: SocketAddrV4, resource: &str, wanted: &Wanted) -> Answered {
    let mut target = format!(
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}",
        encoded(resource)
    );
    if let Some(id) = &wanted.client_id {
        target.push_str("&client_id=");
        target.push_str(&encoded(id));
    }
    let end = Instant::now() + wanted.patience;
    loop {
        let request = Request {
            target: &target,
            metadata: true,
            within: wanted.patience.max(QUICK),
        };
        let answered = request.tcp(to);
        let pause = match &answered {
            Answered::Reply {
                status: 429 | 503,
                retry_after,
                ..
            } => Duration::from_secs(retry_after.unwrap_or(1)),
            Answered::Refused => Duration::from_secs(1),
            _ => return answered,
        };
        if Instant::now() + pause >= end {
            return answered;
        }
        std::thread::sleep(pause);
    }
}

/// Percent-encodes all but unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[derive(Deserialize)]
struct Agent {
    lanyard: String,
    instance: String,
    nonce: String,
}

fn interception(answered: &Answered, nonce: &str) -> (Check, Option<Agent>) {
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
fn no_header(answered: &Answered) -> Check {
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

fn identity_path(answered: &Answered) -> Check {
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

fn instance(answered: &Answered, intercepted: bool) -> Check {
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
fn wire_server(knocked: Option<&Answered>, port: u16, meant_open: bool) -> Check {
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

fn token_request(answered: &Answered) -> (Check, Option<Shown>) {
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

fn meets(answered: &Answered, expected: Expectation) -> bool {
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
