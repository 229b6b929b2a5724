//! Names, addresses and places: everything that two files of the harness must agree on.
//!
//! In: a folder. Out: paths in it. No IO. Invariant: addresses are private to the cluster's own
//! network namespaces, so that two clusters of one machine do not meet.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The API server's address on the nodes' network; the bridge of that network.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// The cloud's address on the nodes' network: everything that is not Kubernetes goes there.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 2);
/// The simulated vault and Entra ID, behind the cloud.
pub const VAULT: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
/// Simulated Azure Resource Manager, behind the cloud.
pub const ARM: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 3);
/// Host names of the simulated vaults.
pub const VAULT_HOSTS: [&str; 2] = ["demo.vault.azure.net", "other.vault.azure.net"];
/// Host names of Entra ID; they are at the vaults' address.
pub const ENTRA_HOST: &str = "login.microsoftonline.com";
/// Host name of Azure Resource Manager.
pub const ARM_HOST: &str = "management.azure.com";
/// All pods' network.
pub const PODS: &str = "10.244.0.0/16";
/// Services' network.
pub const SERVICES: &str = "10.96.0.0/16";
/// Source ports that only pods' masqueraded connections to the cloud have: what a leak looks like.
pub const MASQUERADED: std::ops::RangeInclusive<u16> = 61000..=65535;
/// The API server's port.
pub const API_PORT: u16 = 6443;

/// Name of the scale set that both nodes are of.
pub const POOL: &str = "pool";
const SUBSCRIPTION: &str = "5d9c1e00-0000-4000-8000-000000000001";

/// The issuer of service accounts' tokens: the API server, under the address that the cloud reaches it by.
pub fn issuer() -> String {
    format!("https://{CONTROL}:{API_PORT}")
}

/// The ARM resource id of the scale set that both nodes are of, as in the simulated world.
pub fn scale_set() -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/\
         virtualMachineScaleSets/{POOL}"
    )
}

/// How pods are wired on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// One bridge for all pods (`bridge-nf-call-iptables` is 1).
    Bridge,
    /// A veth pair and a /32 route for each pod.
    Ptp,
}

/// What makes a node itself.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// 1 or 2.
    pub number: u8,
    /// Its pods' wiring.
    pub wiring: Wiring,
    /// The iptables backend that its `iptables` is.
    pub iptables: &'static str,
}

/// The two nodes: together they have both wirings and both iptables backends.
pub const NODES: [NodePlan; 2] = [
    NodePlan {
        number: 1,
        wiring: Wiring::Bridge,
        iptables: "nft",
    },
    NodePlan {
        number: 2,
        wiring: Wiring::Ptp,
        iptables: "legacy",
    },
];

impl NodePlan {
    /// Its name as a Node object, host, network namespace, service.
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its address on the nodes' network.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 100, 0, 10 + self.number)
    }

    /// Its pods' network.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Its ARM resource id, as in the simulated world.
    pub fn resource_id(&self) -> String {
        format!("{}/virtualMachines/{}", scale_set(), self.number - 1)
    }
}

/// The folder of one cluster, outside of its namespaces.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder itself.
    pub root: PathBuf,
}

impl Places {
    /// The places of the cluster called `name` (`kept`, `test`) of this tree.
    pub fn of(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("cluster")
            .join(name);
        Self { root }
    }

    /// What is to be removed: pids, cgroups.
    pub fn traces(&self) -> PathBuf {
        self.root.join("traces.json")
    }

    /// A person's and the tests' kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Every process's log.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// A node's root, kept over its reboots.
    pub fn node(&self, plan: &NodePlan) -> PathBuf {
        self.root.join(plan.name())
    }

    /// The program that is the first process: this one, under a name that a new build leaves alone.
    pub fn first_process(&self) -> PathBuf {
        self.root.join("first-process")
    }

    /// `lanyard`, likewise.
    pub fn lanyard(&self) -> PathBuf {
        self.root.join("lanyard")
    }

    /// The simulated world's file.
    pub fn world(&self) -> PathBuf {
        self.root.join("world.yaml")
    }
}
