//! What can go wrong at the gateway, on purpose and repeatably.

use hub_protocol::MerchantAdvice;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What goes wrong. Chances run from 0 (never) to 1 (always) and are drawn
/// from the seed, the payment id and how often that payment has been asked,
/// so that the same run has the same faults. All at rest by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// This answer to every call about payments, and nothing is booked.
    pub canned: Option<Canned>,
    /// Chance that a call is swallowed: not booked, never answered.
    pub never_answer: f64,
    /// Chance that a call is booked and the line dropped instead of answered.
    pub commit_then_drop: f64,
    /// Chance of a 429; nothing is booked.
    pub throttle: f64,
    /// Chance of a 503; nothing is booked.
    pub unavailable: f64,
    /// `Retry-After` of those two: seconds or an HTTP date.
    pub retry_after: Option<String>,
    /// Chance of a 422 although nothing conflicts; nothing is booked.
    pub conflict: f64,
    /// Chance that an answer takes `delay_ms` longer. The call is booked
    /// after the delay, whether the asker still waits or not.
    pub slow: f64,
    /// Milliseconds.
    pub delay_ms: u64,
    /// Chance that a payment, when first seen, is undecided for a while.
    pub pending: f64,
    /// How many times such a payment is answered 202.
    pub pending_times: u32,
    /// Chance that the issuer declines a payment.
    pub decline: f64,
    /// Tokens beginning so are declined.
    pub decline_token_prefix: Option<String>,
    /// Amounts whose last two digits (minor units) are these are declined.
    pub decline_amount_ending: Option<u8>,
    /// The response code of those two declines; `05` if it is not given.
    pub decline_code: Option<String>,
    /// The merchant advice code of those two declines, two digits; none if it
    /// is not given.
    pub decline_advice: Option<String>,
    /// Those two declines end with this presentation: later ones are
    /// approved.
    pub decline_presentations: Option<u32>,
    /// Idempotency keys are forgotten so many milliseconds after the payment
    /// was decided. The payment can still be looked up and reversed, and is
    /// charged again if it is sent again.
    pub forget_keys_after_ms: Option<u64>,
    /// So many calls about payments are worked on at a time; others wait.
    pub places: Option<u32>,
    /// `Replay-Spread` of the probe's answer, in seconds.
    pub replay_spread: Option<u64>,
    /// `never_answer`, `unavailable` and `slow` hit the probe as well.
    pub health_too: bool,
}

/// A made-up answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canned {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// `Retry-After`, if any.
    #[serde(default)]
    pub retry_after: Option<String>,
    /// The body; `{payment_id}` stands for the id that was asked for.
    #[serde(default)]
    pub body: String,
}

impl Faults {
    /// Holds chances to 0..=1 and the canned status to what HTTP has.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn check(&self) -> Result<(), String> {
        let chances = [
            ("never_answer", self.never_answer),
            ("commit_then_drop", self.commit_then_drop),
            ("throttle", self.throttle),
            ("unavailable", self.unavailable),
            ("conflict", self.conflict),
            ("slow", self.slow),
            ("pending", self.pending),
            ("decline", self.decline),
        ];
        for (name, chance) in chances {
            if !(0.0..=1.0).contains(&chance) {
                return Err(format!("{name}: a chance from 0 to 1 expected"));
            }
        }
        if self.decline_amount_ending.is_some_and(|ending| ending > 99) {
            return Err("decline_amount_ending: 0 to 99 expected".to_owned());
        }
        let two_digits = |code: &String| code.parse::<MerchantAdvice>().is_ok();
        if !self.decline_advice.as_ref().is_none_or(two_digits) {
            return Err("decline_advice: two digits expected, such as \"03\"".to_owned());
        }
        if let Some(canned) = &self.canned
            && !(200..=599).contains(&canned.status)
        {
            return Err("canned.status: 200 to 599 expected".to_owned());
        }
        Ok(())
    }
}

/// Draws chances for one ask about one payment.
#[derive(Clone, Copy)]
pub(super) struct Dice<'a> {
    pub(super) seed: u64,
    pub(super) payment_id: &'a str,
}

impl Dice<'_> {
    /// Whether something with this chance happens. `ask` counts the asks for
    /// the payment, so that a retry may fare better; pass 0 for what must
    /// stay the same for the payment's life.
    pub(super) fn falls(&self, what: &str, ask: u32, chance: f64) -> bool {
        self.draw(what, ask) < chance
    }

    /// Uniform in [0, 1).
    fn draw(&self, what: &str, ask: u32) -> f64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(ask.to_be_bytes());
        hash.update(self.payment_id);
        hash.update([0]);
        hash.update(what);
        let digest: [u8; 32] = hash.finalize().into();
        let bits = digest
            .iter()
            .take(7)
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
            >> 3;
        // 53 bits fit a double exactly.
        bits as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        let run = |seed| -> Vec<bool> {
            (0..64)
                .map(|n| {
                    Dice {
                        seed,
                        payment_id: "p",
                    }
                    .falls("slow", n, 0.5)
                })
                .collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn chances_are_what_they_say() {
        let hits = |chance| {
            (0..10_000)
                .filter(|n| {
                    Dice {
                        seed: 3,
                        payment_id: &n.to_string(),
                    }
                    .falls("decline", 0, chance)
                })
                .count()
        };
        assert_eq!(hits(0.0), 0);
        assert_eq!(hits(1.0), 10_000);
        assert!((2_000..3_000).contains(&hits(0.25)), "{}", hits(0.25));
    }

    #[test]
    fn faults_out_of_range_and_unknown_ones_are_refused() {
        let over = Faults {
            slow: 1.5,
            ..Faults::default()
        };
        assert!(over.check().unwrap_err().contains("slow"));
        assert!(
            Faults {
                decline: f64::NAN,
                ..Faults::default()
            }
            .check()
            .is_err()
        );
        let advice = |code: &str| Faults {
            decline_advice: Some(code.to_owned()),
            ..Faults::default()
        };
        assert!(advice("3").check().unwrap_err().contains("decline_advice"));
        assert!(advice("03").check().is_ok());
        assert!(serde_json::from_str::<Faults>(r#"{"slwo":1}"#).is_err());
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::default());
    }
}
