//! Identities that are set aside on one compute resource: Azure minds them there. Pure.
//!
//! In: what Azure said of them, what is known of them. Out: the setbacks that plan works with. One ends by
//! time (1 min, doubling to 30 min), when Azure takes the identity, or when there is a reason to try
//! again: the identity came to exist, or its `AzureIdentity` was changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::controller::known::{Existence, Setback};
use crate::model::backoff;
use crate::model::ids::ArmId;

/// The first, and the longest.
const PAUSES: backoff::Bounds = (Duration::from_mins(1), Duration::from_mins(30));

/// What the identity was when it was set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What was known of it.
    pub existence: Existence,
    /// Generations of the `AzureIdentity`s that name it, added up.
    pub revision: i64,
}

/// The setbacks of one compute resource.
#[derive(Clone, Debug, Default)]
pub struct Setbacks {
    setbacks: BTreeMap<ArmId, Setback>,
    looks: BTreeMap<ArmId, Look>,
}

impl Setbacks {
    /// As plan takes them.
    #[must_use]
    pub const fn all(&self) -> &BTreeMap<ArmId, Setback> {
        &self.setbacks
    }

    /// Whether it is set aside now.
    #[must_use]
    pub fn holds(&self, id: &ArmId, now: Duration) -> bool {
        self.setbacks
            .get(id)
            .is_some_and(|setback| setback.until > now)
    }

    /// Sets an identity aside.
    pub fn set(
        &mut self,
        id: &ArmId,
        (reason, message): (Arc<str>, Arc<str>),
        look: Look,
        now: Duration,
    ) {
        let before = self.setbacks.get(id).map_or(0, |before| before.failures);
        let pause = backoff::pause(PAUSES, before);
        let setback = Setback {
            failures: before.saturating_add(1),
            until: now + pause,
            reason,
            message,
        };
        self.setbacks.insert(id.clone(), setback);
        self.looks.insert(id.clone(), look);
    }

    /// Azure took it.
    pub fn clear(&mut self, id: &ArmId) {
        self.setbacks.remove(id);
        self.looks.remove(id);
    }

    /// Ends those that have a reason to be tried again, and those that `keep` does not name any more.
    pub fn refresh(&mut self, keep: impl Fn(&ArmId) -> bool, look: impl Fn(&ArmId) -> Look) {
        let looks = &mut self.looks;
        self.setbacks.retain(|id, _| {
            let now = look(id);
            let stays = keep(id) && looks.get_mut(id).is_some_and(|before| before.is_still(now));
            if !stays {
                looks.remove(id);
            }
            stays
        });
    }
}

impl Look {
    /// Whether there is no reason to try again. What was first heard of since then is no news.
    fn is_still(&mut self, now: Self) -> bool {
        if self.existence == Existence::Unknown {
            self.existence = now.existence.clone();
        }
        let came =
            now.existence != self.existence && matches!(now.existence, Existence::Exists { .. });
        if !came && now.existence != Existence::Unknown {
            self.existence = now.existence;
        }
        !came && now.revision == self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXISTS: Existence = Existence::Exists {
        client_id: None,
        principal_id: None,
        tenant_id: None,
    };

    fn id() -> ArmId {
        "/subscriptions/s/resourceGroups/g/providers/x/i"
            .parse()
            .unwrap()
    }

    fn look(existence: Existence, revision: i64) -> Look {
        Look {
            existence,
            revision,
        }
    }

    fn set(setbacks: &mut Setbacks, look: Look, now: u64) -> u64 {
        let why = ("Why".into(), "in words".into());
        setbacks.set(&id(), why, look, Duration::from_secs(now));
        setbacks.all()[&id()].until.as_secs() - now
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_pause_up_to_half_an_hour() {
        let mut setbacks = Setbacks::default();
        let pauses: Vec<_> = (0..7)
            .map(|_| set(&mut setbacks, Look::default(), 100))
            .collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1800, 1800]);
        setbacks.clear(&id());
        assert_eq!(set(&mut setbacks, Look::default(), 100), 60);
    }

    #[test]
    fn it_ends_when_the_identity_comes_to_exist_or_its_object_changes() {
        let ends = |before: Look, after: &[Look]| {
            let mut setbacks = Setbacks::default();
            set(&mut setbacks, before, 0);
            for look in after {
                setbacks.refresh(|_| true, |_| look.clone());
            }
            setbacks.all().is_empty()
        };
        let missing = || look(Existence::Missing, 1);
        assert!(!ends(missing(), &[missing(), look(Existence::Unknown, 1)]));
        assert!(ends(missing(), &[look(EXISTS, 1)]));
        assert!(ends(missing(), &[look(Existence::Missing, 2)]));
        // Nobody knew, and now it is known: that is no change.
        assert!(!ends(look(Existence::Unknown, 1), &[look(EXISTS, 1)]));
        let comes = [missing(), look(EXISTS, 1)];
        assert!(ends(look(Existence::Unknown, 1), &comes));
        // Deleted and created again meanwhile.
        assert!(ends(look(EXISTS, 1), &comes));
    }

    #[test]
    fn what_nobody_wants_any_more_is_forgotten() {
        let mut setbacks = Setbacks::default();
        set(&mut setbacks, Look::default(), 0);
        setbacks.refresh(|_| false, |_| Look::default());
        assert!(setbacks.all().is_empty());
    }
}
