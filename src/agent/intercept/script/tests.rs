use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::drift::drift;
use super::super::rules::{Hosts, PodsCgroup, Stamp, desired};
use super::*;

const AGENT: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 252);

fn ours() -> Vec<DesiredTable> {
    desired(
        Some((
            AGENT,
            Stamp {
                epoch: 7,
                port: 41234,
            },
        )),
        true,
        Some(&hosts()),
    )
}

fn hosts() -> Hosts {
    let cgroup = |path: &str, id| PodsCgroup {
        path: path.to_owned(),
        id,
    };
    Hosts {
        cgroups: vec![cgroup("kubepods", 1), cgroup("kubepods.slice", 2)],
        group: 3_000_000_000,
        port: 41235,
    }
}

/// A node's tables as far as `iptables-restore --noflush` is concerned.
#[derive(Clone, Debug, Default)]
struct Node {
    tables: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Node {
    fn append(&mut self, table: &str, chain: &str, rule: &str) {
        let chains = self.tables.entry(table.to_owned()).or_default();
        chains
            .entry(chain.to_owned())
            .or_default()
            .push(rule.to_owned());
    }

    fn restore(&mut self, script: &str) {
        let mut table = String::new();
        for line in script.lines() {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            let name = |at: usize| words[at].to_owned();
            let chains = self.tables.entry(table.clone()).or_default();
            match words[0] {
                "COMMIT" => {}
                "-A" => chains.entry(name(1)).or_default().push(name(2)),
                "-I" => chains
                    .get_mut(words[1])
                    .unwrap()
                    .insert(0, words[2][2..].to_owned()),
                "-D" => {
                    let rules = chains.get_mut(words[1]).unwrap();
                    let at = rules.iter().position(|rule| rule == words[2]);
                    rules.remove(at.expect("only what is there is deleted"));
                }
                "-F" => chains.get_mut(words[1]).unwrap().clear(),
                "-X" => drop(chains.remove(words[1])),
                other if other.starts_with('*') => {
                    other[1..].clone_into(&mut table);
                    let hook = if table == "nat" {
                        "PREROUTING"
                    } else {
                        "FORWARD"
                    };
                    let chains = self.tables.entry(table.clone()).or_default();
                    for hook in [hook, "OUTPUT"] {
                        chains.entry(hook.to_owned()).or_default();
                    }
                }
                other if other.starts_with(':') => {
                    drop(chains.insert(other[1..].to_owned(), vec![]));
                }
                other => panic!("unknown line {other}"),
            }
        }
        self.tables.retain(|name, _| !name.is_empty());
    }

    fn listing(&self) -> Ruleset {
        let mut text = String::new();
        for (table, chains) in &self.tables {
            let _ = writeln!(text, "*{table}");
            for chain in chains.keys() {
                let built_in = ["PREROUTING", "FORWARD", "OUTPUT"].contains(&chain.as_str());
                let _ = writeln!(
                    text,
                    ":{chain} {} [0:0]",
                    if built_in { "ACCEPT" } else { "-" }
                );
            }
            for (chain, rules) in chains {
                for rule in rules {
                    let _ = writeln!(text, "-A {chain} {rule}");
                }
            }
            text.push_str("COMMIT\n");
        }
        Ruleset::parse(&text)
    }
}

#[test]
fn an_empty_node_gets_the_door_before_the_way_in() {
    let (want, mut node) = (ours(), Node::default());
    let script = repair_script(&want, &node.listing(), &drift(&want, &node.listing()));
    assert!(script.find("*filter") < script.find("*nat"), "{script}");
    node.restore(&script);
    assert_eq!(drift(&want, &node.listing()), []);
    assert_eq!(
        Stamp::in_force(&node.listing()),
        Some(Stamp {
            epoch: 7,
            port: 41234
        })
    );
}

#[test]
fn a_takeover_replaces_our_chain_and_touches_no_jump() {
    let (old, mut node) = (ours(), Node::default());
    node.restore(&repair_script(
        &old,
        &node.listing(),
        &drift(&old, &node.listing()),
    ));
    let stamp = Stamp { epoch: 8, port: 5 };
    let new = desired(Some((AGENT, stamp)), true, Some(&hosts()));
    let script = repair_script(&new, &node.listing(), &drift(&new, &node.listing()));
    assert_eq!(
        script,
        "*nat\n:LANYARD-PREROUTING - [0:0]\n-A LANYARD-PREROUTING -d 169.254.169.254/32 -p tcp -m tcp \
         --dport 80 -m comment --comment \"lanyard:epoch=8 port=5\" -j DNAT --to-destination \
         169.254.169.252:5\nCOMMIT\n"
    );
}

/// The kernel has forgotten what a rule was bound to when another cgroup has the path.
#[test]
fn another_cgroup_under_the_same_path_is_drift_and_what_nobody_wants_goes() {
    let (want, mut node) = (ours(), Node::default());
    node.restore(&repair_script(
        &want,
        &node.listing(),
        &drift(&want, &node.listing()),
    ));
    let stamp = Stamp {
        epoch: 7,
        port: 41234,
    };
    let mut made_anew = hosts();
    made_anew.cgroups[0].id = 3;
    let anew = desired(Some((AGENT, stamp)), true, Some(&made_anew));
    let drifts = drift(&anew, &node.listing());
    assert_eq!(drifts.len(), 3);
    assert!(drifts.iter().all(|drift| drift.hook == "OUTPUT"));
    // An agent that tells no host-network pods apart takes those chains away, and no other.
    let without = desired(Some((AGENT, stamp)), true, None);
    let (script, removed) = leftover_script(&without, &node.listing());
    assert_eq!(removed.len(), 6, "{removed:?}");
    node.restore(&script);
    assert_eq!(drift(&without, &node.listing()), []);
    assert_eq!(leftover_script(&without, &node.listing()).0, "");
    assert_eq!(drift(&want, &node.listing()).len(), 6);
}

fn foreign_rule() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "-j ACCEPT",
        "-p tcp -j RETURN",
        "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC",
        "-m comment --comment \"a \\\"b\\\" -j DROP\" -j KUBE-SVC",
        "-j LANYARD-PREROUTING",
        "-j LANYARD-FORWARD",
        "-j LANYARD-OUTPUT",
        "-p udp -j ACCEPT",
        "-j MARK --set-xmark 0x1/0x1",
        "-g KUBE-SVC",
    ])
    .prop_map(str::to_owned)
}

