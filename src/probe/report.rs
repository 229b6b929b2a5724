//! What the checks found, as a person or a program reads it.
//!
//! In: the checks. Out: text, JSON, an exit code. Pure. One leak outweighs everything; without a leak
//! "intercepted" is said only when the agent itself was heard.

use std::fmt::Write as _;

use serde::Serialize;

use super::token::Shown;

/// What one check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth knowing, and may be meant so.
    Note,
    /// Cannot be told.
    Unclear,
    /// A pod reaches what is the node's.
    Leak,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which question.
    pub name: &'static str,
    /// What it came to.
    pub outcome: Outcome,
    /// In words.
    pub text: String,
}

/// The sum of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The agent answers, and nothing leaks.
    Intercepted,
    /// Something leaks.
    Leak,
    /// It cannot be told.
    Unclear,
}

/// What a token request was expected to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// A token.
    Granted,
    /// A final refusal.
    Refused,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The sum.
    pub verdict: Verdict,
    /// The agent's version, when one answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanyard: Option<String>,
    /// Which agent process answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The checks in order.
    pub checks: Vec<Check>,
    /// Whose token was got, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Shown>,
    /// Whether the token request came to what was expected; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_expected: Option<bool>,
}

impl Report {
    /// 0 intercepted, 1 leak, 2 unclear, 3 intercepted but the token request came to something else
    /// than was expected.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.verdict, self.as_expected) {
            (Verdict::Leak, _) => 1,
            (Verdict::Unclear, _) => 2,
            (Verdict::Intercepted, Some(false)) => 3,
            (Verdict::Intercepted, _) => 0,
        }
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.outcome {
                Outcome::Ok => "ok     ",
                Outcome::Note => "note   ",
                Outcome::Unclear => "unclear",
                Outcome::Leak => "LEAK   ",
            };
            let _ = writeln!(text, "{mark}  {:<13} {}", check.name, check.text);
        }
        if let Some(token) = &self.token {
            let identity = token
                .identity
                .as_deref()
                .unwrap_or("not named in the token");
            let _ = writeln!(
                text,
                "         client id     {}\n         identity      {identity}\n         resource      {}\n         expires       {}",
                token.client_id, token.resource, token.expires
            );
        }
        let _ = writeln!(text, "{}", self.conclusion());
        text
    }

    fn conclusion(&self) -> String {
        let version = self.lanyard.as_deref().unwrap_or("?");
        match (self.verdict, self.as_expected) {
            (Verdict::Leak, _) => {
                "NOT safe: this pod reaches what belongs to the node; see LEAK above".to_owned()
            }
            (Verdict::Unclear, _) => {
                "not intercepted by a living agent, as far as can be told from here; see `unclear` above".to_owned()
            }
            (Verdict::Intercepted, Some(false)) => {
                format!("intercepted by lanyard {version}, but the token request did not come to what was expected")
            }
            (Verdict::Intercepted, _) => format!("intercepted by lanyard {version}"),
        }
    }
}

/// The sum of the checks; `heard`: whether the agent itself answered.
#[must_use]
pub fn verdict(checks: &[Check], heard: bool) -> Verdict {
    let any = |outcome| checks.iter().any(|check| check.outcome == outcome);
    if any(Outcome::Leak) {
        Verdict::Leak
    } else if !heard || any(Outcome::Unclear) {
        Verdict::Unclear
    } else {
        Verdict::Intercepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome) -> Check {
        Check {
            name: "a",
            outcome,
            text: String::new(),
        }
    }

    #[test]
    fn a_leak_outweighs_all_and_silence_is_never_intercepted() {
        let all =
            |outcomes: &[Outcome]| -> Vec<Check> { outcomes.iter().copied().map(check).collect() };
        let of = |outcomes: &[Outcome], heard| verdict(&all(outcomes), heard);
        assert_eq!(
            of(&[Outcome::Ok, Outcome::Note], true),
            Verdict::Intercepted
        );
        assert_eq!(of(&[Outcome::Ok], false), Verdict::Unclear);
        assert_eq!(of(&[Outcome::Ok, Outcome::Unclear], true), Verdict::Unclear);
        assert_eq!(of(&[Outcome::Unclear, Outcome::Leak], true), Verdict::Leak);
    }

    #[test]
    fn an_expectation_decides_only_where_all_else_is_well() {
        let report = |verdict, as_expected| Report {
            verdict,
            lanyard: None,
            instance: None,
            checks: Vec::new(),
            token: None,
            as_expected,
        };
        assert_eq!(report(Verdict::Intercepted, None).exit_code(), 0);
        assert_eq!(report(Verdict::Intercepted, Some(false)).exit_code(), 3);
        assert_eq!(report(Verdict::Leak, Some(true)).exit_code(), 1);
        assert_eq!(report(Verdict::Unclear, Some(true)).exit_code(), 2);
    }
}
