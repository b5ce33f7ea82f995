//! What the hub remembers of a payment.

use super::CardKey;
use crate::effect::Forward;
use crate::input::AttemptId;
use crate::queue::operation;
use crate::risk::Holder;
use hub_protocol::entry::{DecisionRecord, EntryTime, ParkReason, TraceRule};
use hub_protocol::{
    CardScheme, Currency, DeviceId, Digest, GatewayResult, HubId, PaymentId, PaymentRequest, PaymentState,
    PaymentStatus, Receipt, TransactionType,
};
use minicbor::{Decode, Encode};

/// Where a payment stands that is not final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the lane of its device, at this place.
    Waiting(DeviceId, u64),
    /// Parked; it was put into the queue at this place.
    Parked(u64),
    /// In no lane: being asked online, or kept for later. Few at any time.
    Held(PaymentId),
}

/// The decision and the entry that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Decided {
    /// The entry's sequence.
    #[n(1)]
    pub sequence: u64,
    /// The entry's digest.
    #[n(2)]
    pub digest: Digest,
    /// The entry's time.
    #[n(3)]
    pub time: EntryTime,
    /// The policy of the decision.
    #[n(4)]
    pub policy_version: u64,
    /// The decision.
    #[n(5)]
    pub record: DecisionRecord,
}

/// What the hub remembers of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PaymentRecord {
    /// Which device asked.
    #[n(1)]
    pub device: DeviceId,
    /// SHA-256 over the signed request as received.
    #[n(2)]
    pub request_digest: Digest,
    /// The entry that holds the signed request.
    #[n(3)]
    pub request_sequence: u64,
    /// In minor units.
    #[n(4)]
    pub amount_minor: u64,
    /// ISO 4217.
    #[n(5)]
    pub currency: Currency,
    /// Which card.
    #[n(6)]
    pub card: CardKey,
    /// The card's scheme.
    #[n(7)]
    pub scheme: CardScheme,
    /// Where the payment stands.
    #[n(8)]
    pub state: PaymentState,
    /// The decision, once there is one.
    #[n(9)]
    pub decided: Option<Decided>,
    /// The gateway's final word, once there is one.
    #[n(10)]
    pub gateway: Option<GatewayResult>,
    /// The newest entry about this payment.
    #[n(11)]
    pub latest: u64,
    /// Its place in the queue: the entry that put it there.
    #[n(12)]
    pub queue_sequence: Option<u64>,
    /// Whether it counts as exposure.
    #[n(13)]
    pub exposed: bool,
    /// Whether the gateway was asked online before the decision, and so may
    /// have taken it.
    #[n(14)]
    pub asked_online: bool,
    /// Why it is parked, if it is.
    #[n(15)]
    pub parked: Option<ParkReason>,
    /// When its signed request was written down, milliseconds since 1970 UTC.
    /// Nothing was sent before.
    #[n(16)]
    pub received_ms: u64,
    /// Its declines, if it was presented again after one or is going to be.
    #[n(17)]
    pub retry: Option<Box<RetryRecord>>,
    /// The newest entry that parked it, released since or not: it has been
    /// sent, or may have been. Once a reversal waits: that parked the reversal.
    #[n(18)]
    pub parked_at: Option<u64>,
    /// How the holder stood to it.
    #[n(19)]
    pub holder: Option<Holder>,
    /// What its request stated beside it, if it did.
    #[n(20)]
    pub terms: Option<StatedTerms>,
    /// That the gateway did not have it, by the word of a person who released
    /// it.
    #[n(21)]
    pub not_there: Option<Box<NotThere>>,
}

/// A person's word that the gateway did not have a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NotThere {
    /// The entry that says so.
    #[n(1)]
    pub sequence: u64,
    /// When, milliseconds since 1970 UTC.
    #[n(2)]
    pub at_ms: u64,
}

/// What limits and receipts need of a request's
/// [`Terms`](hub_protocol::Terms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StatedTerms {
    /// What it was.
    #[n(1)]
    pub transaction_type: TransactionType,
    /// Who stood at the device.
    #[n(2)]
    pub staff: Option<StaffKey>,
}

/// Stands for a member of staff in limits: the first 16 bytes of SHA-256 of the
/// till's name for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct StaffKey(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl StaffKey {
    /// Of payments that name nobody: they count together, as one person's.
    pub const NOBODY: Self = Self([0; 16]);

    /// The key of a name.
    pub fn of(staff: Option<&str>) -> Self {
        staff.map_or(Self::NOBODY, |staff| {
            let mut key = [0; 16];
            key.copy_from_slice(&Digest::of(staff.as_bytes()).0[..16]);
            Self(key)
        })
    }
}

/// A payment that the issuer declined and that is presented again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RetryRecord {
    /// When it was declined, each time, oldest first, milliseconds since 1970
    /// UTC.
    #[n(1)]
    pub declined_ms: Vec<u64>,
    /// The response code of the last decline.
    #[n(2)]
    pub response_code: String,
    /// When it may be presented again, while it waits for that.
    #[n(3)]
    pub due_ms: Option<u64>,
    /// When it was put back into the queue last.
    #[n(4)]
    pub queued_ms: u64,
}

