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
mod charged;
mod figures;
mod hosts;
mod inside;
mod load;
mod once;
mod proc;
mod report;
mod rounds;
mod stage;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use lanyard::lab::{self, Interrupt, Lab};

use crate::rounds::KINDS;
use crate::stage::Side;

/// Measures the redirected path.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "flags")]
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
    /// Measure listeners inside pods instead of redirection.
    #[arg(long)]
    inside: bool,
    /// With `--inside`: only the load, also with the rule alone and with the serving harness alone.
    #[arg(long, requires = "inside")]
    apart: bool,
    /// Only what it costs to tell host-network pods apart.
    #[arg(long)]
    hosts: bool,
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
    if options.hosts {
        let mut table = report::Table::default();
        figures::host_network(&lab, &mut table).await?;
        println!("{table}");
        return Ok(());
    }
    let table = if options.inside {
        inside::measure(&mut lab, options).await?
    } else {
        figures::measure(&mut lab, options).await?
    };
    println!("{table}");
    Ok(())
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
        let process = stage::serve_fixed(lab, &node, &answer, name == "harness").await?;
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
