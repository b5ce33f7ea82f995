//! The decision a second time: every objection of the policy's numbers to one
//! payment, of which the one with the smallest number is the reason.

use hub_protocol::entry::{ClockQuality, DecisionRecord, EntryTime};
use hub_protocol::{
    Decision, DeviceId, EntryMode, PaymentId, PaymentRequest, PaymentState, Reason, Verification,
};

use crate::ledger::{Ledger, Subject, objection_always};
use crate::limits::{Facts, Limits, Pair, Payment, TapLimits, is_tap};
use crate::violation::{Checked, Rule, hold};

impl Ledger {
    /// Holds a decision, before it is taken in, to the rules.
    pub(crate) fn hold_decision(
        &self,
        id: &PaymentId,
        record: &DecisionRecord,
        time: EntryTime,
        asked_online: bool,
        max_queue: usize,
    ) -> Checked {
        let Some(payment) = self.payments.get(id) else {
            return Ok(());
        };
        let request = &payment.asked.request;
        if let Some(score) = &record.score {
            let points = self
                .policy
                .as_ref()
                .and_then(|limits| self.points(limits, request, time));
            hold(points == Some(score.points.into()), Rule::NoCeilingPassed, || {
                format!("{id} scores {}, by the policy's numbers {points:?}", score.points)
            })?;
        }
        match record.decision {
            Decision::ApprovedOnline => {
                let says = asked_online && record.gateway.as_ref().is_some_and(|g| g.approved);
                hold(says, Rule::SilenceMeansNo, || {
                    format!("{id} is approved online without the gateway's word")
                })
            }
            Decision::ApprovedOffline => {
                match self.reason_against(payment.device, request, time, max_queue) {
                    None => Ok(()),
                    Some(reason) => hold(false, rule_of(reason), || {
                        format!(
                            "{id} is approved offline although {reason}: {}",
                            self.at_risk(request, payment.device)
                        )
                    }),
                }
            }
            // The gateway's own no, and the hub's own end of waiting.
            Decision::Declined if asked_online && record.reason == Reason::GatewayDeclined => {
                hold(record.gateway.is_some(), Rule::SilenceMeansNo, || {
                    format!("{id} is declined in the gateway's name without its word")
                })
            }
            Decision::Declined
                if asked_online && matches!(record.reason, Reason::Abandoned | Reason::Cancelled) =>
            {
                Ok(())
            }
            Decision::Declined | Decision::Fallback => {
                let reason = self.reason_against(payment.device, request, time, max_queue);
                hold(reason == Some(record.reason), rule_of(record.reason), || {
                    format!(
                        "{id} is refused for {}, by the policy's numbers {reason:?}: {}",
                        record.reason,
                        self.at_risk(request, payment.device)
                    )
                })
            }
        }
    }

    fn at_risk(&self, request: &PaymentRequest, device: DeviceId) -> String {
        let card = Subject::Card(request.card.token.clone());
        let of = |subject: &Subject| {
            let [exposure] = self.exposures(core::array::from_ref(subject));
            format!("{exposure} in {}", self.consecutive(subject))
        };
        format!(
            "amount {}, at risk: card {}, device {}, store {}",
            request.amount_minor(),
            of(&card),
            of(&Subject::Device(device)),
            of(&Subject::Store)
        )
    }

