//! The highest amounts under a policy. All of them are found by asking the
//! core's own [`assess_offline`]: no rule is worked out a second time here, so
//! that none can be worked out differently.

use hub_core::decide::{Situation, assess_offline};
use hub_core::policy::Policy;
use hub_core::policy::ceilings::Issuer;
use hub_core::state::Subject;
use hub_protocol::{
    CardFacts, Cryptogram, Decision, DeviceClass, EntryMode, Funding, MAX_AMOUNT_MINOR, PaymentId,
    PaymentRequest, Reason, SealedCard, Verification,
};

use super::example::{Kind, any_card, card};

/// A way of paying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// How the card is read.
    pub entry_mode: EntryMode,
    /// How the holder is verified.
    pub verification: Verification,
}

/// The card inserted and the PIN entered: whatever a policy says of cards, and
/// of times, is asked with it.
pub const INSERTED_WITH_PIN: Way = way(EntryMode::Chip, Verification::OfflinePin);

/// All ways of paying that a policy can tell apart, those that people look for
/// first.
const WAYS: [Way; 20] = {
    use {EntryMode as Read, Verification as By};
    [
        way(Read::Contactless, By::None),
        way(Read::Contactless, By::Signature),
        way(Read::Contactless, By::OfflinePin),
        way(Read::Contactless, By::Cdcvm),
        way(Read::Contactless, By::OnlinePin),
        INSERTED_WITH_PIN,
        way(Read::Chip, By::Signature),
        way(Read::Chip, By::None),
        way(Read::Chip, By::Cdcvm),
        way(Read::Chip, By::OnlinePin),
        way(Read::MagneticStripe, By::Signature),
        way(Read::MagneticStripe, By::OfflinePin),
        way(Read::MagneticStripe, By::None),
        way(Read::MagneticStripe, By::Cdcvm),
        way(Read::MagneticStripe, By::OnlinePin),
        way(Read::Keyed, By::None),
        way(Read::Keyed, By::Signature),
        way(Read::Keyed, By::OfflinePin),
        way(Read::Keyed, By::Cdcvm),
        way(Read::Keyed, By::OnlinePin),
    ]
};

/// Whether devices of a class have what reads a card so: a phone alone has
/// neither a slot nor a head for the stripe. No policy says so; it is known of
/// the class.
pub fn can_read(class: DeviceClass, entry_mode: EntryMode) -> bool {
    match entry_mode {
        EntryMode::Chip | EntryMode::MagneticStripe => class != DeviceClass::Softpos,
        EntryMode::Contactless | EntryMode::Keyed => true,
    }
}

const fn way(entry_mode: EntryMode, verification: Verification) -> Way {
    Way {
        entry_mode,
        verification,
    }
}

/// When in an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// So long offline, milliseconds.
    pub offline_ms: u64,
    /// So much at risk in the store, minor units.
    pub store_minor: u64,
}

impl Stage {
    /// The beginning of an outage, as soon after the policy's own beginning as
    /// cards are asked for at all.
    pub fn beginning(policy: &Policy) -> Self {
        const HALF_HOUR_MS: u64 = 30 * 60 * 1000;
        const WEEK: u64 = 7 * 48;
        let at = |now_ms| Self {
            now_ms,
            offline_ms: 0,
            store_minor: 0,
        };
        let stages = (0..WEEK).map(|count| at(policy.not_before_ms.saturating_add(count * HALF_HOUR_MS)));
        // Where an hour is weighed, one in which the shop is open.
        let hours = policy.score.as_ref().and_then(|score| score.unusual_hour);
        let hours = hours.and(policy.hours.as_ref());
        let stages = stages.filter(|stage| hours.is_none_or(|hours| hours.open(stage.now_ms)));
        let mut asked_for = stages.filter(|stage| {
            policy.classes.keys().any(|class| {
                let request = request(policy, INSERTED_WITH_PIN, &any_card(), Cryptogram::AsksOnline, 1);
                let reason = assess_offline(&request, &stage.situation(policy, *class))
                    .record
                    .reason;
                // The reasons before are not about the card.
                reason == Reason::None || reason >= Reason::CardOnExceptionList
            })
        });
        asked_for.next().unwrap_or_else(|| at(policy.not_before_ms))
    }

    /// What a device finds that has had no payment yet.
    pub(super) fn situation<'p>(&self, policy: &'p Policy, class: DeviceClass) -> Situation<'p> {
        Situation {
            now_ms: self.now_ms,
            offline_ms: self.offline_ms,
            store: at_risk(self.store_minor),
            ..Situation::fresh(policy, class)
        }
    }
}

/// The highest amounts of one way of paying, for the cards that share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which ways: of one way of reading, with the same amounts.
    pub ways: Vec<Way>,
    /// Cards funded so; `None` for all that are accepted.
    pub fundings: Option<Vec<Funding>>,
    /// Cards issued there; `None` for all that are accepted.
    pub issuer: Option<Issuer>,
    /// What the chip says; `None` for either.
    pub cryptogram: Option<Cryptogram>,
    /// Whether this is for all cards that the rows of this way above it are
    /// not for.
    pub others: bool,
    /// By class, in the order of the policy's classes.
    pub cells: Vec<Cell>,
}

