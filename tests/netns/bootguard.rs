//! The boot guard across a reboot: closed before the agent starts, open to the agent afterwards, gone
//! when it is removed.
//!
//! In: a folder that plays the host's root, a fresh node that plays the rebooted one. Out: the unit's
//! own command line is run on it as systemd would before kubelet. The cloud's witness counts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lanyard::lab::{AgentSetup, IMDS, Style, until};

use crate::harness::Stage;
use crate::standin::{Cloud, PATIENCE, asks, on_node};

pub const UNIT: &str = "etc/systemd/system/lanyard-boot-guard.service";
const ENABLED: &str = "etc/systemd/system/kubelet.service.wants/lanyard-boot-guard.service";

/// A host with the machine's own iptables of that backend.
pub fn host(stage: &Stage) -> Result<PathBuf> {
    let root = stage.lab.dir("host")?;
    std::fs::create_dir_all(root.join("etc"))?;
    let program = root.join(format!("usr/sbin/iptables-{}-restore", stage.backend));
    std::fs::create_dir_all(root.join("usr/sbin"))?;
    std::fs::write(&program, "")?;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(root)
}

/// What systemd would run, with the paths of this host.
fn exec_start(root: &Path) -> Result<String> {
    let unit = std::fs::read_to_string(root.join(ENABLED)).context("the unit is not enabled")?;
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.context("no ExecStart")?;
    Ok(line.replace("/etc/", &format!("{}/etc/", root.display())))
}

pub async fn a_rebooted_node_is_closed_until_the_agent_starts(mut stage: Stage) -> Result<()> {
    let cloud = Cloud::open(&stage.lab).await?;
    let root = host(&stage)?;
    let manifests = stage.lab.dir("manifests")?;
    let setup = |node: &lanyard::lab::Node| {
        AgentSetup::new(node, &manifests)
            .flag("--iptables-backend", &stage.backend)
            .flag("--boot-guard", &root.to_string_lossy())
    };
    let mut agent = stage.lab.agent(&setup(stage.lab.node())).await?;
    until(PATIENCE, "the boot guard", async || {
        root.join(ENABLED).exists()
    })
    .await?;
    let installed = async || {
        agent
            .metrics()
            .await
            .is_ok_and(|m| m.contains("lanyard_boot_guard_installed 1"))
    };
    until(PATIENCE, "the metric", installed).await?;
    agent.process.kill9().await?;

    // Nothing of the old node's namespaces is left: a new one, with the same disk.
    let node = stage.lab.add_node().await?;
    let pod = node.add_pod("early", Style::Ptp).await?;
    ensure!(
        asks(&pod, IMDS).await?.starts_with("cloud"),
        "the witness: without the guard it leaks"
    );
    let before = cloud.hits();
    on_node(&node, &exec_start(&root)?).await?;
    for style in [Style::Ptp, Style::Bridge] {
        let name = format!("pod-{style:?}").to_lowercase();
        let pod = node.add_pod(&name, style).await?;
        ensure!(asks(&pod, IMDS).await? == "connection refused", "{style:?}");
    }
    ensure!(cloud.hits() == before, "the guarded node let a request out");

    // It is no agent: a real one is the first, and mends nothing.
    let setup = setup(&node).second("agent-2", 9465);
    let agent = stage.lab.agent(&setup).await?;
    let metrics = agent.metrics().await?;
    ensure!(
        metrics.contains("lanyard_rules_epoch 1") || metrics.contains("lanyard_rules_owner 1"),
        "{metrics}"
    );
    let answer = asks(&pod, IMDS).await?;
    ensure!(answer.contains("not_found"), "the agent answers: {answer}");
    // Run again under a living agent (`systemctl restart`): it is mended, nothing leaks.
    on_node(&node, &exec_start(&root)?).await?;
    ensure!(asks(&pod, IMDS).await?.contains("not_found"));
    ensure!(cloud.hits() == before);

    let said = stage
        .lab
        .uninstall(&node, &["--boot-guard", &root.to_string_lossy()])
        .await?;
    ensure!(said.contains("removed boot guard"), "{said}");
    ensure!(!root.join(UNIT).exists() && std::fs::symlink_metadata(root.join(ENABLED)).is_err());
    let left = on_node(&node, &format!("iptables-{}-save", stage.backend)).await?;
    ensure!(!left.contains("LANYARD"), "{left}");
    Ok(())
}
