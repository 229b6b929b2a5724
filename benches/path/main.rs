//! What the redirected path costs, measured side by side with a bare hyper server that returns the
//! same bytes by the same path: `make bench`.
//!
//! A lab of network namespaces holds a simulator, a node with the agent and a node with the bare
//! server, both with the agent's rules. Rounds are interleaved; a figure that misses its target says
//! MISSED, and the bench still ends with success: absolute times are the machine's.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for a table"
)]

mod bare;
mod cast;
mod load;
mod once;
mod proc;
mod report;
mod rounds;
mod stage;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use lanyard::lab::{self, AgentSetup, Interrupt, Lab};

use crate::rounds::KINDS;
use crate::stage::Side;

/// Measures the redirected path.
#[derive(Debug, Parser)]
struct Options {
    /// The parts of the rig that run as processes of their own.
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds for each kind of load and side.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one round in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Starts of the agent that are timed.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Measure the serving harness with fixed bytes instead of the agent.
    #[arg(long)]
    harness: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// A server of fixed bytes.
    #[command(hide = true)]
    Bare(bare::Bare),
    /// The load generator.
    #[command(hide = true)]
    Load(load::Plan),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.part {
        Some(Part::Bare(bare)) => bare::main(bare),
        Some(Part::Load(plan)) => load::main(plan.clone()),
        None => {
            if let Err(unavailable) = lab::enter(Interrupt::EndsLab) {
                eprintln!("no measurement: {unavailable}");
                return ExitCode::FAILURE;
            }
            run(&options)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(options: &Options) -> anyhow::Result<()> {
    let logs = std::env::temp_dir().join("lanyard-bench");
    std::fs::create_dir_all(&logs)?;
    let mut lab = Lab::new(Path::new(env!("CARGO_BIN_EXE_lanyard")), &logs).await?;
    if options.harness {
        return harness(&mut lab, options).await;
    }
    let table = agent(&mut lab, options).await?;
    println!("{table}");
    Ok(())
}

/// The agent against the bare server, and what is timed once.
#[allow(clippy::too_many_lines, reason = "one measurement after the other")]
async fn agent(lab: &mut Lab, options: &Options) -> anyhow::Result<report::Table> {
    let mut table = report::Table::default();
    let (ours, theirs) = (lab.node().clone(), lab.add_node().await?);
    let simulator = stage::simulator(lab).await?;
    let manifests = stage::manifests(lab, "manifests")?;
    let (pod, their_pod) = (
        stage::pod_with_addresses(&ours).await?,
        stage::pod_with_addresses(&theirs).await?,
    );

    eprintln!("starting the agent {} times", options.starts);
    let setup = AgentSetup::new(&ours, &manifests);
    let (starts, agent) = once::starts(lab, &setup, &pod, options.starts).await?;
    let memory = |when: &str| {
        let of =
            |key| proc::memory_kib(agent.process.pid(), key).unwrap_or_default() as f64 / 1024.0;
        let (anon, file) = (of("RssAnon"), of("RssFile"));
        format!(
            "{when}: {:.1} MiB, of that {anon:.1} its own, {file:.1} program text and libraries",
            anon + file
        )
    };
    table.note(&memory("memory after the start"));
    eprintln!("one token for each of {} pods, then a crowd", cast::PODS);
    once::fill(&pod).await?;
    table.note(&memory("memory with 250 tokens"));
    let upstream = once::cold_crowd(&simulator, &pod).await?;
    table.note(&memory("memory after 200 requests at once"));
    let late = once::late_pods(&manifests, &pod).await?;
    let stranger = once::stranger(&pod, 300).await?;

    let target = cast::target("vault.azure.net", None);
    let answer = once::ask_from(&pod, cast::address(1), &target).await?;
    let bare = stage::fixed(lab, &theirs, &answer.wire, false).await?;
    stage::same_rules(&ours, &theirs).await?;
    let from = cast::address(1);
    let sides = [
        Side {
            name: "bare hyper",
            pod: their_pod,
            pid: bare.pid(),
            from,
        },
        Side {
            name: "lanyard agent",
            pod: pod.clone(),
            pid: agent.process.pid(),
            from,
        },
    ];
    let sides: Vec<&Side> = sides.iter().collect();
    for kind in KINDS {
        let rounds = rounds::run(kind, &sides, options.rounds, options.seconds).await?;
        table.loads(&rounds, &sides);
    }
    table.once(
        "200 pods asking for one identity at the same moment, cold: upstream calls",
        upstream as f64,
        "",
        1.0,
    );
    let rss = proc::memory_kib(agent.process.pid(), "VmRSS")? as f64 / 1024.0;
    table.note(&memory("memory after load"));
    let peak = proc::memory_kib(agent.process.pid(), "VmHWM")? as f64 / 1024.0;
    table.once(
        "resident memory with 250 pods and 250 identities cached, after load",
        rss,
        "MiB",
        16.0,
    );
    table.note(&format!(
        "peak of the agent's resident memory: {peak:.1} MiB"
    ));
    table.times(
        "agent start → first token, rules included, upstream answering at once",
        starts,
        300.0,
    );
    table.times(
        "pod's manifest appears → its waiting request answered",
        late,
        20.0,
    );
    table.times("unbound pod's request, new connection", stranger, 5.0);
    table.note(&format!(
        "{} rounds of {} s for each side, interleaved; the machine's load over the last minute: {}",
        options.rounds,
        options.seconds,
        proc::load_average()
    ));
    Ok(table)
}

/// The harness alone against the bare server.
async fn harness(lab: &mut Lab, options: &Options) -> anyhow::Result<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\nserver: IMDS/150.870.65.1475\r\n\r\n{}",
        "x".repeat(1800)
    );
    let (ours, theirs) = (lab.node().clone(), lab.add_node().await?);
    let mut sides = Vec::new();
    let mut processes = Vec::new();
    for (node, name) in [(theirs, "bare hyper"), (ours, "harness")] {
        let pod = stage::pod_with_addresses(&node).await?;
        stage::plain_rule(&node).await?;
        let process = stage::fixed(lab, &node, &answer, name == "harness").await?;
        sides.push(Side {
            name,
            pod,
            pid: process.pid(),
            from: cast::address(1),
        });
        processes.push(process);
    }
    for kind in KINDS {
        let sides: Vec<&Side> = sides.iter().collect();
        let rounds = rounds::run(kind, &sides, options.rounds, options.seconds).await?;
        println!("{}", report::lines(&rounds, &sides));
    }
    Ok(())
}
