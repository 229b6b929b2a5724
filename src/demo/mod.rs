//! `lanyard demo` and `lanyard dev`: the whole main job on one machine, without a cluster.
//!
//! In: a lab that has been entered. Out: a story on standard output whose every claim was observed
//! in this run, or a person's own program run as if in a pod. Blocks on the programs it starts.
//! Invariant: it uses the same binary and flags as a cluster does; nothing is faked but Azure.

mod assigning;
pub mod cast;
pub mod curl;
pub mod dev;
mod scenes;
mod story;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::lab::{Agent, Lab, Pod, Process, VAULT_HOST, until};
use cast::Cast;
use curl::Asked;
use story::Story;

/// What `lanyard demo` was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Leave everything up at the end, until Ctrl-C.
    pub keep: bool,
    /// `auto`, `nft` or `legacy`.
    pub backend: String,
    /// Whether a person looks at a terminal.
    pub colour: bool,
    /// The `lanyard` binary.
    pub program: PathBuf,
}

/// Everything that the scenes share.
struct Play {
    story: Story,
    cast: Cast,
    backend: String,
    agent: Option<Agent>,
    controller: Option<Process>,
    /// The pod of the controller's chapter.
    orders: Option<Pod>,
    /// The journal's number when the agent first became ready: nothing of a pod's may come after.
    guarded_since: u64,
    seen: Seen,
}

/// What was observed about each pod, for the table at the end.
#[derive(Debug, Default)]
struct Seen {
    payments: Row,
    reports: Row,
    stranger: Row,
}

/// One pod's observations.
#[derive(Debug, Default)]
struct Row {
    token: Option<Asked>,
    vault: Option<Asked>,
    while_dead: Option<String>,
}

/// Tells the whole story. Needs [`crate::lab::enter`] before.
pub async fn run(config: Config) -> Result<()> {
    let start = Instant::now();
    let logs = Path::new(crate::lab::LAB_DIR).join("logs");
    std::fs::create_dir_all(&logs)?;
    let lab = Lab::new(&config.program, &logs).await?;
    let story = Story::new(config.colour);
    println!("Lanyard: every pod its own Azure managed identity. The whole way, on this machine:");
    println!("network namespaces for Azure, a node and its pods; nothing outside is touched.");
    let cast = Cast::raise(lab, &[]).await.context("the simulated Azure")?;
    let Config { keep, backend, .. } = config;
    let seen = Seen::default();
    let mut play = Play {
        story,
        cast,
        backend,
        agent: None,
        controller: None,
        orders: None,
        guarded_since: 0,
        seen,
    };
    play.tell().await.with_context(|| {
        let tail = play
            .agent
            .as_ref()
            .map(|agent| agent.process.tail())
            .unwrap_or_default();
        format!("the story broke off; the agent's last words:\n{tail}")
    })?;
    let failures = play.story.failures();
    if !failures.is_empty() {
        bail!(
            "{} of the demo's claims did not hold:\n  {}",
            failures.len(),
            failures.join("\n  ")
        );
    }
    println!(
        "\nEvery claim above was observed in this run, in {:.1} s.",
        start.elapsed().as_secs_f64()
    );
    if keep {
        play.keep().await?;
    } else {
        println!("`make demo KEEP=1` leaves it up and says how to enter a pod.");
    }
    Ok(())
}

impl Play {
    async fn tell(&mut self) -> Result<()> {
        self.without_lanyard().await?;
        self.the_agent_starts().await?;
        self.payments().await?;
        self.reports().await?;
        self.stranger().await?;
        self.the_agent_is_killed().await?;
        self.the_agent_comes_back().await?;
        self.the_controller_starts().await?;
        self.an_identity_is_assigned().await?;
        self.an_identity_is_taken_back().await?;
        self.who_got_what().await
    }

    fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("the agent was not started")
    }

    async fn keep(&mut self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let outer = crate::lab::outer_pid().unwrap_or_default();
        let user = if crate::lab::unprivileged() {
            " --user --preserve-credentials"
        } else {
            ""
        };
        println!("\nIt stays up until Ctrl-C. Enter a pod from another terminal:");
        for pod in self.cast.pods() {
            let inside = pod.namespace().path();
            println!(
                "  {:9} nsenter --target {outer}{user} --mount --net nsenter --net={} bash",
                pod.name(),
                inside.display()
            );
        }
        let node = self.cast.lab.node();
        println!(
            "  {:9} the same with --net={}; there: curl -s http://127.0.0.1:9464/ (metrics, readiness)",
            node.name(),
            node.namespace().path().display()
        );
        println!("What follows is for inside; outside, none of these files exists.");
        println!("A token: curl -H Metadata:true \\");
        println!(
            "  'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'"
        );
        println!(
            "The vault: curl --cacert {} -H \"Authorization: Bearer $TOKEN\" 'https://{VAULT_HOST}/secrets/db-password?api-version=7.4'",
            self.cast.simulator.ca.display()
        );
        println!(
            "Manifests to play with (the agent follows changes): {}",
            self.cast.manifests.dir().display()
        );
        println!("Logs: {}", self.cast.lab.logs().display());
        let (mut int, mut term) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! { _ = int.recv() => (), _ = term.recv() => () }
        Ok(())
    }

    /// Waits until a condition about two running tallies holds.
    async fn wait(what: &str, condition: impl AsyncFnMut() -> bool) -> Result<()> {
        Ok(until(Duration::from_secs(20), what, condition).await?)
    }
}
