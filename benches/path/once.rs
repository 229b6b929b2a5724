//! The figures that are counted or timed once or a few times: start, a late manifest, a stranger, a
//! cold crowd, memory.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lanyard::lab::{Agent, AgentSetup, IMDS, Lab, Pod, Simulator};
use lanyard::sim::control::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::cast::{self, PODS, SHARING};
use crate::load;

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, head and body as they came, and the time it took.
pub struct Reply {
    /// All bytes.
    pub wire: String,
    /// From before connecting to the last byte.
    pub took: Duration,
}

impl Reply {
    fn status(&self) -> &str {
        self.wire.get(9..12).unwrap_or("none")
    }
}

/// One request on a new connection from `from`, in the calling thread's namespace.
async fn ask(from: Ipv4Addr, target: &str) -> io::Result<Reply> {
    let start = Instant::now();
    let mut stream: TcpStream = load::connect(from, IMDS.into()).await?;
    stream.write_all(&load::request(target)).await?;
    let mut bytes = Vec::new();
    loop {
        ensure_some(stream.read_buf(&mut bytes).await?)?;
        if load::length(&bytes)?.is_some_and(|length| bytes.len() >= length) {
            let wire = String::from_utf8_lossy(&bytes).into_owned();
            return Ok(Reply {
                wire,
                took: start.elapsed(),
            });
        }
    }
}

fn ensure_some(count: usize) -> io::Result<()> {
    if count == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}

