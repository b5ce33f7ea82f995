//! Payments, certificates and a client to try them with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_core::{AttemptId, Forward, GatewayAnswer, Operation};
use hub_protocol::cose::{ObjectType, sign};
use hub_protocol::entry::TraceRule;
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, DeviceId, EntryMode, Funding, GatewayResult, PaymentId,
    PaymentRequest, SealedCard, Verification, cbor,
};
use hubd::iso8583::{Dialect, Identity};
use hubd::upstream::iso8583::{Acquirer, Settings, Stored};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Longer than anything here takes; only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A deadline for answers that come.
pub(crate) const ENOUGH_MS: u64 = 15_000;

/// A deadline for answers that do not.
pub(crate) const SHORT_MS: u64 = 300;

pub(crate) const DIALECTS: [&str; 3] = ["ascii", "bcd", "ebcdic"];

pub(crate) fn dialect(name: &str) -> Dialect {
    let path = format!("{}/../config/dialects/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    Dialect::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A CA, a certificate for 127.0.0.1 and one for a hub.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

pub(crate) fn certificates(dir: &Path) -> Certificates {
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "acquirer CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let ca_file = dir.join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let leaf = |name: &str, host: &str| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let files = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&files.0, leaf.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    };
    Certificates {
        server: leaf("server", "127.0.0.1"),
        client: leaf("client", "hub.example"),
        ca: ca_file,
    }
}

pub(crate) fn settings(dialect: Dialect, port: u16, certificates: &Certificates) -> Settings {
    Settings {
        host: "127.0.0.1".to_owned(),
        port,
        ca_file: Some(certificates.ca.clone()),
        client_certificate: None,
        dialect,
        identity: Identity {
            merchant_id: "SHOP-001".to_owned(),
            terminal_id: "HUB1".to_owned(),
            acquirer_id: Some("123456".to_owned()),
            time_zone: jiff::tz::TimeZone::UTC,
        },
        max_in_flight: 4,
        probe_timeout: PATIENCE,
        idle: PATIENCE,
        one_message: Duration::from_millis(SHORT_MS),
        pauses: (Duration::from_millis(5), Duration::from_millis(20)),
    }
}

/// A payment as the ledger would hold it.
#[derive(Clone)]
pub(crate) struct Sale {
    pub(crate) number: u8,
    pub(crate) amount: u64,
    signed: Vec<u8>,
    pub(crate) card: SealedCard,
}

impl Sale {
    pub(crate) fn new(number: u8) -> Self {
        Self::of(number, Cryptogram::AsksOnline)
    }

    pub(crate) fn of(number: u8, cryptogram: Cryptogram) -> Self {
        let card = SealedCard {
            salt: [number; 16],
            blob: vec![number; 100],
        };
        let amount = 1000 + u64::from(number);
        let request = PaymentRequest {
            payment_id: PaymentId([number; 16]),
            device_sequence: 1,
            amount: amount.into(),
            currency: Currency::EUR,
            order_id: format!("order-{number}"),
            card: CardFacts {
                token: "tok_abc".to_owned(),
                scheme: CardScheme::Cb,
                funding: Funding::Debit,
                issuer_country: None,
                bin: None,
                last4: None,
            },
            entry_mode: EntryMode::Contactless,
            verification: Verification::None,
            cryptogram,
            sealed_card_digest: card.digest(),
            device_time_ms: 1_790_000_000_000,
            terms: None,
        };
        let key = SigningKey::from_bytes(&[7; 32]);
        Self {
            number,
            amount,
            signed: sign(&key, ObjectType::PaymentRequest, &cbor::encode(&request)),
            card,
        }
    }

    /// The payment's id as the acquirer's book has it.
    pub(crate) fn id(&self) -> String {
        format!("{:02x}", self.number).repeat(16)
    }

    pub(crate) async fn ask(&self, client: &Acquirer, operation: Operation, number: u32) -> GatewayAnswer {
        self.ask_within(client, operation, number, ENOUGH_MS).await
    }

    pub(crate) async fn ask_within(
        &self,
        client: &Acquirer,
        operation: Operation,
        number: u32,
        deadline_ms: u64,
    ) -> GatewayAnswer {
        let forward = Forward {
            attempt: AttemptId(1),
            payment_id: PaymentId([self.number; 16]),
            operation,
            request_sequence: u64::from(self.number),
            device: DeviceId([1; 32]),
            decided_ms: 1_790_000_000_500,
            number,
            presentation: 1,
            maybe_sent: false,
            traces: TraceRule::Entry,
            deadline_ms,
        };
        let stored = Stored {
            signed_request: &self.signed,
            requested_ms: 1_790_000_000_000,
            sealed_card: (operation != Operation::Reverse).then_some(&self.card),
        };
        let attempt = client.submit(&forward, &stored);
        let (answer, _) = tokio::time::timeout(PATIENCE, attempt)
            .await
            .expect("an attempt ends at its deadline");
        answer
    }

    /// As many attempts as it takes until the line is there again.
    pub(crate) async fn ask_until_final(&self, client: &Acquirer, operation: Operation) -> GatewayResult {
        let asking = async {
            for number in 2.. {
                match self.ask(client, operation, number).await {
                    GatewayAnswer::Final(result) => return result,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
            unreachable!("the numbers do not end")
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .expect("the line comes back")
    }
}

pub(crate) fn final_of(answer: GatewayAnswer) -> GatewayResult {
    match answer {
        GatewayAnswer::Final(result) => result,
        other => panic!("not final: {other:?}"),
    }
}

pub(crate) fn is_no_answer(answer: &GatewayAnswer) -> bool {
    matches!(answer, GatewayAnswer::NoAnswer { .. })
}
