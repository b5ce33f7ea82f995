//! What a device may approve while it cannot reach the hub, and what it has
//! approved: kept on its disk before anybody is told.
//!
//! What always holds, through a crash at any step:
//!
//! 1. No approval is given before the file has it.
//! 2. An approved payment stays in the file until the hub's receipt for it has
//!    come, or the hub has refused it for good; it is asked for again with the
//!    same bytes.
//! 3. Once an allowance is being returned nothing more is approved under it.
//! 4. The time of approvals never goes back, whatever the clock does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::{
    Allowance, AllowanceChain, AllowanceReturn, DeviceId, DeviceReceipt, HubId, PaymentId, Reason, Refusal,
    Request, cbor,
};
use minicbor::{Decode, Encode};

use crate::enrolment::Enrolled;
use crate::error::{SdkError, VerifyError};
use crate::files;
use crate::hub_keys::HubKeys;
use crate::identity::DeviceIdentity;
use crate::payment::{PreparedPayment, unix_ms};
use crate::verify::by_present_key;

const FILE: &str = "allowance.cbor";

/// The allowance of one device. Clones are handles of the same.
///
/// One process may have one for a folder: two would fork the chain.
#[derive(Clone)]
pub struct AllowanceStore {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    identity: DeviceIdentity,
    hub: HubId,
    keys: HubKeys,
    state: Mutex<State>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    held: Option<Held>,
    #[n(2)]
    unsynced: Vec<Unsynced>,
    /// Those that the hub has refused for good.
    #[n(3)]
    refused: Vec<Unsynced>,
    /// The highest number of an allowance that is closed.
    #[n(4)]
    closed: Option<u64>,
    /// The highest time that was seen.
    #[n(5)]
    highest_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Held {
    #[n(1)]
    allowance: Allowance,
    #[n(2)]
    chain: AllowanceChain,
    /// What each card has paid under it.
    #[n(3)]
    cards: Vec<Card>,
    /// By how much the device's clock was behind the hub's.
    #[n(4)]
    behind_ms: u64,
    /// Nothing more is approved under it.
    #[n(5)]
    returning: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Card {
    #[n(1)]
    token: String,
    #[n(2)]
    minor: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Unsynced {
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    payment: Vec<u8>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    receipt: Vec<u8>,
}

/// A payment that this device has approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineApproval {
    /// The device's own receipt.
    pub receipt: DeviceReceipt,
    /// The same, signed, to be kept with the sale.
    pub signed: Vec<u8>,
}

/// Why a payment was not approved. Nothing was written down about it.
#[derive(Debug, thiserror::Error)]
pub enum NotApproved {
    /// No allowance is held, or it is being returned.
    #[error("this device holds no allowance")]
    NoAllowance,
    /// The allowance does not permit it. The reason has texts for the cashier.
    #[error("the allowance does not permit it: {0}")]
    Reason(Reason),
    /// The hub would never take it.
    #[error("refused: {0}")]
    Malformed(Refusal),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] SdkError),
}

impl NotApproved {
    /// The reason, in words for the cashier.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::NoAllowance => Some(Reason::NoPolicy),
            Self::Reason(reason) => Some(*reason),
            Self::Malformed(_) | Self::File(_) => None,
        }
    }
}

/// What is left of an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// In minor units.
    pub amount_minor: u64,
    /// How many payments.
    pub count: u32,
    /// Nothing is approved from here on, by the hub's clock, milliseconds since
    /// 1970 UTC.
    pub expires_ms: u64,
}

