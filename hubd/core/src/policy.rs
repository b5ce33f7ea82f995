//! The policy: what HQ allows a shop to approve offline.
//!
//! Written by people in TOML, signed as it stands, parsed here. Unknown keys
//! are refused and all faults are reported at once. `docs/policy.md` is the
//! reference. Amounts are in minor units of the policy's currency; ceilings
//! are inclusive: an amount equal to a ceiling passes.

use std::collections::BTreeMap;

use hub_protocol::{
    CardScheme, Currency, DeviceClass, EntryMode, Funding, MAX_AMOUNT_MINOR, TransactionType,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::toml_reader::{At, Document, Fault, Section, boolean, integer, list, text};

pub mod allowance;
pub mod anomaly;
pub mod cards;
pub mod ceilings;
pub mod device;
pub mod hours;
pub mod moving;
pub mod people;
pub mod profile;
pub mod replay;
pub mod score;
pub mod velocity;

use allowance::AllowanceRules;
use anomaly::AnomalyRules;
use cards::CardRules;
use ceilings::Ceiling;
use device::{AttestationRules, Model};
use hours::Hours;
use moving::MovingLimits;
use people::OverrideRules;
use profile::ProfileRules;
use replay::ReplayRules;
use score::ScoreRules;
use velocity::{TapLimits, Window};

/// The longest policy, in bytes.
pub const MAX_POLICY: usize = 64 * 1024;

/// The policy format that this program reads.
pub const FORMAT: u64 = 1;

/// A policy in force for a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose policy it is.
    pub tenant: String,
    /// Store ids it is for; `*` stands for all of the tenant's.
    pub stores: Vec<String>,
    /// Only grows. A rollback is a new, higher version with old content.
    pub version: u64,
    /// In force from here, milliseconds since 1970 UTC.
    pub not_before_ms: u64,
    /// In force up to here, exclusive, milliseconds since 1970 UTC. After it
    /// nothing is approved offline.
    pub expires_ms: u64,
    /// The one currency that the shop takes.
    pub currency: Currency,
    /// What is allowed offline at all.
    pub offline: OfflineRules,
    /// When the shop is open; `None`: always.
    pub hours: Option<Hours>,
    /// Ceilings for the whole store.
    pub store: SubjectLimits,
    /// Ceilings for one card.
    pub card: SubjectLimits,
    /// What one card may pay by tap without verification.
    pub taps: TapLimits,
    /// Ceilings for one member of staff; `None`: nobody has any.
    pub staff: Option<SubjectLimits>,
    /// Who may let payments pass lower limits and scores; `None`: nobody.
    pub overrides: Option<OverrideRules>,
    /// How often one card.
    pub card_window: Option<Window>,
    /// Which cards.
    pub cards: CardRules,
    /// Ceilings by class of device; a class not named is not allowed offline.
    pub classes: BTreeMap<DeviceClass, ClassLimits>,
    /// Certified models; empty: any.
    pub models: Vec<Model>,
    /// How fresh a verifier's word on a device must be; `None`: none is asked
    /// for.
    pub attestation: Option<AttestationRules>,
    /// Ceilings for kinds of payments, before those of the classes.
    pub ceilings: Vec<Ceiling>,
    /// What makes ceilings smaller.
    pub moving: MovingLimits,
    /// When what is usual in the shop is known; `None`: never, and nothing of
    /// it is remembered.
    pub profile: Option<ProfileRules>,
    /// What is looked for and what it leads to; `None`: nothing.
    pub anomaly: Option<AnomalyRules>,
    /// How risky a payment may look; `None`: nothing is weighed.
    pub score: Option<ScoreRules>,
    /// What devices may approve while they cannot reach the hub; `None`:
    /// nothing.
    pub allowance: Option<AllowanceRules>,
    /// How the backlog is sent.
    pub replay: ReplayRules,
}

/// What is allowed offline at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineRules {
    /// Whether anything is.
    pub enabled: bool,
    /// The longest time offline, in milliseconds.
    pub longest_ms: u64,
    /// The highest age of a payment that waits to be sent, in milliseconds;
    /// `None`: no such limit.
    pub oldest_unsent_ms: Option<u64>,
    /// What may be asked for.
    pub transaction_types: Vec<TransactionType>,
    /// Highest amount of cash handed out, minor units; there is one where
    /// cash-back may be asked for.
    pub cash_back_ceiling: Option<u64>,
    /// Whether cards are accepted that say that they have expired.
    pub expired_cards: bool,
    /// Accepted schemes.
    pub schemes: Vec<CardScheme>,
    /// Accepted funding types.
    pub funding: Vec<Funding>,
    /// Accepted ways of reading the card.
    pub entry_modes: Vec<EntryMode>,
    /// Highest amount for contactless without verification; above it the
    /// card must be inserted and the PIN entered. `None`: no such limit.
    pub contactless_unverified_ceiling: Option<u64>,
}

