//! Allowances: what a device may approve while it cannot reach the hub, and
//! the chain of its own receipts for what it approved.

use minicbor::{Decode, Encode};

use crate::card_number::written_out;
use crate::cbor;
use crate::codes::codes;
use crate::id::{DeviceId, Digest, HubId, PaymentId};
use crate::money::Currency;
use crate::payment::{
    CardScheme, Cryptogram, EntryMode, Funding, PaymentRequest, TransactionType, Verification,
    check_payment_id, clear_card_number,
};
use crate::reason::Reason;
use crate::refusal::{Refusal, RefusalCode};

/// The most payments that one allowance can be for.
pub const MAX_ALLOWANCE_COUNT: u32 = 64;

codes! {
    /// What a device did with an allowance that the allowance does not permit.
    pub enum AllowanceMisuse {
        /// More than its amount, its number of payments, or one of its ceilings.
        Overspent = 1, "overspent";
        /// Another receipt stands at this place of the chain, or this one does
        /// not follow from the one before.
        Forked = 2, "forked";
        /// The allowance had been closed before.
        Reused = 3, "reused";
        /// Outside of its time, or before the receipt before it.
        Expired = 4, "expired";
        /// A card, or a way of reading it, that the allowance is not for.
        ForeignCardRules = 5, "foreign-card-rules";
        /// Receipts before it are missing.
        ReceiptGap = 6, "receipt-gap";
        /// The hub has never given this allowance to this device.
        NotGiven = 7, "not-given";
        /// The payment cannot be taken as it is, or the receipt is not for it:
        /// a refusal says why.
        PaymentUnusable = 8, "payment-unusable";
    }
}

impl AllowanceMisuse {
    /// What it is to approve a payment that the allowance refuses for this
    /// reason.
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::OfflineTooLong => Self::Expired,
            Reason::TransactionCeiling
            | Reason::CardCeiling
            | Reason::DeviceCeiling
            | Reason::DeviceConsecutiveLimit => Self::Overspent,
            _ => Self::ForeignCardRules,
        }
    }
}

/// What a device may approve by itself, signed by the hub
/// ([`ObjectType::Allowance`](crate::cose::ObjectType)). It was taken out of
/// the ceilings of store and device when it was given. All ceilings are
/// inclusive.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Allowance {
    /// Who gives it.
    #[n(1)]
    pub hub: HubId,
    /// To whom, and to nobody else.
    #[n(2)]
    pub device: DeviceId,
    /// Counts the allowances of this device; each is higher than those before.
    #[n(3)]
    pub number: u64,
    /// The highest sum of all payments, in minor units.
    #[n(4)]
    pub amount_minor: u64,
    /// The highest number of payments, at most [`MAX_ALLOWANCE_COUNT`].
    #[n(5)]
    pub count: u32,
    /// The highest amount of one payment.
    #[n(6)]
    pub transaction_ceiling_minor: u64,
    /// The highest sum of one card under this allowance.
    #[n(7)]
    pub card_ceiling_minor: u64,
    /// The one currency of it.
    #[n(8)]
    pub currency: Currency,
    /// Accepted schemes.
    #[n(9)]
    pub schemes: Vec<CardScheme>,
    /// Accepted funding.
    #[n(10)]
    pub funding: Vec<Funding>,
    /// Accepted ways of reading the card.
    #[n(11)]
    pub entry_modes: Vec<EntryMode>,
    /// The highest amount for a tap that was verified neither by a PIN nor on
    /// the cardholder's own device, if that is lower.
    #[n(12)]
    pub unverified_tap_ceiling_minor: Option<u64>,
    /// When it was given, by the hub's clock, milliseconds since 1970 UTC.
    #[n(13)]
    pub issued_ms: u64,
    /// Nothing is approved from here on, milliseconds since 1970 UTC.
    #[n(14)]
    pub expires_ms: u64,
    /// The policy that it was given under.
    #[n(15)]
    pub policy_version: u64,
}

impl Allowance {
    /// What the first receipt under it chains to: SHA-256 over the encoded
    /// allowance, without its signature.
    pub fn digest(&self) -> Digest {
        Digest::of(&cbor::encode(self))
    }

