//! How the backlog is sent: paced, in which order, and what may be done after
//! a decline.

use std::collections::BTreeMap;

use hub_protocol::{CardScheme, MerchantAdvice};

use super::{CODES, response_codes};
use crate::toml_reader::{At, Section, integer, list};

/// How long after the decision an offline approval is worth sending where the
/// policy does not say, in milliseconds: the shortest of the limits that
/// providers publish is a day.
pub const DEFAULT_WORTH_SENDING_MS: u64 = 24 * HOUR_MS;

/// The most codes of one kind of one scheme.
const MOST_CODES: usize = 64;

/// The keys of a scheme that belong to presenting again.
const RETRY_KEYS: &[&str] = &[
    "never_retry",
    "retry",
    "most_per_24h",
    "most_per_30_days",
    "min_wait_minutes",
    "never_retry_advice",
    "advice_wait",
];

const HOUR_MS: u64 = 60 * 60 * 1000;
const ADVICE: &str = "a list of at most 64 merchant advice codes of two digits";
const WORTH: &str = "hours from 1 to 744 (31 days)";

/// How the backlog is sent to the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayRules {
    /// The window over which stores begin to replay after an outage, in
    /// milliseconds; 0 for none.
    pub spread_ms: u64,
    /// The least time between two payments of one card, in milliseconds.
    pub same_card_gap_ms: u64,
    /// How long after the decision an offline approval is worth sending, in
    /// milliseconds, 1 h to 31 days; `None`: [`DEFAULT_WORTH_SENDING_MS`].
    /// What expires first is sent first; what has expired is sent too.
    pub worth_sending_ms: Option<u64>,
    /// The same for schemes where it is different.
    pub worth_sending_by_scheme: BTreeMap<CardScheme, u64>,
    /// What each scheme allows after a decline. Nothing for a scheme not
    /// named: a decline is final.
    pub schemes: BTreeMap<CardScheme, RetryRules>,
}

impl ReplayRules {
    /// How long after the decision an offline approval of this scheme is worth
    /// sending, in milliseconds.
    pub fn worth_sending_ms(&self, scheme: CardScheme) -> u64 {
        let by_scheme = self.worth_sending_by_scheme.get(&scheme).copied();
        by_scheme
            .or(self.worth_sending_ms)
            .unwrap_or(DEFAULT_WORTH_SENDING_MS)
    }
}

/// When a declined payment may be presented again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRules {
    /// Response codes after which never. Goes before `retry`.
    pub never_retry: Vec<String>,
    /// Response codes after which it may.
    pub retry: Vec<String>,
    /// The most presentations of one payment in 24 h, the first included.
    pub most_per_24h: u32,
    /// The most in 30 days, the first included; also the end of it.
    pub most_per_30_days: u32,
    /// The least time between a decline and the next presentation, in
    /// milliseconds.
    pub min_wait_ms: u64,
    /// Merchant advice codes after which never, whatever the response code.
    pub never_retry_advice: Vec<MerchantAdvice>,
    /// The least time between a decline with this merchant advice code and the
    /// next presentation, in milliseconds, if it is longer than the one above.
    pub advice_wait_ms: BTreeMap<MerchantAdvice, u64>,
}

