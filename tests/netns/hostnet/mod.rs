//! Host-network pods, told apart by the cgroups of their sockets.
//!
//! In: cgroups that are put up by hand as kubelet would, and curl in them. Out: tokens and refusals, and who comes to
//! the cloud past the agent. No container runtime is here, and nothing is claimed about one.

mod posing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::lab::{Agent, AgentSetup, Cgroups, Get, Namespace, until};

use crate::app_service::{self, ANOTHER, SECRET, URL};
use crate::capabilities::OF_HOST_NETWORK_PODS;
use crate::cgroups::{Said, ask, command};
use crate::harness::Stage;
pub use posing::{
    nobody_is_taken_for_another, one_pods_connections_leave_room_for_anothers,
    who_marks_his_sockets_as_the_agents_are_does_not_pass,
};

const WAIT: Duration = Duration::from_secs(30);
const TOKEN: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";
const INSTANCE: &str = "http://169.254.169.254/metadata/instance?api-version=2021-02-01";

/// A cast, kubelet's folders, and an agent that is itself in a pod's cgroup, as on a node.
struct Play {
    cast: Cast,
    tree: Cgroups,
    agent: Agent,
}

impl Play {
    async fn raise(stage: Stage) -> Result<Self> {
        let tree = Cgroups::plant()?;
        let cast = Cast::raise(stage.lab, &[]).await?;
        let agent = cast.lab.agent(&setup(&cast, &tree, &stage.backend)).await?;
        Cgroups::put(&tree.pod("agent")?, agent.process.pid())?;
        Ok(Self { cast, tree, agent })
    }

    fn node(&self) -> &Namespace {
        self.cast.lab.node().namespace()
    }

    /// A host-network pod with a container's cgroup; `app` decides about bindings.
    fn pod(&self, uid: &str, app: &str) -> Result<PathBuf> {
        host_pod(&self.cast, uid, app)?;
        Ok(self.tree.pod(uid)?)
    }

    async fn token(&self, cgroup: &Path) -> Result<Said> {
        ask(self.node(), cgroup, &[TOKEN]).await
    }

    async fn until_status(&self, cgroup: &Path, wanted: u16) -> Result<()> {
        let what = format!("{wanted} in {}", cgroup.display());
        let waited = until(WAIT, &what, async || {
            self.token(cgroup)
                .await
                .is_ok_and(|said| said.status == wanted)
        });
        if waited.await.is_err() {
            let said = self.token(cgroup).await;
            anyhow::bail!("{what}, but {said:?}");
        }
        Ok(())
    }

    /// Requests for the instance's metadata that reached the cloud: nobody but the node itself gets them.
    async fn seen_by_the_cloud(&self) -> Result<usize> {
        let entries = self.cast.journal(0).await?;
        let instance = entries
            .iter()
            .filter(|entry| entry.target.starts_with("/metadata/instance"));
        Ok(instance.count())
    }
}

fn setup(cast: &Cast, tree: &Cgroups, backend: &str) -> AgentSetup {
    cast.agent(backend)
        .flag("--host-network-pods", "true")
        .flag("--cgroup-root", &tree.root().display().to_string())
        .flag("--log-level", "info,lanyard::agent=debug")
        .flag("--pod-wait", "300ms")
}

fn host_pod(cast: &Cast, uid: &str, app: &str) -> Result<()> {
    let manifest = host_manifest(cast, uid, app);
    cast.manifests.write(&format!("host-{uid}.yaml"), &manifest)
}

fn host_manifest(cast: &Cast, uid: &str, app: &str) -> String {
    let (node, address) = (cast.lab.node().name(), cast.lab.node().address());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {uid}\n  namespace: {NAMESPACE}\n  uid: {uid}\n  labels: {{app: {app}}}\n\
         spec: {{nodeName: {node}, hostNetwork: true, serviceAccountName: {app}, containers: [{{name: main, image: none}}]}}\n\
         status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
    )
}

/// Whose token a body holds.
fn is_token_of(cast: &Cast, said: &Said, identity: &str) -> Result<()> {
    let client = &cast.world.identity(identity)?.client_id;
    ensure!(
        said.status == 200 && said.body.contains(client.as_str()),
        "not a token of {identity}: {said:?}"
    );
    Ok(())
}

