//! The controller starts anew where everything is there and in order; then a policy's edit.

use std::time::Instant;

use serde_json::json;

use crate::cast::{self, EXTRA};
use crate::report::Table;
use crate::stage::Stage;
use crate::start::POLICIES;
use crate::writer::Job;

/// `empty`: memory without pods, in MiB.
pub fn measure(stage: &mut Stage, empty: f64, table: &mut Table) {
    stage.stop();
    stage.forget_calls();
    let begun = Instant::now();
    stage.start();
    stage.until_it_leads();
    let (listed, led) = (stage.cpu(), begun.elapsed());
    let sets = stage.size.sets;
    stage.until("all scale sets to be read", || {
        stage.calls().sets.len() >= sets
    });
    let used = stage.until_idle();
    let all = stage.size.identities() + EXTRA;
    stage.until("the identities to be read", || {
        stage.calls().identities >= all
    });
    let whole = stage.until_idle();
    let calls = stage.calls();
    table.row(
        "full resync, nothing to do: processor time until everything is listed and planned",
        &format!("{:.2} s", used.as_secs_f64()),
        "≤ 2 s",
        Some(used.as_secs_f64() <= 2.0),
    );
    table.remark(&format!(
        "of that {:.2} s until everything was listed and the lease held ({:.1} s after the start); {:.2} s when ARM had been asked for each identity, too ({} PATCHes, {} GETs of scale sets, {} of identities)",
        listed.as_secs_f64(),
        led.as_secs_f64(),
        whole.as_secs_f64(),
        calls.patches(),
        calls.sets.values().map(|set| set.gets).sum::<usize>(),
        calls.identities
    ));
    let full = stage.memory("VmRSS");
    table.row(
        &format!(
            "memory of the controller at {} pods, {} nodes",
            stage.size.pods(),
            stage.size.nodes()
        ),
        &format!("{full:.1} MiB (at most {:.1})", stage.memory("VmHWM")),
        "≤ 120 MiB",
        Some(full <= 120.0),
    );
    let each = (full - empty) * 1024.0 * 1024.0 / stage.size.pods() as f64;
    table.remark(&format!(
        "memory without pods {empty:.1} MiB: {each:.0} bytes for a pod"
    ));
    for (what, prefixes) in [
        (
            "that changes nothing",
            vec![cast::admitting(), cast::refusing()],
        ),
        (
            "after which no identity is admitted",
            vec![cast::refusing()],
        ),
    ] {
        let before = (stage.cpu(), stage.series());
        stage.writer.one(&Job {
            method: "PATCH",
            path: format!("{POLICIES}/all"),
            body: json!({"spec": {"resourceIDPrefixes": prefixes}}),
        });
        let used = stage.until_idle().saturating_sub(before.0);
        let series = stage.series();
        let found = series.counted_since(&before.1, "lanyard_controller_reconcile_seconds");
        table.remark(&format!(
            "a policy's edit {what}: processor time {:.2} s, slowest batch ≤ {} s",
            used.as_secs_f64(),
            found.most
        ));
    }
}
