//! What was passed on although it would have been refused: who asked for what how often, and which
//! identity answered. Pure: values in, a bounded table, a report out. Never a token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::facts::{Labels, PodFacts};

/// Lines in all.
const MAX_LINES: usize = 1024;
/// Of one service account: a program that invents resources fills its own share.
const MAX_OF_ACCOUNT: usize = 64;
/// Names of pods kept for a line.
const MAX_PODS: usize = 3;
/// Labels kept of a line's first pod.
const MAX_LABELS: usize = 16;
/// Longest text kept of what was asked for.
const MAX_TEXT: usize = 512;

/// Who asked, as a binding or an exception would name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    /// The pod's namespace; empty where no pod was known.
    pub namespace: String,
    /// Its service account; empty where no pod was known.
    pub service_account: String,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum What {
    /// A token.
    Token {
        /// The audience.
        resource: String,
        /// The identity that the request named, as `client_id=…`; absent: none.
        selector: Option<String>,
    },
    /// A metadata path, in the form that an exception lists.
    Path {
        /// The path.
        path: String,
    },
    /// Something that Lanyard answers with an error whatever is granted.
    Other {
        /// Its kind, a heading in TROUBLESHOOTING.md.
        fault: String,
    },
}

/// Whose token was the answer, by the token's own claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answerer {
    /// `appid`.
    pub client_id: Option<String>,
    /// `xms_mirid`: the identity's ARM id, or the virtual machine's for its own.
    pub resource_id: Option<String>,
    /// `tid`.
    pub tenant_id: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Who.
    pub who: Who,
    /// What.
    pub what: What,
    /// Whose token was the answer the last time there was one.
    pub answerer: Option<Answerer>,
    /// The kind of refusal it would have been.
    pub refusal: String,
    /// The status of the last answer.
    pub status: u16,
    /// How often.
    pub count: u64,
    /// Some of the pods.
    pub pods: Vec<String>,
    /// Labels of the first.
    pub labels: Labels,
}

/// All that one agent observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether the agent observes at all.
    pub observing: bool,
    /// The lines.
    pub lines: Vec<Line>,
    /// Requests for which there was no line left.
    pub untold: u64,
}

/// One request that was passed on.
#[derive(Debug)]
pub struct Passed<'a> {
    /// The pod; `None` where none was known.
    pub pod: Option<&'a PodFacts>,
    /// What it asked for.
    pub what: What,
    /// The refusal it would have been.
    pub refusal: &'static str,
    /// The status of the answer; 502 where there was none.
    pub status: u16,
    /// Whose token was the answer.
    pub answerer: Option<Answerer>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    lines: BTreeMap<(Who, What), Line>,
    of_account: BTreeMap<Who, usize>,
    untold: u64,
}

impl Table {
    /// Takes a request in.
    pub fn record(&mut self, passed: Passed<'_>) {
        let who = passed.pod.map_or_else(Who::default, |pod| Who {
            namespace: pod.name.namespace.to_string(),
            service_account: pod.service_account.to_string(),
        });
        let key = (who, passed.what.shortened());
        if !self.lines.contains_key(&key) {
            let of_account = self.of_account.entry(key.0.clone()).or_default();
            if self.lines.len() >= MAX_LINES || *of_account >= MAX_OF_ACCOUNT {
                self.untold += 1;
                return;
            }
            *of_account += 1;
            let labels = passed.pod.map(|pod| pod.labels.clone()).unwrap_or_default();
            let line = Line {
                who: key.0.clone(),
                what: key.1.clone(),
                answerer: None,
                refusal: String::new(),
                status: 0,
                count: 0,
                pods: Vec::new(),
                labels: labels.into_iter().take(MAX_LABELS).collect(),
            };
            self.lines.insert(key.clone(), line);
        }
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        line.count += 1;
        line.status = passed.status;
        passed.refusal.clone_into(&mut line.refusal);
        line.answerer = passed.answerer.or(line.answerer.take());
        if let Some(pod) = passed.pod
            && line.pods.len() < MAX_PODS
            && !line.pods.iter().any(|name| **name == *pod.name.name)
        {
            line.pods.push(pod.name.name.to_string());
        }
    }

    /// What there is.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            observing: true,
            lines: self.lines.values().cloned().collect(),
            untold: self.untold,
        }
    }
}

impl What {
    fn shortened(self) -> Self {
        let short = |mut text: String| {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text
        };
        match self {
            Self::Token { resource, selector } => Self::Token {
                resource: short(resource),
                selector: selector.map(short),
            },
            Self::Path { path } => Self::Path { path: short(path) },
            Self::Other { fault } => Self::Other { fault },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testkit::{pod, pod_at, world};

    fn token(resource: &str) -> What {
        What::Token {
            resource: resource.to_owned(),
            selector: None,
        }
    }

    fn passed<'a>(pod: Option<&'a PodFacts>, what: What, answerer: Option<&str>) -> Passed<'a> {
        Passed {
            pod,
            what,
            refusal: "identity_not_found",
            status: 200,
            answerer: answerer.map(|id| Answerer {
                client_id: Some(id.to_owned()),
                ..Answerer::default()
            }),
        }
    }

    #[test]
    fn repeats_are_counted_and_the_answerer_is_kept() {
        let world = world([pod("shop", "web", "10.0.0.1", None)]);
        let pod = pod_at(&world, "10.0.0.1");
        let mut table = Table::default();
        table.record(passed(Some(&pod), token("r"), Some("node")));
        table.record(passed(Some(&pod), token("r"), None));
        table.record(passed(None, token("r"), None));
        let report = table.report();
        assert_eq!(report.lines.len(), 2);
        let line = report
            .lines
            .iter()
            .find(|line| line.who.namespace == "shop")
            .unwrap();
        assert_eq!((line.count, &*line.pods), (2, &["web".to_owned()][..]));
        assert_eq!(
            line.answerer.as_ref().unwrap().client_id.as_deref(),
            Some("node")
        );
        assert_eq!(line.labels["app"], "web");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn a_program_that_invents_resources_fills_its_own_share_only() {
        let world = world([
            pod("shop", "flood", "10.0.0.1", None),
            pod("shop", "calm", "10.0.0.2", None),
        ]);
        let (flood, calm) = (pod_at(&world, "10.0.0.1"), pod_at(&world, "10.0.0.2"));
        let mut table = Table::default();
        for n in 0..10_000 {
            table.record(passed(Some(&flood), token(&n.to_string()), None));
        }
        table.record(passed(Some(&calm), token(&"x".repeat(9999)), None));
        assert_eq!(table.lines.len(), MAX_OF_ACCOUNT + 1);
        assert_eq!(table.untold, 10_000 - MAX_OF_ACCOUNT as u64);
        let longest = table.lines.keys().map(|(_, what)| match what {
            What::Token { resource, .. } => resource.len(),
            _ => 0,
        });
        assert_eq!(longest.max(), Some(MAX_TEXT));
    }
}