    /// Why this payment may not be approved after `chain` at this time, all
    /// reasons in their order; none if it may. `card_minor` is what the card
    /// has paid under this allowance before.
    pub fn objections(
        &self,
        request: &PaymentRequest,
        chain: &AllowanceChain,
        card_minor: u64,
        at_ms: u64,
    ) -> Vec<Reason> {
        let amount = request.amount_minor();
        let (card, tap) = (&request.card, self.unverified_tap_ceiling_minor);
        let above = |sum: u64, most: u64| sum.checked_add(amount).is_none_or(|sum| sum > most);
        let in_time = (self.issued_ms.max(chain.last_ms)..self.expires_ms).contains(&at_ms);
        [
            (
                request.terms.as_ref().is_some_and(|terms| terms.training),
                Reason::TrainingMode,
            ),
            (request.cryptogram == Cryptogram::Refused, Reason::CardRefused),
            (request.currency != self.currency, Reason::CurrencyNotAccepted),
            (!in_time, Reason::OfflineTooLong),
            (
                request.transaction_type() != TransactionType::Sale,
                Reason::TransactionTypeNotAllowed,
            ),
            (has_expired(request, at_ms), Reason::CardExpired),
            (!self.schemes.contains(&card.scheme), Reason::SchemeNotAllowed),
            (!self.funding.contains(&card.funding), Reason::FundingNotAllowed),
            (
                !self.entry_modes.contains(&request.entry_mode),
                Reason::EntryModeNotAllowed,
            ),
            (
                request.verification == Verification::OnlinePin,
                Reason::OnlinePinNotPossible,
            ),
            (
                request.is_unverified_tap() && tap.is_some_and(|most| amount > most),
                Reason::VerificationRequired,
            ),
            (
                amount > self.transaction_ceiling_minor,
                Reason::TransactionCeiling,
            ),
            (above(card_minor, self.card_ceiling_minor), Reason::CardCeiling),
            (above(chain.total_minor, self.amount_minor), Reason::DeviceCeiling),
            (chain.index >= self.count, Reason::DeviceConsecutiveLimit),
        ]
        .into_iter()
        .filter_map(|(stands_against, reason)| stands_against.then_some(reason))
        .collect()
    }
}

/// Whether the card says that its last month is over, by UTC.
fn has_expired(request: &PaymentRequest, at_ms: u64) -> bool {
    let expiry = request.terms.as_ref().and_then(|terms| terms.card_expiry);
    expiry.is_some_and(|last| month_of(at_ms) > u64::from(last.year()) * 12 + u64::from(last.month()) - 1)
}

/// Months since the year 0 in the Gregorian calendar, by the days in its
/// periods of 400 years, which begin in March.
fn month_of(at_ms: u64) -> u64 {
    let days = at_ms / 86_400_000 + 719_468;
    let (period, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let since_march = (5 * day_of_year + 2) / 153;
    (period * 400 + year) * 12 + since_march + 2
}

/// How far the receipts under an allowance have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AllowanceChain {
    /// The index of the last receipt; 0 for none.
    #[n(1)]
    pub index: u32,
    /// The sum of all amounts, in minor units.
    #[n(2)]
    pub total_minor: u64,
    /// [`DeviceReceipt::digest`] of the last one, or [`Allowance::digest`].
    #[n(3)]
    pub head: Digest,
    /// The time in the last one; 0 for none.
    #[n(4)]
    pub last_ms: u64,
}

impl AllowanceChain {
    /// Before the first receipt.
    pub fn new(allowance: &Allowance) -> Self {
        Self {
            index: 0,
            total_minor: 0,
            head: allowance.digest(),
            last_ms: 0,
        }
    }

    /// The receipt that follows, for this payment.
    pub fn receipt(&self, number: u64, request: &PaymentRequest, signed: &[u8], at_ms: u64) -> DeviceReceipt {
        DeviceReceipt {
            number,
            index: self.index.saturating_add(1),
            previous: self.head,
            payment_id: request.payment_id,
            request_digest: Digest::of(signed),
            amount_minor: request.amount_minor(),
            total_minor: self.total_minor.saturating_add(request.amount_minor()),
            device_time_ms: at_ms,
        }
    }

    /// Whether this receipt is the next one.
    pub fn is_next(&self, receipt: &DeviceReceipt) -> bool {
        self.index.checked_add(1) == Some(receipt.index)
            && self.head == receipt.previous
            && self.total_minor.checked_add(receipt.amount_minor) == Some(receipt.total_minor)
    }

