//! Whether a client is who it says: by a secret, by an assertion of its own, or by another issuer's token.
//!
//! In: the form of a token request, the client it names, where and when. Out: how it was proved, or the refusal. What was
//! found out is written into the journal's [`Exchange`] on the way, so that a refused request tells it, too.
//! Waits only for the keys of an issuer.

use super::HOSTS;
use super::assertion::Assertion;
use super::grant::Form;
use super::refusal::{Refusal, Words};
use super::registry::{Client, secret_id};
use super::signed::{self, Place};
use super::{State, federated};
use crate::sim::journal::Exchange;
use crate::sim::world::World;

/// The one `client_assertion_type` there is (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How a client proved itself, as `appidacr` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Secret,
    Assertion,
}

impl Proof {
    pub fn appidacr(self) -> &'static str {
        match self {
            Self::Secret => "1",
            Self::Assertion => "2",
        }
    }
}

/// Where and when it happens.
pub(super) struct Scene<'a> {
    pub world: &'a World,
    pub state: &'a State,
    pub host: &'a str,
    pub now: i64,
}

/// Checks the one credential that the form brings.
pub(super) async fn prove(
    form: &Form,
    client: &Client,
    scene: &Scene<'_>,
    exchange: &mut Exchange,
) -> Result<Proof, Refusal> {
    let jwt = match (form.get("client_secret"), form.get("client_assertion")) {
        (None, None) => return Err(Refusal::of(7_000_218, &Words::default())),
        (Some(_), Some(_)) => {
            let words = Words {
                value: "A request has a client_secret or a client_assertion, not both.",
                ..Words::default()
            };
            return Err(Refusal::of(90_023, &words));
        }
        (Some(secret), None) => {
            exchange.credential = Some(format!("secret:{}", secret_id(secret)));
            check_secret(secret, client, scene.now)?;
            return Ok(Proof::Secret);
        }
        (None, Some(jwt)) => jwt,
    };
    if form.need("client_assertion_type")? != ASSERTION_TYPE {
        let words = Words {
            value: "The value of 'client_assertion_type' is not supported.",
            ..Words::default()
        };
        return Err(Refusal::of(90_023, &words));
    }
    let assertion = Assertion::parse(jwt)?;
    exchange.algorithm = Some(assertion.header.alg.clone());
    exchange.jti.clone_from(&assertion.claims.jti);
    // Its own name as issuer: signed by itself. Anybody else's: a federated token.
    if assertion
        .claims
        .iss
        .eq_ignore_ascii_case(&client.who.client_id)
    {
        let place = Place {
            world: scene.world,
            host: scene.host,
            hosts: &HOSTS,
            now: scene.now,
        };
        let replays = &scene.state.replays;
        signed::check(&assertion, client, &place, replays, exchange)?;
    } else {
        let (issuers, now) = (&scene.state.issuers, scene.now);
        federated::check(&assertion, client, issuers, now, exchange).await?;
    }
    Ok(Proof::Assertion)
}

fn check_secret(secret: &str, client: &Client, now: i64) -> Result<(), Refusal> {
    let refuse = |code| {
        let words = Words {
            client: &client.who.client_id,
            ..Words::default()
        };
        Err(Refusal::of(code, &words))
    };
    match client.secrets.iter().find(|other| other.value == secret) {
        None => refuse(7_000_215),
        Some(known) => match known.expires {
            Some(end) if end.as_second() <= now => refuse(7_000_222),
            _ => Ok(()),
        },
    }
}
