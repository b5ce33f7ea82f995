//! `hubctl policy explain`: what a policy permits and forbids, for the wall of
//! the shop, in French and in English.

use hub_core::policy::Policy;
use hub_core::policy::moving::Step;
use hub_protocol::{DeviceClass, Verification};
use serde::Serialize;

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::show::Language;
use super::Loaded;
use super::further::{self, Sentence};
use super::wall;
use crate::rehearsal::highest::{self, Row, Stage};

/// What is permitted.
#[derive(Serialize)]
pub(super) struct Explained {
    pub(super) tenant: String,
    pub(super) version: u64,
    pub(super) stores: Vec<String>,
    pub(super) not_before_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) currency: String,
    /// Whether anything is approved offline.
    pub(super) offline: bool,
    pub(super) longest_minutes: u64,
    pub(super) contactless_unverified_ceiling_minor: Option<u64>,
    /// When the outage begins for which the amounts hold.
    pub(super) at_ms: u64,
    /// The highest amount of one payment, at the beginning of an outage.
    pub(super) payments: Vec<Payment>,
    pub(super) limits: Vec<Limit>,
    pub(super) cards: Cards,
    /// What changes as an outage goes on.
    pub(super) moving: Vec<Moved>,
    /// Limits that are a sentence each.
    pub(super) further: Vec<Sentence>,
}

/// One way of paying with cards of one kind at one class of devices.
#[derive(Serialize)]
pub(super) struct Payment {
    class: &'static str,
    entry_mode: &'static str,
    verification: &'static str,
    /// `None`: all that are accepted.
    funding: Option<Vec<&'static str>>,
    issuer: Option<String>,
    cryptogram: Option<&'static str>,
    /// For all cards that the objects of this way above are not for.
    others: bool,
    /// `None`: not permitted.
    highest_minor: Option<u64>,
    /// A payment for which it was found.
    example: Example,
}

#[derive(Serialize)]
struct Example {
    scheme: &'static str,
    funding: &'static str,
    issuer_country: Option<String>,
    bin: Option<String>,
    cryptogram: &'static str,
}

