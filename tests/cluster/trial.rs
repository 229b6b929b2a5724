//! Trials: one after the other on a cluster that runs, each with a limit.
//!
//! In: the table, a cluster's folder, the test runner's arguments. Out: an exit status. Blocks on
//! the trials. Invariant: after a failure what the cluster looked like at that moment is among the
//! logs, before the next trial changes it.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Trial};

use crate::cluster::Cluster;
use crate::plan::Places;
use crate::programs;

/// Longest life of a trial.
const LIMIT: Duration = Duration::from_mins(10);

/// A trial's future.
pub type Act = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A line of the table.
#[derive(Clone, Copy)]
pub struct Line {
    name: &'static str,
    act: fn(Arc<Cluster>) -> Act,
    by_name: bool,
}

impl Line {
    /// Its name: file and function.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Only where the filter is (the beginning of) its name: not among all others.
    pub fn by_name(self) -> Self {
        Self {
            by_name: true,
            ..self
        }
    }

    /// Whether it may be among the trials at all, whatever the test runner's arguments say further.
    pub fn is_offered(self, arguments: &Arguments) -> bool {
        let mut filter = arguments.filter.iter();
        !self.by_name || filter.any(|filter| self.name.starts_with(filter.as_str()))
    }

    /// Whether the test runner's arguments leave it in.
    pub fn is_asked_for(self, arguments: &Arguments) -> bool {
        let matches = |wanted: &String| {
            if arguments.exact {
                self.name == wanted
            } else {
                self.name.contains(wanted)
            }
        };
        arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
    }
}

/// A line of the table.
pub fn line(name: &'static str, act: fn(Arc<Cluster>) -> Act) -> Line {
    Line {
        name,
        act,
        by_name: false,
    }
}

/// Runs those that `rest` (a filter, flags of the test runner) leaves.
pub fn run(lines: &[Line], places: &Places, rest: &[&str]) -> ExitCode {
    let mut arguments = Arguments::from_iter(["cluster"].iter().chain(rest));
    arguments.test_threads = Some(1);
    let opened = Cluster::open(places, &programs::places())
        .map(Arc::new)
        .map_err(|error| format!("{error:#}"));
    let offered = lines.iter().filter(|line| line.is_offered(&arguments));
    let trials = offered.map(|&line| {
        let opened = opened.clone();
        Trial::test(line.name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let played = runtime.block_on(play(line, opened?));
            // At once: the runner's own list of failures comes after the last trial.
            played.map_err(|error| {
                eprintln!("{}: {error:#}", line.name);
                format!("{error:#}").into()
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

async fn play(line: Line, cluster: Arc<Cluster>) -> Result<()> {
    let act = tokio::time::timeout(LIMIT, (line.act)(cluster.clone()));
    let late = || format!("not done after {} min", LIMIT.as_secs() / 60);
    let played = act.await.with_context(late).and_then(|played| played);
    let Err(error) = played else { return Ok(()) };
    let picture = picture(line, &cluster).await;
    Err(error).with_context(|| match picture {
        Ok(name) => format!("what the cluster looked like: {name} among the logs"),
        Err(none) => format!("no picture of the cluster: {none:#}"),
    })
}

/// What a person would look at first, as a file among the logs.
async fn picture(line: Line, cluster: &Cluster) -> Result<String> {
    const LOOKS: [&str; 6] = [
        "get nodes -o wide",
        "get pods -A -o wide",
        "get events -A --sort-by=.lastTimestamp",
        "describe pods -n lanyard-system",
        "logs -n lanyard-system -l app.kubernetes.io/name=lanyard --all-containers --prefix --tail=300",
        "logs -n lanyard-system -l app.kubernetes.io/name=lanyard --all-containers --prefix --tail=100 --previous",
    ];
    let mut text = String::new();
    for look in LOOKS {
        let words: Vec<&str> = look.split(' ').chain(["--request-timeout=10s"]).collect();
        let seen = cluster.kubectl_with(&words, "").await?;
        text += &["$ kubectl ", look, "\n", &seen.stdout, &seen.stderr, "\n"].concat();
    }
    let name = line.name.replace("::", "-") + ".txt";
    std::fs::write(cluster.logs().join(&name), text)?;
    Ok(name)
}