/// Each its own identity or a refusal, never the node's; the node's own programs pass, and so does the agent.
pub async fn each_gets_its_own_identity_or_a_refusal(stage: Stage) -> Result<()> {
    let play = Play::raise(stage).await?;
    let (payments, reports) = (play.pod("one", "payments")?, play.pod("two", "reports")?);
    let stranger = play.pod("three", "stranger")?;
    let unknown = play.tree.pod("four")?;
    play.until_status(&payments, 200).await?;
    play.until_status(&reports, 200).await?;
    is_token_of(&play.cast, &play.token(&payments).await?, "payments")?;
    is_token_of(&play.cast, &play.token(&reports).await?, "reports")?;
    // As programs of IPv6 ask.
    let mapped = TOKEN.replace("169.254.169.254", "[::ffff:169.254.169.254]");
    let said = ask(play.node(), &payments, &[&mapped]).await?;
    is_token_of(&play.cast, &said, "payments")?;
    // One that is granted to somebody else.
    let client = &play.cast.world.identity("payments")?.client_id;
    let other = format!("{TOKEN}&client_id={client}");
    ensure!(ask(play.node(), &reports, &[&other]).await?.status == 400);
    let refused = play.token(&stranger).await?;
    ensure!(refused.status == 400, "{refused:?}");
    let nobody = play.token(&unknown).await?;
    ensure!(nobody.status == 503, "{nobody:?}");
    // In the cgroup of all pods, and in none's.
    let between = play.tree.between_pods();
    let nobody = play.token(&between).await?;
    ensure!(nobody.status == 503, "{nobody:?}");
    // A container that starts later, and one that its pod nested.
    let nested = play.tree.pod("one/later")?;
    is_token_of(&play.cast, &play.token(&nested).await?, "payments")?;
    // What nobody opened stays closed; what the node asks for itself, it gets.
    ensure!(ask(play.node(), &payments, &[INSTANCE]).await?.status == 403);
    ensure!(play.seen_by_the_cloud().await? == 0);
    let daemon = play.tree.daemon();
    let said = ask(play.node(), &daemon, &[INSTANCE]).await?;
    ensure!(said.status == 200, "{said:?}");
    let said = ask(play.node(), &daemon, &[&other]).await?;
    is_token_of(&play.cast, &said, "payments")?;
    ensure!(play.seen_by_the_cloud().await? == 1);
    // The agent saw pods only.
    let metrics = play.agent.metrics().await?;
    ensure!(
        metrics.contains("lanyard_host_network_pods_bypassing 0\n"),
        "{metrics}"
    );
    let usual = lanyard::demo::curl::token(&play.cast.payments, VAULT_RESOURCE, "").await?;
    ensure!(usual.status == Some(200), "{usual:?}");
    Ok(())
}

/// Programs written for App Service: the secret of the pod's own spec besides the pod's own sockets.
pub async fn app_services_dialects_are_spoken_on_the_nodes_network(stage: Stage) -> Result<()> {
    let play = Play::raise(stage).await?;
    let asked = async |cgroup: &Path, header: &str, url: &str| {
        ask(play.node(), cgroup, &["-H", header, url]).await
    };
    for (uid, app, secret) in [("one", "payments", SECRET), ("two", "reports", ANOTHER)] {
        let manifest = host_manifest(&play.cast, uid, app);
        let manifest = app_service::with_secret(&manifest, secret);
        let file = format!("host-{uid}.yaml");
        play.cast.manifests.write(&file, &manifest)?;
        let (cgroup, own) = (play.tree.pod(uid)?, format!("X-IDENTITY-HEADER: {secret}"));
        until(WAIT, "a token for its own secret", async || {
            let said = asked(&cgroup, &own, URL).await;
            said.is_ok_and(|said| is_token_of(&play.cast, &said, app).is_ok())
        })
        .await?;
    }
    let (one, two) = (play.tree.pod("one")?, play.tree.pod("two")?);
    let client_id = &play.cast.world.identity("payments")?.client_id;
    let own = async |header: &str, url: &str| asked(&one, header, url).await;
    app_service::is_spoken(client_id, own).await?;
    let anothers = format!("X-IDENTITY-HEADER: {SECRET}");
    app_service::is_refusal(&asked(&two, &anothers, URL).await?)?;
    let entries = play.cast.journal(0).await?;
    let mut targets = entries.iter().map(|entry| &entry.target);
    ensure!(
        !targets.any(|target| target.starts_with("/msi")),
        "{entries:#?}"
    );
    Ok(())
}

