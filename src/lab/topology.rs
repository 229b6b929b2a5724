//! The lab's map: one cloud, any number of nodes, and the wires between them.
//!
//! In: the `lanyard` binary and a folder for logs. Out: namespaces with addresses and routes.
//! Blocks on `ip` only. Invariant: the only routes are the ones below, so nothing leaves the lab.
//!
//! Node N: 10.240.N.0/30 to the cloud (the node is .2), pods in 10.244.N.0/24.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::OnceCell;

use super::namespace::ip;
use super::{LAB_DIR, LabError, Namespace};

/// The metadata service of every Azure VM.
pub const IMDS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// Azure's platform address: wire server on 80 and 32526, DNS on 53.
pub const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The vault's address in the lab's cloud.
pub const VAULT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 2), 443);
/// A vault's host name that the lab's hosts file knows.
pub const VAULT_HOST: &str = "demo.vault.azure.net";

/// A whole lab. All of it ends with the process that entered it.
#[derive(Debug)]
pub struct Lab {
    pub(super) program: PathBuf,
    pub(super) logs: PathBuf,
    cloud: Namespace,
    nodes: Vec<Node>,
}

/// A node: where an agent runs and to which pods are wired. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) number: u8,
    namespace: Namespace,
    pub(super) addresses: Arc<Addresses>,
}

/// What a node has already given away.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) next_ptp: AtomicU8,
    pub(super) next_bridged: AtomicU8,
    pub(super) next_link: AtomicU8,
    pub(super) bridge: OnceCell<()>,
}

impl Lab {
    /// A cloud and one node, `node-1`, wired together. `program` is the `lanyard` binary, `logs`
    /// an existing folder. Needs [`super::enter`] before.
    pub async fn new(program: &Path, logs: &Path) -> Result<Self, LabError> {
        if !super::inside() {
            let source = std::io::Error::other("lab::enter was not called first in main");
            return Err(LabError::io("making a lab")(source));
        }
        let cloud = Namespace::create("cloud").await?;
        let vault = VAULT.ip();
        let imds = IMDS.ip();
        cloud
            .ip(&format!(
                "addr add {imds}/32 dev lo\naddr add {WIRE_SERVER}/32 dev lo\n\
                 addr add {vault}/32 dev lo\n"
            ))
            .await?;
        let mut lab = Self {
            program: program.to_owned(),
            logs: logs.to_owned(),
            cloud,
            nodes: Vec::new(),
        };
        lab.add_host(VAULT_HOST, *vault)?;
        lab.add_node().await?;
        Ok(lab)
    }

    /// Where Azure's addresses live and the simulator runs.
    #[must_use]
    pub fn cloud(&self) -> &Namespace {
        &self.cloud
    }

    /// The first node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// The folder with every process's log.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// The `lanyard` binary.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Another node (`node-2`, …), wired to the cloud.
    pub async fn add_node(&mut self) -> Result<Node, LabError> {
        let number = u8::try_from(self.nodes.len() + 1)
            .map_err(|_| LabError::io("adding a node")(std::io::Error::other("255 are enough")))?;
        let name = format!("node-{number}");
        let namespace = Namespace::create(&name).await?;
        ip(&format!(
            "link add cloud netns {name} type veth peer name {name} netns cloud\n"
        ))
        .await?;
        let (far, near) = (format!("10.240.{number}.1"), format!("10.240.{number}.2"));
        self.cloud
            .ip(&format!(
                "addr add {far}/30 dev {name}\nlink set {name} up\n\
                 route add 10.244.{number}.0/24 via {near}\n"
            ))
            .await?;
        namespace
            .ip(&format!(
                "addr add {near}/30 dev cloud\nlink set cloud up\n\
                 route add {}/32 via {far}\nroute add {WIRE_SERVER}/32 via {far}\n\
                 route add {}/32 via {far}\n",
                IMDS.ip(),
                VAULT.ip()
            ))
            .await?;
        namespace.sysctl("net/ipv4/ip_forward", "1").await?;
        let node = Node {
            number,
            namespace,
            addresses: Arc::default(),
        };
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// Lets every process of the lab resolve `name` to `address`.
    pub fn add_host(&self, name: &str, address: Ipv4Addr) -> Result<(), LabError> {
        use std::io::Write as _;
        let path = Path::new(LAB_DIR).join("hosts");
        let file = std::fs::File::options().append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{address} {name}"))
            .map_err(LabError::io("adding to the lab's hosts file"))
    }

    /// A folder in the lab's own memory file system, made if absent.
    pub fn dir(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = Path::new(LAB_DIR).join(name);
        std::fs::create_dir_all(&path)
            .map_err(LabError::io(format!("making {}", path.display())))?;
        Ok(path)
    }
}

impl Node {
    /// Its name, as in `spec.nodeName`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its own address, from which its processes reach the cloud.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.number, 2)
    }

    /// Where its agents keep their state: survives their end, not the lab's.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        Path::new(LAB_DIR).join(format!("state-{}", self.name()))
    }

    pub(super) fn take(counter: &AtomicU8) -> u8 {
        counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            next_ptp: AtomicU8::new(10),
            next_bridged: AtomicU8::new(140),
            next_link: AtomicU8::new(0),
            bridge: OnceCell::new(),
        }
    }
}