/// Cumulative limits of a subject (card, device or store).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectLimits {
    /// Highest exposure: approved offline and not yet settled, minor units.
    pub exposure_ceiling: u64,
    /// Most consecutive offline approvals until the subject's payments have
    /// been settled online.
    pub consecutive_limit: u32,
    /// From so many on, the holder must be verified by PIN or on the
    /// holder's own device. Never above `consecutive_limit`.
    pub consecutive_lower_limit: Option<u32>,
}

/// Limits of a class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// Highest amount of one payment, minor units.
    pub transaction_ceiling: u64,
    /// Limits of each device of the class.
    pub device: SubjectLimits,
    /// How often one device.
    pub window: Option<Window>,
}

impl Policy {
    /// Parses a policy file. All faults are returned at once, by line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        Self::read(bytes, false)
    }

    /// Parses a policy that a hub has taken before. What an older program
    /// let pass and can be read (a value that stands twice, opening hours that
    /// overlap, an empty list) does not end a policy in force at an upgrade.
    pub fn parse_taken(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        Self::read(bytes, true)
    }

    fn read(bytes: &[u8], with_slips: bool) -> Result<Self, Vec<Fault>> {
        let whole = |message: String| vec![Fault { line: 1, message }];
        if bytes.len() > MAX_POLICY {
            return Err(whole(format!("the policy is longer than {MAX_POLICY} bytes")));
        }
        let file =
            core::str::from_utf8(bytes).map_err(|_| whole("the policy is not UTF-8 text".to_owned()))?;
        let document = Document::parse(file)?;
        let policy = read(&document);
        document.note_doubled();
        let readable = with_slips && !document.is_unreadable();
        let faults = document.into_faults();
        match policy {
            Some(policy) if readable || faults.is_empty() => Ok(policy),
            _ => Err(faults),
        }
    }

    /// The shop's time zone, UTC if the policy does not know it.
    pub(crate) fn time_zone(&self) -> TimeZone {
        self.hours
            .as_ref()
            .map_or(TimeZone::UTC, |hours| hours.zone().clone())
    }

    /// The hour of the shop's week at this time (milliseconds since 1970 UTC),
    /// 0 to 167, from Monday's first: by the shop's own time zone if the policy
    /// knows it, otherwise by UTC.
    pub(crate) fn hour_of_week(&self, at_ms: u64) -> usize {
        match &self.hours {
            Some(hours) => hours.hour_of_week(at_ms),
            None => hours::hour_of_week(&TimeZone::UTC, at_ms),
        }
    }

    /// Whether it asks how often a card has paid offline lately.
    pub(crate) fn counts_payments_of_cards(&self) -> bool {
        let by_score = self.score.as_ref().and_then(|rules| rules.card_lately);
        self.card_window.is_some() || by_score.is_some()
    }

    /// The highest sum of one card that the hub itself approves, minor units;
    /// the rest of the card's ceiling is for allowances.
    pub(crate) fn hub_card_minor(&self) -> u64 {
        let aside = self
            .allowance
            .as_ref()
            .map_or(0, AllowanceRules::card_set_aside_minor);
        self.card.exposure_ceiling.saturating_sub(aside)
    }

    /// Whether it asks which cards have paid here before.
    pub(crate) fn knows_cards(&self) -> bool {
        self.score.as_ref().is_some_and(|rules| rules.new_card.is_some())
    }

    /// Whether the policy is for this store.
    pub fn covers(&self, store_id: &str) -> bool {
        self.stores.iter().any(|store| store == "*" || store == store_id)
    }
}

