//! `lanyard demo` and `lanyard dev`, run as a person runs them (in labs of their own, inside ours).
//!
//! In: the binary. Out: its exit status, what it printed, and that it left no process behind.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::lab::{Lab, Process, until};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::harness::{CannotRun, Stage};

const WAIT: Duration = Duration::from_secs(90);

async fn run(mut command: Command) -> Result<(Option<i32>, String, String)> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(WAIT, command.output())
        .await
        .context("it hangs")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    println!("{out}\n{err}");
    Ok((output.status.code(), out, err))
}

fn lanyard(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new(lab.program());
    command.args(args);
    command
}

/// Processes that run our binary, in this lab and below.
fn others(lab: &Lab) -> Result<usize> {
    let program = std::fs::canonicalize(lab.program())?;
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok())
        .filter(|exe| *exe == program)
        .count())
}

fn told_well(out: &str) -> Result<()> {
    for claim in [
        "stranger holds a token of payments: that is the problem",
        "the token is for the identity `payments`",
        "gave the secret",
        "the vault knows reports and refuses it",
        "refused, in the words SDKs understand",
        "nothing leaks",
        "the rules stand without the agent",
        "payments and reports are there already: Assigned, and not one PATCH was sent",
        "the token is for the identity `orders`",
        "one PATCH, which adds orders and touches nothing else",
        "IMDS was asked for orders only once it was assigned",
        "one PATCH, which removes orders and nothing else",
        "payments and reports, which Lanyard did not add, stay on the VM",
        "Every claim above was observed in this run",
    ] {
        ensure!(out.contains(claim), "the demo does not tell: {claim}");
    }
    ensure!(!out.contains("NOT SO"), "a claim did not hold");
    ensure!(!out.contains('\x1b'), "colours, although nobody looks");
    Ok(())
}

pub async fn the_demo_tells_its_story(stage: Stage) -> Result<()> {
    let command = lanyard(&stage.lab, &["demo", "--backend", &stage.backend]);
    let (status, out, _) = run(command).await?;
    ensure!(status == Some(0), "exit status {status:?}");
    told_well(&out)?;
    ensure!(others(&stage.lab)? == 0, "the demo left processes behind");
    Ok(())
}

pub async fn the_demo_works_as_an_ordinary_user(stage: Stage) -> Result<()> {
    if lanyard::lab::unprivileged() {
        // Then the scenario above has just proved it, and there is no other user to become.
        return Err(CannotRun("not run as root: every other scenario is this one".into()).into());
    }
    // The build folder may lie where only its owner can look; /run will be another one in there.
    let shelf = ["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"];
    ensure!(Command::new("mount").args(shelf).status().await?.success());
    let copy = std::path::Path::new("/mnt/lanyard");
    std::fs::copy(stage.lab.program(), copy)?;
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let mut probe = Command::new("setpriv");
    probe
        .args(nobody)
        .args(["unshare", "--user", "--map-root-user", "--net", "true"]);
    if !probe.status().await?.success() {
        return Err(CannotRun("this kernel gives ordinary users no user namespaces".into()).into());
    }
    let mut command = Command::new("setpriv");
    command
        .args(nobody)
        .arg(copy)
        .args(["demo", "--backend", &stage.backend]);
    let (status, out, _) = run(command).await?;
    ensure!(status == Some(0), "exit status {status:?}");
    told_well(&out)
}

pub async fn a_kept_demo_can_be_entered_and_ends_with_its_process(stage: Stage) -> Result<()> {
    let lab = &stage.lab;
    let command = lanyard(lab, &["demo", "--keep", "--backend", &stage.backend]);
    let mut demo = Process::start("demo", command, &lab.logs().join("demo.log"))?;
    until(WAIT, "the kept demo", async || {
        demo.still_running().is_err() || demo.log().contains("Logs: ")
    })
    .await?;
    demo.still_running()?;
    let log = demo.log();
    let enter = log.lines().find_map(|line| {
        line.trim()
            .strip_prefix("payments  ")?
            .strip_suffix(" bash")
    });
    let enter = enter.context("it does not say how to enter pod payments")?;
    let url =
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x";
    let mut inside = Command::new("sh");
    inside.args(["-c", &format!("{enter} curl -sS -H Metadata:true '{url}'")]);
    let (status, out, _) = run(inside).await?;
    ensure!(status == Some(0) && out.contains("access_token"), "{out}");
    demo.term();
    demo.wait_exit(WAIT).await?;
    let gone = until(WAIT, "all its processes to end", async || {
        matches!(others(lab), Ok(0))
    });
    Ok(gone.await?)
}

