//! The programs that a cluster is made of: Kubernetes and helm from their Go modules, built once and
//! kept outside of the tree by version; the others are Debian's.
//!
//! In: `programs/go.mod`. Out: folders with programs. Blocks for minutes when
//! something is missing, and says so. Invariant: a program is in the cache whole or not at all.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::cached::{self, HELM, pinned};

/// Kubernetes' programs, and how many minutes each usually takes on two cores after the one before.
const KUBERNETES: [(&str, u8); 6] = [
    ("kubectl", 2),
    ("kubelet", 3),
    ("kube-apiserver", 2),
    ("kube-controller-manager", 1),
    ("kube-scheduler", 1),
    ("kube-proxy", 1),
];
/// Debian's, with their packages.
const DEBIAN: [(&str, &str); 10] = [
    ("/usr/bin/etcd", "etcd-server"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/bin/ctr", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/sbin/iptables-nft", "iptables"),
    ("/usr/sbin/iptables-legacy", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Folder with Kubernetes' programs and kubectl.
    pub kubernetes: PathBuf,
    /// helm itself.
    pub helm: PathBuf,
}

/// Where the programs are, or will be once [`ensure`] has run.
pub fn places() -> Programs {
    Programs {
        kubernetes: cached::kubernetes(),
        helm: cached::helm(),
    }
}

/// Builds what is missing.
pub async fn ensure() -> Result<Programs> {
    if let Some((path, package)) = DEBIAN.iter().find(|(path, _)| !Path::new(path).exists()) {
        bail!("{path} is missing (package {package}): run `deploy/install-deps cluster`");
    }
    let programs = places();
    let version = pinned("k8s.io/kubernetes v")
        .context("tests/cluster/programs/go.mod names no k8s.io/kubernetes")?;
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion=v{version}");
    for (number, (name, minutes)) in (1..).zip(KUBERNETES) {
        let target = programs.kubernetes.join(name);
        if target.exists() {
            continue;
        }
        let package = format!("k8s.io/kubernetes/cmd/{name}");
        let what = format!("{name} {version} ({number} of 7), usually {minutes} min on two cores");
        build(
            &what,
            &target,
            &["build", "-trimpath", "-ldflags", &flags],
            &package,
        )
        .await?;
    }
    if !programs.helm.exists() {
        let package = format!("helm.sh/helm/v4/cmd/helm@v{HELM}");
        let what = format!("helm {HELM} (7 of 7), usually 2 min on two cores");
        build(
            &what,
            &programs.helm,
            &["install", "-trimpath", "-ldflags", "-s -w"],
            &package,
        )
        .await?;
    }
    Ok(programs)
}

async fn build(what: &str, target: &Path, args: &[&str], package: &str) -> Result<()> {
    eprintln!("cluster: building {what}, once");
    let start = Instant::now();
    let dir = target.parent().context("a program without a folder")?;
    let draft = dir.join(format!(".building-{}", std::process::id()));
    std::fs::create_dir_all(&draft)?;
    let mut command = Command::new(go()?);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/programs"));
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOBIN", &draft);
    command.args(args);
    if args.first() == Some(&"build") {
        command.arg("-o").arg(&draft);
    }
    let status = command.arg(package).kill_on_drop(true).status().await;
    let outcome = status.context("starting go").and_then(|status| {
        if !status.success() {
            bail!("building {package} failed ({status}); its words are above");
        }
        let name = target.file_name().context("a program without a name")?;
        Ok(std::fs::rename(draft.join(name), target)?)
    });
    std::fs::remove_dir_all(&draft)?;
    outcome?;
    eprintln!("cluster: built in {} s", start.elapsed().as_secs());
    Ok(())
}

fn go() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/local/go/bin".into(), "/usr/lib/go/bin".into()])
        .map(|dir| dir.join("go"))
        .find(|go| go.exists());
    found.with_context(|| {
        let need = pinned("go ").unwrap_or("1.26");
        format!(
            "Kubernetes' programs are built with Go {need} or later, and there is no `go` on PATH \
             (nor in /usr/local/go/bin): install it from https://go.dev/dl/"
        )
    })
}