impl AllowanceStore {
    /// Opens the store in `dir`, beside the device's keys.
    ///
    /// # Errors
    ///
    /// When the file is damaged or cannot be read. A damaged one may hold
    /// payments that only it knows: keep it.
    pub fn open(dir: &Path, identity: DeviceIdentity, enrolled: &Enrolled) -> Result<Self, SdkError> {
        let state = match files::read(dir, FILE) {
            Ok((path, bytes)) => cbor::decode(&bytes).map_err(|_| SdkError::Damaged { path })?,
            Err(SdkError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                State::default()
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                hub: enrolled.hub,
                keys: enrolled.hub_keys()?.clone(),
                identity,
                state: Mutex::new(state),
            }),
        })
    }

    /// The allowance that is held, unless it is being returned.
    pub fn held(&self) -> Option<Allowance> {
        let state = self.state();
        let held = state.held.as_ref().filter(|held| !held.returning);
        held.map(|held| held.allowance.clone())
    }

    /// What is left of it; `None` if it is not held, or has expired.
    pub fn left(&self) -> Option<Left> {
        self.left_at(unix_ms())
    }

    fn left_at(&self, now_ms: u64) -> Option<Left> {
        let state = self.state();
        let held = state.held.as_ref().filter(|held| !held.returning)?;
        let (allowance, chain) = (&held.allowance, &held.chain);
        (state.time(held, now_ms) < allowance.expires_ms).then(|| Left {
            amount_minor: allowance.amount_minor.saturating_sub(chain.total_minor),
            count: allowance.count.saturating_sub(chain.index),
            expires_ms: allowance.expires_ms,
        })
    }

    /// How many approved payments the hub has not taken note of yet.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Payments that the hub has refused to take note of, for good. Somebody
    /// should look at them: the customer was told yes.
    pub fn refused(&self) -> Vec<OfflineApproval> {
        let state = self.state();
        state.refused.iter().filter_map(Unsynced::approval).collect()
    }

    /// Approves a payment while the hub cannot be reached. The same payment
    /// gets the same receipt until the hub has taken note of it. One that the
    /// hub was asked for before may be approved too: should the hub have said
    /// no to it, that is what [`sync`](crate::DeviceClient::sync) brings, and
    /// the shop's loss, as when the bank says no later.
    ///
    /// # Errors
    ///
    /// Why it was not approved.
    pub fn approve_offline(&self, payment: &PreparedPayment) -> Result<OfflineApproval, NotApproved> {
        self.approve_at(payment, unix_ms())
    }

    fn approve_at(&self, payment: &PreparedPayment, now_ms: u64) -> Result<OfflineApproval, NotApproved> {
        payment.check().map_err(NotApproved::Malformed)?;
        let mut state = self.state();
        if let Some(before) = state.find(&payment.payment_id()) {
            return match before.receipt.request_digest == payment.digest() {
                true => Ok(before),
                false => Err(NotApproved::Malformed(Refusal::new(
                    hub_protocol::RefusalCode::PaymentIdConflict,
                    "this payment id was used before with other content",
                ))),
            };
        }
        let mut next = state.clone();
        let held = next.held.as_mut().filter(|held| !held.returning);
        let held = held.ok_or(NotApproved::NoAllowance)?;
        let at_ms = state
            .held
            .as_ref()
            .map_or(now_ms, |held| state.time(held, now_ms));
        let request = payment.request();
        let token = &request.card.token;
        let paid = held.cards.iter_mut().find(|card| card.token == *token);
        let spent = paid.as_ref().map_or(0, |card| card.minor);
        let against = held.allowance.objections(request, &held.chain, spent, at_ms);
        if let Some(reason) = against.first() {
            return Err(NotApproved::Reason(*reason));
        }
        let receipt = held
            .chain
            .receipt(held.allowance.number, request, payment.signed(), at_ms);
        held.chain = held.chain.after(&receipt);
        match paid {
            Some(card) => card.minor = card.minor.saturating_add(request.amount_minor()),
            None => held.cards.push(Card {
                token: token.clone(),
                minor: request.amount_minor(),
            }),
        }
        let signed = self.sign(ObjectType::DeviceReceipt, &receipt);
        next.highest_ms = at_ms;
        next.unsynced.push(Unsynced {
            payment: payment.to_bytes(),
            receipt: signed.clone(),
        });
        self.write(&mut state, next)?;
        Ok(OfflineApproval { receipt, signed })
    }

    /// The highest number of an allowance that is closed: what the hub is told
    /// when it is asked for another.
    pub(crate) fn closed(&self) -> Option<u64> {
        self.state().closed
    }

    /// Takes what the hub gave.
    pub(crate) fn take(&self, signed: &[u8], chain: AllowanceChain) -> Result<Allowance, TakeError> {
        self.take_at(signed, chain, unix_ms())
    }

    fn take_at(&self, signed: &[u8], chain: AllowanceChain, now_ms: u64) -> Result<Allowance, TakeError> {
        let allowance: Allowance = by_present_key(&self.inner.keys, signed, ObjectType::Allowance)?;
        let mut state = self.state();
        let device: DeviceId = self.inner.identity.device_id();
        if allowance.hub != self.inner.hub {
            return Err(VerifyError::Differs("the hub").into());
        }
        if allowance.device != device {
            return Err(VerifyError::Differs("the device").into());
        }
        if state.closed.is_some_and(|closed| allowance.number <= closed) {
            return Err(VerifyError::Differs("the allowance's number").into());
        }
        let mut next = state.clone();
        match &mut next.held {
            Some(held) if held.allowance.number == allowance.number => {
                if held.allowance != allowance {
                    return Err(VerifyError::Differs("the allowance").into());
                }
                // This store is older than what the hub has seen of the
                // device, or the chain would fork.
                if held.chain.index < chain.index {
                    held.chain = chain;
                }
            }
            held => {
                *held = Some(Held {
                    behind_ms: allowance.issued_ms.saturating_sub(now_ms),
                    allowance: allowance.clone(),
                    chain,
                    cards: Vec::new(),
                    returning: false,
                });
            }
        }
        if next != *state {
            self.write(&mut state, next)?;
        }
        Ok(allowance)
    }

    /// Whether a return was begun and is not answered yet.
    pub(crate) fn returning(&self) -> bool {
        self.state().held.as_ref().is_some_and(|held| held.returning)
    }

    /// The payment that is to be synced next, and the frame for it.
    pub(crate) fn next_unsynced(&self) -> Result<Option<(PreparedPayment, Request)>, VerifyError> {
        let state = self.state();
        let Some(first) = state.unsynced.first() else {
            return Ok(None);
        };
        let payment = PreparedPayment::from_bytes(&first.payment)?;
        let approval = first.approval().ok_or(VerifyError::OtherAnswer)?;
        let frame = Request::Sync {
            number: approval.receipt.number,
            request: payment.signed().to_vec(),
            sealed_card: payment.sealed_card().clone(),
            receipt: approval.signed,
        };
        Ok(Some((payment, frame)))
    }

    /// The hub has taken note of it (or, `refused`, never will).
    pub(crate) fn synced(&self, id: &PaymentId, refused: bool) -> Result<(), SdkError> {
        let mut state = self.state();
        let mut next = state.clone();
        let is_it = |one: &Unsynced| one.approval().is_some_and(|own| own.receipt.payment_id == *id);
        if let Some(place) = next.unsynced.iter().position(is_it) {
            let done = next.unsynced.remove(place);
            if refused {
                next.refused.push(done);
            }
            self.write(&mut state, next)?;
        }
        Ok(())
    }

    /// From here on nothing is approved under it. The frame that returns it;
    /// `None` without an allowance.
    pub(crate) fn begin_return(&self) -> Result<Option<(u64, Request)>, SdkError> {
        let mut state = self.state();
        let mut next = state.clone();
        let Some(held) = &mut next.held else {
            return Ok(None);
        };
        held.returning = true;
        let number = held.allowance.number;
        let said = AllowanceReturn::new(number, &held.chain);
        let statement = self.sign(ObjectType::AllowanceReturn, &said);
        if next != *state {
            self.write(&mut state, next)?;
        }
        Ok(Some((number, Request::Return { statement })))
    }

    /// The hub has closed it.
    pub(crate) fn returned(&self, number: u64) -> Result<(), SdkError> {
        let mut state = self.state();
        let mut next = state.clone();
        next.closed = next.closed.max(Some(number));
        if next
            .held
            .as_ref()
            .is_some_and(|held| held.allowance.number <= number)
        {
            next.held = None;
        }
        self.write(&mut state, next)
    }

    fn sign<T: Encode<()>>(&self, object: ObjectType, value: &T) -> Vec<u8> {
        cose::sign(self.inner.identity.signing_key(), object, &cbor::encode(value))
    }

    fn write(&self, state: &mut State, next: State) -> Result<(), SdkError> {
        files::write_private(&self.inner.dir, FILE, &cbor::encode(&next))?;
        *state = next;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Never before the hub gave the allowance, nor before what was seen.
    fn time(&self, held: &Held, now_ms: u64) -> u64 {
        now_ms.saturating_add(held.behind_ms).max(self.highest_ms)
    }

    fn find(&self, id: &PaymentId) -> Option<OfflineApproval> {
        let all = self.unsynced.iter().chain(&self.refused);
        all.filter_map(Unsynced::approval)
            .find(|approval| approval.receipt.payment_id == *id)
    }
}

/// What is read out of any bytes as the file.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(state) = cbor::decode::<State>(bytes) else {
        return;
    };
    if let Some(held) = &state.held {
        assert!(state.time(held, 0) >= state.highest_ms);
    }
    let all = state.unsynced.iter().chain(&state.refused);
    for approval in all.filter_map(Unsynced::approval) {
        assert!(state.find(&approval.receipt.payment_id).is_some());
    }
}

impl Unsynced {
    fn approval(&self) -> Option<OfflineApproval> {
        let payload = Unverified::payload_of(&self.receipt).ok()?;
        Some(OfflineApproval {
            receipt: cbor::decode(payload).ok()?,
            signed: self.receipt.clone(),
        })
    }
}

/// Why an allowance was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Unverifiable(#[from] VerifyError),
    #[error(transparent)]
    File(#[from] SdkError),
}

#[cfg(test)]
#[path = "allowance_tests.rs"]
mod tests;
