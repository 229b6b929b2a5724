//! Why an identity's credential cannot be used, in words for whoever can mend it: they name the Secret
//! and its keys, never what is in them. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::ObjectName;

/// The chart's value that lets agents read Secrets.
const CHART_VALUE: &str = "agent.secrets";

/// No credential can be had, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Secret {secret}: {problem}")]
pub struct Unusable {
    /// The Secret, in the identity's namespace.
    pub secret: ObjectName,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a Secret, or with the way to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It was not read yet.
    #[error("was not read yet")]
    NotRead,
    /// It was never read: the API server does not answer.
    #[error("could not be read yet: {0}")]
    Away(Arc<str>),
    /// The agent may not read it.
    #[error(
        "the agent may not read it; list it in the chart's value {CHART_VALUE} (namespace and name)"
    )]
    Forbidden,
    /// More are needed on this node than an agent follows.
    #[error("is not followed: pods of this node need more than {0} Secrets")]
    TooMany(usize),
    /// There is none of this name.
    #[error("does not exist")]
    Missing,
    /// It cannot be read as a Secret.
    #[error("is not what a Secret looks like")]
    Malformed,
    /// It has no such key.
    #[error("has no key `{key}` ({})", listed(there))]
    KeyMissing {
        /// The key.
        key: Arc<str>,
        /// Those that it has.
        there: Vec<String>,
    },
    /// The value of a key is not what it should be.
    #[error("key `{key}`: {what}")]
    Value {
        /// The key.
        key: Arc<str>,
        /// What is wrong, without a word of it.
        what: String,
    },
    /// All of its certificates have expired.
    #[error("its certificate expired on {}", date(*.0))]
    Expired(Duration),
}

impl Unusable {
    /// Whether it may pass without anybody doing something.
    #[must_use]
    pub const fn may_retry(&self) -> bool {
        matches!(self.problem, Problem::NotRead | Problem::Away(_))
    }
}

/// At most so many keys are named.
const NAMED: usize = 8;

fn listed(keys: &[String]) -> String {
    if keys.is_empty() {
        return "it has none".to_owned();
    }
    let named: Vec<&str> = keys.iter().take(NAMED).map(String::as_str).collect();
    let more = if keys.len() > NAMED { ", …" } else { "" };
    format!("it has {}{more}", named.join(", "))
}

/// The day of a time since the epoch, in UTC.
#[must_use]
pub fn date(at: Duration) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| "an unknown day".to_owned(),
        |at| at.strftime("%Y-%m-%d").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_what_is_there_and_what_to_do() {
        let unusable = |problem| {
            let secret = ObjectName::new("shop", "app");
            Unusable { secret, problem }.to_string()
        };
        let there = vec!["password".to_owned(), "tenant".to_owned()];
        let key = "clientSecret".into();
        assert_eq!(
            unusable(Problem::KeyMissing { key, there }),
            "Secret shop/app: has no key `clientSecret` (it has password, tenant)"
        );
        assert!(unusable(Problem::Forbidden).contains("agent.secrets"));
        let day = Duration::from_hours(498_912);
        assert!(unusable(Problem::Expired(day)).ends_with("expired on 2026-12-01"));
    }

    #[test]
    fn only_what_passes_by_itself_is_worth_another_try() {
        let retry = |problem| {
            let secret = ObjectName::new("shop", "app");
            Unusable { secret, problem }.may_retry()
        };
        assert!(retry(Problem::NotRead) && retry(Problem::Away("no answer".into())));
        assert!(!retry(Problem::Missing) && !retry(Problem::Forbidden));
    }
}
