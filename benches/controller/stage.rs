//! What is measured: `lanyard controller` as a process of its own, on a real API server, with simulated Azure.
//!
//! In: what to start. Out: what the kernel, the controller's own series and ARM's journal say. Waits for
//! conditions, each with a bound. Everything ends with this process, which is the first of its namespaces.

use std::process::Child;
use std::time::{Duration, Instant};

use lanyard::sim::{Listen, Simulator, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::calls::Calls;
use crate::cast::{self, Size};
use crate::proc;
use crate::series::Series;
use crate::server::{Server, TOKEN};
use crate::writer::Writer;

const METRICS: &str = "127.0.0.1:9465";
/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(4);
/// So much processor time within the time below is what an idle controller takes (its lease, our looks).
const IDLE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_secs(3));

/// The running parts.
pub struct Stage {
    pub size: Size,
    pub writer: Writer,
    server: Server,
    azure: Option<Simulator>,
    controller: Option<Child>,
    started: usize,
}

impl Stage {
    pub fn new(size: Size) -> Self {
        let server = Server::start();
        let writer = Writer::new(&server.kubeconfig("bench.kubeconfig", TOKEN));
        Self {
            size,
            writer,
            server,
            azure: None,
            controller: None,
            started: 0,
        }
    }

    /// Another Azure, in which nothing is assigned.
    pub fn azure(&mut self) {
        let text = cast::azure(self.size);
        let world = World::from_yaml(&text).unwrap();
        let listen = Listen {
            arm: Listen::loopback().entra,
            ..Listen::loopback()
        };
        let started = Simulator::start(world, listen);
        self.azure = Some(self.writer.runtime().block_on(started).unwrap());
    }

    /// Starts the controller; its settings are what it has by itself.
    pub fn start(&mut self) {
        let addresses = self.sim().addresses().clone();
        let secret = self.server.file("clientSecret", cast::SECRET.as_bytes());
        let kubeconfig = self.server.kubeconfig("controller.kubeconfig", TOKEN);
        let args = [
            "controller".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--arm-endpoint=http://{}", addresses.arm.unwrap()),
            format!("--authority-host=http://{}", addresses.entra.unwrap()),
            "--auth=secret".to_owned(),
            format!("--credential-dir={}", secret.parent().unwrap().display()),
            format!("--client-id={}", cast::CLIENT),
            format!("--tenant-id={}", cast::TENANT),
            format!("--metrics-address={METRICS}"),
            "--log-level=info".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.started += 1;
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_lanyard"));
        let child = self.server.beside(&self.log_name(), program, &args);
        self.controller = Some(child);
    }

    /// Ends the controller as Kubernetes does.
    pub fn stop(&mut self) {
        let mut child = self.controller.take().expect("started");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    }

    pub const fn sim(&self) -> &Simulator {
        self.azure.as_ref().expect("started")
    }

    /// What ARM was asked since it was started or forgot.
    pub fn calls(&self) -> Calls {
        Calls::of(&self.sim().journal())
    }

    /// From now on only what comes counts.
    pub fn forget_calls(&self) {
        self.sim().clear_journal();
    }

    pub fn pid(&self) -> u32 {
        self.controller.as_ref().expect("started").id()
    }

    pub fn cpu(&self) -> Duration {
        proc::Cpu::of(self.pid()).unwrap().all
    }

    /// In MiB.
    pub fn memory(&self, key: &str) -> f64 {
        proc::memory_mib(self.pid(), key).unwrap()
    }

    /// The controller's series as they are now.
    pub fn series(&self) -> Series {
        let mut series = None;
        self.until("the series", || {
            series = Series::read(METRICS).ok();
            series.is_some()
        });
        series.unwrap_or_default()
    }

    /// Until the controller has read everything and leads.
    pub fn until_it_leads(&self) {
        self.until("the lease", || {
            self.server
                .log(&self.log_name())
                .contains("leading: the records")
        });
    }

    /// Until nothing is left to do: the processor time that it used until then.
    pub fn until_idle(&self) -> Duration {
        let mut before = (Instant::now(), self.cpu());
        self.until("rest", || {
            let cpu = self.cpu();
            if cpu.saturating_sub(before.1) > IDLE.0 {
                before = (Instant::now(), cpu);
            }
            before.0.elapsed() > IDLE.1
        });
        before.1
    }

    /// Until so many identities are Assigned, each counted on each scale set.
    pub fn until_assigned(&self, count: usize) {
        self.until("all to be Assigned", || {
            std::thread::sleep(Duration::from_millis(400));
            self.assigned() >= count
        });
    }

    fn assigned(&self) -> usize {
        let all = self
            .writer
            .get("/apis/lanyard.dev/v1alpha1/azureassignments");
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let states = |item: &Value| {
            let identities = item["status"]["identities"].as_array();
            let states = identities.into_iter().flatten();
            states.filter(|one| one["state"] == "Assigned").count()
        };
        items.iter().map(states).sum()
    }

    /// Waits until that holds.
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() > deadline {
                let log = self.server.log(&self.log_name());
                let lines: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("waited in vain for {what}\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_name(&self) -> String {
        format!("controller-{}", self.started)
    }
}
