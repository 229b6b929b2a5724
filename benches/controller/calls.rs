//! What ARM was asked, by what it was about: its journal → counts.

use std::collections::BTreeMap;

use lanyard::sim::Entry;
use lanyard::sim::journal::Listener;

/// Calls about one scale set.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfSet {
    pub patches: usize,
    pub gets: usize,
    pub polls: usize,
}

/// All calls.
#[derive(Debug, Default)]
pub struct Calls {
    pub sets: BTreeMap<String, OfSet>,
    /// GETs of identities.
    pub identities: usize,
    /// Answers with 429.
    pub throttled: usize,
    /// What is none of the above.
    pub others: usize,
}

impl Calls {
    pub fn of(journal: &[Entry]) -> Self {
        let mut calls = Self::default();
        let mut operations: BTreeMap<&str, String> = BTreeMap::new();
        for entry in journal {
            let Some(arm) = entry
                .arm
                .as_ref()
                .filter(|_| entry.listener == Listener::Arm)
            else {
                continue;
            };
            calls.throttled += usize::from(entry.status == Some(429));
            let name = arm.name.to_ascii_lowercase();
            let kind = arm.kind.to_ascii_lowercase();
            match (kind.as_str(), entry.method.as_str()) {
                ("virtualmachinescalesets", "PATCH") => {
                    if let Some(operation) = &arm.operation {
                        operations.insert(operation, name.clone());
                    }
                    calls.sets.entry(name).or_default().patches += 1;
                }
                ("virtualmachinescalesets", "GET") => calls.sets.entry(name).or_default().gets += 1,
                ("operations", _) => match operations.get(arm.name.as_str()) {
                    Some(set) => calls.sets.entry(set.clone()).or_default().polls += 1,
                    None => calls.others += 1,
                },
                ("userassignedidentities", "GET") => calls.identities += 1,
                _ => calls.others += 1,
            }
        }
        calls
    }

    pub fn patches(&self) -> usize {
        self.sets.values().map(|set| set.patches).sum()
    }

    /// The most of a scale set, and the mean.
    pub fn each(&self, of: impl Fn(&OfSet) -> usize) -> (usize, f64) {
        let counts: Vec<usize> = self.sets.values().map(of).collect();
        let most = counts.iter().copied().max().unwrap_or_default();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64;
        (most, mean)
    }
}
