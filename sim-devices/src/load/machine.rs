//! What the machine can do, and what processes used of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::Row;

/// How long each of them is measured.
const TIME: Duration = Duration::from_millis(500);

/// What one thread, or the disk, does a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Ed25519 signatures made.
    pub signs: f64,
    /// Ed25519 signatures checked (strictly).
    pub verifies: f64,
    /// Writes of 4 KiB into allocated room, each followed by `fdatasync`, on
    /// the disk that the hub's ledger is on.
    pub flushes: f64,
    /// Processors.
    pub processors: usize,
}

/// Measures them; the disk in `dir`.
pub(super) fn rates(dir: &Path) -> Result<Rates> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = [42; 512];
    let signature = key.sign(&message);
    let public = key.verifying_key();
    let signs = a_second(|| {
        std::hint::black_box(key.sign(std::hint::black_box(&message)));
        Ok(())
    })?;
    let verifies = a_second(|| {
        public
            .verify_strict(std::hint::black_box(&message), &signature)
            .context("a signature does not verify")
    })?;
    let path = dir.join("flush.probe");
    let file = allocated(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut block = 0_u64;
    let flushes = a_second(|| {
        file.write_all_at(&[1; 4096], (block % 256) * 4096)?;
        block += 1;
        Ok(file.sync_data()?)
    })?;
    std::fs::remove_file(&path)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Rates {
        signs,
        verifies,
        flushes,
        processors,
    })
}

fn allocated(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    file.write_all_at(&vec![0; 1024 * 1024], 0)?;
    file.sync_all()?;
    Ok(file)
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn a_second(mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    let mut count = 0_u64;
    while began.elapsed() < TIME {
        once()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

impl Rates {
    /// The better of two: measured before and after the load, so that
    /// somebody else's work on the machine weighs less.
    pub(super) fn or_better(self, other: Self) -> Self {
        Self {
            signs: self.signs.max(other.signs),
            verifies: self.verifies.max(other.verifies),
            flushes: self.flushes.max(other.flushes),
            processors: self.processors,
        }
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "processors": self.processors,
            "ed25519_signs_per_second": self.signs.round(),
            "ed25519_verifies_per_second": self.verifies.round(),
            "fdatasyncs_per_second": self.flushes.round(),
        })
    }

    pub(super) fn print(&self, out: &mut dyn Write, best: Option<&Row>) -> io::Result<()> {
        writeln!(
            out,
            "This machine in the same run: {} processors; one thread signs {:.0} and checks {:.0} Ed25519\n\
             signatures a second; the disk takes {:.0} writes with fdatasync a second.",
            self.processors, self.signs, self.verifies, self.flushes
        )?;
        if let Some(best) = best {
            let (sign, verify) = (1e6 / self.signs, 1e6 / self.verifies);
            let hub = 1e6 * best.hub_processors / best.per_second;
            let load = 1e6 * best.load_processors / best.per_second;
            let devices = if best.checked > 0 {
                "the rest of QUIC".to_owned()
            } else {
                format!(
                    "of it {:.0} signing the request and checking the commit",
                    sign + verify
                )
            };
            writeln!(
                out,
                "\nWhere the time goes at {} device(s), µs of processor a payment:\n\
                 \x20 hub      {hub:>6.0}   of it {verify:.0} checking the request, {:.0} signing its group's commit\n\
                 \x20 devices  {load:>6.0}   {devices}\n\
                 \x20 disk     {:>6.0} % of the flushes that it can take",
                best.devices,
                sign / best.payments_a_group().unwrap_or(1.0),
                100.0 * best.flushes_a_second().unwrap_or(0.0) / self.flushes,
            )?;
        }
        Ok(())
    }
}

/// What a process has used since it started (Linux: `/proc`).
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessTime {
    busy_ticks: u64,
    written: u64,
}

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust
/// runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

impl ProcessTime {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read /proc")?;
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        Ok(Self {
            busy_ticks: busy_ticks(&stat).context("/proc/PID/stat is not as expected")?,
            written: written(&io),
        })
    }

    /// Seconds of processor.
    #[allow(clippy::cast_precision_loss)] // ticks far below 2^52
    pub(super) fn busy_since(&self, before: &Self) -> f64 {
        self.busy_ticks.saturating_sub(before.busy_ticks) as f64 / TICKS
    }

    /// Bytes sent to the disk.
    pub(super) fn written_since(&self, before: &Self) -> u64 {
        self.written.saturating_sub(before.written)
    }
}

/// utime and stime, the 14th and 15th field; the 2nd may hold spaces.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn written(io: &str) -> u64 {
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(busy_ticks(stat), Some(42));
        assert_eq!(
            written("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"),
            4096
        );
        assert!(ProcessTime::of(std::process::id()).is_ok());
    }
}
