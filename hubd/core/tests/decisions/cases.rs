//! The usual payment, and what changes about it from case to case.

use std::sync::LazyLock;

use hub_core::decide::{Situation, decide_offline};
use hub_core::few::Few;
use hub_core::policy::ceilings::{Ceiling, Fits, Issuer};
use hub_core::policy::device::{Attestation, AttestationRules, Stale, Standing};
use hub_core::policy::moving::{Loosening, Step};
use hub_core::policy::people::OverrideRules;
use hub_core::policy::velocity::{TapLimits, Window};
use hub_core::policy::{Policy, SubjectLimits};
use hub_core::profile::Profile;
use hub_core::risk::{Declined, Held, Recent, Taps};
use hub_core::state::{Subject, Velocity};
use hub_protocol::{
    Cryptogram, Currency, DeviceClass, EntryMode, Funding, KeyId, PaymentRequest, Reason, Restriction, Terms,
    TransactionType, Verification,
};

use crate::support;

pub(crate) struct Case<'a> {
    pub(crate) request: PaymentRequest,
    pub(crate) situation: Situation<'a>,
    pub(crate) policy: Policy,
}

/// 20,00 EUR, contactless verified on the phone, CB debit, at an mPOS, a
/// minute into an outage, nothing at risk.
pub(crate) fn usual() -> Case<'static> {
    Case {
        request: support::request(1, 2_000, "card"),
        situation: Situation {
            policy: None,
            currency: Currency::EUR,
            class: DeviceClass::Mpos,
            card: Subject::default(),
            device: Subject::default(),
            store: Subject::default(),
            staff: Subject::default(),
            standing: Standing::default(),
            supervisor: None,
            overrides: None,
            card_velocity: None,
            card_known: true,
            device_recent: None,
            device_reserved: 0,
            allowed_card_minor: 0,
            hub_card_minor: 0,
            held: None,
            declined: Declined::default(),
            store_restriction: Restriction::None,
            device_restriction: Restriction::None,
            device_points: 0,
            profile: None,
            oldest_unsent_ms: 0,
            now_ms: support::NOON_MS,
            offline_ms: 60_000,
            clock_suspect: false,
            queue_has_room: true,
            policy_term: hub_protocol::root::Term::ALWAYS,
            storage_full: false,
        },
        policy: Policy::parse(support::POLICY.as_bytes()).unwrap(),
    }
}

pub(crate) fn at_risk(exposure_minor: u64, consecutive: u32) -> Subject {
    Subject {
        exposure_minor,
        unsettled: consecutive,
        consecutive,
        parked: 0,
    }
}

