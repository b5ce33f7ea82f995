//! What the hub answers: the receipt (the one decision, for life) and the
//! status (where the payment stands now).

use minicbor::{Decode, Encode};

use crate::codes::codes;
use crate::entry::EntryTime;
use crate::id::{DeviceId, Digest, HubId, PaymentId};
use crate::money::Currency;
use crate::payment::TransactionType;
use crate::reason::Reason;
use crate::score::Score;

codes! {
    /// The decision, and by whom it was made.
    pub enum Decision {
        /// The gateway approved while the customer waited.
        ApprovedOnline = 1, "approved-online";
        /// The hub approved inside its limits; the gateway is asked later.
        ApprovedOffline = 2, "approved-offline";
        /// No.
        Declined = 3, "declined";
        /// Not this way; see the fallback action.
        Fallback = 4, "fallback";
    }
}

impl Decision {
    /// Whether the customer may leave with the goods.
    pub const fn approved(self) -> bool {
        matches!(self, Self::ApprovedOnline | Self::ApprovedOffline)
    }
}

codes! {
    /// What to do instead, with a fallback.
    pub enum FallbackAction {
        /// Insert the card so that its chip is read.
        InsertCard = 1, "insert-card";
        /// Insert the card and enter the PIN.
        InsertCardEnterPin = 2, "insert-card-enter-pin";
    }
}

codes! {
    /// As what a payment goes to the gateway. Card-approved and deferred
    /// payments are never mixed.
    pub enum Submission {
        /// Asked online while the customer waits.
        Online = 1, "online";
        /// Accepted offline at the merchant's risk, authorised afterwards.
        Deferred = 2, "deferred";
        /// Approved by the chip; the gateway is told afterwards.
        Advice = 3, "advice";
    }
}

/// The gateway's word on a payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GatewayResult {
    /// Whether the gateway approved.
    #[n(1)]
    pub approved: bool,
    /// The response code (ISO 8583 field 39), up to 8 bytes.
    #[n(2)]
    pub response_code: String,
    /// The authorisation code, if there is one.
    #[n(3)]
    pub authorisation_code: Option<String>,
    /// The gateway's own reference, if there is one.
    #[n(4)]
    pub reference: Option<String>,
}

/// The hub's answer to a payment. The same request gets the same receipt for
/// life; it comes with its proof, a
/// [`CommittedReceipt`](crate::CommittedReceipt).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// Who decided.
    #[n(1)]
    pub hub: HubId,
    /// Who asked.
    #[n(2)]
    pub device: DeviceId,
    /// Which payment.
    #[n(3)]
    pub payment_id: PaymentId,
    /// SHA-256 over the signed request as received.
    #[n(4)]
    pub request_digest: Digest,
    /// In minor units.
    #[n(5)]
    pub amount_minor: u64,
    /// ISO 4217.
    #[n(6)]
    pub currency: Currency,
    /// The decision.
    #[n(7)]
    pub decision: Decision,
    /// Why; [`Reason::None`] for an approval.
    #[n(8)]
    pub reason: Reason,
    /// What to do instead, with a fallback.
    #[n(9)]
    pub fallback: Option<FallbackAction>,
    /// As what an approved payment goes to the gateway.
    #[n(10)]
    pub submission: Option<Submission>,
    /// The gateway's word, if the decision was made online.
    #[n(11)]
    pub gateway: Option<GatewayResult>,
    /// The ledger entry that holds the decision.
    #[n(12)]
    pub sequence: u64,
    /// [`Entry::digest`](crate::entry::Entry::digest) of that entry: a ledger
    /// cut below this receipt shows.
    #[n(13)]
    pub entry_digest: Digest,
    /// When, by the hub's clocks.
    #[n(14)]
    pub time: EntryTime,
    /// The policy that the decision was made under; 0 for none.
    #[n(15)]
    pub policy_version: u64,
    /// What it was, of a request with [`Terms`](crate::Terms); its reason then
    /// is the ledger's.
    #[n(16)]
    pub transaction_type: Option<TransactionType>,
    /// How risky it looked, of a request with [`Terms`](crate::Terms) under a
    /// policy that weighs that.
    #[n(17)]
    pub score: Option<Box<Score>>,
}

codes! {
    /// Where a payment stands.
    pub enum PaymentState {
        /// Asked online, not answered yet.
        Open = 1, "open";
        /// Declined, or sent another way. Final.
        Refused = 2, "refused";
        /// Approved offline, waiting to be sent.
        Queued = 3, "queued";
        /// Approved offline, and cannot be sent until somebody looks at it.
        Parked = 4, "parked";
        /// Approved by the gateway, online or at replay, or found there by a
        /// person. Final unless voided.
        Settled = 5, "settled";
        /// Approved offline and then declined by the gateway, or never taken,
        /// by a person's word: the shop's loss. Final.
        SettledDeclined = 6, "settled-declined";
        /// Voided before it was sent. Final.
        Voided = 7, "voided";
        /// A reversal waits to be sent.
        ReversalQueued = 8, "reversal-queued";
        /// The gateway has confirmed the reversal, or a person that nothing is
        /// taken. Final.
        Reversed = 9, "reversed";
        /// The reversal cannot be sent until somebody looks at it.
        ReversalParked = 10, "reversal-parked";
    }
}

impl PaymentState {
    /// Whether nothing more will happen to the payment by itself.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Settled | Self::SettledDeclined | Self::Voided | Self::Reversed
        )
    }
}

/// Where a payment stands, signed by the hub
/// ([`ObjectType::Status`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PaymentStatus {
    /// Who says so.
    #[n(1)]
    pub hub: HubId,
    /// Which payment.
    #[n(2)]
    pub payment_id: PaymentId,
    /// Where it stands.
    #[n(3)]
    pub state: PaymentState,
    /// The gateway's word, once there is one.
    #[n(4)]
    pub gateway: Option<GatewayResult>,
    /// The newest ledger entry about this payment.
    #[n(5)]
    pub sequence: u64,
}