fn read(document: &Document<'_>) -> Option<Policy> {
    let root = document.root();
    let format = root.required("format", "format = 1", integer(0..=u64::MAX));
    if let Some(format) = format.filter(|format| format.value != FORMAT) {
        root.fault(
            format.line,
            format!(
                "format {} is not known to this program, which reads format {FORMAT}",
                format.value
            ),
        );
    }
    let tenant = root.required("tenant", "a name of 1 to 64 bytes", short_text);
    let stores = root.required("stores", "a list of store ids, or [\"*\"]", |value| {
        let printable = |store: &String| !store.chars().any(char::is_control);
        list::<String>(value).filter(|stores| !stores.is_empty() && stores.iter().all(printable))
    });
    let version = root.required(
        "version",
        "a whole number from 1 to 4294967295",
        integer(1..=u64::from(u32::MAX)),
    );
    let not_before = root.required("not_before", INSTANT, instant);
    let expires = root.required("expires", INSTANT, instant);
    let currency = root.required("currency", "three capital letters (ISO 4217)", text::<Currency>);
    let offline = read_offline(root.section("offline"));
    // A section with a wrong value is there, and has its own fault.
    let there = |key| root.section(key).is_named();
    let hours = hours::read(root.section("hours"));
    let store = read_subject(root.section("store"));
    let card = root.section("card");
    let domestic_known = card.holds("domestic");
    let cards = cards::read(&card);
    let taps = velocity::read_taps(&card);
    let card_window = velocity::read_window(&card, "window_count", "window_minutes");
    let card = read_subject(card);
    let staff = people::read_staff(root.section("staff"));
    let overrides = people::read_overrides(root.section("override"));
    let classes = read_classes(root.section("class"));
    let models = device::read_models(root.sections("model"));
    let attestation = device::read_attestation(root.section("attestation"));
    let ceilings = ceilings::read(root.sections("ceiling"), domestic_known);
    let moving = moving::read(root.section("moving"));
    let profile = profile::read(root.section("profile"));
    let anomaly = anomaly::read(root.section("anomaly"), there("hours"), there("profile"));
    let has = score::Has {
        domestic: domestic_known,
        hours: there("hours"),
        profile: there("profile"),
        anomaly: there("anomaly"),
    };
    let score = score::read(root.section("score"), has);
    let allowance = allowance::read(root.section("allowance"), card.as_ref());
    let replay = replay::read(root.section("replay"));
    if let (Some(from), Some(to)) = (&not_before, &expires)
        && to.value <= from.value
    {
        root.fault(to.line, "expires: an instant after not_before expected");
    }
    root.finish();
    Some(Policy {
        tenant: tenant?.value,
        stores: stores?.value,
        version: version?.value,
        not_before_ms: not_before?.value,
        expires_ms: expires?.value,
        currency: currency?.value,
        offline: offline?,
        hours,
        store: store?,
        card: card?,
        taps,
        staff,
        overrides,
        card_window,
        cards,
        classes: classes?,
        models,
        attestation,
        ceilings,
        moving,
        profile,
        anomaly,
        score,
        allowance,
        replay: replay?,
    })
}

const INSTANT: &str = "an instant from 1970 on with its offset, such as 2026-01-31T00:00:00Z,";
const AMOUNT: &str = "an amount in minor units (0 to 999999999999)";
const CODES: &str = "a list of at most 64 response codes of 1 to 8 letters and digits";
const COUNT: &str = "a whole number from 0 to 1000000";