pub(crate) fn reason(change: impl FnOnce(&mut Case<'_>)) -> Reason {
    let mut case = usual();
    change(&mut case);
    let situation = Situation {
        policy: Some(&case.policy),
        ..case.situation
    };
    decide_offline(&case.request, &situation).reason
}

pub(crate) type Change = fn(&mut Case<'_>);

pub(crate) fn signed_for(c: &mut Case<'_>) {
    c.request.verification = Verification::Signature;
}

/// No reader makes what such a payment says of its verification.
pub(crate) fn typed_in(c: &mut Case<'_>, verification: Verification) {
    c.policy.offline.entry_modes.push(EntryMode::Keyed);
    c.request.entry_mode = EntryMode::Keyed;
    c.request.verification = verification;
}

pub(crate) fn countries(c: &mut Case<'_>, accepted: &[&str]) {
    c.policy.cards.countries = accepted.iter().map(|country| country.parse().unwrap()).collect();
}

pub(crate) fn bins(c: &mut Case<'_>, bin: &str, allowed: &[&str], denied: &[&str]) {
    c.request.card.bin = Some(bin.to_owned());
    c.policy.cards.bins_allowed = allowed.iter().map(|range| range.parse().unwrap()).collect();
    c.policy.cards.bins_denied = denied.iter().map(|range| range.parse().unwrap()).collect();
}

/// mPOS: 200,00 with the PIN; foreign cards: 30,00 unless the PIN says more;
/// foreign debit cards whose chip approved: 10,00.
pub(crate) fn ceilings(c: &mut Case<'_>) {
    c.policy.cards.domestic = vec!["FR".parse().unwrap()];
    c.request.card.issuer_country = Some("FR".to_owned());
    let of = |fits, amount_minor| Ceiling { fits, amount_minor };
    c.policy.ceilings = vec![
        of(
            Fits {
                class: Some(DeviceClass::Mpos),
                verification: Some(Verification::OfflinePin),
                ..Fits::default()
            },
            20_000,
        ),
        of(
            Fits {
                issuer: Some(Issuer::Foreign),
                ..Fits::default()
            },
            3_000,
        ),
        of(
            Fits {
                issuer: Some(Issuer::Foreign),
                funding: Some(Funding::Debit),
                cryptogram: Some(Cryptogram::CardApproved),
                entry_mode: Some(EntryMode::Contactless),
                ..Fits::default()
            },
            1_000,
        ),
    ];
}

pub(crate) fn foreign_debit(c: &mut Case<'_>) {
    c.request.card.issuer_country = Some("US".to_owned());
    c.request.card.funding = Funding::Debit;
    c.request.cryptogram = Cryptogram::CardApproved;
    c.request.entry_mode = EntryMode::Contactless;
}

/// 75 % from an hour on, 50 % from three; 40 % from 70 % of the store's on.
pub(crate) fn moving(c: &mut Case<'_>) {
    let step = |from, percent| Step { from, percent };
    c.policy.moving.outage = vec![step(3_600_000, 75), step(3 * 3_600_000, 50)];
    c.policy.moving.store_used = vec![step(70, 40)];
}

/// From the 3rd, 41st and 201st in a row on: with the PIN.
pub(crate) fn lower(c: &mut Case<'_>) {
    c.policy.card.consecutive_lower_limit = Some(2);
    c.policy.store.consecutive_lower_limit = Some(200);
    if let Some(class) = c.policy.classes.get_mut(&DeviceClass::Mpos) {
        class.device.consecutive_lower_limit = Some(40);
    }
}

/// 75 % once a payment has waited 2 hours, 80 % of a policy 30 days old, 60 %
/// from 5 % of declines on; 10 points more each 15 minutes.
pub(crate) fn moving_more(c: &mut Case<'_>) {
    let step = |from, percent| vec![Step { from, percent }];
    c.policy.not_before_ms = c.situation.now_ms - 1;
    c.policy.moving.oldest_unsent = step(2 * 3_600_000, 75);
    c.policy.moving.policy_age = step(30 * 86_400_000, 80);
    c.policy.moving.declined = step(5, 60);
    c.policy.moving.loosening = Some(Loosening {
        percent: 10,
        every_ms: 15 * 60_000,
    });
}

/// 20 % began to hold so long ago.
pub(crate) fn held(c: &mut Case<'_>, ago_ms: u64) {
    c.situation.held = Some(Held {
        percent: 20,
        since_ms: c.situation.now_ms - ago_ms,
    });
}

/// Open in this span of the day on which the cases play, a Wednesday, where it
/// is 4:26 in the morning by UTC.
pub(crate) fn hours(c: &mut Case<'_>, span: &str, approve_outside: bool) {
    let hours = format!(
        "[hours]\ntime_zone = \"UTC0\"\nwednesday = [\"{span}\"]\napprove_outside = {approve_outside}\n"
    );
    let text = format!("{}\n{hours}", support::POLICY);
    c.policy.hours = Policy::parse(text.as_bytes()).unwrap().hours;
}

/// 50 % while tightened.
pub(crate) fn tightened(c: &mut Case<'_>) {
    let text = format!(
        "{}\n[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n",
        support::POLICY
    );
    c.policy.anomaly = Policy::parse(text.as_bytes()).unwrap().anomaly;
}

pub(crate) const fn taps(sum_minor: u64, count: u32) -> Velocity {
    Velocity {
        taps: Taps { sum_minor, count },
        recent: Recent {
            approved_ms: Few::new(),
        },
        seen: Few::new(),
    }
}

pub(crate) static TAPPED: [Velocity; 6] = [
    taps(13_000, 1),
    taps(13_001, 1),
    taps(1_000, 4),
    taps(1_000, 5),
    taps(5_500, 1),
    taps(5_501, 1),
];

/// A tap without verification: 150,00 and 5 in a row.
pub(crate) fn tapped<'a>(c: &mut Case<'a>, before: &'a Velocity) {
    c.policy.taps = TapLimits {
        cumulative_ceiling: Some(15_000),
        consecutive_limit: Some(5),
    };
    c.request.verification = Verification::None;
    c.situation.card_velocity = Some(before);
}

/// So many minutes before noon.
pub(crate) fn lately(minutes: &[u64]) -> Velocity {
    let approved_ms = minutes
        .iter()
        .map(|ago| support::NOON_MS - ago * 60_000)
        .collect();
    Velocity {
        recent: Recent { approved_ms },
        ..Velocity::default()
    }
}

pub(crate) static LATELY: LazyLock<[Velocity; 5]> = LazyLock::new(|| {
    [
        lately(&[59, 2]),
        lately(&[59, 2, 1]),
        lately(&[60, 2, 1]),
        lately(&[1]),
        lately(&[60, 2]),
    ]
});

/// A payment that states terms.
pub(crate) fn stated<'c>(c: &'c mut Case<'_>, transaction_type: TransactionType) -> &'c mut Terms {
    let terms = Terms::of(transaction_type);
    c.request.terms.insert(Box::new(terms))
}

/// Cash-back up to 20,00.
pub(crate) fn cash_back(c: &mut Case<'_>, cash_minor: u64) {
    let types = &mut c.policy.offline.transaction_types;
    types.push(TransactionType::CashBack);
    c.policy.offline.cash_back_ceiling = Some(2_000);
    c.request.amount = 5_000.into();
    stated(c, TransactionType::CashBack).cash_back_minor = Some(cash_minor);
}

/// A phone alone, and the PIN.
pub(crate) fn pin_on_glass(c: &mut Case<'_>, allowed: bool) {
    c.situation.class = DeviceClass::Softpos;
    c.request.verification = Verification::OfflinePin;
    c.situation.standing.pin_on_glass = allowed;
}

/// 40 % while a verifier's word on the device is stale.
pub(crate) fn stale(c: &mut Case<'_>) {
    c.policy.attestation = Some(AttestationRules {
        classes: vec![DeviceClass::Mpos],
        max_age_ms: 2,
        stale: Some(Stale {
            after_ms: 1,
            percent: 40,
        }),
        online_max_age_ms: None,
        verifiers: Vec::new(),
    });
    c.situation.standing.attestation = Attestation::Stale;
}

/// A member of staff: 400,00 and 20 in a row, from the 11th on with the PIN.
pub(crate) fn staff(c: &mut Case<'_>, at_risk: Subject) {
    c.policy.staff = Some(SubjectLimits {
        exposure_ceiling: 40_000,
        consecutive_limit: 20,
        consecutive_lower_limit: Some(10),
    });
    c.situation.staff = at_risk;
}

/// A supervisor's override beside so many in the last hour; 3 are allowed.
pub(crate) fn overridden<'a>(c: &mut Case<'a>, lately: &'a Velocity) {
    c.policy.overrides = Some(OverrideRules {
        window: Window {
            most: 3,
            within_ms: 3_600_000,
        },
        supervisors: Vec::new(),
    });
    c.situation.supervisor = Some(KeyId([5; 16]));
    c.situation.overrides = Some(&lately.recent);
}

