//! What the controller costs at the size that it promises: `cargo bench --bench controller`.
//!
//! In: a real API server (`make programs`) with 1,000 nodes in 50 scale sets, 20,000 pods and 500 identities,
//! as objects only; simulated Azure with its throttling, where a change takes 30 s. Out: a table. Blocks for
//! some minutes. A figure that misses its target says MISSED, and the bench still ends with success.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::unwrap_in_result,
    clippy::format_push_string,
    clippy::unused_self,
    clippy::unchecked_time_subtraction,
    reason = "a bench says so by panicking; figures for a table"
)]

#[path = "../../tests/cluster/cached.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod cached;
mod calls;
mod cast;
mod events;
mod latency;
mod micro;
#[path = "../../tests/crds/objects.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod objects;
#[path = "../path/proc.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod proc;
mod report;
mod resync;
mod series;
#[path = "../../tests/apiserver/server.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod server;
mod stage;
mod start;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lanyard::lab::{self, Interrupt};

use crate::cast::Size;
use crate::report::{Table, median_and_most, p99};
use crate::stage::Stage;

/// Measures the controller.
#[derive(Debug, Parser)]
struct Options {
    /// Scale sets; everything else is by their number. Targets are for 50.
    #[arg(long, default_value_t = 50)]
    sets: usize,
    /// Only what is measured in this process: ledger and plan.
    #[arg(long)]
    micro: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let size = Size { sets: options.sets };
    let mut table = Table::default();
    if options.micro {
        in_process(size, &mut table);
        table.print();
        return ExitCode::SUCCESS;
    }
    if let Err(unavailable) = lab::enter(Interrupt::EndsLab) {
        eprintln!("no measurement: {unavailable}");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let mut stage = Stage::new(size);
    start::populate(&stage);
    let empty = start::without_pods(&mut stage);
    start::warm(&stage, &mut table);
    latency::measure(&stage, &mut table);
    events::one_by_one(&stage, &mut table);
    events::storm(&stage, &mut table);
    resync::measure(&mut stage, empty, &mut table);
    start::cold(&mut stage, &mut table);
    in_process(size, &mut table);
    table.remark(&format!(
        "{} scale sets, {} nodes, {} pods of {} bytes, {} identities; {:.0} s in all; the machine's load over the last minute: {}",
        size.sets,
        size.nodes(),
        size.pods(),
        start::bytes_of_a_pod(&stage),
        size.identities(),
        begun.elapsed().as_secs_f64(),
        proc::load_average()
    ));
    table.print();
    ExitCode::SUCCESS
}

fn in_process(size: Size, table: &mut Table) {
    let found = micro::measure(size);
    let (new, more) = (median_and_most(&found.new), median_and_most(&found.more));
    table.row(
        "ledger, desire and plan alone, in process: a pod that brings an identity to its scale set",
        &format!("p50 {:.3} ms, p99 {:.3}", new.0, p99(&found.new)),
        "≤ 5 ms",
        Some(p99(&found.new) <= 5.0),
    );
    table.remark(&format!(
        "ledger alone, in process: one pod more p50 {:.3} ms, p99 {:.3}; everything anew {:.0} ms",
        more.0,
        p99(&found.more),
        found.all
    ));
}
