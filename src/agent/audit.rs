//! Who got what: a line for the first and for every changed token decision of a pod, repeats as a
//! count each minute. Never a token.
//!
//! Bounded: a pod that invents resources or client ids fills the table once; then decisions that do
//! not fit are counted together until the next minute.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::model::ids::ObjectName;

/// Decisions remembered at once.
const MAX_DECISIONS: usize = 4096;

/// One decision about a token.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// The pod.
    pub pod: &'a ObjectName,
    /// Its service account.
    pub service_account: &'a str,
    /// The identity, when one was chosen.
    pub identity: Option<&'a ObjectName>,
    /// The audience asked for.
    pub resource: &'a str,
    /// `granted`, or the kind of the fault.
    pub outcome: &'static str,
    /// Why.
    pub reason: &'a str,
    /// Where the token came from: `hit`, `miss`, …; `-` when there is none.
    pub cache: &'static str,
}

/// The table of decisions.
#[derive(Debug, Default)]
pub struct Audit {
    seen: RwLock<HashMap<u64, Arc<Seen>>>,
    untold: AtomicU64,
    hasher: RandomState,
}

#[derive(Debug)]
struct Seen {
    repeats: AtomicU64,
    pod: ObjectName,
    identity: Option<ObjectName>,
    resource: String,
    outcome: &'static str,
}

impl Audit {
    /// Takes a decision in; logs it when it is new.
    pub fn record(&self, decision: &Decision<'_>) {
        let key = self.hasher.hash_one((
            decision.uid,
            decision.identity.map(|name| (&name.namespace, &name.name)),
            decision.resource,
            decision.outcome,
            decision.reason,
        ));
        if let Some(seen) = self.seen.read().get(&key) {
            seen.repeats.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut table = self.seen.write();
        if table.len() >= MAX_DECISIONS {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let seen = Seen {
            repeats: AtomicU64::new(0),
            pod: decision.pod.clone(),
            identity: decision.identity.cloned(),
            resource: decision.resource.to_owned(),
            outcome: decision.outcome,
        };
        if table.insert(key, Arc::new(seen)).is_none() {
            log(decision);
        }
    }

    /// Tells the repeats since the last call and forgets decisions that did not repeat, so that
    /// they are told again when they come back.
    pub fn tell_repeats(&self) {
        self.seen.write().retain(|_, seen| {
            let repeats = seen.repeats.swap(0, Ordering::Relaxed);
            if repeats > 0 {
                let (pod, outcome, resource) = (&seen.pod, seen.outcome, &seen.resource);
                let identity = seen.identity.as_ref().map(tracing::field::display);
                tracing::info!(target: "audit", %pod, identity, resource, outcome, repeats, "token requests repeated");
            }
            repeats > 0
        });
        let untold = self.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            tracing::warn!(target: "audit", untold, "token decisions beyond the audit table's size");
        }
    }
}

fn log(decision: &Decision<'_>) {
    let Decision {
        uid,
        pod,
        service_account,
        resource,
        outcome,
        reason,
        cache,
        ..
    } = *decision;
    let identity = decision.identity.map(tracing::field::display);
    tracing::info!(
        target: "audit", %pod, uid, service_account, identity, resource, outcome, reason, cache, "token decision"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(audit: &Audit, resource: &str, outcome: &'static str) {
        let pod = ObjectName::new("a", "p");
        let identity = None;
        audit.record(&Decision {
            uid: "u",
            pod: &pod,
            service_account: "sa",
            identity,
            resource,
            outcome,
            reason: "why",
            cache: "-",
        });
    }

    #[test]
    fn a_repeat_is_counted_and_a_change_is_new() {
        let audit = Audit::default();
        record(&audit, "r", "granted");
        record(&audit, "r", "granted");
        record(&audit, "r", "identity_not_found");
        let seen = audit.seen.read();
        let mut repeats: Vec<_> = seen
            .values()
            .map(|seen| seen.repeats.load(Ordering::Relaxed))
            .collect();
        repeats.sort_unstable();
        assert_eq!(repeats, [0, 1]);
    }

    #[test]
    fn what_did_not_repeat_is_forgotten_after_a_minute() {
        let audit = Audit::default();
        record(&audit, "r", "granted");
        audit.tell_repeats();
        assert!(audit.seen.read().is_empty());
    }

    #[test]
    fn the_table_is_bounded_whatever_a_pod_invents() {
        let audit = Audit::default();
        for n in 0..MAX_DECISIONS + 10 {
            record(&audit, &format!("https://{n}"), "granted");
        }
        assert_eq!(audit.seen.read().len(), MAX_DECISIONS);
        assert_eq!(audit.untold.load(Ordering::Relaxed), 10);
    }
}
