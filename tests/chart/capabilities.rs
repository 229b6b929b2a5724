//! What the chart gives agents on nodes, for trials that give an agent just that.
//!
//! In: nothing. Out: names as Kubernetes writes them. A test of the chart's holds it to them.

/// With `agent.hostNetworkPods.enabled`.
pub const OF_HOST_NETWORK_PODS: [&str; 5] =
    ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SETGID"];
