//! The command line of `hubctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use hub_protocol::Period;
use hub_protocol::entry::ParkReason;

use super::client::Client;
use super::enrol::EnrolArgs;
use super::failure::Failure;
use crate::admin::protocol::{Found, MAX_QUEUE_LIMIT};
use crate::config::{Config, Layout};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused, 2 wrong usage, 65 a ledger, policy or receipt does not \
                          verify, 69 the hub cannot be reached, 78 hubd.toml has faults";

const TRY: &str = "A payment takes an amount and a card:\n  \
                   {\"amount_minor\": 2500, \"card\": \"tok-1\"}\n\
                   All other fields, and lines that are events (wan_up, wan_down, settled, void, restart), \
                   are told in docs/policy.md, \"Trying a policy out\".";

/// Speaks to a running hub, and checks its ledger and policies.
#[derive(Parser)]
#[command(name = "hubctl", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    /// The hub's folder; for `ledger` and `policy rehearse`, also a copied
    /// ledger folder
    #[arg(long, global = true, default_value = "/var/lib/hubd")]
    pub(super) dir: PathBuf,
    /// The hub's socket, if not the one that hubd.toml names
    #[arg(long, global = true)]
    socket: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// How the hub stands
    Status,
    /// Look over the hub's folder and this machine: keys, clock, disk,
    /// network, policy. Exit code 1 if something has to be put right
    Doctor,
    /// List devices, enrolled or only seen; block and unblock them, and say that
    /// one is lost
    Devices {
        #[command(subcommand)]
        command: Option<DevicesCommand>,
    },
    /// Make an enrolment code, for one device or several, and show it as text
    /// and as QR code
    Enrol(EnrolArgs),
    /// Devices in number: codes for several, and headquarters' signed list
    Fleet {
        #[command(subcommand)]
        command: Option<FleetCommand>,
    },
    /// What waits to be sent to the gateway
    Queue {
        #[command(subcommand)]
        command: Option<QueueCommand>,
    },
    /// Where anomalies restrict offline approvals; lift a restriction
    Restrictions {
        #[command(subcommand)]
        command: Option<RestrictionsCommand>,
    },
    /// The hub's clock: show it, and confirm one in doubt
    Clock {
        #[command(subcommand)]
        command: Option<ClockCommand>,
    },
    /// The keys of the hub, of headquarters and of devices, with their ages;
    /// change the hub's
    Keys {
        #[command(subcommand)]
        command: Option<KeysCommand>,
    },
    /// Make an Ed25519 key, for who signs policies or overrides; with --tls a
    /// TLS key for the hub, with --recovery headquarters' recovery key
    Keygen {
        /// A P-256 key in PEM, to be supplied as hub-tls.next.key
        #[arg(long, conflicts_with = "recovery")]
        tls: bool,
        /// An X25519 key that opens stores whose machine is lost; its public
        /// half goes into `recovery_key` of hubd.toml (under `[ledger]`)
        #[arg(long)]
        recovery: bool,
        /// Where the private key goes (0600); must not be there yet
        file: PathBuf,
    },
    /// Sign, check, try out and install policies
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// The root over the keys that sign policies: make, sign, show, check and
    /// apply one
    Root {
        #[command(subcommand)]
        command: RootCommand,
    },
    /// Check the ledger's files, without the hub
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
}

