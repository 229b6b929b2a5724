//! The scripts for `iptables-restore --noflush` that lay, mend and remove our rules.
//!
//! In: what should be, what is, and how they differ. Out: one script; each of its tables (each hook, where two
//! of one table differ) is one transaction. Pure. Invariant 2 (fail closed): between the first laying and `lanyard uninstall` no
//! script of ours leaves a moment in which a pod's connection to the metadata address is forwarded:
//! the door comes before the way in (the order of [`super::rules::desired`]), and a chain is
//! replaced whole.

use std::fmt::Write as _;

use super::drift::{Drift, DriftKind};
use super::rules::{CHAIN_PREFIX, DesiredTable, jumps};
use super::save::Ruleset;

/// A script for `iptables-restore --noflush` that undoes `drifts`; empty when there are none.
///
/// `actual` must be what the node has now: the script deletes the jumps that it saw there, and
/// fails as a whole (per table) when they have changed meanwhile; read again, then.
pub fn repair_script(desired: &[DesiredTable], actual: &Ruleset, drifts: &[Drift]) -> String {
    let mut script = String::new();
    for want in desired {
        let kinds = || {
            drifts
                .iter()
                .filter(|drift| (drift.table, drift.hook) == (want.table, want.hook))
                .map(|d| d.kind)
        };
        if kinds().next().is_none() {
            continue;
        }
        let _ = writeln!(script, "*{}\n:{} - [0:0]", want.table, want.chain);
        for rule in &want.rules {
            let _ = writeln!(script, "-A {} {rule}", want.chain);
        }
        if kinds().any(DriftKind::concerns_jump) {
            for jump in jumps(actual, want) {
                let _ = writeln!(script, "-D {} {}", want.hook, jump.text);
            }
            let _ = writeln!(script, "-I {} 1 {}", want.hook, want.jump);
        }
        script.push_str("COMMIT\n");
    }
    script
}

/// A script that removes every rule and chain of ours that `actual` has, and nothing else; empty
/// when there are none. The second value says in words what it removes.
pub fn removal_script(actual: &Ruleset) -> (String, Vec<String>) {
    removal(actual, |_, chain| chain.starts_with(CHAIN_PREFIX))
}

/// The same for chains that nothing wants any more, of an agent that was told otherwise.
pub fn leftover_script(desired: &[DesiredTable], actual: &Ruleset) -> (String, Vec<String>) {
    removal(actual, |table, chain| {
        let is_wanted = |want: &DesiredTable| (want.table, want.chain) == (table, chain);
        chain.starts_with(CHAIN_PREFIX) && !desired.iter().any(is_wanted)
    })
}

/// Removes these chains, by table and name, and what leads to them.
fn removal(actual: &Ruleset, goes: impl Fn(&str, &str) -> bool) -> (String, Vec<String>) {
    let (mut script, mut removed) = (String::new(), Vec::new());
    for (name, table) in actual.tables() {
        let ours: Vec<&str> = table
            .chains()
            .map(|(chain, _)| chain)
            .filter(|chain| goes(name, chain))
            .collect();
        let mut lines = String::new();
        for (chain, rules) in table.chains().map(|(name, chain)| (name, &chain.rules)) {
            if ours.contains(&chain) {
                continue;
            }
            for rule in rules
                .iter()
                .filter(|r| r.leads_to().is_some_and(|to| ours.contains(&to)))
            {
                let _ = writeln!(lines, "-D {chain} {}", rule.text);
                removed.push(format!("{name}: rule of {chain}: {}", rule.text));
            }
        }
        for chain in &ours {
            let _ = writeln!(lines, "-F {chain}");
        }
        for chain in &ours {
            let _ = writeln!(lines, "-X {chain}");
            removed.push(format!("{name}: chain {chain}"));
        }
        if !lines.is_empty() {
            let _ = write!(script, "*{name}\n{lines}COMMIT\n");
        }
    }
    (script, removed)
}

#[cfg(test)]
mod tests;
