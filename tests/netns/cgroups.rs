//! Programs of the node's network whose sockets are in a cgroup of choice.
//!
//! In: a cgroup's folder. Out: a program in it, or what curl said there.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use lanyard::lab::Namespace;
use tokio::process::Command;

/// Moves itself into a cgroup, then becomes a program.
const INSIDE: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// The HTTP status; 0: no answer.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// `program`, to be run on the node's network in a cgroup.
pub fn command(node: &Namespace, cgroup: &Path, program: &str) -> Command {
    let mut command = node.command("sh");
    command.arg("-c").arg(INSIDE).arg(cgroup).arg(program);
    command
}

/// Asks by curl from a cgroup.
pub async fn ask(node: &Namespace, cgroup: &Path, args: &[&str]) -> Result<Said> {
    let mut curl = command(node, cgroup, "curl");
    curl.args(["-q", "-s", "-g", "-m", "10", "-H", "Metadata: true"]);
    curl.args(["-w", "\n%{http_code}"]).args(args);
    let output = curl.stdin(Stdio::null()).output().await?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.signal().is_none(), "{output:?}");
    let (body, status) = printed
        .rsplit_once('\n')
        .with_context(|| format!("{output:?}"))?;
    Ok(Said {
        status: status.parse()?,
        body: body.to_owned(),
    })
}
