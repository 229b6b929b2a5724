//! The two sides, alike but for the server: a node, a pod namespace with the load's addresses, the
//! same rules, the same path.
//!
//! Everything is inside one lab, so the end of this process ends all of it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lanyard::lab::{IMDS, Lab, Namespace, Node, Pod, Process, Simulator, Style, until};

use crate::cast;
use crate::load::{Measured, Plan};

/// The address on a node's `lo` that the rules lead to.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 252);
const LIMIT: Duration = Duration::from_secs(20);

/// One server and the pod that loads it.
pub struct Side {
    /// For the table.
    pub name: &'static str,
    /// The pod's namespace.
    pub pod: Pod,
    /// The server's process id.
    pub pid: u32,
    /// From which address to ask.
    pub from: Ipv4Addr,
}

/// A pod namespace on `node` with all the addresses of the cast.
pub async fn pod_with_addresses(node: &Node) -> anyhow::Result<Pod> {
    let pod = node.add_pod("load", Style::Ptp).await?;
    let pods = (1..=254).map(cast::address);
    let late = (1..=cast::LATE).map(cast::late_address);
    let addresses: Vec<String> = pods
        .chain(late)
        .map(|address| format!("addr add {address}/32 dev eth0\n"))
        .collect();
    pod.namespace().ip(&addresses.concat()).await?;
    let link = pod.host_link();
    let routes = cast::NETWORKS.map(|network| format!("route add {network} dev {link}\n"));
    node.namespace().ip(&routes.concat()).await?;
    reuse_ports(&pod).await?;
    let tracked = "net/netfilter/nf_conntrack_tcp_timeout_time_wait";
    node.namespace().sysctl(tracked, "1").await?;
    Ok(pod)
}

/// A port of a closed connection may be used again after a second, as between two machines.
pub async fn reuse_ports(pod: &Pod) -> anyhow::Result<()> {
    pod.namespace().sysctl("net/ipv4/tcp_tw_reuse", "1").await?;
    let ports = "net/ipv4/ip_local_port_range";
    Ok(pod.namespace().sysctl(ports, "1024 65535").await?)
}

/// The manifests' folder, filled.
pub fn manifests(lab: &Lab, name: &str) -> anyhow::Result<PathBuf> {
    let dir = lab.dir(name)?;
    std::fs::write(dir.join("objects.yaml"), cast::objects())?;
    std::fs::write(dir.join("pods.yaml"), cast::pods())?;
    Ok(dir)
}

/// The simulator, answering at once.
pub async fn simulator(lab: &Lab) -> anyhow::Result<Simulator> {
    Ok(lab.simulator(&cast::world(0), &[]).await?)
}

/// A server of this program's own on `node`, where the rules lead to, returning `answer`.
pub async fn serve_fixed(
    lab: &Lab,
    node: &Node,
    answer: &str,
    harness: bool,
) -> anyhow::Result<Process> {
    let listen = SocketAddrV4::new(SERVER, 8080);
    fixed(lab, node.namespace(), listen, answer, harness).await
}

/// The same in a namespace, at an address that it gets.
pub async fn fixed(
    lab: &Lab,
    namespace: &Namespace,
    listen: SocketAddrV4,
    answer: &str,
    harness: bool,
) -> anyhow::Result<Process> {
    let name = if harness { "harness" } else { "bare" };
    let file = lab.dir("answers")?.join(name);
    std::fs::write(&file, answer)?;
    let mut command = namespace.command(std::env::current_exe()?);
    command
        .args(["bare", "--listen", &listen.to_string(), "--answer"])
        .arg(&file);
    if harness {
        command.arg("--harness");
    }
    namespace
        .ip(&format!("addr add {}/32 dev lo\n", listen.ip()))
        .await?;
    let process = Process::start(name, command, &lab.logs().join(format!("{name}.log")))?;
    let namespace = namespace.clone();
    until(LIMIT, "the bare server", async || {
        let connect = async move || tokio::net::TcpStream::connect(listen).await.is_ok();
        namespace.run(connect).await.unwrap_or(false)
    })
    .await?;
    Ok(process)
}

/// The rules of `from` on `to`, with the agent's port replaced by 8080.
pub async fn same_rules(from: &Node, to: &Node) -> anyhow::Result<()> {
    for tables in ["iptables-nft", "iptables-legacy"] {
        let saved = from
            .namespace()
            .output(&format!("{tables}-save"), &[])
            .await?;
        if !saved.contains("DNAT") {
            continue;
        }
        let mut port_changed = String::new();
        for line in saved.lines() {
            match line.split_once(&format!("--to-destination {SERVER}:")) {
                Some((rule, _)) => {
                    let _ = writeln!(port_changed, "{rule}--to-destination {SERVER}:8080");
                }
                None => {
                    let _ = writeln!(port_changed, "{line}");
                }
            }
        }
        let script = format!("{tables}-restore <<'RULES'\n{port_changed}RULES\n");
        to.namespace().output("sh", &["-c", &script]).await?;
        return Ok(());
    }
    anyhow::bail!("the agent has laid no DNAT rule")
}

/// The one rule without which there is no path: for runs without an agent.
pub async fn plain_rule(node: &Node) -> anyhow::Result<()> {
    let to = format!("{SERVER}:8080");
    let rule = [
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-d",
        "169.254.169.254/32",
        "-p",
        "tcp",
        "--dport",
        "80",
    ];
    let rule = [&rule[..], &["-j", "DNAT", "--to-destination", &to]].concat();
    node.namespace().output("iptables", &rule).await?;
    Ok(())
}

impl Side {
    /// One run of the load generator against this side.
    pub async fn load(
        &self,
        workers: usize,
        fresh: bool,
        seconds: f64,
    ) -> anyhow::Result<Measured> {
        let plan = Plan {
            to: IMDS.into(),
            target: cast::target("vault.azure.net", None),
            from: self.from,
            workers,
            fresh,
            seconds,
            most: 1_000_000,
        };
        let mut command = self.pod.namespace().command(std::env::current_exe()?);
        command.arg("load").args(plan.to_args());
        let output = command
            .output()
            .await
            .context("starting the load generator")?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "the load generator said {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}