prop_compose! {
    fn any_node()(rules in prop::collection::vec(
        (any::<bool>(), 0..5usize, foreign_rule()), 0..12,
    )) -> Node {
        let mut node = Node::default();
        for (nat, chain, rule) in rules {
            let (table, chains) = if nat {
                (
                    "nat",
                    ["PREROUTING", "KUBE-SVC", "LANYARD-PREROUTING", "OUTPUT", "LANYARD-OUTPUT"],
                )
            } else {
                (
                    "filter",
                    ["FORWARD", "KUBE-SVC", "LANYARD-FORWARD", "OUTPUT", "LANYARD-OUTPUT"],
                )
            };
            node.append(table, chains[chain], &rule);
        }
        node
    }
}

proptest! {
    #[test]
    fn whatever_a_node_has_one_repair_mends_it_and_others_rules_stay(node in any_node()) {
        let (want, mut mended) = (ours(), node.clone());
        mended.restore(&repair_script(&want, &node.listing(), &drift(&want, &node.listing())));
        prop_assert_eq!(drift(&want, &mended.listing()), []);
        prop_assert_eq!(others(&mended), others(&node));
        prop_assert_eq!(repair_script(&want, &mended.listing(), &[]), "");
    }

    #[test]
    fn removal_takes_all_of_ours_and_nothing_of_others(node in any_node()) {
        let mut laid = node.clone();
        laid.restore(&repair_script(&ours(), &node.listing(), &drift(&ours(), &node.listing())));
        laid.restore(&removal_script(&laid.listing()).0);
        prop_assert_eq!(removal_script(&laid.listing()), (String::new(), vec![]));
        prop_assert_eq!(others(&laid), others(&node));
    }
}

fn others(node: &Node) -> Vec<(String, String, String)> {
    let mut rules = Vec::new();
    for (table, chains) in &node.tables {
        for (chain, list) in chains
            .iter()
            .filter(|(chain, _)| !chain.starts_with(CHAIN_PREFIX))
        {
            let foreign = list.iter().filter(|rule| !rule.contains("-j LANYARD-"));
            rules.extend(foreign.map(|rule| (table.clone(), chain.clone(), rule.clone())));
        }
    }
    rules
}
