//! What devices of wire version 3 state beside a payment, and the supervisors
//! whose word some of them bring. All of it is drawn from a sequence of the
//! payment's own, so that a seed's other draws do not hang on it.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    CardExpiry, Currency, DeviceId, EntryMode, KeyId, Override, PaymentId, PaymentRequest, Terms,
    TransactionType, Verification, cbor,
};

use crate::rng::Rng;
use crate::wire::PayMessage;

/// Who stands at the devices of the shop.
const STAFF: [&str; 3] = ["anna", "bob", "chloe"];

/// Supervisors: those of the first two numbers stand in policies, the third in
/// none.
static KEYS: LazyLock<[SigningKey; 3]> =
    LazyLock::new(|| [201, 202, 203].map(|seed| SigningKey::from_bytes(&[seed; 32])));

/// A supervisor's public key, by number.
pub(crate) fn public_key(supervisor: usize) -> [u8; 32] {
    KEYS.get(supervisor)
        .map_or([0; 32], |key| key.verifying_key().to_bytes())
}

/// As the ledger names them.
pub(crate) fn key_id(supervisor: usize) -> KeyId {
    KeyId::of_key(&public_key(supervisor))
}

/// What a supervisor has said, in clear: the model never reads the signed
/// bytes.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) supervisor: usize,
    said: Override,
    /// The signature is that of the supervisor's key.
    sound: bool,
}

impl Word {
    /// Of this payment; one in three is of something else, or forged.
    fn draw(own: &mut Rng, device: DeviceId, request: &PaymentRequest) -> Self {
        let mut said = Override {
            payment_id: request.payment_id,
            device,
            amount_minor: request.amount_minor(),
            currency: request.currency,
            time_ms: own.below(1_000_000),
        };
        let mut supervisor = usize::from(own.chance(300));
        let mut sound = true;
        match own.below(18) {
            0 => said.amount_minor += 1,
            1 => said.device.0[31] ^= 1,
            2 => said.payment_id = PaymentId([9; 16]),
            3 => said.currency = "CHF".parse().unwrap_or(Currency::EUR),
            4 => supervisor = 2,
            5 => sound = false,
            _ => {}
        }
        Self {
            supervisor,
            said,
            sound,
        }
    }

    fn signed(&self) -> Vec<u8> {
        let Some(key) = KEYS.get(self.supervisor) else {
            return Vec::new();
        };
        let mut signed = cose::sign(key, ObjectType::Override, &cbor::encode(&self.said));
        if let Some(last) = signed.last_mut() {
            *last ^= u8::from(!self.sound);
        }
        signed
    }

    /// Whether it is about this very payment of this device.
    pub(crate) fn is_about(&self, device: DeviceId, request: &PaymentRequest) -> bool {
        self.sound
            && self.said.payment_id == request.payment_id
            && self.said.device == device
            && self.said.amount_minor == request.amount_minor()
            && self.said.currency == request.currency
    }
}

/// What is stated before the amount is known.
pub(crate) fn draw(own: &mut Rng, now_ms: u64) -> Terms {
    let mut terms = Terms::of(match own.below(20) {
        0 | 1 => TransactionType::Refund,
        2..=4 => TransactionType::CashBack,
        _ => TransactionType::Sale,
    });
    let staff = usize::try_from(own.below(4)).unwrap_or_default();
    terms.staff = STAFF.get(staff).map(|name| (*name).to_owned());
    terms.training = own.chance(25);
    let month = utc_month(now_ms);
    terms.card_expiry = match own.below(12) {
        0 => Some(month - 1),
        1 => Some(month - 1 - own.below(40)),
        2..=4 => Some(month),
        5 => Some(month + 1),
        6 => Some(month + 1 + own.below(60)),
        _ => None,
    }
    .map(expiry);
    terms
}

/// What hangs on the amount: the cash, up to the most that is handed out or a
/// cent above it, and perhaps a supervisor's word.
pub(crate) fn complete(own: &mut Rng, message: &mut PayMessage, most_cash: Option<u64>, says: u64) {
    let (device, request) = (message.device, &mut message.request);
    if request.terms.is_none() {
        return;
    }
    if own.chance(says) {
        // Mostly where one helps: no PIN was entered, and nothing but a lower
        // limit is likely to be in the way.
        if own.chance(800) {
            (request.entry_mode, request.verification) = (EntryMode::Chip, Verification::Signature);
            if let Some(terms) = &mut request.terms {
                (terms.transaction_type, terms.training) = (TransactionType::Sale, false);
                terms.card_expiry = None;
            }
        }
        let word = Word::draw(own, device, request);
        if let Some(terms) = &mut request.terms {
            terms.supervisor = Some(word.signed());
        }
        message.word = Some(word);
    }
    let amount = message.request.amount_minor();
    if let Some(terms) = &mut message.request.terms
        && terms.transaction_type == TransactionType::CashBack
    {
        if amount < 2 {
            terms.transaction_type = TransactionType::Sale;
            return;
        }
        let edge = most_cash.filter(|_| own.chance(600));
        let parts = if own.chance(850) { 1 } else { 2 };
        let some = 1 + own.below(amount - 1);
        let cash = edge.map_or(some, |most| most / parts + own.below(2));
        terms.cash_back_minor = Some(cash.clamp(1, amount - 1));
    }
}

/// Months since the year 0, by UTC.
pub(crate) fn utc_month(ms: u64) -> u64 {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut days) = (1970, ms / 86_400_000);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = year * 12;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    month
}

fn expiry(month: u64) -> CardExpiry {
    let number = (month / 12 - 2000) * 100 + month % 12 + 1;
    CardExpiry(u16::try_from(number).unwrap_or_default())
}

/// Whether the month that a card tells is over.
pub(crate) fn is_over(expiry: CardExpiry, now_ms: u64) -> bool {
    let last = (2000 + u64::from(expiry.0 / 100)) * 12 + u64::from(expiry.0 % 100) - 1;
    utc_month(now_ms) > last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_good_to_the_last_millisecond_of_its_month() {
        // 2027-01-01T00:00:00Z and 2028-03-01T00:00:00Z.
        for (begin_ms, before, after) in [(1_798_761_600_000, 2612, 2701), (1_835_481_600_000, 2802, 2803)] {
            assert!(!is_over(CardExpiry(before), begin_ms - 1));
            assert!(is_over(CardExpiry(before), begin_ms));
            assert!(!is_over(CardExpiry(after), begin_ms));
            assert_eq!(expiry(utc_month(begin_ms)), CardExpiry(after));
            assert_eq!(expiry(utc_month(begin_ms - 1)), CardExpiry(before));
        }
    }

    #[test]
    fn what_is_drawn_is_acceptable_to_the_protocol() {
        for number in 1..500 {
            let id = crate::wire::payment_id(1, number);
            let mut rng = Rng::new(number);
            let mut request = crate::wire::request(&mut rng, id, number, 1);
            request.amount = (1 + rng.below(9)).into();
            request.terms = Some(Box::new(draw(&mut rng, 1_798_000_000_000)));
            let mut message = PayMessage::new(DeviceId([1; 32]), request);
            let most_cash = rng.below(6);
            complete(&mut rng, &mut message, Some(most_cash), 500);
            assert_eq!(message.request.check(), Ok(()), "{:?}", message.request);
        }
    }
}
