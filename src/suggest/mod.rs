//! What observed traffic would need: reports of agents come in, manifests to read and apply go out.
//!
//! Pure. What is printed grants nothing by itself: a person reads it, and an operator applies the
//! parts that are his. The node's own identity is never granted, only told.

mod group;
mod manifest;

use std::collections::BTreeMap;

pub use crate::agent::observe::table::{Line, Report};
use crate::agent::observe::table::{What, Who};
use manifest::Writer;

/// Names of pods kept for a line.
const MAX_PODS: usize = 3;

/// What the agents of a cluster said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Whose report is in it: names of nodes.
    pub asked: Vec<String>,
    /// Who could not be asked, and why.
    pub silent: Vec<(String, String)>,
    /// Nodes whose agent enforces: it observed nothing.
    pub enforcing: Vec<String>,
    lines: BTreeMap<(Who, What), Line>,
    /// Requests for which agents had no room.
    pub untold: u64,
}

impl Gathered {
    /// Takes a node's report in.
    pub fn take(&mut self, node: &str, report: Report) {
        if report.observing {
            self.asked.push(node.to_owned());
        } else {
            self.enforcing.push(node.to_owned());
        }
        self.untold += report.untold;
        for line in report.lines {
            let key = (line.who.clone(), line.what.clone());
            let Some(known) = self.lines.get_mut(&key) else {
                self.lines.insert(key, line);
                continue;
            };
            known.count += line.count;
            if line.answerer.is_some() {
                known.answerer = line.answerer;
                known.status = line.status;
            }
            for pod in line.pods {
                if known.pods.len() < MAX_PODS && !known.pods.contains(&pod) {
                    known.pods.push(pod);
                }
            }
        }
    }

    /// All lines, as one report.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            observing: !self.asked.is_empty(),
            lines: self.lines.values().cloned().collect(),
            untold: self.untold,
        }
    }
}

/// The manifests, as YAML with comments.
#[must_use]
pub fn yaml(gathered: &Gathered) -> String {
    let lines: Vec<&Line> = gathered.lines.values().collect();
    let mut writer = Writer::default();
    writer.head(gathered);
    let namespaces = group::by_namespace(&lines);
    for (namespace, asked) in &namespaces {
        writer.policy(namespace, asked);
        writer.identities(namespace, asked);
        writer.node_identity(namespace, asked);
        writer.exceptions(namespace, asked);
    }
    writer.rest(&lines);
    writer.text()
}

#[cfg(test)]
mod tests;
