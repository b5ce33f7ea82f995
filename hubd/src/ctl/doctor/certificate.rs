//! Until when the certificates hold that the gateway is checked by.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Finding;
use crate::clock;
use crate::ctl::show::{instant, span};

/// From how long before its end on a certificate is to be looked after.
const NEAR_END_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// The certificates in `gateway.ca_file`. With the public authorities there is
/// nothing to look at: the system renews them.
pub(super) fn authority(file: &Path) -> Finding {
    const CHECK: &str = "gateway certificate";
    let name = file.display();
    let ends = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .ok()
        .map(|all| all.iter().filter_map(|one| not_after(one)).collect::<Vec<u64>>());
    let Some(ends) = ends.filter(|ends| !ends.is_empty()) else {
        return Finding::bad(
            CHECK,
            format!("{name} holds no certificate that can be read; get it from the gateway again"),
        );
    };
    // With several, the last one that holds keeps the line up.
    let last = ends.into_iter().max().unwrap_or(0);
    standing(CHECK, &name.to_string(), last, clock::wall_ms())
}

fn standing(check: &'static str, name: &str, ends_ms: u64, now_ms: u64) -> Finding {
    let until = instant(ends_ms);
    match ends_ms.checked_sub(now_ms) {
        None | Some(0) => Finding::bad(
            check,
            format!("{name} ended at {until}: the gateway cannot be reached; get the next one from it"),
        ),
        Some(left) if left < NEAR_END_MS => Finding::warning(
            check,
            format!(
                "{name} ends in {}, at {until}; get the next one from the gateway in time",
                span(left / 1000)
            ),
        ),
        Some(_) => Finding::good(check, format!("{name} holds until {until}")),
    }
}

/// `notAfter` of a certificate (RFC 5280 §4.1.2.5), milliseconds since 1970
/// UTC; 0 for one before that.
fn not_after(certificate: &[u8]) -> Option<u64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, behind) = element(validity)?;
    let (tag, time, _) = element(behind)?;
    let time = std::str::from_utf8(time).ok()?;
    let time = match tag {
        // UTCTime: two digits of the year, 1950 to 2049.
        0x17 if time.get(..2)?.parse::<u8>().ok()? < 50 => format!("20{time}"),
        0x17 => format!("19{time}"),
        0x18 => time.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", time).ok()?;
    let time = TimeZone::UTC.to_timestamp(time).ok()?;
    Some(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

/// What is told of any bytes as a certificate.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(ends_ms) = not_after(bytes) {
        let _ = standing("gateway certificate", "ca.pem", ends_ms, 1_795_000_000_000);
    }
}

/// Tag and content of the first element in DER (X.690), and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut made = rcgen::CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
        made.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        made.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        // 2031-02-03 and 2051-02-03, 00:00 UTC: UTCTime and GeneralizedTime.
        assert_eq!(not_after(&certificate(2031, 2, 3)), Some(1_927_843_200_000));
        assert_eq!(not_after(&certificate(2051, 2, 3)), Some(2_558_995_200_000));
        let whole = certificate(2031, 2, 3);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_certificate_is_looked_after_from_thirty_days_before_its_end() {
        let now = 1_900_000_000_000;
        let at = |ends| standing("gateway certificate", "ca.pem", ends, now).standing;
        assert_eq!(at(now + 30 * DAY_MS), Standing::Good);
        assert_eq!(at(now + 30 * DAY_MS - 1), Standing::Warning);
        assert_eq!(at(now + 1), Standing::Warning);
        assert_eq!(at(now), Standing::Bad);
    }
}
