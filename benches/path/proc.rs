//! What the kernel tells of a process.

use std::time::Duration;

use anyhow::Context as _;

/// Processor time, to 10 ms.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// All of it.
    pub all: Duration,
    /// What the kernel spent.
    pub system: Duration,
}

impl Cpu {
    /// Used so far.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
        let after = stat
            .rsplit_once(')')
            .context("no name in /proc/PID/stat")?
            .1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let (user, system): (u64, u64) = (fields[11].parse()?, fields[12].parse()?);
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?
            .and_then(|ticks| u64::try_from(ticks).ok())
            .context("no clock ticks")?;
        let time = |ticks| Duration::from_micros(ticks * 1_000_000 / per_second);
        Ok(Cpu {
            all: time(user + system),
            system: time(system),
        })
    }

    /// Used since then.
    pub fn since(self, before: Self) -> Self {
        Cpu {
            all: self.all.saturating_sub(before.all),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// A line of `/proc/PID/status` in MiB (`VmRSS`, `RssAnon`).
pub fn memory_mib(pid: u32, key: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .context("no such line")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .context("no value")?
        .parse()?;
    Ok(kib / 1024.0)
}

/// The machine's load over the last minute.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
