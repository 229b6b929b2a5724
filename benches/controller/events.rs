//! Single events of pods, and a storm of them.

use crate::cast;
use crate::report::Table;
use crate::stage::Stage;
use crate::start::pods;
use crate::writer::Job;

const EVENTS: usize = 1000;
/// Pods that are deleted and made again at once.
const STORM: usize = 2000;
const RECONCILE: &str = "lanyard_controller_reconcile_seconds";

/// A pod comes, again and again, each alone.
pub fn one_by_one(stage: &Stage, table: &mut Table) {
    stage.until_idle();
    let (size, before, cpu) = (stage.size, stage.series(), stage.cpu());
    let number = |event: usize| event * 17 % size.pods();
    for event in 0..EVENTS {
        let pod = cast::pod(size, number(event), &format!("late-{event}"));
        let path = pods(size.place(number(event)).team);
        stage.writer.one(&Job::post(path, pod));
    }
    let used = stage.until_idle().saturating_sub(cpu);
    let found = stage.series().counted_since(&before, RECONCILE);
    table.row(
        "one pod's event → what is wanted because of it is worked out",
        &format!(
            "p50 ≤ {} ms, p99 ≤ {} ms, mean {:.3} ms ({} batches)",
            found.p50 * 1e3,
            found.p99 * 1e3,
            found.mean * 1e3,
            found.count
        ),
        "≤ 5 ms",
        Some(found.p99 <= 0.005),
    );
    table.remark(&format!(
        "the controller's processor time for one pod's event with everything that follows from it (TLS, parsing, statuses): {:.2} ms",
        used.as_secs_f64() * 1e3 / EVENTS as f64
    ));
    stage.writer.all(EVENTS, move |event| {
        let team = size.place(event * 17 % size.pods()).team;
        Job::delete(format!("{}/late-{event}?gracePeriodSeconds=0", pods(team)))
    });
    stage.until_idle();
}

/// Pods of all scale sets are deleted and come again under other UIDs.
pub fn storm(stage: &Stage, table: &mut Table) {
    stage.forget_calls();
    let (size, cpu) = (stage.size, stage.cpu());
    let storm = STORM.min(size.pods());
    let number = move |nth: usize| nth * (size.pods() / storm);
    stage.writer.all(storm, move |nth| {
        let name = cast::pod_name(number(nth));
        let team = size.place(number(nth)).team;
        Job::delete(format!("{}/{name}?gracePeriodSeconds=0", pods(team)))
    });
    stage.writer.all(storm, move |nth| {
        let name = cast::pod_name(number(nth));
        let pod = cast::pod(size, number(nth), &name);
        Job::post(pods(size.place(number(nth)).team), pod)
    });
    let used = stage.until_idle().saturating_sub(cpu);
    let calls = stage.calls();
    table.row(
        &format!("{storm} pods deleted and made again: PATCHes"),
        &calls.patches().to_string(),
        "0",
        Some(calls.patches() == 0),
    );
    table.remark(&format!(
        "that storm: {} GETs of scale sets, processor time {:.2} s",
        calls.sets.values().map(|set| set.gets).sum::<usize>(),
        used.as_secs_f64()
    ));
}
