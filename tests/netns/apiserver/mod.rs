//! A real API server with its etcd in the lab's cloud, without nodes, controllers and schedulers:
//! pods are there because somebody wrote them there, as a watch sees them.
//!
//! In: a lab. Out: a kubeconfig for the agent, and `kubectl` as an administrator. Blocks until the
//! server is ready. Ends with its lab.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use lanyard::lab::{Get, Lab, Process, until};
use tokio::io::AsyncWriteExt as _;

/// Of the wire between cloud and node.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 1, 1);
const PORT: u16 = 6443;
const START: Duration = Duration::from_mins(1);
const ADMIN: &str = "admin-token";
const AGENT: &str = "agent-token";

/// What agents may do: no more than the chart's role gives them for watching.
const ROLE: &str = include_str!("role.yaml");

/// The running API server.
pub struct ApiServer {
    lab_cloud: lanyard::lab::Namespace,
    dir: PathBuf,
    programs: PathBuf,
    logs: PathBuf,
    /// Ends with this.
    _etcd: Process,
    /// The server.
    pub process: Process,
}

fn programs() -> Result<PathBuf> {
    let programs = crate::cached::kubernetes();
    if !programs.join("kube-apiserver").exists() {
        bail!(
            "{} has no kube-apiserver: `make programs` builds it",
            programs.display()
        );
    }
    Ok(programs)
}

impl ApiServer {
    /// Starts etcd and the API server, and installs the CRDs and the agent's role.
    pub async fn start(lab: &Lab, logs: &Path) -> Result<Self> {
        let programs = programs()?;
        let dir = lab.dir("apiserver")?;
        certify(&dir)?;
        write(
            &dir.join("tokens.csv"),
            &format!("{ADMIN},admin,1,system:masters\n{AGENT},agent,2,lanyard-agents\n"),
        )?;
        for (who, token) in [("admin", ADMIN), ("agent", AGENT)] {
            write(&dir.join(who), &kubeconfig(&dir, token)?)?;
        }
        let mut etcd = lab.cloud().command("etcd");
        etcd.arg("--data-dir").arg(dir.join("etcd"));
        etcd.args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
        ]);
        etcd.args([
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
        ]);
        let etcd = Process::start("etcd", etcd, &logs.join("etcd.log"))?;
        let process = serve(lab.cloud(), &programs, &dir, logs)?;
        let mut server = Self {
            lab_cloud: lab.cloud().clone(),
            dir,
            programs,
            logs: logs.to_owned(),
            _etcd: etcd,
            process,
        };
        server.ready().await?;
        server.apply(&crds()?).await?;
        server.apply(ROLE).await?;
        let established = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ];
        server.kubectl(&established, "").await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<()> {
        let process = &mut self.process;
        let (programs, dir, cloud) = (&self.programs, &self.dir, &self.lab_cloud);
        let waited = until(START, "the API server to be ready", async || {
            process.still_running().is_err()
                || kubectl(cloud, programs, dir, &["get", "--raw", "/readyz"], "")
                    .await
                    .is_ok()
        });
        waited.await?;
        Ok(self.process.still_running()?)
    }

    /// Ends the server as a crash would; etcd stays.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill9().await?;
        Ok(())
    }

    /// Starts it again and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = serve(&self.lab_cloud, &self.programs, &self.dir, &self.logs)?;
        self.ready().await
    }

    /// Swallows, or no longer, what comes from the node: no answer, not even a refusal.
    pub async fn swallow(&self, node: &str, is: bool) -> Result<()> {
        let what = if is { "-I" } else { "-D" };
        let port = PORT.to_string();
        let rule = [
            what, "INPUT", "-i", node, "-p", "tcp", "--dport", &port, "-j", "DROP",
        ];
        self.lab_cloud.output("iptables", &rule).await?;
        Ok(())
    }

    /// The agent's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// An administrator's kubeconfig.
    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin")
    }

    /// `kubectl apply` of manifests, with the pods' status, too.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            manifests,
        )
        .await?;
        if manifests.contains("kind: Pod\n") {
            let status = [
                "apply",
                "--server-side",
                "--force-conflicts",
                "--subresource=status",
                "-f",
                "-",
            ];
            self.kubectl(&status, manifests).await?;
        }
        Ok(())
    }

    /// Runs `kubectl` as an administrator.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        kubectl(&self.lab_cloud, &self.programs, &self.dir, args, input).await
    }
}

fn serve(
    cloud: &lanyard::lab::Namespace,
    programs: &Path,
    dir: &Path,
    logs: &Path,
) -> Result<Process> {
    let mut command = cloud.command(programs.join("kube-apiserver"));
    let file = |name: &str| dir.join(name).display().to_string();
    command.args([
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--secure-port={PORT}"),
        format!("--advertise-address={ADDRESS}"),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts-public.pem")),
        format!(
            "--service-account-signing-key-file={}",
            file("accounts.pem")
        ),
        format!("--tls-cert-file={}", file("cert.pem")),
        format!("--tls-private-key-file={}", file("key.pem")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        // Nobody makes service accounts here.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
    ]);
    Ok(Process::start(
        "kube-apiserver",
        command,
        &logs.join("kube-apiserver.log"),
    )?)
}

async fn kubectl(
    cloud: &lanyard::lab::Namespace,
    programs: &Path,
    dir: &Path,
    args: &[&str],
    input: &str,
) -> Result<String> {
    let mut command = cloud.command(programs.join("kubectl"));
    command
        .env("KUBECONFIG", dir.join("admin"))
        .env("KUBECACHEDIR", dir.join("cache"));
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("kubectl's input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kubectl {}: {said}",
        args.join(" ")
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A certificate that is its own authority.
fn certify(dir: &Path) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let names = ["127.0.0.1".to_owned(), ADDRESS.to_string()];
    let mut params = rcgen::CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "apiserver");
    write(&dir.join("cert.pem"), &params.self_signed(&key)?.pem())?;
    write(&dir.join("key.pem"), &key.serialize_pem())?;
    // Entra takes RS256 alone from issuers of federated tokens.
    let accounts = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
    write(&dir.join("accounts-public.pem"), &accounts.public_key_pem())?;
    write(&dir.join("accounts.pem"), &accounts.serialize_pem())
}

fn kubeconfig(dir: &Path, token: &str) -> Result<String> {
    let authority = std::fs::read(dir.join("cert.pem"))?;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: lab, cluster: {{server: 'https://{ADDRESS}:{PORT}', certificate-authority-data: {authority}}}}}]\n\
         users: [{{name: lab, user: {{token: {token}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n"
    ))
}

fn crds() -> Result<String> {
    let all = lanyard::api::crd::definitions()?;
    let texts: Vec<_> = all.iter().map(|kind| kind.document.to_string()).collect();
    Ok(texts.join("\n---\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// A request for a token from a pod's namespace; its status.
pub async fn token_status(pod: &lanyard::lab::Pod, resource: &str) -> Result<u16> {
    let get = Get::token(resource).within(Duration::from_secs(30));
    Ok(pod.namespace().get(lanyard::lab::IMDS, &get).await?.status)
}
