//! A single device by hand: `sim-devices device --identity DIR …`.
//!
//! Its keys, its enrolment, its counter and the payment that is under way are
//! kept in the folder, so that a device that was stopped in the middle of a
//! payment asks again with the same bytes when it is started again.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    Answer, AttestationResult, AttestationStatus, CardScheme, Cryptogram, Currency, DeviceClass, DeviceId,
    EnrolmentCode, EntryMode, Funding, KeyId, PaymentId, RefusalCode, Request, Terms, Verification, cbor,
    frame,
};
use hub_sdk::{
    ClientOptions, Description, DeviceClient, DeviceIdentity, DiscoveryOptions, Enrolled, PreparedPayment,
};
use serde_json::json;

use crate::card_data;
use crate::sale;

pub mod allowance;

/// The payment that is under way.
const PENDING: &str = "pending.payment";

/// The next number of the device's requests.
const SEQUENCE: &str = "next-sequence";

/// How long the hub may be silent before a person is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a device is used.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Its folder.
    pub identity: PathBuf,
    /// Interfaces for mDNS; empty for the usual ones.
    pub interfaces: Vec<String>,
    /// Whether mDNS is used at all.
    pub discovery: bool,
    /// Addresses of the hub beside those in the enrolment.
    pub addresses: Vec<SocketAddr>,
    /// How long one answer is waited for before asking again.
    pub request_timeout: Duration,
    /// How long to go on asking.
    pub give_up_after: Duration,
}

/// What is paid.
#[derive(Clone, Debug)]
pub struct PayOptions {
    /// In minor units.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: Currency,
    /// The card.
    pub token: String,
    /// Its scheme.
    pub scheme: CardScheme,
    /// How it is funded.
    pub funding: Funding,
    /// How it is read.
    pub entry_mode: EntryMode,
    /// How the holder is verified.
    pub verification: Verification,
    /// What the card answers.
    pub cryptogram: Cryptogram,
    /// What wire version 3 says beside it.
    pub terms: Option<Terms>,
    /// The seed of a supervisor's key, who lets the payments pass lower limits.
    pub supervisor: Option<[u8; 32]>,
    /// What the card is sealed to; `None`: as a reader's.
    pub card_key: Option<hub_sdk::CardKey>,
    /// How many payments.
    pub count: u64,
    /// From the beginning of one to the beginning of the next, at least.
    pub every: Duration,
}

/// Enrols the device with a code, making its keys first if it has none.
pub async fn enrol(options: &DeviceOptions, code: &str, class: DeviceClass, name: &str) -> Result<()> {
    let code: EnrolmentCode = code.parse()?;
    let dir = &options.identity;
    let identity = match DeviceIdentity::load(dir) {
        Ok(identity) => identity,
        Err(_) if !dir.join("device-tls.key").exists() => {
            let identity = DeviceIdentity::generate()?;
            identity.save(dir)?;
            identity
        }
        Err(error) => return Err(error.into()),
    };
    let enrolled = hub_sdk::enrol(&identity, &code, class, name, "sim-devices").await?;
    enrolled.save(dir)?;
    print(&json!({
        "enrolled": name,
        "device": identity.device_id().to_string(),
        "hub": enrolled.hub.to_string(),
        "addresses": enrolled.addresses,
        "pending": is_pending(options).await,
    }))
}

/// Whether the device waits to be approved, as one does that enrolled by a
/// code for several; `None` if the hub did not say.
async fn is_pending(options: &DeviceOptions) -> Option<bool> {
    let client = client(options).ok()?;
    // Of no payment: the answer is that there is none, or that this device may
    // not ask yet.
    let payment_id = PaymentId([0; 16]);
    let asked = frame::to_wire(&Request::Status { payment_id });
    let answer = client.send_raw(&asked).await;
    client.close().await;
    match answer {
        Ok(Answer::Refused { refusal }) => Some(refusal.code == RefusalCode::DevicePending),
        _ => None,
    }
}

/// Tells the hub what the device is.
pub async fn describe(options: &DeviceOptions, what: Description, attestation: Option<&Path>) -> Result<()> {
    let client = opened(options).await?;
    let attestation = attestation
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .transpose()?;
    let attested = client.describe(what, attestation).await?;
    print(&json!({ "described": client.device_id().to_string(), "attested": attested }))
}

