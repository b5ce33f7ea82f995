//! The commands of `hubctl`.
//!
//! Every command prints for people, or one JSON object with `--json`. What a
//! running hub is asked goes through [`client`]; `policy`, but for `install`,
//! `root`, but for `apply`, `ledger` and `keys recover` work on files, without
//! any hub.

mod archive;
mod cli;
pub mod client;
mod clock;
mod closures;
mod devices;
mod disclose;
mod doctor;
mod enrol;
mod failure;
mod fleet;
mod keygen;
mod keys;
mod ledger;
mod output;
mod parked;
mod policy;
mod queue;
mod recover;
mod restrictions;
mod root;
mod show;
mod standing;
mod totals;
mod trace;
mod unsent;

use std::process::ExitCode;

use clap::Parser as _;

use crate::admin::protocol::TlsStep;
use crate::seclude::seclude;
use cli::{
    ArchiveCommand, Cli, ClockCommand, Command, DevicesCommand, FleetCommand, KeysCommand, LedgerCommand,
    PolicyCommand, QueueCommand, RestrictionsCommand, RootCommand, RotateCommand,
};
/// For `fuzzing.rs` alone.
#[cfg(fuzzing)]
pub(crate) mod decoders {
    pub(crate) use super::disclose::keys_in;
    pub(crate) use super::doctor::fuzz_certificate;
    pub(crate) use super::fleet::written;
}

pub use failure::{EX_DATAERR, EX_UNAVAILABLE, Failure};
use output::Output;

