//! What a device asks: a payment, the voiding of one.

use minicbor::data::Int;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::card_number::{bytes_hold_card_number, holds_card_number, written_out};
use crate::codes::codes;
use crate::cose::{ObjectType, Unverified};
use crate::id::{DeviceId, Digest, PaymentId};
use crate::money::{Currency, MAX_AMOUNT_MINOR};
use crate::refusal::{Refusal, RefusalCode};

/// The longest order id and card token, in bytes.
pub const MAX_TEXT: usize = 64;

/// The longest sealed card blob, in bytes.
pub const MAX_SEALED_CARD: usize = 1024;

codes! {
    /// What kind of device takes the card. Each class has limits of its own.
    pub enum DeviceClass {
        /// A phone with a certified card reader.
        Mpos = 1, "mpos";
        /// A phone alone: tap on glass.
        Softpos = 2, "softpos";
        /// A mobile payment terminal.
        Terminal = 3, "terminal";
    }
}

codes! {
    /// The card scheme (brand) that the payment would be routed by.
    pub enum CardScheme {
        /// Any scheme without a number of its own.
        Other = 0, "other";
        /// Groupement des Cartes Bancaires (CB).
        Cb = 1, "cb";
        /// Visa.
        Visa = 2, "visa";
        /// Mastercard.
        Mastercard = 3, "mastercard";
        /// Maestro.
        Maestro = 4, "maestro";
        /// American Express.
        Amex = 5, "amex";
        /// Discover and Diners Club.
        Discover = 6, "discover";
        /// JCB.
        Jcb = 7, "jcb";
        /// UnionPay.
        Unionpay = 8, "unionpay";
    }
}

codes! {
    /// How the card is funded.
    pub enum Funding {
        /// Not known to the reader.
        Unknown = 0, "unknown";
        /// Credit.
        Credit = 1, "credit";
        /// Debit.
        Debit = 2, "debit";
        /// Deferred debit.
        DeferredDebit = 3, "deferred-debit";
        /// Prepaid.
        Prepaid = 4, "prepaid";
    }
}

codes! {
    /// How the card was read.
    pub enum EntryMode {
        /// Chip, inserted.
        Chip = 1, "chip";
        /// Contactless chip: card, phone or watch.
        Contactless = 2, "contactless";
        /// Magnetic stripe.
        MagneticStripe = 3, "magnetic-stripe";
        /// Typed in.
        Keyed = 4, "keyed";
    }
}

codes! {
    /// How the cardholder was verified (CVM).
    pub enum Verification {
        /// Not at all.
        None = 1, "none";
        /// Signature.
        Signature = 2, "signature";
        /// PIN checked by the card.
        OfflinePin = 3, "offline-pin";
        /// PIN to be checked by the issuer; not possible without the network.
        OnlinePin = 4, "online-pin";
        /// On the cardholder's own device (CDCVM).
        Cdcvm = 5, "cdcvm";
    }
}

codes! {
    /// What the card itself decided (EMV cryptogram type). The three must
    /// never be mixed: they are different promises by different parties.
    pub enum Cryptogram {
        /// TC: the chip approved offline. Sent later as an advice.
        CardApproved = 1, "card-approved";
        /// ARQC: the chip asks to go online. Accepted offline, it is the
        /// merchant's risk and is sent later as a deferred authorisation.
        AsksOnline = 2, "asks-online";
        /// AAC: the chip refused. Final; no rule can approve it.
        Refused = 3, "refused";
    }
}

codes! {
    /// What a payment is.
    pub enum TransactionType {
        /// Goods for money.
        Sale = 1, "sale";
        /// Money back to the card, for goods brought back.
        Refund = 2, "refund";
        /// A sale with cash handed to the cardholder.
        CashBack = 3, "cash-back";
    }
}

/// The longest override of a supervisor, signed, in bytes.
pub const MAX_OVERRIDE: usize = 512;

/// What is known of the card without its number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CardFacts {
    /// Stands for the card in limits: the same for the same card at every
    /// device of the shop, and never the card number. 1 to 64 printable ASCII
    /// characters.
    #[n(1)]
    pub token: String,
    /// The scheme.
    #[n(2)]
    pub scheme: CardScheme,
    /// How the card is funded.
    #[n(3)]
    pub funding: Funding,
    /// Issuer country, ISO 3166-1 alpha-2, if the reader knows it.
    #[n(4)]
    pub issuer_country: Option<String>,
    /// The first 6 to 8 digits of the card number, if the reader gives them.
    #[n(5)]
    pub bin: Option<String>,
    /// The last 4 digits of the card number, if the reader gives them.
    #[n(6)]
    pub last4: Option<String>,
}

