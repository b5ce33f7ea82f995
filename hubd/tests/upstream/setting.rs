//! A gateway, a client, and payments to try them with.

use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_core::{AttemptId, Forward, GatewayAnswer, Operation};
use hub_protocol::cose::{ObjectType, sign};
use hub_protocol::{
    CardBinding, CardFacts, CardScheme, Cryptogram, Currency, DeviceId, EntryMode, Funding, GatewayResult,
    PaymentId, PaymentRequest, SealedCard, Terms, Verification, cbor,
};
use hubd::upstream::{Gateway, Settings};
use sim_devices::gateway::{Faults, Gateway as Simulated, GatewayOptions, RunningGateway};
use tempfile::TempDir;

/// Longer than anything here takes; only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A deadline for answers that come.
pub(crate) const ENOUGH_MS: u64 = 15_000;

/// A deadline for answers that do not.
pub(crate) const SHORT_MS: u64 = 300;

pub(crate) struct Setting {
    pub(crate) dir: TempDir,
    pub(crate) gateway: RunningGateway,
    pub(crate) client: Gateway,
}

pub(crate) async fn setting() -> Setting {
    with(Faults::default()).await
}

pub(crate) async fn with(faults: Faults) -> Setting {
    let dir = tempfile::tempdir().unwrap();
    let options = GatewayOptions {
        faults,
        ..GatewayOptions::new(dir.path())
    };
    let gateway = Simulated::start(options).await.unwrap();
    let client = client(&gateway, gateway.url());
    Setting { dir, gateway, client }
}

pub(crate) fn settings(ca_file: PathBuf, credential: &str, url: String) -> Settings {
    Settings {
        url,
        ca_file: Some(ca_file),
        credential: Some(credential.to_owned()),
        store_id: "shop-001".to_owned(),
        max_in_flight: 2,
        probe_timeout: Duration::from_millis(SHORT_MS),
    }
}

pub(crate) fn client(gateway: &RunningGateway, url: String) -> Gateway {
    Gateway::new(settings(gateway.ca_pem_path(), gateway.credential(), url)).unwrap()
}

/// A payment as the ledger would hold it.
#[derive(Clone)]
pub(crate) struct Sale {
    pub(crate) request: PaymentRequest,
    pub(crate) signed: Vec<u8>,
    pub(crate) card: SealedCard,
}

impl Sale {
    pub(crate) fn new(number: u8) -> Self {
        Self::of(
            number,
            1000 + u64::from(number),
            "tok_abc",
            Cryptogram::AsksOnline,
        )
    }

    pub(crate) fn of(number: u8, amount: u64, token: &str, cryptogram: Cryptogram) -> Self {
        let card = SealedCard {
            salt: [number; 16],
            blob: vec![number; 100],
        };
        let request = PaymentRequest {
            payment_id: PaymentId([number; 16]),
            device_sequence: 1,
            amount: amount.into(),
            currency: Currency::EUR,
            order_id: format!("order-{number}"),
            card: CardFacts {
                token: token.to_owned(),
                scheme: CardScheme::Cb,
                funding: Funding::Debit,
                issuer_country: Some("FR".to_owned()),
                bin: None,
                last4: Some("1234".to_owned()),
            },
            entry_mode: EntryMode::Contactless,
            verification: Verification::None,
            cryptogram,
            sealed_card_digest: card.digest(),
            device_time_ms: 1_790_000_000_000,
            terms: None,
        };
        let signed = sign(
            &SigningKey::from_bytes(&[7; 32]),
            ObjectType::PaymentRequest,
            &cbor::encode(&request),
        );
        Self {
            request,
            signed,
            card,
        }
    }

    /// The same as a payment that states terms.
    pub(crate) fn stating(self, terms: Terms) -> Self {
        let request = PaymentRequest {
            terms: Some(Box::new(terms)),
            ..self.request
        };
        let key = SigningKey::from_bytes(&[7; 32]);
        Self {
            signed: sign(&key, request.object_type(), &cbor::encode(&request)),
            request,
            card: self.card,
        }
    }

    /// The same with its card sealed to a gateway's key, for this payment.
    pub(crate) fn sealed_to(self, key: &hub_sdk::CardKey) -> Self {
        let binding = CardBinding {
            payment_id: self.request.payment_id,
            amount_minor: self.request.amount_minor(),
            currency: self.request.currency,
            merchant: String::new(),
        };
        let blob = key
            .seal(b"made-up card data", binding, [self.card.salt[0]; 32])
            .unwrap();
        let salt = self.card.salt;
        self.with_card(SealedCard { salt, blob })
    }

    /// The same with another card beside it, signed for.
    pub(crate) fn with_card(self, card: SealedCard) -> Self {
        let request = PaymentRequest {
            sealed_card_digest: card.digest(),
            ..self.request
        };
        let key = SigningKey::from_bytes(&[7; 32]);
        Self {
            signed: sign(&key, request.object_type(), &cbor::encode(&request)),
            request,
            card,
        }
    }

    pub(crate) fn id(&self) -> PaymentId {
        self.request.payment_id
    }

    pub(crate) fn forward(&self, operation: Operation, number: u32, deadline_ms: u64) -> Forward {
        Forward {
            attempt: AttemptId(1),
            payment_id: self.id(),
            operation,
            request_sequence: 1,
            device: DeviceId([1; 32]),
            decided_ms: 1_790_000_000_500,
            number,
            presentation: 1,
            maybe_sent: true,
            traces: hub_protocol::entry::TraceRule::Entry,
            deadline_ms,
        }
    }

    /// One attempt.
    pub(crate) async fn ask(&self, client: &Gateway, operation: Operation) -> GatewayAnswer {
        self.ask_within(client, operation, ENOUGH_MS).await
    }

    /// As many attempts as it takes while an earlier call about the payment is
    /// still being worked on.
    pub(crate) async fn ask_until_decided(&self, client: &Gateway, operation: Operation) -> GatewayResult {
        let asking = async {
            loop {
                match self.ask(client, operation).await {
                    GatewayAnswer::Pending { .. } => tokio::task::yield_now().await,
                    answer => return final_of(answer),
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .expect("the earlier call lets go of the payment")
    }

    pub(crate) async fn ask_within(
        &self,
        client: &Gateway,
        operation: Operation,
        deadline_ms: u64,
    ) -> GatewayAnswer {
        let forward = self.forward(operation, 1, deadline_ms);
        let attempt = client.submit(&forward, &self.signed, Some(&self.card));
        let (answer, _) = tokio::time::timeout(PATIENCE, attempt)
            .await
            .expect("an attempt ends at its deadline");
        answer
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

/// Waits for what other tasks do.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "never came: {what}"
    );
}
