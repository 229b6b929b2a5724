//! The questions of `lanyard probe`.
//!
//! In: where to ask. Out: a [`Report`]. Blocks on the network, each question with its own deadline.
//! What an answer means is `judge`'s. Invariant: nobody is asked for a token who was not heard to be an
//! agent of ours: it would be the node's.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::exchange::{Answered, Request};
use super::judge::{
    identity_path, instance, interception, meets, no_header, token_request, wire_server,
};
use super::report::{Check, Expectation, Outcome, Report, verdict};
use crate::model::escape::escaped;

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
        escaped(resource)
    );
    if let Some(id) = &wanted.client_id {
        target.push_str("&client_id=");
        target.push_str(&escaped(id));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_encoded() {
        assert_eq!(escaped("https://a.b/ c"), "https%3A%2F%2Fa.b%2F%20c");
    }
}
