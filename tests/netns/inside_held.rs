//! Mode `in-pod` with a `lanyard hold` beside the agent: what a crash does to pods' requests, and what is left behind.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::{Agent, AgentSetup, Bundles, Get, IMDS, Process, until};

use crate::harness::Stage;
use crate::inside::{is_inside, sample, setup, status, until_status};

const WAIT: Duration = Duration::from_secs(30);

/// A holder, and where it listens.
struct Holder {
    process: Process,
    socket: PathBuf,
}

impl Holder {
    async fn start(cast: &Cast, name: &str, patience: &str) -> Result<Self> {
        let folder = cast.lab.dir(name)?;
        let socket = folder.join("s");
        // One that died leaves it behind.
        let _ = std::fs::remove_file(&socket);
        let mut command = cast.lab.node().namespace().command(cast.lab.program());
        command.args(["hold", "--for", patience, "--log-level", "debug"]);
        command.arg("--socket").arg(&socket);
        let process = Process::start(name, command, &folder.join("log"))?;
        until(WAIT, "the holder", async || socket.exists()).await?;
        Ok(Self { process, socket })
    }

    fn of(&self, setup: AgentSetup) -> AgentSetup {
        setup.flag("--hold-socket", &self.socket.display().to_string())
    }

    /// Sockets and what else it has open.
    fn open(&self) -> Result<usize> {
        Ok(self.process.descriptors()?)
    }

    /// Until it has so many descriptors.
    async fn until_open(&self, wanted: usize) -> Result<()> {
        let what = format!("{wanted} descriptors at {}", self.process.name());
        let waited = until(WAIT, &what, async || self.open().ok() == Some(wanted)).await;
        if waited.is_err() {
            println!("{} open\n{}", self.open()?, self.process.tail());
        }
        Ok(waited?)
    }
}

/// A cast, with a holder beside its agent.
async fn raise_held(stage: Stage, patience: &str) -> Result<(Cast, Bundles, Holder, AgentSetup)> {
    let backend = stage.backend.clone();
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let holder = Holder::start(&cast, "holder", patience).await?;
    let setup = holder.of(setup(&cast, &bundles, &backend, "in-pod"));
    Ok((
        cast,
        bundles,
        holder,
        setup.flag("--vm-extension-endpoint", "true"),
    ))
}

async fn until_held(agent: &Agent, wanted: u64) -> Result<()> {
    let held = async || sample(agent, "lanyard_inside_held").await == Some(wanted);
    Ok(until(WAIT, "listeners to be held", held).await?)
}

/// Requests wait for the next agent, at the metadata address and at the extension's, also in a pod that has a web server of
/// its own on all of its addresses. At the end nothing is held twice.
pub async fn a_crash_refuses_nobody(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "60s").await?;
    let pod = &cast.payments;
    let mut agent = cast.lab.agent(&setup).await?;
    let idle = holder.open()?;
    let _server = crate::inside_trouble::web_server(pod).await?;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    // One at the metadata address, two at the extension's.
    holder.until_open(idle + 3).await?;
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let extension = "127.0.0.1:50342".parse()?;
    let asking = Get::new("/oauth2/token?resource=https%3A%2F%2Fvault.azure.net").within(WAIT);
    let asking = asking.header("Metadata", "true");
    let knocking = [
        pod.namespace().knock(IMDS, request),
        pod.namespace().knock(extension, asking),
    ];
    for round in 0..3 {
        let before: Vec<u64> = knocking.iter().map(|one| one.tally().status(200)).collect();
        let more = async || {
            let pairs = knocking.iter().zip(&before);
            pairs
                .into_iter()
                .all(|(one, before)| one.tally().status(200) > before + 20)
        };
        until(WAIT, "more tokens at both", more).await?;
        until_held(&agent, 2).await?;
        agent.process.kill9().await?;
        agent = cast.lab.agent(&setup).await?;
        until(WAIT, &format!("tokens again, round {round}"), more).await?;
    }
    for one in knocking {
        let tally = one.stop().await?;
        // Each dead one may have had one in hand.
        let refused = tally.failed.get("connection refused");
        ensure!(refused.is_none() && tally.failures() <= 3, "{tally:?}");
        ensure!(
            tally.attempts() - tally.failures() == tally.status(200),
            "{tally:?}"
        );
    }
    holder.until_open(idle + 3).await?;
    let sockets = pod.namespace().output("ss", &["-Hltn"]).await?;
    ensure!(
        sockets.matches("169.254.169.254%lo:").count() == 1,
        "{sockets}"
    );
    ensure!(sockets.matches(":50342").count() == 2, "{sockets}");
    // Its sandbox goes, and all of it with it.
    bundles.remove("one")?;
    holder.until_open(idle).await?;
    ensure!(cast.leaks(0).await?.is_empty());
    Ok(())
}

