//! What was learnt of bearer tokens lately, and how often the API server may be asked about more. Pure.
//!
//! Believed for ten seconds; bounded in number. Of a token itself only a digest is kept. What the API server denied is
//! not kept: whoever invents tokens fills nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::rate::{Pace, Rate};
use crate::kubernetes::Reviewed;
use crate::model::ids::ObjectName;
use crate::model::presented::SecretDigest;

/// How long an answer of the API server's is believed: what is revoked is of use for no longer.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long a token that was of use is preferred to those that never were.
const PREFERRED: Duration = Duration::from_mins(10);
/// Tokens of which something is known. One program asks, and its token is renewed once in an hour.
const MOST_TOKENS: usize = 64;
/// Pods for which a token may be used: more than a node has.
const MOST_PODS: usize = 1024;
/// Reviews of tokens that were of no use yet.
const STRANGERS: Rate = Rate {
    per_second: 5,
    burst: 20,
};
/// Reviews of the others.
const PROVEN: Rate = Rate {
    per_second: 50,
    burst: 100,
};

/// What was learnt. Times are since any one moment, and never go back.
#[derive(Debug, Default)]
pub(super) struct Seen {
    tokens: HashMap<SecretDigest, Learnt>,
    strangers: Pace,
    proven: Pace,
}

#[derive(Debug)]
struct Learnt {
    who: Arc<Reviewed>,
    at: Duration,
    /// When it was last said that it may be used for a pod; and for which, when.
    useful: Option<Duration>,
    pods: HashMap<ObjectName, Duration>,
}

fn is_fresh(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) < BELIEVED
}

impl Seen {
    /// Whose token that is, if it was learnt a moment ago.
    pub(super) fn who(&self, token: &SecretDigest, now: Duration) -> Option<Arc<Reviewed>> {
        let learnt = self.tokens.get(token)?;
        is_fresh(learnt.at, now).then(|| learnt.who.clone())
    }

    /// Whether it may be used for that pod, if that was learnt a moment ago.
    pub(super) fn may(&self, token: &SecretDigest, pod: &ObjectName, now: Duration) -> bool {
        let learnt = self.tokens.get(token);
        let at = learnt.and_then(|learnt| learnt.pods.get(pod));
        at.is_some_and(|at| is_fresh(*at, now))
    }

    /// Whether it was of use for some pod, not too long ago.
    pub(super) fn is_useful(&self, token: &SecretDigest, now: Duration) -> bool {
        let useful = self.tokens.get(token).and_then(|learnt| learnt.useful);
        useful.is_some_and(|at| now.saturating_sub(at) < PREFERRED)
    }

    /// Lets one review that is about this token pass; else how long to wait.
    pub(super) fn admit(&mut self, token: &SecretDigest, now: Duration) -> Result<(), Duration> {
        let (pace, rate) = if self.is_useful(token, now) {
            (&mut self.proven, PROVEN)
        } else {
            (&mut self.strangers, STRANGERS)
        };
        if pace.take(rate, now) {
            Ok(())
        } else {
            Err(pace.ready_at(rate).saturating_sub(now))
        }
    }

    /// The token is this user's.
    pub(super) fn proven(&mut self, token: SecretDigest, who: Arc<Reviewed>, now: Duration) {
        if let Some(learnt) = self.tokens.get_mut(&token) {
            (learnt.who, learnt.at) = (who, now);
            return;
        }
        if self.tokens.len() >= MOST_TOKENS {
            // The least of use, and of these the oldest.
            let least = self.tokens.iter();
            let least = least.min_by_key(|(_, learnt)| (learnt.useful, learnt.at));
            if let Some(least) = least.map(|(token, _)| token.clone()) {
                self.tokens.remove(&least);
            }
        }
        let learnt = Learnt {
            who,
            at: now,
            useful: None,
            pods: HashMap::new(),
        };
        self.tokens.insert(token, learnt);
    }

    /// The token proves nothing (any more).
    pub(super) fn unproven(&mut self, token: &SecretDigest) {
        self.tokens.remove(token);
    }

