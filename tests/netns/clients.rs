//! Real clients in pods: the Python SDK and curl, unmodified, against agent, rules and vault.
//!
//! In: tests/clients/*.py and a virtual environment that is made here, outside the lab (a lab has
//! no way to a package index), once, under target/. Out: their assertions. Blocks on pip, once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lanyard::demo::cast::{Cast, NAMESPACE, VAULT_RESOURCE};
use lanyard::demo::curl;
use lanyard::lab::{Pod, VAULT_HOST};
use parking_lot::Mutex;

use crate::app_service::{SECRET, with_secret};
use crate::harness::Stage;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
const REQUIREMENTS: &str = include_str!("../clients/requirements.txt");
/// An SDK that retries where it should give up takes 17 s and more.
const HANG_SECONDS: &str = "12";
const LIMIT: Duration = Duration::from_mins(2);

static INSTALLING: Mutex<()> = Mutex::new(());

fn environment() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("clients-venv")
}

/// Makes the virtual environment if it is not there or was made from other requirements.
pub fn install() -> Result<()> {
    let _one_at_a_time = INSTALLING.lock();
    let (venv, made_from) = (environment(), environment().join("made-from.txt"));
    if std::fs::read_to_string(&made_from).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(());
    }
    let mut say = std::io::stderr();
    let _ = writeln!(
        say,
        "making {} with the pinned Azure SDK (once) …",
        venv.display()
    );
    let python = venv.join("bin/python");
    step(
        "python3",
        &["-m", "venv", "--clear", &venv.to_string_lossy()],
    )?;
    let requirements = format!("{SCRIPTS}/requirements.txt");
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    step(
        &python.to_string_lossy(),
        &[&pip[..], &[&requirements]].concat(),
    )?;
    std::fs::write(made_from, REQUIREMENTS)?;
    Ok(())
}

fn step(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("starting {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("`{program} {}` failed: {}", args.join(" "), said.trim());
}

/// Runs a script in a pod with nothing of this machine's environment but the vault's CA.
async fn python(cast: &Cast, pod: &Pod, script: &str, argument: &str) -> Result<String> {
    python_with(cast, pod, (script, argument), &[]).await
}

/// The same with variables of the pod's own.
async fn python_with(
    cast: &Cast,
    pod: &Pod,
    (script, argument): (&str, &str),
    variables: &[(&str, &str)],
) -> Result<String> {
    let mut command = pod.namespace().command(environment().join("bin/python"));
    command.arg(format!("{SCRIPTS}/{script}")).arg(argument);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent");
    command.envs(variables.iter().copied());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SSL_CERT_FILE", &cast.simulator.ca);
    command.env("REQUESTS_CA_BUNDLE", &cast.simulator.ca);
    let output = tokio::time::timeout(LIMIT, command.stdin(Stdio::null()).output()).await;
    let output = output.with_context(|| format!("{script} hangs"))??;
    let (said, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{script} in {}:\n{said}{complaint}", pod.name());
    ensure!(output.status.success(), "{script} in {} failed", pod.name());
    Ok(said.into_owned())
}

pub async fn the_python_sdk_gets_its_own_identity_and_secret(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let identity = cast.world.identity("payments")?;
    let wanted = serde_json::json!({
        "client_id": identity.client_id,
        "object_id": identity.principal_id,
        "resource_id": identity.resource_id,
        "secret": "correct-horse-battery-staple",
        "vault_url": format!("https://{VAULT_HOST}"),
    });
    let said = python(&cast, &cast.payments, "granted.py", &wanted.to_string()).await?;
    // Seven ways and a secret, each sync and async: a script that skipped some proves nothing.
    ensure!(
        said.lines().filter(|line| line.starts_with("ok: ")).count() == 16,
        "{said}"
    );
    Ok(())
}

/// Programs written for App Service, with the variables that a person writes into the pod's spec.
pub async fn the_python_sdk_speaks_app_services_dialects(stage: Stage) -> Result<()> {
    const URL: &str = "http://169.254.169.254/msi/token";
    let cast = Cast::raise(stage.lab, &[]).await?;
    let pod = &cast.payments;
    let manifest = pod.manifest(NAMESPACE, "payments", Some("payments"));
    let manifest = with_secret(&manifest, SECRET);
    cast.manifests.write("pod-payments.yaml", &manifest)?;
    let agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let identity = cast.world.identity("payments")?;
    let wanted = |ways: &[&str]| {
        serde_json::json!({
            "client_id": identity.client_id,
            "object_id": identity.principal_id,
            "resource_id": identity.resource_id,
            "secret": "correct-horse-battery-staple",
            "vault_url": format!("https://{VAULT_HOST}"),
            "without": ways,
        })
        .to_string()
    };
    let newer = [("IDENTITY_ENDPOINT", URL), ("IDENTITY_HEADER", SECRET)];
    let said = python_with(&cast, pod, ("granted.py", &wanted(&[])), &newer).await?;
    let count = |said: &str| said.lines().filter(|line| line.starts_with("ok: ")).count();
    ensure!(count(&said) == 16, "{said}");
    // To the SDK the older pair is Azure ML, where there are client ids only.
    let older = [("MSI_ENDPOINT", URL), ("MSI_SECRET", SECRET)];
    let without = wanted(&["object_id", "resource_id"]);
    let said = python_with(&cast, pod, ("granted.py", &without), &older).await?;
    ensure!(count(&said) == 12, "{said}");
    let metrics = agent.metrics().await?;
    for dialect in ["app_service_2019", "app_service_2017"] {
        let series = format!("lanyard_tokens_served_by_dialect_total{{dialect=\"{dialect}\"}} ");
        let served = metrics.lines().find_map(|line| line.strip_prefix(&series));
        ensure!(
            served.is_some_and(|count| count != "0"),
            "{dialect}: {served:?}"
        );
    }
    Ok(())
}

pub async fn the_python_sdk_gives_up_at_once_where_refused(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let said = python(&cast, &cast.stranger, "refused.py", HANG_SECONDS).await?;
    ensure!(
        said.lines().filter(|line| line.starts_with("ok: ")).count() == 6,
        "{said}"
    );
    Ok(())
}

pub async fn curl_reads_the_secret(stage: Stage) -> Result<()> {
    let cast = Cast::raise(stage.lab, &[]).await?;
    let _agent = cast.lab.agent(&cast.agent(&stage.backend)).await?;
    let asked = curl::token(&cast.payments, VAULT_RESOURCE, "").await?;
    let claims = asked
        .claims()
        .with_context(|| format!("no token: {asked:?}"))?;
    let identity = cast.world.identity("payments")?;
    ensure!(claims.oid == identity.principal_id && claims.appid == identity.client_id);
    ensure!(claims.aud == VAULT_RESOURCE, "{claims:?}");
    let token = asked.token().context("no token")?;
    let ca = cast.simulator.ca.to_string_lossy();
    let secret = curl::secret(&cast.payments, &ca, "db-password", &token).await?;
    ensure!(
        secret.field("value").as_deref() == Some("correct-horse-battery-staple"),
        "{secret:?}"
    );
    Ok(())
}
