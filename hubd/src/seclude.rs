//! The process keeps its memory, and so its keys, to itself: no core dumps,
//! and nobody without the right to everything attaches to it. Of hubd and of
//! hubctl, whatever they are to do: both have keys in their hands.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// What became of it: told once there is a log, or somebody to tell.
#[derive(Debug)]
#[must_use]
pub struct Secluded {
    core_limit: Result<(), Errno>,
    dumpable: Result<(), Errno>,
}

/// Ends core dumps of this process and of its children, and attaching to it
/// by processes of the same user. To be called before a key is read or made.
pub fn seclude() -> Secluded {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Under systemd the limit stands already, and may not be set again.
    let core_limit = match getrlimit(Resource::Core) {
        now if now == none => Ok(()),
        _ => setrlimit(Resource::Core, none),
    };
    Secluded {
        core_limit,
        dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable),
    }
}

impl Secluded {
    /// What could not be done, for people. The program goes on all the same.
    pub fn trouble(&self) -> Option<String> {
        let error = self.core_limit.and(self.dumpable).err()?;
        Some(format!(
            "core dumps cannot be ended, and one would hold the keys: {error}"
        ))
    }

    /// Says it in the log.
    pub fn log(&self) {
        if let Some(trouble) = self.trouble() {
            tracing::warn!("{trouble}");
        }
    }
}
