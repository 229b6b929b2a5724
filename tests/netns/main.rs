//! Network tests: every scenario runs in a lab (network namespaces) of its own, for both iptables
//! backends.
//!
//! In: the table below. Out: one trial for each scenario and backend; each is a child process whose
//! pid is the lab's outermost one, so a time-out or a panic ends everything. Where namespaces
//! cannot be made every trial is reported as ignored with the reason, never as passed.
//!
//! A new topic is a file beside this one and its lines in the table.
#![forbid(unsafe_code)]

mod apiserver;
mod app_service;
mod bootguard;
#[path = "../cluster/cached.rs"]
#[allow(dead_code, reason = "of it, only what is needed here")]
mod cached;
#[path = "../chart/capabilities.rs"]
mod capabilities;
mod cgroups;
mod clients;
mod events;
mod evidence;
mod gate;
mod guard;
mod harness;
mod hostnet;
mod inside;
mod inside_held;
mod inside_ownership;
mod inside_trouble;
mod interception;
mod kubernetes;
mod leak;
mod observe;
mod programs;
mod readiness;
mod reuse;
mod selftest;
mod shell;
mod sources;
mod spoof;
mod standin;
mod takeover;
mod upgrade;
mod wiring;

use std::process::ExitCode;

use harness::{Backends, Scenario, scenario};

/// A line of the table: which backends, which function.
macro_rules! play {
    ($backends:ident, $module:ident :: $name:ident) => {
        scenario(
            concat!(stringify!($module), "::", stringify!($name)),
            Backends::$backends,
            |stage| Box::pin($module::$name(stage)),
        )
    };
}

