//! A busy hub that has been offline for hours, for benchmarks: the policy with
//! every key, many devices, many cards with something at risk, and an index
//! that takes what the core lets go.
#![allow(dead_code, clippy::expect_used, clippy::panic, unreachable_pub)]
// Each benchmark is a crate of its own and uses a part of this.

use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::state::State;
use hub_core::{Core, Effect, Input, Now, Probe, Settings, Ticket};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, DeviceClass, DeviceId, EntryMode, Funding, HubId, KeyId,
    PaymentId, PaymentRequest, Registration, SealedCard, Verification, cbor,
};

const POLICY: &str = include_str!("../../../../config/policies/everything.toml");

/// A morning in the policy's period.
const BEGIN_MS: u64 = 1_772_000_000_000;

/// From one payment to the next. 200 devices then stay below 10 payments in
/// 15 minutes each, as the policy wants it.
const EVERY_MS: u64 = 500;

/// How many devices the shop has.
pub const DEVICES: u64 = 200;

/// Payments are handed to the index in groups, as the hub does.
const GROUP: u64 = 256;

pub struct Shop {
    pub core: Core,
    pub now: Now,
    pub payments: u64,
    pub approved: u64,
    key: SigningKey,
}

/// All rules stay; sums, counts, hours and what a score may be are raised until 100,000 cards can have
/// something at risk.
fn policy() -> String {
    let raised = [
        ("longest_minutes = 240 ", "longest_minutes = 43200 "),
        ("oldest_unsent_minutes = 720 ", "oldest_unsent_minutes = 43200 "),
        ("exposure_ceiling = 300000 ", "exposure_ceiling = 999999999999 "),
        ("consecutive_limit = 300 ", "consecutive_limit = 1000000 "),
        (
            "consecutive_lower_limit = 200 ",
            "consecutive_lower_limit = 1000000 ",
        ),
        (
            "device_exposure_ceiling = 100000\n",
            "device_exposure_ceiling = 999999999\n",
        ),
        (
            "device_exposure_ceiling = 50000\n",
            "device_exposure_ceiling = 999999999\n",
        ),
        (
            "device_exposure_ceiling = 150000\n",
            "device_exposure_ceiling = 999999999\n",
        ),
        (
            "device_consecutive_limit = 60\n",
            "device_consecutive_limit = 1000000\n",
        ),
        (
            "device_consecutive_limit = 30\n",
            "device_consecutive_limit = 1000000\n",
        ),
        (
            "device_consecutive_limit = 80\n",
            "device_consecutive_limit = 1000000\n",
        ),
        (
            "device_consecutive_lower_limit = 40\n",
            "device_consecutive_lower_limit = 1000000\n",
        ),
        (
            "device_consecutive_lower_limit = 20\n",
            "device_consecutive_lower_limit = 1000000\n",
        ),
        (
            "device_consecutive_lower_limit = 60\n",
            "device_consecutive_lower_limit = 1000000\n",
        ),
        (
            "\nexposure_ceiling = 100000\nconsecutive_limit = 80\nconsecutive_lower_limit = 60 ",
            "\nexposure_ceiling = 999999999\nconsecutive_limit = 1000000\nconsecutive_lower_limit = 1000000 ",
        ),
        // 100,000 payments take longer than a day's hours.
        ("08:30-20:30", "00:00-24:00"),
        ("08:30-22:00", "00:00-24:00"),
        ("09:00-13:00", "00:00-24:00"),
        ("verify_from = 50 ", "verify_from = 159 "),
        ("decline_from = 90 ", "decline_from = 160 "),
    ];
    // Nor do these devices describe themselves, as certified ones must.
    let (before, devices) = POLICY.split_once("[[model]]").expect("the sample has models");
    let (_, after) = devices.split_once("[[ceiling]]").expect("ceilings follow");
    let undescribed = format!("{before}[[ceiling]]{after}");
    raised.into_iter().fold(undescribed, |text, (signed, raised)| {
        assert!(text.contains(signed), "the sample has no {signed}");
        text.replace(signed, raised)
    })
}

