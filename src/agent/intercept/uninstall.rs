//! Removes what interception put on this node, and nothing else. `lanyard uninstall`.
//!
//! In: which backends to look at, the address, the state directory. Out: what was done, in
//! words; an empty list when there was nothing. Blocks on iptables and its lock. The only code that
//! takes rules away: invariant 2 makes that an explicit act. Agents that still run are told to
//! leave the rules alone (until they start anew), and confirm by standing down.

use std::net::Ipv4Addr;
use std::path::Path;

use super::InterceptError;
use super::address::Addresses;
use super::backend::{Backend, BackendChoice};
use super::epoch::StateDir;
use super::exec::Iptables;
use super::script::removal_script;

/// For an agent that ends after the rules were removed: the last one takes the state files with it.
/// `left`: this agent knows so itself, and may never have laid any.
pub async fn forget_removed(state_dir: &Path, left: bool) {
    let state = StateDir::new(state_dir);
    if !state.exists() || !(left || state.is_removed()) {
        return;
    }
    match state.lock().await {
        Ok(lock) => drop(state.clear(lock)),
        Err(error) => tracing::warn!(%error, "state files are left behind"),
    }
}

/// Removes rules, address and state files; what was done, one line each.
pub async fn uninstall(
    choice: BackendChoice,
    address: Ipv4Addr,
    state_dir: &Path,
) -> Result<Vec<String>, InterceptError> {
    let state = StateDir::new(state_dir);
    let mut done = Vec::new();
    let lock = if state.exists() {
        Some(state.lock().await?)
    } else {
        None
    };
    if let Some(lock) = &lock {
        let living = state.living();
        if !living.is_empty() {
            state.set_removed(lock)?;
            let epochs: Vec<_> = living.iter().map(u64::to_string).collect();
            done.push(format!(
                "told the running agent (epoch {}) to leave the rules alone until it starts anew",
                epochs.join(", ")
            ));
        }
    }
    let backends = match choice {
        BackendChoice::Auto => Backend::ALL.to_vec(),
        BackendChoice::Forced(backend) => vec![backend],
    };
    for backend in backends {
        let tools = Iptables::new(backend);
        let actual = match tools.read_all().await {
            // A backend that is not installed holds nothing of ours, unless the person named it.
            Err(InterceptError::NotInstalled { .. }) if choice == BackendChoice::Auto => continue,
            read => read?,
        };
        let (script, what) = removal_script(&actual);
        if !script.is_empty() {
            tools.restore(&script).await?;
            done.extend(
                what.into_iter()
                    .map(|line| format!("removed iptables ({backend}) {line}")),
            );
        }
    }
    if Addresses::open()?.release(address).await? {
        done.push(format!("removed address {address}/32 on lo"));
    }
    if let Some(lock) = lock {
        done.extend(
            state
                .clear(lock)
                .into_iter()
                .map(|name| format!("removed state file {name}")),
        );
    }
    Ok(done)
}
