//! The policies: the sample that is measured, and what it is measured against.

use toml::{Table, Value};

use super::measure::Contender;

/// What is measured unless another file is named.
pub const WATCHFUL: &str = include_str!("../../../../config/policies/france-watchful.toml");

/// A limit that nothing reaches.
const NO_LIMIT: i64 = 999_999_999_999;
const NO_COUNT: i64 = 1_000_000;

/// The policy as it stands.
///
/// # Errors
/// A text that is no policy.
pub fn whole(name: &str, text: &str) -> Result<Contender, String> {
    Contender::new(name, text.to_owned())
}

/// The policy without its detectors and scores: what limits alone do.
///
/// # Errors
/// A text that is no policy.
pub fn without_detectors(name: &str, text: &str) -> Result<Contender, String> {
    let mut policy = table(text)?;
    for section in ["anomaly", "score", "profile"] {
        policy.remove(section);
    }
    Contender::new(name, policy.to_string())
}

/// What other systems have: a ceiling for one payment and one for the sum at
/// each device, fixed; and refunds. The limit for taps without a PIN stays, since the card
/// and the terminal hold that by themselves.
///
/// # Errors
/// A text that is no policy.
pub fn caps_only(name: &str, text: &str) -> Result<Contender, String> {
    let mut policy = table(text)?;
    for section in ["moving", "anomaly", "score", "profile", "ceiling", "replay"] {
        policy.remove(section);
    }
    if let Some(Value::Table(offline)) = policy.get_mut("offline") {
        offline.remove("oldest_unsent_minutes");
        offline.remove("cash_back_ceiling");
        allow_refunds(offline);
    }
    for subject in ["store", "card"] {
        let limits = Table::from_iter([
            ("exposure_ceiling".to_owned(), Value::Integer(NO_LIMIT)),
            ("consecutive_limit".to_owned(), Value::Integer(NO_COUNT)),
        ]);
        policy.insert(subject.to_owned(), Value::Table(limits));
    }
    if let Some(Value::Table(classes)) = policy.get_mut("class") {
        for (_, class) in classes.iter_mut() {
            let Value::Table(class) = class else { continue };
            class.retain(|key, _| matches!(key, "transaction_ceiling" | "device_exposure_ceiling"));
            class.insert("device_consecutive_limit".to_owned(), Value::Integer(NO_COUNT));
        }
    }
    Contender::new(name, policy.to_string())
}

/// The policy with refunds offline.
///
/// # Errors
/// A text that is no policy.
pub fn with_refunds(name: &str, text: &str) -> Result<Contender, String> {
    let mut policy = table(text)?;
    if let Some(Value::Table(offline)) = policy.get_mut("offline") {
        offline.remove("cash_back_ceiling");
        allow_refunds(offline);
    }
    Contender::new(name, policy.to_string())
}

/// The policy without this detector.
///
/// # Errors
/// A text that is no policy.
pub fn without_detector(name: &str, text: &str, detector: &str) -> Result<Contender, String> {
    let mut policy = table(text)?;
    if let Some(Value::Table(anomaly)) = policy.get_mut("anomaly") {
        anomaly.remove(detector);
    }
    Contender::new(name, policy.to_string())
}

/// The policy with as many points for this detector, if it has it, as tighten a
/// device.
///
/// # Errors
/// A text that is no policy.
pub fn tightened_by(name: &str, text: &str, detector: &str) -> Result<Contender, String> {
    let path = format!("{detector}.points");
    match (number(text, &path), number(text, "device.tighten")) {
        (Some(_), Some(tighten)) => with_number(name, text, &path, tighten),
        _ => Contender::new(name, text.to_owned()),
    }
}

fn allow_refunds(offline: &mut Table) {
    let types = ["sale", "refund"].map(|name| Value::String(name.to_owned()));
    offline.insert("transaction_types".to_owned(), Value::Array(types.to_vec()));
}

/// The policy with the detectors of another.
///
/// # Errors
/// Texts that are no policies; another without detectors.
pub fn with_detectors_of(name: &str, text: &str, other: &str) -> Result<Contender, String> {
    let mut policy = table(text)?;
    let mut other = table(other)?;
    let mut detectors = other
        .remove("anomaly")
        .ok_or_else(|| "the other policy has no [anomaly]".to_owned())?;
    // The hours would refuse by themselves, and are not taken over.
    if let (Value::Table(detectors), false) = (&mut detectors, policy.contains_key("hours")) {
        detectors.remove("outside_hours");
    }
    policy.insert("anomaly".to_owned(), detectors);
    // Some of them ask what is usual.
    if let Some(profile) = other.remove("profile") {
        policy.insert("profile".to_owned(), profile);
    }
    Contender::new(name, policy.to_string())
}

/// The policy with one number of `[anomaly]` changed.
///
/// # Errors
/// A text that is no policy, or a number that is not in it.
pub fn with_number(name: &str, text: &str, path: &str, number: i64) -> Result<Contender, String> {
    let mut policy = table(text)?;
    let mut place = policy.get_mut("anomaly");
    for key in path.split('.') {
        place = place.and_then(|value| value.get_mut(key));
    }
    let place = place.ok_or_else(|| format!("anomaly.{path} is not in the policy"))?;
    *place = Value::Integer(number);
    Contender::new(name, policy.to_string())
}

/// A number of `[anomaly]`.
pub(super) fn number(text: &str, path: &str) -> Option<i64> {
    let policy = table(text).ok()?;
    let mut place = policy.get("anomaly");
    for key in path.split('.') {
        place = place.and_then(|value| value.get(key));
    }
    place?.as_integer()
}

fn table(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error| format!("no policy: {error}"))
}
