//! What a node does before its services run: what systemd would do with the boot guard's unit.
//!
//! In: the node's own /etc: `lanyard-test/services.json`, and systemd's unit folders. Out: the
//! services to start. Blocks on the unit's commands. Invariant: an enabled boot guard runs to its end
//! before containerd and kubelet start; where kubelet *requires* it and it fails, kubelet does not start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Service, end_in_words};

/// The services of a node, in the order of their start.
pub const SERVICES: &str = "/etc/lanyard-test/services.json";
/// Units that are known to be meant for the time before kubelet.
const GUARD: &str = "lanyard-boot-guard.service";
const UNITS: &str = "/etc/systemd/system";

/// Runs the boot guard if it is enabled; gives the services that may start.
pub fn prepare() -> Result<Vec<Service>> {
    let text = std::fs::read_to_string(SERVICES).context(SERVICES)?;
    let mut services: Vec<Service> = serde_json::from_str(&text)?;
    let links = links(Path::new(UNITS));
    if links.is_empty() {
        return Ok(services);
    }
    let failed = match run_unit(&Path::new(UNITS).join(GUARD)) {
        Ok(()) => false,
        Err(error) => {
            eprintln!("boot: {GUARD}: {error:#}");
            true
        }
    };
    if failed {
        // `RequiredBy=` (or Requires= in a drop-in) keeps the requiring unit from starting.
        services.retain(|service| {
            let required = links.iter().any(|link| {
                link.parent().is_some_and(|folder| {
                    folder.ends_with(format!("{}.service.requires", service.name))
                })
            });
            if required {
                eprintln!("boot: {} is not started: it requires {GUARD}", service.name);
            }
            !required
        });
    }
    Ok(services)
}

/// Where the guard is linked from: `X.wants/` and `X.requires/`, as `systemctl enable` makes them.
fn links(units: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(units).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path()).filter(|path| {
        path.extension()
            .is_some_and(|ext| ext == "wants" || ext == "requires")
    });
    folders
        .map(|folder| folder.join(GUARD))
        .filter(|link| link.symlink_metadata().is_ok())
        .collect()
}

/// Runs each `ExecStart=` of a oneshot unit; a leading `-` forgives, `Environment=` is given.
fn run_unit(unit: &Path) -> Result<()> {
    let text = std::fs::read_to_string(unit).with_context(|| unit.display().to_string())?;
    let text = text.replace("\\\n", " ");
    let values = |key: &'static str| {
        let lines = text.lines().map(str::trim);
        lines.filter_map(move |line| line.strip_prefix(key)?.trim_start().strip_prefix('='))
    };
    let environment: Vec<(&str, &str)> = values("Environment")
        .flat_map(str::split_whitespace)
        .filter_map(|pair| pair.trim_matches('"').split_once('='))
        .collect();
    for command in values("ExecStart") {
        let command = command.trim();
        let (command, forgiven) = match command.strip_prefix('-') {
            Some(command) => (command, true),
            None => (command, false),
        };
        let mut words = command
            .split_whitespace()
            .map(|word| word.trim_matches('"'));
        let Some(program) = words.next() else {
            continue;
        };
        let mut process = Command::new(program);
        process.args(words).envs(environment.iter().copied());
        let status = process.stdin(Stdio::null()).status();
        let status = status.with_context(|| format!("starting {program}"))?;
        eprintln!("boot: {command}: {}", end_in_words(status));
        anyhow::ensure!(status.success() || forgiven, "`{command}` failed");
    }
    Ok(())
}
