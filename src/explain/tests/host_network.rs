//! Pods on their node's own network.

use super::*;

#[test]
fn the_nodes_network() {
    let explanation = ask(&found(
        GOOD,
        &[("nodeName: node-1,", "nodeName: node-1, hostNetwork: true,")],
    ));
    assert_eq!(explanation.verdict, Verdict::Unclear);
    says(
        &explanation,
        &[
            "is a host-network pod: Lanyard does not decide about it",
            "agent.hostNetworkPods.enabled=true",
        ],
    );
}

#[test]
fn the_nodes_network_where_agents_tell_pods_apart() {
    let host = [("nodeName: node-1,", "nodeName: node-1, hostNetwork: true,")];
    let mut told = found(GOOD, &host);
    told.take_agents(&[agent(
        "node-1",
        "True",
        &["agent", "--host-network-pods=true"],
    )]);
    let explanation = ask(&told);
    assert_eq!(explanation.verdict, Verdict::Granted);
    says(&explanation, &["by the cgroup of its sockets"]);
    // On another node it is of no use.
    told.take_agents(&[agent(
        "node-2",
        "True",
        &["agent", "--host-network-pods=true"],
    )]);
    assert_eq!(ask(&told).verdict, Verdict::Unclear);
}
