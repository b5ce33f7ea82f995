//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hub_protocol::Currency;
use jiff::civil::Date;
use sim_devices::day::{DayOptions, Window};
use sim_devices::demo::DemoOptions;
use sim_devices::drain::DrainOptions;
use sim_devices::flood::{FloodOptions, Kind};
use sim_devices::gateway::{Faults, GatewayOptions};
use sim_devices::load::LoadOptions;
use sim_devices::payments::PaymentOptions;

mod device;

use device::{AttestArgs, DeviceArgs};

/// Simulated devices, gateway and line around a real hubd.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play a generated shop day through an outage and compare the books
    Demo(DemoArgs),
    /// Play a file of real tickets, the outage on every day
    Day(DayArgs),
    /// Turn a file of real tickets into payments for `hubctl policy try`
    Payments(PaymentsArgs),
    /// Measure durable, signed, offline authorisations a second
    Load(LoadArgs),
    /// Measure live sales beside a backlog that drains, and how fast it does
    Drain(DrainArgs),
    /// Measure honest sales while somebody on the network sends all it can
    Flood(FloodArgs),
    /// The core in virtual time against every known fault, seed after seed
    Sim(hub_sim::cli::SimArgs),
    /// Run the simulated gateway alone, until Ctrl-C
    Gateway(GatewayArgs),
    /// Use one simulated device by hand
    Device(DeviceArgs),
    /// Give a verifier's signed word on a device, on standard output
    Attest(AttestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Print one JSON object on standard output instead of the report
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep hub, ledger, the gateway's book and the witness list in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where hubd and hubctl are; otherwise beside this program, or built
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// How many devices
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    devices: u16,
    /// Card sales of the day
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    tickets: u32,
    /// The same seed plays the same customers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than the clock
    #[arg(long, default_value_t = 2400, value_parser = clap::value_parser!(u32).range(1..))]
    speed: u32,
}

