//! The ceilings and counts that hold for one payment at this moment: the
//! policy's, made smaller by what moves them.

use hub_protocol::{DeviceClass, EntryMode, PaymentRequest, Reason, Restriction, Verification};

use crate::decide::Situation;
use crate::policy::ceilings::{Fits, most_specific};
use crate::policy::device::Attestation;
use crate::policy::moving::Moment;
use crate::policy::velocity::Window;
use crate::policy::{ClassLimits, Policy, SubjectLimits};
use crate::risk::Recent;
use crate::state::Subject;

/// What is left for a device under the ceilings of device and store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// In minor units.
    pub(crate) amount_minor: u64,
    /// How many payments, none of which would have to be verified for its
    /// number.
    pub(crate) count: u32,
    /// The highest amount of one payment.
    pub(crate) transaction: u64,
    /// The highest sum of one card.
    pub(crate) card: u64,
}

/// The ceilings and counts for one payment, now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The highest amount of this payment, its tap's own ceiling aside.
    pub(crate) transaction: u64,
    /// The same by the PIN: of the inserted card, or on a phone's glass.
    by_pin: Option<u64>,
    /// The same by the customer's own device.
    by_own_device: Option<u64>,
    /// Whether the payment is a tap without verification.
    tapped: bool,
    /// The highest amount for a tap without verification.
    pub(crate) unverified_tap: Option<u64>,
    /// Which of the policy's ceilings that is.
    pub(crate) ceiling: Option<usize>,
    /// The share of the signed ceilings that holds for this payment.
    pub(crate) percent: u64,
    /// The same in the whole store.
    pub(crate) store_percent: u64,
    /// The same if no smaller share had held before.
    pub(crate) store_moved_percent: u64,
    card: SubjectLimits,
    device: SubjectLimits,
    store: SubjectLimits,
    staff: Option<SubjectLimits>,
    /// The cash asked for, and the most that is handed out.
    cash_back: Option<(u64, u64)>,
    /// The highest sum of one card under one allowance, and under all.
    allowed_card: (u64, u64),
    card_window: Option<Window>,
    device_window: Option<Window>,
}

impl Limits {
    /// `None` for a class that the policy does not name.
    pub(crate) fn now(request: &PaymentRequest, policy: &Policy, s: &Situation<'_>) -> Option<Self> {
        let class = policy.classes.get(&s.class)?;
        let limits = Self::of_class(class, policy, s);
        let moved = |amount: u64| share(amount, limits.percent);
        let as_read = Fits::of(request, s.class, &policy.cards);
        // A phone alone has no slot.
        let with_pin = match s.class {
            DeviceClass::Softpos => EntryMode::Contactless,
            _ => EntryMode::Chip,
        };
        let most = |kind: &Fits| {
            let found = most_specific(&policy.ceilings, kind);
            let amount = found.map_or(class.transaction_ceiling, |(_, ceiling)| ceiling.amount_minor);
            (found.map(|(number, _)| number), moved(amount))
        };
        let (ceiling, transaction) = most(&as_read);
        let verified = |entry_mode, verification| {
            let kind = Fits {
                entry_mode: Some(entry_mode),
                verification: Some(verification),
                ..as_read
            };
            let accepted = policy.offline.entry_modes.contains(&entry_mode);
            accepted.then(|| most(&kind).1)
        };
        Some(Self {
            transaction,
            by_pin: verified(with_pin, Verification::OfflinePin),
            by_own_device: verified(EntryMode::Contactless, Verification::Cdcvm),
            tapped: request.is_unverified_tap(),
            ceiling,
            cash_back: cash_asked(request).zip(policy.offline.cash_back_ceiling.map(moved)),
            ..limits
        })
    }

    /// The lowest that any payment of this class of device may find. `None` for
    /// a class that the policy does not name.
    pub(crate) fn of_any(policy: &Policy, s: &Situation<'_>) -> Option<Self> {
        let limits = Self::of_class(policy.classes.get(&s.class)?, policy, s);
        let kinds = policy.ceilings.iter();
        let fitting = kinds.filter(|ceiling| ceiling.fits.class.is_none_or(|class| class == s.class));
        let lowest = fitting
            .map(|ceiling| share(ceiling.amount_minor, limits.percent))
            .min();
        Some(Self {
            transaction: lowest.map_or(limits.transaction, |lowest| lowest.min(limits.transaction)),
            ..limits
        })
    }

