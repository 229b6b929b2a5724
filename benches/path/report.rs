//! Figures as markdown.

use std::fmt::{self, Write as _};

use crate::Options;
use crate::proc::load_average;
use crate::rounds::{Rounds, Sample, median};
use crate::stage::Side;

/// The rows of one kind of load, one for each side.
pub fn lines(rounds: &Rounds, sides: &[&Side]) -> String {
    let mut text = String::new();
    for (index, side) in sides.iter().enumerate() {
        let of = |figure: fn(&Sample) -> f64| rounds.median(index, figure);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} ({:.1}) | {} |",
            rounds.kind.name,
            side.name,
            of(|s| s.throughput),
            of(|s| s.p50),
            of(|s| s.p99),
            of(|s| s.cpu),
            of(|s| s.system),
            rounds.errors(index),
        );
    }
    let ratio = |figure: fn(&Sample) -> f64| {
        let (ratio, least, most) = rounds.ratio(figure);
        format!("{ratio:.3} ({least:.2}–{most:.2})")
    };
    let _ = writeln!(
        text,
        "| {} | ratio (least–most in a round) | {} | {} | {} | {} | |",
        rounds.kind.name,
        ratio(|s| s.throughput),
        ratio(|s| s.p50),
        ratio(|s| s.p99),
        ratio(|s| s.cpu),
    );
    text
}

/// Everything measured, with the targets beside it.
#[derive(Default)]
pub struct Table {
    loads: String,
    targets: String,
    notes: String,
}

impl Table {
    /// One kind of load, and its targets where it has any.
    pub fn loads(&mut self, rounds: &Rounds, sides: &[&Side]) {
        self.loads += &lines(rounds, sides);
        if rounds.kind.workers == 1 {
            return;
        }
        let name = rounds.kind.name;
        let least = if rounds.kind.fresh { 0.92 } else { 0.85 };
        self.ratio(
            &format!("cached token, {name}: throughput ÷ bare hyper's"),
            rounds.ratio(|s| s.throughput),
            least,
            true,
        );
        self.ratio(
            &format!("{name}: p99 ÷ bare hyper's"),
            rounds.ratio(|s| s.p99),
            1.3,
            false,
        );
        self.ratio(
            &format!("{name}: CPU time per request ÷ bare hyper's"),
            rounds.ratio(|s| s.cpu),
            1.3,
            false,
        );
    }

    fn ratio(
        &mut self,
        what: &str,
        (ratio, least, most): (f64, f64, f64),
        target: f64,
        floor: bool,
    ) {
        let (sign, met) = if floor {
            ("≥", ratio >= target)
        } else {
            ("≤", ratio <= target)
        };
        let measured = format!("{ratio:.2} ({least:.2}–{most:.2} in single rounds)");
        self.row(what, &measured, &format!("{sign} {target}"), met);
    }

    /// A single figure that may not be greater than `target`.
    pub fn once(&mut self, what: &str, value: f64, unit: &str, target: f64) {
        let digits = usize::from(!unit.is_empty());
        let measured = format!("{value:.digits$} {unit}");
        self.row(
            what,
            measured.trim(),
            format!("≤ {target} {unit}").trim(),
            value <= target,
        );
    }

    /// Times in milliseconds whose median may not be greater than `target`.
    pub fn times(&mut self, what: &str, mut values: Vec<f64>, target: f64) {
        values.sort_by(f64::total_cmp);
        let middle = median(values.iter().copied());
        let most = values.last().copied().unwrap_or(f64::NAN);
        let measured = format!("{middle:.1} ms (worst of {}: {most:.1})", values.len());
        self.row(what, &measured, &format!("≤ {target} ms"), middle <= target);
    }

    /// Times in microseconds, likewise.
    pub fn micros(&mut self, what: &str, mut values: Vec<f64>, target: f64) {
        values.sort_by(f64::total_cmp);
        let middle = median(values.iter().copied());
        let late = values[values.len() * 99 / 100];
        let measured = format!("{middle:.0} µs (p99 of {}: {late:.0})", values.len());
        self.row(what, &measured, &format!("≤ {target} µs"), middle <= target);
    }

    fn row(&mut self, what: &str, measured: &str, target: &str, met: bool) {
        let verdict = if met { "ok" } else { "MISSED" };
        let _ = writeln!(
            self.targets,
            "| {what} | {measured} | {target} | {verdict} |"
        );
    }

    /// How it was measured.
    pub fn conditions(&mut self, options: &Options) {
        self.note(&format!(
            "{} rounds of {} s for each side, interleaved; the machine's load over the last minute: {}",
            options.rounds,
            options.seconds,
            load_average()
        ));
    }

    /// A sentence below the tables.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "- {text}");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| what | measured | target | |\n|---|---|---|---|\n{}",
            self.targets
        )?;
        writeln!(
            f,
            "| load | server | requests/s | p50 µs | p99 µs | CPU µs/request (kernel's) | errors |"
        )?;
        writeln!(
            f,
            "|---|---|---|---|---|---|---|\n{}\n{}",
            self.loads, self.notes
        )
    }
}
