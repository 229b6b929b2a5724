//! What it costs to tell whose a connection on the node's own network is: in cgroups of 250 pods, put up by hand.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lanyard::agent::directory::{Directory, Published};
use lanyard::agent::host_network::{Hierarchy, Namer};
use lanyard::agent::touched::Touched;
use lanyard::agent::world::{Change, World};
use lanyard::api::object;
use lanyard::lab::{self, IMDS, Lab};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::cast::PODS;

/// How many of the pods are on the node's network.
const HOSTS: u8 = 10;
/// Containers of each pod.
const CONTAINERS: usize = 2;
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The tree of cgroups, with this process in one of them.
struct Tree {
    mount: PathBuf,
    root: PathBuf,
}

impl Tree {
    fn plant() -> anyhow::Result<Self> {
        let mount = MOUNTS
            .map(PathBuf::from)
            .into_iter()
            .find(|mount| mount.join("cgroup.procs").exists())
            .context("no cgroup v2")?;
        let pid = lab::outer_pid().context("not in a lab")?;
        let tree = Self {
            root: mount.join(format!("lanyard-bench-{pid}")),
            mount,
        };
        for pod in 0..PODS {
            for container in 0..CONTAINERS {
                std::fs::create_dir_all(tree.container(pod, container))?;
            }
        }
        put(&tree.container(PODS - 1, CONTAINERS - 1))?;
        Ok(tree)
    }

    fn container(&self, pod: u8, container: usize) -> PathBuf {
        let folder = format!("kubepods/burstable/pod{pod}/{container}");
        self.root.join(folder)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = put(&self.mount);
        remove(&self.root);
    }
}

/// Puts this process in.
fn put(cgroup: &Path) -> std::io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

/// All pods, of which the last ones are on the node's network.
fn directory() -> anyhow::Result<Arc<Published>> {
    let mut world = World::default();
    for pod in 0..PODS {
        let manifest = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "a", "name": pod.to_string(), "uid": pod.to_string()},
            "spec": {"hostNetwork": pod >= PODS - HOSTS, "containers": []}});
        let read = object::read(manifest, "1")?.context("a pod")?;
        world.change(Change::Apply(read), Duration::ZERO, &mut Touched::default());
    }
    let published = Arc::new(Published::default());
    published.publish(Directory::of(&world, |_, _| false));
    Ok(published)
}

/// Times in µs: of a connection whose container is known, and of the first one of a new container.
pub async fn lookups(lab: &Lab, times: usize) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let tree = Tree::plant()?;
    let node = lab.node().namespace();
    let here = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4444);
    let rule = format!(
        "-t nat -A OUTPUT -d {}/32 -p tcp --dport 80 -j DNAT --to-destination {here}",
        IMDS.ip()
    );
    let rule: Vec<&str> = rule.split(' ').collect();
    node.output("iptables-nft", &rule).await?;
    let (root, directory) = (tree.root.clone(), directory()?);
    let measured = node.run(async move || {
        let hierarchy = Hierarchy::enter(&root)?;
        let listener = TcpListener::bind(here).await?;
        let _client = TcpStream::connect(IMDS).await?;
        let (_served, peer) = listener.accept().await?;
        let expected = (PODS - 1).to_string();
        let (mut known, mut new) = (Vec::new(), Vec::new());
        let namer = Namer::open(here, hierarchy.clone(), directory.clone())?;
        namer.name(peer).await?;
        for _ in 0..times {
            let start = Instant::now();
            let uid = namer.name(peer).await?;
            known.push(start.elapsed().as_secs_f64() * 1e6);
            anyhow::ensure!(*uid == *expected, "taken for {uid}");
        }
        for _ in 0..times / 10 {
            let namer = Namer::open(here, hierarchy.clone(), directory.clone())?;
            let start = Instant::now();
            namer.name(peer).await?;
            new.push(start.elapsed().as_secs_f64() * 1e6);
        }
        anyhow::Ok((known, new))
    });
    measured.await?
}
