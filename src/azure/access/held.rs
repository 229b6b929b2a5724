//! The token at hand, and when to get another. Pure: `now` (since the Unix epoch) in, the next step out.
//!
//! Holds that one renewal runs at a time, that a token is served while it is renewed and while renewal
//! fails (down to 30 s before its end), that failures are not repeated in a loop, and that a service which
//! refuses tokens makes us ask for no more than one a minute.

use std::sync::Arc;
use std::time::Duration;

use super::AccessError;
use crate::model::backoff;
use crate::model::token::Token;

/// After a failure the next try comes this much later, then twice as long, at most the other.
const PAUSE: backoff::Bounds = (Duration::from_secs(2), Duration::from_mins(1));
/// Between tokens that are asked for because one was refused.
const ANEW: Duration = Duration::from_mins(1);
/// Files are looked at this often.
const LOOK: Duration = Duration::from_secs(30);

/// What to do now.
#[derive(Debug)]
pub(super) enum Step {
    /// Serve this.
    Serve(Arc<Token>),
    /// Serve this, and begin to renew.
    ServeAndRenew(Arc<Token>),
    /// Begin to renew, then wait.
    Renew,
    /// Wait: a renewal runs.
    Wait,
    /// There is none, and it is too early to try again.
    Fail(AccessError),
}

/// What a renewal brought.
#[derive(Debug)]
pub(super) enum Renewed {
    /// A token.
    Token(Token),
    /// The files are as they were, and the token at hand is good enough.
    Unchanged,
}

/// The token at hand.
#[derive(Debug, Default)]
pub(super) struct Held {
    token: Option<Arc<Token>>,
    /// Whether the token was refused: it is not served any more.
    is_refused: bool,
    /// Whether a renewal runs.
    is_renewing: bool,
    /// No token is asked for before this.
    not_before: Duration,
    failures: u32,
    error: Option<AccessError>,
    looked_at: Duration,
    refused_at: Option<Duration>,
}

impl Held {
    /// What to do at `now`. Where it is to renew, that counts as begun.
    pub fn step(&mut self, now: Duration) -> Step {
        let token = self.token.clone().filter(|token| token.is_usable(now));
        let token = token.filter(|_| !self.is_refused);
        let is_due = token.as_ref().is_none_or(|token| token.is_short(now));
        let is_early = now < self.not_before;
        let is_to_look = self.looked_at + LOOK <= now || now + LOOK < self.looked_at;
        let begins = !self.is_renewing && (is_due && !is_early || is_to_look);
        if begins {
            self.is_renewing = true;
            self.looked_at = now;
        }
        match token {
            Some(token) if begins => Step::ServeAndRenew(token),
            Some(token) => Step::Serve(token),
            None if begins => Step::Renew,
            None if self.is_renewing => Step::Wait,
            None => match &self.error {
                Some(error) => Step::Fail(error.clone()),
                None => Step::Wait,
            },
        }
    }

    /// Whether a token is to be had at `now`, or only the files to be looked at.
    pub fn is_due(&self, now: Duration) -> bool {
        let good = self.token.as_ref().filter(|_| !self.is_refused);
        now >= self.not_before && good.is_none_or(|token| token.is_short(now))
    }

    /// Whether the last token was refused: a source with a cache must not give the same.
    pub const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Takes over what became of a renewal.
    pub fn end(&mut self, outcome: Result<Renewed, AccessError>, now: Duration) {
        match outcome {
            Ok(Renewed::Token(token)) => {
                self.token = Some(Arc::new(token));
                self.is_refused = false;
                self.failures = 0;
                self.error = None;
                self.not_before = Duration::ZERO;
            }
            Ok(Renewed::Unchanged) => {}
            Err(error) => {
                let pause = backoff::pause(PAUSE, self.failures);
                let wish = error.retry_after().unwrap_or_default();
                self.not_before = now + pause.max(wish);
                self.failures = self.failures.saturating_add(1);
                self.error = Some(error);
            }
        }
        self.is_renewing = false;
    }

    /// No renewal runs any more.
    pub const fn ended(&mut self) {
        self.is_renewing = false;
    }

    /// `token` was refused. Whether the next one is another: one is asked for at once, where that was not
    /// just done.
    pub fn refused(&mut self, token: &Arc<Token>, now: Duration) -> bool {
        let held = self.token.as_ref();
        if self.is_refused || !held.is_some_and(|held| Arc::ptr_eq(held, token)) {
            return true;
        }
        let last = self.refused_at.filter(|at| *at <= now);
        if last.is_some_and(|at| now < at + ANEW) {
            return false;
        }
        self.is_refused = true;
        self.refused_at = Some(now);
        self.not_before = Duration::ZERO;
        true
    }

