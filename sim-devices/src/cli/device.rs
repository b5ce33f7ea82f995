//! `sim-devices device` and `sim-devices attest`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hub_protocol::{
    AttestationStatus, CardExpiry, CardScheme, Certification, Cryptogram, Currency, DeviceClass, DeviceId,
    EntryMode, Funding, KeyId, PaymentId, Terms, TransactionType, Verification, Version,
};
use hub_sdk::Description;
use sim_devices::device::{self, DeviceOptions, PayOptions, allowance};

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// The device's folder: keys, enrolment, counter, the payment under way, the allowance
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// A network interface for mDNS; may be given again
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Do not use mDNS
    #[arg(long)]
    no_discovery: bool,
    /// An address of the hub beside those of the enrolment; may be given again
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Vec<SocketAddr>,
    /// Milliseconds to wait for one answer before asking again
    #[arg(long, default_value_t = 3000)]
    request_timeout_ms: u64,
    /// Seconds to go on asking
    #[arg(long, default_value_t = 60)]
    give_up_after: u64,
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// List the hubs that mDNS shows
    Find {
        /// Seconds to look
        #[arg(long, default_value_t = 5)]
        timeout: u64,
    },
    /// Enrol with the code that `hubctl enrol` shows
    Enrol {
        /// The code
        code: String,
        /// mpos, softpos or terminal
        #[arg(long, default_value = "terminal")]
        class: DeviceClass,
        /// What people call the device
        #[arg(long, default_value = "Caisse 1")]
        name: String,
    },
    /// Say what this device is, with a verifier's word on it
    Describe(DescribeArgs),
    /// Pay; one JSON line an answer
    Pay(PayArgs),
    /// What this device may approve while it cannot reach the hub
    Allowance {
        #[command(subcommand)]
        command: AllowanceCommand,
    },
    /// Tell the hub of every payment approved under the allowance
    Sync,
    /// Change the device's keys; it stays the same device
    RotateKeys,
    /// Where does a payment stand?
    Status {
        /// Its id
        payment_id: PaymentId,
    },
    /// Void a payment
    Void {
        /// Its id
        payment_id: PaymentId,
    },
}

#[derive(Debug, Subcommand)]
enum AllowanceCommand {
    /// Ask the hub for one, or for the one again that is open
    Ask,
    /// Show what is left of it, and what the hub has not been told; without the hub
    Show,
    /// Give back what is left; nothing is approved under it from here on
    Return,
}

#[derive(Debug, Args)]
struct DescribeArgs {
    /// Who makes the device
    #[arg(long)]
    vendor: String,
    /// Its model
    #[arg(long)]
    model: String,
    /// Its operating system
    #[arg(long, default_value = "Android")]
    os: String,
    /// And that one's version
    #[arg(long, default_value = "14")]
    os_version: Version,
    /// The version of the payment app
    #[arg(long, default_value = "1.0")]
    app_version: Version,
    /// none, pts, cpoc, cpoc-pin, spoc, mpoc
    #[arg(long, default_value = "none")]
    certification: Certification,
    /// A verifier's word, as `sim-devices attest` gives it
    #[arg(long, value_name = "FILE")]
    attestation: Option<PathBuf>,
}

impl DescribeArgs {
    fn description(&self) -> Description {
        Description {
            vendor: self.vendor.clone(),
            model: self.model.clone(),
            os: self.os.clone(),
            os_version: self.os_version,
            app_version: self.app_version,
            certification: self.certification,
        }
    }
}

/// A verifier of devices, played.
#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// The verifier's private key, as `hubctl keygen` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The device's identity, 64 hexadecimal digits
    #[arg(long)]
    device: DeviceId,
    /// The id of the key that the device signs with, 32 hexadecimal digits: once it has changed its keys
    #[arg(long, value_name = "KEY")]
    signs_with: Option<KeyId>,
    /// none, affirming, warning, contraindicated
    #[arg(long, default_value = "affirming")]
    status: AttestationStatus,
    /// Minutes since the word was given
    #[arg(long, default_value_t = 0)]
    age_minutes: u64,
}

impl AttestArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let of = (self.device, self.signs_with);
        device::attest(&self.key, of, self.status, self.age_minutes)
    }
}

