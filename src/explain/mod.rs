//! Why a pod gets what it gets: the pod and all objects that decide come in as values, an
//! [`Explanation`] goes out, as text for a person or as JSON.
//!
//! The decision itself is never worked out here: [`crate::agent::grants`], `select` and `conditions`
//! are asked, the code that the agent answers requests with. What is added is the single conditions
//! in words, and what to change. No IO; whoever calls has read the objects.

mod admission;
mod bindings;
mod commands;
mod decision;
mod found;
mod identities;
mod near;
mod pod;
mod remedy;
mod render;
mod rights;
mod sources;
mod workload;
pub mod yaml;

use std::fmt;

use crate::model::ids::ObjectName;
use crate::model::query::Selector;

pub use decision::explain;
pub use found::{AgentView, Broken, Found, NodeView, Owner, PodView};
pub use near::near_names;
pub use render::{json, text};
pub use rights::{Right, Rights};
pub use sources::{Needs, needs};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which pod.
    pub pod: ObjectName,
    /// Which identity its program would name.
    pub selector: Selector,
    /// Which audience it would ask for; `None`: any that is allowed.
    pub resource: Option<String>,
}

/// The answer in one word; also the exit status of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pod gets a token.
    Granted,
    /// It does not.
    Refused,
    /// What is known does not suffice, or Lanyard does not decide about this pod.
    Unclear,
}

impl Verdict {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
        }
    }

    /// Exit status: 0 granted, 1 refused, 2 cannot tell.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Granted => 0,
            Self::Refused => 1,
            Self::Unclear => 2,
        }
    }
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it must be.
    Fine,
    /// Keeps the pod from its identity.
    Wrong,
    /// Worth knowing; decides nothing.
    Note,
    /// Could not be looked at.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How it came out.
    pub mark: Mark,
    /// In a sentence.
    pub text: String,
    /// More lines about it.
    pub details: Vec<String>,
}

impl Step {
    fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self {
            mark,
            text: text.into(),
            details: Vec::new(),
        }
    }

    fn with(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }
}

/// Steps about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The thing.
    pub title: String,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
}

/// What one request would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The request: which identity it names.
    pub request: String,
    /// The identity that answers; `None`: refused.
    pub identity: Option<ObjectName>,
    /// Why.
    pub why: String,
}

/// Something that would change the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What it does, and who may do it.
    pub what: String,
    /// Commands or manifests, ready to be applied.
    pub how: String,
}

/// The explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The pod asked about.
    pub pod: ObjectName,
    /// In one word.
    pub verdict: Verdict,
    /// In one sentence.
    pub headline: String,
    /// The stable name of the refusal, heading in TROUBLESHOOTING.md.
    pub kind: Option<&'static str>,
    /// Step by step.
    pub sections: Vec<Section>,
    /// Request by request.
    pub outcomes: Vec<Outcome>,
    /// What to change; the first is the likeliest.
    pub remedies: Vec<Remedy>,
}

/// `a, b and c`, or `… and N more`.
fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if all.len() > SHOWN {
        return format!("{} and {} more", all[..SHOWN].join(", "), all.len() - SHOWN);
    }
    match all.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests;
