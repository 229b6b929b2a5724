//! The circuit before one service: after failures in a row it is left alone for a while, and callers
//! are told at once instead of waiting for nothing. Pure: monotonic times in, passages out.
//!
//! Closed, everybody passes. After [`FAILURES`] in a row (no connection, silence, 5xx; refusals and
//! throttling are answers) it opens for 1 s; then one call at a time may pass and try. A failing try
//! doubles the time, to 30 s at most; whatever is answered, by whichever call, closes it.

use std::time::Duration;

/// Failures in a row that open it.
pub const FAILURES: u32 = 5;
/// How long it is open first.
const FIRST: Duration = Duration::from_secs(1);
/// How long it is open at most.
const LONGEST: Duration = Duration::from_secs(30);
/// When to come again while another call is trying.
const WHILE_TRIED: Duration = Duration::from_secs(1);

/// A call's right to go; it must be given back by [`Circuit::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// An ordinary call.
    Ordinary,
    /// The one call that tries whether the service is back.
    Probe,
}

/// One service's circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    failures: u32,
    /// Openings in a row; 0: it is closed.
    openings: u32,
    /// Open until then (monotonic).
    until: Duration,
    probing: bool,
}

impl Circuit {
    /// Whether a call may go now; else when to come again. Changes nothing.
    pub fn look(&self, now: Duration) -> Result<Passage, Duration> {
        if self.openings == 0 {
            Ok(Passage::Ordinary)
        } else if now < self.until {
            Err(self.until.saturating_sub(now))
        } else if self.probing {
            Err(WHILE_TRIED)
        } else {
            Ok(Passage::Probe)
        }
    }

    /// A call goes, if it may.
    pub fn enter(&mut self, now: Duration) -> Result<Passage, Duration> {
        let passage = self.look(now)?;
        self.probing |= passage == Passage::Probe;
        Ok(passage)
    }

    /// A call that had gone has ended: answered, whatever the answer was, or not.
    pub fn ended(&mut self, passage: Passage, answered: bool, now: Duration) {
        if answered {
            *self = Self::default();
        } else if passage == Passage::Probe {
            self.probing = false;
            self.open(now);
        } else if self.openings == 0 {
            self.failures += 1;
            if self.failures >= FAILURES {
                self.open(now);
            }
        }
    }

    /// A call that had gone was ended by its caller before it had its time: nothing was learned, and the
    /// next may try.
    pub const fn told_nothing(&mut self, passage: Passage) {
        if matches!(passage, Passage::Probe) {
            self.probing = false;
        }
    }

    /// Whether it keeps calls away.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.openings > 0
    }

    fn open(&mut self, now: Duration) {
        let time = FIRST * 2u32.saturating_pow(self.openings.min(8));
        self.openings = self.openings.saturating_add(1);
        self.until = now + time.min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn broken(now: Duration) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES {
            let passage = circuit.enter(now).unwrap();
            circuit.ended(passage, false, now);
        }
        circuit
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_an_answer_between_them_does_not_let_them_add_up() {
        let mut circuit = Circuit::default();
        for round in 0..20 {
            assert_eq!(circuit.enter(S(round)), Ok(Passage::Ordinary));
            circuit.ended(Passage::Ordinary, round % 5 == 4, S(round));
        }
        assert!(!circuit.is_open());
        let circuit = broken(S(100));
        assert!(circuit.is_open());
        assert_eq!(circuit.look(S(100)), Err(S(1)));
        assert_eq!(circuit.look(MS(100_400)), Err(MS(600)));
    }

    #[test]
    fn one_call_tries_and_the_time_doubles_to_thirty_seconds() {
        let mut now = S(100);
        let mut circuit = broken(now);
        for open in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(circuit.look(now), Err(S(open)));
            now += S(open);
            assert_eq!(circuit.enter(now), Ok(Passage::Probe));
            assert_eq!(circuit.enter(now), Err(S(1)), "one at a time");
            circuit.ended(Passage::Probe, false, now);
        }
        now += S(30);
        assert_eq!(circuit.enter(now), Ok(Passage::Probe));
        circuit.ended(Passage::Probe, true, now);
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn what_was_under_way_when_it_opened_neither_prolongs_it_nor_ends_the_try() {
        let mut circuit = broken(S(100));
        circuit.ended(Passage::Ordinary, false, S(100));
        assert_eq!(circuit.look(S(100)), Err(S(1)));
        assert_eq!(circuit.enter(S(101)), Ok(Passage::Probe));
        circuit.ended(Passage::Ordinary, false, S(101));
        assert_eq!(circuit.enter(S(101)), Err(S(1)));
        // An answer is an answer.
        circuit.ended(Passage::Ordinary, true, S(101));
        assert_eq!(circuit.enter(S(101)), Ok(Passage::Ordinary));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_never_stays_shut_and_an_open_one_lets_one_call_try_at_a_time(
            steps in proptest::collection::vec((0u64..3_000, 0u8..4), 1..200)
        ) {
            let (mut circuit, mut now, mut running) = (Circuit::default(), S(10), Vec::new());
            for (gap, what) in steps {
                now += MS(gap);
                if what == 0
                    && let Ok(passage) = circuit.enter(now)
                {
                    running.push(passage);
                } else if let Some(passage) = running.pop() {
                    circuit.ended(passage, what == 1, now);
                }
                let probes = running.iter().filter(|p| **p == Passage::Probe).count();
                prop_assert!(probes <= 1 || !circuit.is_open());
            }
            for passage in running {
                circuit.ended(passage, false, now);
            }
            prop_assert!(circuit.look(now + LONGEST).is_ok());
        }
    }
}
