//! Figures as markdown.

use std::fmt::Write as _;

use crate::rounds::{Rounds, Sample};
use crate::stage::Side;

/// The rows of one kind of load, one for each side.
pub fn lines(rounds: &Rounds, sides: &[&Side]) -> String {
    let mut text = String::new();
    for (index, side) in sides.iter().enumerate() {
        let of = |figure: fn(&Sample) -> f64| rounds.median(index, figure);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {} |",
            rounds.kind.name,
            side.name,
            of(|s| s.throughput),
            of(|s| s.p50),
            of(|s| s.p99),
            of(|s| s.cpu),
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
