//! What a person or a kubelet runs inside containers: `lanyard probe` in a pod, `lanyard health`
//! beside the agent.
//!
//! In: the usual cast. Out: the exit codes that others build on, with and without an agent. The
//! probe must tell a leak from a closed door: it is run before the first agent on purpose.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanyard::demo::cast::{Cast, VAULT_RESOURCE};
use lanyard::lab::Namespace;

use crate::harness::Stage;

const LIMIT: Duration = Duration::from_mins(1);

/// Exit code and standard output of `lanyard …` inside a namespace.
async fn runs(namespace: &Namespace, program: &str, args: &[&str]) -> Result<(i32, String)> {
    let output = namespace.command(program).args(args).output();
    let output = tokio::time::timeout(LIMIT, output).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    print!("{args:?} → {}\n{text}{errors}", output.status);
    Ok((output.status.code().context("a signal ended it")?, text))
}

pub async fn probe_tells_intercepted_from_leaking_from_closed(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let program = cast.lab.program().to_string_lossy().into_owned();
    let (granted, stranger) = (cast.payments.namespace(), cast.stranger.namespace());
    let (code, text) = runs(granted, &program, &["probe"]).await?;
    ensure!(
        code == 1 && text.contains("NOT intercepted"),
        "without an agent: {code}\n{text}"
    );

    let mut agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let (code, text) = runs(granted, &program, &["probe"]).await?;
    ensure!(
        code == 0 && text.contains("intercepted by lanyard"),
        "{code}\n{text}"
    );
    let asks = |expect| {
        vec![
            "probe",
            "--resource",
            VAULT_RESOURCE,
            "--expect",
            expect,
            "--output",
            "json",
        ]
    };
    let (code, text) = runs(granted, &program, &asks("granted")).await?;
    let found: serde_json::Value = serde_json::from_str(&text)?;
    let client_id = &cast.world.identity("payments")?.client_id;
    ensure!(
        code == 0 && found["token"]["clientId"] == client_id.as_str(),
        "{text}"
    );
    ensure!(!text.contains("eyJ"), "a token is shown");
    ensure!(runs(granted, &program, &asks("refused")).await?.0 == 3);
    ensure!(runs(stranger, &program, &asks("refused")).await?.0 == 0);
    ensure!(runs(stranger, &program, &asks("granted")).await?.0 == 3);

    agent.process.kill9().await?;
    let (code, text) = runs(granted, &program, &["probe"]).await?;
    ensure!(
        code == 2 && text.contains("closed, but no agent"),
        "{code}\n{text}"
    );
    Ok(())
}

pub async fn health_is_asked_over_a_socket(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let program = cast.lab.program().to_string_lossy().into_owned();
    let socket = cast.lab.dir("health")?.join("health.sock");
    let socket = socket.to_string_lossy().into_owned();
    let node = cast.lab.node().namespace();
    let ready = ["health", "ready", "--socket", &socket];
    ensure!(
        runs(node, &program, &ready).await?.0 == 1,
        "nobody is there"
    );

    let setup = cast.agent(&stage.backend).flag("--health-socket", &socket);
    let mut agent = cast.lab.agent(&setup).await?;
    ensure!(runs(node, &program, &ready).await? == (0, "ready\n".to_owned()));
    ensure!(
        runs(node, &program, &["health", "live", "--socket", &socket])
            .await?
            .0
            == 0
    );
    // Removed rules are a reason that it names.
    cast.lab.uninstall(cast.lab.node(), &[]).await?;
    let not_ready = lanyard::lab::until(LIMIT, "not ready", async || {
        let asked = runs(node, &program, &ready).await;
        asked.is_ok_and(|(code, text)| code == 1 && text.contains("lanyard uninstall"))
    });
    not_ready.await?;
    agent.process.kill9().await?;
    ensure!(
        runs(node, &program, &ready).await?.0 == 1,
        "the file of a dead process"
    );
    Ok(())
}
