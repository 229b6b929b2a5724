//! What it costs to tell whose a connection on the node's own network is: in cgroups of 250 pods, put up by hand.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lanyard::agent::directory::{Directory, Published};
use lanyard::agent::host_network::{Hierarchy, Namer};
use lanyard::agent::touched::Touched;
use lanyard::agent::world::{Change, World};
use lanyard::api::object;
use lanyard::lab::{Cgroups, IMDS, Lab};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::cast::PODS;

/// How many of the pods are on the node's network.
const HOSTS: u8 = 10;
/// Containers of each pod.
const CONTAINERS: usize = 2;

/// The cgroups of all pods, with this process in one of them.
struct Within(Cgroups);

impl Within {
    fn plant() -> anyhow::Result<Self> {
        let planted = Self(Cgroups::plant()?);
        for pod in 0..PODS {
            for container in 0..CONTAINERS {
                let name = container.to_string();
                planted.0.container(&pod.to_string(), &name)?;
            }
        }
        Ok(planted)
    }

    /// A container of the last pod, with this process in it.
    fn enter(&self, container: &str) -> anyhow::Result<PathBuf> {
        let folder = self.0.container(&(PODS - 1).to_string(), container)?;
        Cgroups::put(&folder, std::process::id())?;
        Ok(folder)
    }
}

impl Drop for Within {
    /// What is in them ends with them.
    fn drop(&mut self) {
        let _ = self.0.free(std::process::id());
    }
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

/// Times in µs.
pub struct Lookups {
    /// Of a connection whose container is known.
    pub known: Vec<f64>,
    /// Of the first one of a container that nobody asked from before. Nothing runs that would have read of it in advance.
    pub new: Vec<f64>,
    /// Of the first one of all, when no folder has been read.
    pub first: Vec<f64>,
}

/// Asks for the same pod again and again.
pub async fn lookups(lab: &Lab, times: usize) -> anyhow::Result<Lookups> {
    let within = Within::plant()?;
    let node = lab.node().namespace();
    let here = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4444);
    let rule = format!(
        "-t nat -A OUTPUT -d {}/32 -p tcp --dport 80 -j DNAT --to-destination {here}",
        IMDS.ip()
    );
    let rule: Vec<&str> = rule.split(' ').collect();
    node.output("iptables-nft", &rule).await?;
    let directory = directory()?;
    let measured = node.run(async move || {
        let hierarchy = Hierarchy::enter(within.0.root())?;
        let listener = TcpListener::bind(here).await?;
        let mut times_of = Lookups {
            known: Vec::new(),
            new: Vec::new(),
            first: Vec::new(),
        };
        let open = || Namer::open(here, &hierarchy, directory.clone());
        let namer = open()?;
        let mut last = within.enter("0")?;
        let (_client, _served, peer) = connect(&listener).await?;
        namer.name(peer).await?;
        for _ in 0..times {
            times_of.known.push(timed(&namer, peer).await?);
        }
        for number in 0..times / 10 {
            let folder = within.enter(&format!("new-{number}"))?;
            std::fs::remove_dir(std::mem::replace(&mut last, folder))?;
            let (_client, _served, peer) = connect(&listener).await?;
            times_of.new.push(timed(&namer, peer).await?);
            times_of.first.push(timed(&open()?, peer).await?);
        }
        anyhow::Ok(times_of)
    });
    measured.await?
}

async fn connect(listener: &TcpListener) -> anyhow::Result<(TcpStream, TcpStream, SocketAddr)> {
    let client = TcpStream::connect(IMDS).await?;
    let (served, peer) = listener.accept().await?;
    Ok((client, served, peer))
}

async fn timed(namer: &Namer, peer: SocketAddr) -> anyhow::Result<f64> {
    let start = Instant::now();
    let uid = namer.name(peer).await?;
    let taken = start.elapsed().as_secs_f64() * 1e6;
    anyhow::ensure!(*uid == *(PODS - 1).to_string(), "taken for {uid}");
    Ok(taken)
}