/// A device's request for a payment, signed by the device
/// ([`ObjectType::PaymentRequest`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PaymentRequest {
    /// Made by the device before the first send; the idempotency key.
    #[n(1)]
    pub payment_id: PaymentId,
    /// Counts this device's requests; grows by one each time.
    #[n(2)]
    pub device_sequence: u64,
    /// In minor units (cents): 1 to [`MAX_AMOUNT_MINOR`]. Read it with
    /// [`PaymentRequest::amount_minor`] after [`PaymentRequest::check`].
    #[n(3)]
    pub amount: Int,
    /// ISO 4217.
    #[n(4)]
    pub currency: Currency,
    /// The till's order, 1 to 64 printable ASCII characters.
    #[n(5)]
    pub order_id: String,
    /// What is known of the card.
    #[n(6)]
    pub card: CardFacts,
    /// How the card was read.
    #[n(7)]
    pub entry_mode: EntryMode,
    /// How the cardholder was verified.
    #[n(8)]
    pub verification: Verification,
    /// What the card itself decided.
    #[n(9)]
    pub cryptogram: Cryptogram,
    /// [`SealedCard::digest`] of the blob that travels beside the request.
    #[n(10)]
    pub sealed_card_digest: Digest,
    /// The device's clock, milliseconds since 1970 UTC. Never trusted for
    /// order or limits.
    #[n(11)]
    pub device_time_ms: u64,
    /// What wire version 3 says beside it. With it the request is signed as a
    /// [`ObjectType::PaymentRequest2`](crate::cose::ObjectType). In a box: it
    /// is large, and requests of versions 1 and 2 have none.
    #[n(12)]
    pub terms: Option<Box<Terms>>,
}

/// What a payment is, and who stands at the device: wire version 3.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Terms {
    /// What it is.
    #[n(1)]
    pub transaction_type: TransactionType,
    /// The cash handed out, minor units: part of the amount, and less than it.
    /// With [`TransactionType::CashBack`] and only there.
    #[n(2)]
    pub cash_back_minor: Option<u64>,
    /// The member of staff at the device, by the till's name for them: 1 to 64
    /// printable ASCII characters.
    #[n(3)]
    pub staff: Option<String>,
    /// Somebody practises: nothing is charged.
    #[n(4)]
    pub training: bool,
    /// The last month in which the card is good.
    #[n(5)]
    pub card_expiry: Option<CardExpiry>,
    /// A supervisor's signed [`Override`], at most [`MAX_OVERRIDE`] bytes.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub supervisor: Option<Vec<u8>>,
}

impl Terms {
    /// A payment of this kind, and nothing else to say.
    pub const fn of(transaction_type: TransactionType) -> Self {
        Self {
            transaction_type,
            cash_back_minor: None,
            staff: None,
            training: false,
            card_expiry: None,
            supervisor: None,
        }
    }
}

/// The last month in which a card is good, as it is printed: year and month of
/// this century, `2711` for November 2027.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct CardExpiry(#[n(0)] pub u16);

impl CardExpiry {
    /// Whether there is such a month: of the years 2000 to 2099.
    pub const fn is_month(self) -> bool {
        self.0 <= 9912 && 1 <= self.0 % 100 && self.0 % 100 <= 12
    }

    /// The year, 2000 to 2099.
    pub const fn year(self) -> u16 {
        2000 + self.0 / 100
    }

    /// The month, 1 to 12.
    pub const fn month(self) -> u16 {
        self.0 % 100
    }
}

impl core::str::FromStr for CardExpiry {
    type Err = crate::cbor::UnknownName;

    /// Four digits, year before month.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        let month = text
            .parse()
            .ok()
            .map(Self)
            .filter(|month| digits && month.is_month());
        month.ok_or(crate::cbor::UnknownName)
    }
}

impl core::fmt::Display for CardExpiry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:04}", self.0)
    }
}

/// A supervisor's word that a payment may pass a lower limit or a score, signed
/// by the supervisor's key ([`ObjectType::Override`](crate::cose::ObjectType)).
/// It holds for one payment at one device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Override {
    /// Which payment.
    #[n(1)]
    pub payment_id: PaymentId,
    /// At which device.
    #[n(2)]
    pub device: DeviceId,
    /// Its amount, minor units.
    #[n(3)]
    pub amount_minor: u64,
    /// ISO 4217.
    #[n(4)]
    pub currency: Currency,
    /// When, by the clock of whoever signed, milliseconds since 1970 UTC.
    /// Never trusted.
    #[n(5)]
    pub time_ms: u64,
}

/// The first key of a request's map that wire version 2 does not have.
const TERMS_KEY: u64 = 12;

