//! Enrolment codes: who may still use which, kept in memory only. A hub that
//! restarts has forgotten them, and the technician takes another.
//!
//! The rules:
//!
//! - A code is good for ten minutes by the monotonic clock, and for one
//!   device.
//! - It belongs to the first device that presents it with everything else in
//!   order, and is given back if the hub refuses for certain, so that a full
//!   disk does not cost a code.
//! - For [`GRACE_MS`] after its use, the device that used it may present it
//!   again with the same keys: its answer may have been lost on the way.
//! - Five tokens that match no code void all codes. Nobody guesses 128 bits;
//!   whoever tries is noticed, and the technician starts again.
//!
//! Time is an argument, in milliseconds of the monotonic clock.
#![allow(clippy::disallowed_methods)] // entropy: tokens are made here

use hub_protocol::enrolment::CODE_LIFETIME_SECONDS;
use hub_protocol::{DeviceClass, DeviceId, KeyId, Refusal, RefusalCode};
use subtle::ConstantTimeEq;

/// The most codes outstanding at once.
pub const MAX_CODES: usize = 16;

/// The tries with an unknown token that void all codes.
pub const MAX_WRONG_TRIES: u32 = 5;

/// How long the device that used a code may present it again, in
/// milliseconds.
pub const GRACE_MS: u64 = 30_000;

const LIFETIME_MS: u64 = CODE_LIFETIME_SECONDS * 1000;

/// Why no code was made.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// Sixteen codes are outstanding.
    #[error("16 enrolment codes are outstanding; use them or wait until they expire, at most ten minutes")]
    TooMany,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Entropy(#[source] getrandom::Error),
}

/// 128 random bits.
///
/// # Errors
///
/// [`CodeError::Entropy`].
pub(super) fn random_token() -> Result<[u8; 16], CodeError> {
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(CodeError::Entropy)?;
    Ok(token)
}

type Keys = (DeviceId, KeyId);

/// Why a token is not good.
#[derive(Debug)]
pub(super) struct NotGood {
    /// What the device is told.
    pub(super) refusal: Refusal,
    /// Whether it matches no code at all.
    pub(super) is_guess: bool,
}

impl From<Refusal> for NotGood {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            is_guess: false,
        }
    }
}

/// What a code is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the technician says the device is. A device does not choose its
    /// own limits.
    pub class: DeviceClass,
    /// Whose place it takes, if it takes one.
    pub replaces: Option<Replacement>,
}

/// A device whose place another takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Which.
    pub device: DeviceId,
    /// Whether it is lost.
    pub lost: bool,
    /// Who says so.
    pub operator: String,
}

impl From<DeviceClass> for Grant {
    /// A device of its own.
    fn from(class: DeviceClass) -> Self {
        Self {
            class,
            replaces: None,
        }
    }
}

struct Code {
    token: [u8; 16],
    grant: Grant,
    expires_ms: u64,
    /// The only device that may present it, once one has.
    by: Option<Keys>,
    /// How often it has been presented without an outcome that is known.
    under_way: u32,
    /// When its use was written down.
    used_ms: Option<u64>,
}

impl Code {
    fn outstanding(&self, now_ms: u64) -> bool {
        match self.used_ms {
            None => now_ms < self.expires_ms,
            Some(at) => now_ms < at.saturating_add(GRACE_MS),
        }
    }
}

/// The codes that are outstanding.
#[derive(Default)]
pub(super) struct Codes {
    codes: Vec<Code>,
    wrong_tries: u32,
}

impl Codes {
    /// Makes a code's token.
    ///
    /// # Errors
    ///
    /// [`CodeError::TooMany`] while [`MAX_CODES`] are outstanding.
    pub(super) fn issue(&mut self, grant: impl Into<Grant>, now_ms: u64) -> Result<[u8; 16], CodeError> {
        // Expired codes stay for one more lifetime, so that whoever is late
        // is told that, and not that the code is unknown.
        self.codes
            .retain(|c| c.outstanding(now_ms) || now_ms < c.expires_ms.saturating_add(LIFETIME_MS));
        if self.codes.len() >= MAX_CODES {
            self.codes.retain(|c| c.outstanding(now_ms));
        }
        if self.codes.len() >= MAX_CODES && !self.drop_oldest_used() {
            return Err(CodeError::TooMany);
        }
        // Guesses at earlier codes say nothing against this one.
        if !self.any_outstanding(now_ms) {
            self.wrong_tries = 0;
        }
        let token = random_token()?;
        self.codes.push(Code {
            token,
            grant: grant.into(),
            expires_ms: now_ms.saturating_add(LIFETIME_MS),
            by: None,
            under_way: 0,
            used_ms: None,
        });
        Ok(token)
    }

