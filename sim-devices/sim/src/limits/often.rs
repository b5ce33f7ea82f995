//! How often in a while, and how much by taps without verification: as drawn,
//! and what it means, by `docs/policy.md`.

use hub_protocol::{Cryptogram, Currency, EntryMode, PaymentRequest, Verification};

use crate::profile::pick;
use crate::rng::Rng;

/// At most so many offline approvals within some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) count: u32,
    pub(crate) minutes: u64,
}

/// Of a card, and of a device of any class. The same in all policies of a
/// run: what counts after a policy without a window is not said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Windows {
    pub(crate) card: Option<Window>,
    pub(crate) device: Option<Window>,
}

impl Window {
    pub(super) fn draw(rng: &mut Rng, counts: &[u64], pace_ms: u64) -> Self {
        Self {
            count: u32::try_from(pick(rng, counts)).unwrap_or(1),
            minutes: 1 + rng.below(2 + pace_ms * 60 / 60_000),
        }
    }

    pub(super) fn text(&self, prefix: &str) -> String {
        let Self { count, minutes } = self;
        format!("{prefix}window_count = {count}\n{prefix}window_minutes = {minutes}\n")
    }

    /// Whether it is over a payment of `at_ms`, or still counts it.
    pub(crate) fn counts(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms < at_ms + self.minutes * 60_000
    }
}

impl Windows {
    pub(crate) fn draw(rng: &mut Rng, pace_ms: u64) -> Self {
        Self {
            card: rng
                .chance(200)
                .then(|| Window::draw(rng, &[1, 2, 2, 3, 4], pace_ms)),
            device: rng
                .chance(200)
                .then(|| Window::draw(rng, &[1, 2, 3, 5, 8], pace_ms)),
        }
    }

    pub(crate) fn any(&self) -> bool {
        self.card.is_some() || self.device.is_some()
    }

    pub(super) fn text_of_card(&self) -> String {
        self.card.map_or_else(String::new, |window| window.text(""))
    }

    pub(super) fn text_of_device(&self) -> String {
        self.device
            .map_or_else(String::new, |window| window.text("device_"))
    }
}

/// What one card may pay by taps without verification.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TapLimits {
    pub(crate) sum: Option<u64>,
    pub(crate) count: Option<u32>,
}

impl TapLimits {
    pub(super) fn draw(rng: &mut Rng, step: u64) -> Self {
        if !rng.chance(350) {
            return Self::default();
        }
        Self {
            sum: rng
                .chance(600)
                .then(|| step * rng.below(9) + pick(rng, &[0, 1, 50])),
            count: rng
                .chance(600)
                .then(|| u32::try_from(rng.below(5)).unwrap_or_default()),
        }
    }

    pub(super) fn text(&self) -> String {
        let sum = self
            .sum
            .map(|sum| format!("contactless_cumulative_ceiling = {sum}\n"));
        let count = self
            .count
            .map(|count| format!("contactless_consecutive_limit = {count}\n"));
        sum.into_iter().chain(count).collect()
    }
}

/// Most of these sales are taps without verification, the others show a PIN.
pub(crate) fn tap(request: &mut PaymentRequest, rng: &mut Rng, chance: u64) {
    if !rng.chance(chance) {
        return;
    }
    (request.entry_mode, request.verification) = if rng.chance(750) {
        (EntryMode::Contactless, Verification::None)
    } else {
        (EntryMode::Chip, Verification::OfflinePin)
    };
    request.currency = Currency::EUR;
    request.cryptogram = Cryptogram::AsksOnline;
}

/// By the reader alone, or with a signature: nobody has shown that it is the
/// holder's hand.
pub(crate) fn is_tap(request: &PaymentRequest) -> bool {
    request.entry_mode == EntryMode::Contactless && !is_verified(request)
}

/// By a PIN, or on the holder's own device, and not typed in.
pub(crate) fn is_verified(request: &PaymentRequest) -> bool {
    match verified_how(request) {
        Verification::OfflinePin | Verification::OnlinePin | Verification::Cdcvm => true,
        Verification::None | Verification::Signature => false,
    }
}

/// Of a number that was typed in, only a signature is believed.
pub(crate) fn verified_how(request: &PaymentRequest) -> Verification {
    if request.entry_mode == EntryMode::Keyed && request.verification != Verification::Signature {
        return Verification::None;
    }
    request.verification
}
