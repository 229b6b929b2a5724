//! Pods that ask for a token all the time, from their container's start, and keep what they got.
//!
//! In: a pod of the clients' image. Out: its answers with their times, which are the machine's. Blocks
//! on kubectl. Invariant: the asker is the container's only process, so it starts and ends with it, and
//! asks again after a reboot without anybody's help.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::pods::Pod;

const TOKEN: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";

const SCRIPT: &str = include_str!("asking.py");
/// Answers in a row that count as "it works again".
const STEADY: usize = 10;

/// Seconds since 1970, as the pods write them.
pub fn now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it came.
    pub at: f64,
    /// The HTTP status; 0 where nothing answered.
    pub status: u16,
    /// Whose token it is, or what was wrong.
    pub word: String,
}

/// A pod that asks.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    cluster: &'a Cluster,
    pod: Pod<'a>,
    image: String,
    rate: u32,
}

/// The time without tokens after a fault.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// From the fault to the first token after the last failure; zero if nothing failed.
    pub took: Duration,
    /// The failures in between.
    pub failures: Vec<Answer>,
}

impl<'a> Asking<'a> {
    /// Applies `pod` with the clients' `image`, asking `rate` times a second; does not wait for it.
    pub async fn start(cluster: &'a Cluster, pod: Pod<'a>, image: &str, rate: u32) -> Result<Self> {
        let image = image.to_owned();
        let asking = Self {
            cluster,
            pod,
            image,
            rate,
        };
        cluster.apply(&asking.yaml()?).await?;
        Ok(asking)
    }

    fn yaml(&self) -> Result<String> {
        let command = serde_json::to_string(&["python3", "-Buc", SCRIPT, &self.rate.to_string()])?;
        let yaml = self.pod.clone().image(&self.image).yaml();
        let sleep = "command: [sleep, infinity]";
        ensure!(yaml.contains(sleep), "another pod than expected: {yaml}");
        Ok(yaml.replace(sleep, &format!("command: {command}")))
    }

    /// Its pod's name.
    pub fn name(&self) -> &'a str {
        self.pod.name
    }

    /// Its node, 1 or 2.
    pub fn node(&self) -> usize {
        self.pod.node
    }

    /// When its present container started to ask, and everything since.
    pub async fn told(&self) -> Result<(f64, Vec<Answer>)> {
        let logs = ["logs", "-n", self.pod.namespace, self.pod.name];
        let text = self.cluster.kubectl(&logs).await?;
        let (start, lines) = text.split_once('\n').context("it has not started yet")?;
        let start = start
            .strip_suffix(" start")
            .with_context(|| format!("the log begins with {start:?}"))?;
        // The last line may be half written.
        let answers = lines.lines().filter_map(answer).collect();
        Ok((start.parse()?, answers))
    }

    /// What came after `since`.
    pub async fn answers(&self, since: f64) -> Result<Vec<Answer>> {
        let (_, mut answers) = self.told().await?;
        answers.retain(|answer| answer.at > since);
        Ok(answers)
    }

    /// Waits for the first answer after `since` that is `wanted`.
    pub async fn first(
        &self,
        since: f64,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let mut first = None;
        let what = format!("{}: {what}", self.name());
        let came = async || {
            let answers = self.answers(since).await?;
            first = answers.iter().find(|answer| wanted(answer)).cloned();
            let last = answers.last();
            ensure!(first.is_some(), "the last answer is {last:?}");
            Ok(true)
        };
        self.cluster.wait_for(&what, limit, came).await?;
        first.context(what)
    }

    /// Waits until tokens of `client_id` come steadily again, from now on.
    pub async fn recovery(&self, fault: f64, client_id: &str, limit: Duration) -> Result<Recovery> {
        let (asked, mut recovery) = (now(), None);
        let granted = |answer: &Answer| answer.status == 200 && answer.word == client_id;
        let steady = async || {
            let answers = self.answers(fault).await?;
            let fresh = answers.iter().filter(|answer| answer.at > asked).count();
            let failed = answers.iter().rposition(|answer| !granted(answer));
            let after = failed.map_or(0, |last| last + 1);
            let since = answers.len() - after;
            let last = answers.last();
            ensure!(
                fresh >= STEADY && since >= STEADY,
                "{since} tokens in a row, last answer {last:?}"
            );
            let failures = answers[..after].iter().filter(|answer| !granted(answer));
            let failures: Vec<_> = failures.cloned().collect();
            let back = failed.map_or(fault, |_| answers[after].at);
            let took = Duration::from_secs_f64((back - fault).max(0.0));
            recovery = Some(Recovery { took, failures });
            Ok(true)
        };
        let what = format!("{}: tokens again", self.name());
        self.cluster.wait_for(&what, limit, steady).await?;
        recovery.context(what)
    }
}

/// `TIME STATUS WORD`.
fn answer(line: &str) -> Option<Answer> {
    let mut words = line.split(' ');
    Some(Answer {
        at: words.next()?.parse().ok()?,
        status: words.next()?.parse().ok()?,
        word: words.next()?.to_owned(),
    })
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let failures = self.failures.len();
        let last = self.failures.last();
        match last {
            None => write!(out, "no request failed"),
            Some(last) => write!(
                out,
                "{:.2} s to the next token, {failures} requests failed (the last: {} {})",
                self.took.as_secs_f64(),
                last.status,
                last.word
            ),
        }
    }
}

/// One request for a Key Vault token with curl: its status and body. `parameters` go behind the query.
pub async fn once(
    cluster: &Cluster,
    (namespace, pod): (&str, &str),
    parameters: &str,
) -> Result<(String, String)> {
    let url = format!("{TOKEN}{parameters}");
    let curl = [
        "curl",
        "-sS",
        "-m",
        "20",
        "-H",
        "Metadata: true",
        "-w",
        "\n%{http_code}",
        &url,
    ];
    let said = cluster
        .pod_exec(namespace, pod, &curl)
        .await?
        .success(&format!("{pod}: {parameters}"))?;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    Ok((status.to_owned(), body.to_owned()))
}
