//! What a trial works with: the shared API server, an Azure of its own, controllers as processes.
//!
//! In: objects by a few words. Out: what ARM was asked (its journal) and what the objects say. Waits
//! for conditions only, each with a bound. Dropping it ends the controllers and removes the objects.

use std::fmt::Write as _;
use std::process::Child;
use std::time::{Duration, Instant};

use lanyard::model::compute::Compute;
use lanyard::sim::journal::Listener;
use lanyard::sim::{Entry, Listen, Simulator, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::server::Server;

/// The subscription of everything here.
pub const SUBSCRIPTION: &str = "5d9c1e00-0000-4000-8000-000000000001";
const NAMESPACES: [&str; 3] = ["lanyard-system", "shop", "till"];
const TENANT: &str = "72f988bf-0000-4000-8000-0000000000aa";
const CLIENT: &str = "c0000000-0000-4000-8000-000000000001";
/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rig.
pub struct Rig<'a> {
    server: &'a Server,
    azure: Option<Simulator>,
    runtime: Runtime,
    controllers: Vec<(String, Child)>,
    seen: u64,
}

/// The ARM id of an identity of the group `ids`.
pub fn identity_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/ids/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

/// The ARM id of a scale set of the group `nodes`.
pub fn set_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"
    )
}

/// The ARM id of a virtual machine of the group `nodes`.
pub fn vm_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/{name}"
    )
}

/// A world with these identities, scale sets and machines; further top-level keys come from `more`.
pub fn world(identities: &[&str], sets: &[&str], vms: &[&str], more: &str) -> String {
    let mut world = format!(
        "tenant: {{id: {TENANT}}}\napplications:\n- name: controller\n  clientID: {CLIENT}\n  \
         principalID: c0000000-0000-4000-8000-000000000002\n  secrets: [{{value: of-the-tests}}]\nidentities:\n"
    );
    for (number, name) in identities.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = writeln!(
            world,
            "- name: {name}\n  clientID: 10000000-0000-4000-8000-{number:012x}\n  \
             principalID: 20000000-0000-4000-8000-{number:012x}\n  resourceID: {}",
            identity_id(name)
        );
    }
    world += "scaleSets:\n";
    for name in sets {
        let _ = writeln!(world, "- {{name: {name}, resourceID: {}}}", set_id(name));
    }
    world += "vms:\n- {name: nobody}\n";
    for name in vms {
        let _ = writeln!(world, "- {{name: {name}, resourceID: {}}}", vm_id(name));
    }
    world + more
}

impl<'a> Rig<'a> {
    /// Nothing is there but the API server and its namespaces.
    pub fn new(server: &'a Server) -> Self {
        for name in NAMESPACES {
            let _ = server.send(
                "POST",
                "/api/v1/namespaces",
                &json!({"metadata": {"name": name}}),
            );
            let account = json!({"metadata": {"name": "default"}});
            let _ = server.send(
                "POST",
                &format!("/api/v1/namespaces/{name}/serviceaccounts"),
                &account,
            );
        }
        Self {
            server,
            azure: None,
            runtime: Runtime::new().unwrap(),
            controllers: Vec::new(),
            seen: 0,
        }
    }

    /// Starts Azure.
    pub fn azure(&mut self, world: &str) {
        let world = World::from_yaml(world).unwrap_or_else(|error| panic!("{error}\n{world}"));
        let listen = Listen {
            arm: Listen::loopback().entra,
            ..Listen::loopback()
        };
        let started = self.runtime.block_on(Simulator::start(world, listen));
        self.azure = Some(started.unwrap());
    }

    /// The running Azure.
    pub fn sim(&self) -> &Simulator {
        self.azure.as_ref().expect("started")
    }

    /// Starts a controller with quick defaults; `more` flags come last.
    pub fn controller(&mut self, name: &str, more: &[&str]) {
        let args = self.controller_args(more);
        self.start(name, &args);
    }

