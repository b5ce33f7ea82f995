//! `faults`: makes the shipped hub suffer, many times over, and looks for
//! what is lost.
//!
//! Exit codes: 0 nothing was lost; 1 something was, or it could not be run;
//! 2 wrong usage.
#![allow(clippy::disallowed_methods)] // real time and real processes

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use hub_tests::machine;
use sim_devices::binaries::Binaries;
use tally::Tally;

mod customers;
mod disk;
mod power;
mod progress;
mod store;
mod tally;

/// Set in the process that has mounts and processes of its own.
const INSIDE: &str = "HUB_FAULTS_INSIDE";

/// Makes the shipped hub suffer and looks for what is lost.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Sort,
}

#[derive(Subcommand)]
enum Sort {
    /// Cut the power (FS_IOC_SHUTDOWN) and kill -9 at random moments under
    /// load; needs root
    Power {
        /// Power cuts on each file system
        #[arg(long, default_value_t = 300)]
        cuts: usize,
        /// Kills on each file system
        #[arg(long, default_value_t = 300)]
        kills: usize,
        /// The file systems, side by side
        #[arg(long, value_delimiter = ',', default_value = "ext4,xfs")]
        fs: Vec<disk::FileSystem>,
        /// Instead: one cut after flushes that did nothing; something is
        /// lost, and this has to find it
        #[arg(long)]
        lying_disk: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Let one flush or one write of the disk fail under load
    Disk {
        /// How often each kind of failure
        #[arg(long, default_value_t = 50)]
        each: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// Repeats the choices of another run; the moments stay the machine's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object on standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Where hubd and hubctl are; otherwise beside this program, or built
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Sort::Power {
            fs,
            common,
            lying_disk,
            cuts,
            kills,
        } => apart().and_then(|()| {
            play(&common, async |run| match fs.first() {
                Some(first) if lying_disk => run.lying(*first).await,
                _ => run.power(&fs, cuts, kills).await,
            })
        }),
        Sort::Disk { each, common } => play(&common, async |run| run.disk(each).await),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays a run and prints what came of it. Gives whether nothing is wrong.
fn play(common: &Common, run: impl AsyncFnOnce(power::Run) -> Result<Tally>) -> Result<bool> {
    let binaries = Binaries::find(common.bin_dir.as_deref())?;
    let seed = common.seed;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tally = runtime.block_on(run(power::Run { binaries, seed }))?;
    let mut out = std::io::stdout().lock();
    if common.json {
        writeln!(out, "{}", tally.json(seed))?;
    } else {
        write!(out, "{}", tally.text(seed))?;
    }
    Ok(tally.clean())
}

/// Goes on in a process with mounts and process ids of its own, so that
/// whatever becomes of it, no mount and no process is left behind.
fn apart() -> Result<()> {
    if let Some(why) = machine::missing_for_power() {
        bail!("{why}");
    }
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let error = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("cannot start unshare")
}
