//! The rules that this node should have, as data.
//!
//! In: where the agent listens and its epoch. Out: [`DesiredTable`] values for `filter`, `security`
//! and `nat`. Pure: no IO, no clock. Invariant 2 (fail closed): `filter`, the door, comes before `nat`,
//! the way in, and does not need a listener. `security` is the bolt behind the door: who flushes or
//! restores `nat` and `filter` in one go, as people and programs do, opens nothing until the repair.

use std::net::Ipv4Addr;

use super::save::{Flow, Rule, Ruleset};

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

/// What sockets are marked with that our rules for host-network pods let pass: the agent's own to IMDS. None of its
/// bits is one that kube-proxy (14, 15), Cilium (8 to 11, 16 and up) or Calico (16 and up) looks at; as few are left as would
/// be guessed in a moment, so it is no secret, and alone lets nobody pass: see [`Hosts::group`].
pub const AGENT_MARK: u32 = 0x4c;

const NAT_CHAIN: &str = "LANYARD-PREROUTING";
const FORWARD_CHAIN: &str = "LANYARD-FORWARD";
const OUTPUT_CHAIN: &str = "LANYARD-OUTPUT";
/// The table whose FORWARD comes after `filter`'s. Hardly anybody else has rules in it, and not every
/// kernel has it.
pub const BOLT: &str = "security";

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

/// One table's share of the interception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredTable {
    /// `filter`, `security` or `nat`.
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

/// A cgroup whose sockets are host-network pods'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsCgroup {
    /// Its path in the hierarchy, as `iptables -m cgroup --path` takes it.
    pub path: String,
    /// The number of its inode. The kernel binds a rule to the cgroup that has the path when it is laid: where
    /// another one has it later the rule matches nothing, and looks the same.
    pub id: u64,
}

/// How host-network pods are told from the node's own programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Where their sockets are.
    pub cgroups: Vec<PodsCgroup>,
    /// The group that made the agent's own sockets. Any pod with `NET_RAW` may mark its sockets as the agent's are; this it would
    /// have to know.
    pub group: u32,
    /// The port of their own listener at the agent's address: whoever comes there by the rules is one of them.
    pub port: u16,
}

/// What the tables should hold. `nat` is absent for who may close the door but has no listener, and OUTPUT
/// where host-network pods are not told apart.
pub fn desired(
    agent: Option<(Ipv4Addr, Stamp)>,
    guard_wire_server: bool,
    hosts: Option<&Hosts>,
) -> Vec<DesiredTable> {
    let reject = "REJECT --reject-with tcp-reset";
    let mut tables = vec![
        forward("filter", reject, guard_wire_server),
        forward(BOLT, "DROP", guard_wire_server),
    ];
    if let Some(hosts) = hosts {
        tables.push(output("filter", "closed to pods", hosts, reject));
        tables.push(output(BOLT, "closed to pods", hosts, "DROP"));
    }
    if let Some((address, stamp)) = agent {
        tables.push(nat(address, stamp));
        tables.extend(hosts.map(|hosts| {
            let verdict = format!("DNAT --to-destination {address}:{}", hosts.port);
            output("nat", "goes to the agent", hosts, &verdict)
        }));
    }
    tables
}