    /// The token at hand, whatever its life.
    pub fn token(&self) -> Option<Arc<Token>> {
        self.token.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn token(from: u64, life: u64) -> Renewed {
        let token = Token::new(format!("t{from}"), S(from), S(from), S(from + life));
        Renewed::Token(token)
    }

    const FAILED: AccessError = AccessError::Late(Duration::from_secs(1));

    /// What it does, and of which token.
    fn step(held: &mut Held, now: u64) -> String {
        match held.step(S(now)) {
            Step::Serve(token) => format!("serve {}", token.expose()),
            Step::ServeAndRenew(token) => format!("serve {} and renew", token.expose()),
            Step::Renew => "renew".to_owned(),
            Step::Wait => "wait".to_owned(),
            Step::Fail(_) => "fail".to_owned(),
        }
    }

    /// Asks until the files need no look any more.
    fn looked(held: &mut Held, now: u64) -> String {
        let first = step(held, now);
        if first.ends_with("renew") && !held.is_due(S(now)) {
            held.end(Ok(Renewed::Unchanged), S(now));
            return step(held, now);
        }
        first
    }

    #[test]
    fn one_renewal_runs_at_a_time() {
        let mut held = Held::default();
        assert_eq!(step(&mut held, 1_000), "renew");
        assert_eq!(step(&mut held, 1_001), "wait");
        held.end(Ok(token(1_001, 3_600)), S(1_001));
        assert_eq!(looked(&mut held, 1_002), "serve t1001");
        assert_eq!(looked(&mut held, 4_300), "serve t1001");
        // Five minutes before its end.
        assert_eq!(step(&mut held, 4_301), "serve t1001 and renew");
        assert_eq!(step(&mut held, 4_302), "serve t1001");
        held.end(Ok(token(4_303, 3_600)), S(4_303));
        assert_eq!(looked(&mut held, 4_304), "serve t4303");
    }

    #[test]
    fn a_failing_renewal_leaves_the_token_until_thirty_seconds_before_its_end() {
        let mut held = Held::default();
        step(&mut held, 1_000);
        held.end(Ok(token(1_000, 400)), S(1_000));
        assert_eq!(step(&mut held, 1_101), "serve t1000 and renew");
        held.end(Err(FAILED), S(1_101));
        assert_eq!(step(&mut held, 1_102), "serve t1000", "not in a loop");
        assert_eq!(step(&mut held, 1_103), "serve t1000 and renew");
        held.end(Err(FAILED), S(1_369));
        assert_eq!(looked(&mut held, 1_369), "serve t1000");
        assert_eq!(step(&mut held, 1_370), "fail");
        assert_eq!(step(&mut held, 1_373), "renew");
    }

    #[test]
    fn pauses_grow_and_end_and_the_service_s_wish_counts() {
        let mut held = Held::default();
        let mut now = 1_000;
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            assert!(held.is_due(S(now)));
            held.end(Err(FAILED), S(now));
            assert!(!held.is_due(S(now + expected - 1)), "{expected}");
            now += expected;
        }
        let throttled = AccessError::Entra {
            error: crate::azure::entra::EntraError::Throttled {
                retry_after: Some(S(300)),
            },
            way_out: String::new(),
        };
        held.end(Err(throttled), S(now));
        assert!(!held.is_due(S(now + 299)) && held.is_due(S(now + 300)));
        held.end(Ok(token(now, 3_600)), S(now));
        assert!(!held.is_due(S(now)));
    }

    #[test]
    fn a_refused_token_is_not_served_but_no_more_than_one_a_minute_is_asked_for() {
        let mut held = Held::default();
        step(&mut held, 1_000);
        held.end(Ok(token(1_000, 3_600)), S(1_000));
        let first = held.token().unwrap();
        assert!(held.refused(&first, S(1_001)));
        assert_eq!(step(&mut held, 1_001), "renew");
        held.end(Ok(token(1_002, 3_600)), S(1_002));
        // Somebody else's late word of the first one says nothing of the second.
        assert!(held.refused(&first, S(1_003)));
        assert_eq!(step(&mut held, 1_003), "serve t1002");
        let second = held.token().unwrap();
        assert!(!held.refused(&second, S(1_004)));
        assert_eq!(step(&mut held, 1_004), "serve t1002");
        assert!(held.refused(&second, S(1_061)));
        assert_eq!(step(&mut held, 1_061), "renew");
    }

    #[test]
    fn files_are_looked_at_every_thirty_seconds_even_while_it_fails() {
        let mut held = Held::default();
        step(&mut held, 1_000);
        held.end(Ok(token(1_000, 3_600)), S(1_000));
        assert_eq!(step(&mut held, 1_029), "serve t1000");
        assert_eq!(step(&mut held, 1_030), "serve t1000 and renew");
        assert!(!held.is_due(S(1_030)));
        held.end(Ok(Renewed::Unchanged), S(1_030));
        assert_eq!(step(&mut held, 1_031), "serve t1000");
        // The clock was put back.
        assert_eq!(step(&mut held, 900), "serve t1000 and renew");
    }
}