    fn of_class(class: &ClassLimits, policy: &Policy, s: &Situation<'_>) -> Self {
        let shares = policy.moving.shares(&Moment {
            now_ms: s.now_ms,
            offline_ms: s.offline_ms,
            oldest_unsent_ms: s.oldest_unsent_ms,
            policy_age_ms: s.now_ms.saturating_sub(policy.not_before_ms),
            store_exposure_minor: s.store.exposure_minor,
            store_ceiling_minor: policy.store.exposure_ceiling,
            declined: s.declined,
            held: s.held,
        });
        let tightened = s.store_restriction.max(s.device_restriction) >= Restriction::Tightened;
        let tighten = policy.anomaly.as_ref().filter(|_| tightened);
        let stale = policy
            .attestation
            .as_ref()
            .and_then(|rules| rules.stale)
            .filter(|_| s.standing.attestation == Attestation::Stale);
        let percent = [
            Some(shares.own),
            tighten.map(|rules| rules.tighten_percent),
            stale.map(|stale| stale.percent),
        ];
        let percent = percent.into_iter().flatten().min().unwrap_or(shares.own);
        let moved = |amount: u64| share(amount, percent);
        let moved_subject = |limits: SubjectLimits| SubjectLimits {
            exposure_ceiling: moved(limits.exposure_ceiling),
            ..limits
        };
        let (each, aside) = policy.allowance.as_ref().map_or((0, 0), |rules| {
            (rules.card_ceiling_minor, rules.card_set_aside_minor())
        });
        // What was given under another policy, or before the ceilings moved,
        // may be more than is set aside now.
        let beyond = s.allowed_card_minor.saturating_sub(moved(aside));
        // What the hub has let a card have under another policy is still there.
        let not_for_the_hub = policy.card.exposure_ceiling.saturating_sub(s.hub_card_minor);
        let card_ceiling = moved(policy.card.exposure_ceiling.saturating_sub(aside)).saturating_sub(beyond);
        Self {
            transaction: moved(class.transaction_ceiling),
            by_pin: None,
            by_own_device: None,
            tapped: false,
            unverified_tap: policy.offline.contactless_unverified_ceiling,
            ceiling: None,
            percent,
            store_percent: shares.store,
            store_moved_percent: shares.moved,
            card: SubjectLimits {
                exposure_ceiling: card_ceiling,
                ..policy.card
            },
            allowed_card: (moved(each), moved(aside).min(not_for_the_hub)),
            device: moved_subject(class.device),
            store: policy.store,
            staff: policy.staff.map(moved_subject),
            cash_back: None,
            card_window: policy.card_window,
            device_window: class.window,
        }
    }

    /// As they are while the clock is trusted, and half of all while it is in
    /// doubt.
    pub(crate) fn by_clock(&self, s: &Situation<'_>) -> Self {
        if s.clock_suspect { self.halved() } else { *self }
    }

    fn halved(&self) -> Self {
        let half = |limits: SubjectLimits| SubjectLimits {
            exposure_ceiling: limits.exposure_ceiling / 2,
            consecutive_limit: limits.consecutive_limit / 2,
            consecutive_lower_limit: limits.consecutive_lower_limit.map(|limit| limit / 2),
        };
        let half_window = |window: Option<Window>| {
            window.map(|window| Window {
                most: window.most / 2,
                ..window
            })
        };
        Self {
            transaction: self.transaction / 2,
            by_pin: self.by_pin.map(|ceiling| ceiling / 2),
            by_own_device: self.by_own_device.map(|ceiling| ceiling / 2),
            unverified_tap: self.unverified_tap.map(|ceiling| ceiling / 2),
            card: half(self.card),
            device: half(self.device),
            store: half(self.store),
            staff: self.staff.map(half),
            cash_back: self.cash_back.map(|(asked, most)| (asked, most / 2)),
            allowed_card: (self.allowed_card.0 / 2, self.allowed_card.1 / 2),
            card_window: half_window(self.card_window),
            device_window: half_window(self.device_window),
            ..*self
        }
    }

    /// Whether a payment of this amount would pass the ceiling for one payment
    /// with the PIN.
    pub(crate) fn passes_by_pin(&self, amount: u64) -> bool {
        self.by_pin.is_some_and(|ceiling| amount <= ceiling)
    }

    /// The same by the customer's own device.
    pub(crate) fn passes_by_own_device(&self, amount: u64) -> bool {
        self.by_own_device.is_some_and(|ceiling| amount <= ceiling)
    }