fn read_offline(section: Section<'_, '_>) -> Option<OfflineRules> {
    let enabled = section.required("enabled", "true or false", boolean);
    let longest = section.required(
        "longest_minutes",
        "minutes from 1 to 43200 (30 days)",
        integer(1..=43_200),
    );
    let oldest = section.optional(
        "oldest_unsent_minutes",
        "minutes from 1 to 43200 (30 days)",
        integer(1..=43_200),
    );
    let types = section.optional(
        "transaction_types",
        &names(TransactionType::ALL.iter().map(|t| t.name())),
        list,
    );
    let cash_back = section.optional("cash_back_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    if let Some(types) = &types
        && types.value.contains(&TransactionType::CashBack)
        && !section.holds("cash_back_ceiling")
    {
        section.fault(
            types.line,
            "offline.cash_back_ceiling is missing: with cash-back, how much cash is handed out at most",
        );
    }
    let expired = section.optional("expired_cards", "true or false", boolean);
    let schemes = section.required("schemes", &names(CardScheme::ALL.iter().map(|s| s.name())), list);
    let funding = section.required("funding", &names(Funding::ALL.iter().map(|f| f.name())), list);
    let entry_modes = section.required(
        "entry_modes",
        &names(EntryMode::ALL.iter().map(|m| m.name())),
        list,
    );
    let unverified = section.optional(
        "contactless_unverified_ceiling",
        AMOUNT,
        integer(0..=MAX_AMOUNT_MINOR),
    );
    const NO_CARD: &str = "no card would be taken: write enabled = false";
    not_empty(&section, "schemes", schemes.as_ref(), NO_CARD);
    not_empty(&section, "funding", funding.as_ref(), NO_CARD);
    not_empty(&section, "entry_modes", entry_modes.as_ref(), NO_CARD);
    section.finish();
    Some(OfflineRules {
        enabled: enabled?.value,
        longest_ms: longest?.value * 60_000,
        oldest_unsent_ms: oldest.map(|at| at.value * 60_000),
        transaction_types: types.map_or_else(|| vec![TransactionType::Sale], |at| at.value),
        cash_back_ceiling: cash_back.map(|at| at.value),
        expired_cards: expired.is_some_and(|at| at.value),
        schemes: schemes?.value,
        funding: funding?.value,
        entry_modes: entry_modes?.value,
        contactless_unverified_ceiling: unverified.map(|at| at.value),
    })
}

fn read_subject(section: Section<'_, '_>) -> Option<SubjectLimits> {
    let exposure = section.required("exposure_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let consecutive = section.required("consecutive_limit", COUNT, count);
    let lower = section.optional("consecutive_lower_limit", COUNT, count);
    not_above(&section, lower.as_ref(), consecutive.as_ref());
    section.finish();
    Some(SubjectLimits {
        exposure_ceiling: exposure?.value,
        consecutive_limit: consecutive?.value,
        consecutive_lower_limit: lower.map(|at| at.value),
    })
}

fn read_classes(section: Section<'_, '_>) -> Option<BTreeMap<DeviceClass, ClassLimits>> {
    if !section.is_named() {
        section.fault(
            section.line(),
            "class is missing: at least one of [class.mpos], [class.softpos], [class.terminal] expected",
        );
        return None;
    }
    let classes = DeviceClass::ALL
        .iter()
        .map(|class| (*class, section.section(class.name())))
        .filter(|(_, limits)| limits.present())
        .map(|(class, limits)| Some((class, read_class(limits)?)))
        // Every class is read, so that all faults are reported.
        .collect::<Vec<_>>();
    section.finish();
    classes.into_iter().collect()
}

fn read_class(section: Section<'_, '_>) -> Option<ClassLimits> {
    let transaction = section.required("transaction_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let exposure = section.required("device_exposure_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let consecutive = section.required("device_consecutive_limit", COUNT, count);
    let lower = section.optional("device_consecutive_lower_limit", COUNT, count);
    not_above(&section, lower.as_ref(), consecutive.as_ref());
    let window = velocity::read_window(&section, "device_window_count", "device_window_minutes");
    section.finish();
    Some(ClassLimits {
        window,
        transaction_ceiling: transaction?.value,
        device: SubjectLimits {
            exposure_ceiling: exposure?.value,
            consecutive_limit: consecutive?.value,
            consecutive_lower_limit: lower.map(|at| at.value),
        },
    })
}

/// An empty list could be read as all or as none.
fn not_empty<T>(section: &Section<'_, '_>, key: &str, list: Option<&At<Vec<T>>>, instead: &str) {
    if let Some(list) = list.filter(|list| list.value.is_empty()) {
        section.slip(
            list.line,
            format!("{}.{key}: an empty list says nothing; {instead}", section.path()),
        );
    }
}

/// A lower limit beyond the upper one would never be reached.
fn not_above(section: &Section<'_, '_>, lower: Option<&At<u32>>, upper: Option<&At<u32>>) {
    if let (Some(lower), Some(upper)) = (lower, upper)
        && lower.value > upper.value
    {
        section.fault(lower.line, "a lower limit that is not above the limit expected");
    }
}

fn response_codes(value: &toml::de::DeValue<'_>) -> Option<Vec<String>> {
    let code = |code: &String| {
        (1..=8).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    list::<String>(value).filter(|codes| codes.len() <= 64 && codes.iter().all(code))
}

fn names(all: impl Iterator<Item = &'static str>) -> String {
    format!("a list of {}", all.collect::<Vec<_>>().join(", "))
}

fn count(value: &toml::de::DeValue<'_>) -> Option<u32> {
    integer(0..=1_000_000)(value).and_then(|count| u32::try_from(count).ok())
}

fn short_text(value: &toml::de::DeValue<'_>) -> Option<String> {
    // It is printed on walls and terminals as it stands.
    text::<String>(value).filter(|text| (1..=64).contains(&text.len()) && !text.chars().any(char::is_control))
}

fn instant(value: &toml::de::DeValue<'_>) -> Option<u64> {
    let instant: Timestamp = value.as_datetime()?.to_string().parse().ok()?;
    u64::try_from(instant.as_millisecond()).ok()
}

#[cfg(test)]
mod tests;