    /// Why this payment must not be approved offline now.
    fn reason_against(
        &self,
        device: DeviceId,
        request: &PaymentRequest,
        time: EntryTime,
        max_queue: usize,
    ) -> Option<Reason> {
        let mut all = Vec::new();
        let mut against = |condition: bool, reason: Reason| {
            if condition {
                all.push(reason);
            }
        };
        if let Some(reason) = objection_always(request) {
            return Some(reason);
        }
        let blocked = self.devices.get(&device).is_some_and(|(_, blocked)| *blocked);
        against(blocked, Reason::DeviceBlocked);
        against(self.queue_len() >= max_queue, Reason::QueueFull);
        let Some(limits) = &self.policy else {
            against(true, Reason::NoPolicy);
            return all.into_iter().min_by_key(|r| r.number());
        };
        let (card, now) = (&request.card, time.wall_ms);
        against(now < limits.not_before_ms, Reason::PolicyNotYetValid);
        against(now >= limits.expires_ms, Reason::PolicyExpired);
        against(!limits.enabled, Reason::OfflineDisabled);
        against(self.alone_ms(now) > limits.longest_ms, Reason::OfflineTooLong);
        let closed = limits
            .hours
            .as_ref()
            .is_some_and(|hours| !hours.approve_outside && !hours.is_open(now));
        against(closed, Reason::OutsideHours);
        against(limits.cards.is_excepted(card, now), Reason::CardOnExceptionList);
        against(!limits.schemes.contains(&card.scheme), Reason::SchemeNotAllowed);
        against(!limits.funding.contains(&card.funding), Reason::FundingNotAllowed);
        against(!limits.cards.country_passes(card), Reason::CountryNotAllowed);
        against(!limits.cards.bin_passes(card), Reason::BinNotAllowed);
        against(
            !limits.entry_modes.contains(&request.entry_mode),
            Reason::EntryModeNotAllowed,
        );
        against(
            request.verification == Verification::OnlinePin,
            Reason::OnlinePinNotPossible,
        );
        let Some(signed) = self.numbers(limits, device, request, now) else {
            against(true, Reason::ClassNotAllowed);
            return all.into_iter().min_by_key(|r| r.number());
        };
        let doubt = time.quality == ClockQuality::Suspect;
        let held = if doubt { signed.halved() } else { signed.clone() };
        against(held.asks_for_pin(request), Reason::VerificationRequired);
        against(held.taps_used_up(request), Reason::CardContactlessLimit);
        for reason in signed.passed(request) {
            against(true, reason);
        }
        let first = all.into_iter().min_by_key(|r| r.number());
        // What only the halved numbers refuse is the clock's fault; and a
        // lower limit is asked about where nothing else is in the way.
        let score = limits.score.zip(self.points(limits, request, time));
        let too_risky = score.is_some_and(|(score, points)| score.is_too_much(points));
        let verified = matches!(
            request.verification,
            Verification::OfflinePin | Verification::Cdcvm
        );
        let risky = score.is_some_and(|(score, points)| score.asks_for_pin(points) && !verified);
        first
            .or_else(|| (!held.passed(request).is_empty()).then_some(Reason::ClockInDoubt))
            .or_else(|| too_risky.then_some(Reason::ScoreTooHigh))
            .or_else(|| held.lower_reached(request))
            .or_else(|| risky.then_some(Reason::ScoreVerification))
    }

    /// How risky the payment looks, if the policy weighs that.
    fn points(&self, limits: &Limits, request: &PaymentRequest, time: EntryTime) -> Option<u64> {
        let (score, card, now) = (limits.score?, &request.card, time.wall_ms);
        let subject = Subject::Card(card.token.clone());
        let lately = score
            .card_lately
            .map(|(window, _)| self.lately(&subject, window, now));
        Some(score.points(&Facts {
            request,
            domestic: limits.cards.is_domestic(card),
            known: self.knows_card(&card.token),
            lately: lately.unwrap_or_default(),
            open: limits.hours.as_ref().is_none_or(|hours| hours.is_open(now)),
            doubt: time.quality == ClockQuality::Suspect,
        }))
    }

