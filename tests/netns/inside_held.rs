//! Mode `in-pod` with a `lanyard hold` beside the agent: what a crash does to pods' requests, and what is left behind.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Agent, AgentSetup, Bundles, Get, IMDS, Knocking, Pod, Process, until};

use crate::harness::Stage;
use crate::inside::{is_clear, is_inside, sample, setup, status, until_status};

const WAIT: Duration = Duration::from_secs(30);

/// A holder, and where it listens.
struct Holder {
    process: Process,
    socket: PathBuf,
    /// What it has open before anybody comes.
    idle: usize,
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
        let idle = process.descriptors()?;
        Ok(Self {
            process,
            socket,
            idle,
        })
    }

    fn of(&self, setup: AgentSetup) -> AgentSetup {
        setup.flag("--hold-socket", &self.socket.display().to_string())
    }

    /// Until it has so many conversations, and holds so many sockets.
    async fn until_has(&self, conversations: usize, sockets: usize) -> Result<()> {
        let what = format!(
            "{conversations} conversations and {sockets} sockets at {}",
            self.process.name()
        );
        let wanted = self.idle + conversations + sockets;
        let open = || self.process.descriptors().ok();
        let waited = until(WAIT, &what, async || open() == Some(wanted)).await;
        if waited.is_err() {
            println!(
                "{:?} open, {} idle\n{}",
                open(),
                self.idle,
                self.process.tail()
            );
        }
        Ok(waited?)
    }
}

/// A cast whose pods ask for both endpoints inside, with a holder beside its agent.
async fn raise_held(
    stage: Stage,
    mode: &str,
    patience: &str,
) -> Result<(Cast, Bundles, Holder, AgentSetup)> {
    let backend = stage.backend.clone();
    let cast = Cast::raise(stage.lab, &[]).await?;
    ask_for_both(&cast, &cast.payments)?;
    ask_for_both(&cast, &cast.reports)?;
    let bundles = Bundles::new(&cast.lab)?;
    let holder = Holder::start(&cast, "holder", patience).await?;
    let setup = holder.of(setup(&cast, &bundles, &backend, mode));
    Ok((cast, bundles, holder, setup))
}

/// The pod asks for the metadata address inside, and for the extension's endpoint.
fn ask_for_both(cast: &Cast, pod: &Pod) -> Result<()> {
    let manifest = pod.manifest(NAMESPACE, pod.name(), Some(pod.name()));
    let asks =
        "annotations: {lanyard.dev/mode: in-pod, lanyard.dev/vm-extension-endpoint: \"true\", ";
    let manifest = manifest.replace("annotations: {", asks);
    ensure!(manifest.contains(asks));
    cast.manifests
        .write(&format!("pod-{}.yaml", pod.name()), &manifest)?;
    Ok(())
}

/// The pod comes, as "one", and all its listeners are held, too: one at the metadata address, two at the extension's.
async fn until_served_and_held(pod: &Pod, bundles: &Bundles, holder: &Holder) -> Result<()> {
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
    holder.until_has(1, 3).await
}

/// Requests at the metadata address, and at the extension's.
fn knock_at_both(pod: &Pod) -> Result<[Knocking; 2]> {
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let asking = Get::new("/oauth2/token?resource=https%3A%2F%2Fvault.azure.net").within(WAIT);
    let asking = asking.header("Metadata", "true");
    let namespace = pod.namespace();
    Ok([
        namespace.knock(IMDS, request),
        namespace.knock("127.0.0.1:50342".parse()?, asking),
    ])
}

/// Until each has got more tokens than it has now.
async fn until_more(knocking: &[Knocking; 2]) -> Result<()> {
    let before = knocking.each_ref().map(|one| one.tally().status(200));
    let more = async || {
        let mut pairs = knocking.iter().zip(before);
        pairs.all(|(one, before)| one.tally().status(200) > before + 20)
    };
    Ok(until(WAIT, "more tokens at both", more).await?)
}

/// The pod's sockets that are ours, by the kernel's numbers.
async fn listening(pod: &Pod) -> Result<BTreeSet<String>> {
    let text = pod.namespace().output("ss", &["-Hltne"]).await?;
    let ours = text.lines().filter(|line| {
        let address = line.split_whitespace().nth(3).unwrap_or_default();
        address.ends_with(":50342") || address.ends_with(":50254")
    });
    let number = |line: &str| {
        let mut words = line.split_whitespace();
        let found = words.find(|word| word.starts_with("ino:"));
        found.map(str::to_owned).context("a socket's number")
    };
    ours.map(number).collect()
}

