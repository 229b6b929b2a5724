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

mod evidence;
mod interception;
mod standin;
mod takeover;
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
        scenario(
            "interception::pods_reach_the_agent_with_their_own_address",
            Backends::Both,
            |stage| {
                Box::pin(interception::pods_reach_the_agent_with_their_own_address(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::the_wire_server_is_closed_and_its_dns_is_not",
            Backends::Both,
            |stage| {
                Box::pin(interception::the_wire_server_is_closed_and_its_dns_is_not(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::what_decides_before_our_jump_is_overtaken",
            Backends::Both,
            |stage| {
                Box::pin(interception::what_decides_before_our_jump_is_overtaken(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::flushed_rules_and_a_lost_address_come_back",
            Backends::Both,
            |stage| {
                Box::pin(interception::flushed_rules_and_a_lost_address_come_back(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::without_the_jump_the_door_is_closed",
            Backends::Both,
            |stage| Box::pin(interception::without_the_jump_the_door_is_closed(stage)),
        ),
        scenario(
            "interception::connections_from_before_are_cut",
            Backends::Both,
            |stage| Box::pin(interception::connections_from_before_are_cut(stage)),
        ),
        scenario(
            "interception::uninstall_leaves_others_rules_as_they_were",
            Backends::Both,
            |stage| {
                Box::pin(interception::uninstall_leaves_others_rules_as_they_were(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::uninstall_is_obeyed_by_a_running_agent",
            Backends::Both,
            |stage| Box::pin(interception::uninstall_is_obeyed_by_a_running_agent(stage)),
        ),
        scenario(
            "interception::a_failing_iptables_is_not_ready_and_heals",
            Backends::Both,
            |stage| {
                Box::pin(interception::a_failing_iptables_is_not_ready_and_heals(
                    stage,
                ))
            },
        ),
        scenario(
            "interception::a_held_lock_is_waited_for",
            Backends::Both,
            |stage| Box::pin(interception::a_held_lock_is_waited_for(stage)),
        ),
        scenario(
            "interception::who_fights_over_the_rules_finds_the_door_closed",
            Backends::Both,
            |stage| Box::pin(interception::who_fights_over_the_rules_finds_the_door_closed(stage)),
        ),
        scenario(
            "takeover::a_second_instance_takes_over_without_a_failed_request",
            Backends::Both,
            |stage| {
                Box::pin(takeover::a_second_instance_takes_over_without_a_failed_request(stage))
            },
        ),
        scenario(
            "takeover::the_swap_loses_no_request",
            Backends::Both,
            |stage| Box::pin(takeover::the_swap_loses_no_request(stage)),
        ),
        scenario(
            "takeover::the_older_instance_takes_back_what_a_dead_one_left",
            Backends::Both,
            |stage| Box::pin(takeover::the_older_instance_takes_back_what_a_dead_one_left(stage)),
        ),
        scenario(
            "takeover::damaged_state_files_hurt_nobody",
            Backends::Both,
            |stage| Box::pin(takeover::damaged_state_files_hurt_nobody(stage)),
        ),
        scenario(
            "evidence::another_veth_under_the_same_address_is_seen",
            Backends::Any,
            |stage| Box::pin(evidence::another_veth_under_the_same_address_is_seen(stage)),
        ),
        scenario(
            "evidence::another_neighbour_on_the_bridge_is_seen",
            Backends::Any,
            |stage| Box::pin(evidence::another_neighbour_on_the_bridge_is_seen(stage)),
        ),
        scenario(
            "evidence::a_flood_of_notifications_loses_nothing",
            Backends::Any,
            |stage| Box::pin(evidence::a_flood_of_notifications_loses_nothing(stage)),
        ),
    ]
}

fn main() -> ExitCode {
    harness::main(&scenarios())
}