    /// What holds for this payment while the clock is trusted. `None` if the
    /// policy does not name the device's class.
    fn numbers(
        &self,
        limits: &Limits,
        device: DeviceId,
        request: &PaymentRequest,
        now_ms: u64,
    ) -> Option<Numbers> {
        let class = self.devices.get(&device).map(|(class, _)| *class)?;
        let (_, transaction, of_device) = limits.classes.iter().find(|(c, _, _)| *c == class)?;
        let subjects = [
            Subject::Card(request.card.token.clone()),
            Subject::Device(device),
            Subject::Store,
        ];
        let exposures = self.exposures(&subjects);
        let [of_this_card, of_this_device, _] = &subjects;
        let windows = [
            (limits.windows.card, of_this_card, Reason::CardWindow),
            (limits.windows.device, of_this_device, Reason::DeviceWindow),
        ]
        .map(|(window, subject, reason)| {
            let lately = window.map_or(0, |window| self.lately(subject, window, now_ms));
            (lately, window.map(|window| window.count), reason)
        });
        let mut at_risk = subjects.iter().zip(exposures).map(|(subject, exposure)| AtRisk {
            exposure,
            consecutive: self.consecutive(subject),
        });
        let (card, device, store) = (at_risk.next()?, at_risk.next()?, at_risk.next()?);
        let (alone, used) = (self.alone_ms(now_ms), store.exposure);
        let by_outage = limits.outage.iter().filter(|step| alone >= step.from * 60_000);
        let by_use = limits
            .store_used
            .iter()
            .filter(|step| used * 100 >= step.from * limits.store.exposure);
        let share = by_outage.chain(by_use).map(|step| step.percent).min();
        let moved = |amount: u64| amount * share.unwrap_or(100) / 100;
        let moved_pair = |pair: &Pair| Pair {
            exposure: moved(pair.exposure),
            ..*pair
        };
        let payment = Payment {
            class,
            entry_mode: request.entry_mode,
            verification: request.verification,
            funding: request.card.funding,
            domestic: limits.cards.is_domestic(&request.card),
            cryptogram: request.cryptogram,
        };
        let by_pin = Payment {
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
            ..payment
        };
        let ceiling = |payment: &Payment| {
            let fitting = limits.kinds.iter().filter(|kind| kind.fits(payment));
            let closest = fitting.max_by_key(|kind| kind.says());
            moved(closest.map_or(*transaction, |kind| kind.amount))
        };
        let takes_chips = limits.entry_modes.contains(&EntryMode::Chip);
        Some(Numbers {
            transaction: ceiling(&payment),
            by_pin: takes_chips.then(|| ceiling(&by_pin)),
            tap: limits.unverified,
            tapped: self.taps(&request.card.token),
            taps: limits.taps,
            windows,
            subjects: [
                (card, moved_pair(&limits.card), OF_CARD),
                (device, moved_pair(of_device), OF_DEVICE),
                (store, limits.store, OF_STORE),
            ],
        })
    }

    /// Amounts at which the answer to this payment changes.
    pub(crate) fn edges(&self, device: DeviceId, request: &PaymentRequest, now_ms: u64) -> Vec<u64> {
        let limits = self.policy.as_ref();
        let Some(numbers) = limits.and_then(|limits| self.numbers(limits, device, request, now_ms)) else {
            return Vec::new();
        };
        let mut edges = vec![numbers.transaction];
        edges.extend(numbers.by_pin);
        edges.extend(numbers.tap);
        let (tapped, _) = numbers.tapped;
        edges.extend(numbers.taps.sum.map(|most| most.saturating_sub(tapped)));
        for (at_risk, pair, _) in &numbers.subjects {
            edges.push(pair.exposure.saturating_sub(at_risk.exposure));
        }
        edges
    }
}

/// Of a subject: its ceiling, its count, its lower count.
type Reasons = [Reason; 3];

const OF_CARD: Reasons = [
    Reason::CardCeiling,
    Reason::CardConsecutiveLimit,
    Reason::CardConsecutiveLowerLimit,
];
const OF_DEVICE: Reasons = [
    Reason::DeviceCeiling,
    Reason::DeviceConsecutiveLimit,
    Reason::DeviceConsecutiveLowerLimit,
];
const OF_STORE: Reasons = [
    Reason::StoreCeiling,
    Reason::StoreConsecutiveLimit,
    Reason::StoreConsecutiveLowerLimit,
];

/// What holds for one payment.
#[derive(Clone, Debug)]
struct Numbers {
    transaction: u64,
    /// The same for the card inserted and the PIN entered.
    by_pin: Option<u64>,
    tap: Option<u64>,
    /// Sum and number of the card's taps.
    tapped: (u64, u32),
    taps: TapLimits,
    /// Payments lately, and the most of them.
    windows: [(u32, Option<u32>, Reason); 2],
    subjects: [(AtRisk, Pair, Reasons); 3],
}