/// Parses the command line, does what it says and gives the exit code.
pub fn main() -> ExitCode {
    // Before the first key is read, or made.
    let secluded = seclude();
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    if let Some(trouble) = secluded.trouble() {
        output.note(&trouble);
    }
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<(), Failure> {
    match &cli.command {
        Command::Doctor => doctor::doctor(output, &cli.dir, cli.connect()),
        Command::Status => queue::status(&cli.connect()?, output),
        Command::Devices { command } => {
            let client = &cli.connect()?;
            match command {
                None | Some(DevicesCommand::List) => devices::list(client, output),
                Some(DevicesCommand::Show { id }) => standing::show(client, output, id),
                Some(DevicesCommand::Approve { id }) => devices::approve(client, output, id),
                Some(DevicesCommand::Block { id }) => devices::set_blocked(client, output, id, true),
                Some(DevicesCommand::Lost { id }) => devices::lost(client, output, id),
                Some(DevicesCommand::Unblock { id }) => devices::set_blocked(client, output, id, false),
            }
        }
        Command::Enrol(args) => enrol::enrol(&cli.connect()?, output, args),
        Command::Fleet { command } => match command {
            None | Some(FleetCommand::List) => fleet::list(&cli.connect()?, output),
            Some(FleetCommand::Withdraw { id }) => fleet::withdraw(&cli.connect()?, output, id),
            Some(FleetCommand::Sign { key, list, out }) => fleet::sign(output, key, list, out),
            Some(FleetCommand::Check { file, key }) => fleet::check(output, file, key, &cli.dir),
            Some(FleetCommand::Apply { file }) => fleet::apply(&cli.connect()?, output, file),
        },
        Command::Queue { command } => {
            let client = &cli.connect()?;
            match command {
                None => queue::list(client, output, queue::DEFAULT_LIMIT, false),
                Some(QueueCommand::List { limit, parked }) => queue::list(client, output, *limit, *parked),
                Some(QueueCommand::Drain { timeout }) => queue::drain(client, output, *timeout),
                Some(QueueCommand::Release {
                    id,
                    not_there,
                    reason,
                    ..
                }) => match id {
                    Some(id) => parked::release(client, output, id, *not_there),
                    None => parked::release_all(client, output, *reason),
                },
                Some(QueueCommand::Close { id, told, note }) => parked::close(client, output, id, told, note),
                Some(QueueCommand::Park { id }) => parked::park(client, output, id),
            }
        }
        Command::Restrictions { command } => {
            let client = &cli.connect()?;
            match command {
                None => restrictions::list(client, output),
                Some(RestrictionsCommand::Lift { device, .. }) => {
                    restrictions::lift(client, output, device.as_deref())
                }
            }
        }
        Command::Clock { command } => {
            let client = &cli.connect()?;
            match command {
                None => clock::show(client, output),
                Some(ClockCommand::Confirm { time }) => clock::confirm(client, output, *time),
            }
        }
        Command::Keys {
            command: Some(KeysCommand::Recover { recovery, check }),
        } => recover::recover(output, &cli.dir, recovery, *check),
        Command::Keys { command } => {
            let client = &cli.connect()?;
            match command {
                None | Some(KeysCommand::List | KeysCommand::Recover { .. }) => keys::list(client, output),
                Some(KeysCommand::Rotate {
                    which: RotateCommand::Vault,
                }) => keys::rotate_vault(client, output),
                Some(KeysCommand::Rotate {
                    which: RotateCommand::Signing { yes },
                }) => keys::rotate_signing(client, output, *yes),
                Some(KeysCommand::Rotate {
                    which: RotateCommand::Tls { finish, abandon, yes },
                }) => {
                    let step = match (finish, abandon) {
                        (true, _) => TlsStep::Finish,
                        (_, true) => TlsStep::Abandon,
                        _ => TlsStep::Begin,
                    };
                    keys::rotate_tls(client, output, step, *yes)
                }
            }
        }
        Command::Keygen { file, tls: true, .. } => keygen::keygen_tls(output, file),
        Command::Keygen {
            file, recovery: true, ..
        } => keygen::keygen_recovery(output, file),
        Command::Keygen { file, .. } => keygen::keygen(output, file),
        Command::Policy { command } => match command {
            PolicyCommand::Sign { key, policy, out } => policy::sign(output, key, policy, out),
            PolicyCommand::Check { file, key } => policy::check(output, file, key, &cli.dir),
            PolicyCommand::Explain { file, key } => {
                policy::explain(output, policy::load(file, key, &cli.dir)?)
            }
            PolicyCommand::Rehearse {
                policy,
                since,
                key,
                hub_key,
                vault_key,
            } => {
                let policy = policy::load(policy, key, &cli.dir)?;
                let secrets = (hub_key.as_deref(), vault_key.as_deref());
                policy::rehearse(output, policy, *since, &cli.dir, secrets)
            }
            PolicyCommand::Try {
                policy,
                payments,
                key,
            } => policy::try_out(output, policy::load(policy, key, &cli.dir)?, payments),
            PolicyCommand::Install { file } => policy::install(&cli.connect()?, output, file),
        },
        Command::Root { command } => match command {
            RootCommand::Init { text, out } => root::init(output, text, out),
            RootCommand::Sign { key, before, file } => root::sign(output, key, before.as_deref(), file),
            RootCommand::Show { file, toml } => root::show(output, file, *toml),
            RootCommand::Verify { files } => root::verify(output, files),
            RootCommand::Apply { files } => root::apply(&cli.connect()?, output, files),
        },
        Command::Ledger { command } => match command {
            LedgerCommand::Verify {
                key,
                receipt,
                reading,
            } => ledger::verify(output, &cli.dir, key.as_deref(), reading, receipt),
            LedgerCommand::Closures { period, key, reading } => {
                closures::closures(output, &cli.dir, key.as_deref(), reading, *period)
            }
            LedgerCommand::Salvage { out, key, vault_key } => {
                ledger::salvage(output, &cli.dir, key.as_deref(), vault_key.as_deref(), out)
            }
            LedgerCommand::Disclose(order) => {
                disclose::disclose(output, &cli.dir, order, &|| cli.connect_if_running())
            }
            LedgerCommand::Unsent(order) => unsent::unsent(output, &cli.dir, order),
            LedgerCommand::Archive { command } => match command {
                None => archive::list(output, &cli.dir, None),
                Some(ArchiveCommand::List { key }) => archive::list(output, &cli.dir, key.as_deref()),
                Some(ArchiveCommand::Verify {
                    key,
                    vault_key,
                    files,
                }) => archive::verify(output, &cli.dir, key.as_deref(), vault_key.as_deref(), files),
                Some(ArchiveCommand::Export { to, all }) => {
                    archive::export(&cli.connect()?, output, &cli.dir, to, *all)
                }
                Some(ArchiveCommand::Remove { through }) => {
                    archive::remove(&cli.connect()?, output, *through)
                }
            },
        },
    }
}
