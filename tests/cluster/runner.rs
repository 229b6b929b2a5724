//! The test program's command line: `programs`, `up`, `down`, or the trials on a cluster of their own.
//!
//! In: arguments, the table of trials. Out: an exit status. Blocks until the trials are done.
//! Invariant: the cluster of a test run ends with it, whatever ends it: the trials run in a child,
//! and their parent removes the cluster after the child's end or a signal; should the parent be
//! killed, the kernel ends the cluster, and the next run removes what is left on the disk.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Completion, Trial};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::Places;
use crate::trial::{self, Line};
use crate::up::{self, Wish};
use crate::{programs, supervise, traces};

const KEPT: &str = "kept";
const TEST: &str = "test";

/// Everything that this program can be.
pub fn main(lines: &[Line]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [supervise::FIRST_OF_CLUSTER, target] => supervise::run(Some(target), false),
        [supervise::FIRST_OF_NODE] => supervise::run(None, true),
        ["programs"] => wait(programs::ensure()).map(drop),
        ["up", rest @ ..] => wait(bring_up(rest)),
        ["down"] => wait(take_down()),
        ["--on", name, rest @ ..] => return trial::run(lines, &Places::of(name), rest),
        _ => return whole(lines, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `up` and `down` are commands of a person, who has one thread of time.
fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

async fn bring_up(rest: &[&str]) -> Result<()> {
    let taint = match rest {
        [] => false,
        ["--startup-taint"] => true,
        _ => bail!("`up` takes only --startup-taint; not {rest:?}"),
    };
    possible()?;
    let places = Places::of(KEPT);
    let _lock = traces::lock(&places)?;
    let running = traces::Traces::read(&places)?.is_some_and(|traces| traces.live());
    if running {
        eprintln!("cluster: it is up already (`make cluster-down` removes it)");
    } else {
        let wish = Wish {
            ends_with_us: false,
            taint,
        };
        let raise = up::up(&places, wish);
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            raised = raise => drop(raised?),
            _ = interrupt.recv() => {
                traces::remove(&places).await?;
                bail!("interrupted; everything is removed");
            }
        }
    }
    let kubeconfig = places.kubeconfig();
    let tools = programs::places();
    println!("export KUBECONFIG={}", kubeconfig.display());
    println!(
        "export PATH=$PATH:{}:{}",
        tools.kubernetes.display(),
        tools.helm.with_file_name("").display()
    );
    println!("# then, for example:");
    println!("#   kubectl get nodes,pods -A");
    println!("#   cargo test --test cluster -- --on {KEPT} smoke     (trials on this cluster)");
    println!("#   make cluster-down                               (removes every trace)");
    println!("# logs: {}", places.logs().display());
    Ok(())
}

async fn take_down() -> Result<()> {
    for name in [KEPT, TEST] {
        let places = Places::of(name);
        let lock = match traces::lock(&places) {
            Ok(lock) => lock,
            // It has a parent that removes its cluster.
            Err(error) if name == TEST => {
                eprintln!("cluster: a test run's own cluster is left to it: {error:#}");
                continue;
            }
            Err(error) => return Err(error),
        };
        traces::remove(&places).await?;
        traces::forget(&places)?;
        drop(lock);
    }
    eprintln!("cluster: nothing of it is left");
    Ok(())
}

/// Whether clusters can be made here; the reason if not.
fn possible() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the cluster needs root (network namespaces, cgroups, containerd): run it with sudo");
    }
    lanyard::lab::available().context("the cluster needs network namespaces")
}

/// A run of the trials: a cluster, a child with the trials, and the end of both.
fn whole(lines: &[Line], args: &[String]) -> ExitCode {
    let arguments = Arguments::from_args();
    let lines = lines.iter().filter(|line| line.is_offered(&arguments));
    let lines: Vec<Line> = lines.copied().collect();
    let hindrance = possible().err();
    // A filter may be meant for another test program only.
    let asked = lines.iter().any(|line| line.is_asked_for(&arguments));
    if arguments.list || hindrance.is_some() || !asked {
        let reason = hindrance.map(|error| format!("{error:#}"));
        let trials = lines.iter().map(|line| {
            let reason = reason.clone().unwrap_or_default();
            Trial::ignorable_test(line.name(), move || Ok(Completion::ignored_with(reason)))
        });
        return libtest_mimic::run(&arguments, trials.collect()).exit_code();
    }
    match wait(guarded(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn guarded(args: &[String]) -> Result<bool> {
    let places = Places::of(TEST);
    let _lock = traces::lock(&places)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let start = Instant::now();
    let run = async {
        up::up(
            &places,
            Wish {
                ends_with_us: true,
                taint: false,
            },
        )
        .await?;
        // Ended by the kernel together with us.
        let mut child = Command::new("setpriv");
        child
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe()?);
        let status = child
            .args(["--on", TEST])
            .args(args)
            .kill_on_drop(true)
            .status()
            .await?;
        Ok::<_, anyhow::Error>(status.success())
    };
    let outcome = tokio::select! {
        outcome = run => outcome,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if !matches!(outcome, Ok(true)) && places.logs().exists() {
        eprintln!(
            "cluster: logs are kept in {}",
            traces::keep_logs(&places).display()
        );
    }
    traces::remove(&places).await?;
    eprintln!("cluster: removed; {} s in all", start.elapsed().as_secs());
    outcome
}
