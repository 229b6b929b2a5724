//! Which identities spoil a change? Pure.
//!
//! Azure takes a PATCH as a whole or not at all. Where its words name the identities that it minds, those
//! are set aside. Where they name none, the change is halved until the culprit is alone: about
//! log2(n) requests, and the halves that Azure takes are done with.

use std::collections::BTreeSet;

use crate::controller::plan::Patch;
use crate::model::ids::ArmId;

/// What is known of where the culprits are.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// At least one of these is a culprit; empty: nothing is suspected.
    suspects: BTreeSet<ArmId>,
    /// Whether Azure took anything since the search began: then it is not the compute resource itself.
    took_some: bool,
    /// From which end halves are taken: another one after a search that ended in nothing.
    from_the_end: bool,
}

/// What a refusal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These are set aside, the others are tried at once.
    Culprits(BTreeSet<ArmId>),
    /// A smaller part is tried next.
    Smaller,
    /// Whatever is asked is refused: it is about the compute resource as a whole.
    Everything,
}

impl Search {
    /// The part of a change to ask for next, of at most `most` identities.
    #[must_use]
    pub fn part(&mut self, patch: &Patch, most: usize) -> Patch {
        let all: BTreeSet<ArmId> = patch.add.union(&patch.remove).cloned().collect();
        self.suspects = self.suspects.intersection(&all).cloned().collect();
        let chosen: BTreeSet<ArmId> = if self.suspects.is_empty() {
            // What goes makes room for what comes.
            let order = patch.remove.iter().chain(&patch.add);
            order.take(most).cloned().collect()
        } else {
            let half = self.suspects.len().div_ceil(2).min(most);
            let suspects = self.suspects.iter().cloned();
            if self.from_the_end {
                suspects.rev().take(half).collect()
            } else {
                suspects.take(half).collect()
            }
        };
        Patch {
            add: patch.add.intersection(&chosen).cloned().collect(),
            remove: patch.remove.intersection(&chosen).cloned().collect(),
        }
    }

    /// Azure took a part. A single suspect that is left is the culprit.
    pub fn took(&mut self, part: &Patch) -> Option<ArmId> {
        if self.suspects.is_empty() {
            return None;
        }
        self.took_some = true;
        let taken: BTreeSet<&ArmId> = part.add.union(&part.remove).collect();
        self.suspects.retain(|id| !taken.contains(id));
        if self.suspects.len() == 1 {
            let culprit = self.suspects.pop_first();
            self.end();
            return culprit;
        }
        None
    }

    /// Azure refused a part, and named these. `is_about_identities`: its words say that identities are
    /// what it minds, though maybe not which.
    pub fn refused(&mut self, part: &Patch, named: &[ArmId], is_about_identities: bool) -> Verdict {
        let all: BTreeSet<ArmId> = part.add.union(&part.remove).cloned().collect();
        let named: BTreeSet<ArmId> = named
            .iter()
            .filter(|id| all.contains(*id))
            .cloned()
            .collect();
        if !named.is_empty() {
            // The rest of the suspects may be innocent: the next request tells.
            self.end();
            return Verdict::Culprits(named);
        }
        if all.len() > 1 {
            self.suspects = all;
            return Verdict::Smaller;
        }
        let took_some = self.took_some;
        self.end();
        if is_about_identities || took_some {
            return Verdict::Culprits(all);
        }
        self.from_the_end = !self.from_the_end;
        Verdict::Everything
    }

    fn end(&mut self) {
        self.suspects.clear();
        self.took_some = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ArmId {
        format!("/subscriptions/s/resourceGroups/g/providers/x/i{n:03}")
            .parse()
            .unwrap()
    }

    fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<ArmId> {
        numbers.into_iter().map(id).collect()
    }

    /// Searches as a worker does; gives the culprits and the number of requests.
    fn search(
        count: usize,
        bad: &BTreeSet<ArmId>,
        about_identities: bool,
    ) -> (BTreeSet<ArmId>, usize) {
        let (mut search, mut open) = (Search::default(), ids(0..count));
        let (mut culprits, mut requests) = (BTreeSet::new(), 0);
        while !open.is_empty() && requests < 200 {
            let patch = Patch {
                add: open.clone(),
                remove: BTreeSet::new(),
            };
            let part = search.part(&patch, 150);
            assert!(!part.add.is_empty() && part.add.len() <= 150);
            requests += 1;
            if part.add.is_disjoint(bad) {
                open = open.difference(&part.add).cloned().collect();
                if let Some(culprit) = search.took(&part) {
                    open.remove(&culprit);
                    culprits.insert(culprit);
                }
                continue;
            }
            match search.refused(&part, &[], about_identities) {
                Verdict::Smaller => {}
                Verdict::Everything => break,
                Verdict::Culprits(found) => {
                    open = open.difference(&found).cloned().collect();
                    culprits.extend(found);
                }
            }
        }
        (culprits, requests)
    }

    #[test]
    fn one_among_many_is_found_wherever_it_is() {
        for at in 0..20 {
            let (culprits, requests) = search(20, &ids([at]), true);
            assert_eq!(culprits, ids([at]));
            assert!(requests <= 8, "{requests} requests for {at}");
        }
        for at in [0, 77, 149] {
            let (culprits, requests) = search(150, &ids([at]), true);
            assert_eq!(culprits, ids([at]));
            assert!(requests <= 11, "{requests}");
        }
    }

    #[test]
    fn several_are_found_and_all_the_others_are_taken() {
        let bad = ids([3, 4, 17, 160]);
        let (culprits, requests) = search(200, &bad, true);
        assert_eq!(culprits, bad);
        assert!(requests <= 36, "{requests}");
    }

    #[test]
    fn a_refusal_of_everything_is_not_blamed_on_single_identities() {
        let all = ids(0..20);
        let (culprits, requests) = search(20, &all, false);
        assert_eq!(culprits, BTreeSet::new());
        assert!(requests <= 6, "{requests}");
    }

    #[test]
    fn named_ones_are_set_aside_at_once_and_names_of_others_do_not_count() {
        let mut search = Search::default();
        let part = Patch {
            add: ids(0..20),
            remove: BTreeSet::new(),
        };
        let verdict = search.refused(&part, &[id(7), id(99)], true);
        assert_eq!(verdict, Verdict::Culprits(ids([7])));
        assert_eq!(search.refused(&part, &[id(99)], true), Verdict::Smaller);
    }

    #[test]
    fn what_goes_is_in_the_first_part() {
        let patch = Patch {
            add: ids(0..200),
            remove: ids(500..510),
        };
        let part = Search::default().part(&patch, 150);
        assert_eq!((part.remove.len(), part.add.len()), (10, 140));
    }
}
