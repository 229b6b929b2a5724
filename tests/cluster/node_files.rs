//! The files of a node: its /etc, the configuration of containerd, CNI, kubelet and kube-proxy.
//!
//! In: a node's plan and root, the authority. Out: files under the root. Blocks on copying.
//! Invariant: nothing of the machine's /etc but what programs need to run (no secrets): pods may
//! mount it.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::pki::{self, Authority};
use crate::plan::{API_PORT, CONTROL, ENTRA_HOST, NodePlan, PODS, VAULT, Wiring};
use crate::process;
use crate::supervise::Service;

/// What of the machine's /etc a node has.
const KEPT: [&str; 11] = [
    "alternatives",
    "group",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "protocols",
    "services",
];

/// Name of the pause image, the sandboxes' only one.
pub const PAUSE: &str = "lanyard.test/pause:1";

/// Line of kubelet's configuration: a new node starts with the startup taint.
pub const STARTUP_TAINT: &str =
    "registerWithTaints: [{key: lanyard.dev/agent-not-ready, effect: NoSchedule}]\n";

/// Writes a node's /etc. `cgroup`: its own below every controller. `taint`: the startup taint.
pub async fn write(
    plan: &NodePlan,
    root: &Path,
    ca: &Authority,
    cgroup: &str,
    taint: bool,
) -> Result<()> {
    let etc = root.join("etc");
    for dir in [
        "cni/net.d",
        "containerd",
        "kubernetes",
        "lanyard-test",
        "systemd/system",
    ] {
        std::fs::create_dir_all(etc.join(dir))?;
    }
    for name in KEPT {
        let from = Path::new("/etc").join(name);
        if from.exists() {
            process::output(
                "cp",
                &["-a", &from.to_string_lossy(), &etc.to_string_lossy()],
            )
            .await?;
        }
    }
    for tool in ["iptables", "ip6tables"] {
        for action in ["", "-save", "-restore"] {
            let link = etc.join("alternatives").join(format!("{tool}{action}"));
            let _ = std::fs::remove_file(&link);
            symlink(format!("/usr/sbin/{tool}-{}{action}", plan.iptables), link)?;
        }
    }
    let server = format!("https://{CONTROL}:{API_PORT}");
    let kubelet = ca.kubeconfig(&format!("system:node:{}", plan.name()), &server)?;
    let proxy = ca.kubeconfig("system:kube-proxy", &server)?;
    let name = plan.name();
    let files = [
        ("hostname", format!("{name}\n")),
        (
            "hosts",
            // There is no DNS: agents, which share their node's network, find Entra ID here.
            format!(
                "127.0.0.1 localhost\n{} {name}\n{VAULT} {ENTRA_HOST}\n",
                plan.address()
            ),
        ),
        // Nothing answers there: names fail at once instead of waiting.
        (
            "resolv.conf",
            "nameserver 168.63.129.16\noptions timeout:1 attempts:1\n".to_owned(),
        ),
        ("machine-id", format!("{:032x}\n", u32::from(plan.number))),
        ("containerd/config.toml", containerd()),
        ("cni/net.d/10-pods.conflist", cni(plan)),
        ("kubernetes/ca.crt", ca.pem().to_owned()),
        ("kubernetes/kubelet.kubeconfig", kubelet),
        ("kubernetes/kube-proxy.kubeconfig", proxy),
        (
            "kubernetes/kubelet.yaml",
            kubelet_config(plan, cgroup, taint),
        ),
        ("kubernetes/kube-proxy.yaml", proxy_config(plan)),
        (
            "lanyard-test/services.json",
            serde_json::to_string_pretty(&services(plan))?,
        ),
    ];
    for (file, text) in files {
        pki::write(&etc.join(file), &text).with_context(|| format!("a node's /etc/{file}"))?;
    }
    for public in ["hosts", "resolv.conf", "hostname"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(etc.join(public), PermissionsExt::from_mode(0o644))?;
    }
    Ok(())
}

fn services(plan: &NodePlan) -> Vec<Service> {
    let service = |name: &str, argv: &[&str]| Service {
        name: name.to_owned(),
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        log: format!("/var/log/node/{}-{name}.log", plan.name()).into(),
        restart: true,
        ready: (name == "containerd").then(|| "/run/containerd/containerd.sock".into()),
    };
    let (name, address) = (plan.name(), plan.address());
    vec![
        service(
            "containerd",
            &[
                "/usr/bin/containerd",
                "--config=/etc/containerd/config.toml",
            ],
        ),
        service(
            "kubelet",
            &[
                "/programs/kubelet",
                "--config=/etc/kubernetes/kubelet.yaml",
                "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
                "--root-dir=/var/lib/kubelet",
                "--cert-dir=/var/lib/kubelet/pki",
                &format!("--hostname-override={name}"),
                &format!("--node-ip={address}"),
            ],
        ),
        service(
            "kube-proxy",
            &[
                "/programs/kube-proxy",
                "--config=/etc/kubernetes/kube-proxy.yaml",
            ],
        ),
    ]
}

fn containerd() -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE nobody may lower it.
    format!(
        "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n\
         oom_score = 0\n\
         [grpc]\naddress = \"/run/containerd/containerd.sock\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n\
         conf_dir = \"/etc/cni/net.d\"\n"
    )
}

fn cni(plan: &NodePlan) -> String {
    let kind = match plan.wiring {
        Wiring::Bridge => {
            r#""type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true"#
        }
        Wiring::Ptp => r#""type": "ptp""#,
    };
    let pods = plan.pods();
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {{{kind}, "ipMasq": true, "ipam": {{"type": "host-local",
    "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}

fn kubelet_config(plan: &NodePlan, cgroup: &str, taint: bool) -> String {
    let taint = if taint { STARTUP_TAINT } else { "" };
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true, cacheTTL: 5s}}, x509: \
         {{clientCAFile: /etc/kubernetes/ca.crt}}}}\nauthorization: {{mode: Webhook}}\n\
         cgroupDriver: cgroupfs\ncgroupRoot: {cgroup}/{}\nfailSwapOn: false\n\
         enforceNodeAllocatable: []\noomScoreAdj: 0\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         providerID: azure://{}\nresolvConf: /etc/resolv.conf\n\
         evictionHard: {{memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}\n\
         imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\n\
         clusterDNS: [168.63.129.16]\n\
         shutdownGracePeriod: 0s\nsyncFrequency: 30s\nnodeStatusUpdateFrequency: 5s\n{taint}",
        plan.name(),
        plan.resource_id(),
    )
}

fn proxy_config(plan: &NodePlan) -> String {
    // The connection-tracking settings belong to the machine.
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n\
         clusterCIDR: {PODS}\nhostnameOverride: {}\noomScoreAdj: 0\n\
         clientConnection: {{kubeconfig: /etc/kubernetes/kube-proxy.kubeconfig}}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         iptables: {{minSyncPeriod: 100ms}}\n",
        plan.name(),
    )
}
