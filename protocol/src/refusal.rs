//! Numbered errors: what a hub answers to bad input. A refusal is not a
//! decision: nothing was decided about the payment and nothing was written
//! as approved.

use minicbor::{Decode, Encode};

use crate::cbor::CborError;
use crate::codes::codes;
use crate::cose::CoseError;

codes! {
    /// The number of a refusal. 1xxx the frame, 2xxx the signature, 3xxx the
    /// content, 4xxx the payment's state, 5xxx the hub, 6xxx enrolment, 7xxx allowances.
    pub enum RefusalCode {
        /// The frame or message ends early.
        Truncated = 1001, "truncated";
        /// The frame is longer than 16 KiB. The hub closes the connection.
        Oversized = 1002, "oversized";
        /// Bytes follow the frame or message.
        Trailing = 1003, "trailing";
        /// Not deterministic encoding: doubled, unknown or unordered keys, long
        /// forms, indefinite lengths.
        NotCanonical = 1004, "not-canonical";
        /// A value of the wrong type or a number not assigned.
        Malformed = 1005, "malformed";
        /// The frame number is not one that may be sent here.
        UnknownFrame = 1006, "unknown-frame";
        /// Not a COSE_Sign1 object in the form that the protocol has.
        SignatureMalformed = 2001, "signature-malformed";
        /// Signed with another algorithm than the protocol has there.
        SignatureAlgorithm = 2002, "signature-algorithm";
        /// Signed with another key than the one this device enrolled.
        SignatureUnknownKey = 2003, "signature-unknown-key";
        /// The signature does not verify.
        SignatureBad = 2004, "signature-bad";
        /// The amount is zero.
        AmountZero = 3001, "amount-zero";
        /// The amount is negative.
        AmountNegative = 3002, "amount-negative";
        /// The amount is above 12 digits.
        AmountTooLarge = 3003, "amount-too-large";
        /// The currency is not three capital letters.
        CurrencyMalformed = 3004, "currency-malformed";
        /// A field has a wrong length or wrong characters.
        FieldMalformed = 3005, "field-malformed";
        /// A text, or bytes that the device chose, hold a clear card number.
        /// Nothing of it was stored.
        ClearCardNumber = 3006, "clear-card-number";
        /// The sealed card is empty or above its size.
        SealedCardSize = 3007, "sealed-card-size";
        /// The sealed card does not match the signed digest.
        SealedCardDigest = 3008, "sealed-card-digest";
        /// The sealed card is not in its envelope; from wire version 4 on.
        CardEnvelope = 3009, "card-envelope";
        /// The payment id was used before with other bytes.
        PaymentIdConflict = 4001, "payment-id-conflict";
        /// The hub knows no payment under this id.
        PaymentUnknown = 4002, "payment-unknown";
        /// The payment was made by another device.
        PaymentOfOtherDevice = 4003, "payment-of-other-device";
        /// The payment was not approved, so there is nothing to void.
        NothingToVoid = 4004, "nothing-to-void";
        /// The payment has not been answered yet; void it after the answer.
        VoidBeforeAnswer = 4005, "void-before-answer";
        /// The payment was closed so long ago that it is in the archive. Nothing
        /// changes it any more; refund it instead.
        PaymentArchived = 4006, "payment-archived";
        /// The hub has more to do than it can take; try again in a second, or
        /// after the time that its text tells.
        Busy = 5001, "busy";
        /// The hub is stopping; try again shortly.
        Stopping = 5002, "stopping";
        /// The ledger cannot be written; nothing can be accepted.
        LedgerUnavailable = 5003, "ledger-unavailable";
        /// The answer was not found in time; ask again under the same id.
        TimedOut = 5004, "timed-out";
        /// The enrolment code is not known, used up or withdrawn.
        EnrolmentUnknown = 6001, "enrolment-unknown";
        /// The enrolment code has expired.
        EnrolmentExpired = 6002, "enrolment-expired";
        /// The key is weak or is not the key of this connection.
        EnrolmentKey = 6003, "enrolment-key";
        /// The device or its key is enrolled already.
        EnrolledAlready = 6004, "enrolled-already";
        /// The device is blocked or was never enrolled.
        DeviceNotAllowed = 6005, "device-not-allowed";
        /// The device is enrolled and waits until the shop or its head office
        /// approves it. Nothing is decided for it before that.
        DevicePending = 6006, "device-pending";
        /// The device's keys have given way to others, and these are the old
        /// ones. Whoever has the new ones goes on with them.
        KeysReplaced = 6007, "keys-replaced";
        /// As things stand, no allowance is given to this device. It goes on
        /// asking for each payment.
        AllowanceNotGiven = 7001, "allowance-not-given";
        /// This device has never had an allowance of this number.
        AllowanceUnknown = 7002, "allowance-unknown";
        /// The hub knows another end of the chain than the device says: sync
        /// what is missing, then return the allowance.
        AllowanceNotSynced = 7003, "allowance-not-synced";
        /// The device's receipt is not for the payment beside it.
        DeviceReceiptMismatch = 7004, "device-receipt-mismatch";
    }
}

impl RefusalCode {
    /// Whether the same bytes may be accepted later. `false`: the message
    /// itself is wrong and stays wrong.
    pub const fn transient(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::Stopping
                | Self::LedgerUnavailable
                | Self::TimedOut
                | Self::VoidBeforeAnswer
                | Self::DevicePending
        )
    }

    /// Whether the hub closes the connection after this refusal.
    pub const fn closes_connection(self) -> bool {
        matches!(self, Self::Oversized | Self::DeviceNotAllowed | Self::Stopping)
    }
}

/// A numbered error with a text that tells a person what to do. The text
/// never repeats what was received.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{} ({code}): {text}", code.number())]
pub struct Refusal {
    /// The number.
    #[n(1)]
    pub code: RefusalCode,
    /// In English, for people; not part of the contract.
    #[n(2)]
    pub text: String,
}

impl Refusal {
    /// A refusal with this number and text.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<CborError> for Refusal {
    fn from(error: CborError) -> Self {
        let code = match &error {
            CborError::Truncated => RefusalCode::Truncated,
            CborError::Trailing => RefusalCode::Trailing,
            CborError::NotCanonical => RefusalCode::NotCanonical,
            CborError::Malformed(text) if text.contains(crate::money::CURRENCY_MALFORMED) => {
                RefusalCode::CurrencyMalformed
            }
            CborError::Malformed(_) | CborError::UnknownVariant(_) => RefusalCode::Malformed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CoseError> for Refusal {
    fn from(error: CoseError) -> Self {
        let code = match error {
            CoseError::Malformed => RefusalCode::SignatureMalformed,
            CoseError::Algorithm => RefusalCode::SignatureAlgorithm,
            CoseError::UnknownKey => RefusalCode::SignatureUnknownKey,
            CoseError::BadSignature => RefusalCode::SignatureBad,
        };
        Self::new(code, error.to_string())
    }
}