/// Changes the device's keys.
pub async fn rotate_keys(options: &DeviceOptions) -> Result<()> {
    let client = client(options)?.rotate_keys(&options.identity).await?;
    // The first connection with the new key ends what the old one is good for.
    client.hello().await?;
    print(&json!({
        "device": client.device_id().to_string(),
        "keys": "changed",
        "signs_with": client.signs_with().to_string(),
    }))?;
    client.close().await;
    Ok(())
}

/// Writes a verifier's signed word on a device to standard output, while that
/// signs with the key of this id, or has the keys that it was enrolled with.
pub fn attest(
    key: &Path,
    (device, signs_with): (DeviceId, Option<KeyId>),
    status: AttestationStatus,
    age_minutes: u64,
) -> Result<()> {
    let key = SigningKey::from_bytes(&seed(key)?);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let issued_s = now.as_secs().saturating_sub(age_minutes * 60);
    let result = AttestationResult::new(device, issued_s, status);
    let result = signs_with.map_or(result, |key| result.signing_with(key));
    let signed = cose::sign(&key, result.object_type(), &cbor::encode(&result));
    let mut out = std::io::stdout().lock();
    out.write_all(&signed)?;
    Ok(out.flush()?)
}

/// Lists the hubs that mDNS shows.
pub async fn find(options: &DeviceOptions, timeout: Duration) -> Result<()> {
    let interfaces = options.interfaces.clone();
    let hubs = hub_sdk::find_hubs(&DiscoveryOptions { interfaces, timeout }).await?;
    for hub in &hubs {
        print(&json!({ "hub": hub.hub_short, "addresses": hub.addresses }))?;
    }
    if hubs.is_empty() {
        bail!("no hub was found within {timeout:?}");
    }
    Ok(())
}

/// Pays, one JSON line an answer. A payment that an earlier run left under
/// way is asked for again first.
pub async fn pay(options: &DeviceOptions, pay: &PayOptions) -> Result<()> {
    let client = opened(options).await?;
    if let Some(left) = pending(&options.identity)? {
        ask(options, &client, &left).await?;
    }
    for number in 0..pay.count {
        let began = Instant::now();
        let payment = prepare(options, &client, pay)?;
        ask(options, &client, &payment).await?;
        if number + 1 < pay.count {
            tokio::time::sleep(pay.every.saturating_sub(began.elapsed())).await;
        }
    }
    client.close().await;
    Ok(())
}

/// Where a payment stands.
pub async fn status(options: &DeviceOptions, payment_id: PaymentId) -> Result<()> {
    let client = opened(options).await?;
    let (status, receipt) = client.status(payment_id).await?;
    print(&json!({
        "payment_id": payment_id.to_string(),
        "state": status.status.state.name(),
        "decision": receipt.as_ref().map(|r| r.receipt.decision.name()),
        "receipt": receipt.map(|r| STANDARD.encode(r.proof)),
    }))?;
    client.close().await;
    Ok(())
}

/// Voids a payment.
pub async fn void(options: &DeviceOptions, payment_id: PaymentId) -> Result<()> {
    let client = opened(options).await?;
    let voided = client.void(payment_id).await;
    // The number is used up, whatever came of it.
    save_sequence(&options.identity, &client)?;
    let status = voided?;
    print(&json!({ "payment_id": payment_id.to_string(), "state": status.status.state.name() }))?;
    client.close().await;
    Ok(())
}

fn enrol_first(options: &DeviceOptions) -> String {
    let dir = options.identity.display();
    format!("enrol this device first: sim-devices device --identity {dir} enrol CODE")
}

fn identity(options: &DeviceOptions) -> Result<DeviceIdentity> {
    DeviceIdentity::load(&options.identity).with_context(|| enrol_first(options))
}

/// The device as it is in its folder. The hub is not asked.
fn client(options: &DeviceOptions) -> Result<DeviceClient> {
    let identity = identity(options)?;
    let enrolled = Enrolled::load(&options.identity).with_context(|| enrol_first(options))?;
    Ok(DeviceClient::new(identity, enrolled, client_options(options)?)?)
}

/// The same, after a change of its keys that was cut off has been carried on.
async fn opened(options: &DeviceOptions) -> Result<DeviceClient> {
    let asked = client_options(options)?;
    let opened = DeviceClient::open(&options.identity, asked).await;
    opened.with_context(|| enrol_first(options))
}