/// Nobody was refused, and nobody was answered by somebody else: at most so many requests were lost at once with who had them
/// in hand. A new agent may still be hearing of the pod.
async fn nobody_was_refused(knocking: [Knocking; 2], lost: u64) -> Result<()> {
    for one in knocking {
        let tally = one.stop().await?;
        let refused = tally.failed.get("connection refused");
        ensure!(refused.is_none() && tally.failures() <= lost, "{tally:?}");
        let answered = tally.status(200) + tally.status(503);
        ensure!(answered + tally.failures() == tally.attempts(), "{tally:?}");
    }
    Ok(())
}

async fn until_held(agent: &Agent, wanted: u64) -> Result<()> {
    let held = async || sample(agent, "lanyard_inside_held").await == Some(wanted);
    Ok(until(WAIT, "listeners to be held", held).await?)
}

/// Requests wait for the next agent, at the metadata address and at the extension's, also in a pod that has a web server of
/// its own on all of its addresses: the sockets are the very same ones. At the end nothing is left of them.
pub async fn a_crash_refuses_nobody(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "in-pod", "60s").await?;
    let pod = &cast.payments;
    let mut agent = cast.lab.agent(&setup).await?;
    holder.until_has(1, 0).await?;
    let idle = agent.process.descriptors()?;
    let _server = crate::inside_trouble::web_server(pod).await?;
    crashes(&cast, &bundles, &holder, &setup, &mut agent).await?;
    // Its sandbox goes, and all of it with it.
    bundles.remove("one")?;
    holder.until_has(1, 0).await?;
    ensure!(cast.leaks(0).await?.is_empty());
    let open = async || agent.process.descriptors().ok() <= Some(idle);
    // An unused connection to IMDS stays for 20 s.
    let long = Duration::from_mins(1);
    until(long, "the agent's descriptors to be closed", open).await?;
    Ok(())
}

/// Where each pod has a mode of its own: an agent that starts and knows nobody yet takes nothing away.
pub async fn a_crash_refuses_nobody_on_a_mixed_node(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "mixed", "60s").await?;
    let pod = &cast.payments;
    let mut agent = cast.lab.agent(&setup).await?;
    crashes(&cast, &bundles, &holder, &setup, &mut agent).await?;
    // Nor does it keep what the pod does not want any more.
    agent.process.kill9().await?;
    let manifest = pod.manifest(NAMESPACE, pod.name(), Some(pod.name()));
    cast.manifests
        .write(&format!("pod-{}.yaml", pod.name()), &manifest)?;
    let _agent = cast.lab.agent(&setup).await?;
    until(WAIT, "the pod to be left", async || is_clear(pod).await).await?;
    until_status(pod, 200).await?;
    holder.until_has(1, 0).await?;
    ensure!(listening(pod).await?.is_empty());
    Ok(())
}

/// The agent dies three times while the pod asks.
async fn crashes(
    cast: &Cast,
    bundles: &Bundles,
    holder: &Holder,
    setup: &AgentSetup,
    agent: &mut Agent,
) -> Result<()> {
    const ROUNDS: u64 = 3;
    let pod = &cast.payments;
    until_served_and_held(pod, bundles, holder).await?;
    let sockets = listening(pod).await?;
    ensure!(sockets.len() == 3, "{sockets:?}");
    let knocking = knock_at_both(pod)?;
    for _ in 0..ROUNDS {
        until_more(&knocking).await?;
        until_held(agent, 2).await?;
        agent.process.kill9().await?;
        *agent = cast.lab.agent(setup).await?;
        until_more(&knocking).await?;
    }
    nobody_was_refused(knocking, ROUNDS).await?;
    holder.until_has(1, 3).await?;
    ensure!(listening(pod).await? == sockets, "the very same ones");
    Ok(())
}

/// An agent that is asked to end, with nobody to follow it yet (kubelet does so where it is not well): listeners are held for as
/// long as it takes to end, and their time begins then.
pub async fn who_ends_in_order_is_waited_for(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "in-pod", "10s").await?;
    let pod = &cast.payments;
    let setup = setup.flag("--drain-timeout", "12s");
    let mut agent = cast.lab.agent(&setup).await?;
    until_served_and_held(pod, &bundles, &holder).await?;
    let knocking = knock_at_both(pod)?;
    until_more(&knocking).await?;
    // One that asks for nothing more keeps the agent from its end.
    let quiet = pod.namespace().run(async || {
        let mut quiet = std::net::TcpStream::connect(IMDS)?;
        quiet.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        quiet.read_exact(&mut [0])?;
        Ok::<_, std::io::Error>(quiet)
    });
    let quiet = quiet.await??;
    agent.process.term();
    ensure!(agent.process.wait_exit(WAIT).await?.success());
    holder.until_has(0, 3).await?;
    drop(quiet);
    let _agent = cast.lab.agent(&setup).await?;
    until_more(&knocking).await?;
    nobody_was_refused(knocking, 0).await
}

