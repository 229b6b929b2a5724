//! Mode `in-pod`: whose a namespace is, and whose a port, where that could be mistaken.
//!
//! In: labs as in `inside`, with names that lead elsewhere and programs that are there before us. Out: nothing in anybody
//! else's network, nothing taken away from a program of the pod's own, and a word about it, once.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::demo::curl;
use lanyard::lab::{Agent, Bundles, Get, IMDS, Pod, until};
use nix::sys::signal::Signal;

use crate::harness::Stage;
use crate::inside::{is_clear, is_inside, raise, sample, setup, until_status};

const WAIT: Duration = Duration::from_secs(30);
const FAILED: &str = "lanyard_inside_failures_total{reason=\"failed\"}";
const TAKEN: &str = "lanyard_inside_failures_total{reason=\"taken\"}";
/// The virtual machine extension's endpoint.
const EXTENSION: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 50342);

/// It is told to try again by the node's rules: none of ours is in its network, and nobody else's answers.
async fn is_closed(pod: &Pod) -> Result<()> {
    let request = Get::token(VAULT_RESOURCE);
    let reply = pod.namespace().get(IMDS, &request).await?;
    let closed = reply.status == 503 && reply.body.contains("from outside");
    ensure!(closed, "{}: {reply:?}", pod.name());
    Ok(())
}

/// A token of its own identity.
async fn is_itself(cast: &Cast, pod: &Pod) -> Result<()> {
    let asked = curl::token(pod, VAULT_RESOURCE, "").await?;
    let claims = asked.claims().with_context(|| format!("{asked:?}"))?;
    let own = &cast.world.identity(pod.name())?.principal_id;
    ensure!(claims.oid == *own, "{}: {claims:?}", pod.name());
    Ok(())
}

/// One line for all attempts at this pod.
fn is_told_once(agent: &Agent, uid: &str, words: &str) -> Result<()> {
    let log = agent.process.log();
    let of_it = |line: &&str| line.contains(uid) && line.contains("trouble in a pod;");
    let told: Vec<_> = log.lines().filter(of_it).collect();
    let [line] = told[..] else {
        anyhow::bail!("told {} times: {told:#?}", told.len());
    };
    ensure!(line.contains(words), "{line}");
    Ok(())
}

/// A name among the named namespaces that is a link to another pod's: that one would be given the identity of whom the
/// bundle names.
pub async fn a_link_leads_into_no_other_pod(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let (other, named) = (&cast.payments, &cast.reports);
    let others = other.namespace().path();
    let link = others.with_file_name("link");
    std::os::unix::fs::symlink(&others, &link)?;
    bundles.add_at("link", named.uid(), &link)?;
    until(WAIT, "three attempts", async || {
        is_inside(other).await || sample(&agent, FAILED).await >= Some(3)
    })
    .await?;
    ensure!(is_clear(other).await, "the link was followed");
    is_told_once(&agent, named.uid(), "Too many levels of symbolic links")?;
    for pod in [other, named] {
        is_closed(pod).await?;
    }
    // Both have what is theirs as soon as it is they who are named.
    for pod in [other, named] {
        bundles.add(pod.name(), pod)?;
        until_status(pod, 200).await?;
        is_itself(&cast, pod).await?;
    }
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(2));
    Ok(())
}

/// A program of a pod's own, which shares its port with nobody.
pub async fn program(pod: &Pod, address: &'static str) -> Result<TcpListener> {
    let bound = pod.namespace().run(async move || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        std::io::Result::Ok(listener)
    });
    Ok(bound.await??)
}

/// The port that listeners of ours have in every pod.
pub async fn our_port_is_a_pods_own_until_it_lets_go(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let (pod, beside) = (&cast.payments, &cast.reports);
    let own = program(pod, "0.0.0.0:50254").await?;
    for pod in [pod, beside] {
        bundles.add(pod.name(), pod)?;
    }
    until(WAIT, "three attempts", async || {
        sample(&agent, TAKEN).await >= Some(3)
    })
    .await?;
    until_status(beside, 200).await?;
    is_told_once(
        &agent,
        pod.uid(),
        "a program of the pod listens on port 50254 already",
    )?;
    is_closed(pod).await?;
    let tables = pod.namespace().output("nft", &["list", "tables"]).await?;
    ensure!(!is_inside(pod).await && tables.is_empty(), "{tables}");
    let asked = own.accept().map_err(|error| error.kind());
    ensure!(
        asked
            .as_ref()
            .is_err_and(|kind| *kind == ErrorKind::WouldBlock),
        "the program is asked in our place: {asked:?}"
    );
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(1));
    drop(own);
    until_status(pod, 200).await?;
    is_itself(&cast, pod).await?;
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(2));
    ensure!(agent.process.log().contains("the trouble in a pod is over"));
    ensure!(sample(&agent, FAILED).await == Some(0));
    let leaks = cast.leaks(0).await?;
    ensure!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}

