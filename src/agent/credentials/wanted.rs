//! Which Secrets are to be read: a bounded set, with a number for each that changes when it must be read
//! anew. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::ObjectName;

/// The Secrets that are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    secrets: BTreeMap<ObjectName, u64>,
    /// Never used twice: what went and came back is read again.
    number: u64,
}

impl Wanted {
    /// More Secrets than this are not followed: each is a watch.
    pub const MOST: usize = 256;

    /// Exactly `needed` are to be followed, and `anew` of them read again. Those that are followed
    /// stay; the others in the order of their names. What found no place comes back.
    pub fn update(
        &mut self,
        needed: &BTreeSet<ObjectName>,
        anew: &BTreeSet<ObjectName>,
    ) -> Vec<ObjectName> {
        self.secrets.retain(|secret, _| needed.contains(secret));
        let mut over = Vec::new();
        for secret in needed {
            let is_followed = self.secrets.contains_key(secret);
            if is_followed && !anew.contains(secret) {
                continue;
            }
            if !is_followed && self.secrets.len() >= Self::MOST {
                over.push(secret.clone());
                continue;
            }
            self.number += 1;
            self.secrets.insert(secret.clone(), self.number);
        }
        over
    }

    /// The Secrets, each with its number: another number, and it is to be read again.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, u64)> {
        self.secrets
            .iter()
            .map(|(secret, number)| (secret, *number))
    }

    /// A Secret's number; `None`: it is not wanted.
    #[must_use]
    pub fn get(&self, secret: &ObjectName) -> Option<u64> {
        self.secrets.get(secret).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> BTreeSet<ObjectName> {
        range
            .map(|n| ObjectName::new("a", format!("{n:04}")))
            .collect()
    }

    #[test]
    fn what_is_followed_stays_and_the_rest_has_the_room_that_is_left() {
        let mut wanted = Wanted::default();
        assert!(wanted.update(&names(100..356), &names(100..356)).is_empty());
        let over = wanted.update(&names(98..356), &names(98..100));
        assert_eq!(over.len(), 2);
        assert!(over.iter().all(|secret| wanted.get(secret).is_none()));
        assert!(wanted.update(&names(0..3), &names(0..0)).is_empty());
        assert_eq!(wanted.iter().count(), 3);
    }

    #[test]
    fn what_is_to_be_read_anew_has_another_number() {
        let mut wanted = Wanted::default();
        wanted.update(&names(0..2), &names(0..2));
        let before = wanted.clone();
        wanted.update(&names(0..2), &names(0..0));
        assert_eq!(wanted, before);
        wanted.update(&names(0..2), &names(1..2));
        let differs: Vec<_> = wanted
            .iter()
            .filter(|(name, n)| before.get(name) != Some(*n))
            .collect();
        assert_eq!(differs.len(), 1);
        wanted.update(&names(1..2), &names(0..0));
        wanted.update(&names(0..2), &names(0..1));
        let name = ObjectName::new("a", "0000");
        assert_ne!(
            wanted.get(&name),
            before.get(&name),
            "it went and came back"
        );
    }
}
