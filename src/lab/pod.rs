//! Pods: a network namespace each, wired to a node as the two common kinds of CNI plugin do it.
//!
//! In: a name and a style. Out: an address that the node forwards for. Blocks on `ip` only.
//! Invariant: an address is handed out once, unless a caller asks for it again (IP reuse).

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::namespace::ip;
use super::{LabError, Namespace, Node};

/// How a pod is wired to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A veth pair without a bridge and a /32 route on the node (Azure CNI, Calico, ptp).
    Ptp,
    /// A port of the node's one bridge (kubenet, the bridge plugin).
    Bridge,
}

/// A pod's network.
#[derive(Clone, Debug)]
pub struct Pod {
    name: String,
    uid: String,
    address: Ipv4Addr,
    namespace: Namespace,
    host_link: String,
    node: Node,
}

static COUNT: AtomicU32 = AtomicU32::new(1);

impl Node {
    /// A pod with the node's next free address.
    pub async fn add_pod(&self, name: &str, style: Style) -> Result<Pod, LabError> {
        let last = match style {
            Style::Ptp => Self::take(&self.addresses.next_ptp),
            Style::Bridge => Self::take(&self.addresses.next_bridged),
        };
        self.add_pod_at(name, style, Ipv4Addr::new(10, 244, self.number, last))
            .await
    }

    /// A pod with a given address of the node's range: how an address comes to be reused.
    pub async fn add_pod_at(
        &self,
        name: &str,
        style: Style,
        address: Ipv4Addr,
    ) -> Result<Pod, LabError> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::create(&format!("pod-{name}-{count}")).await?;
        let host_link = format!("veth{}", Self::take(&self.addresses.next_link));
        let (node, inside) = (self.name(), namespace.name());
        ip(&format!(
            "link add {host_link} netns {node} type veth peer name eth0 netns {inside}\n"
        ))
        .await?;
        match style {
            Style::Ptp => self.wire_ptp(&namespace, &host_link, address).await?,
            Style::Bridge => self.wire_bridge(&namespace, &host_link, address).await?,
        }
        let uid = format!("00000000-0000-4000-8000-{count:012x}");
        Ok(Pod {
            name: name.to_owned(),
            uid,
            address,
            namespace,
            host_link,
            node: self.clone(),
        })
    }

    async fn wire_ptp(&self, pod: &Namespace, link: &str, ip: Ipv4Addr) -> Result<(), LabError> {
        let gateway = Ipv4Addr::new(10, 244, self.number, 1);
        self.namespace()
            .ip(&format!(
                "addr add {gateway}/32 dev {link}\nlink set {link} up\nroute add {ip}/32 dev {link}\n"
            ))
            .await?;
        pod.ip(&format!(
            "addr add {ip}/32 dev eth0\nlink set eth0 up\nroute add {gateway}/32 dev eth0\n\
             route add default via {gateway}\n"
        ))
        .await
    }

    async fn wire_bridge(&self, pod: &Namespace, link: &str, ip: Ipv4Addr) -> Result<(), LabError> {
        let gateway = Ipv4Addr::new(10, 244, self.number, 129);
        let node = self.namespace();
        let bridge = self.addresses.bridge.get_or_try_init(|| async {
            let lines = format!(
                "link add pods0 type bridge\naddr add {gateway}/25 dev pods0\nlink set pods0 up\n"
            );
            node.ip(&lines).await
        });
        bridge.await?;
        node.ip(&format!(
            "link set {link} master pods0\nlink set {link} up\n"
        ))
        .await?;
        pod.ip(&format!(
            "addr add {ip}/25 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
        ))
        .await
    }
}

impl Pod {
    /// Its name, as in `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UID: different for every pod ever made, also with a reused name or address.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its address, as in `status.podIP`.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The node's end of its wire.
    #[must_use]
    pub fn host_link(&self) -> &str {
        &self.host_link
    }

    /// The node it is wired to.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its manifest as the kubelet would have left it: Running, with its address; label
    /// `app: <name>`; `identity` is the annotation by which it asks for one.
    #[must_use]
    pub fn manifest(&self, namespace: &str, account: &str, identity: Option<&str>) -> String {
        let (name, uid, ip, node) = (&self.name, &self.uid, self.address, self.node.name());
        let mut yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
             uid: {uid}\n  labels: {{app: {name}}}\n"
        );
        if let Some(identity) = identity {
            // Writing to a String does not fail.
            let _ = writeln!(
                yaml,
                "  annotations: {{lanyard.dev/identity: \"{identity}\"}}"
            );
        }
        let _ = write!(
            yaml,
            "spec:\n  nodeName: {node}\n  serviceAccountName: {account}\n  containers:\n  \
             - {{name: main, image: none}}\nstatus:\n  phase: Running\n  podIP: {ip}\n  \
             podIPs: [{{ip: {ip}}}]\n"
        );
        yaml
    }

    /// Takes its wire and its namespace away, as a deleted pod's; processes in it lose their network.
    pub async fn remove(self) -> Result<(), LabError> {
        self.node
            .namespace()
            .ip(&format!("link del {}\n", self.host_link))
            .await?;
        self.namespace.delete().await
    }
}