    /// A technician who enrols one device after another needs room more than
    /// the first of them needs the rest of its grace. False if no code has
    /// been used.
    fn drop_oldest_used(&mut self) -> bool {
        let used = self
            .codes
            .iter()
            .enumerate()
            .filter_map(|(place, code)| Some((code.used_ms?, place)));
        let oldest = used.min().map(|(_, place)| place);
        if let Some(place) = oldest {
            self.codes.remove(place);
        }
        oldest.is_some()
    }

    /// Whether the enrolment endpoint has anything to wait for.
    pub(super) fn any_outstanding(&self, now_ms: u64) -> bool {
        self.codes.iter().any(|c| c.outstanding(now_ms))
    }

    /// A device presents a token. On success the code is bound to the device,
    /// and says what it is for; say [`used`](Self::used) or [`give_back`](Self::give_back) next, or
    /// neither if the outcome is not known.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::EnrolmentUnknown`] or [`RefusalCode::EnrolmentExpired`].
    pub(super) fn present(
        &mut self,
        token: &[u8; 16],
        device: DeviceId,
        key: KeyId,
        now_ms: u64,
    ) -> Result<Grant, NotGood> {
        // Every code is compared, whichever matches, in constant time.
        let mut found = None;
        for (place, code) in self.codes.iter().enumerate() {
            if bool::from(code.token.ct_eq(token)) {
                found = Some(place);
            }
        }
        let Some(code) = found.and_then(|place| self.codes.get_mut(place)) else {
            self.wrong_try();
            return Err(NotGood {
                refusal: unknown(),
                is_guess: true,
            });
        };
        let keys = (device, key);
        if code.by.is_some_and(|by| by != keys) {
            return Err(unknown().into());
        }
        if !code.outstanding(now_ms) {
            return Err(match code.used_ms {
                Some(_) => unknown(),
                None => Refusal::new(
                    RefusalCode::EnrolmentExpired,
                    "the enrolment code has expired; ask for another with `hubctl enrol`",
                ),
            }
            .into());
        }
        code.by = Some(keys);
        code.under_way = code.under_way.saturating_add(1);
        Ok(code.grant.clone())
    }

    /// The enrolment is written down.
    pub(super) fn used(&mut self, token: &[u8; 16], now_ms: u64) {
        for code in self.codes.iter_mut().filter(|c| c.token == *token) {
            // The grace runs from the first use, or it would never end.
            code.used_ms.get_or_insert(now_ms);
            code.under_way = code.under_way.saturating_sub(1);
        }
    }

    /// The hub refused for certain: another device may present the code,
    /// unless it was used before, or the same device has asked once more and
    /// may still be enrolled by it.
    pub(super) fn give_back(&mut self, token: &[u8; 16]) {
        for code in self.codes.iter_mut().filter(|c| c.token == *token) {
            code.under_way = code.under_way.saturating_sub(1);
            if code.used_ms.is_none() && code.under_way == 0 {
                code.by = None;
            }
        }
    }

