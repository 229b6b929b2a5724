//! A binding is created: when is its PATCH at ARM?

use std::time::Duration;

use jiff::Timestamp;

use crate::cast::{self, EXTRA};
use crate::report::{Table, median_and_most};
use crate::stage::Stage;
use crate::start::ours;
use crate::writer::Job;

/// The controller's own default.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Each time an identity that was not used, on another scale set.
pub fn measure(stage: &Stage, table: &mut Table) {
    stage.forget_calls();
    let mut times = Vec::new();
    for number in 0..EXTRA.min(stage.size.sets) {
        let name = cast::extra(number);
        let binding = cast::binding(number, &name, ("pool", &cast::set_name(number)));
        // Before the request, not after its answer: the API server's own time counts, too.
        let created = Timestamp::now();
        let path = ours(number, "azureidentitybindings");
        stage.writer.one(&Job::post(path, binding));
        let id = cast::identity_id(&name);
        let mut sent = None;
        stage.until("the binding's PATCH", || {
            let journal = stage.sim().journal();
            let found = journal.iter().find(|entry| {
                let arm = entry.arm.as_ref();
                arm.is_some_and(|arm| arm.added.iter().any(|one| one.eq_ignore_ascii_case(&id)))
            });
            sent = found.map(|entry| entry.time);
            sent.is_some()
        });
        let took = sent.unwrap().duration_since(created).as_secs_f64();
        times.push((took - DEBOUNCE.as_secs_f64()) * 1e3);
    }
    let (median, most) = median_and_most(&times);
    table.row(
        "binding created → its PATCH at ARM, beyond the debounce",
        &format!("median {median:.0} ms, worst of {} {most:.0}", times.len()),
        "≤ 200 ms",
        Some(most <= 200.0),
    );
    let calls = stage.calls();
    table.remark(&format!(
        "for these {} bindings {} PATCHes and {} GETs of scale sets until the last was sent",
        times.len(),
        calls.patches(),
        calls.sets.values().map(|set| set.gets).sum::<usize>()
    ));
    // Their operations end before anything else is measured.
    stage.until("the operations to end", || {
        let running = stage.sim().arm().resources().computes;
        running
            .iter()
            .all(|one| one.state == lanyard::sim::arm::ProvisioningState::Succeeded)
    });
    stage.until_idle();
}
