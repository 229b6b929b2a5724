use super::*;
use crate::agent::intercept::rules::{Stamp, desired};

fn ours() -> Vec<DesiredTable> {
    desired(
        Some(([169, 254, 169, 252].into(), Stamp { epoch: 1, port: 9 })),
        true,
        None,
    )
}

/// A node with our rules, and `before` standing first in PREROUTING; `chains` are added to `nat`.
fn node(before: &str, chains: &str) -> Ruleset {
    let mut lines = Vec::new();
    for want in ours() {
        lines.push(format!("*{}", want.table));
        lines.push(format!(
            ":{} ACCEPT [0:0]\n:{} - [0:0]",
            want.hook, want.chain
        ));
        if want.table == "nat" {
            lines.push(format!("{chains}\n{before}"));
        }
        lines.push(format!("-A {} {}", want.hook, want.jump));
        lines.extend(
            want.rules
                .iter()
                .map(|rule| format!("-A {} {rule}", want.chain)),
        );
        lines.push("COMMIT".to_owned());
    }
    Ruleset::parse(&lines.join("\n"))
}

fn kinds(actual: &Ruleset) -> Vec<DriftKind> {
    drift(&ours(), actual)
        .into_iter()
        .map(|drift| drift.kind)
        .collect()
}

#[test]
fn nothing_differs_on_a_node_as_desired() {
    assert_eq!(kinds(&node("", "")), []);
}

#[test]
fn an_empty_node_lacks_everything() {
    use DriftKind::{ChainMissing, JumpMissing};
    let lacking = [ChainMissing, JumpMissing].repeat(3);
    assert_eq!(kinds(&Ruleset::default()), lacking);
}

#[test]
fn nothing_is_missed_in_a_table_that_the_kernel_lacks() {
    let lacking = drift(&ours(), &Ruleset::without("security"));
    assert!(lacking.iter().all(|drift| drift.table != "security"));
    assert_eq!(lacking.len(), 4);
}

#[test]
fn what_decides_before_our_jump_is_drift() {
    for before in [
        "-A PREROUTING -j ACCEPT",
        "-A PREROUTING -j RETURN",
        "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",
        "-A PREROUTING -d 169.254.169.254/32 -p tcp -j DNAT --to-destination 10.0.0.1:80",
        "-A PREROUTING -j UNKNOWN-CHAIN",
        "-A PREROUTING -j CALLED",
        "-A PREROUTING -g HARMLESS",
    ] {
        let chains = "-A CALLED -j DEEPER\n-A DEEPER -p tcp -j ACCEPT\n-A HARMLESS -j MARK";
        assert_eq!(
            kinds(&node(before, chains)),
            [DriftKind::JumpShadowed],
            "{before}"
        );
    }
}

#[test]
fn what_cannot_decide_before_our_jump_is_none() {
    for before in [
        "-A PREROUTING -m comment --comment \"counts -j ACCEPT\"",
        "-A PREROUTING -j MARK --set-xmark 0x1/0x1",
        "-A PREROUTING -p udp -j ACCEPT",
        "-A PREROUTING -d 10.96.0.10/32 -j DNAT --to-destination 10.0.0.1",
        "-A PREROUTING -j KUBE-SERVICES",
    ] {
        let chains = "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j KUBE-SVC\n\
                      -A KUBE-SERVICES -j KUBE-NODEPORTS\n\
                      -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SVC\n\
                      -A KUBE-NODEPORTS -j RETURN\n-A KUBE-SVC -p tcp -j DNAT --to-destination 1.1.1.1";
        assert_eq!(kinds(&node(before, chains)), [], "{before}");
    }
}

#[test]
fn chains_that_call_each_other_come_to_an_end() {
    let chains = "-A ROUND -j AGAIN\n-A AGAIN -j ROUND";
    assert_eq!(kinds(&node("-A PREROUTING -j ROUND", chains)), []);
}

#[test]
fn a_second_or_altered_jump_is_drift() {
    let twice = node("-A PREROUTING -j LANYARD-PREROUTING", "");
    assert_eq!(kinds(&twice), [DriftKind::JumpChanged]);
}

#[test]
fn a_changed_chain_is_drift() {
    let more = node("", "-A LANYARD-PREROUTING -j RETURN");
    assert_eq!(kinds(&more), [DriftKind::ChainChanged]);
}