impl DemoArgs {
    pub(crate) fn options(&self) -> anyhow::Result<DemoOptions> {
        Ok(DemoOptions {
            devices: usize::from(self.devices),
            tickets: usize::try_from(self.tickets)?,
            seed: self.seed,
            speed: self.speed,
            keep: self.run.keep.clone(),
            bin_dir: self.run.bin_dir.clone(),
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct DayArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// CSV, plain or gzip; columns timestamp,ticket,amount_minor and, where known, payment,card
    #[arg(long, value_name = "FILE")]
    tickets: PathBuf,
    /// When the line is down, such as 11:00-14:30
    #[arg(long, value_name = "FROM-TO")]
    outage: Window,
    /// Only this day of the file, such as 2019-03-29
    #[arg(long, value_name = "DATE")]
    day: Option<Date>,
    /// The currency that the file's amounts are in
    #[arg(long, default_value = "EUR", value_name = "ISO4217")]
    currency: Currency,
    /// Limits to play under: a policy in TOML
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How many devices, and so payments under way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    devices: u16,
    /// Let the gateway fail now and then: drop lines after booking, 503, 429, late, declined
    #[arg(long)]
    faults: bool,
    /// For what the file does not say
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PaymentsArgs {
    /// CSV, plain or gzip; columns timestamp,ticket,amount_minor and, where known, payment,card
    #[arg(long, value_name = "FILE")]
    tickets: PathBuf,
    /// When the line is down, such as 11:00-14:30
    #[arg(long, value_name = "FROM-TO")]
    outage: Window,
    /// Only this day of the file, such as 2019-03-29
    #[arg(long, value_name = "DATE")]
    day: Option<Date>,
    /// So many of the file's minor units are worth 100 of the policy's
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    per_100: u64,
    /// The file's days are moved by whole weeks to this one or later: into the policy's period
    #[arg(long, default_value = "2026-06-01", value_name = "DATE")]
    from: Date,
    /// How many devices, of all three classes in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    devices: u16,
    /// For what the file does not say
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl PaymentsArgs {
    pub(crate) fn options(self) -> PaymentOptions {
        PaymentOptions {
            tickets: self.tickets,
            outage: self.outage,
            day: self.day,
            per_100: self.per_100,
            from: self.from,
            devices: usize::from(self.devices),
            seed: self.seed,
        }
    }
}

impl DayArgs {
    pub(crate) fn options(&self) -> anyhow::Result<DayOptions> {
        Ok(DayOptions {
            tickets: self.tickets.clone(),
            outage: self.outage,
            day: self.day,
            currency: self.currency,
            policy: self.policy.clone(),
            devices: usize::from(self.devices),
            faults: self.faults,
            seed: self.seed,
            keep: self.run.keep.clone(),
            bin_dir: self.run.bin_dir.clone(),
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// How many devices, one measurement each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    devices: Vec<u16>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Sign requests before the clock starts, check all receipts after it
    #[arg(long)]
    presigned: bool,
    /// Measure again with so many payments queued (at most 1,000,000)
    #[arg(long)]
    queue: Option<u64>,
    /// Measure again with the hub in this folder, which has a long queue
    /// already (`faults stock` makes one)
    #[arg(long, value_name = "DIR", conflicts_with = "queue")]
    stocked: Option<PathBuf>,
    /// Measure first for so many seconds what the idle hub does
    #[arg(long, default_value_t = 0)]
    idle_seconds: u64,
}

impl LoadArgs {
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            devices: self.devices.iter().copied().map(usize::from).collect(),
            seconds: self.seconds,
            presigned: self.presigned,
            queue: self.queue,
            stocked: self.stocked.clone(),
            idle_seconds: self.idle_seconds,
            keep: self.run.keep.clone(),
            bin_dir: self.run.bin_dir.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Devices that sell
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    devices: u16,
    /// Milliseconds from one sale of a device to its next
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    every_ms: u64,
    /// Payments that are queued first
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=900_000))]
    queue: u64,
    /// Instead, the hub in this folder, which has a long queue already
    /// (`faults stock` makes one)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["queue", "to_the_end"])]
    stocked: Option<PathBuf>,
    /// Milliseconds that the gateway works on a call
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    delay_ms: u64,
    /// Calls that it works on at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    places: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Let everything drain in the end, and compare the gateway's book
    #[arg(long)]
    to_the_end: bool,
}

impl DrainArgs {
    pub(crate) fn options(&self) -> DrainOptions {
        DrainOptions {
            devices: usize::from(self.devices),
            every: Duration::from_millis(self.every_ms),
            queue: self.queue,
            stocked: self.stocked.clone(),
            delay: Duration::from_millis(self.delay_ms),
            places: self.places,
            seconds: self.seconds,
            to_the_end: self.to_the_end,
            keep: self.run.keep.clone(),
            bin_dir: self.run.bin_dir.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FloodArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Which floods; all if left out
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Honest devices
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    devices: u16,
    /// Milliseconds from one sale of a device to its next
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    every_ms: u64,
    /// How long each flood lasts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// From how many addresses of this machine floods come
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=250))]
    addresses: u8,
    /// What the hub lets one device ask a second; if left out, what it has by
    /// itself
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests_per_second: Option<u32>,
    /// Fail if a flood makes honest sales this many times slower, at the 99th
    /// percentile: on a machine that does nothing else
    #[arg(long, value_name = "TIMES")]
    pub(crate) at_most: Option<f64>,
}

impl FloodArgs {
    pub(crate) fn options(&self) -> FloodOptions {
        FloodOptions {
            kinds: match self.kinds.as_slice() {
                [] => Kind::ALL.to_vec(),
                kinds => kinds.to_vec(),
            },
            devices: usize::from(self.devices),
            every: Duration::from_millis(self.every_ms),
            seconds: self.seconds,
            addresses: self.addresses,
            requests_per_second: self.requests_per_second,
            keep: self.run.keep.clone(),
            bin_dir: self.run.bin_dir.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Its folder: book, certificate, credential; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// Where to listen for hubs
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What goes wrong: a JSON object such as {"decline":0.03,"slow":0.1,"delay_ms":500}
    #[arg(long, value_name = "JSON")]
    faults: Option<String>,
    /// For the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl GatewayArgs {
    pub(crate) fn options(&self) -> anyhow::Result<GatewayOptions> {
        let faults: Faults = self
            .faults
            .as_deref()
            .map_or(Ok(Faults::default()), serde_json::from_str)?;
        Ok(GatewayOptions {
            listen: self.listen,
            faults,
            seed: self.seed,
            ..GatewayOptions::new(&self.dir)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_load_measures_1_16_and_64_devices_unless_told_otherwise() {
        let Command::Load(args) = Cli::parse_from(["sim-devices", "load"]).command else {
            unreachable!()
        };
        assert_eq!(args.options().devices, [1, 16, 64]);
    }
}