    /// It may be used for that pod.
    pub(super) fn allowed(&mut self, token: &SecretDigest, pod: &ObjectName, now: Duration) {
        let Some(learnt) = self.tokens.get_mut(token) else {
            return;
        };
        learnt.useful = Some(now);
        learnt.pods.retain(|_, at| is_fresh(*at, now));
        if learnt.pods.len() < MOST_PODS {
            learnt.pods.insert(pod.clone(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn token(n: usize) -> SecretDigest {
        SecretDigest::of(n.to_string().as_bytes())
    }

    fn user(name: &str) -> Arc<Reviewed> {
        Arc::new(Reviewed {
            username: name.to_owned(),
            ..Reviewed::default()
        })
    }

    fn pod(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    #[test]
    fn an_answer_is_believed_for_ten_seconds_for_that_token_and_that_pod() {
        let mut seen = Seen::default();
        assert!(seen.who(&token(1), S(0)).is_none());
        seen.proven(token(1), user("a"), S(0));
        seen.allowed(&token(1), &pod("web"), S(4));
        assert_eq!(seen.who(&token(1), S(9)), Some(user("a")));
        assert!(seen.who(&token(1), S(10)).is_none());
        assert!(seen.who(&token(2), S(1)).is_none());
        assert!(seen.may(&token(1), &pod("web"), S(13)));
        assert!(!seen.may(&token(1), &pod("web"), S(14)));
        assert!(!seen.may(&token(1), &pod("till"), S(5)));
        assert!(!seen.may(&token(2), &pod("web"), S(5)));
        // Proven anew: what it may is as old as it was.
        seen.proven(token(1), user("a"), S(20));
        assert!(!seen.may(&token(1), &pod("web"), S(20)));
        seen.unproven(&token(1));
        assert!(seen.who(&token(1), S(20)).is_none());
    }

    #[test]
    fn nothing_is_learnt_of_what_a_token_may_that_proves_nothing() {
        let mut seen = Seen::default();
        seen.allowed(&token(1), &pod("web"), S(0));
        assert!(!seen.may(&token(1), &pod("web"), S(0)));
    }

    #[test]
    fn memory_is_bounded_and_what_is_of_use_stays() {
        let mut seen = Seen::default();
        seen.proven(token(0), user("provider"), S(0));
        for n in 0..2 * MOST_PODS {
            seen.allowed(&token(0), &pod(&n.to_string()), S(1));
        }
        assert_eq!(seen.tokens[&token(0)].pods.len(), MOST_PODS);
        // Real tokens of somebody who may nothing.
        for n in 1..=10 * MOST_TOKENS {
            seen.proven(token(n), user("other"), S(2));
            assert!(seen.tokens.len() <= MOST_TOKENS);
        }
        assert!(seen.who(&token(0), S(3)).is_some());
        seen.allowed(&token(0), &pod("web"), S(60));
        assert_eq!(seen.tokens[&token(0)].pods.len(), 1);
    }

    #[test]
    fn strangers_keep_nobody_out_who_is_known() {
        let mut seen = Seen::default();
        seen.proven(token(0), user("provider"), S(0));
        seen.allowed(&token(0), &pod("web"), S(0));
        let passed = (1..1000)
            .filter(|n| seen.admit(&token(*n), S(0)).is_ok())
            .count();
        assert_eq!(passed, 20);
        assert!(seen.admit(&token(1), S(0)).unwrap_err() <= S(1));
        assert_eq!(seen.admit(&token(0), S(0)), Ok(()));
        // Known to be somebody is not yet of use.
        seen.proven(token(1), user("other"), S(0));
        assert!(seen.admit(&token(1), S(0)).is_err());
        // After a long rest it is a stranger again, and so are all.
        assert_eq!(seen.admit(&token(1), S(700)), Ok(()));
        let all = (0..1000)
            .filter(|_| seen.admit(&token(0), S(700)).is_ok())
            .count();
        assert_eq!(all, 19);
    }
}