impl PaymentRequest {
    /// What an encoded request is signed as: with [`Terms`] it is another
    /// object than without. The bytes need not be a request.
    pub fn object_type_of(payload: &[u8]) -> ObjectType {
        let mut decoder = minicbor::Decoder::new(payload);
        let mut has_terms = || {
            let keys = decoder.map().ok()??;
            for _ in 0..keys.min(TERMS_KEY) {
                if decoder.u64().ok()? == TERMS_KEY {
                    return Some(());
                }
                decoder.skip().ok()?;
            }
            None
        };
        match has_terms() {
            Some(()) => ObjectType::PaymentRequest2,
            None => ObjectType::PaymentRequest,
        }
    }

    /// What this request is signed as.
    pub const fn object_type(&self) -> ObjectType {
        match self.terms {
            Some(_) => ObjectType::PaymentRequest2,
            None => ObjectType::PaymentRequest,
        }
    }

    /// What it is: a sale, unless it says otherwise.
    pub fn transaction_type(&self) -> TransactionType {
        self.terms
            .as_ref()
            .map_or(TransactionType::Sale, |terms| terms.transaction_type)
    }

    /// How the holder was verified, as far as that counts: a number that was
    /// typed in counts as not verified at all, since no reader makes such a
    /// payment with a PIN or on the cardholder's own device.
    pub const fn counted_verification(&self) -> Verification {
        match (self.entry_mode, self.verification) {
            (EntryMode::Keyed, Verification::OfflinePin | Verification::OnlinePin | Verification::Cdcvm) => {
                Verification::None
            }
            (_, said) => said,
        }
    }

    /// Whether the holder was verified by a PIN or on the holder's own device:
    /// strong authentication in the sense of Regulation (EU) 2018/389.
    pub const fn strongly_verified(&self) -> bool {
        match self.counted_verification() {
            Verification::OfflinePin | Verification::OnlinePin | Verification::Cdcvm => true,
            Verification::None | Verification::Signature => false,
        }
    }

    /// A contactless payment without strong authentication (article 11 of the
    /// same); a signature is none.
    pub const fn is_unverified_tap(&self) -> bool {
        matches!(self.entry_mode, EntryMode::Contactless) && !self.strongly_verified()
    }

    /// The member of staff at the device, if it says so.
    pub fn staff(&self) -> Option<&str> {
        self.terms.as_ref()?.staff.as_deref()
    }

    /// Holds the request to the ranges that the protocol states. The first
    /// fault found is returned, in the order of the fields.
    pub fn check(&self) -> Result<(), Refusal> {
        check_payment_id(&self.payment_id)?;
        check_amount(self.amount)?;
        check_identifier("order_id", &self.order_id)?;
        check_identifier("card.token", &self.card.token)?;
        let shaped =
            |text: &Option<String>, lengths: core::ops::RangeInclusive<usize>, of: fn(&u8) -> bool| {
                text.as_ref()
                    .is_none_or(|t| lengths.contains(&t.len()) && t.as_bytes().iter().all(of))
            };
        if !shaped(&self.card.issuer_country, 2..=2, u8::is_ascii_uppercase) {
            return Err(Refusal::new(
                RefusalCode::FieldMalformed,
                "card.issuer_country: two capital letters expected",
            ));
        }
        if !shaped(&self.card.bin, 6..=8, u8::is_ascii_digit) {
            return Err(Refusal::new(
                RefusalCode::FieldMalformed,
                "card.bin: 6 to 8 digits expected",
            ));
        }
        if !shaped(&self.card.last4, 4..=4, u8::is_ascii_digit) {
            return Err(Refusal::new(
                RefusalCode::FieldMalformed,
                "card.last4: 4 digits expected",
            ));
        }
        self.terms
            .as_ref()
            .map_or(Ok(()), |terms| terms.check(self.amount_minor()))
    }

    /// The amount in minor units; 0 for a request that
    /// [`check`](Self::check) refuses.
    pub fn amount_minor(&self) -> u64 {
        u64::try_from(i128::from(self.amount)).unwrap_or(0)
    }
}

impl Terms {
    fn check(&self, amount_minor: u64) -> Result<(), Refusal> {
        let malformed = |text: &str| Err(Refusal::new(RefusalCode::FieldMalformed, text));
        match (self.transaction_type, self.cash_back_minor) {
            (TransactionType::CashBack, Some(cash)) if 0 < cash && cash < amount_minor => {}
            (TransactionType::Sale | TransactionType::Refund, None) => {}
            _ => return malformed("terms.cash_back: with cash-back, from 1 to below the amount expected"),
        }
        if let Some(staff) = &self.staff {
            check_identifier("terms.staff", staff)?;
        }
        if self.card_expiry.is_some_and(|expiry| !expiry.is_month()) {
            return malformed("terms.card_expiry: a year and month such as 2711 expected");
        }
        if self
            .supervisor
            .as_ref()
            .is_some_and(|signed| signed.is_empty() || signed.len() > MAX_OVERRIDE)
        {
            return malformed("terms.supervisor: 1 to 512 bytes expected");
        }
        match &self.supervisor {
            Some(signed) if hides_card_number(signed) => Err(clear_card_number("terms.supervisor")),
            _ => Ok(()),
        }
    }
}