/// Everything that is run.
#[allow(clippy::too_many_lines, reason = "a table")]
fn scenarios() -> Vec<Scenario> {
    vec![
        play!(Any, wiring::a_ptp_pod_reaches_the_cloud_as_itself),
        play!(Any, wiring::a_bridged_pod_reaches_the_cloud_as_itself),
        play!(Any, wiring::an_address_can_be_reused),
        play!(Any, wiring::nothing_leaves_the_lab),
        play!(Any, wiring::nodes_are_apart),
        play!(Both, leak::sigkill_lets_nothing_through),
        play!(Both, leak::sigterm_lets_nothing_through),
        play!(Both, leak::restart_after_restart_lets_nothing_through),
        play!(Both, leak::the_wire_servers_dns_stays_open),
        play!(Both, readiness::ready_means_that_the_rules_stand),
        play!(
            Both,
            shell::probe_tells_intercepted_from_leaking_from_closed
        ),
        play!(Both, selftest::passes_where_pods_are_intercepted),
        play!(
            Both,
            selftest::fails_where_the_way_in_is_gone_and_nothing_leaks
        ),
        play!(Both, selftest::readiness_waits_for_it),
        play!(
            Both,
            bootguard::a_rebooted_node_is_closed_until_the_agent_starts
        ),
        play!(Both, gate::the_taint_goes_when_the_proof_is_there),
        play!(Both, gate::the_marker_clears_the_node_for_good),
        play!(Any, shell::health_is_asked_over_a_socket),
        play!(Any, reuse::a_routed_pods_heir_gets_nothing),
        play!(Any, reuse::a_bridged_pods_heir_gets_nothing),
        play!(Both, upgrade::a_handover_fails_no_request),
        play!(
            Both,
            interception::pods_reach_the_agent_with_their_own_address
        ),
        play!(
            Both,
            interception::the_wire_server_is_closed_and_its_dns_is_not
        ),
        play!(
            Both,
            interception::what_decides_before_our_jump_is_overtaken
        ),
        play!(Both, interception::flushing_both_tables_opens_nothing),
        play!(
            Both,
            interception::flushed_rules_and_a_lost_address_come_back
        ),
        play!(Both, interception::without_the_jump_the_door_is_closed),
        play!(Both, interception::connections_from_before_are_cut),
        play!(
            Both,
            interception::uninstall_leaves_others_rules_as_they_were
        ),
        play!(Both, interception::uninstall_is_obeyed_by_a_running_agent),
        play!(
            Both,
            interception::a_failing_iptables_is_not_ready_and_heals
        ),
        play!(Both, interception::a_held_lock_is_waited_for),
        play!(
            Both,
            interception::who_fights_over_the_rules_finds_the_door_closed
        ),
        play!(
            Both,
            takeover::a_second_instance_takes_over_without_a_failed_request
        ),
        play!(Both, takeover::the_swap_loses_no_request),
        play!(
            Both,
            takeover::the_older_instance_takes_back_what_a_dead_one_left
        ),
        play!(Both, takeover::damaged_state_files_hurt_nobody),
        play!(
            Both,
            clients::the_python_sdk_gets_its_own_identity_and_secret
        )
        .after(clients::install),
        play!(Both, clients::the_python_sdk_speaks_app_services_dialects).after(clients::install),
        play!(Both, clients::the_python_sdk_gives_up_at_once_where_refused).after(clients::install),
        play!(Both, clients::curl_reads_the_secret),
        play!(Both, inside::a_pod_is_served_from_inside),
        play!(
            Both,
            inside::an_address_is_not_believed_where_pods_are_served_inside
        ),
        play!(Any, inside::a_mixed_node_serves_each_pod_in_its_own_way),
        play!(Any, inside::an_agent_takes_over_without_a_failed_request),
        play!(
            Any,
            inside::what_was_laid_in_a_pod_goes_with_the_mode_and_with_lanyard
        ),
        play!(
            Any,
            inside::the_extensions_endpoint_is_on_the_pods_own_loopback
        ),
        play!(Any, inside::app_services_dialects_are_spoken_inside),
        play!(Any, inside::pods_that_come_and_go_leave_nothing),
        play!(Any, inside::a_pod_keeps_what_is_its_own),
        play!(Any, inside_trouble::nothing_comes_back_after_an_uninstall),
        play!(
            Any,
            inside_trouble::who_gives_way_to_redirection_takes_along_what_it_laid
        ),
        play!(
            Any,
            inside_trouble::a_pod_that_floods_keeps_no_other_from_its_answers
        ),
        play!(
            Any,
            inside_trouble::a_pod_that_cannot_be_mended_is_told_of_once
        ),
        play!(
            Both,
            inside_trouble::a_crash_closes_pods_until_the_next_agent
        ),
        play!(Both, inside_held::a_crash_refuses_nobody),
        play!(Any, inside_held::a_crash_refuses_nobody_on_a_mixed_node),
        play!(Any, inside_held::who_ends_in_order_is_waited_for),
        play!(Any, inside_held::a_holder_lets_go_of_who_is_replaced),
        play!(Any, inside_held::nothing_is_held_for_ever),
        play!(Any, inside_held::what_was_left_is_its_own_pods_alone),
        play!(Any, inside_held::a_holder_may_come_and_go),
        play!(Any, inside_ownership::a_link_leads_into_no_other_pod),
        play!(Any, inside_ownership::who_has_the_name_next_is_another_pod),
        play!(
            Any,
            inside_ownership::our_port_is_a_pods_own_until_it_lets_go
        ),
        play!(
            Any,
            inside_ownership::the_extensions_port_is_a_pods_own_until_it_lets_go
        ),
        play!(Any, inside_trouble::a_pods_own_web_server_keeps_its_port),
        play!(
            Any,
            inside_trouble::pods_that_vanish_during_entry_leave_nothing
        ),
        play!(
            Any,
            inside_trouble::past_the_nodes_netfilter_pods_are_served_and_closed
        ),
        play!(
            Any,
            inside::an_agent_takes_care_of_two_hundred_and_fifty_pods
        ),
        play!(
            Any,
            spoof::with_redirection_a_silent_neighbours_address_can_be_forged
        ),
        play!(
            Both,
            spoof::with_listeners_inside_a_forged_address_is_worth_nothing
        ),
        play!(Both, hostnet::each_gets_its_own_identity_or_a_refusal),
        play!(
            Both,
            hostnet::without_the_agent_pods_are_refused_and_the_node_is_not
        ),
        play!(Both, hostnet::nobody_is_taken_for_another),
        play!(
            Both,
            hostnet::who_marks_his_sockets_as_the_agents_are_does_not_pass
        ),
        play!(
            Any,
            hostnet::app_services_dialects_are_spoken_on_the_nodes_network
        ),
        play!(Any, hostnet::one_pods_connections_leave_room_for_anothers),
        play!(Any, hostnet::who_is_gone_before_the_look_costs_nothing),
        play!(Both, hostnet::a_handover_fails_no_host_network_pods_request),
        play!(Both, hostnet::another_cgroup_under_the_same_path_is_noticed),
        play!(Any, hostnet::with_cgroup_v1_it_does_not_start),
        play!(
            Both,
            hostnet::from_a_cgroup_namespace_of_its_own_the_nodes_is_entered
        ),
        play!(Both, programs::the_demo_tells_its_story),
        play!(Both, programs::the_demo_works_as_an_ordinary_user),
        play!(
            Any,
            programs::a_kept_demo_can_be_entered_and_ends_with_its_process
        ),
        play!(Any, programs::dev_runs_a_program_with_an_identity),
        play!(Any, programs::the_demo_fails_where_a_claim_does_not_hold),
        play!(Any, programs::ctrl_c_ends_a_demo_and_is_devs_programs_own),
        play!(Any, programs::a_killed_lab_leaves_nothing),
        play!(Both, takeover::whole_agents_hand_over_and_take_back),
        play!(
            Any,
            evidence::who_gets_a_used_address_gets_no_token_of_the_one_before
        ),
        play!(Any, evidence::another_veth_under_the_same_address_is_seen),
        play!(Any, evidence::another_neighbour_on_the_bridge_is_seen),
        play!(Any, evidence::a_flood_of_notifications_loses_nothing),
        play!(Any, sources::a_secret_of_the_api_server_rolls_under_load),
        play!(Any, sources::a_secret_of_a_folder_rolls_under_load),
        play!(
            Any,
            sources::a_secret_that_may_not_be_read_is_told_on_the_identity
        ),
        play!(Any, sources::a_pods_own_token_is_exchanged),
        play!(
            Any,
            sources::an_agent_that_restarts_without_the_api_server_has_no_secret
        ),
        play!(Any, sources::the_environments_proxy_is_for_entra_alone),
        play!(Any, kubernetes::the_api_servers_bindings_decide),
        play!(Both, observe::nobody_notices_an_agent_that_observes),
        play!(
            Both,
            observe::a_restart_moves_between_observing_and_enforcing
        ),
        play!(Any, events::a_refusal_is_an_event_on_the_pod),
        play!(Any, events::a_host_network_pod_is_told_that_it_bypasses),
        play!(Any, events::who_has_our_port_is_told_on_the_pod),
        play!(Any, events::explain_reads_the_cluster),
        play!(
            Any,
            kubernetes::an_agent_that_restarts_without_the_api_server_serves_whom_it_knew
        ),
        play!(
            Any,
            kubernetes::a_routed_heir_of_the_time_without_an_agent_gets_nothing
        ),
        play!(
            Any,
            kubernetes::a_bridged_heir_of_the_time_without_an_agent_gets_nothing
        ),
        play!(Any, kubernetes::what_is_older_than_allowed_is_not_believed),
        play!(
            Any,
            kubernetes::a_bindings_change_of_mind_takes_effect_at_once
        ),
        play!(Any, kubernetes::a_full_clusters_changes_cost_little),
    ]
}

fn main() -> ExitCode {
    harness::main(&scenarios())
}