    fn wrong_try(&mut self) {
        self.wrong_tries += 1;
        if self.wrong_tries >= MAX_WRONG_TRIES {
            tracing::warn!(
                tries = self.wrong_tries,
                "unknown enrolment tokens were presented; all outstanding codes are void"
            );
            self.codes.clear();
            self.wrong_tries = 0;
        }
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        RefusalCode::EnrolmentUnknown,
        "the enrolment code is not known, used up or withdrawn; ask for another with `hubctl enrol`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 32]);
    const OTHER: DeviceId = DeviceId([2; 32]);
    const KEY: KeyId = KeyId([3; 16]);

    fn present(codes: &mut Codes, token: [u8; 16], device: DeviceId, now: u64) -> Result<(), RefusalCode> {
        codes
            .present(&token, device, KEY, now)
            .map(|_| ())
            .map_err(|not_good| not_good.refusal.code)
    }

    #[test]
    fn a_code_is_good_once_and_for_one_device() {
        let mut codes = Codes::default();
        let token = codes.issue(DeviceClass::Mpos, 0).unwrap();
        assert_eq!(present(&mut codes, token, DEVICE, 1), Ok(()));
        // Somebody else, while the enrolment is being written down and after.
        assert_eq!(
            present(&mut codes, token, OTHER, 2),
            Err(RefusalCode::EnrolmentUnknown)
        );
        codes.used(&token, 3);
        assert_eq!(
            present(&mut codes, token, OTHER, 4),
            Err(RefusalCode::EnrolmentUnknown)
        );
        // The same device asks again because its answer was lost, not later.
        assert_eq!(present(&mut codes, token, DEVICE, 3 + GRACE_MS - 1), Ok(()));
        codes.used(&token, 5);
        assert_eq!(
            present(&mut codes, token, DEVICE, 3 + GRACE_MS),
            Err(RefusalCode::EnrolmentUnknown)
        );
        assert!(!codes.any_outstanding(3 + GRACE_MS));
    }

    #[test]
    fn a_code_stays_with_a_device_that_asked_twice_and_was_refused_once() {
        let mut codes = Codes::default();
        let token = codes.issue(DeviceClass::Mpos, 0).unwrap();
        assert_eq!(present(&mut codes, token, DEVICE, 1), Ok(()));
        assert_eq!(present(&mut codes, token, DEVICE, 2), Ok(()));
        codes.give_back(&token);
        let other = present(&mut codes, token, OTHER, 3);
        assert_eq!(
            other,
            Err(RefusalCode::EnrolmentUnknown),
            "one of them is under way"
        );
        codes.give_back(&token);
        assert_eq!(present(&mut codes, token, OTHER, 4), Ok(()));
    }

    #[test]
    fn guesses_at_earlier_codes_void_no_later_one() {
        let mut codes = Codes::default();
        codes.issue(DeviceClass::Mpos, 0).unwrap();
        for _ in 1..MAX_WRONG_TRIES {
            assert!(present(&mut codes, [0; 16], OTHER, 1).is_err());
        }
        let token = codes.issue(DeviceClass::Mpos, LIFETIME_MS).unwrap();
        assert!(present(&mut codes, [0; 16], OTHER, LIFETIME_MS).is_err());
        assert_eq!(present(&mut codes, token, DEVICE, LIFETIME_MS), Ok(()));
    }

    #[test]
    fn a_code_expires_after_ten_minutes_of_the_monotonic_clock() {
        let mut codes = Codes::default();
        let token = codes.issue(DeviceClass::Mpos, 1000).unwrap();
        assert!(codes.any_outstanding(600_999));
        assert!(!codes.any_outstanding(601_000));
        assert_eq!(
            present(&mut codes, token, DEVICE, 601_000),
            Err(RefusalCode::EnrolmentExpired)
        );
        let token = codes.issue(DeviceClass::Mpos, 601_000).unwrap();
        assert_eq!(present(&mut codes, token, DEVICE, 1_200_999), Ok(()));
    }

    #[test]
    fn forty_devices_are_enrolled_one_after_another_without_a_wait() {
        let mut codes = Codes::default();
        let first = codes.issue(DeviceClass::Mpos, 0).unwrap();
        for number in 0..40 {
            let token = codes.issue(DeviceClass::Mpos, number).unwrap();
            assert_eq!(present(&mut codes, token, DEVICE, number), Ok(()));
            codes.used(&token, number);
        }
        assert_eq!(
            present(&mut codes, first, OTHER, 40),
            Ok(()),
            "an unused code is never dropped"
        );
        while codes.codes.iter().any(|code| code.used_ms.is_some()) {
            codes.issue(DeviceClass::Mpos, 41).unwrap();
        }
        assert!(matches!(
            codes.issue(DeviceClass::Mpos, 41),
            Err(CodeError::TooMany)
        ));
    }

    #[test]
    fn a_code_is_given_back_when_the_hub_refuses() {
        let mut codes = Codes::default();
        let token = codes.issue(DeviceClass::Mpos, 0).unwrap();
        assert_eq!(present(&mut codes, token, DEVICE, 1), Ok(()));
        codes.give_back(&token);
        assert_eq!(present(&mut codes, token, OTHER, 2), Ok(()));
    }

    #[test]
    fn five_unknown_tokens_void_all_codes() {
        let mut codes = Codes::default();
        let tokens = [
            codes.issue(DeviceClass::Mpos, 0).unwrap(),
            codes.issue(DeviceClass::Mpos, 0).unwrap(),
        ];
        for _ in 1..MAX_WRONG_TRIES {
            assert_eq!(
                present(&mut codes, [9; 16], OTHER, 1),
                Err(RefusalCode::EnrolmentUnknown)
            );
        }
        assert!(codes.any_outstanding(1));
        assert_eq!(
            present(&mut codes, [9; 16], OTHER, 1),
            Err(RefusalCode::EnrolmentUnknown)
        );
        assert!(!codes.any_outstanding(1));
        for token in tokens {
            assert_eq!(
                present(&mut codes, token, DEVICE, 1),
                Err(RefusalCode::EnrolmentUnknown)
            );
        }
    }

    #[test]
    fn at_most_sixteen_codes_are_outstanding() {
        let mut codes = Codes::default();
        for _ in 0..MAX_CODES {
            codes.issue(DeviceClass::Mpos, 0).unwrap();
        }
        assert!(matches!(
            codes.issue(DeviceClass::Mpos, 1),
            Err(CodeError::TooMany)
        ));
        assert!(codes.issue(DeviceClass::Mpos, LIFETIME_MS).is_ok());
    }
}