#[derive(Debug, Args)]
struct PayArgs {
    /// In minor units
    #[arg(long)]
    amount: u64,
    /// ISO 4217
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// The card's token
    #[arg(long, default_value = "tok-sim")]
    card: String,
    /// cb, visa, mastercard, …
    #[arg(long, default_value = "cb")]
    scheme: CardScheme,
    /// debit, credit, deferred-debit, prepaid
    #[arg(long, default_value = "debit")]
    funding: Funding,
    /// chip, contactless, magnetic-stripe, keyed
    #[arg(long, default_value = "chip")]
    entry_mode: EntryMode,
    /// none, signature, offline-pin, online-pin, cdcvm
    #[arg(long, default_value = "offline-pin")]
    verification: Verification,
    /// card-approved, asks-online, refused
    #[arg(long, default_value = "asks-online")]
    cryptogram: Cryptogram,
    /// sale, refund, cash-back
    #[arg(long)]
    transaction_type: Option<TransactionType>,
    /// The cash handed out, in minor units: part of the amount
    #[arg(long)]
    cash_back: Option<u64>,
    /// The member of staff at the device
    #[arg(long)]
    staff: Option<String>,
    /// Somebody practises: nothing is charged
    #[arg(long)]
    training: bool,
    /// The card's last month: year and month, such as 2711
    #[arg(long)]
    expiry: Option<CardExpiry>,
    /// A supervisor's key, who lets the payments pass lower limits: a file with
    /// the Ed25519 seed, 64 hexadecimal digits
    #[arg(long)]
    supervisor: Option<PathBuf>,
    /// What the gateway gave for devices to seal cards to: its card-key.json
    #[arg(long, value_name = "FILE")]
    card_key: Option<PathBuf>,
    /// The store's id at the gateway, which sealed cards are bound to
    #[arg(long, default_value = "shop-001")]
    merchant: String,
    /// Approve by itself, under the allowance, without asking the hub
    #[arg(long)]
    under_allowance: bool,
    /// How many payments
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Milliseconds from one to the next, at least
    #[arg(long, default_value_t = 0)]
    every_ms: u64,
    /// Answers are always JSON lines; accepted for symmetry
    #[arg(long)]
    json: bool,
}

impl DeviceArgs {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let options = DeviceOptions {
            identity: self.identity.clone(),
            interfaces: self.interface.clone(),
            discovery: !self.no_discovery,
            addresses: self.address.clone(),
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            give_up_after: Duration::from_secs(self.give_up_after),
        };
        match &self.command {
            DeviceCommand::Find { timeout } => device::find(&options, Duration::from_secs(*timeout)).await,
            DeviceCommand::Enrol { code, class, name } => device::enrol(&options, code, *class, name).await,
            DeviceCommand::Describe(args) => {
                device::describe(&options, args.description(), args.attestation.as_deref()).await
            }
            DeviceCommand::Pay(args) if args.under_allowance => {
                allowance::pay(&options, &args.options()?).await
            }
            DeviceCommand::Pay(args) => device::pay(&options, &args.options()?).await,
            DeviceCommand::Allowance { command } => match command {
                AllowanceCommand::Ask => allowance::ask(&options).await,
                AllowanceCommand::Show => allowance::show(&options),
                AllowanceCommand::Return => allowance::give_back(&options).await,
            },
            DeviceCommand::Sync => allowance::sync(&options).await,
            DeviceCommand::RotateKeys => device::rotate_keys(&options).await,
            DeviceCommand::Status { payment_id } => device::status(&options, *payment_id).await,
            DeviceCommand::Void { payment_id } => device::void(&options, *payment_id).await,
        }
    }
}

impl PayArgs {
    fn options(&self) -> anyhow::Result<PayOptions> {
        Ok(PayOptions {
            terms: self.terms(),
            supervisor: self.supervisor.as_deref().map(device::seed).transpose()?,
            amount_minor: self.amount,
            currency: self.currency,
            token: self.card.clone(),
            scheme: self.scheme,
            funding: self.funding,
            entry_mode: self.entry_mode,
            verification: self.verification,
            cryptogram: self.cryptogram,
            card_key: self
                .card_key
                .as_deref()
                .map(|file| sim_devices::card_data::card_key(file, &self.merchant))
                .transpose()?,
            count: self.count,
            every: Duration::from_millis(self.every_ms),
        })
    }

    /// Older hubs take payments without.
    fn terms(&self) -> Option<Terms> {
        let stated = self.transaction_type.is_some()
            || self.cash_back.is_some()
            || self.staff.is_some()
            || self.training
            || self.expiry.is_some();
        stated.then(|| Terms {
            cash_back_minor: self.cash_back,
            staff: self.staff.clone(),
            training: self.training,
            card_expiry: self.expiry,
            ..Terms::of(self.transaction_type.unwrap_or(TransactionType::Sale))
        })
    }
}