/// What a subject has at risk now.
#[derive(Clone, Copy, Debug)]
struct AtRisk {
    exposure: u64,
    consecutive: u32,
}

impl Numbers {
    fn halved(&self) -> Self {
        let mut halved = self.clone();
        halved.transaction /= 2;
        for amount in [&mut halved.by_pin, &mut halved.tap].into_iter().flatten() {
            *amount /= 2;
        }
        halved.taps = TapLimits {
            sum: self.taps.sum.map(|most| most / 2),
            count: self.taps.count.map(|most| most / 2),
        };
        for (_, most, _) in &mut halved.windows {
            *most = most.map(|most| most / 2);
        }
        for (_, pair, _) in &mut halved.subjects {
            pair.exposure /= 2;
            pair.consecutive /= 2;
            pair.lower = pair.lower.map(|lower| lower / 2);
        }
        halved
    }

    /// Every ceiling and count that the payment would pass.
    fn passed(&self, request: &PaymentRequest) -> Vec<Reason> {
        let amount = request.amount_minor();
        let mut all = Vec::new();
        if amount > self.transaction {
            all.push(Reason::TransactionCeiling);
        }
        for (at_risk, pair, [ceiling, count, _]) in &self.subjects {
            if at_risk.exposure + amount > pair.exposure {
                all.push(*ceiling);
            }
            if at_risk.consecutive >= pair.consecutive {
                all.push(*count);
            }
        }
        for (lately, most, reason) in &self.windows {
            if most.is_some_and(|most| *lately >= most) {
                all.push(*reason);
            }
        }
        all
    }

    fn lower_reached(&self, request: &PaymentRequest) -> Option<Reason> {
        let verified = matches!(
            request.verification,
            Verification::OfflinePin | Verification::Cdcvm
        );
        let reached = self
            .subjects
            .iter()
            .filter(|(at_risk, pair, _)| pair.lower.is_some_and(|lower| at_risk.consecutive >= lower));
        let reasons = reached.map(|(_, _, [_, _, lower])| *lower);
        reasons.min_by_key(|r| r.number()).filter(|_| !verified)
    }

    /// Whether it would be one tap, or one cent of them, too many.
    fn taps_used_up(&self, request: &PaymentRequest) -> bool {
        let (sum, count) = self.tapped;
        let too_much = self
            .taps
            .sum
            .is_some_and(|most| sum + request.amount_minor() > most);
        let too_many = self.taps.count.is_some_and(|most| count >= most);
        is_tap(request) && (too_much || too_many)
    }

    /// Whether it is too much for this payment, and not for one by chip and
    /// PIN.
    fn asks_for_pin(&self, request: &PaymentRequest) -> bool {
        let amount = request.amount_minor();
        let too_much_untold = is_tap(request) && self.tap.is_some_and(|most| amount > most);
        too_much_untold || amount > self.transaction && self.by_pin.is_some_and(|most| amount <= most)
    }
}

/// The rule that a reason serves.
fn rule_of(reason: Reason) -> Rule {
    match reason {
        Reason::TransactionCeiling
        | Reason::CardCeiling
        | Reason::DeviceCeiling
        | Reason::StoreCeiling
        | Reason::CardConsecutiveLimit
        | Reason::DeviceConsecutiveLimit
        | Reason::StoreConsecutiveLimit
        | Reason::CardWindow
        | Reason::DeviceWindow
        | Reason::ScoreTooHigh
        | Reason::ScoreVerification
        | Reason::VerificationRequired
        | Reason::CardContactlessLimit
        | Reason::CardConsecutiveLowerLimit
        | Reason::DeviceConsecutiveLowerLimit
        | Reason::StoreConsecutiveLowerLimit => Rule::NoCeilingPassed,
        _ => Rule::SilenceMeansNo,
    }
}

/// Whether the sealed card may still be needed.
pub(crate) fn needs_card(state: PaymentState) -> bool {
    matches!(
        state,
        PaymentState::Open | PaymentState::Queued | PaymentState::Parked
    )
}
