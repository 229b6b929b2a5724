//! What is believed: what the source tells, or, until that is complete, what was remembered. Pure.
//!
//! Holds that nothing is answered from half a list: a grant that was not read yet would look like one
//! that is not there; and that a complete list takes the place of all that was remembered.

use std::time::Duration;

use super::touched::Touched;
use super::world::{Batch, World};

/// The objects.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// As the source told until now.
    current: World,
    /// As a process before this one knew it.
    remembered: Option<World>,
    /// Whether the source told everything once.
    complete: bool,
    /// Whether what is remembered is to be gone by meanwhile.
    recalled: bool,
}

impl Knowledge {
    /// With a memory, which does not count before it is recalled.
    #[must_use]
    pub fn new(remembered: Option<World>) -> Self {
        Self {
            remembered,
            ..Self::default()
        }
    }

    /// Takes changes over at `now` (since the epoch); notes what they bear on.
    pub fn take(&mut self, batch: Batch, now: Duration, touched: &mut Touched) {
        for change in batch.changes {
            self.current.change(change, now, touched);
        }
        if batch.complete && !self.complete {
            self.complete = true;
            if let Some(remembered) = self.remembered.take() {
                self.current.remember_first_sight(&remembered);
            }
            *touched = Touched::all();
        }
    }

    /// The source takes long: goes by the memory until then; whether there is one.
    pub fn recall(&mut self, touched: &mut Touched) -> bool {
        self.recalled = !self.complete && self.remembered.is_some();
        if self.recalled {
            *touched = Touched::all();
        }
        self.recalled
    }

    /// What is to be gone by; `None` while nobody can be answered.
    #[must_use]
    pub fn world(&self) -> Option<&World> {
        if self.complete {
            return Some(&self.current);
        }
        self.remembered.as_ref().filter(|_| self.recalled)
    }

    /// Whether the source has told everything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{binding, identity, pod, world};
    use super::super::world::Change;
    use super::*;
    use crate::model::ids::ObjectName;

    const LATER: Duration = Duration::from_secs(100);

    fn batch(changes: Vec<Change>, complete: bool) -> Batch {
        Batch {
            changes,
            malformed: None,
            complete,
        }
    }

    #[test]
    fn half_a_list_is_not_believed() {
        let mut knowledge = Knowledge::new(None);
        let mut touched = Touched::default();
        let first = Change::Apply(pod("a", "p", "10.0.0.1", None));
        knowledge.take(batch(vec![first], false), LATER, &mut touched);
        assert!(knowledge.world().is_none());
        assert!(!knowledge.recall(&mut touched), "there is no memory");
        assert!(knowledge.world().is_none());
        knowledge.take(batch(vec![], true), LATER, &mut touched);
        assert_eq!(knowledge.world().unwrap().pods().count(), 1);
    }

    #[test]
    fn a_complete_list_takes_the_place_of_all_that_was_remembered() {
        let everyone = serde_json::json!([{"podSelector": {}}]);
        let old = world([
            pod("a", "gone", "10.0.0.1", None),
            identity("a", "id", 1),
            binding("a", "id", &everyone, false),
        ]);
        let mut knowledge = Knowledge::new(Some(old));
        let mut touched = Touched::default();
        assert!(knowledge.world().is_none(), "not recalled yet");
        assert!(knowledge.recall(&mut touched));
        assert_eq!(touched, Touched::all());
        assert_eq!(knowledge.world().unwrap().binding_count(), 1);
        let fresh = Change::Apply(identity("a", "id", 1));
        knowledge.take(batch(vec![fresh], false), LATER, &mut touched);
        assert_eq!(
            knowledge.world().unwrap().pods().count(),
            1,
            "until it is complete"
        );
        knowledge.take(batch(vec![], true), LATER, &mut touched);
        let now = knowledge.world().unwrap();
        assert_eq!((now.pods().count(), now.binding_count()), (0, 0));
        let known = now.identity(&ObjectName::new("a", "id")).unwrap();
        assert_eq!(
            known.first_seen.as_secs(),
            1,
            "it is known for longer than we live"
        );
    }
}
