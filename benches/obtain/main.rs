//! What obtaining costs beside the services that tokens come from: `cargo bench --bench obtain`.
//!
//! The agent's pipeline and a stand-in for IMDS and Entra share this process and its loopback. The stand-in
//! says how long it took itself, so that the agent's own time is the rest. A figure that misses its
//! target says MISSED, and the bench still ends with success: absolute times are the machine's.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench says so by panicking; figures for a table"
)]

mod agent;
mod assertion;
mod azure;
mod renewal;
mod uncached;

use agent::Source;

#[tokio::main]
async fn main() {
    let assertions = assertion::measure();
    println!("| what | measured | target | |\n|---|---|---|---|");
    for (what, times) in assertions {
        row(&what, &times, 2.0);
    }
    for source in [Source::Imds, Source::Certificate] {
        let what = format!(
            "uncached token by {}: the agent's own time",
            source.as_str()
        );
        row(&what, &uncached::measure(source).await, 2.0);
    }
    for source in [Source::Imds, Source::Certificate] {
        let found = renewal::measure(source).await;
        let met = if found.most <= found.limit && found.waited == 0 {
            "ok"
        } else {
            "MISSED"
        };
        println!(
            "| 250 identities by {} renewing within a minute: calls at once upstream; answers that waited | {}; {} of {} (renewed after {:.1} s, slowest answer {:.1} ms) | ≤ {}; 0 | {met} |",
            source.as_str(),
            found.most,
            found.waited,
            found.answers,
            found.renewed_after,
            found.slowest,
            found.limit,
        );
    }
}

/// A row of times in milliseconds whose 99th percentile has a target.
fn row(what: &str, times: &[f64], target: f64) {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let met = if at(0.99) <= target { "ok" } else { "MISSED" };
    println!(
        "| {what} | p99 {:.2} ms (p50 {:.2}, {} of them) | ≤ {target} ms | {met} |",
        at(0.99),
        at(0.5),
        times.len()
    );
}