impl PaymentRecord {
    /// A payment that has just been received.
    pub(crate) fn received(device: DeviceId, request: &PaymentRequest, signed: &[u8], sequence: u64) -> Self {
        Self {
            device,
            request_digest: Digest::of(signed),
            request_sequence: sequence,
            amount_minor: request.amount_minor(),
            currency: request.currency,
            card: CardKey::of_token(&request.card.token),
            scheme: request.card.scheme,
            state: PaymentState::Open,
            decided: None,
            gateway: None,
            latest: sequence,
            queue_sequence: None,
            exposed: false,
            asked_online: false,
            parked: None,
            received_ms: 0,
            retry: None,
            parked_at: None,
            not_there: None,
            terms: request.terms.as_ref().map(|terms| StatedTerms {
                transaction_type: terms.transaction_type,
                staff: terms.staff.as_deref().map(|staff| StaffKey::of(Some(staff))),
            }),
            holder: Some(Holder::of(request)).filter(|holder| *holder != Holder::Other),
        }
    }

    /// Whose limits it counts for.
    pub fn staff(&self) -> StaffKey {
        self.terms
            .and_then(|terms| terms.staff)
            .unwrap_or(StaffKey::NOBODY)
    }

    /// When it was declined, each time.
    pub(crate) fn declined_ms(&self) -> &[u64] {
        self.retry.as_ref().map_or(&[], |retry| &retry.declined_ms)
    }

    /// Counts its presentations to the issuer, from 1.
    pub(crate) fn presentation(&self) -> u32 {
        u32::try_from(self.declined_ms().len()).map_or(u32::MAX, |declines| declines.saturating_add(1))
    }

    /// When it may be presented again, if it waits for that.
    pub(crate) fn retry_due_ms(&self) -> Option<u64> {
        self.retry.as_ref()?.due_ms
    }

    /// Since when the gateway may have this presentation of it: the entry from
    /// which on, and milliseconds since 1970 UTC.
    pub(crate) fn maybe_sent_since(&self) -> (u64, u64) {
        if let Some(word) = &self.not_there {
            return (word.sequence, word.at_ms);
        }
        let since_ms = self
            .retry
            .as_ref()
            .map_or(self.received_ms, |retry| retry.queued_ms);
        (self.request_sequence, since_ms)
    }

    /// The receipt: always the same for the same decision.
    pub fn receipt(&self, hub: HubId, payment_id: PaymentId) -> Option<Receipt> {
        let decided = self.decided.as_ref()?;
        Some(Receipt {
            hub,
            device: self.device,
            payment_id,
            request_digest: self.request_digest,
            amount_minor: self.amount_minor,
            currency: self.currency,
            decision: decided.record.decision,
            reason: match self.terms {
                Some(_) => decided.record.reason,
                None => decided.record.reason.in_receipts(),
            },
            fallback: decided.record.fallback,
            submission: decided.record.submission,
            gateway: decided.record.gateway.clone(),
            sequence: decided.sequence,
            entry_digest: decided.digest,
            time: decided.time,
            policy_version: decided.policy_version,
            transaction_type: self.terms.map(|terms| terms.transaction_type),
            score: decided.record.score.clone().filter(|_| self.terms.is_some()),
        })
    }

    /// Where the payment stands.
    pub fn status(&self, hub: HubId, payment_id: PaymentId) -> PaymentStatus {
        PaymentStatus {
            hub,
            payment_id,
            state: self.state,
            gateway: self.gateway.clone(),
            sequence: self.latest,
        }
    }

    /// Where it stands, if it is not final.
    pub(crate) fn place(&self, id: PaymentId) -> Option<Place> {
        if self.is_final() {
            return None;
        }
        Some(match (self.queue_sequence, self.parked) {
            (Some(sequence), None) => Place::Waiting(self.device, sequence),
            (Some(sequence), Some(_)) => Place::Parked(sequence),
            (None, _) => Place::Held(id),
        })
    }

    /// What is to be asked of the gateway next, for the first time: of one that
    /// is not final, by whoever sends it.
    pub fn forward(&self, payment_id: PaymentId) -> Forward {
        Forward {
            attempt: AttemptId(0),
            payment_id,
            operation: operation(self),
            request_sequence: self.request_sequence,
            device: self.device,
            decided_ms: self.decided.as_ref().map_or(0, |decided| decided.time.wall_ms),
            number: 1,
            presentation: self.presentation(),
            maybe_sent: true,
            traces: TraceRule::Entry,
            deadline_ms: 0,
        }
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_final(&self) -> bool {
        self.state.is_final()
    }

    /// Whether the sealed card may still be needed. After a decline it is
    /// not: authorisation has ended, and a further presentation goes without.
    pub fn needs_card(&self) -> bool {
        self.retry.is_none()
            && matches!(
                self.state,
                PaymentState::Open | PaymentState::Queued | PaymentState::Parked
            )
    }
}