/// What the tables should hold where the agent only observes: the way in, and an open door. Our
/// chains stay there, empty, so that closing and opening are the same repair.
pub fn desired_open(agent: Option<(Ipv4Addr, Stamp)>, hosts: Option<&Hosts>) -> Vec<DesiredTable> {
    let mut tables = desired(agent, false, hosts);
    for table in &mut tables {
        if table.table != "nat" {
            table.rules.clear();
            table.flows.clear();
        }
    }
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

fn forward(table: &'static str, verdict: &str, guard_wire_server: bool) -> DesiredTable {
    let mut flows = vec![(METADATA_ADDRESS, METADATA_PORT, "no way around the agent")];
    if guard_wire_server {
        flows.extend(WIRE_SERVER_PORTS.map(|port| (WIRE_SERVER, port, "not for pods")));
    }
    let rules = flows.iter().map(|(address, port, why)| {
        format!(
            "{} -m comment --comment \"lanyard: {why}\" -j {verdict}",
            to_port(*address, *port),
        )
    });
    DesiredTable {
        table,
        hook: "FORWARD",
        chain: FORWARD_CHAIN,
        jump: format!(
            "-p tcp -m comment --comment \"lanyard: platform endpoints are closed to pods\" -j {FORWARD_CHAIN}"
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

/// What host-network pods' sockets send to IMDS, and not the agent's own.
fn output(table: &'static str, why: &str, hosts: &Hosts, verdict: &str) -> DesiredTable {
    let flow = to_port(METADATA_ADDRESS, METADATA_PORT);
    let own = format!(
        "{flow} -m mark --mark {AGENT_MARK:#x} -m owner --gid-owner {} -m comment --comment \"lanyard: the agent's own\" -j RETURN",
        hosts.group
    );
    let theirs = hosts.cgroups.iter().map(|PodsCgroup { path, id }| {
        format!(
            "{flow} -m cgroup --path {path} -m comment --comment \"lanyard: {why}, cgroup {id}\" -j {verdict}",
        )
    });
    DesiredTable {
        table,
        hook: "OUTPUT",
        chain: OUTPUT_CHAIN,
        jump: format!(
            "-p tcp -m comment --comment \"lanyard: host-network pods' metadata requests\" -j {OUTPUT_CHAIN}"
        ),
        rules: std::iter::once(own).chain(theirs).collect(),
        flows: vec![Flow {
            address: METADATA_ADDRESS,
            port: METADATA_PORT,
        }],
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_server_is_guarded_unless_told_otherwise_and_its_dns_never() {
        let rules = |guard| desired(None, guard, None).remove(0).rules.join("\n");
        assert!(rules(true).contains("168.63.129.16/32 -p tcp -m tcp --dport 80 "));
        assert!(rules(true).contains("168.63.129.16/32 -p tcp -m tcp --dport 32526 "));
        assert!(!rules(true).contains("--dport 53"));
        assert!(!rules(false).contains("168.63.129.16"));
        assert!(rules(false).contains("169.254.169.254/32"));
    }

    #[test]
    fn an_open_door_refuses_nothing_and_the_way_in_is_the_same() {
        let stamp = Stamp {
            epoch: 1,
            port: 4000,
        };
        let agent = Some((Ipv4Addr::new(169, 254, 169, 252), stamp));
        let (open, closed) = (desired_open(agent, None), desired(agent, true, None));
        for (at, table) in ["filter", "security"].into_iter().enumerate() {
            assert!(open[at].table == table && open[at].rules.is_empty());
            assert_eq!(
                (&open[at].chain, &open[at].jump),
                (&closed[at].chain, &closed[at].jump)
            );
        }
        assert_eq!(open[2], closed[2]);
    }

    #[test]
    fn who_has_no_listener_closes_the_door_and_lays_no_way_in() {
        let tables: Vec<_> = desired(None, true, None)
            .iter()
            .map(|want| want.table)
            .collect();
        assert_eq!(tables, ["filter", "security"]);
    }

    #[test]
    fn host_network_pods_are_matched_by_cgroup_and_the_agent_passes_by_mark_and_group() {
        let stamp = Stamp {
            epoch: 1,
            port: 4000,
        };
        let hosts = Hosts {
            cgroups: vec![PodsCgroup {
                path: "kubepods.slice".to_owned(),
                id: 77,
            }],
            group: 3_000_000_000,
            port: 4001,
        };
        let agent = Some((Ipv4Addr::new(169, 254, 169, 252), stamp));
        let tables = desired(agent, true, Some(&hosts));
        let places: Vec<_> = tables.iter().map(|want| (want.table, want.hook)).collect();
        assert_eq!(
            places,
            [
                ("filter", "FORWARD"),
                ("security", "FORWARD"),
                ("filter", "OUTPUT"),
                ("security", "OUTPUT"),
                ("nat", "PREROUTING"),
                ("nat", "OUTPUT"),
            ],
            "doors come before ways in"
        );
        let rules = |at: usize| tables[at].rules.join("\n");
        for at in [2, 3, 5] {
            let [own, theirs] = &*tables[at].rules else {
                panic!("{:?}", tables[at].rules)
            };
            assert!(own.contains(" -m mark --mark 0x4c -m owner --gid-owner 3000000000 "));
            assert!(own.ends_with("-j RETURN"), "{own}");
            assert!(
                theirs.contains(" -m cgroup --path kubepods.slice "),
                "{theirs}"
            );
            assert!(theirs.contains("cgroup 77\""));
        }
        assert!(rules(5).ends_with("-j DNAT --to-destination 169.254.169.252:4001"));
        assert!(rules(2).ends_with("-j REJECT --reject-with tcp-reset"));
        // Of them the wire server is not closed: the node's network may be set up by one.
        assert!(!rules(2).contains("168.63.129.16"));
        let open = desired_open(agent, Some(&hosts));
        assert!(open[2].rules.is_empty() && !open[5].rules.is_empty());
        assert_eq!(desired(None, true, Some(&hosts)).len(), 4, "no way in");
    }

    #[test]
    fn a_stamp_is_read_back_and_nothing_else_is() {
        let stamp = Stamp {
            epoch: 12,
            port: 80,
        };
        assert_eq!(Stamp::parse(&stamp.comment()), Some(stamp));
        for wrong in [
            "",
            "lanyard:epoch=1",
            "lanyard:epoch=x port=1",
            "lanyard:epoch=1 port=70000",
        ] {
            assert_eq!(Stamp::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            Stamp::parse(&format!("lanyard:epoch={} port=1", u64::MAX)),
            None
        );
    }
}
