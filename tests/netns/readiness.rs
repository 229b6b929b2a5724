//! Ready means closed: whoever waits for `/readyz` (a rollout, an init step) may rely on the rules.
//!
//! In: agents that are started again and again on a node without rules. Out: at the first "ready"
//! the kernel has the rules and the granted pod is answered.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Get, IMDS};

use crate::harness::Stage;

const WAIT: Duration = Duration::from_secs(30);
const ROUNDS: usize = 12;
/// Where an agent tells of its readiness unless told otherwise.
const ADMIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9464);

pub async fn ready_means_that_the_rules_stand(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let node = cast.lab.node();
    let program = format!("iptables-{}", stage.backend);
    for round in 0..ROUNDS {
        // Asks without a pause and from before the start: a "ready" of a moment counts, too.
        let first_ready = node.namespace().run(async || {
            let asking = async {
                while !matches!(Get::new("/readyz").send(ADMIN).await, Ok(r) if r.status == 200) {}
            };
            tokio::time::timeout(WAIT, asking).await
        });
        let mut agent = cast.lab.start_agent(&cast.agent(&stage.backend))?;
        first_ready.await??;
        let rules = node
            .namespace()
            .output(&program, &["-t", "nat", "-S"])
            .await?;
        ensure!(
            rules.contains("--to-destination"),
            "round {round}: ready without rules:\n{rules}"
        );
        let reply = cast
            .payments
            .namespace()
            .get(IMDS, &Get::token(VAULT_RESOURCE))
            .await?;
        ensure!(reply.status == 200, "round {round}: {reply:?}");
        agent.process.kill9().await?;
        cast.lab
            .uninstall(node, &["--iptables-backend", &stage.backend])
            .await?;
    }
    Ok(())
}