/// The rules outlive the agent: pods find closed doors, one behind the other, and the node goes on.
pub async fn without_the_agent_pods_are_refused_and_the_node_is_not(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let mut play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    let daemon = play.tree.daemon();
    play.until_status(&pod, 200).await?;
    play.agent.process.kill9().await?;
    let own = async |play: &Play| ask(play.node(), &daemon, &[INSTANCE]).await;
    for table in ["", "nat", "filter"] {
        if !table.is_empty() {
            let program = format!("iptables-{backend}");
            play.node().output(&program, &["-t", table, "-F"]).await?;
        }
        let seen = play.seen_by_the_cloud().await?;
        let said = ask(play.node(), &pod, &["-m", "2", INSTANCE]).await?;
        ensure!(said.status == 0, "after flushing {table:?}: {said:?}");
        ensure!(play.seen_by_the_cloud().await? == seen, "{table:?}");
        let said = own(&play).await?;
        ensure!(said.status == 200, "{said:?}");
    }
    // Another agent mends it, another one still that is told otherwise takes it away.
    let mut again = play
        .cast
        .lab
        .agent(&setup(&play.cast, &play.tree, &backend))
        .await?;
    play.until_status(&pod, 200).await?;
    again.process.kill9().await?;
    let off = play.cast.lab.agent(&play.cast.agent(&backend)).await?;
    ensure!(ask(play.node(), &pod, &[INSTANCE]).await?.status == 200);
    let series = "lanyard_host_network_pods_bypassing 1\n";
    until(WAIT, "the pod to be counted", async || {
        off.metrics().await.is_ok_and(|text| text.contains(series))
    })
    .await?;
    drop(off);
    let _last = play
        .cast
        .lab
        .agent(&setup(&play.cast, &play.tree, &backend))
        .await?;
    play.until_status(&pod, 200).await?;
    play.cast
        .lab
        .uninstall(play.cast.lab.node(), &["--iptables-backend", &backend])
        .await?;
    let saved = play
        .node()
        .output(&format!("iptables-{backend}-save"), &[])
        .await?;
    ensure!(!saved.contains("LANYARD"), "{saved}");
    ensure!(ask(play.node(), &pod, &[INSTANCE]).await?.status == 200);
    Ok(())
}

/// A process, its socket and its cgroup may be gone before anybody looks: nothing is lost by it.
pub async fn who_is_gone_before_the_look_costs_nothing(stage: Stage) -> Result<()> {
    let play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    play.until_status(&pod, 200).await?;
    let agent = &play.agent.process;
    let before = agent.descriptors()?;
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); \
        bash -c 'exec 3<>/dev/tcp/169.254.169.254/80; printf \"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=x HTTP/1.1\\r\\nHost: x\\r\\nMetadata: true\\r\\n\\r\\n\" >&3' || exit 1; done";
    for round in 0..3 {
        let brief = play.tree.pod(&format!("one/brief-{round}"))?;
        let mut shell = command(play.node(), &brief, "sh");
        let status = shell.args(["-c", script]).status().await?;
        ensure!(status.success(), "{status}");
        std::fs::remove_dir(&brief)?;
    }
    is_token_of(&play.cast, &play.token(&pod).await?, "payments")?;
    until(WAIT, "no descriptor more than before", async || {
        agent.descriptors().is_ok_and(|now| now <= before)
    })
    .await?;
    Ok(())
}

/// Requests go on while one agent takes over from another.
pub async fn a_handover_fails_no_host_network_pods_request(stage: Stage) -> Result<()> {
    let backend = stage.backend.clone();
    let mut play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    play.until_status(&pod, 200).await?;
    let mut knocking = command(play.node(), &pod, "sh");
    let url = format!(
        "curl -q -s -o /dev/null -m 10 -w '%{{http_code}}\\n' -H 'Metadata: true' '{TOKEN}'"
    );
    knocking.args(["-c", &format!("while :; do {url}; done")]);
    let log = play.cast.lab.dir("knocking")?.join("statuses");
    let knocking = lanyard::lab::Process::start("knocking", knocking, &log)?;
    let more = async |many: usize| {
        let before = knocking.log().lines().count();
        until(WAIT, "more answers", async || {
            knocking.log().lines().count() >= before + many
        })
        .await
    };
    more(10).await?;
    let second = setup(&play.cast, &play.tree, &backend).second("second", 9465);
    let second = play.cast.lab.agent(&second).await?;
    Cgroups::put(&play.tree.pod("agent-2")?, second.process.pid())?;
    more(10).await?;
    play.agent.process.term();
    play.agent.process.wait_exit(WAIT).await?;
    more(10).await?;
    let statuses = knocking.log();
    ensure!(statuses.lines().all(|line| line == "200"), "{statuses}");
    Ok(())
}

