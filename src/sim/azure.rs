//! The state behind all listeners: world, assignments, keys, tokens, faults, journal.
//!
//! In: commands (from tests or the control socket) and questions of the listeners. Out: principals and
//! tokens. Locks are short and never held over IO.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use super::arm::{self, Machine};
use super::certificate::CertificateError;
use super::entra;
use super::faults::{Facts, Faults, Strike, Target};
use super::http::Sni;
use super::journal::{Entry, Journal, Listener, kept};
use super::keys::{KeyError, KeyRing, SigningKey};
use super::stats::Counters;
use super::token::{self, Nature, Principal, Token, TokenCache};
use super::world::World;

/// Simulated Azure.
pub(super) struct Azure {
    pub world: World,
    pub keys: KeyRing,
    pub faults: Faults,
    pub journal: Journal,
    pub counters: Counters,
    pub entra: entra::State,
    pub arm: arm::State,
    clock_skew: AtomicI64,
    tokens: TokenCache,
}

/// Why identities cannot be assigned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// No machine and no scale set of that name.
    #[error("no VM or scale set is named `{0}`")]
    NoVm(String),
    /// No identity of that name.
    #[error("no identity is named `{0}`")]
    NoIdentity(String),
}

impl Azure {
    pub fn new(world: World, key: SigningKey) -> Result<Self, CertificateError> {
        Ok(Self {
            entra: entra::State::new(&world)?,
            clock_skew: AtomicI64::new(world.tokens.clock_skew.as_secs()),
            arm: arm::State::new(&world, Instant::now()),
            faults: Faults::new(world.faults.iter().cloned()),
            keys: KeyRing::new(key),
            journal: Journal::default(),
            counters: Counters::default(),
            tokens: TokenCache::default(),
            world,
        })
    }

    /// Epoch seconds by the clock of simulated Azure, which may differ from this machine's.
    pub fn now(&self) -> i64 {
        let own = jiff::Timestamp::now().as_second();
        own.saturating_add(self.clock_skew.load(Ordering::Relaxed))
    }

    /// Sets how many seconds its clock is ahead; cached tokens were dated by the old one and are forgotten.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.clock_skew.store(seconds, Ordering::Relaxed);
        self.tokens.clear();
    }

    /// The machine that `source` is: the first whose networks hold it, else the first of all.
    pub fn machine(&self, source: IpAddr) -> Arc<Machine> {
        self.arm.estate.machine(source)
    }

    /// The identities the machine carries now: the system-assigned one, and the user-assigned ones in the order of
    /// assignment.
    pub fn identities(&self, machine: &Machine) -> (Option<Principal>, Vec<Principal>) {
        let now = Instant::now();
        let both = |holdings: &mut arm::Holdings| {
            (
                holdings.system(machine),
                holdings.user_assigned(machine, now),
            )
        };
        self.arm.estate.look(now, both)
    }

    /// Replaces the list of identities of a machine or scale set, at once and behind everybody's back.
    pub fn assign(&self, name: &str, identities: &[String]) -> Result<(), AssignError> {
        let now = Instant::now();
        self.arm.estate.look(now, |holdings| {
            let compute = holdings.compute_named(name);
            let compute = compute.ok_or_else(|| AssignError::NoVm(name.to_owned()))?;
            let assigned = identities.iter().map(|name| {
                let identity = holdings.identity_named(name);
                let assigned = identity.and_then(|one| holdings.assignable(&one.id, now));
                assigned.ok_or_else(|| AssignError::NoIdentity(name.clone()))
            });
            let assigned = assigned.collect::<Result<Vec<_>, _>>()?;
            holdings.replace(&compute, &assigned, now);
            Ok(())
        })
    }

    /// The name of the principal with that object id, for the journal; the id itself where unknown.
    pub fn name_of(&self, oid: &str) -> String {
        let managed = |holdings: &mut arm::Holdings| holdings.name_of(oid);
        let name = self.arm.estate.look(Instant::now(), managed);
        let application = || {
            let mut all = self.world.applications.iter();
            let one = all.find(|one| one.principal_id.eq_ignore_ascii_case(oid));
            one.map(|one| one.name.clone())
        };
        name.or_else(application).unwrap_or_else(|| oid.to_owned())
    }

    /// The token IMDS hands out: the cached one, or (or where that is to be bypassed) a new one for the
    /// world's lifetime, which is the cached one from then on.
    pub fn token(
        &self,
        who: &Principal,
        resource: &str,
        bypass: bool,
    ) -> Result<Token, jsonwebtoken::errors::Error> {
        let now = self.now();
        let tokens = &self.world.tokens;
        let lifetime = seconds(tokens.lifetime);
        let fresh = || self.fresh_token(who, resource, lifetime, &Nature::MANAGED);
        if !tokens.cache {
            return fresh();
        }
        let renew_before = tokens.renew_before.map_or(lifetime / 2, seconds);
        let key = (who.client_id.clone(), resource.to_owned());
        if bypass {
            let token = fresh()?;
            self.tokens.put(key, token.clone());
            return Ok(token);
        }
        self.tokens.get_or(key, (now, renew_before), fresh)
    }

    /// A new token with `lifetime` seconds; a negative one ended that long ago.
    pub fn fresh_token(
        &self,
        who: &Principal,
        resource: &str,
        lifetime: i64,
        nature: &Nature,
    ) -> Result<Token, jsonwebtoken::errors::Error> {
        let now = self.now();
        let start = if lifetime < 0 {
            now + 2 * lifetime
        } else {
            now
        };
        let keys = self.keys.published();
        self.counters.signed();
        token::sign(
            &keys[0],
            &self.world.tenant.id,
            who,
            resource,
            (start, now + lifetime),
            nature,
        )
    }

    /// Rolls the signing key over; cached tokens are forgotten so that the new key is seen at once.
    pub fn roll_keys(&self) -> Result<String, KeyError> {
        let kid = self.keys.roll(SigningKey::generate()?);
        self.tokens.clear();
        Ok(kid)
    }

    /// The fault that strikes a request.
    pub fn strike(&self, target: Target, facts: &Facts<'_>) -> Strike {
        self.faults.strike(target, facts)
    }

    /// Enters a request into journal and counters; returns its number.
    pub fn arrive<B>(
        &self,
        listener: Listener,
        source: std::net::SocketAddr,
        vm: Option<&str>,
        request: &hyper::Request<B>,
    ) -> u64 {
        self.counters.request(listener);
        self.journal.arrive(Entry {
            seq: 0,
            time: jiff::Timestamp::now(),
            source: source.to_string(),
            listener,
            vm: vm.map(str::to_owned),
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: kept(request.headers()),
            identity: None,
            resource: None,
            fault: None,
            status: None,
            sni: request.extensions().get().map(|Sni(name)| name.to_string()),
            exchange: None,
            aadsts: None,
            arm: None,
        })
    }
}

/// Whole seconds of a duration.
pub(super) fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}
