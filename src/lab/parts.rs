//! Lanyard's own programs inside a lab: the simulator in the cloud, agents on nodes.
//!
//! In: a world file's text, a folder of manifests, more flags. Out: running processes that have
//! said they are ready. Blocks until then, bounded. Invariant: they are started by their command
//! line like any user would; the lab knows nothing of their insides.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Get, IMDS, Lab, LabError, Namespace, Node, Process, VAULT, WIRE_SERVER, until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running simulator.
#[derive(Debug)]
pub struct Simulator {
    /// The process.
    pub process: Process,
    /// Its control socket: unix sockets cross network namespaces, and no pod can see it.
    pub control: PathBuf,
    /// The certificate authority of its vaults, PEM.
    pub ca: PathBuf,
}

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    name: String,
    node: Node,
    /// Flags that say where pods and bindings come from.
    source: Vec<String>,
    admin: SocketAddrV4,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    namespace: Namespace,
    admin: SocketAddrV4,
}

impl Lab {
    /// Starts `lanyard simulate` in the cloud with this world and waits until it listens.
    pub async fn simulator(&self, world: &str, flags: &[&str]) -> Result<Simulator, LabError> {
        let dir = self.dir("simulator")?;
        let [world_file, control, ca, ready] =
            ["world.yaml", "control.sock", "ca.pem", "ready"].map(|name| dir.join(name));
        std::fs::write(&world_file, world).map_err(LabError::io("writing the world file"))?;
        // A simulator started a second time says "ready" a second time.
        let _ = std::fs::remove_file(&ready);
        let mut command = self.cloud().command(self.program());
        command.arg("simulate").arg("--world").arg(world_file);
        command.args([
            "--imds-listen",
            &IMDS.to_string(),
            "--vault-listen",
            &VAULT.to_string(),
        ]);
        for port in [80, 32526] {
            command.args(["--wire-server-listen", &format!("{WIRE_SERVER}:{port}")]);
        }
        command
            .arg("--control")
            .arg(&control)
            .arg("--ca-out")
            .arg(&ca);
        command.arg("--ready-file").arg(&ready).args(flags);
        let log = self.logs.join("simulator.log");
        let mut process = Process::start("simulator", command, &log)?;
        let waited = until(START_LIMIT, "the simulator to listen", async || {
            ready.exists() || process.still_running().is_err()
        });
        waited.await?;
        process.still_running()?;
        Ok(Simulator {
            process,
            control,
            ca,
        })
    }

    /// Starts an agent and does not wait for it; see [`Agent::ready`].
    pub fn start_agent(&self, setup: &AgentSetup) -> Result<Agent, LabError> {
        let AgentSetup {
            name,
            node,
            source,
            admin,
            flags,
            variables,
        } = setup;
        let mut command = node.namespace().command(&self.program);
        command.arg("agent").args(source);
        command.arg("--state-dir").arg(node.state_dir());
        command.args(["--imds-endpoint", &format!("http://{}", IMDS.ip())]);
        command
            .args(["--admin-listen", &admin.to_string()])
            .args(flags)
            .envs(variables.iter().cloned());
        let process = Process::start(name, command, &self.logs.join(format!("{name}.log")))?;
        Ok(Agent {
            process,
            namespace: node.namespace().clone(),
            admin: *admin,
        })
    }

    /// Starts an agent and waits until it is ready.
    pub async fn agent(&self, setup: &AgentSetup) -> Result<Agent, LabError> {
        let mut agent = self.start_agent(setup)?;
        agent.ready(START_LIMIT).await?;
        Ok(agent)
    }

    /// Runs `lanyard uninstall` on a node to its end and gives what it printed.
    pub async fn uninstall(&self, node: &Node, flags: &[&str]) -> Result<String, LabError> {
        let program = self.program.to_string_lossy();
        let state = node.state_dir();
        let state = state.to_string_lossy();
        let args = [&["uninstall", "--state-dir", &state], flags].concat();
        node.namespace().output(&program, &args).await
    }
}

impl AgentSetup {
    /// An agent named `agent` on `node` with these manifests and every other flag at its default.
    pub fn new(node: &Node, manifests: &Path) -> Self {
        Self::with_source(node, vec![format!("--manifests={}", manifests.display())])
    }

    /// The same with an API server as its source.
    pub fn of_cluster(node: &Node, kubeconfig: &Path) -> Self {
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--node-name={}", node.name()),
        ];
        Self::with_source(node, flags.to_vec())
    }

    fn with_source(node: &Node, source: Vec<String>) -> Self {
        Self {
            name: "agent".to_owned(),
            node: node.clone(),
            source,
            admin: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9464),
            flags: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// With another name (its log file's) and another admin port: a second agent on the same node.
    #[must_use]
    pub fn second(mut self, name: &str, admin_port: u16) -> Self {
        name.clone_into(&mut self.name);
        self.admin.set_port(admin_port);
        self
    }

    /// With a flag and its value.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.push(format!("{flag}={value}"));
        self
    }

    /// With a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Agent {
    /// Waits until `/readyz` says 200; an error shows what was still pending or how it ended.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), LabError> {
        let mut pending = String::from("no answer");
        let process = &mut self.process;
        let (namespace, admin) = (self.namespace.clone(), self.admin);
        let waited = until(limit, "the agent to be ready", async || {
            if process.still_running().is_err() {
                return true;
            }
            match namespace.get(admin, &Get::new("/readyz")).await {
                Ok(reply) if reply.status == 200 => true,
                Ok(reply) => {
                    pending = reply.body;
                    false
                }
                Err(_) => false,
            }
        });
        let waited = waited.await;
        self.process.still_running()?;
        waited.map_err(|_| LabError::TimedOut {
            what: format!(
                "{} to be ready; pending: {}",
                self.process.name(),
                pending.trim()
            ),
            seconds: limit.as_secs_f64(),
        })
    }

    /// The text of its `/metrics`.
    pub async fn metrics(&self) -> Result<String, LabError> {
        Ok(self
            .namespace
            .get(self.admin, &Get::new("/metrics"))
            .await?
            .body)
    }

    /// Its admin address, inside the node's namespace.
    #[must_use]
    pub fn admin(&self) -> SocketAddrV4 {
        self.admin
    }
}