/// Whether bytes that should be a signed override hold a card number. Of what
/// is one there is nothing to look at: all its fields are ids and numbers.
fn hides_card_number(signed: &[u8]) -> bool {
    match Unverified::payload_of(signed) {
        Ok(payload) => crate::cbor::decode::<Override>(payload).is_err() && bytes_hold_card_number(payload),
        Err(_) => bytes_hold_card_number(signed),
    }
}

/// An id is made of random bytes. An app that takes a card number for it would
/// have it in every ledger for ever.
pub(crate) fn check_payment_id(payment_id: &PaymentId) -> Result<(), Refusal> {
    match bytes_hold_card_number(&payment_id.0) {
        true => Err(clear_card_number("payment_id")),
        false => Ok(()),
    }
}

/// The number itself is not echoed.
pub(crate) fn clear_card_number(field: &str) -> Refusal {
    Refusal::new(
        RefusalCode::ClearCardNumber,
        format!("{field} holds a clear card number"),
    )
}

fn check_amount(amount: Int) -> Result<(), Refusal> {
    let amount = i128::from(amount);
    let fault = match amount {
        i128::MIN..=-1 => RefusalCode::AmountNegative,
        0 => RefusalCode::AmountZero,
        _ if amount > i128::from(MAX_AMOUNT_MINOR) => RefusalCode::AmountTooLarge,
        _ => return Ok(()),
    };
    Err(Refusal::new(
        fault,
        "amount: 1 to 999999999999 minor units expected",
    ))
}

/// An identifier: 1 to 64 printable ASCII characters without a clear card
/// number. Other scripts have digits too, in which a card number could hide.
fn check_identifier(field: &str, text: &str) -> Result<(), Refusal> {
    check_printable(field, text, "printable ASCII characters", |c| {
        c == ' ' || c.is_ascii_graphic()
    })
}

/// A text for people: 1 to 64 bytes without control or invisible characters,
/// without digits of other scripts and without a clear card number.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), Refusal> {
    check_printable(field, text, "bytes of plain text", |c| {
        c.is_ascii_graphic() || !(c.is_control() || c.is_numeric() || invisible(c))
    })
}

fn check_printable(field: &str, text: &str, what: &str, allowed: fn(char) -> bool) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > MAX_TEXT || !text.chars().all(allowed) {
        return Err(Refusal::new(
            RefusalCode::FieldMalformed,
            format!("{field}: 1 to {MAX_TEXT} {what} expected"),
        ));
    }
    if holds_card_number(text) {
        return Err(clear_card_number(field));
    }
    Ok(())
}

/// Characters that show nothing or turn the direction of what follows: they
/// split a number for a program but not for a reader, and forge log lines.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The card data as the reader sealed it to the gateway's key. The hub cannot
/// open it. It travels beside the signed request, which carries its digest.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealedCard {
    /// 16 random bytes, so that the digest says nothing of the blob once both
    /// are destroyed.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// The sealed card data, 1 to [`MAX_SEALED_CARD`] bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub blob: Vec<u8>,
}

impl core::fmt::Debug for SealedCard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SealedCard({} bytes)", self.blob.len())
    }
}

impl SealedCard {
    /// SHA-256 over salt and blob: what the signed request carries.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(&self.blob);
        Digest(hash.finalize().into())
    }

    /// Holds the blob to its size and to the digest that the device signed.
    pub fn check(&self, signed_digest: &Digest) -> Result<(), Refusal> {
        if self.blob.is_empty() || self.blob.len() > MAX_SEALED_CARD {
            return Err(Refusal::new(
                RefusalCode::SealedCardSize,
                format!("sealed card: 1 to {MAX_SEALED_CARD} bytes expected"),
            ));
        }
        // Sealed data are as good as random, and long: packed digits stand in
        // them by chance, a text does not. A salt is too short for either.
        if written_out(&self.blob) || bytes_hold_card_number(&self.salt) {
            return Err(clear_card_number("sealed card"));
        }
        if self.digest() != *signed_digest {
            return Err(Refusal::new(
                RefusalCode::SealedCardDigest,
                "the sealed card is not the one that the request was signed for",
            ));
        }
        Ok(())
    }
}

/// A device's request to void a payment it made, signed by the device
/// ([`ObjectType::VoidRequest`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VoidRequest {
    /// The payment to void.
    #[n(1)]
    pub payment_id: PaymentId,
    /// Counts this device's requests; grows by one each time.
    #[n(2)]
    pub device_sequence: u64,
    /// The device's clock, milliseconds since 1970 UTC.
    #[n(3)]
    pub device_time_ms: u64,
}