    /// After a receipt that [`is_next`](Self::is_next).
    #[must_use]
    pub fn after(&self, receipt: &DeviceReceipt) -> Self {
        Self {
            index: receipt.index,
            total_minor: receipt.total_minor,
            head: receipt.digest(),
            last_ms: self.last_ms.max(receipt.device_time_ms),
        }
    }
}

/// A device's own receipt for a payment that it approved under an allowance,
/// signed by the device ([`ObjectType::DeviceReceipt`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceReceipt {
    /// The allowance's number.
    #[n(1)]
    pub number: u64,
    /// Counts the receipts under it, from 1 without gaps.
    #[n(2)]
    pub index: u32,
    /// [`DeviceReceipt::digest`] of the one before; [`Allowance::digest`] for
    /// the first.
    #[n(3)]
    pub previous: Digest,
    /// Which payment.
    #[n(4)]
    pub payment_id: PaymentId,
    /// SHA-256 over the signed payment request.
    #[n(5)]
    pub request_digest: Digest,
    /// In minor units, as in the request.
    #[n(6)]
    pub amount_minor: u64,
    /// The sum of the amounts up to here, this one included.
    #[n(7)]
    pub total_minor: u64,
    /// The highest time that the device has seen, milliseconds since 1970 UTC.
    #[n(8)]
    pub device_time_ms: u64,
}

impl DeviceReceipt {
    /// What the next receipt chains to: SHA-256 over the encoded receipt,
    /// without its signature.
    pub fn digest(&self) -> Digest {
        Digest::of(&cbor::encode(self))
    }

    /// Holds its ids and digests to what they are: random bytes. It is kept for
    /// good, also where the payment is refused.
    ///
    /// # Errors
    /// [`RefusalCode::ClearCardNumber`].
    pub fn check_ids(&self) -> Result<(), Refusal> {
        check_payment_id(&self.payment_id)?;
        check_digest("previous", &self.previous)?;
        check_digest("request_digest", &self.request_digest)
    }

    /// Holds it to the frame that it comes in.
    ///
    /// # Errors
    /// It is under another allowance, or for another payment.
    pub fn check(&self, number: u64, request: &PaymentRequest, signed: &[u8]) -> Result<(), Refusal> {
        if self.number == number && self.is_for(request, signed) {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::DeviceReceiptMismatch,
            "the device's receipt is not for this payment under this allowance",
        ))
    }

    /// Whether it is for this payment.
    pub fn is_for(&self, request: &PaymentRequest, signed: &[u8]) -> bool {
        self.payment_id == request.payment_id
            && self.amount_minor == request.amount_minor()
            && self.request_digest == Digest::of(signed)
    }
}

/// No digest is text by chance.
fn check_digest(field: &str, digest: &Digest) -> Result<(), Refusal> {
    match written_out(&digest.0) {
        true => Err(clear_card_number(field)),
        false => Ok(()),
    }
}

/// A device's word that it will approve nothing more under an allowance, and
/// how far it came, signed by the device
/// ([`ObjectType::AllowanceReturn`](crate::cose::ObjectType)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AllowanceReturn {
    /// The allowance's number.
    #[n(1)]
    pub number: u64,
    /// The index of the last receipt; 0 for none.
    #[n(2)]
    pub count: u32,
    /// The sum of all amounts, in minor units.
    #[n(3)]
    pub total_minor: u64,
    /// [`DeviceReceipt::digest`] of the last receipt, or [`Allowance::digest`].
    #[n(4)]
    pub head: Digest,
}

impl AllowanceReturn {
    /// The same for its digest as [`DeviceReceipt::check_ids`].
    ///
    /// # Errors
    /// [`RefusalCode::ClearCardNumber`].
    pub fn check_ids(&self) -> Result<(), Refusal> {
        check_digest("head", &self.head)
    }

    /// Of a chain that ends here.
    pub fn new(number: u64, chain: &AllowanceChain) -> Self {
        Self {
            number,
            count: chain.index,
            total_minor: chain.total_minor,
            head: chain.head,
        }
    }

    /// Whether it says the same as this chain.
    pub fn agrees_with(&self, chain: &AllowanceChain) -> bool {
        (self.count, self.total_minor, self.head) == (chain.index, chain.total_minor, chain.head)
    }
}

#[cfg(test)]
#[path = "allowance_tests.rs"]
mod tests;
