//! `lanyard dev -- COMMAND…`: a person's own program, run as if in a pod with an identity.
//!
//! In: a command, perhaps a world file and the name of one of its identities. Out: the command's
//! own output and exit status. Blocks until it ends. Invariant: nothing but the command writes to
//! standard output, and the command gets simulated tokens only: there is no route out of the lab.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::cast::{KnownIdentity, KnownWorld, Manifests, WORLD};
use crate::lab::{AgentSetup, LAB_DIR, Lab, Style, VAULT_HOST};

/// The pod's Kubernetes namespace, service account and name.
const APP: &str = "app";

/// What `lanyard dev` was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identity of the world to run as; its first one where absent.
    pub identity: Option<String>,
    /// A world file; the demo's world where absent.
    pub world: Option<PathBuf>,
    /// Say nothing.
    pub quiet: bool,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The `lanyard` binary.
    pub program: PathBuf,
}

/// Sets everything up, runs the command and passes its exit status on.
pub async fn run(config: Config) -> Result<ExitCode> {
    let world = match &config.world {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("reading the world file {}", path.display()))?,
        None => WORLD.to_owned(),
    };
    let known = KnownWorld::parse(&world)?;
    let identity = match &config.identity {
        Some(name) => known.identity(name)?,
        None => known
            .identities
            .first()
            .context("the world has no identities")?,
    };
    let logs = Path::new(LAB_DIR).join("logs");
    std::fs::create_dir_all(&logs)?;
    let lab = Lab::new(&config.program, &logs).await?;
    let simulator = lab.simulator(&world, &[]).await?;
    let pod = lab.node().add_pod(APP, Style::Ptp).await?;
    let manifests = Manifests::new(&lab, "manifests")?;
    manifests.write("app.yaml", &grant(&known, identity))?;
    manifests.write("pod.yaml", &pod.manifest(APP, APP, Some(APP)))?;
    let agent = lab
        .agent(&AgentSetup::new(lab.node(), manifests.dir()))
        .await?;
    if !config.quiet {
        eprintln!(
            "lanyard: a pod with identity `{}` (client id {}): tokens at http://169.254.169.254, \
             vault at https://{VAULT_HOST}; all simulated, no route out",
            identity.name, identity.client_id
        );
    }
    let status = in_pod(&config.command, &pod, &simulator.ca).await?;
    drop(agent);
    Ok(exit_code(status))
}

async fn in_pod(
    command: &[String],
    pod: &crate::lab::Pod,
    ca: &Path,
) -> Result<std::process::ExitStatus> {
    let (program, args) = command.split_first().context("no command was given")?;
    let mut child = pod.namespace().command(program);
    child.args(args);
    // OpenSSL and Go, Python requests, curl, Node.js.
    for name in [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
    ] {
        child.env(name, ca);
    }
    // A proxy of the laptop's cannot be reached from here, and must not see the metadata address.
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        child.env_remove(name);
    }
    child
        .status()
        .await
        .with_context(|| format!("running {program}"))
}

/// The status a shell would report: signals as 128 and the number.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status
        .code()
        .or(signal)
        .and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What operators and a team would have written for this one pod.
fn grant(world: &KnownWorld, identity: &KnownIdentity) -> String {
    let KnownIdentity {
        client_id,
        principal_id,
        resource_id,
        ..
    } = identity;
    let tenant = &world.tenant.id;
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {APP}}}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityPolicy
metadata: {{name: {APP}}}
spec:
  namespaces: {{matchLabels: {{kubernetes.io/metadata.name: {APP}}}}}
  resourceIDPrefixes: [/subscriptions]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {{name: {APP}, namespace: {APP}}}
spec:
  clientID: {client_id}
  tenantID: {tenant}
  objectID: {principal_id}
  resourceID: {resource_id}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {{name: {APP}, namespace: {APP}}}
spec:
  identity: {APP}
  subjects: [{{serviceAccounts: [{APP}]}}]
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grant_names_the_worlds_identity() {
        let world = KnownWorld::parse(WORLD).unwrap();
        let reports = world.identity("reports").unwrap();
        let text = grant(&world, reports);
        assert!(text.contains(&reports.client_id) && text.contains(&reports.resource_id));
        assert!(!text.contains(&world.identity("payments").unwrap().client_id));
    }

    #[test]
    fn exit_statuses_are_a_shells() {
        let of = |raw| format!("{:?}", exit_code(std::process::ExitStatus::from_raw(raw)));
        assert_eq!(of(3 << 8), format!("{:?}", ExitCode::from(3)));
        assert_eq!(of(15), format!("{:?}", ExitCode::from(143)));
    }
}
