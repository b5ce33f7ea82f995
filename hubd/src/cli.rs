//! The command line of `hubd`.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage; 74 the ledger or a part of the
//! hub failed; 75 another hubd has the folder; 78 the configuration has faults
//! or the store is not for this program (`EX_CONFIG`). systemd restarts on
//! neither of the last two.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hub_protocol::Currency;
use hubd::config::{Config, ConfigFault, EX_CONFIG, Peer, logging};
use hubd::init::{InitError, InitOptions, InitReport};
use hubd::seclude::Secluded;
use serde::Serialize;

/// Keeps a shop's card payments going when the network is gone.
#[derive(Parser)]
#[command(name = "hubd", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 74 the ledger failed, 75 another hubd has the folder, 78 the configuration has faults or the store is not for this hubd"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a new hub: keys, a commented hubd.toml, a first policy
    Init(Box<InitArgs>),
    /// Check hubd.toml and everything it points to; report every fault
    Validate(ValidateArgs),
    /// Check, then run until told to stop (SIGTERM)
    Run(RunArgs),
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// The hub's folder; made if it is not there. Nothing is overwritten
    #[arg(long)]
    dir: PathBuf,
    /// What people call the shop
    #[arg(long)]
    store: Option<String>,
    /// The shop's id at the gateway and in policies
    #[arg(long)]
    store_id: Option<String>,
    /// The shop's currency (ISO 4217)
    #[arg(long)]
    currency: Option<Currency>,
    /// The gateway's address (https)
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Certificates (PEM) of the gateway's authority, if not a public one
    #[arg(long, value_name = "FILE")]
    gateway_ca: Option<PathBuf>,
    /// A file (0600) with the gateway's credential
    #[arg(long, value_name = "FILE")]
    gateway_credential: Option<PathBuf>,
    /// Where devices reach the hub
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where devices with an enrolment code reach the hub
    #[arg(long, value_name = "ADDRESS:PORT")]
    enrol_listen: Option<SocketAddr>,
    /// An address for enrolment codes; may be given again
    #[arg(long, value_name = "ADDRESS")]
    advertise: Vec<IpAddr>,
    /// A network interface for mDNS; may be given again
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Headquarters' policy key, 64 hex digits; may be given again
    #[arg(long, value_name = "HEX")]
    trusted_key: Vec<String>,
    /// A policy (TOML) to sign instead of the sample
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct ValidateArgs {
    /// The hub's folder
    #[arg(long, default_value = "/var/lib/hubd")]
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The hub's folder
    #[arg(long, default_value = "/var/lib/hubd")]
    pub(crate) dir: PathBuf,
}

pub(crate) fn parse() -> Command {
    Cli::parse().command
}

/// Says what could not be kept from a core dump, where there is no log.
pub(crate) fn tell(secluded: &Secluded) {
    if let Some(trouble) = secluded.trouble() {
        let _ = writeln!(io::stderr(), "warning: {trouble}");
    }
}

