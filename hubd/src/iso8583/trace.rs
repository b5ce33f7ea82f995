//! STAN and RRN: by what the acquirer knows a payment again.
//!
//! They are the same for every message about a payment, before and after a
//! restart. From the signed request they are the same in a hub that was
//! restored from a backup too, which has forgotten the payment and gets it once
//! more from its device.

use hub_protocol::entry::TraceRule;
use hub_protocol::{PaymentId, PaymentRequest};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

/// Trace numbers run from 1 to this; 000000 is never used.
const STANS: u64 = 999_999;

/// What is hashed before a payment id, so that its reference is the hash of
/// nothing else.
const REFERENCE: &[u8] = b"hub-retrieval-reference/1";

/// What names a payment in every message about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trace {
    /// System trace audit number, field 11: 6 digits out of the entry's
    /// sequence, so that two payments of one hub share it only if 999,999 or a
    /// multiple of it entries lie between them; or out of the device's count
    /// of its requests.
    pub stan: String,
    /// Retrieval reference number, field 37: 12 characters. Either `YDDDHH` of
    /// the entry's time (UTC) and the trace number; two payments of one hub
    /// share that only if they also fall into the same hour of two years ten
    /// years apart, or 999,999 entries were written within that hour. Or
    /// capital letters and digits out of a hash of the payment id, of which
    /// there are 4.7 million million million.
    pub rrn: String,
    /// Transmission date and time, field 7, in milliseconds since 1970 UTC:
    /// when the entry was made, or when the device says that it asked.
    pub at_ms: u64,
}

impl Trace {
    /// Of the payment with this request, which stands in the ledger entry
    /// `sequence`, made at `requested_ms` (milliseconds since 1970 UTC).
    pub fn new(rule: TraceRule, sequence: u64, requested_ms: u64, request: &PaymentRequest) -> Self {
        let stan = |count| format!("{:06}", stan_of(count));
        match rule {
            TraceRule::Entry => Self::of_entry(sequence, requested_ms),
            TraceRule::Payment => Self {
                stan: stan(sequence),
                rrn: reference(request.payment_id),
                at_ms: request.device_time_ms,
            },
            TraceRule::PaymentAndDevice => Self {
                stan: stan(request.device_sequence),
                rrn: reference(request.payment_id),
                at_ms: request.device_time_ms,
            },
        }
    }

    /// By the first rule, for which no request is needed.
    pub fn of_entry(sequence: u64, requested_ms: u64) -> Self {
        let stan = format!("{:06}", stan_of(sequence));
        let time = utc(requested_ms);
        let rrn = format!(
            "{}{:03}{:02}{stan}",
            time.year() % 10,
            time.day_of_year(),
            time.hour()
        );
        Self {
            stan,
            rrn,
            at_ms: requested_ms,
        }
    }
}

/// A reference that nothing but the payment id decides.
fn reference(id: PaymentId) -> String {
    let hash = Sha256::new()
        .chain_update(REFERENCE)
        .chain_update(id.0)
        .finalize();
    let mut left = hash
        .iter()
        .take(8)
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut characters = [b'0'; 12];
    for character in characters.iter_mut().rev() {
        let digit = (left % 36) as u8;
        left /= 36;
        *character = match digit {
            0..=9 => b'0' + digit,
            _ => b'A' + digit - 10,
        };
    }
    characters.iter().copied().map(char::from).collect()
}

/// Of 1, 2, 3 …: 1 to 999,999, and again.
pub fn stan_of(count: u64) -> u64 {
    count.saturating_sub(1) % STANS + 1
}

/// Transmission date and time, field 7: `MMDDhhmmss`, UTC.
pub fn transmission_time(at_ms: u64) -> String {
    utc(at_ms).strftime("%m%d%H%M%S").to_string()
}

/// Local time and date, fields 12 and 13: `hhmmss` and `MMDD`.
pub fn local_time(at_ms: u64, zone: &TimeZone) -> (String, String) {
    let local = timestamp(at_ms).to_zoned(zone.clone());
    (
        local.strftime("%H%M%S").to_string(),
        local.strftime("%m%d").to_string(),
    )
}

