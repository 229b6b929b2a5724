//! The self-test: does a packet that comes in like a pod's reach the agent, on this very node?
//!
//! In: who owns the rules. Out: the latch `self-test`, metrics. Blocks in its own task, on netlink and
//! for at most [`LIMIT`] on the answer. It runs when the rules were laid or changed hands, and every
//! few minutes. Needs `NET_ADMIN` and `NET_RAW`. Invariant 2: before it has passed once, nobody is told
//! that this node is ready for pods.
//!
//! `segment`, `talk` and `verdict` are pure; `pair` and `wire` touch the kernel.

mod metrics;
mod pair;
mod segment;
mod talk;
mod verdict;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::pair::Pair;
use self::segment::Ends;
use self::talk::Talk;
use self::wire::{Outcome, Wire};
use super::instance;
use super::intercept::Ownership;
use super::receive::probe;
use crate::model::backoff;
use crate::serve::ready::Latch;

pub use self::metrics::SelfTestMetrics;
pub use self::verdict::Failure;

/// For one conversation.
const LIMIT: Duration = Duration::from_secs(3);
/// Between tests that pass.
const PERIOD: Duration = Duration::from_mins(5);
/// After a failure: the first pause, and the longest.
const RETRY: backoff::Bounds = (Duration::from_secs(1), Duration::from_secs(30));
/// A node that passed before is believed until so many tests in a row failed.
const DOUBTED: u32 = 2;

const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// Addresses of pretended pods: link-local, nobody's, and never the agent's.
const PODS: [Ipv4Addr; 2] = [
    Ipv4Addr::new(169, 254, 169, 251),
    Ipv4Addr::new(169, 254, 169, 250),
];

/// Tests for ever. `agent`: the agent's own address, which the pretended pod must not have.
pub async fn run(
    agent: Ipv4Addr,
    mut owned: watch::Receiver<Ownership>,
    latch: Latch,
    metrics: SelfTestMetrics,
) {
    let (mut passed, mut failures) = (false, 0_u32);
    loop {
        let now = *owned.borrow_and_update();
        let pause = match now {
            Ownership::Pending | Ownership::Removed => {
                latch.not_ready(if now == Ownership::Removed {
                    "the rules are removed"
                } else {
                    "waits for the rules"
                });
                metrics.ok.set(0);
                None
            }
            Ownership::Owner { .. } | Ownership::StoodDown { .. } => match once(agent, now).await {
                Ok(()) => {
                    if failures > 0 || !passed {
                        tracing::info!(
                            "self-test passed: a packet that comes in like a pod's reaches the agent"
                        );
                    }
                    (passed, failures) = (true, 0);
                    metrics.ok.set(1);
                    latch.ready();
                    Some(PERIOD)
                }
                Err(failure) => {
                    failures = failures.saturating_add(1);
                    metrics.failed(&failure);
                    if failures == 1 || failures == DOUBTED {
                        tracing::error!(stage = failure.stage(), %failure, "self-test failed");
                    }
                    if !passed || failures >= DOUBTED {
                        metrics.ok.set(0);
                        latch.not_ready(failure.to_string());
                    }
                    Some(backoff::pause(RETRY, failures - 1))
                }
            },
        };
        let rest = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rest => {}
            changed = owned.changed() => if changed.is_err() { return },
        }
    }
}

/// Tests once; the pair is gone afterwards, whatever came of it.
pub async fn once(agent: Ipv4Addr, owned: Ownership) -> Result<(), Failure> {
    let nonce = format!("{:016x}", fastrand::u64(..));
    let outcome = converse(agent, &nonce).await;
    let outcome = outcome.map_err(|error| Failure::Setup(error.to_string()))?;
    verdict::judge(outcome, &nonce, instance::id(), owned)
}

/// Takes away what a killed agent left of a test; whether there was anything.
pub async fn remove_left_over() -> io::Result<bool> {
    Pair::remove_left_over().await
}

async fn converse(agent: Ipv4Addr, nonce: &str) -> io::Result<Outcome> {
    let pod = PODS
        .into_iter()
        .find(|pod| *pod != agent)
        .unwrap_or(PODS[0]);
    let ends = Ends {
        pod: SocketAddrV4::new(pod, fastrand::u16(32768..60999)),
        pod_mac: pair::POD_MAC,
        server: METADATA,
        host_mac: pair::HOST_MAC,
    };
    let request = format!(
        "GET {}?nonce={nonce} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        probe::PATH,
        METADATA.ip()
    );
    let pair = Pair::make(pod).await?;
    let carried = async {
        let talk = Talk::new(fastrand::u32(..), request.into_bytes());
        let wire = Wire::open(pair::POD_END)?;
        wire.carry(&ends, talk, Instant::now() + LIMIT).await
    };
    let carried = carried.await;
    pair.remove().await?;
    carried
}