pub(crate) fn init(args: &InitArgs) -> ExitCode {
    let options = InitOptions {
        store: args.store.clone(),
        store_id: args.store_id.clone(),
        currency: args.currency,
        gateway: args.gateway.clone(),
        gateway_ca: args.gateway_ca.clone(),
        gateway_credential: args.gateway_credential.clone(),
        listen: args.listen,
        enrol_listen: args.enrol_listen,
        advertise: args.advertise.clone(),
        interfaces: args.interface.clone(),
        trusted_keys: args.trusted_key.clone(),
        policy: args.policy.clone(),
    };
    match hubd::init::init(&args.dir, &options) {
        Ok(report) if args.json => printed(print_json(&report)),
        Ok(report) => printed(print_init(&report)),
        Err(error @ (InitError::Config(_) | InitError::Policy { .. })) => {
            complain(&error);
            ExitCode::from(EX_CONFIG)
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn validate(args: &ValidateArgs) -> ExitCode {
    let loaded = Config::load(&args.dir);
    if args.json {
        let report = ValidateReport::of(&loaded);
        let code = if report.valid {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EX_CONFIG)
        };
        return match print_json(&report) {
            Ok(()) => code,
            Err(error) => printed(Err(error)),
        };
    }
    match loaded {
        Ok(config) => {
            print_warnings(&config);
            printed(print_summary(&config))
        }
        Err(faults) => refuse(&args.dir, &faults),
    }
}

/// The configuration, or the exit code after its faults have been told.
pub(crate) fn load(dir: &Path) -> Result<Config, ExitCode> {
    let config = Config::load(dir).map_err(|faults| refuse(dir, &faults))?;
    if let Err(error) = logging::init(&config.log) {
        complain(&error);
        return Err(ExitCode::from(EX_CONFIG));
    }
    for warning in &config.warnings {
        tracing::warn!(
            file = %warning.file.display(),
            line = warning.line,
            "{}", warning.message
        );
    }
    Ok(config)
}

fn refuse(dir: &Path, faults: &[ConfigFault]) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for fault in faults {
        let _ = writeln!(stderr, "{fault}");
    }
    let _ = writeln!(
        stderr,
        "hubd: {} in the configuration in {}",
        counted(faults.len(), "fault"),
        dir.display()
    );
    ExitCode::from(EX_CONFIG)
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The `--json` form of `validate`.
#[derive(Serialize)]
struct ValidateReport<'c> {
    valid: bool,
    faults: &'c [ConfigFault],
    warnings: &'c [ConfigFault],
    hub_id: Option<String>,
    store: Option<&'c str>,
    store_id: Option<&'c str>,
    policy_version: Option<u64>,
    root_version: Option<u32>,
}

impl<'c> ValidateReport<'c> {
    fn of(loaded: &'c Result<Config, Vec<ConfigFault>>) -> Self {
        let config = loaded.as_ref().ok();
        let policy = config.and_then(|config| config.policy.present.as_ref());
        Self {
            valid: config.is_some(),
            faults: loaded.as_ref().err().map_or(&[], Vec::as_slice),
            warnings: config.map_or(&[], |config| config.warnings.as_slice()),
            hub_id: config.map(|config| config.keys.hub_id.to_string()),
            store: config.map(|config| config.hub.store.as_str()),
            store_id: config.map(|config| config.hub.store_id.as_str()),
            policy_version: policy.map(|present| present.policy.version),
            root_version: config.and_then(|config| Some(config.policy.root.as_ref()?.root.version)),
        }
    }
}

fn print_warnings(config: &Config) {
    let mut stderr = io::stderr().lock();
    for warning in &config.warnings {
        let _ = writeln!(stderr, "warning: {warning}");
    }
}

fn print_summary(config: &Config) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{} has no faults", config.layout.config.display())?;
    writeln!(
        stdout,
        "{} ({}), {}; hub {}; devices at {}, enrolment at {}; gateway {}",
        config.hub.store,
        config.hub.store_id,
        config.hub.currency,
        config.keys.hub_id.short(),
        config.devices.listen,
        config.devices.enrol_listen,
        config.gateway.peer
    )?;
    if let Peer::Https { credential: None, .. } = config.gateway.peer {
        writeln!(
            stdout,
            "note: no [gateway] credential_file; the gateway is called without one"
        )?;
    }
    if let Some(pinned) = &config.policy.root {
        writeln!(
            stdout,
            "root {} of {} to begin with; {} of {} keys sign the next one",
            pinned.root.version,
            pinned.root.tenant,
            pinned.root.threshold,
            pinned.root.keys.len()
        )?;
    }
    match &config.policy.present {
        Some(present) => writeln!(
            stdout,
            "policy {} version {}, signed by key {}",
            present.policy.tenant, present.policy.version, present.key
        ),
        None => writeln!(stdout, "no policy: nothing is approved offline"),
    }
}

fn print_init(report: &InitReport) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "Made a hub in {}:", report.dir.display())?;
    for file in &report.files {
        let name = file.strip_prefix(&report.dir).unwrap_or(file);
        writeln!(stdout, "  {}", name.display())?;
    }
    writeln!(stdout, "\nHub id              {}", report.hub_id)?;
    writeln!(stdout, "Ledger is signed by {}", report.signing_public_key)?;
    writeln!(
        stdout,
        "Policy              version {}, until {}, signed by {}",
        report.policy_version, report.policy_expires, report.policy_public_key
    )?;
    writeln!(stdout, "\nNext:")?;
    for (at, step) in report.next_steps.iter().enumerate() {
        writeln!(stdout, "  {}. {step}", at + 1)?;
    }
    Ok(())
}

fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)
}

/// Output that could not be written is a failure, not a panic.
fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(io::stderr(), "hubd: {error}");
}
