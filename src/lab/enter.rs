//! The way into a lab: the program starts itself again inside namespaces of its own.
//!
//! In: nothing but the running program's path and arguments. Out: either "you are inside", or the
//! process has been replaced, or the reason why this kernel or user may not. Blocks for a probe of
//! some 20 ms. Invariant: the machine's own network, mounts and processes are never touched, and
//! the death of the first process (whose pid is the one that was started) ends everything inside.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where a lab keeps its files: a tmpfs, so nothing is left behind.
pub const LAB_DIR: &str = "/run/lanyard-lab";

const SETUP: &str = include_str!("setup.sh");

/// The outermost process stays outside the new pid namespace, so signals end it as any program;
/// `setpriv` makes the kernel end pid 1, and so all of the lab, together with it.
const OUTER: &str =
    r#"setup=$1; shift; LAB_OUTER=$$ setpriv --pdeathsig KILL sh -c "$setup" lab "$@"; exit $?"#;

/// The same for a program that wants Ctrl-C for itself: the outermost process outlives it.
const OUTER_PATIENT: &str = r#"trap : INT QUIT
setup=$1; shift; LAB_OUTER=$$ setpriv --pdeathsig KILL sh -c "$setup" lab "$@"; exit $?"#;

/// What a lab calls, and the Debian package each is in.
const TOOLS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
];

/// Who gets Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// It ends the lab at once.
    EndsLab,
    /// The program inside decides (an interpreter, a test runner).
    IsForTheProgram,
}

/// A lab cannot be made here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network namespaces here: {reason}. {way_out}")]
pub struct Unavailable {
    /// What was refused, in the words of the tool that was refused.
    pub reason: String,
    /// What the person can do.
    pub way_out: String,
}

/// Whether this process is the first one of a lab.
#[must_use]
pub fn inside() -> bool {
    std::process::id() == 1 && Path::new(LAB_DIR).is_dir()
}

/// The pid, outside, of the process whose end is the lab's end; it lives in the lab's network and
/// mount namespaces, so `nsenter --target` takes it.
#[must_use]
pub fn outer_pid() -> Option<u32> {
    std::fs::read_to_string(Path::new(LAB_DIR).join("outer-pid"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether the lab is an ordinary user's: root inside is not root outside.
#[must_use]
pub fn unprivileged() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // All of the ids mapped onto themselves: the initial user namespace.
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Makes sure that the program runs inside a lab of its own: call it first in `main`, before any
/// thread. Returns inside; outside, the process is replaced by the lab (same pid, same exit
/// status), or `Unavailable` comes back.
pub fn enter(interrupt: Interrupt) -> Result<(), Unavailable> {
    if inside() {
        return Ok(());
    }
    available()?;
    let program = std::env::current_exe()
        .map_err(|e| unavailable(format!("the program's own path is unknown ({e})")))?;
    let mut command = unshare(interrupt, program.as_os_str());
    command.args(std::env::args_os().skip(1));
    let error = command.exec();
    Err(unavailable(format!("unshare did not start ({error})")))
}

/// Tries a lab that does nothing; an error says why it cannot be.
pub fn available() -> Result<(), Unavailable> {
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !installed(tool)) {
        return Err(Unavailable {
            reason: format!("`{tool}` is not installed"),
            way_out: format!("Install it: `sudo apt-get install {package}`"),
        });
    }
    // Not only the namespaces: a veth pair, too, so that a kernel without them is named here.
    let mut probe = unshare(Interrupt::EndsLab, OsStr::new("ip"));
    probe.args([
        "link", "add", "probe0", "type", "veth", "peer", "name", "probe1",
    ]);
    let output = probe
        .stdin(Stdio::null())
        .output()
        .map_err(|e| unavailable(format!("unshare did not start ({e})")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(unavailable(
        said.trim()
            .lines()
            .last()
            .unwrap_or("unshare failed")
            .to_owned(),
    ))
}

fn unshare(interrupt: Interrupt, program: &OsStr) -> Command {
    let outer = match interrupt {
        Interrupt::EndsLab => OUTER,
        Interrupt::IsForTheProgram => OUTER_PATIENT,
    };
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--", "sh", "-c", outer, "lab", SETUP])
        .arg(program);
    command
}

fn unavailable(reason: String) -> Unavailable {
    let way_out = if nix::unistd::geteuid().is_root() {
        "Root without CAP_SYS_ADMIN (a container?): run it on the machine itself, or give the \
         container --privileged"
    } else {
        "This kernel keeps ordinary users from making user namespaces: run it as root, or allow \
         them (`sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu also \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)"
    };
    Unavailable {
        reason,
        way_out: way_out.to_owned(),
    }
}

fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .any(|dir| dir.join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_process_itself_is_no_lab() {
        assert!(!inside());
    }

    #[test]
    fn a_missing_tool_is_seen_as_missing() {
        assert!(installed("sh"));
        assert!(!installed("no-such-tool-anywhere"));
    }
}
