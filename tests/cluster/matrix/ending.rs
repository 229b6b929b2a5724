//! How a client's call ended: with its token, or by itself and in words of its own.
//!
//! In: what the client left, and the patience that the table says it has. Out: a cell. Pure. Invariant: a call that was not made,
//! was cut off, took too long or says something else than what happened is an error.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::report::milliseconds;
use super::table::Patience;
use crate::process::Output;

/// No call that gets its token takes longer: an agent answers within 20 s, and what clients wait between their tries is some seconds.
/// The longest seen took 18 s, one of Java's beside eleven other clients on two cores.
pub const LONGEST: Duration = Duration::from_secs(30);

/// A cell. An error has another name in each table, and a time by which it is told.
pub fn cell(
    output: Output,
    patience: Patience,
    client_id: &str,
    (error, limit): (&str, Duration),
) -> Result<String> {
    match patience {
        Patience::None(words) => gave_up(&output, words, (error, limit)),
        Patience::Short(words) if output.code != 0 => gave_up(&output, words, (error, limit)),
        Patience::Short(_) | Patience::Long => got(output, client_id),
    }
}

fn got(output: Output, client_id: &str) -> Result<String> {
    let said: Value = serde_json::from_str(&output.success("the client")?)?;
    ensure!(said["client_id"] == client_id, "another identity's: {said}");
    let took = said["milliseconds"].as_f64().context("it says no time")? / 1000.0;
    ensure!(took <= LONGEST.as_secs_f64(), "it hung: {said}");
    Ok(format!("token after {took:.1} s"))
}

fn gave_up(output: &Output, words: &[&str], (error, limit): (&str, Duration)) -> Result<String> {
    let said = &output.stderr;
    // 0 is a token, 126 and 127 are programs that could not be started, the others signals.
    ensure!(
        (1..126).contains(&output.code),
        "no end of its own: {output:?}"
    );
    let says = |words: &&str| said.contains(words);
    ensure!(words.iter().any(says), "none of {words:?}: {output:?}");
    ensure!(!said.contains("Identity not found"), "{output:?}");
    let took = milliseconds(said).filter(|took| *took > 0);
    let took = took.with_context(|| format!("it says no time: {output:?}"))?;
    ensure!(Duration::from_millis(took) <= limit, "it hung: {output:?}");
    Ok(format!("{error} after {took} ms"))
}
