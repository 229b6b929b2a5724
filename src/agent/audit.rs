//! Who got what: a line for the first and for every changed token decision of a pod, repeats as a
//! count each minute. Never a token.
//!
//! Bounded, for each pod and for all: a pod that invents resources or client ids fills its own share,
//! and hides nobody else's decisions. What does not fit is counted together until the next minute.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::model::facts::PodFacts;
use crate::model::ids::ObjectName;

/// Decisions remembered at once: the shares of 256 pods.
const MAX_DECISIONS: usize = 4096;
/// Of one pod. Programs ask for a handful of resources.
const MAX_OF_POD: usize = 16;

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A pod.
    Pod(&'a PodFacts),
    /// Somebody at this address, where no pod is known.
    Unknown(&'a str),
}

impl Caller<'_> {
    fn uid(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.uid,
            Self::Unknown(address) => address,
        }
    }

    fn service_account(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.service_account,
            Self::Unknown(_) => "",
        }
    }
}

impl Display for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(pod) => pod.name.fmt(f),
            Self::Unknown(address) => f.write_str(address),
        }
    }
}

/// One decision about a token.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// Who asked, or on whose behalf.
    pub caller: Caller<'a>,
    /// Who asked on the caller's behalf; `None`: the caller itself.
    pub asked_by: Option<&'a str>,
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
    /// What was spoken: `imds`, `app_service_2019`, ….
    pub dialect: &'static str,
}

/// The table of decisions.
#[derive(Debug, Default)]
pub struct Audit {
    seen: RwLock<Table>,
    untold: AtomicU64,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Table {
    decisions: HashMap<u64, Seen>,
    /// How many there are of each pod, by UID.
    of_pod: HashMap<Arc<str>, usize>,
}

impl Table {
    fn has_room(&self, uid: &str) -> bool {
        self.decisions.len() < MAX_DECISIONS
            && self.of_pod.get(uid).is_none_or(|count| *count < MAX_OF_POD)
    }

    /// Counts the decision as a repeat, if it is known.
    fn repeat(&self, key: u64) -> bool {
        let seen = self.decisions.get(&key);
        if let Some(seen) = seen {
            seen.repeats.fetch_add(1, Ordering::Relaxed);
        }
        seen.is_some()
    }

    fn insert(&mut self, key: u64, seen: Seen) {
        *self.of_pod.entry(seen.uid.clone()).or_default() += 1;
        self.decisions.insert(key, seen);
    }

    fn retain(&mut self, keep: impl Fn(&Seen) -> bool) {
        self.decisions.retain(|_, seen| keep(seen));
        self.of_pod.clear();
        for seen in self.decisions.values() {
            *self.of_pod.entry(seen.uid.clone()).or_default() += 1;
        }
    }
}

#[derive(Debug)]
struct Seen {
    repeats: AtomicU64,
    uid: Arc<str>,
    pod: String,
    identity: Option<ObjectName>,
    resource: String,
    outcome: &'static str,
}

impl Audit {
    /// Takes a decision in; logs it when it is new.
    pub fn record(&self, decision: &Decision<'_>) {
        let uid = decision.caller.uid();
        let key = self.hasher.hash_one((
            uid,
            decision.identity,
            decision.resource,
            decision.outcome,
            decision.reason,
            decision.dialect,
            decision.asked_by,
        ));
        if self.seen.read().repeat(key) {
            return;
        }
        let mut table = self.seen.write();
        // Another request may have brought it meanwhile.
        if table.repeat(key) {
            return;
        }
        if !table.has_room(uid) {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let seen = Seen {
            repeats: AtomicU64::new(0),
            uid: uid.into(),
            pod: decision.caller.to_string(),
            identity: decision.identity.cloned(),
            resource: decision.resource.to_owned(),
            outcome: decision.outcome,
        };
        table.insert(key, seen);
        drop(table);
        log(decision);
    }

    /// Tells the repeats since the last call and forgets decisions that did not repeat, so that
    /// they are told again when they come back.
    pub fn tell_repeats(&self) {
        self.seen.write().retain(|seen| {
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
        resource,
        outcome,
        reason,
        cache,
        dialect,
        asked_by,
        ..
    } = *decision;
    let pod = decision.caller;
    let (uid, service_account) = (pod.uid(), pod.service_account());
    let identity = decision.identity.map(tracing::field::display);
    tracing::info!(
        target: "audit", %pod, uid, service_account, identity, resource, outcome, reason, cache, dialect, asked_by, "token decision"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::{Labels, PodLife};

    fn record(audit: &Audit, resource: &str, outcome: &'static str) {
        record_of(audit, "u", resource, outcome);
    }

    fn record_of(audit: &Audit, uid: &str, resource: &str, outcome: &'static str) {
        let pod = PodFacts {
            name: ObjectName::new("a", "p"),
            uid: uid.into(),
            labels: Labels::new(),
            wanted: None,
            service_account: "sa".into(),
            ips: Vec::new(),
            host_network: false,
            life: PodLife::Live,
            mode: None,
            vm_extension: None,
            secrets: Vec::new(),
            version: "1".into(),
        };
        audit.record(&Decision {
            caller: Caller::Pod(&pod),
            asked_by: None,
            identity: None,
            resource,
            outcome,
            reason: "why",
            cache: "-",
            dialect: "imds",
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
            .decisions
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
        assert!(audit.seen.read().decisions.is_empty());
        assert!(audit.seen.read().of_pod.is_empty());
    }

    #[test]
    fn a_pod_that_invents_resources_hides_nobody_elses_decisions() {
        let audit = Audit::default();
        for n in 0..MAX_DECISIONS + 10 {
            record_of(&audit, "flood", &format!("https://{n}"), "granted");
        }
        assert_eq!(audit.seen.read().decisions.len(), MAX_OF_POD);
        let untold = MAX_DECISIONS + 10 - MAX_OF_POD;
        assert_eq!(audit.untold.load(Ordering::Relaxed), untold as u64);
        record_of(&audit, "calm", "https://vault", "granted");
        assert_eq!(audit.seen.read().decisions.len(), MAX_OF_POD + 1);
        // The flood is given a share again when it has been quiet for a minute.
        audit.tell_repeats();
        record_of(&audit, "flood", "https://new", "granted");
        assert_eq!(audit.seen.read().decisions.len(), 1);
    }

    #[test]
    fn the_table_is_bounded_whatever_pods_invent() {
        let audit = Audit::default();
        for n in 0..MAX_DECISIONS + 10 {
            record_of(&audit, &n.to_string(), "https://vault", "granted");
        }
        assert_eq!(audit.seen.read().decisions.len(), MAX_DECISIONS);
        assert_eq!(audit.untold.load(Ordering::Relaxed), 10);
    }
}
