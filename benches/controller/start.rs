//! The mass start: what it asks of ARM, with pods that come while the controller runs and with pods that are all
//! there before it.

use std::time::Instant;

use serde_json::Value;

use crate::calls::Calls;
use crate::cast::{self, EXTRA, Size};
use crate::report::Table;
use crate::stage::Stage;
use crate::writer::Job;

/// Which pod is written after which: not one scale set after the other. Prime.
const STRIDE: usize = 7919;

/// The objects but the pods.
pub fn populate(stage: &Stage) {
    let (writer, size) = (&stage.writer, stage.size);
    let own = serde_json::json!({"metadata": {"name": "lanyard-system"}});
    writer.one(&Job::post("/api/v1/namespaces".to_owned(), own));
    writer.all(size.teams(), |team| {
        Job::post("/api/v1/namespaces".to_owned(), cast::namespace(team))
    });
    writer.all(size.teams(), |team| {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", cast::team(team));
        Job::post(path, cast::account())
    });
    writer.all(size.nodes(), |node| {
        Job::post("/api/v1/nodes".to_owned(), cast::node(node))
    });
    let everything = cast::policy(&[&cast::admitting()]);
    writer.one(&Job::post(POLICIES.to_owned(), everything));
    writer.all(size.identities(), move |number| {
        let (team, app) = (Size::team_of(number), cast::app(number));
        Job::post(ours(team, "azureidentities"), cast::identity(team, &app))
    });
    writer.all(size.identities(), move |number| {
        let (team, app) = (Size::team_of(number), cast::app(number));
        let binding = cast::binding(team, &app, ("app", &app));
        Job::post(ours(team, "azureidentitybindings"), binding)
    });
    writer.all(EXTRA, move |number| {
        let team = number % size.teams();
        let identity = cast::identity(team, &cast::extra(number));
        Job::post(ours(team, "azureidentities"), identity)
    });
}

pub const POLICIES: &str = "/apis/lanyard.dev/v1alpha1/azureidentitypolicies";

/// Where objects of ours of a namespace are.
pub fn ours(team: usize, plural: &str) -> String {
    format!(
        "/apis/lanyard.dev/v1alpha1/namespaces/{}/{plural}",
        cast::team(team)
    )
}

/// Where pods of a namespace are.
pub fn pods(team: usize) -> String {
    format!("/api/v1/namespaces/{}/pods", cast::team(team))
}

/// Starts the controller in a cluster without pods: its memory there, in MiB.
pub fn without_pods(stage: &mut Stage) -> f64 {
    stage.azure();
    stage.start();
    stage.until_it_leads();
    let all = stage.size.identities() + EXTRA;
    stage.until("the identities to be read", || {
        stage.calls().identities >= all
    });
    stage.until_idle();
    stage.memory("VmRSS")
}

/// All pods start while the controller runs.
pub fn warm(stage: &Stage, table: &mut Table) {
    stage.forget_calls();
    let (size, cpu, begun) = (stage.size, stage.cpu(), Instant::now());
    stage.writer.all(size.pods(), move |nth| {
        let number = nth * STRIDE % size.pods();
        let pod = cast::pod(size, number, &cast::pod_name(number));
        Job::post(pods(size.place(number).team), pod)
    });
    let written = begun.elapsed();
    stage.until_assigned(size.assignments());
    let assigned = begun.elapsed();
    stage.until_idle();
    let calls = stage.calls();
    tell("pods start while it runs", &calls, table);
    table.remark(&format!(
        "pods start while it runs: all written after {:.1} s, all Assigned after {:.1} s; processor time {:.1} s; memory after it {:.1} MiB, at most {:.1}",
        written.as_secs_f64(),
        assigned.as_secs_f64(),
        stage.cpu().saturating_sub(cpu).as_secs_f64(),
        stage.memory("VmRSS"),
        stage.memory("VmHWM")
    ));
}

/// The controller starts with everything there and nothing assigned.
pub fn cold(stage: &mut Stage, table: &mut Table) {
    stage.stop();
    let admitting = serde_json::json!({"spec": {"resourceIDPrefixes": [cast::admitting()]}});
    stage.writer.one(&Job {
        method: "PATCH",
        path: format!("{POLICIES}/all"),
        body: admitting,
    });
    stage.writer.one(&Job::delete(
        "/apis/lanyard.dev/v1alpha1/azureassignments".to_owned(),
    ));
    stage.azure();
    let begun = Instant::now();
    stage.start();
    stage.until_assigned(stage.size.assignments());
    let assigned = begun.elapsed();
    stage.until_idle();
    tell("all there before it starts", &stage.calls(), table);
    table.remark(&format!(
        "all there before it starts: all Assigned after {:.1} s; memory after it {:.1} MiB, at most {:.1}",
        assigned.as_secs_f64(),
        stage.memory("VmRSS"),
        stage.memory("VmHWM")
    ));
}

fn tell(which: &str, calls: &Calls, table: &mut Table) {
    let (patches, mean) = calls.each(|set| set.patches);
    table.row(
        &format!("{which}: PATCHes of a scale set"),
        &format!("at most {patches}, mean {mean:.2}"),
        "≤ 2",
        Some(patches <= 2),
    );
    let (gets, mean) = calls.each(|set| set.gets + set.polls);
    let (polls, _) = calls.each(|set| set.polls);
    table.row(
        &format!("{which}: GETs of a scale set, looks at its operations included"),
        &format!("at most {gets}, mean {mean:.2} (operations themselves: at most {polls})"),
        "≤ 4",
        Some(gets <= 4),
    );
    table.remark(&format!(
        "{which}: {} PATCHes in all, {} GETs of identities, {} other calls, {} answered 429",
        calls.patches(),
        calls.identities,
        calls.others,
        calls.throttled
    ));
}

/// How large a pod is on the wire.
pub fn bytes_of_a_pod(stage: &Stage) -> usize {
    let place = stage.size.place(0);
    let path = format!("{}/{}", pods(place.team), cast::pod_name(0));
    let pod: Value = stage.writer.get(&path);
    pod.to_string().len()
}
