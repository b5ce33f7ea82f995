//! The decision a second time: every objection of the policy's numbers to one
//! payment, of which the one with the smallest number is the reason.

use hub_protocol::entry::{ClockQuality, DecisionRecord, EntryTime, Lifted, StorageLevel, WanState};
use hub_protocol::{
    Cryptogram, Decision, DeviceClass, DeviceId, EntryMode, FallbackAction, PaymentId, PaymentRequest,
    PaymentState, Reason, Restriction, TransactionType, Verification,
};

use crate::ledger::{Ledger, Subject, objection_always, staff_of};
use crate::limits::{Facts, Limits, Pair, Payment, TapLimits, is_tap, is_verified, verified_how};
use crate::terms::{is_over, key_id};
use crate::violation::{Checked, Rule, hold};
use crate::wire::PayMessage;

/// What the model says of a payment that the gateway is not asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// And what to do instead, if there is a number for it.
    Refused(Reason, Option<FallbackAction>),
    /// Perhaps by a supervisor's word.
    Approved(Option<Lifted>),
}

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
        let approved = record.decision == Decision::ApprovedOffline;
        hold(approved || record.lifted.is_none(), Rule::SilenceMeansNo, || {
            format!("{id} is {}, and by {:?}", record.decision, record.lifted)
        })?;
        match record.decision {
            Decision::ApprovedOnline => {
                let says = asked_online && record.gateway.as_ref().is_some_and(|g| g.approved);
                hold(says, Rule::SilenceMeansNo, || {
                    format!("{id} is approved online without the gateway's word")
                })
            }
            Decision::ApprovedOffline => match self.verdict(&payment.asked, time, max_queue, asked_online) {
                Verdict::Approved(lifted) => hold(record.lifted == lifted, Rule::SilenceMeansNo, || {
                    format!(
                        "{id} is approved by {:?}, and should be by {lifted:?}",
                        record.lifted
                    )
                }),
                Verdict::Refused(reason, _) => hold(false, rule_of(reason), || {
                    format!(
                        "{id} is approved offline although {reason}: {}",
                        self.at_risk(request, payment.device)
                    )
                }),
            },
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
                let verdict = self.verdict(&payment.asked, time, max_queue, asked_online);
                let agreed = verdict == Verdict::Refused(record.reason, record.fallback)
                    && (record.decision == Decision::Fallback) == record.fallback.is_some();
                hold(agreed, rule_of(record.reason), || {
                    format!(
                        "{id} is {} for {} ({:?}), by the policy's numbers {verdict:?}: {}",
                        record.decision,
                        record.reason,
                        record.fallback,
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
            let (minor, count) = self.kept_back(subject);
            format!(
                "{exposure} (+{minor}) in {} (+{count})",
                self.consecutive(subject)
            )
        };
        format!(
            "amount {}, at risk: card {}, device {}, store {}, staff {}",
            request.amount_minor(),
            of(&card),
            of(&Subject::Device(device)),
            of(&Subject::Store),
            of(&Subject::Staff(staff_of(request)))
        )
    }

    /// What is decided of this payment without the gateway, now.
    fn verdict(&self, asked: &PayMessage, time: EntryTime, max_queue: usize, asked_online: bool) -> Verdict {
        if let Some(reason) = self.reason_against(asked.device, &asked.request, time, max_queue, asked_online)
        {
            return self.instead(asked.device, &asked.request, reason, time);
        }
        // A lower limit is asked about where nothing else is in the way.
        let doubt = time.quality == ClockQuality::Suspect;
        let policy = self.policy.as_deref();
        let numbers =
            policy.and_then(|limits| self.numbers(limits, asked.device, &asked.request, time.wall_ms));
        let held = numbers.map(|numbers| if doubt { numbers.halved() } else { numbers });
        let lower = held.and_then(|held| held.lower_reached(&asked.request));
        let risky = || policy.is_some_and(|limits| self.asks_for_pin(limits, &asked.request, time));
        let Some(reason) = lower.or_else(|| risky().then_some(Reason::ScoreVerification)) else {
            return Verdict::Approved(None);
        };
        match policy.and_then(|limits| self.supervisor(limits, asked, doubt, time.wall_ms)) {
            Some(supervisor) => Verdict::Approved(Some(Lifted {
                reason,
                supervisor: key_id(supervisor),
            })),
            None => self.instead(asked.device, &asked.request, reason, time),
        }
    }

    /// What the customer is told to do about this reason: what the device has a
    /// slot or a glass for, and what would pass.
    fn instead(
        &self,
        device: DeviceId,
        request: &PaymentRequest,
        reason: Reason,
        time: EntryTime,
    ) -> Verdict {
        let no = Verdict::Refused(reason, None);
        let asks_for_pin = matches!(reason.number(), 321 | 330 | 331)
            || reason == Reason::ScoreVerification
            || [OF_CARD, OF_DEVICE, OF_STORE, OF_STAFF]
                .iter()
                .any(|[_, _, lower]| *lower == reason);
        if !asks_for_pin && reason != Reason::EntryModeNotAllowed {
            return no;
        }
        let limits = self.policy.as_deref();
        let numbers = limits.and_then(|limits| self.numbers(limits, device, request, time.wall_ms));
        let Some(numbers) = numbers else {
            return no;
        };
        let held = if time.quality == ClockQuality::Suspect {
            numbers.halved()
        } else {
            numbers
        };
        let class = self.devices.get(&device).map(|(class, _)| *class);
        let slot = class != Some(DeviceClass::Softpos);
        let (pin, own) = held.verified_passes(request.amount_minor());
        if !asks_for_pin {
            let insert = slot && pin && request.entry_mode != EntryMode::Chip;
            return Verdict::Refused(reason, insert.then_some(FallbackAction::InsertCard));
        }
        if slot && pin {
            return Verdict::Refused(reason, Some(FallbackAction::InsertCardEnterPin));
        }
        if limits.is_some_and(|limits| self.takes_no_pin(limits, device)) {
            return Verdict::Refused(Reason::PinOnGlassNotAllowed, None);
        }
        if pin || own {
            no
        } else {
            Verdict::Refused(Reason::TransactionCeiling, None)
        }
    }

    /// Who lets this payment pass a lower limit: one of the policy's, and not
    /// once too often.
    fn supervisor(&self, limits: &Limits, asked: &PayMessage, doubt: bool, now_ms: u64) -> Option<usize> {
        let rules = limits.people.overrides.as_ref()?;
        let word = asked
            .word
            .as_ref()
            .filter(|word| word.is_about(asked.device, &asked.request))?;
        let most = if doubt {
            rules.window.count / 2
        } else {
            rules.window.count
        };
        let counts =
            rules.supervisors.contains(&word.supervisor) && self.lifted_lately(rules.window, now_ms) < most;
        counts.then_some(word.supervisor)
    }

    /// Why this payment must not be approved offline now, lower limits aside.
    fn reason_against(
        &self,
        device: DeviceId,
        request: &PaymentRequest,
        time: EntryTime,
        max_queue: usize,
        asked_online: bool,
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
        let asks_online = request.cryptogram == Cryptogram::AsksOnline
            && self.wan != Some(WanState::Offline)
            && !asked_online;
        if asks_online && !self.may_go_online(device, time.wall_ms) {
            return Some(Reason::AttestationMissing);
        }
        let blocked = self.devices.get(&device).is_some_and(|(_, blocked)| *blocked);
        against(blocked, Reason::DeviceBlocked);
        against(self.queue_is_full(max_queue), Reason::QueueFull);
        against(self.storage == Some(StorageLevel::Full), Reason::StorageFull);
        let Some(limits) = &self.policy else {
            against(true, Reason::NoPolicy);
            return all.into_iter().min_by_key(|r| r.number());
        };
        let (card, now) = (&request.card, time.wall_ms);
        for reason in self.against_offline(limits, device, now) {
            against(true, reason);
        }
        let terms = request.terms.as_deref();
        let kind = terms.map_or(TransactionType::Sale, |terms| terms.transaction_type);
        against(!limits.people.takes(kind), Reason::TransactionTypeNotAllowed);
        against(limits.cards.is_excepted(card, now), Reason::CardOnExceptionList);
        let expired = terms
            .and_then(|terms| terms.card_expiry)
            .is_some_and(|expiry| is_over(expiry, now));
        against(expired && !limits.people.takes_expired(), Reason::CardExpired);
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
        against(
            self.pin_on_glass(limits, device, request),
            Reason::PinOnGlassNotAllowed,
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
        // What only the halved numbers refuse is the clock's fault.
        let score = limits.score.zip(self.points(limits, request, time));
        let too_risky = score.is_some_and(|(score, points)| score.is_too_much(points));
        first
            .or_else(|| (!held.passed(request).is_empty()).then_some(Reason::ClockInDoubt))
            .or_else(|| too_risky.then_some(Reason::ScoreTooHigh))
    }

    /// Why nothing may be approved offline at this device now.
    pub(crate) fn against_offline(&self, limits: &Limits, device: DeviceId, now_ms: u64) -> Vec<Reason> {
        let closed = limits
            .hours
            .as_ref()
            .is_some_and(|hours| !hours.approve_outside && !hours.is_open(now_ms));
        let class = self.devices.get(&device).map(|(class, _)| *class);
        let named = limits.classes.iter().any(|(named, _, _)| Some(*named) == class);
        let all = [
            (now_ms < limits.not_before_ms, Reason::PolicyNotYetValid),
            (now_ms >= limits.expires_ms, Reason::PolicyExpired),
            (!limits.enabled, Reason::OfflineDisabled),
            (!named, Reason::ClassNotAllowed),
            (self.alone_ms(now_ms) > limits.longest_ms, Reason::OfflineTooLong),
            (
                self.restriction(None) == Restriction::Stopped,
                Reason::StoreSuspended,
            ),
            (
                self.quarantined.contains(&device) || self.restriction(Some(device)) == Restriction::Stopped,
                Reason::DeviceSuspended,
            ),
            (closed, Reason::OutsideHours),
        ];
        let stands = all.into_iter().filter(|(stands, _)| *stands);
        let of_device = self.against_device(limits, device, now_ms);
        stands.map(|(_, reason)| reason).chain(of_device).collect()
    }

    /// The queue takes no more, with what may still come of allowances.
    pub(crate) fn queue_is_full(&self, max_queue: usize) -> bool {
        let (_, count) = self.kept_back(&Subject::Store);
        self.queue_len() + usize::try_from(count).unwrap_or(usize::MAX) >= max_queue
    }

    /// The share of the signed ceilings that holds at this device now.
    pub(crate) fn percent(&self, limits: &Limits, device: DeviceId, now_ms: u64) -> u64 {
        let [exposure] = self.exposures(&[Subject::Store]);
        let used = exposure + self.kept_back(&Subject::Store).0;
        let alone = self.alone_ms(now_ms);
        let by_outage = limits.outage.iter().filter(|step| alone >= step.from * 60_000);
        let by_use = limits
            .store_used
            .iter()
            .filter(|step| used * 100 >= step.from * limits.store.exposure);
        let shares = by_outage.chain(by_use).map(|step| step.percent);
        let restricted = self.restriction(None).max(self.restriction(Some(device)));
        let tightened = limits
            .oddities
            .as_ref()
            .filter(|_| restricted >= Restriction::Tightened)
            .map(|rules| rules.tighten_percent);
        let stale = self.stale_percent(limits, device, now_ms);
        shares.chain(tightened).chain(stale).min().unwrap_or(100)
    }

    /// Whether the score wants the holder verified, who is not.
    fn asks_for_pin(&self, limits: &Limits, request: &PaymentRequest, time: EntryTime) -> bool {
        let score = limits.score.zip(self.points(limits, request, time));
        score.is_some_and(|(score, points)| score.asks_for_pin(points) && !is_verified(request))
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
        let device_id = device;
        let class = self.devices.get(&device).map(|(class, _)| *class)?;
        let (_, transaction, of_device) = limits.classes.iter().find(|(c, _, _)| *c == class)?;
        let subjects = [
            Subject::Card(request.card.token.clone()),
            Subject::Device(device),
            Subject::Store,
            Subject::Staff(staff_of(request)),
        ];
        let exposures = self.exposures(&subjects);
        let [of_this_card, of_this_device, ..] = &subjects;
        let windows = [
            (limits.windows.card, of_this_card, Reason::CardWindow),
            (limits.windows.device, of_this_device, Reason::DeviceWindow),
        ]
        .map(|(window, subject, reason)| {
            let lately = window.map_or(0, |window| self.lately(subject, window, now_ms));
            let lately = lately + self.kept_back(subject).1;
            (lately, window.map(|window| window.count), reason)
        });
        let mut at_risk = subjects.iter().zip(exposures).map(|(subject, exposure)| {
            let (minor, count) = self.kept_back(subject);
            AtRisk {
                exposure: exposure + minor,
                consecutive: self.consecutive(subject) + count,
            }
        });
        let (card, device, store) = (at_risk.next()?, at_risk.next()?, at_risk.next()?);
        let staff = at_risk.next()?;
        let share = self.percent(limits, device_id, now_ms);
        let moved = |amount: u64| amount * share / 100;
        let moved_pair = |pair: &Pair| Pair {
            exposure: moved(pair.exposure),
            ..*pair
        };
        // A part of it is for what devices approve out of reach, and what they
        // may have approved beyond that is missing here.
        let aside = limits.card.exposure - limits.hub_part();
        let beyond = self.card_out_of_reach().saturating_sub(moved(aside));
        let of_card = Pair {
            exposure: moved(limits.hub_part()).saturating_sub(beyond),
            ..limits.card
        };
        let payment = Payment {
            class,
            entry_mode: request.entry_mode,
            verification: verified_how(request),
            funding: request.card.funding,
            domestic: limits.cards.is_domestic(&request.card),
            cryptogram: request.cryptogram,
        };
        let with_pin = if class == DeviceClass::Softpos {
            EntryMode::Contactless
        } else {
            EntryMode::Chip
        };
        let by_pin = Payment {
            entry_mode: with_pin,
            verification: Verification::OfflinePin,
            ..payment
        };
        let by_own_device = Payment {
            entry_mode: EntryMode::Contactless,
            verification: Verification::Cdcvm,
            ..payment
        };
        let ceiling = |payment: &Payment| {
            let fitting = limits.kinds.iter().filter(|kind| kind.fits(payment));
            let closest = fitting.max_by_key(|kind| kind.says());
            moved(closest.map_or(*transaction, |kind| kind.amount))
        };
        let of_staff = limits.people.staff.as_ref();
        let accepted = |payment: &Payment| {
            let read = limits.entry_modes.contains(&payment.entry_mode);
            read.then(|| ceiling(payment))
        };
        Some(Numbers {
            transaction: ceiling(&payment),
            by_pin: accepted(&by_pin),
            by_own_device: accepted(&by_own_device),
            tap: limits.unverified,
            tapped: self.taps(&request.card.token),
            taps: limits.taps,
            windows,
            subjects: [
                Some((card, of_card, OF_CARD)),
                Some((device, moved_pair(of_device), OF_DEVICE)),
                Some((store, limits.store, OF_STORE)),
                of_staff.map(|pair| (staff, moved_pair(pair), OF_STAFF)),
            ]
            .into_iter()
            .flatten()
            .collect(),
            cash: limits.people.cash.map(moved),
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
        edges.extend(numbers.by_own_device);
        edges.extend(numbers.tap);
        let (tapped, _) = numbers.tapped;
        edges.extend(numbers.taps.sum.map(|most| most.saturating_sub(tapped)));
        // Staff have draws of their own.
        for (at_risk, pair, _) in numbers.subjects.iter().take(3) {
            edges.push(pair.exposure.saturating_sub(at_risk.exposure));
        }
        edges
    }

    /// What the member of staff at the device has room for, and the most cash
    /// that is handed out, where the policy says so.
    pub(crate) fn room_of_people(
        &self,
        device: DeviceId,
        request: &PaymentRequest,
        now_ms: u64,
    ) -> (Option<u64>, Option<u64>) {
        let limits = self.policy.as_ref();
        let Some(numbers) = limits.and_then(|limits| self.numbers(limits, device, request, now_ms)) else {
            return (None, None);
        };
        let staff = numbers.subjects.get(3);
        let room = staff.map(|(at_risk, pair, _)| pair.exposure.saturating_sub(at_risk.exposure));
        (room, numbers.cash)
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

const OF_STAFF: Reasons = [
    Reason::StaffCeiling,
    Reason::StaffConsecutiveLimit,
    Reason::StaffConsecutiveLowerLimit,
];

/// What holds for one payment.
#[derive(Clone, Debug)]
struct Numbers {
    transaction: u64,
    /// The same with the PIN: for the card inserted, or tapped at a phone.
    by_pin: Option<u64>,
    /// The same on the customer's own device.
    by_own_device: Option<u64>,
    tap: Option<u64>,
    /// Sum and number of the card's taps.
    tapped: (u64, u32),
    taps: TapLimits,
    /// Payments lately, and the most of them.
    windows: [(u32, Option<u32>, Reason); 2],
    /// Card, device, store, and staff if they have limits.
    subjects: Vec<(AtRisk, Pair, Reasons)>,
    /// The most cash handed out.
    cash: Option<u64>,
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
        let amounts = [
            &mut halved.by_pin,
            &mut halved.by_own_device,
            &mut halved.tap,
            &mut halved.cash,
        ];
        for amount in amounts.into_iter().flatten() {
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
        if amount > self.transaction || self.too_much_for_a_tap(request) {
            all.push(Reason::TransactionCeiling);
        }
        let cash = request.terms.as_ref().and_then(|terms| terms.cash_back_minor);
        if self.cash.is_some_and(|most| cash.is_some_and(|cash| cash > most)) {
            all.push(Reason::CashBackCeiling);
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
        let reached = self
            .subjects
            .iter()
            .filter(|(at_risk, pair, _)| pair.lower.is_some_and(|lower| at_risk.consecutive >= lower));
        let reasons = reached.map(|(_, _, [_, _, lower])| *lower);
        reasons
            .min_by_key(|r| r.number())
            .filter(|_| !is_verified(request))
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

    fn too_much_for_a_tap(&self, request: &PaymentRequest) -> bool {
        is_tap(request) && self.tap.is_some_and(|most| request.amount_minor() > most)
    }

    /// Whether so much would pass with the PIN, and on the customer's device.
    fn verified_passes(&self, amount: u64) -> (bool, bool) {
        let passes = |most: Option<u64>| most.is_some_and(|most| amount <= most);
        (passes(self.by_pin), passes(self.by_own_device))
    }

    /// Whether it is too much for this payment, and not for one that is better
    /// verified.
    fn asks_for_pin(&self, request: &PaymentRequest) -> bool {
        let amount = request.amount_minor();
        let (pin, own) = self.verified_passes(amount);
        let too_much = amount > self.transaction || self.too_much_for_a_tap(request);
        too_much && (pin || own && !is_verified(request))
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
        | Reason::StoreConsecutiveLowerLimit
        | Reason::CashBackCeiling
        | Reason::StaffCeiling
        | Reason::StaffConsecutiveLimit
        | Reason::StaffConsecutiveLowerLimit => Rule::NoCeilingPassed,
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