pub async fn dev_runs_a_program_with_an_identity(stage: Stage) -> Result<()> {
    let url =
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x";
    let script =
        format!("read line; curl -sS -H Metadata:true '{url}'; echo; echo \"$line\"; exit 7");
    let mut command = lanyard(
        &stage.lab,
        &["dev", "--identity", "reports", "--", "sh", "-c", &script],
    );
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"from outside\n").await?;
    drop(stdin);
    let output = tokio::time::timeout(WAIT, child.wait_with_output()).await??;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{out}\n{err}");
    ensure!(output.status.code() == Some(7), "{}", output.status);
    let reports = "22222222-2222-4222-8222-222222222222";
    ensure!(
        out.contains("access_token") && out.contains(reports),
        "the token of reports"
    );
    ensure!(out.ends_with("from outside\n"), "its own input");
    ensure!(
        err.lines().count() == 1 && err.contains("reports"),
        "one line on what was set up"
    );

    let quiet = lanyard(&stage.lab, &["dev", "-q", "--", "true"]);
    ensure!(run(quiet).await? == (Some(0), String::new(), String::new()));
    let unknown = lanyard(&stage.lab, &["dev", "--identity", "nobody", "--", "true"]);
    let (status, _, err) = run(unknown).await?;
    ensure!(status == Some(1) && err.contains("`nobody`") && err.contains("payments"));
    Ok(())
}

pub async fn the_demo_fails_where_a_claim_does_not_hold(stage: Stage) -> Result<()> {
    // A curl that answers everything with an empty object: no token, no secret, no refusal.
    let shims = stage.lab.dir("shims")?;
    let curl = shims.join("curl");
    std::fs::write(&curl, "#!/bin/sh\nprintf '{}\\n200 0.001'\n")?;
    ensure!(
        Command::new("chmod")
            .arg("+x")
            .arg(&curl)
            .status()
            .await?
            .success()
    );
    // The demo's own /run will hide ours.
    let shelf = std::path::Path::new("/mnt");
    let bound = Command::new("mount")
        .arg("--bind")
        .arg(&shims)
        .arg(shelf)
        .status();
    ensure!(bound.await?.success());
    let mut command = lanyard(&stage.lab, &["demo"]);
    command.env(
        "PATH",
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", shelf.display()),
    );
    let (status, out, err) = run(command).await?;
    ensure!(status == Some(1), "exit status {status:?}");
    ensure!(out.contains("✗ NOT SO: the token is for the identity `payments`"));
    ensure!(
        err.contains("did not hold") && err.contains("step 3: the token is for"),
        "{err}"
    );
    ensure!(!out.contains("Every claim above was observed"));
    Ok(())
}

/// Starts a program of ours in a process group of its own, as a terminal does.
fn in_foreground(lab: &Lab, name: &str, args: &[&str]) -> Result<Process> {
    let mut command = lanyard(lab, args);
    command.process_group(0);
    Ok(Process::start(
        name,
        command,
        &lab.logs().join(format!("{name}.log")),
    )?)
}

/// What Ctrl-C does: SIGINT to the whole group.
fn ctrl_c(process: &Process) -> Result<()> {
    let group = nix::unistd::Pid::from_raw(i32::try_from(process.pid())?);
    Ok(nix::sys::signal::killpg(
        group,
        nix::sys::signal::Signal::SIGINT,
    )?)
}

pub async fn ctrl_c_ends_a_demo_and_is_devs_programs_own(stage: Stage) -> Result<()> {
    let lab = &stage.lab;
    // Whoever runs the tests in the background of a shell gave them an ignored SIGINT, which no shell can trap.
    // What is handled here is at its default in the programs that are started.
    let _handled = signal(SignalKind::interrupt())?;
    let mut demo = in_foreground(lab, "demo", &["demo", "--keep"])?;
    until(WAIT, "the kept demo", async || {
        demo.still_running().is_err() || demo.log().contains("Logs: ")
    })
    .await?;
    ctrl_c(&demo)?;
    demo.wait_exit(WAIT).await?;
    until(WAIT, "the demo's processes to end", async || {
        matches!(others(lab), Ok(0))
    })
    .await?;

    let script = "trap 'echo caught; exit 5' INT; echo waiting; while :; do sleep 0.05; done";
    let mut dev = in_foreground(lab, "dev", &["dev", "-q", "--", "sh", "-c", script])?;
    until(WAIT, "the program in dev", async || {
        dev.still_running().is_err() || dev.log().contains("waiting")
    })
    .await?;
    ctrl_c(&dev)?;
    let status = dev.wait_exit(WAIT).await?;
    ensure!(status.code() == Some(5), "{status}: {}", dev.tail());
    ensure!(dev.log().contains("caught"), "{}", dev.log());
    until(WAIT, "dev's processes to end", async || {
        matches!(others(lab), Ok(0))
    })
    .await?;
    Ok(())
}

pub async fn a_killed_lab_leaves_nothing(stage: Stage) -> Result<()> {
    let lab = &stage.lab;
    let mut dev = in_foreground(
        lab,
        "dev",
        &["dev", "-q", "--", "sh", "-c", "echo up; sleep 600"],
    )?;
    until(WAIT, "the program in dev", async || {
        dev.still_running().is_err() || dev.log().contains("up")
    })
    .await?;
    ensure!(
        others(lab)? >= 3,
        "the program, the simulator and the agent run"
    );
    dev.kill9().await?;
    Ok(until(WAIT, "everything in it to end", async || {
        matches!(others(lab), Ok(0))
    })
    .await?)
}