#[derive(Subcommand)]
pub(super) enum DevicesCommand {
    /// List devices
    List,
    /// Who a device is, and whether it was reset, replaced or copied
    Show {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
    /// Let a device pay that enrolled by a code for several
    Approve {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
    /// Block a device: its connections end and it cannot come back
    Block {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
    /// Say that a device is lost: what is kept back for its allowance is free
    /// for others. Payments that it approved are still taken if it comes back
    Lost {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
    /// Take a device's block away
    Unblock {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
}

#[derive(Subcommand)]
pub(super) enum FleetCommand {
    /// List codes for several devices, and which list is in force
    List,
    /// Withdraw a code for several devices. Those enrolled by it stay
    Withdraw {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
    /// At headquarters: check a list of devices and sign it
    Sign {
        /// The private key (0600): 64 hex digits, one that hubs name in
        /// policy.trusted_keys of hubd.toml
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The list as written (TOML): docs/enrolment.md
        #[arg(value_name = "LIST.toml")]
        list: PathBuf,
        /// Where the signed list goes
        out: PathBuf,
    },
    /// Check a signed list of devices and show it
    Check {
        /// The list
        file: PathBuf,
        /// A key to trust, as with `policy check`
        #[arg(long, value_name = "HEX|FILE")]
        key: Vec<String>,
    },
    /// Take headquarters' signed list of devices: those on it are enrolled and
    /// approved, those that it leaves out or revokes are shut out, and those
    /// blocked here stay blocked
    Apply {
        /// The list
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum QueueCommand {
    /// List what waits, oldest first
    List {
        /// The most items to list
        #[arg(long, default_value_t = super::queue::DEFAULT_LIMIT, value_parser = limit)]
        limit: usize,
        /// Only what is parked
        #[arg(long)]
        parked: bool,
    },
    /// Send what waits now, and watch until all is sent
    Drain {
        /// How long to watch, such as "90s" or "10m"
        #[arg(long, default_value = "10m", value_parser = duration)]
        timeout: Duration,
    },
    /// Put a parked payment back into the queue
    Release {
        /// Its id, or as many first digits as tell it from the others
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// All that are parked
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// Of all, those that are parked for this reason, such as
        /// "gateway-refuses-hub"
        #[arg(long, requires = "all")]
        reason: Option<ParkReason>,
        /// The gateway's or acquirer's people were asked and do not have it:
        /// it is sent without a look-up. If they do have it, the customer is
        /// charged twice
        #[arg(long, conflicts_with = "all")]
        not_there: bool,
    },
    /// End a parked payment by what was found out elsewhere. It is not sent any
    /// more, counts as exposure no more, and the ledger says who ended it
    Close {
        /// Its id, or as many first digits as tell it from the others
        id: String,
        #[command(flatten)]
        told: Told,
        /// Who was asked, and what they said: 1 to 200 bytes, no card number
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
    /// Keep back a payment that waits: it is parked until it is released
    Park {
        /// Its id, or as many first digits as tell it from the others
        id: String,
    },
}

/// What was found out about a parked payment.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Told {
    /// The gateway does not have it. Of an approved payment: the shop's loss
    #[arg(long)]
    not_there: bool,
    /// The gateway has it: the customer is charged
    #[arg(long)]
    taken: bool,
    /// The gateway had it and has undone it
    #[arg(long)]
    undone: bool,
}

impl Told {
    pub(super) fn finding(&self) -> Found {
        match (self.taken, self.undone) {
            (true, _) => Found::Taken,
            (_, true) => Found::Undone,
            _ => Found::NotThere,
        }
    }
}

#[derive(Subcommand)]
pub(super) enum RestrictionsCommand {
    /// End what anomalies have led to. The ledger says who did it
    Lift {
        /// At which device: its id, or as many first digits as tell it from
        /// the others
        #[arg(required_unless_present = "store")]
        device: Option<String>,
        /// In the whole store instead
        #[arg(long, conflicts_with = "device")]
        store: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// List keys
    List,
    /// Change a key while devices go on paying
    Rotate {
        #[command(subcommand)]
        which: RotateCommand,
    },
    /// Open the store of a lost machine, in a restored folder and without a
    /// hub: its data key is unwrapped by the recovery key and wrapped under a
    /// new vault key
    Recover {
        /// The private half of the recovery key (0600): what `keygen
        /// --recovery` wrote
        #[arg(long, value_name = "FILE")]
        recovery: PathBuf,
        /// Only say whether this key opens the store; change nothing
        #[arg(long)]
        check: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum RotateCommand {
    /// The key that receipts and the ledger are signed with. The ledger says
    /// so, signed by the old key and the new; the old one is destroyed.
    /// Devices learn the new one by themselves, those too that are away
    Signing {
        /// Although devices are left behind that speak too old a wire version
        #[arg(long)]
        yes: bool,
    },
    /// The key by which devices know the hub on the network. Begins to be
    /// reached under another key beside it; given again, tells which devices
    /// have followed; with --finish the old key is destroyed
    Tls {
        /// Be reached under the new key only, and destroy the old one
        #[arg(long, conflicts_with = "abandon")]
        finish: bool,
        /// Be reached under the old key only, and destroy the new one
        #[arg(long)]
        abandon: bool,
        /// Although devices are left behind
        #[arg(long)]
        yes: bool,
    },
    /// The key that the store's data key is wrapped under. Nothing that is
    /// encrypted is written anew; the ledger says so, and the old key is
    /// destroyed
    Vault,
}

#[derive(Subcommand)]
pub(super) enum ClockCommand {
    /// Say what time it is by a watch you trust; if the hub's time agrees
    /// within 2 minutes, a clock in doubt is trusted again
    Confirm {
        /// Such as 2026-11-26T10:15, in this machine's time zone, or with an
        /// offset: 2026-11-26T10:15+01:00
        #[arg(value_name = "TIME", value_parser = super::clock::told)]
        time: u64,
    },
}

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Check a policy and sign it
    Sign {
        /// The private key (0600): 64 hex digits
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The policy as written (TOML)
        #[arg(value_name = "POLICY.toml")]
        policy: PathBuf,
        /// Where the signed policy goes
        out: PathBuf,
    },
    /// Check a policy, as written (TOML) or signed, and show what it allows
    Check {
        /// The policy
        file: PathBuf,
        /// A key to trust, 64 hex digits or a file that holds them, instead
        /// of those in hubd.toml; may be given again
        #[arg(long, value_name = "HEX|FILE")]
        key: Vec<String>,
    },
    /// What a policy permits and forbids, in French and in English, to be
    /// pinned to the wall of the shop
    Explain {
        /// The policy, as written (TOML) or signed
        file: PathBuf,
        /// A key to trust, as with `policy check`
        #[arg(long, value_name = "HEX|FILE")]
        key: Vec<String>,
    },
    /// Decide payments from a file under a policy, with the gateway gone and
    /// without any hub; with --json one object a line
    #[command(after_help = TRY)]
    Try {
        /// The policy, as written (TOML) or signed
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// The payments: one JSON object a line; "-" for standard input
        #[arg(long, value_name = "FILE.jsonl")]
        payments: PathBuf,
        /// A key to trust, as with `policy check`
        #[arg(long, value_name = "HEX|FILE")]
        key: Vec<String>,
    },
    /// What a policy would have decided of the payments in this shop's own
    /// ledger, in the hub's folder or a copied one; the hub may be running
    Rehearse {
        /// The policy, as written (TOML) or signed
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// From when on: so long ago, such as "30d" or "12h", or an instant
        #[arg(long, default_value = "30d", value_name = "TIME", value_parser = super::policy::since)]
        since: super::policy::Since,
        /// A key to trust, as with `policy check`
        #[arg(long, value_name = "HEX|FILE")]
        key: Vec<String>,
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        hub_key: Option<String>,
        /// The hub's vault key, to read what the ledger's entries say
        /// [default: keys/hub-vault.key in the hub's folder]
        #[arg(long, value_name = "FILE")]
        vault_key: Option<PathBuf>,
    },
    /// Put a signed policy in force
    Install {
        /// The signed policy
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum RootCommand {
    /// Make the file that is signed from a root as written (TOML);
    /// config/root.toml explains each key
    Init {
        /// The root as written
        #[arg(value_name = "ROOT.toml")]
        text: PathBuf,
        /// Where the root goes; must not be there yet
        out: PathBuf,
    },
    /// Add a signature to a root's file. Each holder of a root key does so on
    /// a machine of their own, and passes the file on
    Sign {
        /// The private key (0600): 64 hex digits
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The root before it: its holders sign too
        #[arg(long, value_name = "FILE")]
        before: Option<PathBuf>,
        /// The root
        file: PathBuf,
    },
    /// Show what a root says, and who has signed it
    Show {
        /// The root
        file: PathBuf,
        /// As TOML, from which the next root is written
        #[arg(long)]
        toml: bool,
    },
    /// Check roots that follow one another, oldest first: versions, and the
    /// thresholds of both. The first is taken as trusted
    Verify {
        /// The roots
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Put the next root in force, or several that follow one another, oldest
    /// first. The ledger says who did it
    Apply {
        /// The roots
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Check every entry, signature and link of the ledger
    Verify {
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
        /// A receipt that a device holds; may be given again. A ledger cut
        /// off below it does not verify
        #[arg(long, value_name = "FILE")]
        receipt: Vec<PathBuf>,
        #[command(flatten)]
        reading: Reading,
    },
    /// List the days that are over, or months or years, with what was done in
    /// them and since the beginning; each is held against the ledger's entries
    Closures {
        /// Of which period: day, month or year
        #[arg(long, value_name = "PERIOD", default_value = "day", value_parser = period)]
        period: Period,
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
        #[command(flatten)]
        reading: Reading,
    },
    /// Write out what can still be read of a damaged ledger, one JSON object
    /// an entry
    Salvage {
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
        /// The hub's vault key, to decrypt what the entries say
        /// [default: keys/hub-vault.key in the hub's folder, if it can be read]
        #[arg(long, value_name = "FILE")]
        vault_key: Option<PathBuf>,
        /// A new file
        out: PathBuf,
    },
    /// Write out the keys of some entries, each of which opens that one entry
    /// and no other, for somebody who has a copy of the ledger. The hub writes
    /// down that this was done: at once, or at its next start
    Disclose(DiscloseArgs),
    /// Bring out what a hub that cannot go on has not sent, card data still
    /// sealed, for the payment service provider. Should it go on after all, it
    /// writes down that this was done
    Unsent(UnsentArgs),
    /// List, check, copy away and remove archives of the ledger
    Archive {
        #[command(subcommand)]
        command: Option<ArchiveCommand>,
    },
}

/// With what the encrypted contents of entries are read.
#[derive(Args)]
pub(super) struct Reading {
    /// The hub's vault key, to read what the entries say: without it everything
    /// else is checked
    /// [default: keys/hub-vault.key in the hub's folder, if it can be read]
    #[arg(long, value_name = "FILE")]
    pub(super) vault_key: Option<PathBuf>,
    /// Keys that `ledger disclose` wrote, instead: those entries are read
    #[arg(long, value_name = "FILE", conflicts_with = "vault_key")]
    pub(super) disclosed: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct DiscloseArgs {
    /// Entries about this payment; may be given again
    #[arg(long, value_name = "ID")]
    pub(super) payment: Vec<String>,
    /// Entries from this one on
    #[arg(long, value_name = "ENTRY")]
    pub(super) from: Option<u64>,
    /// Entries up to this one
    #[arg(long, value_name = "ENTRY")]
    pub(super) to: Option<u64>,
    /// All entries, if neither payments nor a range are named
    #[arg(long, conflicts_with_all = ["payment", "from", "to"])]
    pub(super) all: bool,
    /// The hub's public key, 64 hex digits or a file that holds them
    /// [default: hub-signing.pub in the hub's folder]
    #[arg(long, value_name = "HEX|FILE")]
    pub(super) key: Option<String>,
    /// The hub's vault key
    /// [default: keys/hub-vault.key in the hub's folder]
    #[arg(long, value_name = "FILE")]
    pub(super) vault_key: Option<PathBuf>,
    /// A new file: one JSON object an entry
    pub(super) out: PathBuf,
}

#[derive(Args)]
pub(super) struct UnsentArgs {
    /// The store's id at the payment service provider
    /// [default: the one in the folder's hubd.toml]
    #[arg(long, value_name = "ID")]
    pub(super) store_id: Option<String>,
    /// The hub's public key, 64 hex digits or a file that holds them
    /// [default: hub-signing.pub in the hub's folder]
    #[arg(long, value_name = "HEX|FILE")]
    pub(super) key: Option<String>,
    /// A new file (0600): one JSON object a payment
    pub(super) out: PathBuf,
}

#[derive(Subcommand)]
pub(super) enum ArchiveCommand {
    /// List archives, those too that are elsewhere
    List {
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
    },
    /// Check archives alone, each by the manifest beside it, and that they
    /// follow one another
    Verify {
        /// The hub's public key, 64 hex digits or a file that holds them
        /// [default: hub-signing.pub in the hub's folder]
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
        /// The hub's vault key: amounts in manifests are then held against
        /// the entries too
        /// [default: keys/hub-vault.key in the hub's folder, if it can be read]
        #[arg(long, value_name = "FILE")]
        vault_key: Option<PathBuf>,
        /// The archives (.seg.gz), oldest first
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Copy archives that were not copied yet into a folder, check the copies,
    /// and have the hub write that down
    Export {
        /// An existing folder, on another disk; each hub has its own in it
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        /// Copy all that are here, also those that were copied before
        #[arg(long)]
        all: bool,
    },
    /// Remove archives that were copied away from the hub's disk
    Remove {
        /// Up to this one [default: the last that was copied away]
        #[arg(long, value_name = "NUMBER")]
        through: Option<u32>,
    },
}

impl Cli {
    /// Finds the hub's socket and connects.
    /// Connects to the hub of this folder; `None`: none is running, or the
    /// folder is not a hub's, but a copy of a ledger.
    pub(super) fn connect_if_running(&self) -> Result<Option<Client>, Failure> {
        if self.socket.is_none() && !Layout::new(&self.dir).config.exists() {
            return Ok(None);
        }
        Client::connect_if_running(&self.admin_socket()?)
    }

    pub(super) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.admin_socket()?)
    }

    fn admin_socket(&self) -> Result<PathBuf, Failure> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => Config::admin_socket(&self.dir).map_err(|fault| {
                Failure::Config(format!(
                    "{fault}; name the hub's folder by --dir, or its --socket"
                ))
            }),
        }
    }
}

fn period(text: &str) -> Result<Period, String> {
    text.parse().map_err(|_| "day, month or year expected".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| (1..=MAX_QUEUE_LIMIT).contains(limit))
        .ok_or_else(|| format!("a whole number from 1 to {MAX_QUEUE_LIMIT} expected"))
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "a duration such as \"90s\" or \"10m\" expected".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_and_dir_may_stand_anywhere() {
        for line in [
            "hubctl --json --dir /d status",
            "hubctl status --json --dir /d",
            "hubctl queue --json list --dir /d",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.json && cli.dir == std::path::Path::new("/d"), "{line}");
        }
    }
}
