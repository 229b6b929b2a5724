//! `lanyard controller` itself, on a real API server and against simulated ARM: pods and nodes are
//! objects only, nothing runs on them.
//!
//! In: the Kubernetes programs. Out: a trial for each promise of the controller; all share one API
//! server, each has an Azure of its own and leaves no object behind. Blocks for seconds a trial.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_in_result,
    reason = "a test says so by panicking"
)]

mod azure_fails;
mod bad_input;
#[path = "../cluster/cached.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod cached;
mod identities;
mod leases;
mod looks;
mod managed;
mod managed_faults;
mod nodes;
#[path = "../crds/objects.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod objects;
mod ownership;
mod path;
mod people;
mod rig;
#[path = "../apiserver/server.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod server;

use std::process::ExitCode;
use std::sync::Arc;

use lanyard::lab::{self, Interrupt};
use libtest_mimic::{Arguments, Trial};
use parking_lot::Mutex;
use rig::Rig;
use server::Server;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list
        && let Err(unavailable) = lab::enter(Interrupt::EndsLab)
    {
        eprintln!("{unavailable}");
        return ExitCode::FAILURE;
    }
    // One API server: one after the other.
    arguments.test_threads = Some(1);
    let server = Arc::new(Mutex::new(None));
    let trials = [
        path::TRIALS,
        azure_fails::TRIALS,
        ownership::TRIALS,
        identities::TRIALS,
        nodes::TRIALS,
        leases::TRIALS,
        managed::TRIALS,
        managed_faults::TRIALS,
        bad_input::TRIALS,
        people::TRIALS,
    ]
    .concat();
    let trials = trials.into_iter().map(|(name, look)| {
        let server = server.clone();
        Trial::test(name, move || {
            let mut server = server.lock();
            let server = server.get_or_insert_with(Server::start);
            look(&mut Rig::new(server));
            Ok(())
        })
        .with_ignored_flag(name.starts_with("slow_"))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The trials of a file: names and what is looked at.
type Trials = &'static [(&'static str, fn(&mut Rig<'_>))];
