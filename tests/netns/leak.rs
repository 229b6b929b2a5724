//! Invariant 2 under fire: an agent that is killed, stopped or restarted lets nothing through.
//!
//! In: a granted pod (no bridge), a refused one (bridge) and load from both all the time. Out: not
//! one request and not one packet with a pod's address in the cloud.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, Knocking, WIRE_SERVER, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::guard::Guard;
use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);
/// How long one attempt may take: a silent address would make few attempts out of many.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Everybody who asks while agents come and go.
struct Load {
    granted: Knocking,
    stranger: Knocking,
    wire: [Knocking; 2],
}

impl Load {
    fn begin(cast: &Cast) -> Result<Self> {
        let client_id = &cast.world.identity("payments")?.client_id;
        let path = "/metadata/identity/oauth2/token?api-version=2018-02-01";
        let greedy = format!("{path}&resource={VAULT_RESOURCE}&client_id={client_id}");
        let greedy = Get::new(greedy).header("Metadata", "true").within(ATTEMPT);
        let stranger = cast.stranger.namespace();
        let wire = [80, 32526].map(|port| {
            let request = Get::new("/machine?comp=goalstate").within(ATTEMPT);
            stranger.knock(SocketAddrV4::new(WIRE_SERVER, port), request)
        });
        Ok(Self {
            granted: cast
                .payments
                .namespace()
                .knock(IMDS, Get::token(VAULT_RESOURCE).within(ATTEMPT)),
            stranger: stranger.knock(IMDS, greedy),
            wire,
        })
    }

    /// Both pods are being answered, each as it should be.
    async fn served(&self) -> Result<()> {
        let (granted, stranger) = (
            self.granted.tally().status(200),
            self.stranger.tally().status(400),
        );
        let served = until(WAIT, "both pods to be answered", async || {
            self.granted.tally().status(200) > granted + 5
                && self.stranger.tally().status(400) > stranger + 5
        });
        Ok(served.await?)
    }

    /// Both pods have tried often and in vain.
    async fn closed(&self) -> Result<()> {
        let (granted, stranger) = (
            self.granted.tally().failures(),
            self.stranger.tally().failures(),
        );
        let closed = until(WAIT, "both pods to be refused", async || {
            self.granted.tally().failures() > granted + 50
                && self.stranger.tally().failures() > stranger + 50
        });
        Ok(closed.await?)
    }

    /// Nobody got what was not theirs.
    async fn end(self) -> Result<()> {
        let stranger = self.stranger.stop().await?;
        ensure!(
            stranger.status(200) == 0,
            "the stranger got tokens: {stranger:?}"
        );
        for wire in self.wire {
            let tally = wire.stop().await?;
            ensure!(
                tally.by_status.is_empty(),
                "the wire server answered a pod: {tally:?}"
            );
            ensure!(tally.failures() > 0, "nobody asked the wire server");
        }
        self.granted.stop().await?;
        Ok(())
    }
}

pub async fn sigkill_lets_nothing_through(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    Guard::post(&cast).await?;
    let mut agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let guard = Guard::begin(&cast).await?;
    let load = Load::begin(&cast)?;
    load.served().await?;
    agent.process.kill9().await?;
    load.closed().await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    load.served().await?;
    load.end().await?;
    guard.nothing_leaked(&cast).await
}

pub async fn sigterm_lets_nothing_through(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    Guard::post(&cast).await?;
    let mut agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let guard = Guard::begin(&cast).await?;
    let load = Load::begin(&cast)?;
    load.served().await?;
    agent.process.term();
    let status = agent.process.wait_exit(WAIT).await?;
    ensure!(
        status.success(),
        "SIGTERM is a clean end: {status}\n{}",
        agent.process.tail()
    );
    load.closed().await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    load.served().await?;
    load.end().await?;
    guard.nothing_leaked(&cast).await
}

pub async fn restart_after_restart_lets_nothing_through(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    Guard::post(&cast).await?;
    let mut agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let guard = Guard::begin(&cast).await?;
    let load = Load::begin(&cast)?;
    for round in 0..6_u32 {
        // The last rounds do not wait until it is ready: it dies while it lays its rules.
        if round < 4 {
            load.served().await?;
        }
        if round % 2 == 0 {
            agent.process.kill9().await?;
        } else {
            agent.process.term();
            agent.process.wait_exit(WAIT).await?;
        }
        agent = cast.lab.start_agent(&cast.agent(&stage.backend))?;
        if round < 3 {
            agent.ready(WAIT).await?;
        }
    }
    agent.ready(WAIT).await?;
    load.served().await?;
    load.end().await?;
    guard.nothing_leaked(&cast).await
}

/// Something that answers on the platform's DNS port, by UDP and TCP.
fn dns(cast: &Cast) {
    let address = SocketAddrV4::new(WIRE_SERVER, 53);
    tokio::spawn(cast.lab.cloud().run(async move || {
        let socket = UdpSocket::bind(address).await?;
        let mut query = [0; 512];
        loop {
            let (length, peer) = socket.recv_from(&mut query).await?;
            socket.send_to(&query[..length], peer).await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        Ok::<(), std::io::Error>(())
    }));
    tokio::spawn(cast.lab.cloud().run(async move || {
        let listener = TcpListener::bind(address).await?;
        loop {
            listener.accept().await?.0.write_all(b"dns").await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        Ok::<(), std::io::Error>(())
    }));
}

pub async fn the_wire_servers_dns_stays_open(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    dns(&cast);
    let address = SocketAddrV4::new(WIRE_SERVER, 53);
    for pod in cast.pods() {
        let namespace = pod.namespace().clone();
        until(
            WAIT,
            format!("DNS over UDP from {}", pod.name()),
            async || {
                let asked = namespace.run(async move || {
                    let socket = UdpSocket::bind("0.0.0.0:0").await?;
                    socket.send_to(b"query", address).await?;
                    tokio::time::timeout(ATTEMPT, socket.recv_from(&mut [0; 512])).await?
                });
                matches!(asked.await, Ok(Ok((5, _))))
            },
        )
        .await?;
        until(
            WAIT,
            format!("DNS over TCP from {}", pod.name()),
            async || {
                let asked = namespace.run(async move || {
                    let mut text = String::new();
                    TcpStream::connect(address)
                        .await?
                        .read_to_string(&mut text)
                        .await?;
                    Ok::<_, std::io::Error>(text)
                });
                matches!(asked.await, Ok(Ok(text)) if text == "dns")
            },
        )
        .await?;
    }
    Ok(())
}