/// Who has been replaced leaves nothing behind that accepts and never answers, and gets its part back where its successor dies.
pub async fn a_holder_lets_go_of_who_is_replaced(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let (cast, bundles, holder, setup) = raise_held(stage, "in-pod", "60s").await?;
    let pod = &cast.payments;
    let mut first = cast.lab.agent(&setup).await?;
    until_served_and_held(pod, &bundles, &holder).await?;
    let other = Holder::start(&cast, "another-holder", "60s").await?;
    let next = other.of(crate::inside::setup(&cast, &bundles, &backend, "in-pod"));
    let next = next.second("second", 9465);
    let mut second = cast.lab.agent(&next).await?;
    // The first one listens on, but nobody has its sockets beside it; the second one is not alone yet.
    holder.until_has(1, 0).await?;
    other.until_has(1, 0).await?;
    second.process.kill9().await?;
    holder.until_has(1, 3).await?;
    let mut second = cast.lab.agent(&next).await?;
    holder.until_has(1, 0).await?;
    let asked = pod
        .namespace()
        .knock(IMDS, Get::token(VAULT_RESOURCE).within(WAIT));
    first.process.term();
    ensure!(first.process.wait_exit(WAIT).await?.success());
    other.until_has(1, 3).await?;
    until_held(&second, 2).await?;
    let tally = asked.stop().await?;
    ensure!(tally.attempts() == tally.status(200), "{tally:?}");
    second.process.term();
    ensure!(second.process.wait_exit(WAIT).await?.success());
    // One that ends in order is as one that crashes: it may be the only one, and come again.
    other.until_has(0, 3).await?;
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let namespace = pod.namespace();
    let (asked, again) = tokio::join!(namespace.get(IMDS, &request), cast.lab.agent(&next));
    let (asked, _again) = (asked?, again?);
    ensure!(asked.status == 200, "{asked:?}");
    Ok(())
}

/// No agent comes: pods are refused, and nothing of theirs is kept. The next one serves.
pub async fn nothing_is_held_for_ever(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "in-pod", "300ms").await?;
    let pod = &cast.payments;
    let mut agent = cast.lab.agent(&setup).await?;
    until_served_and_held(pod, &bundles, &holder).await?;
    agent.process.kill9().await?;
    holder.until_has(0, 0).await?;
    let request = Get::token(VAULT_RESOURCE).within(WAIT);
    let told = pod.namespace().get(IMDS, &request).await;
    let told = told.map_err(|error| error.to_string());
    let is_refused = told.as_ref().is_err_and(|told| told.contains("refused"));
    ensure!(is_refused, "{told:?}");
    let _agent = cast.lab.agent(&setup).await?;
    until_status(pod, 200).await?;
    holder.until_has(1, 3).await
}

/// What was left in a pod that has gone meanwhile is nobody's; whoever has its container's name
/// next is another pod.
pub async fn what_was_left_is_its_own_pods_alone(stage: Stage) -> Result<()> {
    let (cast, bundles, holder, setup) = raise_held(stage, "in-pod", "60s").await?;
    let (pod, other) = (&cast.payments, &cast.reports);
    let mut agent = cast.lab.agent(&setup).await?;
    until_served_and_held(pod, &bundles, &holder).await?;
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
    let gone = async || listening(pod).await.is_ok_and(|all| all.is_empty());
    until(WAIT, "the first one's listeners to be gone", gone).await?;
    holder.until_has(1, 3).await
}

/// An agent serves without a holder, and tells the next one of what it has.
pub async fn a_holder_may_come_and_go(stage: Stage) -> Result<()> {
    let (cast, bundles, mut holder, setup) = raise_held(stage, "in-pod", "60s").await?;
    holder.process.kill9().await?;
    let mut agent = cast.lab.agent(&setup).await?;
    let pod = &cast.payments;
    bundles.add("one", pod)?;
    until_status(pod, 200).await?;
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
