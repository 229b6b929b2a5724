//! The services that are no node's: etcd, the API server and its companions, simulated Azure.
//!
//! In: the cluster's places and programs. Out: services for the first process. No IO. Invariant:
//! authorisation is Kubernetes' own (nodes, RBAC), admission restricts nodes to their own objects.

use std::path::Path;

use lanyard::lab::{IMDS, WIRE_SERVER};

use crate::plan::{API_PORT, ARM, CONTROL, Places, SERVICES, VAULT, issuer};
use crate::programs::Programs;
use crate::supervise::Service;

/// The simulator's control socket, inside.
pub const AZURE: &str = "/run/azure/control.sock";
/// The vaults' authority, inside.
pub const AZURE_CA: &str = "/run/azure/ca.pem";
/// Appears when the simulator listens.
pub const AZURE_READY: &str = "/run/azure/ready";

/// Makes services of this cluster.
#[derive(Clone, Debug)]
pub struct Control<'a> {
    /// Where files are.
    pub places: &'a Places,
    /// Kubernetes' programs.
    pub programs: &'a Programs,
}

impl Control<'_> {
    fn service(&self, name: &str, argv: Vec<String>) -> Service {
        Service {
            name: name.to_owned(),
            argv,
            log: self.places.logs().join(format!("{name}.log")),
            restart: true,
            ready: None,
        }
    }

    fn kubernetes(&self, name: &str, flags: &[String]) -> Service {
        let program = self
            .programs
            .kubernetes
            .join(name)
            .to_string_lossy()
            .into_owned();
        self.service(name, [&[program], flags].concat())
    }

    fn pki(&self, file: &str) -> String {
        self.places.pki().join(file).to_string_lossy().into_owned()
    }

    /// etcd, in memory: it lives as long as the cluster.
    pub fn etcd(&self) -> Service {
        let flags = [
            "/usr/bin/etcd",
            "--data-dir=/run/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--logger=zap",
            "--log-level=warn",
        ];
        self.service("etcd", flags.map(str::to_owned).to_vec())
    }

    /// The API server.
    pub fn apiserver(&self) -> Service {
        let key = self.pki("service-accounts.key");
        let flags = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            // etcd 3.4 knows no size estimates; the log would be full of it.
            "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
            format!("--advertise-address={CONTROL}"),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--client-ca-file={}", self.pki("ca.crt")),
            format!("--tls-cert-file={}", self.pki("apiserver.crt")),
            format!("--tls-private-key-file={}", self.pki("apiserver.key")),
            format!(
                "--kubelet-client-certificate={}",
                self.pki("apiserver-to-kubelet.crt")
            ),
            format!(
                "--kubelet-client-key={}",
                self.pki("apiserver-to-kubelet.key")
            ),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!(
                "--service-account-key-file={}",
                self.pki("service-accounts.pub")
            ),
            format!("--service-account-signing-key-file={key}"),
            // Where simulated Entra fetches it, too.
            format!("--service-account-issuer={}", issuer()),
            format!("--service-account-jwks-uri={}/openid/v1/jwks", issuer()),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Webhooks are called at their pods: this server is not on the services' network.
            "--enable-aggregator-routing=true".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.kubernetes("kube-apiserver", &flags)
    }

    /// The controllers.
    pub fn controller_manager(&self) -> Service {
        let flags = [
            format!(
                "--kubeconfig={}",
                self.pki("kube-controller-manager.kubeconfig")
            ),
            format!(
                "--service-account-private-key-file={}",
                self.pki("service-accounts.key")
            ),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pki("ca.key")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            // Faster than by default, so that a rebooted node is not waited for.
            "--node-monitor-period=2s".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.kubernetes("kube-controller-manager", &flags)
    }

    /// The scheduler.
    pub fn scheduler(&self) -> Service {
        let flags = [
            format!("--kubeconfig={}", self.pki("kube-scheduler.kubeconfig")),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.kubernetes("kube-scheduler", &flags)
    }

    /// Simulated Azure, in the cloud's network namespace.
    pub fn azure(&self) -> Service {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut argv = vec![
            "/usr/bin/nsenter".to_owned(),
            "--net=/run/netns/cloud".to_owned(),
            "--".to_owned(),
            text(&self.places.lanyard()),
            "simulate".to_owned(),
            format!("--world={}", text(&self.places.world())),
            format!("--imds-listen={IMDS}"),
            format!("--entra-listen={VAULT}:80"),
            format!("--vault-listen={VAULT}:443"),
            "--arm-listen=off".to_owned(),
            format!("--arm-tls-listen={ARM}:443"),
            format!("--control={AZURE}"),
            format!("--ca-out={AZURE_CA}"),
            format!("--ready-file={AZURE_READY}"),
        ];
        argv.extend([80, 32526].map(|port| format!("--wire-server-listen={WIRE_SERVER}:{port}")));
        self.service("azure", argv)
    }

    /// A node: its first process's parent. Its end is not mended: that is for a reboot.
    pub fn node(&self, plan: &crate::plan::NodePlan) -> Service {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let name = plan.name();
        let unshare = "--mount --uts --ipc --pid --fork --kill-child -- sh -c";
        let mut argv = vec![
            "/usr/bin/nsenter".to_owned(),
            format!("--net=/run/netns/{name}"),
            "--".to_owned(),
        ];
        argv.push("/usr/bin/unshare".to_owned());
        argv.extend(unshare.split(' ').map(str::to_owned));
        argv.extend([
            include_str!("node.sh").to_owned(),
            name.clone(),
            text(&self.places.node(plan)),
        ]);
        argv.extend([text(&self.places.logs()), text(&self.programs.kubernetes)]);
        argv.extend([text(&self.places.first_process()), name.clone()]);
        let mut service = self.service(&name, argv);
        service.restart = false;
        service
    }
}