/// Reads `[replay]`. All of it may be missing: then nothing is spread or
/// paced, and every decline is final.
pub(super) fn read(section: Section<'_, '_>) -> Option<ReplayRules> {
    let spread = section.optional("spread_s", "seconds from 0 to 3600", integer(0..=3_600));
    let gap = section.optional("same_card_gap_s", "seconds from 0 to 600", integer(0..=600));
    let worth = section.optional("worth_sending_h", WORTH, integer(1..=744));
    let by_scheme = section.section("scheme");
    let named = CardScheme::ALL
        .iter()
        .map(|scheme| (*scheme, by_scheme.section(scheme.name())))
        .filter(|(_, rules)| rules.present());
    let (mut worth_sending_by_scheme, mut schemes) = (BTreeMap::new(), Some(BTreeMap::new()));
    for (scheme, rules) in named {
        let worth = rules.optional("worth_sending_h", WORTH, integer(1..=744));
        worth_sending_by_scheme.extend(worth.map(|at| (scheme, at.value * HOUR_MS)));
        match read_retry(rules) {
            Ok(None) => {}
            Ok(Some(rules)) => {
                if let Some(all) = &mut schemes {
                    all.insert(scheme, rules);
                }
            }
            // Every scheme is read, so that all faults are reported.
            Err(Faulty) => schemes = None,
        }
    }
    by_scheme.finish();
    section.finish();
    Some(ReplayRules {
        spread_ms: spread.map_or(0, |at| at.value * 1000),
        same_card_gap_ms: gap.map_or(0, |at| at.value * 1000),
        worth_sending_ms: worth.map(|at| at.value * HOUR_MS),
        worth_sending_by_scheme,
        schemes: schemes?,
    })
}

/// Its faults are noted.
struct Faulty;

/// What a scheme allows after a decline; nothing if its table says only how
/// long an approval is worth sending.
fn read_retry(section: Section<'_, '_>) -> Result<Option<RetryRules>, Faulty> {
    if section.holds("worth_sending_h") && !RETRY_KEYS.iter().any(|key| section.holds(key)) {
        // A slip in a key's name is told with all that are known here.
        for key in RETRY_KEYS {
            section.optional(key, "", |_| Some(()));
        }
        section.finish();
        return Ok(None);
    }
    let never = section.required("never_retry", CODES, response_codes);
    let retry = section.required("retry", CODES, response_codes);
    let per_day = section.required("most_per_24h", "a whole number from 0 to 100", few);
    let per_month = section.required("most_per_30_days", "a whole number from 0 to 100", few);
    let wait = section.required(
        "min_wait_minutes",
        "minutes from 1 to 43200 (30 days)",
        integer(1..=43_200),
    );
    let never_advice = section.optional("never_retry_advice", ADVICE, |value| {
        list::<MerchantAdvice>(value).filter(|codes| codes.len() <= MOST_CODES)
    });
    let faulty = section.holds("never_retry_advice") && never_advice.is_none();
    let never_advice = never_advice.map_or_else(Vec::new, |at| at.value);
    let waits = read_advice_waits(&section, &never_advice);
    section.finish();
    let rules = || {
        Some(RetryRules {
            never_retry: never?.value,
            retry: retry?.value,
            most_per_24h: per_day?.value,
            most_per_30_days: per_month?.value,
            min_wait_ms: wait?.value * 60_000,
            never_retry_advice: never_advice,
            advice_wait_ms: waits?,
        })
    };
    rules().filter(|_| !faulty).map(Some).ok_or(Faulty)
}

fn read_advice_waits(
    section: &Section<'_, '_>,
    never: &[MerchantAdvice],
) -> Option<BTreeMap<MerchantAdvice, u64>> {
    let mut waits = BTreeMap::new();
    let mut whole = true;
    for one in section.sections("advice_wait") {
        let (line, path) = (one.line(), one.path().to_owned());
        let code = one.required("code", "a merchant advice code of two digits", |value| {
            value.as_str()?.parse::<MerchantAdvice>().ok()
        });
        let hours = one.required("hours", "hours from 1 to 720 (30 days)", integer(1..=720));
        one.finish();
        let (Some(At { value: code, .. }), Some(hours)) = (code, hours) else {
            whole = false;
            continue;
        };
        if never.contains(&code) {
            section.fault(
                line,
                format!("{path}: after {code} the payment is never presented again (never_retry_advice)"),
            );
        }
        if waits.insert(code, hours.value * HOUR_MS).is_some() {
            section.fault(line, format!("{path}: {code} stands here twice"));
        }
    }
    whole.then_some(waits)
}

fn few(value: &toml::de::DeValue<'_>) -> Option<u32> {
    integer(0..=100)(value).and_then(|count| u32::try_from(count).ok())
}
