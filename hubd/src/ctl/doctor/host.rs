//! The machine: clock, disk, network.

use std::path::Path;
use std::process::Command;

use super::Finding;
use crate::config::Config;

/// Says whether the kernel's clock is synchronised.
const TIMEDATECTL: [&str; 4] = ["timedatectl", "show", "--property=NTPSynchronized", "--value"];

/// Whether somebody keeps the clock right.
pub(super) fn clock() -> Finding {
    const CHECK: &str = "clock";
    let [program, arguments @ ..] = TIMEDATECTL;
    let said = Command::new(program).args(arguments).output();
    let said = said.ok().filter(|said| said.status.success());
    synchronised(
        said.as_ref()
            .map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()),
        CHECK,
    )
}

fn synchronised(said: Option<String>, check: &'static str) -> Finding {
    match said.as_deref() {
        Some("yes") => Finding::good(check, "synchronised"),
        Some("no") => Finding::warning(
            check,
            "not synchronised: set up systemd-timesyncd or chrony; a clock in doubt halves the limits",
        ),
        _ => Finding::warning(check, "timedatectl does not say whether it is synchronised"),
    }
}

/// The room on the disk, beside what is kept aside.
pub(super) fn disk(config: &Config) -> Finding {
    const CHECK: &str = "disk";
    let dir = &config.layout.dir;
    let Ok(room) = rustix::fs::statvfs(dir) else {
        return Finding::bad(CHECK, format!("{} cannot be looked at", dir.display()));
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let reserve = if has_reserve(&config.layout.reserve) {
        0
    } else {
        config.ledger.reserve_bytes
    };
    enough(free, reserve, config.ledger.low_space_bytes, CHECK)
}

/// Whether the room to be kept aside is taken already.
fn has_reserve(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut files| files.next().is_some())
}

fn enough(free: u64, reserve: u64, low: u64, check: &'static str) -> Finding {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let text = format!("{} MiB free", mib(free));
    if free < reserve {
        return Finding::bad(
            check,
            format!("{text}, and {} MiB are to be kept aside: make room", mib(reserve)),
        );
    }
    if free - reserve < low {
        return Finding::warning(check, format!("{text}: below {} MiB, make room", mib(low)));
    }
    Finding::good(check, text)
}

/// Where devices can find the hub.
pub(super) fn addresses(config: &Config) -> Finding {
    const CHECK: &str = "network";
    let wanted = &config.discovery.interfaces;
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let found: Vec<String> = found
        .iter()
        .filter(|at| !at.is_loopback() && !at.is_link_local())
        .filter(|at| wanted.is_empty() || wanted.contains(&at.name))
        .map(|at| format!("{} on {}", at.ip(), at.name))
        .collect();
    let listen = config.devices.listen;
    if !listen.ip().is_unspecified() {
        return Finding::good(
            CHECK,
            format!("devices reach the hub at {listen} and nowhere else"),
        );
    }
    if found.is_empty() {
        return Finding::warning(CHECK, "this machine has no address on a local network now");
    }
    Finding::good(CHECK, found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    #[test]
    fn room_is_held_against_what_is_to_be_kept_aside() {
        const MIB: u64 = 1024 * 1024;
        let standing = |free: u64| enough(free * MIB, 64 * MIB, 1024 * MIB, "disk").standing;
        assert_eq!(standing(63), Standing::Bad);
        assert_eq!(standing(64), Standing::Warning);
        assert_eq!(standing(1087), Standing::Warning);
        assert_eq!(standing(1088), Standing::Good);
    }

    #[test]
    fn a_clock_that_nobody_vouches_for_is_looked_at() {
        let standing = |said: Option<&str>| synchronised(said.map(str::to_owned), "clock").standing;
        assert_eq!(standing(Some("yes")), Standing::Good);
        assert_eq!(standing(Some("no")), Standing::Warning);
        assert_eq!(standing(None), Standing::Warning);
    }
}
