//! `faults`: makes the shipped hub suffer, many times over, and looks for
//! what is lost.
//!
//! Exit codes: 0 nothing was lost; 1 something was, or it could not be run;
//! 2 wrong usage.
#![allow(clippy::disallowed_methods)] // real time and real processes

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use hub_tests::machine;
use sim_devices::binaries::Binaries;
use stock::Goods;
use tally::Tally;

mod customers;
mod damage;
mod disk;
mod frozen;
mod older;
mod power;
mod progress;
mod rebuild;
mod stock;
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
        /// Instead: a cut after flushes that did nothing, up to 10 times;
        /// something is lost, and this has to find it
        #[arg(long)]
        lying_disk: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Cut the power while settled payments move to archives; needs root
    Archiving {
        /// Power cuts on each file system
        #[arg(long, default_value_t = 60)]
        cuts: usize,
        /// The file systems, side by side
        #[arg(long, value_delimiter = ',', default_value = "ext4,xfs")]
        fs: Vec<disk::FileSystem>,
        #[command(flatten)]
        common: Common,
    },
    /// Cut the power while a store that an earlier version wrote is taken over;
    /// needs root
    Migration {
        /// Power cuts on each file system
        #[arg(long, default_value_t = 60)]
        cuts: usize,
        /// The file systems, one after the other
        #[arg(long, value_delimiter = ',', default_value = "ext4,xfs")]
        fs: Vec<disk::FileSystem>,
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
    /// Damage the files of a stopped hub at random: bits flipped, cut short,
    /// removed, swapped, zeroed, older
    Damage {
        /// How often in each way
        #[arg(long, default_value_t = 50)]
        each: usize,
        /// Payments that the shop has had: about 2,000 make a segment
        #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u64).range(4000..=100_000))]
        payments: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Open a ledger with a long queue: with its index, without, after kill
    /// -9; time and memory
    Rebuild {
        /// Keep the shop in this folder, which must not be there yet
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        #[command(flatten)]
        goods: GoodsArgs,
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Make a shop with a long queue, for `sim-devices load` and `drain`
    Stock {
        /// Its folder, which must not be there yet
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        goods: GoodsArgs,
        #[command(flatten)]
        report: ReportArgs,
    },
}

#[derive(Args)]
struct GoodsArgs {
    /// Payments that wait to be sent, one ledger entry each
    #[arg(long, visible_alias = "entries", default_value_t = 1_000_000)]
    payments: u64,
    /// Devices that made them
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    devices: u16,
    /// Cards that paid
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    cards: u64,
}

impl GoodsArgs {
    fn goods(&self) -> Goods {
        Goods {
            payments: self.payments,
            devices: self.devices.into(),
            cards: self.cards,
        }
    }
}

#[derive(Args)]
struct Common {
    /// Repeats the choices of another run; the moments stay the machine's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Args)]
struct ReportArgs {
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
        Sort::Archiving { cuts, fs, common } => {
            apart().and_then(|()| play(&common, async |run| run.archiving(&fs, cuts).await))
        }
        Sort::Migration { cuts, fs, common } => {
            apart().and_then(|()| play(&common, async |run| run.migration(&fs, cuts).await))
        }
        Sort::Disk { each, common } => play(&common, async |run| run.disk(each).await),
        Sort::Damage {
            each,
            payments,
            common,
        } => hurt(each, payments, &common),
        Sort::Rebuild { keep, goods, report } => reopen(keep, goods.goods(), &report),
        Sort::Stock { dir, goods, report } => lay(&dir, goods.goods(), &report),
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
    let binaries = Binaries::find(common.report.bin_dir.as_deref())?;
    let seed = common.seed;
    let tally = runtime()?.block_on(run(power::Run { binaries, seed }))?;
    let mut out = std::io::stdout().lock();
    if common.report.json {
        writeln!(out, "{}", tally.json(seed))?;
    } else {
        write!(out, "{}", tally.text(seed))?;
    }
    Ok(tally.clean())
}

/// Damages files and prints what came of it. Gives whether nothing is wrong.
fn hurt(each: usize, payments: u64, common: &Common) -> Result<bool> {
    let binaries = Binaries::find(common.report.bin_dir.as_deref())?;
    let table = runtime()?.block_on(damage::run(&binaries, common.seed, each, payments))?;
    let mut out = std::io::stdout().lock();
    if common.report.json {
        writeln!(out, "{}", table.json(common.seed))?;
    } else {
        write!(out, "{}", table.text(common.seed))?;
    }
    Ok(table.clean())
}

/// Opens a ledger in every way and prints what it took.
fn reopen(keep: Option<PathBuf>, goods: Goods, args: &ReportArgs) -> Result<bool> {
    let binaries = Binaries::find(args.bin_dir.as_deref())?;
    let report = runtime()?.block_on(rebuild::run(keep, &binaries, goods))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", report.text())?;
    }
    Ok(report.within())
}

fn lay(dir: &Path, goods: Goods, args: &ReportArgs) -> Result<bool> {
    let binaries = Binaries::find(args.bin_dir.as_deref())?;
    runtime()?.block_on(stock::set_up(dir, &binaries, goods.devices, |_| Ok(())))?;
    let laid = stock::lay(dir, goods)?;
    let mut out = std::io::stdout().lock();
    let seconds = laid.took.as_secs_f64();
    if args.json {
        let report = serde_json::json!({ "entries": laid.sequence, "seconds": seconds.round() });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{} entries in {seconds:.0} s", laid.sequence)?;
    }
    Ok(true)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
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