    /// Starts a controller with exactly that command line.
    pub fn start(&mut self, name: &str, args: &[String]) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_lanyard"));
        let child = self.server.beside(name, program, &args);
        self.controllers.push((name.to_owned(), child));
    }

    /// The command line of a controller.
    pub fn controller_args(&self, more: &[&str]) -> Vec<String> {
        let addresses = self.sim().addresses();
        let secret = self.server.file("clientSecret", b"of-the-tests");
        let kubeconfig = self
            .server
            .kubeconfig("controller.kubeconfig", crate::server::TOKEN);
        let mut args = vec![
            "controller".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--arm-endpoint=http://{}", addresses.arm.unwrap()),
            format!("--authority-host=http://{}", addresses.entra.unwrap()),
            "--auth=secret".to_owned(),
            format!("--credential-dir={}", secret.parent().unwrap().display()),
            format!("--client-id={CLIENT}"),
            format!("--tenant-id={TENANT}"),
            "--metrics-address=127.0.0.1:0".to_owned(),
            "--log-level=info,lanyard::controller=debug".to_owned(),
        ];
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        args
    }

    /// Runs a command of Lanyard's to its end; what it said.
    pub fn runs(&self, name: &str, args: &[&str]) -> String {
        let kubeconfig = self
            .server
            .kubeconfig("person.kubeconfig", crate::server::TOKEN);
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let args = [args, &[kubeconfig.as_str()]].concat();
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_lanyard"));
        let mut child = self.server.beside(name, program, &args);
        child.wait().unwrap();
        self.server.log(name)
    }

    /// Sends a signal to a controller.
    pub fn signal(&mut self, name: &str, signal: Signal) {
        let (_, child) = self
            .controllers
            .iter()
            .find(|(other, _)| other == name)
            .expect("started");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until a controller has ended by itself; whether it says that all is well.
    pub fn ended(&mut self, name: &str, limit: Duration) -> bool {
        let at = self.controllers.iter().position(|(other, _)| other == name);
        let (_, mut child) = self.controllers.remove(at.expect("started"));
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{name} did not end: {}", self.server.log(name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file beside the API server's, in a folder of its own where the name has one.
    pub fn file(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        self.server.file(name, content)
    }

    /// Kills a controller at once.
    pub fn kill(&mut self, name: &str) {
        let at = self.controllers.iter().position(|(other, _)| other == name);
        let (_, mut child) = self.controllers.remove(at.expect("started"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What a controller has said.
    pub fn log(&self, name: &str) -> String {
        self.server.log(name)
    }

    /// Sends anything to the API server.
    pub fn send(&self, method: &str, path: &str, object: &Value) -> Result<Value, String> {
        let sent = self.server.send(method, path, object);
        sent.map_err(|refused| refused.message)
    }

    /// Creates objects; the path is worked out from kind and namespace.
    pub fn make(&self, object: &Value) -> Value {
        self.server.made(&collection(object), object)
    }

    /// Merges into an object of a kind of ours.
    pub fn merge(&self, plural: &str, namespace: &str, name: &str, patch: &Value) {
        let path = format!("/apis/lanyard.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        self.send("PATCH", &path, patch).unwrap();
    }

    /// A node with that provider id.
    pub fn node(&self, name: &str, provider: &str) {
        self.make(
            &json!({"kind": "Node", "metadata": {"name": name}, "spec": {"providerID": provider}}),
        );
    }

    /// An instance of a scale set.
    pub fn instance(&self, name: &str, set: &str) {
        self.node(name, &format!("azure://{}/virtualMachines/0", set_id(set)));
    }

    /// A pod on a node with the label `app`, of the given value.
    pub fn pod(&self, namespace: &str, name: &str, node: &str, app: &str) {
        self.make(&json!({"kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}],
                "terminationGracePeriodSeconds": 0}}));
    }

    /// Deletes a pod at once.
    pub fn delete_pod(&self, namespace: &str, name: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
        self.send("DELETE", &path, &Value::Null).unwrap();
    }

    /// An identity of that name, as ARM has it, granted to pods with the label `app` of that name, and
    /// admitted.
    pub fn granted(&self, namespace: &str, name: &str) {
        self.identity(namespace, name, &json!({"resourceID": identity_id(name)}));
        self.bound(namespace, name, name);
    }

    /// An `AzureIdentity`.
    pub fn identity(&self, namespace: &str, name: &str, spec: &Value) {
        self.make(
            &json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentity",
            "metadata": {"namespace": namespace, "name": name}, "spec": spec}),
        );
    }

    /// A binding of that name: to pods whose label `app` is `app`.
    pub fn bound(&self, namespace: &str, identity: &str, app: &str) {
        self.make(&json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityBinding",
            "metadata": {"namespace": namespace, "name": identity},
            "spec": {"identity": identity, "subjects": [{"podSelector": {"matchLabels": {"app": app}}}]}}));
    }

    /// A policy that admits everything of the subscription for every namespace.
    pub fn admit_all(&self) {
        self.make(&json!({"apiVersion": "lanyard.dev/v1alpha1", "kind": "AzureIdentityPolicy",
            "metadata": {"name": "all"},
            "spec": {"namespaces": {}, "resourceIDPrefixes": [format!("/subscriptions/{SUBSCRIPTION}")]}}));
    }

    /// The `AzureAssignment` of a compute resource.
    pub fn assignment(&self, compute: &str) -> Option<Value> {
        let name = compute.parse::<Compute>().unwrap().assignment_name();
        let path = format!("/apis/lanyard.dev/v1alpha1/azureassignments/{name}");
        self.send("GET", &path, &Value::Null).ok()
    }

    /// The state of an identity in that, or an empty text.
    pub fn state(&self, compute: &str, identity: &str) -> String {
        let assignment = self.assignment(compute).unwrap_or_default();
        let entries = assignment["status"]["identities"].as_array().cloned();
        let same = |entry: &Value| {
            let id = entry["resourceID"].as_str().unwrap_or_default();
            id.eq_ignore_ascii_case(&identity_id(identity))
        };
        let entry = entries.unwrap_or_default().into_iter().find(same);
        entry
            .and_then(|entry| entry["state"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// A namespaced object of ours.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Value {
        let path = format!("/apis/lanyard.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}");
        self.send("GET", &path, &Value::Null).unwrap_or_default()
    }

    /// A condition of an object: status, reason, message.
    pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
        let conditions = object["status"]["conditions"].as_array().cloned();
        let found = conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition["type"] == kind)
            .unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// What ARM was asked since the last [`Rig::forget`].
    pub fn asked(&self) -> Vec<Entry> {
        let all = self.sim().journal_since(self.seen);
        all.into_iter()
            .filter(|entry| entry.listener == Listener::Arm)
            .collect()
    }

    /// The changes among them.
    pub fn patches(&self) -> Vec<Entry> {
        let asked = self.asked().into_iter();
        asked.filter(|entry| entry.method == "PATCH").collect()
    }

    /// From now on only what comes counts.
    pub fn forget(&mut self) {
        self.seen = self.sim().journal().last().map_or(0, |entry| entry.seq);
    }

    /// Waits until that holds.
    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        self.within(PATIENCE, what, condition);
    }

    /// Waits at most so long.
    pub fn within(&self, limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !condition() {
            if Instant::now() > deadline {
                let logs: Vec<String> = self
                    .controllers
                    .iter()
                    .map(|(name, _)| {
                        let log = self.server.log(name);
                        let lines: Vec<&str> = log.lines().collect();
                        lines[lines.len().saturating_sub(25)..].join("\n")
                    })
                    .collect();
                let asked: Vec<String> = self
                    .asked()
                    .iter()
                    .map(|entry| format!("{} {} {:?}", entry.method, entry.target, entry.status))
                    .collect();
                panic!(
                    "waited in vain for {what}\n{}\n{}",
                    logs.join("\n--\n"),
                    asked.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs kubectl; what it prints.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.server.kubectl(args)
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.controllers {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A managed identity's finalizer has nobody left to take it off.
        let all = self.send(
            "GET",
            "/apis/lanyard.dev/v1alpha1/azureidentities",
            &Value::Null,
        );
        let all = all.unwrap_or_default();
        for object in all["items"].as_array().into_iter().flatten() {
            let meta = &object["metadata"];
            if meta["finalizers"].is_array() {
                let (namespace, name) = (meta["namespace"].as_str(), meta["name"].as_str());
                let none = json!({"metadata": {"finalizers": null}});
                self.merge("azureidentities", namespace.unwrap(), name.unwrap(), &none);
            }
        }
        let ours = "/apis/lanyard.dev/v1alpha1";
        let mut all = ["azureidentitypolicies", "azuremetadataexceptions"]
            .map(|plural| format!("{ours}/{plural}"))
            .to_vec();
        for namespace in NAMESPACES {
            let kinds = ["azureidentities", "azureidentitybindings"];
            all.extend(kinds.map(|plural| format!("{ours}/namespaces/{namespace}/{plural}")));
            let leases = "/apis/coordination.k8s.io/v1/namespaces";
            all.push(format!("/api/v1/namespaces/{namespace}/pods"));
            all.push(format!("{leases}/{namespace}/leases"));
        }
        all.extend([
            format!("{ours}/azureassignments"),
            "/api/v1/nodes".to_owned(),
        ]);
        for collection in all {
            let path = format!("{collection}?gracePeriodSeconds=0");
            let done = self.send("DELETE", &path, &Value::Null);
            // What failed already is told, and not covered by this.
            assert!(done.is_ok() || std::thread::panicking(), "{done:?}");
        }
    }
}

/// Where objects of its kind are.
fn collection(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap();
    let plural = match kind {
        "Pod" => "pods",
        "Node" => "nodes",
        "Deployment" => "deployments",
        "ConfigMap" => "configmaps",
        _ => crate::objects::KINDS
            .iter()
            .find(|(_, of, _)| *of == kind)
            .map(|(plural, ..)| *plural)
            .expect("a kind of ours"),
    };
    let group = match object["apiVersion"].as_str() {
        None | Some("v1") => "/api/v1".to_owned(),
        Some(group) => format!("/apis/{group}"),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}