fn client_options(options: &DeviceOptions) -> Result<ClientOptions> {
    let dir = &options.identity;
    let next_sequence = match std::fs::read_to_string(dir.join(SEQUENCE)) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("{SEQUENCE} is damaged"))?,
        Err(_) => 1,
    };
    let discovery = options.discovery.then(|| DiscoveryOptions {
        interfaces: options.interfaces.clone(),
        timeout: Duration::from_secs(3),
    });
    Ok(ClientOptions {
        static_addresses: options.addresses.clone(),
        discovery,
        request_timeout: options.request_timeout,
        give_up_after: options.give_up_after,
        app: "sim-devices device".to_owned(),
        next_sequence,
        ..ClientOptions::default()
    })
}

/// The seed of an Ed25519 key, 64 hexadecimal digits, from a file.
pub fn seed(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let seed = data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .ok();
    seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok())
        .with_context(|| format!("{}: 64 hexadecimal digits expected", path.display()))
}

fn prepare(options: &DeviceOptions, client: &DeviceClient, pay: &PayOptions) -> Result<PreparedPayment> {
    let order_id = format!("D{}", client.next_sequence());
    let sale = hub_sdk::Sale {
        amount_minor: pay.amount_minor,
        currency: pay.currency,
        card: hub_protocol::CardFacts {
            scheme: pay.scheme,
            funding: pay.funding,
            ..sale::card(1, pay.token.clone())
        },
        entry_mode: pay.entry_mode,
        verification: pay.verification,
        cryptogram: pay.cryptogram,
        sealed_card: card_data::of(&order_id, pay.card_key.as_ref())?,
        order_id,
        terms: pay.terms.clone(),
    };
    let payment = match &pay.supervisor {
        Some(seed) => client.next_payment_overridden(sale, |asked| {
            let key = SigningKey::from_bytes(seed);
            cose::sign(&key, ObjectType::Override, &cbor::encode(asked))
        }),
        None => client.next_payment(sale),
    };
    // Both before the first send: what was sent is never made anew.
    save_sequence(&options.identity, client)?;
    let path = options.identity.join(PENDING);
    write_whole(&path, &payment.to_bytes())?;
    Ok(payment)
}

async fn ask(options: &DeviceOptions, client: &DeviceClient, payment: &PreparedPayment) -> Result<()> {
    let began = Instant::now();
    let answer = saying_that_it_waits(options, client.pay(payment)).await;
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut line = json!({
        "payment_id": payment.payment_id().to_string(),
        "order_id": payment.request().order_id,
        "amount_minor": payment.request().amount_minor(),
        "ms": millis,
        "hub_address": client.connected_to().await,
    });
    match answer {
        Ok(verified) => {
            let receipt = &verified.receipt;
            line["decision"] = json!(receipt.decision.name());
            line["reason"] = json!(receipt.reason.name());
            line["reason_fr"] = json!(receipt.reason.text_fr());
            line["reason_en"] = json!(receipt.reason.text_en());
            line["fallback"] = json!(receipt.fallback.map(|f| f.name()));
            line["sequence"] = json!(receipt.sequence);
            line["entry_digest"] = json!(receipt.entry_digest.to_string());
            line["decided_ms"] = json!(receipt.time.wall_ms);
            // As sent: what `hubctl ledger verify --receipt` takes.
            line["receipt"] = json!(STANDARD.encode(&verified.proof));
        }
        // Without an answer the payment stays under way.
        Err(error) if error.transient() => {
            line["no_answer"] = json!(error.to_string());
            print(&line)?;
            bail!("no answer; start again to ask for the same payment again");
        }
        Err(error) => {
            line["refused"] = json!(error.refusal_code().map(|code| code.number()));
            line["text"] = json!(error.to_string());
        }
    }
    forget_pending(&options.identity)?;
    print(&line)
}

/// A person at the keyboard is told, once, that the hub has not answered yet.
async fn saying_that_it_waits<T>(options: &DeviceOptions, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    // Only for people; that it cannot be told changes nothing.
    let _ = writeln!(
        std::io::stderr(),
        "no answer from the hub yet; asking again for up to {} s",
        options.give_up_after.as_secs()
    );
    answer.await
}

fn pending(dir: &Path) -> Result<Option<PreparedPayment>> {
    let path = dir.join(PENDING);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let payment = PreparedPayment::from_bytes(&bytes);
            Ok(Some(
                payment.with_context(|| format!("{} is damaged", path.display()))?,
            ))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn forget_pending(dir: &Path) -> Result<()> {
    let path = dir.join(PENDING);
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn save_sequence(dir: &Path, client: &DeviceClient) -> Result<()> {
    write_whole(&dir.join(SEQUENCE), client.next_sequence().to_string().as_bytes())
}

/// Whole or not at all, and on disk before the next step.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = (|| {
        let draft = path.with_extension("new");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn print(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