/// A request without the header that IMDS wants, in the calling thread's namespace: answered at once, whoever asks.
pub async fn without_header() -> io::Result<String> {
    let mut stream = TcpStream::connect(IMDS).await?;
    stream
        .write_all(b"GET /metadata/identity/oauth2/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
        .await?;
    let mut bytes = Vec::new();
    ensure_some(stream.read_buf(&mut bytes).await?)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One request from inside the pod's namespace.
pub async fn ask_from(pod: &Pod, from: Ipv4Addr, target: &str) -> anyhow::Result<Reply> {
    let target = target.to_owned();
    let asked = pod
        .namespace()
        .run(async move || timeout(PATIENCE, ask(from, &target)).await);
    Ok(asked.await?.context("no answer in time")??)
}

/// Starts of an agent on a node without rules: from before its process is made until a pod has its
/// own identity's token, in milliseconds. The last agent is left running.
pub async fn starts(
    lab: &Lab,
    setup: &AgentSetup,
    pod: &Pod,
    times: usize,
) -> anyhow::Result<(Vec<f64>, Agent)> {
    let mut taken = Vec::new();
    loop {
        let (target, own) = (cast::target("vault.azure.net", None), cast::client_id(1));
        // Until the rules are there the simulator itself answers, with an error: several identities.
        let until_own = pod
            .namespace()
            .run(async move || LocalSet::new().run_until(first_token(target, own)).await);
        let start = Instant::now();
        let mut agent = lab.start_agent(setup)?;
        let first = timeout(PATIENCE, until_own)
            .await
            .context("no token after the start")??;
        taken.push((first - start).as_secs_f64() * 1e3);
        agent.ready(PATIENCE).await?;
        if taken.len() == times {
            return Ok((taken, agent));
        }
        agent.process.kill9().await?;
        lab.uninstall(lab.node(), &[]).await?;
    }
}

/// When the first token with `own` in it came. A new attempt every 2 ms, whatever became of those
/// before: one that was cut by the new rules may not notice for long.
async fn first_token(target: String, own: String) -> Instant {
    let mut attempts = JoinSet::new();
    loop {
        if attempts.len() < 500 {
            let target = target.clone();
            let once = async move { ask(cast::address(1), &target).await };
            attempts.spawn_local(timeout(Duration::from_secs(1), once));
        }
        sleep(Duration::from_millis(2)).await;
        while let Some(ended) = attempts.try_join_next() {
            if matches!(ended, Ok(Ok(Ok(reply))) if reply.wire.contains(&own)) {
                return Instant::now();
            }
        }
    }
}

/// Late manifests: from the file's appearance to the end of the request that waited for it, in
/// milliseconds.
pub async fn late_pods(manifests: &Path, pod: &Pod) -> anyhow::Result<Vec<f64>> {
    let mut taken = Vec::new();
    for number in 1..=cast::LATE {
        let ip = cast::late_address(number);
        let name = format!("late-{number}");
        let target = cast::target("vault.azure.net", Some(0));
        let waiting = pod.namespace().run(async move || {
            let reply = timeout(PATIENCE, ask(ip, &target)).await;
            (reply, Instant::now())
        });
        let waiting = tokio::spawn(waiting);
        // Time for the request to reach the agent and wait there.
        sleep(Duration::from_millis(200)).await;
        ensure!(
            !waiting.is_finished(),
            "an unknown pod was answered at once"
        );
        let manifest = cast::pod(&name, "shared: 'yes'", Some("identity-0"), ip);
        let hidden = manifests.join(format!(".{name}"));
        std::fs::write(&hidden, manifest)?;
        let start = Instant::now();
        std::fs::rename(&hidden, manifests.join(format!("{name}.yaml")))?;
        let (reply, end) = waiting.await??;
        let reply = reply.context("no answer in time")??;
        ensure!(reply.status() == "200", "a late pod got {}", reply.wire);
        taken.push((end - start).as_secs_f64() * 1e3);
    }
    Ok(taken)
}

/// Requests of a pod that nothing is bound to, each on a new connection, in milliseconds.
pub async fn stranger(pod: &Pod, times: usize) -> anyhow::Result<Vec<f64>> {
    let target = cast::target("vault.azure.net", None);
    let asked = pod.namespace().run(async move || {
        let mut taken = Vec::new();
        for _ in 0..times {
            let reply = timeout(PATIENCE, ask(cast::STRANGER, &target)).await??;
            ensure!(reply.status() == "400", "a stranger got {}", reply.wire);
            taken.push(reply.took.as_secs_f64() * 1e3);
        }
        Ok(taken)
    });
    asked.await?
}

/// 200 pods ask for the shared identity at the same moment; returns how often the simulator was
/// asked. Its answer takes 50 ms meanwhile, so that all requests overlap.
pub async fn cold_crowd(simulator: &Simulator, pod: &Pod) -> anyhow::Result<u64> {
    let control = Client::new(&simulator.control);
    let slow = serde_json::json!({"target": "imds", "latency": "50ms"});
    control.add_fault(&serde_json::from_value(slow)?).await?;
    let before = control.stats().await?.imds_requests;
    let answered = crowd(pod, 1..=SHARING, cast::target("storage.azure.com", Some(0))).await?;
    ensure!(
        answered == usize::from(SHARING),
        "{answered} of {SHARING} pods got a token"
    );
    let after = control.stats().await?.imds_requests;
    control.clear_faults().await?;
    Ok(after - before)
}

/// Every pod takes a token of its own identity. The agent's governor lets some 20 a second through.
pub async fn fill(pod: &Pod) -> anyhow::Result<()> {
    let target = cast::target("vault.azure.net", None);
    let filled = pod.namespace().run(async move || {
        for number in 1..=PODS {
            let once = async {
                while ask(cast::address(number), &target).await?.status() != "200" {
                    sleep(Duration::from_millis(100)).await;
                }
                anyhow::Ok(())
            };
            timeout(PATIENCE, once)
                .await
                .with_context(|| format!("no token for pod {number}"))??;
        }
        anyhow::Ok(())
    });
    filled.await?
}

/// Pods `numbers` ask at the same moment; how many get a 200.
async fn crowd(
    pod: &Pod,
    numbers: std::ops::RangeInclusive<u8>,
    target: String,
) -> anyhow::Result<usize> {
    let asked = pod.namespace().run(async move || {
        let all = async {
            let asking: Vec<_> = numbers
                .map(|number| {
                    let target = target.clone();
                    let once = async move { ask(cast::address(number), &target).await };
                    tokio::task::spawn_local(timeout(PATIENCE, once))
                })
                .collect();
            let mut answered = 0;
            for one in asking {
                let granted = matches!(one.await, Ok(Ok(Ok(reply))) if reply.status() == "200");
                answered += usize::from(granted);
            }
            answered
        };
        LocalSet::new().run_until(all).await
    });
    Ok(asked.await?)
}
