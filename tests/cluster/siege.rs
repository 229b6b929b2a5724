//! Pods that never stop asking while something is done to their nodes.
//!
//! In: a cluster with Lanyard. Out: how long the granted pods were without tokens; an error if a
//! stranger got one, or if any pod's request reached the cloud past an agent. Blocks on the pods.
//! Invariant: a siege in which the strangers did not ask is an error, too.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::asking::{Answer, Asking, Recovery, now};
use crate::cast::{self, AUDIT, GRANTED, PAYMENTS};
use crate::clients;
use crate::cluster::Cluster;
use crate::pods::Pod;

const GRANTED_RATE: u32 = 20;
const STRANGERS_RATE: u32 = 30;
const LIMIT: Duration = Duration::from_mins(3);

/// A granted pod and a stranger on each node, all of them asking.
#[derive(Debug)]
pub struct Siege<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    mark: u64,
    granted: Vec<Asking<'a>>,
    strangers: Vec<Asking<'a>>,
}

impl<'a> Siege<'a> {
    /// Lanyard must be there. Begins when granted pods get tokens and strangers are refused.
    pub async fn begin(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        let image = clients::image(cluster).await?;
        cast::raise(cluster, namespace).await?;
        let mark = cluster.mark().await?;
        let (mut granted, mut strangers) = (Vec::new(), Vec::new());
        for (node, program, stranger) in [
            (1, "program-1", "stranger-1"),
            (2, "program-2", "stranger-2"),
        ] {
            let program = Pod::new(namespace, program, node).identity(PAYMENTS.name);
            let program = program.labels(GRANTED);
            granted.push(Asking::start(cluster, program, &image, GRANTED_RATE).await?);
            let stranger = Pod::new(namespace, stranger, node).identity(AUDIT.name);
            strangers.push(Asking::start(cluster, stranger, &image, STRANGERS_RATE).await?);
        }
        let siege = Self {
            cluster,
            namespace,
            mark,
            granted,
            strangers,
        };
        for program in &siege.granted {
            program.recovery(now(), PAYMENTS.client_id, LIMIT).await?;
        }
        for stranger in &siege.strangers {
            let refused = |answer: &Answer| answer.status == 400;
            stranger.first(0.0, "a refusal", LIMIT, refused).await?;
        }
        Ok(siege)
    }

    /// Waits until tokens come again, on both nodes; says how long that took since `fault`.
    pub async fn recoveries(&self, what: &str, fault: f64) -> Result<Vec<Recovery>> {
        let mut recoveries = Vec::new();
        for program in &self.granted {
            let recovery = program.recovery(fault, PAYMENTS.client_id, LIMIT).await?;
            println!("{what}: {}: {recovery}", program.name());
            recoveries.push(recovery);
        }
        Ok(recoveries)
    }

    /// Waits until granted pods, whose containers ended with their nodes, have started after `fault`
    /// and got a token; says when.
    pub async fn restarts(&self, what: &str, fault: f64) -> Result<()> {
        for program in &self.granted {
            let token = |answer: &Answer| answer.status == 200;
            // Until then it is the log of the container of before.
            let anew = async || Ok(program.told().await?.0 > fault);
            let another = format!("{}: another container", program.name());
            self.cluster.wait_for(&another, LIMIT, anew).await?;
            let first = program.first(fault, "a token", LIMIT, token).await?;
            let (start, answers) = program.told().await?;
            let wrong = answers
                .iter()
                .find(|answer| token(answer) && answer.word != PAYMENTS.client_id);
            ensure!(wrong.is_none(), "{what}: {} got {wrong:?}", program.name());
            println!(
                "{what}: {}: its container runs after {:.2} s, first token after {:.2} s",
                program.name(),
                start - fault,
                first.at - fault
            );
        }
        Ok(())
    }

    /// Waits until both strangers have got `count` refusals after `since` that `wanted` describes.
    pub async fn strangers_see(
        &self,
        what: &str,
        since: f64,
        count: usize,
        wanted: impl Fn(u16) -> bool,
    ) -> Result<()> {
        for stranger in &self.strangers {
            let seen = async || {
                let answers = stranger.answers(since).await?;
                let seen = answers.iter().filter(|answer| wanted(answer.status));
                Ok(seen.count() >= count)
            };
            let what = format!("{}: {what}", stranger.name());
            self.cluster.wait_for(&what, LIMIT, seen).await?;
        }
        Ok(())
    }

    /// Nothing went past the agents until now, and no stranger got anything; since `since` they asked.
    pub async fn held(&self, what: &str, since: f64) -> Result<()> {
        let mut asked = Vec::new();
        self.strangers_see("asking", since, 20, |_| true).await?;
        for stranger in &self.strangers {
            let answers = stranger.answers(since).await?;
            let token = answers.iter().find(|answer| answer.status == 200);
            ensure!(token.is_none(), "{what}: {} got {token:?}", stranger.name());
            asked.push(answers.len());
        }
        let leaks = self.cluster.leaks(self.mark).await?;
        let first = leaks.first();
        ensure!(
            leaks.is_empty(),
            "{what}: {} requests of pods reached the cloud within {:.2} s, the first: {first:#?}",
            leaks.len(),
            leaks.last().zip(first).map_or(0.0, |(last, first)| last
                .time
                .duration_since(first.time)
                .as_secs_f64())
        );
        let journal = self.cluster.journal(self.mark).await?;
        let strange = journal
            .iter()
            .find(|entry| entry.identity.as_deref() == Some(AUDIT.name));
        ensure!(
            strange.is_none(),
            "{what}: a stranger's request went on: {strange:?}"
        );
        println!("{what}: strangers asked {asked:?} times, nothing came of it");
        Ok(())
    }

    /// Removes the pods.
    pub async fn end(self) -> Result<()> {
        cast::leave(self.cluster, self.namespace).await
    }
}