/// The port of the virtual machine extension's endpoint, on either loopback: then it is on none, and IMDS is served as ever.
pub async fn the_extensions_port_is_a_pods_own_until_it_lets_go(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let cast = Cast::raise(stage.lab, &[]).await?;
    let bundles = Bundles::new(&cast.lab)?;
    let setup = setup(&cast, &bundles, &backend, "in-pod").flag("--vm-extension-endpoint", "true");
    let agent = cast.lab.agent(&setup).await?;
    let (four, six) = (&cast.payments, &cast.reports);
    let own = program(four, "127.0.0.1:50342").await?;
    let other = program(six, "[::1]:50342").await?;
    let pods = [four, six];
    for pod in pods {
        bundles.add(pod.name(), pod)?;
    }
    until(WAIT, "three attempts in each", async || {
        sample(&agent, TAKEN).await >= Some(6)
    })
    .await?;
    for pod in pods {
        until_status(pod, 200).await?;
        is_told_once(
            &agent,
            pod.uid(),
            "a program of the pod listens on port 50342 already",
        )?;
    }
    let connect = |pod: &Pod| pod.namespace().run(async || TcpStream::connect(EXTENSION));
    let client = connect(four).await??;
    let (_, peer) = own.accept()?;
    ensure!(peer == client.local_addr()?, "the program's own client");
    let refused = connect(six).await?.map_err(|error| error.kind());
    ensure!(
        refused
            .as_ref()
            .is_err_and(|kind| *kind == ErrorKind::ConnectionRefused),
        "half of the endpoint is served: {refused:?}"
    );
    drop((own, other));
    let resource = "/oauth2/token?resource=https%3A%2F%2Fvault.azure.net";
    let request = Get::new(resource).header("Metadata", "true");
    for pod in pods {
        let client_id = &cast.world.identity(pod.name())?.client_id;
        until(WAIT, "the extension's endpoint", async || {
            let reply = pod.namespace().get(EXTENSION, &request).await;
            reply.is_ok_and(|reply| reply.status == 200 && reply.body.contains(client_id))
        })
        .await?;
    }
    ensure!(sample(&agent, FAILED).await == Some(0));
    Ok(())
}

/// Holds the whole agent, so that it sees at once what happens meanwhile.
async fn stop(agent: &Agent) -> Result<()> {
    agent.process.signal(Signal::SIGSTOP);
    let threads = format!("/proc/{}/task", agent.process.pid());
    let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
        let state = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
        state.is_ok_and(|state| state.contains(") T "))
    };
    let stopped = async || std::fs::read_dir(&threads).is_ok_and(|mut all| all.all(is_stopped));
    Ok(until(WAIT, "all threads to stop", stopped).await?)
}

/// A container's name is another pod's when the agent looks again: what it has in the first one's network ends.
pub async fn who_has_the_name_next_is_another_pod(stage: Stage) -> Result<()> {
    let (cast, bundles, agent) = raise(stage, "in-pod").await?;
    let (first, next) = (&cast.payments, &cast.reports);
    bundles.add("one", first)?;
    until_status(first, 200).await?;
    stop(&agent).await?;
    bundles.remove("one")?;
    bundles.add("one", next)?;
    agent.process.signal(Signal::SIGCONT);
    until_status(next, 200).await?;
    ensure!(is_inside(next).await, "served from outside");
    is_itself(&cast, next).await?;
    until(WAIT, "nobody to listen in the first one", async || {
        let sockets = first.namespace().output("ss", &["-Hltn"]).await;
        sockets.is_ok_and(|text| !text.contains("50254"))
    })
    .await?;
    ensure!(sample(&agent, "lanyard_inside_pods").await == Some(1));
    Ok(())
}
