//! Network tests: every scenario runs in a lab (network namespaces) of its own, for both iptables
//! backends.
//!
//! In: the table below. Out: one trial for each scenario and backend; each is a child process whose
//! pid is the lab's outermost one, so a time-out or a panic ends everything. Where namespaces
//! cannot be made every trial is reported as ignored with the reason, never as passed.
//!
//! A new topic is a file beside this one and its lines in `SCENARIOS`.
#![forbid(unsafe_code)]

mod harness;

mod wiring;

use std::process::ExitCode;

use harness::{Backends, Scenario, scenario};

/// Everything that is run: name, backends, function.
fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "wiring::a_ptp_pod_reaches_the_cloud_as_itself",
            Backends::Any,
            |stage| Box::pin(wiring::a_ptp_pod_reaches_the_cloud_as_itself(stage)),
        ),
        scenario(
            "wiring::a_bridged_pod_reaches_the_cloud_as_itself",
            Backends::Any,
            |stage| Box::pin(wiring::a_bridged_pod_reaches_the_cloud_as_itself(stage)),
        ),
        scenario("wiring::an_address_can_be_reused", Backends::Any, |stage| {
            Box::pin(wiring::an_address_can_be_reused(stage))
        }),
        scenario("wiring::nothing_leaves_the_lab", Backends::Any, |stage| {
            Box::pin(wiring::nothing_leaves_the_lab(stage))
        }),
        scenario("wiring::nodes_are_apart", Backends::Any, |stage| {
            Box::pin(wiring::nodes_are_apart(stage))
        }),
    ]
}

fn main() -> ExitCode {
    harness::main(&scenarios())
}
