//! A process that is stopped in the middle of whatever it does.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long until none of its threads runs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops a process: whatever it was at, it says nothing more. The power of a
/// machine goes everywhere at once, but not so here: the kernel goes on, and a
/// flush that is under way while a file system is shut down may report success
/// for data that is gone (seen on ext4).
pub(crate) fn freeze(pid: u32) -> Result<()> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let process = process.context("the hub has no process id")?;
    rustix::process::kill_process(process, rustix::process::Signal::STOP)?;
    let until = Instant::now() + PATIENCE;
    while !frozen(pid)? {
        if Instant::now() > until {
            bail!("the hub cannot be stopped");
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Whether no thread of the process runs: each is stopped, or inside a call
/// to the disk from which it does not come back.
fn frozen(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // The state follows the name, which may hold anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'D' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}
