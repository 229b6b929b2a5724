//! Cluster tests: a real Kubernetes of two nodes on this machine, with simulated Azure behind it.
//!
//! In: the table below. Out: one trial for each line, one after the other on one cluster; `up` and
//! `down` keep one for a person. README.md beside this file says how to write a trial. A new topic is a
//! file beside this one and its lines in the table.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the handle offers what trials may need")]

mod app_service;
mod asking;
mod assigned;
mod authority;
mod az;
mod cached;
mod cast;
mod chart;
mod clients;
mod cluster;
mod control;
mod created;
mod faults;
mod federated;
mod figures;
mod host_token;
mod images;
mod inside;
mod install;
mod leading;
mod loads;
mod matrix;
mod node;
mod node_files;
mod outage;
mod outages;
mod papers;
mod pki;
mod plan;
mod pods;
mod process;
mod programs;
mod proving;
mod release;
mod rights;
mod rolling;
mod runner;
mod scrape;
mod sdks;
mod severed;
mod siege;
mod smoke;
mod sources;
mod stage;
mod steering;
mod supervise;
mod theft;
mod traces;
mod trial;
mod unusable;
mod up;
mod upgrade;
mod wires;
mod witness;

use std::process::ExitCode;

use trial::{Line, line};

/// A line of the table.
macro_rules! play {
    ($first:ident $(:: $next:ident)+) => {
        line(
            concat!(stringify!($first) $(, "::", stringify!($next))+),
            |cluster| Box::pin(async move { $first $(:: $next)+(&cluster).await }),
        )
    };
}

/// Everything that is run, in this order.
fn lines() -> Vec<Line> {
    vec![
        play!(smoke::pods_on_both_nodes_leak_and_are_seen),
        play!(smoke::pods_reach_what_they_need_and_nothing_else),
        play!(smoke::a_node_reboots),
        play!(outages::the_api_server_goes_and_comes),
        play!(outages::the_boot_guards_unit_runs_at_boot),
        play!(outages::a_new_node_carries_the_startup_taint),
        play!(install::the_chart_installs_an_agent_on_each_node),
        play!(install::an_annotation_selects_among_what_is_granted),
        play!(install::a_refusal_is_an_event_on_the_pod_and_explained),
        play!(install::a_bindings_change_of_mind_takes_effect_at_once),
        play!(install::a_reused_address_gets_nothing_of_its_predecessor),
        play!(install::a_pods_first_token_comes_soon),
        play!(sdks::every_client_gets_its_pods_identity_and_secret),
        play!(matrix::dialects::every_client_speaks_every_dialect),
        play!(matrix::refusals::refusals_are_told_soon_and_chains_go_on),
        play!(matrix::broken::calls_outlive_the_agent_where_the_client_asks_again),
        play!(upgrade::a_restart_of_the_agents_fails_no_request),
        play!(upgrade::an_upgrade_of_the_release_fails_no_request),
        play!(outage::known_pods_are_served_while_the_api_server_is_away),
        play!(faults::an_agent_that_goes_lets_nothing_through),
        play!(faults::rules_that_are_flushed_come_back),
        play!(faults::a_foreign_rule_set_lets_nothing_through),
        play!(faults::a_rebooted_node_is_closed_before_its_agent_starts),
        play!(scrape::prometheus_finds_the_agents_and_counts_what_was_caused),
        play!(figures::of_the_agents),
        play!(rights::service_accounts_may_do_what_is_listed_and_nothing_else),
        play!(rights::a_stolen_agent_token_opens_no_node_but_its_own),
        play!(rights::an_agent_removes_the_startup_taint_of_its_own_node),
        play!(inside::the_mode_changes_and_pods_get_their_tokens),
        play!(inside::agents_and_sandboxes_restart),
        play!(app_service::labelled_pods_get_variables_and_sdks_find_them),
        play!(app_service::only_labelled_pods_wait_for_the_webhook),
        play!(host_token::a_program_on_the_node_gets_tokens_of_its_pods),
        // From here on the release has every source of tokens.
        play!(sources::every_source_serves_every_client),
        play!(sources::clocks_that_differ_by_four_minutes_are_no_trouble),
        play!(rolling::a_secret_and_a_certificate_roll_under_load),
        play!(federated::an_identity_switches_from_imds_under_load),
        play!(federated::workload_identity_annotations_are_understood),
        play!(federated::the_second_source_serves_only_where_the_first_is_not_possible),
        play!(unusable::a_bad_credential_is_told_to_its_owner_and_leaks_nothing),
        play!(theft::the_sources_add_the_rights_that_are_listed_and_no_others),
        play!(theft::a_stolen_agent_token_gets_its_own_nodes_pods_tokens_only),
        play!(authority::tokens_last_while_entra_is_away_and_errors_are_clear_after),
        play!(chart::its_test_proves_interception_from_a_pod),
        // From here on the release has a controller.
        play!(assigned::a_controller_comes_and_no_request_fails),
        play!(assigned::a_binding_becomes_a_token),
        play!(assigned::a_refused_assignment_is_told_at_once_and_disturbs_no_other),
        play!(assigned::forty_four_pods_cost_one_patch_and_their_restart_none),
        play!(assigned::a_late_imds_is_waited_for),
        play!(matrix::pending::an_identity_on_its_way_is_waited_for),
        play!(leading::a_leader_killed_after_its_patch_is_followed),
        play!(leading::the_leaders_node_reboots),
        play!(severed::a_leader_that_is_cut_off_writes_nothing),
        play!(proving::an_identity_is_assigned_by_each_way_to_sign_in),
        play!(created::a_managed_identity_lives_and_goes_with_its_object),
        // From here on they take the release away.
        play!(created::an_uninstall_sees_to_managed_identities),
        play!(chart::an_older_chart_is_upgraded_with_its_crds),
        play!(chart::uninstall_leaves_the_crds_and_the_users_objects),
        play!(chart::uninstall_names_the_node_that_did_not_answer),
        // Only where it is asked for: `make test-az`.
        play!(az::the_azure_cli_logs_in_as_its_pod).by_name(),
    ]
}

fn main() -> ExitCode {
    runner::main(&lines())
}