/// Kubelet's cgroup may be made anew; rules that were bound to the old one look as before and match nothing.
pub async fn another_cgroup_under_the_same_path_is_noticed(stage: Stage) -> Result<()> {
    let play = Play::raise(stage).await?;
    let pod = play.pod("one", "payments")?;
    play.until_status(&pod, 200).await?;
    // The agent would end with its cgroup.
    Cgroups::put(&play.tree.daemon(), play.agent.process.pid())?;
    play.tree.fell_pods();
    let pod = play.tree.pod("one")?;
    Cgroups::put(&play.tree.pod("agent")?, play.agent.process.pid())?;
    until(WAIT, "the pod's own token again", async || {
        let said = play.token(&pod).await;
        said.is_ok_and(|said| is_token_of(&play.cast, &said, "payments").is_ok())
    })
    .await?;
    ensure!(ask(play.node(), &pod, &[INSTANCE]).await?.status == 403);
    Ok(())
}

/// With cgroup v1 nothing could be told apart: the agent says so and ends.
pub async fn with_cgroup_v1_it_does_not_start(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    // What is mounted at /sys/fs/cgroup there is a tmpfs, as this folder.
    let root = cast.lab.dir("cgroup")?.display().to_string();
    let setup = cast
        .agent(&stage.backend)
        .flag("--host-network-pods", "true")
        .flag("--cgroup-root", &root);
    let mut agent = cast.lab.start_agent(&setup)?;
    let status = agent.process.wait_exit(WAIT).await?;
    ensure!(!status.success());
    let said = agent.process.log();
    ensure!(
        said.contains("needs cgroup v2") && said.contains("this node has cgroup v1"),
        "{said}"
    );
    ensure!(!said.contains("rules laid"), "{said}");
    Ok(())
}

/// A container as the chart's: its cgroup namespace is its own, and paths in rules are read from there; it is root with
/// these capabilities, no others, and gains none.
pub async fn from_a_cgroup_namespace_of_its_own_the_nodes_is_entered(stage: Stage) -> Result<()> {
    let tree = Cgroups::plant()?;
    let cast = Cast::raise(stage.lab, &[]).await?;
    host_pod(&cast, "one", "payments")?;
    let (pod, own) = (tree.pod("one")?, tree.pod("agent")?);
    let node = cast.lab.node();
    let mut contained = command(node.namespace(), &own, "unshare");
    let bounds = OF_HOST_NETWORK_PODS.map(|name| format!(",+{}", name.to_lowercase()));
    let bounds = format!("-all{}", bounds.concat());
    contained.args(["--cgroup", "setpriv", "--no-new-privs"]);
    contained.args(["--inh-caps", "-all", "--bounding-set", &bounds]);
    contained.arg(cast.lab.program());
    contained.args([
        "agent",
        "--host-network-pods",
        "--cgroup-root",
        &tree.root().display().to_string(),
    ]);
    contained.arg("--manifests").arg(cast.manifests.dir());
    contained.arg("--state-dir").arg(node.state_dir());
    contained.args(["--iptables-backend", &stage.backend]);
    let log = stage.logs.join("contained.log");
    let agent = lanyard::lab::Process::start("contained", contained, &log)?;
    until(WAIT, "a token", async || {
        let said = ask(node.namespace(), &pod, &[TOKEN]).await;
        said.is_ok_and(|said| is_token_of(&cast, &said, "payments").is_ok())
    })
    .await?;
    ensure!(ask(node.namespace(), &pod, &[INSTANCE]).await?.status == 403);
    let admin = "127.0.0.1:9464".parse()?;
    until(WAIT, "the agent to be ready", async || {
        let reply = node.namespace().get(admin, &Get::new("/readyz")).await;
        reply.is_ok_and(|reply| reply.status == 200)
    })
    .await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    for kind in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let set = status.lines().find_map(|line| line.strip_prefix(kind));
        let set = u64::from_str_radix(set.context("a set")?.trim(), 16)?;
        let many = set.count_ones() as usize;
        ensure!(many == OF_HOST_NETWORK_PODS.len(), "{kind} {set:x}");
    }
    Ok(())
}
