//! Which of the two iptables backends this node uses.
//!
//! In: what each backend shows (or why it cannot). Out: a [`Decision`] with its reason, for the
//! log. Pure.
//! Rules in a backend that the node does not use still work, yet their place among the others'
//! cannot be judged: hence the node's own choice, the one where kubelet and the CNI have rules.

use std::fmt;
use std::str::FromStr;

use super::InterceptError;
use super::rules::CHAIN_PREFIX;
use super::save::Ruleset;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft`: rules live in nftables.
    Nft,
    /// `iptables-legacy`: the kernel's older tables.
    Legacy,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// The program that prints rules.
    pub const fn save_program(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft-save",
            Self::Legacy => "iptables-legacy-save",
        }
    }

    /// The program that writes them.
    pub const fn restore_program(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft-restore",
            Self::Legacy => "iptables-legacy-restore",
        }
    }

    /// The one that is not this.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// `--iptables-backend`: `auto`, `nft` or `legacy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The one that the node uses.
    #[default]
    Auto,
    /// This one.
    Forced(Backend),
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "nft" => Ok(Self::Forced(Backend::Nft)),
            "legacy" => Ok(Self::Forced(Backend::Legacy)),
            other => Err(format!("`{other}` is none of auto, nft, legacy")),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Forced(backend) => backend.fmt(f),
        }
    }
}

/// A backend and why it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backend.
    pub backend: Backend,
    /// For the log.
    pub why: String,
}

/// What a backend shows, or why it cannot be used.
pub type Listing = Result<Ruleset, String>;

/// Decides. `Err` when neither can be used.
pub fn decide(nft: &Listing, legacy: &Listing) -> Result<Decision, InterceptError> {
    let decided = |backend, why: String| Ok(Decision { backend, why });
    let (nft, legacy) = match (usable(nft), usable(legacy)) {
        (Ok(nft), Ok(legacy)) => (nft, legacy),
        (Ok(_), Err(why)) => return decided(Backend::Nft, format!("legacy cannot be used: {why}")),
        (Err(why), Ok(_)) => return decided(Backend::Legacy, format!("nft cannot be used: {why}")),
        (Err(nft), Err(legacy)) => return Err(InterceptError::NoBackend { nft, legacy }),
    };
    match (kubelet_uses(nft), kubelet_uses(legacy)) {
        (true, false) => return decided(Backend::Nft, "kubelet's chains are there".to_owned()),
        (false, true) => return decided(Backend::Legacy, "kubelet's chains are there".to_owned()),
        _ => {}
    }
    let (in_nft, in_legacy) = (foreign_rules(nft), foreign_rules(legacy));
    let counts = format!("{in_nft} rules of others in nft, {in_legacy} in legacy");
    decided(
        if in_legacy > in_nft {
            Backend::Legacy
        } else {
            Backend::Nft
        },
        counts,
    )
}

fn usable(listing: &Listing) -> Result<&Ruleset, String> {
    let ruleset = listing.as_ref().map_err(Clone::clone)?;
    match ruleset
        .incompatible
        .iter()
        .find(|name| ["nat", "filter"].contains(&name.as_str()))
    {
        None => Ok(ruleset),
        Some(name) => Err(format!(
            "table {name} holds native nft rules that iptables cannot show"
        )),
    }
}

/// Kubelet makes these chains for exactly this question, in the backend of the node.
fn kubelet_uses(ruleset: &Ruleset) -> bool {
    let hints = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
    ruleset
        .tables()
        .any(|(_, table)| hints.iter().any(|hint| table.chain(hint).is_some()))
}

fn foreign_rules(ruleset: &Ruleset) -> usize {
    let chains = ruleset.tables().flat_map(|(_, table)| table.chains());
    let foreign = chains.filter(|(name, _)| !name.starts_with(CHAIN_PREFIX));
    let rules = foreign.flat_map(|(_, chain)| &chain.rules);
    rules
        .filter(|rule| {
            !rule
                .leads_to()
                .is_some_and(|to| to.starts_with(CHAIN_PREFIX))
        })
        .count()
}

#[cfg(test)]
mod tests;
