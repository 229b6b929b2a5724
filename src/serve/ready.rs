//! Readiness as named latches: `/readyz` says which ones are still open.
//!
//! A latch may be lost again (rules that could not be repaired make the agent not ready).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// All latches of the process. Ready when every one of them is closed.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<RwLock<BTreeMap<&'static str, Option<String>>>>,
}

/// One condition of readiness. Open (not ready) until [`Latch::ready`].
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a condition, open until its owner says otherwise.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        self.pending
            .write()
            .insert(name, Some("not yet".to_owned()));
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// The open latches with the reason of each; empty when ready.
    #[must_use]
    pub fn pending(&self) -> Vec<(&'static str, String)> {
        let pending = self.pending.read();
        pending
            .iter()
            .filter_map(|(name, why)| why.clone().map(|why| (*name, why)))
            .collect()
    }

    /// Whether every latch is closed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.read().values().all(Option::is_none)
    }
}

impl Latch {
    /// The condition holds.
    pub fn ready(&self) {
        self.readiness.pending.write().insert(self.name, None);
    }

    /// The condition does not hold (any more), and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.readiness
            .pending
            .write()
            .insert(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_latch_is_and_a_latch_can_be_lost() {
        let readiness = Readiness::default();
        let (rules, pods) = (readiness.latch("rules"), readiness.latch("pods"));
        rules.ready();
        assert_eq!(readiness.pending(), [("pods", "not yet".to_owned())]);
        pods.ready();
        assert!(readiness.is_ready());
        rules.not_ready("iptables-restore failed");
        assert_eq!(
            readiness.pending(),
            [("rules", "iptables-restore failed".to_owned())]
        );
    }
}