/// The highest amount at one class of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Which class.
    pub class: DeviceClass,
    /// Of one payment, minor units; `None`: not permitted at all.
    pub highest_minor: Option<u64>,
    /// A card for which that holds.
    pub card: CardFacts,
    /// And what its chip says.
    pub cryptogram: Cryptogram,
}

/// All ways of paying under a policy, at a stage of an outage. Rows of a way
/// differ in their amounts; ways whose amounts are the same for all cards share
/// their rows. A way that is not permitted has a row as well, but for the PIN
/// that only the bank can check, where that is permitted nowhere.
pub fn rows(policy: &Policy, stage: Stage) -> Vec<Row> {
    let kinds = kinds(policy, stage);
    let of_way = |way: &Way| {
        let rows = kinds
            .iter()
            .map(|(kind, card)| (*kind, row(policy, *way, *kind, card, stage)));
        with_others(merged(rows.collect()))
    };
    let mut shared: Vec<Vec<Row>> = Vec::new();
    for rows in WAYS.iter().map(of_way) {
        let Some(way) = rows.first().and_then(|row| row.ways.first()).copied() else {
            continue;
        };
        let nowhere = || rows.iter().all(|row| row.amounts().iter().all(Option::is_none));
        if way.verification == Verification::OnlinePin && nowhere() {
            continue;
        }
        let same = |others: &&mut Vec<Row>| {
            let reads_so = |row: &Row| row.ways.iter().all(|other| other.entry_mode == way.entry_mode);
            others.iter().all(reads_so)
                && others.len() == rows.len()
                && others.iter().zip(&rows).all(|(a, b)| a.says() == b.says())
        };
        match shared.iter_mut().find(same) {
            Some(others) => others.iter_mut().for_each(|row| row.ways.push(way)),
            None => shared.push(rows),
        }
    }
    shared.into_iter().flatten().collect()
}

/// The kinds of cards that are accepted, each with a card of it.
fn kinds(policy: &Policy, stage: Stage) -> Vec<(Kind, CardFacts)> {
    let mut kinds = Vec::new();
    for funding in &policy.offline.funding {
        for issuer in [Issuer::Domestic, Issuer::Foreign] {
            for cryptogram in [Cryptogram::AsksOnline, Cryptogram::CardApproved] {
                kinds.push(Kind {
                    funding: *funding,
                    issuer,
                    cryptogram,
                });
            }
        }
    }
    kinds
        .into_iter()
        .filter_map(|kind| Some((kind, card(policy, kind, stage)?)))
        .collect()
}

fn row(policy: &Policy, way: Way, kind: Kind, card: &CardFacts, stage: Stage) -> Row {
    let cells = policy.classes.keys().map(|class| Cell {
        class: *class,
        highest_minor: highest_payment(policy, *class, way, card, kind.cryptogram, stage),
        card: card.clone(),
        cryptogram: kind.cryptogram,
    });
    Row {
        ways: vec![way],
        fundings: Some(vec![kind.funding]),
        issuer: Some(kind.issuer),
        cryptogram: Some(kind.cryptogram),
        others: false,
        cells: cells.collect(),
    }
}

impl Row {
    /// What it says beside the ways.
    #[expect(clippy::type_complexity, reason = "compared, and nothing else")]
    fn says(
        &self,
    ) -> (
        &Option<Vec<Funding>>,
        Option<Issuer>,
        Option<Cryptogram>,
        bool,
        Vec<Option<u64>>,
    ) {
        let amounts = self.amounts();
        (&self.fundings, self.issuer, self.cryptogram, self.others, amounts)
    }

    fn amounts(&self) -> Vec<Option<u64>> {
        self.cells.iter().map(|cell| cell.highest_minor).collect()
    }
}

/// Leaves out of the rows of one way what changes nothing.
fn merged(rows: Vec<(Kind, Row)>) -> Vec<Row> {
    let differ = |same: fn(Kind, Kind) -> bool| {
        rows.iter().any(|(a, row)| {
            rows.iter()
                .any(|(b, other)| same(*a, *b) && row.amounts() != other.amounts())
        })
    };
    let by_issuer = differ(|a, b| (a.funding, a.cryptogram) == (b.funding, b.cryptogram));
    let by_cryptogram = differ(|a, b| (a.funding, a.issuer) == (b.funding, b.issuer));
    let by_funding = differ(|a, b| (a.issuer, a.cryptogram) == (b.issuer, b.cryptogram));
    let mut kept: Vec<Row> = Vec::new();
    for (_, mut row) in rows {
        row.issuer = row.issuer.filter(|_| by_issuer);
        row.cryptogram = row.cryptogram.filter(|_| by_cryptogram);
        row.fundings = row.fundings.filter(|_| by_funding);
        let twin = kept.iter_mut().find(|other| {
            (other.issuer, other.cryptogram) == (row.issuer, row.cryptogram)
                && other.amounts() == row.amounts()
        });
        match twin {
            Some(twin) => {
                let (Some(fundings), Some(more)) = (&mut twin.fundings, row.fundings) else {
                    continue;
                };
                fundings.extend(
                    more.into_iter()
                        .filter(|funding| !fundings.contains(funding))
                        .collect::<Vec<_>>(),
                );
            }
            None => kept.push(row),
        }
    }
    kept
}