/// Sums and counts of a card, a device or the store.
#[derive(Serialize)]
pub(super) struct Limit {
    /// `card`, `staff`, `store` or the class of device.
    pub(super) of: &'static str,
    pub(super) exposure_ceiling_minor: u64,
    pub(super) consecutive_limit: u32,
    pub(super) consecutive_lower_limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Cards {
    pub(super) schemes: Vec<&'static str>,
    /// Whether cards pass that say that they have expired.
    pub(super) expired: bool,
    pub(super) funding: Vec<&'static str>,
    pub(super) entry_modes: Vec<&'static str>,
    /// Empty: all.
    pub(super) countries: Vec<String>,
    pub(super) unknown_country: bool,
    pub(super) domestic: Vec<String>,
    pub(super) bins_allowed: Vec<String>,
    pub(super) bins_denied: Vec<String>,
    pub(super) exceptions: usize,
    pub(super) exceptions_for_good: usize,
}

/// A step of the limits that move.
#[derive(Serialize)]
pub(super) struct Moved {
    /// From so many minutes offline on, or
    pub(super) from_minutes: Option<u64>,
    /// from so much at risk in the store on.
    pub(super) from_store_minor: Option<u64>,
    pub(super) percent: u64,
    pub(super) classes: Vec<MovedClass>,
    /// The highest sum of one card.
    pub(super) card_minor: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct MovedClass {
    pub(super) class: DeviceClassName,
    /// The highest payment without a PIN; `None`: none.
    pub(super) without_pin_minor: Option<u64>,
    /// The same with the PIN, or verified on the customer's phone.
    pub(super) with_pin_minor: Option<u64>,
}

pub(super) struct DeviceClassName(pub(super) DeviceClass);

impl Serialize for DeviceClassName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

pub(in super::super) fn explain(output: &Output, Loaded { policy, .. }: Loaded) -> Result<(), Failure> {
    let beginning = Stage::beginning(&policy);
    let rows = highest::rows(&policy, beginning);
    let moving = moving(&policy, beginning);
    let explained = explained(&policy, beginning, &rows, moving);
    output.print(&explained, || {
        let languages = [Language::French, Language::English];
        let texts = languages.map(|language| wall::text(&policy, &explained, &rows, language));
        texts.join("\n\n")
    })
}

pub(super) fn explained(policy: &Policy, beginning: Stage, rows: &[Row], moving: Vec<Moved>) -> Explained {
    let limit = |of, limits: hub_core::policy::SubjectLimits| Limit {
        of,
        exposure_ceiling_minor: limits.exposure_ceiling,
        consecutive_limit: limits.consecutive_limit,
        consecutive_lower_limit: limits.consecutive_lower_limit,
    };
    let of_classes = policy
        .classes
        .iter()
        .map(|(class, limits)| limit(class.name(), limits.device));
    let limits = std::iter::once(limit("card", policy.card))
        .chain(of_classes)
        .chain(policy.staff.map(|limits| limit("staff", limits)))
        .chain([limit("store", policy.store)]);
    Explained {
        tenant: policy.tenant.clone(),
        version: policy.version,
        stores: policy.stores.clone(),
        not_before_ms: policy.not_before_ms,
        expires_ms: policy.expires_ms,
        currency: policy.currency.to_string(),
        offline: policy.offline.enabled,
        longest_minutes: policy.offline.longest_ms / 60_000,
        contactless_unverified_ceiling_minor: policy.offline.contactless_unverified_ceiling,
        at_ms: beginning.now_ms,
        payments: rows.iter().flat_map(payments).collect(),
        limits: limits.collect(),
        cards: cards(policy),
        moving,
        further: further::sentences(policy),
    }
}

fn payments(row: &Row) -> impl Iterator<Item = Payment> + '_ {
    let each = row
        .ways
        .iter()
        .flat_map(|way| row.cells.iter().map(move |cell| (way, cell)));
    each.map(|(way, cell)| Payment {
        class: cell.class.name(),
        entry_mode: way.entry_mode.name(),
        verification: way.verification.name(),
        funding: row
            .fundings
            .as_ref()
            .map(|all| all.iter().map(|funding| funding.name()).collect()),
        issuer: row.issuer.map(|issuer| issuer.to_string()),
        cryptogram: row.cryptogram.map(|cryptogram| cryptogram.name()),
        others: row.others,
        highest_minor: cell.highest_minor,
        example: Example {
            scheme: cell.card.scheme.name(),
            funding: cell.card.funding.name(),
            issuer_country: cell.card.issuer_country.clone(),
            bin: cell.card.bin.clone(),
            cryptogram: cell.cryptogram.name(),
        },
    })
}

fn cards(policy: &Policy) -> Cards {
    fn texts<T: ToString>(all: &[T]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }
    let (rules, offline) = (&policy.cards, &policy.offline);
    Cards {
        schemes: offline.schemes.iter().map(|scheme| scheme.name()).collect(),
        expired: offline.expired_cards,
        funding: offline.funding.iter().map(|funding| funding.name()).collect(),
        entry_modes: offline.entry_modes.iter().map(|mode| mode.name()).collect(),
        countries: texts(&rules.countries),
        unknown_country: rules.countries.is_empty() || rules.unknown_country,
        domestic: texts(&rules.domestic),
        bins_allowed: texts(&rules.bins_allowed),
        bins_denied: texts(&rules.bins_denied),
        exceptions: rules.exceptions.len(),
        exceptions_for_good: rules.exceptions.values().filter(|until| until.is_none()).count(),
    }
}

pub(super) fn moving(policy: &Policy, beginning: Stage) -> Vec<Moved> {
    let by_time = policy.moving.outage.iter().map(|step| {
        let stage = Stage {
            offline_ms: step.from,
            ..beginning
        };
        moved(policy, *step, stage, Some(step.from / 60_000), None)
    });
    let by_use = policy.moving.store_used.iter().filter_map(|step| {
        let store_minor = highest::store_minor_at(policy, step.percent)?;
        let stage = Stage {
            store_minor,
            ..beginning
        };
        Some(moved(policy, *step, stage, None, Some(store_minor)))
    });
    by_time.chain(by_use).collect()
}

fn moved(
    policy: &Policy,
    step: Step,
    stage: Stage,
    from_minutes: Option<u64>,
    from_store_minor: Option<u64>,
) -> Moved {
    let rows = highest::rows(policy, stage);
    let best = |class: DeviceClass, wanted: fn(Verification) -> bool| {
        let rows = rows
            .iter()
            .filter(|row| row.ways.iter().any(|way| wanted(way.verification)));
        let cells = rows.flat_map(|row| row.cells.iter().filter(|cell| cell.class == class));
        cells.filter_map(|cell| cell.highest_minor).max()
    };
    let classes = policy.classes.keys().map(|class| MovedClass {
        class: DeviceClassName(*class),
        without_pin_minor: best(*class, |by| {
            matches!(by, Verification::None | Verification::Signature)
        }),
        with_pin_minor: best(*class, |by| {
            matches!(by, Verification::OfflinePin | Verification::Cdcvm)
        }),
    });
    Moved {
        from_minutes,
        from_store_minor,
        percent: step.percent,
        classes: classes.collect(),
        card_minor: highest::highest_of_card(policy, stage, &rows),
    }
}