/// 3 in an hour, of a card and of an mPOS.
pub(crate) fn windows(c: &mut Case<'_>) {
    let window = Some(Window {
        most: 3,
        within_ms: 3_600_000,
    });
    c.policy.card_window = window;
    if let Some(class) = c.policy.classes.get_mut(&DeviceClass::Mpos) {
        class.window = window;
    }
}

/// Each factor counts 30; the PIN is asked for from 30 on, and 60 is too much.
pub(crate) fn scored(c: &mut Case<'_>) {
    let text = support::POLICY.replace("[card]\n", "[card]\ndomestic = [\"FR\"]\n");
    let text = format!(
        "{text}\n[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n\
         [profile]\nleast_payments = 100\nleast_weeks = 1\n\
         [score]\nverify_from = 30\ndecline_from = 60\n\
         [score.amount_above_usual]\npercentile = 95\npoints = 30\n\
         [score.new_card]\npoints = 30\n[score.foreign_card]\npoints = 30\n[score.no_chip]\npoints = 30\n\
         [score.card_lately]\ncount = 3\nwithin_minutes = 60\npoints = 30\n\
         [score.unusual_hour]\npoints = 30\n\
         [score.device_odd]\nfrom_points = 20\npoints = 30\n"
    );
    let policy = Policy::parse(text.as_bytes()).unwrap();
    c.policy.score = policy.score;
    c.policy.profile = policy.profile;
    c.policy.cards.domestic = policy.cards.domestic;
}

/// As [`unproven`], and a supervisor may say yes to any score.
pub(crate) fn liftable(c: &mut Case<'_>) {
    unproven(c);
    if let Some(rules) = c.policy.score.as_mut() {
        rules.override_lifts_decline = true;
    }
}

/// The same, and nobody has verified the holder.
pub(crate) fn unproven(c: &mut Case<'_>) {
    scored(c);
    c.request.entry_mode = EntryMode::Chip;
    signed_for(c);
}

/// The shop has begun so long ago, and has had 95 payments up to 20,00 and 5
/// of 90,00; it sells in the hour of the cases, or an hour later.
pub(crate) fn shop_that_began(ago_ms: u64, sells_then: bool, payments: usize) -> Profile {
    let mut profile = Profile::default();
    let amounts = (0..95).map(|at| 1_000 + at * 1_000 / 94).chain([9_000; 5]);
    amounts
        .take(payments)
        .for_each(|amount| profile.amounts.approved(amount));
    let hour = 2 * 24 + if sells_then { 4 } else { 5 };
    profile.arrivals.came(hour, support::NOON_MS - ago_ms);
    profile
}

pub(crate) const WEEK_MS: u64 = 7 * 86_400_000;

pub(crate) static SHOPS: LazyLock<[Profile; 4]> = LazyLock::new(|| {
    [
        shop_that_began(WEEK_MS, true, 100),
        shop_that_began(WEEK_MS, true, 99),
        shop_that_began(WEEK_MS, false, 100),
        shop_that_began(WEEK_MS - 1, false, 100),
    ]
});
