//! The real core in virtual time, with a disk that flushes at once and a
//! gateway that answers at once while the line is up.

use hub_core::policy::Policy;
use hub_core::state::State;
use hub_core::{Core, Effect, GatewayAnswer, Input, Now, Operation, Probe, Settings, Ticket};
use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, Currency, Decision, DeviceClass, DeviceId, GatewayResult, Reason, Restriction,
    TransactionType,
};

use crate::limits::POLICY_KEY;
use crate::rng::Rng;
use crate::wire::{self, PayMessage};

/// Cards that the bank declines online, per 1,000; assumed.
const BANK_DECLINES: u64 = 12;

/// The device of this number. Detectors tell devices apart by the first bytes
/// of their ids, which are hashes.
pub(super) fn device_id(place: usize) -> DeviceId {
    DeviceId([u8::try_from(place + 1).unwrap_or(u8::MAX); 32])
}

/// What came of a payment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) decision: Decision,
    pub(super) reason: Reason,
    /// An anomaly was found, or a restriction begun, at this payment.
    pub(super) flagged: bool,
    /// Which anomalies: a bit at the place of each in [`AnomalyKind::ALL`].
    pub(super) found: u16,
}

pub(super) struct Hub {
    core: Core,
    now: Now,
    opened_ms: u64,
    last_ticket: u64,
    bank: Rng,
    /// What is asked for is a refund: banks take those.
    refund: bool,
    seen: Option<Seen>,
    flagged: bool,
    found: u16,
}

impl Hub {
    /// A hub that is online, with its devices and a policy in force.
    pub(super) fn open(seed: u64, policy: &Policy, text: &str, devices: &[DeviceClass], at_ms: u64) -> Self {
        let mut settings = Settings::new(wire::HUB, wire::STORE, Currency::EUR);
        settings.seal = Some(wire::SEAL.clone());
        settings.gateway_tells_time = false;
        settings.seed = seed;
        let (online_after, now) = (
            settings.wan.online_after,
            Now {
                wall_ms: at_ms,
                monotonic_ms: 1_000,
            },
        );
        let (core, effects) = Core::start(settings, State::default(), 0, "fraud", now);
        let mut hub = Self {
            core,
            now,
            opened_ms: at_ms,
            last_ticket: 0,
            bank: Rng::of(seed, "bank"),
            refund: false,
            seen: None,
            flagged: false,
            found: 0,
        };
        hub.carry_out(effects);
        for (place, class) in devices.iter().enumerate() {
            let ticket = hub.ticket();
            let registration = Box::new(wire::registration(device_id(place), *class));
            hub.handle(Input::Enrol { ticket, registration });
        }
        hub.handle(Input::Activate {
            ticket: None,
            policy: Box::new(policy.clone()),
            signed: wire::unsigned(0, text.as_bytes()),
            key: POLICY_KEY,
        });
        for _ in 0..online_after {
            hub.probe(true);
        }
        hub
    }

    /// The line is cut.
    pub(super) fn go_offline(&mut self, at_ms: u64) {
        self.advance(at_ms);
        for _ in 0..Settings::new(wire::HUB, wire::STORE, Currency::EUR)
            .wan
            .offline_after
        {
            self.probe(false);
        }
    }

    /// A device asks for a payment. `None` if the core gave no decision.
    pub(super) fn pay(&mut self, at_ms: u64, message: PayMessage) -> Option<Seen> {
        self.advance(at_ms);
        (self.seen, self.flagged, self.found) = (None, false, 0);
        self.refund = message.request.transaction_type() == TransactionType::Refund;
        let ticket = self.ticket();
        self.handle(Input::Pay {
            ticket,
            device: message.device,
            request: Box::new(message.request),
            signed: message.signed,
            sealed_card: message.sealed_card,
            recalled: None,
        });
        let (flagged, found) = (self.flagged, self.found);
        self.seen.take().map(|seen| Seen {
            flagged,
            found,
            ..seen
        })
    }

    fn advance(&mut self, at_ms: u64) {
        self.now = Now {
            wall_ms: at_ms,
            monotonic_ms: 1_000 + at_ms.saturating_sub(self.opened_ms),
        };
    }

    fn probe(&mut self, ok: bool) {
        self.handle(Input::Probe(Probe {
            ok,
            latency_ms: 20,
            gateway_time_ms: None,
        }));
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn handle(&mut self, input: Input) {
        let effects = self.core.handle(input, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut written = None;
        let mut answers = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append {
                    sequence, payload, ..
                } => {
                    written = Some(sequence);
                    self.read(&payload);
                }
                Effect::Forward(forward) => {
                    let asked = forward.operation == Operation::AuthoriseOnline;
                    let approved = !(asked && !self.refund && self.bank.chance(BANK_DECLINES));
                    answers.push(Input::Gateway {
                        attempt: forward.attempt,
                        answer: GatewayAnswer::Final(GatewayResult {
                            approved,
                            response_code: if approved { "00" } else { "51" }.to_owned(),
                            authorisation_code: None,
                            reference: None,
                        }),
                        latency_ms: 40,
                    });
                }
                _ => {}
            }
        }
        if let Some(sequence) = written {
            self.handle(Input::Appended { sequence });
        }
        for answer in answers {
            self.handle(answer);
        }
    }

    /// The ledger has the reasons themselves; receipts may say another.
    fn read(&mut self, payload: &[u8]) {
        match wire::read_entry(payload).map(|entry| entry.event) {
            Ok(Event::PaymentDecided { record, .. }) => {
                self.seen = Some(Seen {
                    decision: record.decision,
                    reason: record.reason,
                    flagged: false,
                    found: 0,
                });
            }
            Ok(Event::AnomalyFound { kind, .. }) => {
                self.flagged = true;
                let place = AnomalyKind::ALL.iter().position(|known| *known == kind);
                self.found |= place.map_or(0, |place| 1 << place);
            }
            Ok(Event::RestrictionChanged { restriction, .. }) if restriction > Restriction::None => {
                self.flagged = true;
            }
            _ => {}
        }
    }
}