impl Shop {
    /// Offline, with its devices, and room in memory for so many cards.
    pub fn offline(cards: usize) -> Self {
        let mut settings = Settings::new(HubId([7; 32]), "shop-001", Currency::EUR);
        settings.max_cards = cards;
        settings.max_remembered = 1_000;
        settings.queue_window = 1_024;
        let now = Now {
            wall_ms: BEGIN_MS,
            monotonic_ms: 1_000,
        };
        let offline_after = settings.wan.offline_after;
        let (core, _) = Core::start(settings, State::default(), 0, "bench", now);
        let mut shop = Self {
            core,
            now,
            payments: 0,
            approved: 0,
            key: SigningKey::from_bytes(&[9; 32]),
        };
        for number in 0..DEVICES {
            shop.input(Input::Enrol {
                ticket: Ticket(number),
                registration: Box::new(registration(number)),
            });
        }
        let text = policy();
        shop.input(Input::Activate {
            ticket: None,
            policy: Box::new(Policy::parse(text.as_bytes()).expect("the sample is a policy")),
            signed: cose::sign(&shop.key, ObjectType::Policy, text.as_bytes()),
            key: KeyId([50; 16]),
        });
        for _ in 0..offline_after {
            shop.input(Input::Probe(Probe {
                ok: false,
                latency_ms: 20,
                gateway_time_ms: None,
            }));
        }
        shop
    }

    /// So many cards more pay once each.
    pub fn sell(&mut self, cards: u64) {
        for _ in 0..cards {
            let pay = self.next_pay(self.payments);
            let effects = self.core.handle(pay, self.now);
            self.settle(&effects);
        }
        self.hand_over();
    }

    /// The next payment, of the card of this number.
    pub fn next_pay(&mut self, card: u64) -> Input {
        self.payments += 1;
        self.now.wall_ms += EVERY_MS;
        self.now.monotonic_ms += EVERY_MS;
        let (device, request) = request(self.payments, card, self.now.wall_ms);
        Input::Pay {
            ticket: Ticket(1_000 + self.payments),
            device,
            signed: cose::sign(&self.key, ObjectType::PaymentRequest, &cbor::encode(&request)),
            sealed_card: sealed_card(request.payment_id),
            request: Box::new(request),
            recalled: None,
        }
    }

    /// Flushes what a payment has written. True if it was approved.
    pub fn settle(&mut self, effects: &[Effect]) -> bool {
        let mut newest = None;
        let mut approved = false;
        for effect in effects {
            if let Effect::Append {
                sequence,
                sealed_card,
                ..
            } = effect
            {
                newest = Some(*sequence);
                approved |= sealed_card.is_some();
            }
        }
        self.approved += u64::from(approved);
        if let Some(sequence) = newest {
            self.core.handle(Input::Appended { sequence }, self.now);
        }
        if self.payments.is_multiple_of(GROUP) {
            self.hand_over();
        }
        approved
    }

    /// The index takes what has changed.
    pub fn hand_over(&mut self) {
        drop(self.core.state_mut().take_dirty());
        let head = self.core.state().head().sequence;
        self.core.indexed(head);
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.handle(input, self.now);
        self.settle(&effects);
    }
}

fn class(device: u64) -> DeviceClass {
    match device % 3 {
        0 => DeviceClass::Mpos,
        1 => DeviceClass::Softpos,
        _ => DeviceClass::Terminal,
    }
}

fn device(number: u64) -> DeviceId {
    let mut id = [0xd0; 32];
    // Detectors tell devices apart by the first bytes.
    id[..4].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_be_bytes());
    DeviceId(id)
}

fn registration(number: u64) -> Registration {
    Registration {
        device: device(number),
        signing_key: device(number).0,
        class: class(number),
        name: format!("Caisse {number}"),
        model: "bench".to_owned(),
        hub: HubId([7; 32]),
        hub_signing_key: [8; 32],
        enrolled_ms: BEGIN_MS,
    }
}

fn sealed_card(id: PaymentId) -> SealedCard {
    SealedCard {
        salt: [3; 16],
        blob: id.0.to_vec(),
    }
}

/// Amounts of 3,00 to 17,00 by tap, each card always at another device.
pub fn request(number: u64, card: u64, now_ms: u64) -> (DeviceId, PaymentRequest) {
    let mut id = [0xaa; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let id = PaymentId(id);
    let request = PaymentRequest {
        payment_id: id,
        device_sequence: 10 + number / DEVICES,
        amount: (300 + number * 7 % 1_400).into(),
        currency: Currency::EUR,
        order_id: format!("order-{number}"),
        card: CardFacts {
            token: format!("tok-{card}"),
            scheme: CardScheme::Visa,
            funding: Funding::Debit,
            issuer_country: Some("FR".to_owned()),
            bin: Some("453201".to_owned()),
            last4: Some("1234".to_owned()),
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::None,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card_digest: sealed_card(id).digest(),
        device_time_ms: now_ms,
        terms: None,
    };
    (device(number % DEVICES), request)
}
