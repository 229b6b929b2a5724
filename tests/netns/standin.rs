//! Stand-ins: a cloud that counts who comes, and agents that are nothing but interception.
//!
//! In: a stage. Out: listeners that say their name, and the real keeper pointing pods at them. What
//! interception promises is tried without the rest of the agent; `takeover` and others have that.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::agent::intercept::{
    DEFAULT_AGENT_ADDRESS, InterceptConfig, InterceptMetrics, Ownership, claim_address, run_keeper,
};
use lanyard::lab::{Get, IMDS, Lab, LabError, Node, Pod, WIRE_SERVER, until};
use lanyard::serve::ready::Readiness;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::Stage;

/// Longest wait for anything that is not itself a promise about time.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What the cloud answers: never seen by a pod that is intercepted.
pub const LEAK: u16 = 418;

/// Azure's addresses in the lab's cloud.
pub struct Cloud {
    hits: Arc<AtomicU64>,
}

/// Interception without the rest of an agent.
pub struct Instance {
    pub ready: Readiness,
    pub ownership: watch::Receiver<Ownership>,
    pub metrics: InterceptMetrics,
    shutdown: CancellationToken,
    death: CancellationToken,
    work: JoinHandle<Result<Result<()>, LabError>>,
}

impl Cloud {
    /// Listens at the metadata service's and the wire server's tcp ports, and at its DNS.
    pub async fn open(lab: &Lab) -> Result<Self> {
        let hits = Arc::<AtomicU64>::default();
        let counted = hits.clone();
        let work = lab.cloud().run(async move || {
            let dns = UdpSocket::bind((WIRE_SERVER, 53)).await?;
            tokio::spawn(async move {
                let mut query = [0; 64];
                while let Ok((length, peer)) = dns.recv_from(&mut query).await {
                    let _ = dns.send_to(&query[..length], peer).await;
                }
            });
            let wire = |port| SocketAddrV4::new(WIRE_SERVER, port);
            for address in [IMDS, wire(80), wire(32526), wire(53)] {
                let listener = TcpListener::bind(address).await?;
                tokio::spawn(serve(listener, LEAK, "cloud".to_owned(), counted.clone()));
            }
            std::future::pending::<std::io::Result<()>>().await
        });
        tokio::spawn(work);
        let cloud = Self { hits };
        let node = lab.node().namespace().clone();
        until(PATIENCE, "the cloud to listen", async || {
            node.get(IMDS, &Get::new("/")).await.is_ok()
        })
        .await?;
        cloud.hits.store(0, Ordering::Relaxed);
        Ok(cloud)
    }

    /// Requests that arrived since it opened.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, status: u16, name: String, hits: Arc<AtomicU64>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        let (body, hits) = (format!("{name} {}", peer.ip()), hits.clone());
        tokio::spawn(async move { answer(stream, status, &body, &hits).await });
    }
}

/// Answers requests until the peer hangs up.
async fn answer(mut stream: TcpStream, status: u16, body: &str, hits: &AtomicU64) -> Option<()> {
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        if head.ends_with(b"\r\n\r\n") {
            let last = String::from_utf8_lossy(&head).contains("Connection: close");
            head.clear();
            hits.fetch_add(1, Ordering::Relaxed);
            let length = body.len();
            let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(reply.as_bytes()).await.ok()?;
            if last {
                return None;
            }
        }
    }
}

/// Starts an instance named `name` on the stage's node, and waits until it is ready.
pub async fn instance(stage: &Stage, name: &str) -> Result<Instance> {
    let instance = start(stage, name, true)?;
    instance.is_ready().await?;
    Ok(instance)
}