/// Where most rows of a way say the same, one for all of them in the end.
fn with_others(rows: Vec<Row>) -> Vec<Row> {
    let alike = |row: &Row| {
        rows.iter()
            .filter(|other| other.amounts() == row.amounts())
            .count()
    };
    let Some(usual) = rows
        .iter()
        .max_by_key(|row| alike(row))
        .filter(|row| alike(row) > 1)
    else {
        return rows;
    };
    let others = Row {
        fundings: None,
        issuer: None,
        cryptogram: None,
        others: true,
        ..usual.clone()
    };
    let special = rows
        .iter()
        .filter(|row| row.amounts() != others.amounts())
        .cloned();
    special.chain([others.clone()]).collect()
}

/// A payment as a device would ask for it.
pub fn request(
    policy: &Policy,
    way: Way,
    card: &CardFacts,
    cryptogram: Cryptogram,
    amount_minor: u64,
) -> PaymentRequest {
    let sealed = SealedCard {
        salt: [0; 16],
        blob: vec![0],
    };
    PaymentRequest {
        payment_id: PaymentId([0; 16]),
        device_sequence: 1,
        amount: amount_minor.into(),
        currency: policy.currency,
        order_id: "explain".to_owned(),
        card: card.clone(),
        entry_mode: way.entry_mode,
        verification: way.verification,
        cryptogram,
        sealed_card_digest: sealed.digest(),
        device_time_ms: 0,
        terms: None,
    }
}

/// The highest amount of one payment, of a card and at a device with nothing
/// at risk.
fn highest_payment(
    policy: &Policy,
    class: DeviceClass,
    way: Way,
    card: &CardFacts,
    cryptogram: Cryptogram,
    stage: Stage,
) -> Option<u64> {
    if !can_read(class, way.entry_mode) {
        return None;
    }
    let situation = stage.situation(policy, class);
    highest(MAX_AMOUNT_MINOR, |amount_minor| {
        let request = request(policy, way, card, cryptogram, amount_minor);
        assess_offline(&request, &situation).record.decision == Decision::ApprovedOffline
    })
}

/// The highest sum of one card, over all devices, at a stage of an outage whose
/// [`rows`] these are; `None` if no card is approved then.
pub fn highest_of_card(policy: &Policy, stage: Stage, rows: &[Row]) -> Option<u64> {
    let mut best = None;
    for row in rows {
        let cells = row.cells.iter().filter(|cell| cell.highest_minor.is_some());
        for (way, cell) in cells.filter_map(|cell| Some((*row.ways.first()?, cell))) {
            let request = request(policy, way, &cell.card, cell.cryptogram, 1);
            let sum = highest(MAX_AMOUNT_MINOR, |sum_minor| {
                let situation = Situation {
                    card: at_risk(sum_minor - 1),
                    ..stage.situation(policy, cell.class)
                };
                assess_offline(&request, &situation).record.decision == Decision::ApprovedOffline
            });
            best = best.max(sum);
        }
    }
    best
}

/// From which exposure of the store on the share of the ceilings is `percent`
/// or less; `None` if that is never.
pub fn store_minor_at(policy: &Policy, percent: u64) -> Option<u64> {
    let class = *policy.classes.keys().next()?;
    let request = request(policy, INSERTED_WITH_PIN, &any_card(), Cryptogram::AsksOnline, 1);
    let beginning = Stage::beginning(policy);
    let share = |store_minor: u64| {
        let stage = Stage {
            store_minor,
            ..beginning
        };
        assess_offline(&request, &stage.situation(policy, class)).percent
    };
    let below = highest(MAX_AMOUNT_MINOR, |minor| share(minor - 1) > percent);
    match below {
        None => Some(0),
        Some(MAX_AMOUNT_MINOR) => None,
        below => below,
    }
}

fn at_risk(exposure_minor: u64) -> Subject {
    Subject {
        exposure_minor,
        ..Subject::default()
    }
}

/// The largest number from 1 to `most` that passes, if all smaller ones do.
fn highest(most: u64, passes: impl Fn(u64) -> bool) -> Option<u64> {
    if !passes(1) {
        return None;
    }
    let (mut good, mut bad) = (1, most.saturating_add(1));
    // Most amounts are far below the highest that can be written.
    let mut probe = 4_096;
    while probe < bad {
        if !passes(probe) {
            bad = probe;
            break;
        }
        good = probe;
        probe = probe.saturating_mul(4);
    }
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if passes(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(good)
}
