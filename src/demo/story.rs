//! What the demo prints: numbered steps, the requests as a person would type them, and claims.
//!
//! In: text and observations. Out: lines on standard output. Invariant: a claim is printed together
//! with whether it was seen to hold; one that did not makes the demo fail at its end.

use std::fmt::Display;

use super::curl::Asked;

const WIDEST_BODY: usize = 300;

/// The teller.
#[derive(Debug)]
pub struct Story {
    colour: bool,
    indent: &'static str,
    step: u32,
    failures: Vec<String>,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

impl Story {
    /// A story that has not begun; `colour` only where a person looks at a terminal.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            indent: "   ",
            step: 0,
            failures: Vec::new(),
        }
    }

    /// Begins the next step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        println!(
            "\n{}",
            self.ink(Ink::Bold, format!("{}. {title}", self.step))
        );
    }

    /// A line of text, or several.
    pub fn say(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("{}{line}", self.indent);
        }
    }

    /// Output of something else: indented and dim.
    pub fn quote(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("     {}", self.ink(Ink::Dim, line));
        }
    }

    /// A request and what came back.
    pub fn asked(&self, who: &str, asked: &Asked) {
        let prompt = self.ink(Ink::Cyan, format!("{who} $"));
        println!("   {prompt} {}", asked.command);
        match (&asked.status, &asked.failure) {
            (Some(status), _) => {
                let body: String = asked.shown_body().chars().take(WIDEST_BODY).collect();
                self.quote(format!(
                    "{status} in {:.1} ms: {}",
                    asked.milliseconds,
                    body.trim()
                ));
            }
            (None, failure) => self.quote(failure.as_deref().unwrap_or("no answer")),
        }
    }

    /// A claim, and whether it was seen to hold in this run.
    pub fn expect(&mut self, holds: bool, claim: impl Display) {
        if holds {
            println!("   {} {claim}", self.ink(Ink::Green, "✓"));
        } else {
            println!("   {} {}", self.ink(Ink::Red, "✗ NOT SO:"), claim);
            self.failures.push(format!("step {}: {claim}", self.step));
        }
    }

    /// A table, columns as wide as they need to be.
    pub fn table(&self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or_default()).collect();
        for (index, row) in rows.iter().enumerate() {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            if index == 0 {
                println!("   {}", self.ink(Ink::Bold, line));
            } else {
                println!("   {line}");
            }
        }
    }

    /// The claims that did not hold.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    fn ink(&self, ink: Ink, text: impl Display) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Red => 31,
            Ink::Green => 32,
            Ink::Cyan => 36,
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_is_remembered_with_its_step() {
        let mut story = Story::new(false);
        story.step("begin");
        story.expect(true, "water is wet");
        story.expect(false, "the moon is cheese");
        assert_eq!(story.failures(), ["step 1: the moon is cheese"]);
    }

    #[test]
    fn no_colour_where_nobody_looks() {
        assert_eq!(Story::new(false).ink(Ink::Red, "x"), "x");
        assert_eq!(Story::new(true).ink(Ink::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}