/// Starts an instance, guarding the wire server or not, and does not wait for it.
pub fn start(stage: &Stage, name: &str, guard_wire_server: bool) -> Result<Instance> {
    let config = InterceptConfig {
        enters_pods: false,
        open: false,
        backend: stage.backend.parse().map_err(anyhow::Error::msg)?,
        agent_address: DEFAULT_AGENT_ADDRESS,
        guard_wire_server,
        hosts: None,
        state_dir: stage.lab.node().state_dir(),
    };
    let (shutdown, death) = (CancellationToken::new(), CancellationToken::new());
    let metrics = InterceptMetrics::register(&prometheus::Registry::new())?;
    let readiness = Readiness::default();
    let latch = readiness.latch("rules");
    let (sender, ownership) = watch::channel(Ownership::Pending);
    let (name, counters, until_then, end) = (
        name.to_owned(),
        metrics.clone(),
        shutdown.clone(),
        death.clone(),
    );
    let work = stage
        .lab
        .node()
        .namespace()
        .run(async move || -> Result<()> {
            claim_address(config.agent_address).await?;
            let listener = TcpListener::bind((config.agent_address, 0)).await?;
            let port = listener.local_addr()?.port();
            let serving = tokio::spawn(serve(listener, 200, name, Arc::default()));
            let keeper = run_keeper(config, port, latch, counters, until_then, sender);
            end.run_until_cancelled(async {
                keeper.await;
                std::future::pending::<()>().await;
            })
            .await;
            serving.abort();
            Ok(())
        });
    let work = tokio::spawn(work);
    Ok(Instance {
        ready: readiness,
        ownership,
        metrics,
        shutdown,
        death,
        work,
    })
}

impl Instance {
    /// Waits for readiness.
    pub async fn is_ready(&self) -> Result<()> {
        let waited = until(PATIENCE, "interception to be ready", async || {
            self.ready.is_ready() || self.work.is_finished()
        });
        waited
            .await
            .map_err(|error| anyhow::anyhow!("{error}: {:?}", self.ready.pending()))?;
        ensure!(!self.work.is_finished(), "the instance ended");
        Ok(())
    }

    /// Waits until it sees this about the rules' ownership.
    pub async fn sees(&mut self, what: impl FnMut(&Ownership) -> bool) -> Result<()> {
        tokio::time::timeout(PATIENCE, self.ownership.wait_for(what)).await??;
        Ok(())
    }

    /// Repairs of that kind until now.
    pub fn repaired(&self, kind: &str) -> u64 {
        self.metrics.repaired.with_label_values(&[kind]).get()
    }

    /// Ends the keeper alone, as the start of a drain does: the listener goes on.
    pub fn drain(&self) {
        self.shutdown.cancel();
    }

    /// Ends all of it at once; the kernel closes what it held.
    pub async fn die(self) -> Result<()> {
        self.death.cancel();
        self.work.await??
    }
}

/// Who answers a pod's request there, and which address it saw; or the error's kind.
pub async fn asks(pod: &Pod, address: SocketAddrV4) -> Result<String> {
    let request = Get::new("/").within(Duration::from_secs(3));
    let answer = pod
        .namespace()
        .run(async move || request.send(address).await)
        .await?;
    Ok(answer.map_or_else(|error| error.kind().to_string(), |reply| reply.body))
}

/// Runs a command on the node, words separated by blanks.
pub async fn on_node(node: &Node, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    Ok(node.namespace().output(words[0], &words[1..]).await?)
}

/// Gives the node a rule of kube-proxy's kind. With the legacy backend the kernel tracks (and
/// translates) connections only for as long as some rule needs it, and flushing `nat` takes ours.
pub async fn tracks_connections(stage: &Stage) -> Result<()> {
    let rule = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT";
    on_node(
        stage.lab.node(),
        &format!("iptables-{} {rule}", stage.backend),
    )
    .await
    .map(drop)
}

/// `agent ADDRESS`, as the stand-in of that name answers it.
pub fn by(name: &str, pod: &Pod) -> String {
    format!("{name} {}", pod.address())
}

/// The agent's address.
pub const AGENT: Ipv4Addr = DEFAULT_AGENT_ADDRESS;
