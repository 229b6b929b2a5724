//! What of the desired rules is not so on this node.
//!
//! In: [`DesiredTable`]s and what the node has. Out: a list of [`Drift`], empty when all is well.
//! Pure. What counts is what a packet would meet: our chains complete and in order, one jump into
//! each, and nothing before that jump that could decide about our traffic. Where a rule's effect
//! is not certain it counts as deciding: a repair too many costs a process, one too few a token.

use std::collections::BTreeSet;

use super::rules::{DesiredTable, jumps};
use super::save::{Flow, Rule, Ruleset, Table};

/// One difference, in one hook of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// `nat`, `filter`, or `lo` for the address.
    pub table: &'static str,
    /// The built-in chain that it is about; empty for the address.
    pub hook: &'static str,
    /// Which difference.
    pub kind: DriftKind,
}

/// The closed list of differences; also the label of the repair metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    /// Our chain is gone.
    ChainMissing,
    /// Our chain has other rules than ours.
    ChainChanged,
    /// Nothing leads into our chain.
    JumpMissing,
    /// A rule before our jump may decide about our traffic.
    JumpShadowed,
    /// The jump has changed, or stands there twice.
    JumpChanged,
    /// The agent's address is not on `lo`.
    AddressMissing,
    /// The rules are another instance's, and that one is dead.
    HolderDead,
}

impl DriftKind {
    /// All of them, for metrics that exist from the start.
    pub const ALL: [Self; 7] = [
        Self::ChainMissing,
        Self::ChainChanged,
        Self::JumpMissing,
        Self::JumpShadowed,
        Self::JumpChanged,
        Self::AddressMissing,
        Self::HolderDead,
    ];

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChainMissing => "chain_missing",
            Self::ChainChanged => "chain_changed",
            Self::JumpMissing => "jump_missing",
            Self::JumpShadowed => "jump_shadowed",
            Self::JumpChanged => "jump_changed",
            Self::AddressMissing => "address_missing",
            Self::HolderDead => "holder_dead",
        }
    }

    /// Whether mending it means to put the jump anew.
    pub const fn concerns_jump(self) -> bool {
        matches!(
            self,
            Self::JumpMissing | Self::JumpShadowed | Self::JumpChanged
        )
    }
}

/// Compares; see the module for what counts.
pub fn drift(desired: &[DesiredTable], actual: &Ruleset) -> Vec<Drift> {
    let mut drifts = Vec::new();
    let possible = |want: &&DesiredTable| !actual.lacking.contains(&want.table);
    for want in desired.iter().filter(possible) {
        let mut found = |kind| {
            drifts.push(Drift {
                table: want.table,
                hook: want.hook,
                kind,
            });
        };
        let table = actual.table(want.table);
        match table.and_then(|table| table.chain(want.chain)) {
            None => found(DriftKind::ChainMissing),
            Some(chain) if !same_rules(&chain.rules, &want.rules) => found(DriftKind::ChainChanged),
            Some(_) => {}
        }
        if let Some(kind) = jump_drift(want, actual) {
            found(kind);
        }
    }
    drifts
}

fn same_rules(actual: &[Rule], desired: &[String]) -> bool {
    actual.len() == desired.len()
        && actual
            .iter()
            .zip(desired)
            .all(|(is, want)| is.same_as(&Rule::parse(want)))
}

fn jump_drift(want: &DesiredTable, actual: &Ruleset) -> Option<DriftKind> {
    let wanted = Rule::parse(&want.jump);
    let mut found = jumps(actual, want);
    let first = match (found.next(), found.next()) {
        (None, _) => return Some(DriftKind::JumpMissing),
        (Some(jump), None) if jump.same_as(&wanted) => jump,
        _ => return Some(DriftKind::JumpChanged),
    };
    let table = actual.table(want.table)?;
    let before = table
        .chain(want.hook)?
        .rules
        .iter()
        .take_while(|rule| !std::ptr::eq(*rule, first));
    let decided = |flow: &Flow| {
        before
            .clone()
            .any(|rule| decides(table, rule, *flow, true, &mut BTreeSet::new()))
    };
    want.flows
        .iter()
        .any(decided)
        .then_some(DriftKind::JumpShadowed)
}

/// Targets that let the packet go on to the next rule.
const PASSING: [&str; 14] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "DSCP",
    "LOG",
    "MARK",
    "NFLOG",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TOS",
    "TRACE",
];

/// Whether `rule` may end the way of a packet of `flow` before it comes to what follows the rule.
fn decides<'a>(
    table: &'a Table,
    rule: &'a Rule,
    flow: Flow,
    in_hook: bool,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    // Without a target a rule only counts.
    let Some(target) = rule.leads_to() else {
        return false;
    };
    if !rule.may_match(flow) || PASSING.contains(&target) {
        return false;
    }
    // From the hook a goto or a return leads to the policy; from a chain that was called, back.
    if rule.is_goto() && in_hook {
        return true;
    }
    if target == "RETURN" {
        return in_hook;
    }
    match table.chain(target) {
        Some(chain) if !chain.built_in => {
            seen.insert(target)
                && chain
                    .rules
                    .iter()
                    .any(|rule| decides(table, rule, flow, false, seen))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