/// Who has been replaced leaves nothing behind that accepts and never answers, and gets its part back where its successor dies.
pub async fn a_holder_lets_go_of_who_is_replaced(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let (cast, bundles, holder, setup) = raise_held(stage, "60s").await?;
    let pod = &cast.payments;
    let mut first = cast.lab.agent(&setup).await?;
    let idle = holder.open()?;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    holder.until_open(idle + 3).await?;
    let other = Holder::start(&cast, "another-holder", "60s").await?;
    let next = other.of(crate::inside::setup(&cast, &bundles, &backend, "in-pod"));
    let next = next.second("second", 9465);
    let mut second = cast.lab.agent(&next).await?;
    // The first one listens on, but nobody has its sockets beside it; the second one is not alone yet.
    holder.until_open(idle).await?;
    ensure!(other.open()? == idle, "{}", other.process.tail());
    second.process.kill9().await?;
    holder.until_open(idle + 3).await?;
    let mut second = cast.lab.agent(&next).await?;
    holder.until_open(idle).await?;
    let asked = pod
        .namespace()
        .knock(IMDS, Get::token(VAULT_RESOURCE).within(WAIT));
    first.process.term();
    ensure!(first.process.wait_exit(WAIT).await?.success());
    other.until_open(idle + 1).await?;
    until_held(&second, 1).await?;
    let tally = asked.stop().await?;
    ensure!(tally.attempts() == tally.status(200), "{tally:?}");
    second.process.term();
    ensure!(second.process.wait_exit(WAIT).await?.success());
    // One that ends in order is as one that crashes: it may be the only one, and come again.
    ensure!(other.open()? == idle, "its own connection is over");
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let namespace = pod.namespace();
    let (asked, again) = tokio::join!(namespace.get(IMDS, &request), cast.lab.agent(&next));
    let (asked, _again) = (asked?, again?);
    ensure!(asked.status == 200, "{asked:?}");
    Ok(())
}

/// No agent comes: pods are refused, and nothing of theirs is kept. The next one serves.
pub async fn nothing_is_held_for_ever(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "300ms").await?;
    let pod = &cast.payments;
    let mut agent = cast.lab.agent(&setup).await?;
    let idle = holder.open()?;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    holder.until_open(idle + 3).await?;
    agent.process.kill9().await?;
    // Without the agent's own connection.
    holder.until_open(idle - 1).await?;
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let told = pod.namespace().get(IMDS, &request).await;
    let told = told.map_err(|error| error.to_string());
    let is_refused = told.as_ref().is_err_and(|told| told.contains("refused"));
    ensure!(is_refused, "{told:?}");
    let _agent = cast.lab.agent(&setup).await?;
    until_status(pod, 200).await?;
    holder.until_open(idle + 3).await
}

/// What a pod left that has gone meanwhile, or is not to be served any more, is nobody's; whoever has its container's name
/// next is another pod.
pub async fn what_was_left_is_its_own_pods_alone(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "60s").await?;
    let (pod, other) = (&cast.payments, &cast.reports);
    let mut agent = cast.lab.agent(&setup).await?;
    let idle = holder.open()?;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    holder.until_open(idle + 3).await?;
    agent.process.kill9().await?;
    bundles.remove("one")?;
    bundles.add("one", other)?;
    let _agent = cast.lab.agent(&setup).await?;
    until(WAIT, "the other one inside", async || {
        is_inside(other).await && status(other).await == 200
    })
    .await?;
    let asked = lanyard::demo::curl::token(other, VAULT_RESOURCE, "").await?;
    let claims = asked.claims().context("claims")?;
    ensure!(
        claims.oid == cast.world.identity("reports")?.principal_id,
        "{claims:?}"
    );
    // The first one's are let go of when nobody has come for them.
    holder.until_open(idle + 3).await?;
    let sockets = pod.namespace().output("ss", &["-Hltn"]).await?;
    ensure!(
        !sockets.contains("50342") && !sockets.contains("50254"),
        "{sockets}"
    );
    Ok(())
}

/// An agent serves without a holder, and tells the next one of what it has.
pub async fn a_holder_may_come_and_go(stage: Stage) -> Result<()> {
    let (cast, bundles, mut holder, setup) = raise_held(stage, "60s").await?;
    holder.process.kill9().await?;
    let mut agent = cast.lab.agent(&setup).await?;
    let pod = &cast.payments;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    until_held(&agent, 0).await?;
    for _ in 0..2 {
        let mut next = Holder::start(&cast, "holder", "60s").await?;
        // The metadata address, and the extension's endpoint.
        until_held(&agent, 2).await?;
        next.process.kill9().await?;
        until_held(&agent, 0).await?;
        ensure!(status(pod).await == 200);
    }
    let last = Holder::start(&cast, "holder", "60s").await?;
    until_held(&agent, 2).await?;
    agent.process.kill9().await?;
    let (request, namespace) = (Get::token(VAULT_RESOURCE).within(WAIT), pod.namespace());
    let (asked, again) = tokio::join!(namespace.get(IMDS, &request), cast.lab.agent(&setup));
    let (asked, _again) = (asked?, again?);
    ensure!(asked.status == 200, "{asked:?}");
    drop(last);
    Ok(())
}