    /// The first ceiling, count or window in the way.
    pub(crate) fn first_passed(&self, amount: u64, s: &Situation<'_>) -> Option<Reason> {
        let over = |subject: &Subject, limits: &SubjectLimits| {
            subject
                .exposure_minor
                .checked_add(amount)
                .is_none_or(|sum| sum > limits.exposure_ceiling)
        };
        let too_many =
            |subject: &Subject, limits: &SubjectLimits| subject.consecutive >= limits.consecutive_limit;
        let full = |window: Option<Window>, recent: Option<&Recent>, kept_back: u32| {
            window.is_some_and(|window| {
                let lately = recent.map_or(0, |recent| recent.count(s.now_ms, window));
                let counted = lately.saturating_add(u64::from(kept_back));
                counted >= u64::from(window.most)
            })
        };
        let cash_full = self.cash_back.is_some_and(|(asked, most)| asked > most);
        let staff = |check: &dyn Fn(&Subject, &SubjectLimits) -> bool| {
            self.staff.is_some_and(|limits| check(&s.staff, &limits))
        };
        let card_recent = s.card_velocity.map(|velocity| &velocity.recent);
        let too_high_for_a_tap = self.tapped && self.unverified_tap.is_some_and(|ceiling| amount > ceiling);
        let too_high = amount > self.transaction || too_high_for_a_tap;
        first(&[
            (too_high, Reason::TransactionCeiling),
            (cash_full, Reason::CashBackCeiling),
            (over(&s.card, &self.card), Reason::CardCeiling),
            (over(&s.device, &self.device), Reason::DeviceCeiling),
            (over(&s.store, &self.store), Reason::StoreCeiling),
            (staff(&over), Reason::StaffCeiling),
            (too_many(&s.card, &self.card), Reason::CardConsecutiveLimit),
            (too_many(&s.device, &self.device), Reason::DeviceConsecutiveLimit),
            (too_many(&s.store, &self.store), Reason::StoreConsecutiveLimit),
            (staff(&too_many), Reason::StaffConsecutiveLimit),
            (full(self.card_window, card_recent, 0), Reason::CardWindow),
            (
                full(self.device_window, s.device_recent, s.device_reserved),
                Reason::DeviceWindow,
            ),
        ])
    }

    /// What is left at the device, in the store, and of whoever has most at
    /// risk of the staff.
    pub(crate) fn room(&self, s: &Situation<'_>) -> Room {
        let amount = |limits: &SubjectLimits, at_risk: &Subject| {
            limits.exposure_ceiling.saturating_sub(at_risk.exposure_minor)
        };
        let count = |limits: &SubjectLimits, at_risk: &Subject| {
            let lower = limits.consecutive_lower_limit.unwrap_or(u32::MAX);
            limits
                .consecutive_limit
                .min(lower)
                .saturating_sub(at_risk.consecutive)
        };
        let in_window = self.device_window.map_or(u32::MAX, |window| {
            let recent = s.device_recent.map_or(0, |recent| recent.count(s.now_ms, window));
            let counted = recent.saturating_add(u64::from(s.device_reserved));
            window
                .most
                .saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
        });
        let (each, all) = self.allowed_card;
        let of_staff = self.staff.as_ref().map_or((u64::MAX, u32::MAX), |limits| {
            (amount(limits, &s.staff), count(limits, &s.staff))
        });
        Room {
            amount_minor: amount(&self.device, &s.device)
                .min(amount(&self.store, &s.store))
                .min(of_staff.0),
            count: count(&self.device, &s.device)
                .min(count(&self.store, &s.store))
                .min(of_staff.1)
                .min(in_window),
            transaction: self.transaction,
            card: each.min(all.saturating_sub(s.allowed_card_minor)),
        }
    }

    /// The first lower limit that a payment without verification has reached.
    pub(crate) fn first_lower_reached(&self, s: &Situation<'_>) -> Option<Reason> {
        let reached = |subject: &Subject, limits: &SubjectLimits| {
            limits
                .consecutive_lower_limit
                .is_some_and(|limit| subject.consecutive >= limit)
        };
        first(&[
            (reached(&s.card, &self.card), Reason::CardConsecutiveLowerLimit),
            (
                reached(&s.device, &self.device),
                Reason::DeviceConsecutiveLowerLimit,
            ),
            (reached(&s.store, &self.store), Reason::StoreConsecutiveLowerLimit),
            (
                self.staff.is_some_and(|limits| reached(&s.staff, &limits)),
                Reason::StaffConsecutiveLowerLimit,
            ),
        ])
    }
}

fn cash_asked(request: &PaymentRequest) -> Option<u64> {
    request.terms.as_ref()?.cash_back_minor
}

fn first(rules: &[(bool, Reason)]) -> Option<Reason> {
    let against = rules.iter().find(|(stands_against, _)| *stands_against);
    against.map(|(_, reason)| *reason)
}

/// So many percent of an amount, rounded down.
fn share(amount: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent.min(100)) / 100).unwrap_or(amount)
}
