//! Runs scenarios: outside as trials of the test runner, inside as one scenario in one lab.
//!
//! In: the table of scenarios. Out: passed, failed (with every log's end and path) or ignored (with
//! the reason). Blocks on child processes, bounded. Invariant: nothing outlives its trial.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lanyard::lab::{self, Interrupt, Lab};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Longest life of a scenario.
const LIMIT: Duration = Duration::from_mins(3);
/// First argument of the child that is to run one scenario.
const IN_LAB: &str = "--in-lab";
/// Exit status of a scenario that cannot run here; the reason is its last line.
const CANNOT: u8 = 77;
const TAIL_LINES: usize = 40;

/// What a scenario is given.
pub struct Stage {
    /// A lab with a cloud and one node.
    pub lab: Lab,
    /// `nft` or `legacy`: what the agent is to be told.
    pub backend: String,
    /// Where logs go.
    pub logs: PathBuf,
}

/// A scenario's future.
pub type Act = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// One line of the table.
pub struct Scenario {
    name: &'static str,
    backends: Backends,
    act: fn(Stage) -> Act,
    before: fn() -> anyhow::Result<()>,
}

impl Scenario {
    /// With something to be done once outside the lab, where there is a network.
    pub fn after(mut self, before: fn() -> anyhow::Result<()>) -> Self {
        self.before = before;
        self
    }
}

/// Which iptables backends a scenario is run with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backends {
    /// Once for each.
    Both,
    /// It has no rules in it: once.
    Any,
}

/// Says that a scenario cannot run here, and why; reported as ignored.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// A line of the table.
pub fn scenario(name: &'static str, backends: Backends, act: fn(Stage) -> Act) -> Scenario {
    Scenario {
        name,
        backends,
        act,
        before: || Ok(()),
    }
}

/// The test program: the runner, or one scenario in its lab.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, first, name, backend, logs] = args.as_slice()
        && first == IN_LAB
    {
        let found = scenarios.iter().find(|s| s.name == name);
        return found.map_or(ExitCode::FAILURE, |s| inside(s, backend, Path::new(logs)));
    }
    let arguments = Arguments::from_args();
    // Asking costs a lab: not for a mere list.
    let hindrance = if arguments.list {
        None
    } else {
        lab::available().err()
    };
    let trials = scenarios.iter().flat_map(|scenario| {
        let backends: &[&str] = match scenario.backends {
            Backends::Both => &["nft", "legacy"],
            Backends::Any => &["nft"],
        };
        backends
            .iter()
            .map(|backend| trial(scenario, backend, hindrance.clone()))
    });
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(scenario: &Scenario, backend: &str, hindrance: Option<lab::Unavailable>) -> Trial {
    let both = scenario.backends == Backends::Both;
    let (name, before, backend) = (scenario.name, scenario.before, backend.to_owned());
    let title = if both {
        format!("{name}::{backend}")
    } else {
        name.to_owned()
    };
    Trial::ignorable_test(title, move || {
        if let Some(reason) = hindrance {
            return Ok(Completion::ignored_with(reason));
        }
        before().map_err(|error| format!("{error:#}"))?;
        outside(name, &backend)
    })
}

/// Starts the scenario's process and judges its end.
fn outside(name: &str, backend: &str) -> Result<Completion, Failed> {
    let logs = log_dir(name, backend)?;
    let output = logs.join("scenario.log");
    let file = File::create(&output)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([IN_LAB, name, backend])
        .arg(&logs)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let status = wait(&mut child);
    lanyard::lab::Cgroups::tidy(child.id());
    let status = status?;
    let said = std::fs::read_to_string(&output)?;
    match status {
        Some(status) if status.success() => Ok(Completion::Completed),
        Some(status) if status.code() == Some(CANNOT.into()) => Ok(Completion::ignored_with(
            said.trim().lines().last().unwrap_or_default(),
        )),
        Some(status) => Err(report(&status.to_string(), &logs).into()),
        None => Err(report(&format!("not done after {} s", LIMIT.as_secs()), &logs).into()),
    }
}

fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The lab's outermost process: everything inside ends with it.
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn log_dir(name: &str, backend: &str) -> std::io::Result<PathBuf> {
    let folder = format!("{}-{backend}", name.replace("::", "-"));
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("netns")
        .join(folder);
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    std::fs::create_dir_all(&logs)?;
    Ok(logs)
}

/// What a person needs: the end of every log, and where to read the rest.
fn report(status: &str, logs: &Path) -> String {
    let mut text = format!("{status}; logs in {}\n", logs.display());
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    files.sort_by_key(|path| path.ends_with("scenario.log"));
    for path in files {
        let content = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = content.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        let _ = writeln!(text, "--- {}\n{tail}", path.display());
    }
    text
}

/// Runs one scenario in this process's lab.
fn inside(scenario: &Scenario, backend: &str, logs: &Path) -> ExitCode {
    if let Err(reason) = lab::enter(Interrupt::EndsLab) {
        println!("{reason}");
        return ExitCode::from(CANNOT);
    }
    match play(scenario, backend, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<CannotRun>() => {
            println!("{error}");
            ExitCode::from(CANNOT)
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(scenario: &Scenario, backend: &str, logs: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let act = scenario.act;
    runtime.block_on(async {
        let program = Path::new(env!("CARGO_BIN_EXE_lanyard"));
        let lab = Lab::new(program, logs).await?;
        if scenario.backends == Backends::Both {
            works(backend).await?;
        }
        act(Stage {
            lab,
            backend: backend.to_owned(),
            logs: logs.to_owned(),
        })
        .await
    })
}

/// Whether this kernel has the backend (an ordinary user's lab cannot load modules). Asked in the
/// lab's outermost namespace: asking makes tables, which the node must not have yet.
async fn works(backend: &str) -> anyhow::Result<()> {
    let program = format!("iptables-{backend}");
    for table in ["nat", "filter"] {
        let listed = tokio::process::Command::new(&program)
            .args(["-t", table, "-S"])
            .output();
        let listed = listed.await?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr)
                .trim()
                .replace('\n', " ");
            return Err(CannotRun(format!("{program} does not work here: {said}")).into());
        }
    }
    Ok(())
}