fn utc(at_ms: u64) -> jiff::civil::DateTime {
    timestamp(at_ms).to_zoned(TimeZone::UTC).datetime()
}

fn timestamp(at_ms: u64) -> Timestamp {
    let at = i64::try_from(at_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20Z, the 264th day.
    const AT: u64 = 1_790_000_000_000;

    #[test]
    fn a_payment_has_one_trace_for_life_and_no_neighbour_shares_it() {
        let trace = Trace::of_entry(41, AT);
        assert_eq!(trace.stan, "000041");
        assert_eq!(trace.rrn, "626414000041");
        assert_eq!(
            Trace::of_entry(41, AT),
            trace,
            "nothing but the ledger's entry counts"
        );
        let mut seen = std::collections::BTreeSet::new();
        for sequence in (1..50_000).chain(999_000..1_000_500) {
            assert!(
                seen.insert(Trace::of_entry(sequence, AT + sequence * 4)),
                "entry {sequence} has another's trace"
            );
        }
    }

    fn request(id: u8, device_sequence: u64, device_time_ms: u64) -> PaymentRequest {
        PaymentRequest {
            payment_id: PaymentId([id; 16]),
            device_sequence,
            amount: 1250.into(),
            currency: hub_protocol::Currency::EUR,
            order_id: "order-1".to_owned(),
            card: hub_protocol::CardFacts {
                token: "tok_abc".to_owned(),
                scheme: hub_protocol::CardScheme::Cb,
                funding: hub_protocol::Funding::Debit,
                issuer_country: None,
                bin: None,
                last4: None,
            },
            entry_mode: hub_protocol::EntryMode::Contactless,
            verification: hub_protocol::Verification::None,
            cryptogram: hub_protocol::Cryptogram::AsksOnline,
            sealed_card_digest: hub_protocol::Digest::ZERO,
            device_time_ms,
            terms: None,
        }
    }

    #[test]
    fn rule_3_a_ledger_that_was_put_back_names_a_payment_as_the_lost_one_did() {
        let request = request(0xa5, 1_000_007, AT);
        let name = |rule, sequence| Trace::new(rule, sequence, AT + sequence * 1_000, &request);
        let device = TraceRule::PaymentAndDevice;
        assert_eq!(name(device, 41), name(device, 9), "all from the request");
        assert_eq!(
            (name(device, 41).stan.as_str(), name(device, 41).at_ms),
            ("000008", AT)
        );
        let payment = TraceRule::Payment;
        assert_eq!(name(payment, 41).rrn, name(payment, 9).rrn);
        assert_eq!(name(payment, 41).at_ms, name(payment, 9).at_ms);
        assert_eq!(name(payment, 41).stan, "000041", "one count for all devices");
        assert_ne!(name(TraceRule::Entry, 41), name(TraceRule::Entry, 9));
        assert_eq!(name(TraceRule::Entry, 41), Trace::of_entry(41, AT + 41_000));
    }

    #[test]
    fn a_reference_is_for_one_payment_and_fits_field_37() {
        // By Python: base 36 of int.from_bytes(sha256(b"hub-retrieval-reference/1"
        // + 16 * b"\xa5").digest()[:8]) modulo 36 ** 12.
        assert_eq!(reference(PaymentId([0xa5; 16])), "ASVOUPEUP3ZD");
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..20_000_u64 {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&number.to_be_bytes());
            let reference = reference(PaymentId(id));
            assert_eq!(reference.len(), 12);
            assert!(
                reference
                    .bytes()
                    .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
            );
            assert!(seen.insert(reference), "{number}");
        }
    }

    #[test]
    fn the_trace_number_is_never_zero() {
        assert_eq!(stan_of(999_999), 999_999);
        assert_eq!(stan_of(1_000_000), 1);
        assert_eq!(stan_of(0), 1);
        assert_eq!(Trace::of_entry(999_999 * 2, AT).stan, "999999");
    }

    #[test]
    fn times_are_written_as_the_standard_has_them() {
        assert_eq!(transmission_time(AT), "0921141320");
        assert_eq!(
            local_time(AT, &TimeZone::UTC),
            ("141320".to_owned(), "0921".to_owned())
        );
        // Any time at all can be written.
        assert_eq!(transmission_time(u64::MAX).len(), 10);
    }
}
