//! What proves that nothing leaked: two independent witnesses in the cloud.
//!
//! In: a cast. Out: the simulator's journal (requests with a pod's address) and the cloud's packet
//! counters (packets from pods, also of connections that never became a request). Invariant: both
//! witnesses have been seen to notice a leak before they are trusted with "nothing".

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS, WIRE_SERVER};

/// The pods' networks, of every node.
const PODS: &str = "10.244.0.0/16";

/// The witnesses, from the moment that the rules stand.
pub struct Guard {
    since: u64,
}

impl Guard {
    /// Before any agent: counts packets in the cloud, and lets a pod's request through to see that
    /// both witnesses notice.
    pub async fn post(cast: &Cast) -> Result<()> {
        let (imds, wire) = (IMDS.ip().to_string(), WIRE_SERVER.to_string());
        for (address, ports) in [(&imds, "80"), (&wire, "80,32526")] {
            let rule = [
                "-A",
                "INPUT",
                "-s",
                PODS,
                "-d",
                address,
                "-p",
                "tcp",
                "-m",
                "multiport",
            ];
            let rule = [&rule[..], &["--dports", ports]].concat();
            cast.lab.cloud().output("iptables-nft", &rule).await?;
        }
        let pod = cast.stranger.namespace();
        let reply = pod.get(IMDS, &Get::token(VAULT_RESOURCE)).await?;
        ensure!(
            reply.status == 400,
            "two identities and no choice: {reply:?}"
        );
        ensure!(
            !cast.leaks(0).await?.is_empty(),
            "the journal did not notice a leak"
        );
        ensure!(
            packets(cast).await? > 0,
            "the counters did not notice a leak"
        );
        Ok(())
    }

    /// The rules stand: from now on nothing may be noticed.
    pub async fn begin(cast: &Cast) -> Result<Self> {
        cast.lab
            .cloud()
            .output("iptables-nft", &["-Z", "INPUT"])
            .await?;
        Ok(Self {
            since: cast.now().await?,
        })
    }

    /// Nothing was noticed until now.
    pub async fn nothing_leaked(&self, cast: &Cast) -> Result<()> {
        let leaks = cast.leaks(self.since).await?;
        ensure!(
            leaks.is_empty(),
            "{} requests leaked, the first: {:?}",
            leaks.len(),
            leaks[0]
        );
        let packets = packets(cast).await?;
        ensure!(
            packets == 0,
            "{packets} packets from pods reached the cloud's local services"
        );
        Ok(())
    }
}

/// Packets from pods to IMDS and the guarded ports of the wire server.
async fn packets(cast: &Cast) -> Result<u64> {
    let listed = cast
        .lab
        .cloud()
        .output("iptables-nft", &["-nvxL", "INPUT"])
        .await?;
    let rules = listed.lines().filter(|line| line.contains(PODS));
    let counts = rules.map(|line| {
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .parse::<u64>()
    });
    let counts: Vec<u64> = counts.collect::<Result<_, _>>().context("iptables -nvxL")?;
    ensure!(counts.len() == 2, "the counting rules are gone:\n{listed}");
    Ok(counts.iter().sum())
}
