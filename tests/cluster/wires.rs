//! The network of a cluster: a bridge with the control plane, the cloud and the nodes.
//!
//! In: the first process's pid, a node's plan. Out: network namespaces below its /run/netns. Blocks
//! on `ip`. Invariant: there is no route out; what no one in here answers is unreachable at once.
//!
//! ```text
//!   control (first process)   cloud                          node-1, node-2
//!   10.100.0.1 on the bridge  10.100.0.2                     10.100.0.11, .12
//!   API server :6443          169.254.169.254, 168.63.129.16 default route: the cloud
//!                             10.200.0.2 (vault, Entra ID)   pods 10.244.N.0/24, masqueraded
//!                             10.200.0.3 (Resource Manager)
//! ```

use std::fmt::Write as _;

use anyhow::Result;
use lanyard::lab::{IMDS, WIRE_SERVER};

use crate::plan::{ARM, CLOUD, CONTROL, MASQUERADED, NODES, NodePlan, PODS, VAULT};
use crate::process;

/// Makes the bridge and the cloud.
pub async fn core(first: u32) -> Result<()> {
    let mut lines = format!(
        "link add vnet type bridge\naddr add {CONTROL}/24 dev vnet\nlink set vnet up\nnetns add cloud\n\
         link add to-cloud type veth peer name eth0 netns cloud\nlink set to-cloud master vnet up\n"
    );
    let mut routes = String::new();
    for node in NODES {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(routes, "route add {} via {}", node.pods(), node.address());
    }
    lines += &routes;
    process::ip(first, None, &lines).await?;
    let imds = IMDS.ip();
    let lines = format!(
        "link set lo up\naddr add {CLOUD}/24 dev eth0\nlink set eth0 up\naddr add {imds}/32 dev lo\n\
         addr add {WIRE_SERVER}/32 dev lo\naddr add {VAULT}/32 dev lo\naddr add {ARM}/32 dev lo\nroute add unreachable default\n{routes}"
    );
    process::ip(first, Some("cloud"), &lines).await?;
    in_namespace(first, "cloud", "echo 1 >/proc/sys/net/ipv4/ip_forward").await
}

/// Makes a node's network anew, as it is after a boot: no rule, no connection of before.
pub async fn node(first: u32, plan: &NodePlan) -> Result<()> {
    let (name, number, address) = (plan.name(), plan.number, plan.address());
    // The same hardware address after a reboot: neighbours remember it.
    let lines = format!(
        "netns add {name}\nlink add port-{number} type veth peer name eth0 address 02:00:0a:64:00:{number:02x} \
         netns {name}\nlink set port-{number} master vnet up\n"
    );
    process::ip(first, None, &lines).await?;
    let imds = IMDS.ip();
    let mut lines = format!(
        "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n\
         route add default via {CLOUD}\nroute add {imds}/32 via {CLOUD}\n"
    );
    for other in NODES.iter().filter(|other| other.number != number) {
        let _ = writeln!(lines, "route add {} via {}", other.pods(), other.address());
    }
    process::ip(first, Some(&name), &lines).await?;
    let mut script = "echo 1 >/proc/sys/net/ipv4/ip_forward\n".to_owned();
    // As Azure's nodes do for pods; the ports tell a pod's connection from the node's own.
    for cloud in [*imds, WIRE_SERVER, VAULT, ARM] {
        let _ = writeln!(
            script,
            "iptables-{} -w -t nat -A POSTROUTING -s {PODS} -d {cloud}/32 -p tcp -j MASQUERADE --to-ports {}-{}",
            plan.iptables,
            MASQUERADED.start(),
            MASQUERADED.end()
        );
    }
    in_namespace(first, &name, &script).await
}

/// Takes a node's network away.
pub async fn unplug(first: u32, plan: &NodePlan) -> Result<()> {
    let lines = format!("link del port-{}\nnetns del {}\n", plan.number, plan.name());
    process::ip(first, None, &lines).await
}

async fn in_namespace(first: u32, namespace: &str, script: &str) -> Result<()> {
    let mut command = process::inside(first, &["--mount", "--net", "--pid"], "nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["sh", "-ec", script]);
    process::run(command, &[]).await?.success(script).map(drop)
}
