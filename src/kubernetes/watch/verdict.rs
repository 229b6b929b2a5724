//! Whether a process is ready as far as its watches are concerned. Pure.
//!
//! Holds invariant 7: the API server away is no reason not to be ready (what is
//! known is used, a metric tells); the API server there and a watch that does not work is.

use std::time::Duration;

use super::health::Pulse;

/// A failure that is over sooner than this is none.
const GRACE: Duration = Duration::from_secs(10);

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All watches work.
    Well,
    /// The API server cannot be reached.
    Away,
    /// It can, but this does not work.
    Stalled(String),
}

/// Judges. `api` says whether the API server answers when asked.
pub fn judge(pulses: &[Pulse], api: bool) -> Verdict {
    if !api {
        return Verdict::Away;
    }
    let counts = |pulse: &&Pulse| {
        let trouble = pulse.trouble.as_ref();
        trouble.is_some_and(|(lasts, _)| !pulse.known || *lasts >= GRACE)
    };
    let stalled: Vec<String> = pulses.iter().filter(counts).map(said).collect();
    if stalled.is_empty() {
        Verdict::Well
    } else {
        Verdict::Stalled(stalled.join("; "))
    }
}

/// Without its age, which the metric has: the words are told again whenever they change.
fn said(pulse: &Pulse) -> String {
    let why = pulse.trouble.as_ref().map_or("", |(_, why)| why.as_str());
    format!("{}: {why}", pulse.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kind::Kind;

    fn pulse(known: bool, trouble: Option<u64>) -> Pulse {
        Pulse {
            kind: Kind::Bindings,
            known,
            age: Duration::from_secs(200),
            trouble: trouble.map(|seconds| (Duration::from_secs(seconds), "no answer".to_owned())),
        }
    }

    #[test]
    fn an_api_server_that_is_away_is_no_stalled_watch() {
        for pulses in [
            pulse(true, None),
            pulse(true, Some(600)),
            pulse(false, Some(600)),
        ] {
            assert_eq!(judge(&[pulses], false), Verdict::Away);
        }
    }

    #[test]
    fn a_watch_that_does_not_work_beside_an_api_server_that_answers_is_named() {
        let told = "azureidentitybindings: no answer";
        let stalled = judge(&[pulse(true, None), pulse(true, Some(10))], true);
        assert_eq!(stalled, Verdict::Stalled(told.to_owned()));
        assert_eq!(
            judge(&[pulse(true, Some(9))], true),
            Verdict::Well,
            "soon over"
        );
        let never = judge(&[pulse(false, Some(0))], true);
        let told = "azureidentitybindings: no answer";
        assert_eq!(
            never,
            Verdict::Stalled(told.to_owned()),
            "at the start at once"
        );
        assert_eq!(judge(&[pulse(true, None)], true), Verdict::Well);
    }
}
