//! The rules that this node should have, as data, and the script that brings them about.
//!
//! In: where the agent listens and its epoch. Out: [`DesiredTable`] values for `nat` and `filter`,
//! and, given what the node has, one `iptables-restore --noflush` script that replaces our chains
//! whole, table by table. Pure: no IO, no clock. Invariant: between the first laying and
//! `lanyard uninstall` no script of ours leaves a moment in which a pod's connection to the
//! metadata address is forwarded: `filter` (the door) comes before `nat` (the way in), and each
//! table is replaced in one transaction.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::drift::{Drift, DriftKind};
use super::save::{Rule, Ruleset};

/// The instance metadata service, the address that pods ask. Other ports of it are not IMDS.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The instance metadata service's only port.
pub const METADATA_PORT: u16 = 80;
/// The platform's wire server: node secrets on tcp 80 and 32526, DNS on 53 (never touched).
pub const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The wire server's ports that hand out goal states and extension settings.
pub const WIRE_SERVER_PORTS: [u16; 2] = [80, 32526];
/// What every chain of ours begins with; nothing else may.
pub const CHAIN_PREFIX: &str = "LANYARD-";

const NAT_CHAIN: &str = "LANYARD-PREROUTING";
const FILTER_CHAIN: &str = "LANYARD-FORWARD";

/// Whose rules these are: written as comment `lanyard:epoch=7 port=41234` beside the DNAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the instances that have laid rules on this node; the highest living one owns them.
    pub epoch: u64,
    /// The tcp port of that instance's listener on the agent's address.
    pub port: u16,
}

impl Stamp {
    /// The comment's text.
    pub fn comment(self) -> String {
        format!("lanyard:epoch={} port={}", self.epoch, self.port)
    }

    /// Reads a comment; `None` for anything that is not exactly ours.
    pub fn parse(comment: &str) -> Option<Self> {
        let (epoch, port) = comment
            .strip_prefix("lanyard:epoch=")?
            .split_once(" port=")?;
        let epoch = epoch
            .parse()
            .ok()
            .filter(|epoch| *epoch <= super::epoch::MAX_EPOCH)?;
        Some(Self {
            epoch,
            port: port.parse().ok()?,
        })
    }

    /// Whose rules `actual` holds, if any.
    pub fn in_force(actual: &Ruleset) -> Option<Self> {
        let chain = actual.table("nat")?.chain(NAT_CHAIN)?;
        chain
            .rules
            .iter()
            .find_map(|rule| Self::parse(rule.value("--comment")?))
    }
}

/// Traffic that a rule of somebody else's must not decide before ours does: tcp to these ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination.
    pub address: Ipv4Addr,
    /// Destination port.
    pub port: u16,
}

/// One table's share of the interception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredTable {
    /// `nat` or `filter`.
    pub table: &'static str,
    /// The built-in chain that our jump stands in.
    pub hook: &'static str,
    /// Our chain.
    pub chain: &'static str,
    /// The jump, without its chain, as `iptables-save` prints it.
    pub jump: String,
    /// Our chain's rules in order, likewise.
    pub rules: Vec<String>,
    /// What the chain is there for.
    pub flows: Vec<Flow>,
}

/// What both tables should hold. `nat` is absent for who may close the door but has no listener.
pub fn desired(agent: Option<(Ipv4Addr, Stamp)>, guard_wire_server: bool) -> Vec<DesiredTable> {
    let mut tables = vec![filter(guard_wire_server)];
    tables.extend(agent.map(|(address, stamp)| nat(address, stamp)));
    tables
}

fn to_port(address: Ipv4Addr, port: u16) -> String {
    format!("-d {address}/32 -p tcp -m tcp --dport {port}")
}

fn nat(address: Ipv4Addr, stamp: Stamp) -> DesiredTable {
    let rule = format!(
        "{} -m comment --comment \"{}\" -j DNAT --to-destination {address}:{}",
        to_port(METADATA_ADDRESS, METADATA_PORT),
        stamp.comment(),
        stamp.port,
    );
    DesiredTable {
        table: "nat",
        hook: "PREROUTING",
        chain: NAT_CHAIN,
        jump: format!(
            "-p tcp -m comment --comment \"lanyard: metadata requests go to the agent\" -j {NAT_CHAIN}"
        ),
        rules: vec![rule],
        flows: vec![Flow {
            address: METADATA_ADDRESS,
            port: METADATA_PORT,
        }],
    }
}

fn filter(guard_wire_server: bool) -> DesiredTable {
    let mut flows = vec![(METADATA_ADDRESS, METADATA_PORT, "no way around the agent")];
    if guard_wire_server {
        flows.extend(WIRE_SERVER_PORTS.map(|port| (WIRE_SERVER, port, "not for pods")));
    }
    let rules = flows.iter().map(|(address, port, why)| {
        format!(
            "{} -m comment --comment \"lanyard: {why}\" -j REJECT --reject-with tcp-reset",
            to_port(*address, *port),
        )
    });
    DesiredTable {
        table: "filter",
        hook: "FORWARD",
        chain: FILTER_CHAIN,
        jump: format!(
            "-p tcp -m comment --comment \"lanyard: platform endpoints are closed to pods\" -j {FILTER_CHAIN}"
        ),
        rules: rules.collect(),
        flows: flows
            .iter()
            .map(|(address, port, _)| Flow {
                address: *address,
                port: *port,
            })
            .collect(),
    }
}

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
                .filter(|drift| drift.table == want.table)
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

/// The rules of our hook that lead into our chain.
pub fn jumps<'a>(
    actual: &'a Ruleset,
    want: &DesiredTable,
) -> impl Iterator<Item = &'a Rule> + use<'a> {
    let chain = want.chain;
    let hook = actual
        .table(want.table)
        .and_then(|table| table.chain(want.hook));
    hook.into_iter()
        .flat_map(|hook| &hook.rules)
        .filter(move |rule| rule.leads_to() == Some(chain))
}

/// A script that removes every rule and chain of ours that `actual` has, and nothing else; empty
/// when there are none. The second value says in words what it removes.
pub fn removal_script(actual: &Ruleset) -> (String, Vec<String>) {
    let (mut script, mut removed) = (String::new(), Vec::new());
    for (name, table) in actual.tables() {
        let ours: Vec<&str> = table
            .chains()
            .map(|(name, _)| name)
            .filter(|n| n.starts_with(CHAIN_PREFIX))
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
