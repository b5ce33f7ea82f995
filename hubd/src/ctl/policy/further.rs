//! Limits that are a sentence each on the page for the wall: hours, taps,
//! windows, ages, and what oddities lead to.

use hub_core::policy::Policy;
use hub_core::policy::velocity::Window;
use hub_protocol::TransactionType;
use serde::Serialize;

use super::super::show::Language;
use super::words::In;

mod devices;
mod risks;

/// One limit, in both languages.
#[derive(Serialize)]
pub(super) struct Sentence {
    /// The key of the policy.
    key: String,
    french: String,
    english: String,
}

impl Sentence {
    pub(super) fn text(&self, language: Language) -> &str {
        match language {
            Language::French => &self.french,
            Language::English => &self.english,
        }
    }
}

/// All that the policy has of them, in its order.
pub(super) fn sentences(policy: &Policy) -> Vec<Sentence> {
    let currency = policy.currency.to_string();
    let [fr, en] = [Language::French, Language::English].map(|language| In {
        language,
        currency: &currency,
    });
    let mut all = Vec::new();
    let mut say = |key: &str, french: String, english: String| {
        all.push(Sentence {
            key: key.to_owned(),
            french,
            english,
        });
    };
    if let Some(hours) = &policy.hours {
        let [french, english] = [fr, en].map(|l| week(hours.week(), l));
        let (closed_fr, closed_en) = match hours.approve_outside {
            true => ("", ""),
            false => (
                " Hors de ces heures : aucun paiement sans réseau.",
                " Outside of them: no payment without the network.",
            ),
        };
        say(
            "hours",
            format!("Heures d'ouverture : {french}.{closed_fr}"),
            format!("Opening hours: {english}.{closed_en}"),
        );
    }
    operations(policy, fr, en, &mut say);
    devices::models(policy, fr, en, &mut say);
    devices::attestation(policy, fr, en, &mut say);
    devices::allowances(policy, fr, en, &mut say);
    if let Some(age) = policy.offline.oldest_unsent_ms {
        let minutes = age / 60_000;
        say(
            "offline.oldest_unsent_minutes",
            format!(
                "Dès qu'un paiement attend d'être envoyé depuis plus de {} : aucun paiement.",
                fr.span(minutes)
            ),
            format!(
                "Once a payment has waited to be sent for more than {}: no payment.",
                en.span(minutes)
            ),
        );
    }
    if let Some(sum) = policy.taps.cumulative_ceiling {
        say(
            "card.contactless_cumulative_ceiling",
            format!(
                "Une carte, sans contact et sans code : {} en tout, puis le code.",
                fr.money(sum)
            ),
            format!(
                "One card, contactless without PIN: {} in all, then the PIN.",
                en.money(sum)
            ),
        );
    }
    if let Some(count) = policy.taps.consecutive_limit {
        say(
            "card.contactless_consecutive_limit",
            format!("Une carte, sans contact et sans code : {count} fois de suite, puis le code."),
            format!("One card, contactless without PIN: {count} in a row, then the PIN."),
        );
    }
    if let Some(window) = policy.card_window {
        let [french, english] = [fr, en].map(|l| often(window, l));
        say(
            "card.window_count",
            format!("Une carte, tous appareils : {french}."),
            format!("One card, at all devices: {english}."),
        );
    }
    for (class, limits) in &policy.classes {
        if let Some(window) = limits.window {
            let [french, english] = [fr, en].map(|l| often(window, l));
            say(
                &format!("class.{class}.device_window_count"),
                format!("Un appareil {} : {french}.", fr.class(class.name())),
                format!("One {}: {english}.", en.class(class.name())),
            );
        }
    }
    moving(policy, fr, en, &mut say);
    risks::oddities(policy, fr, en, &mut say);
    risks::weighed(policy, &mut say);
    all
}

fn operations(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    let types = &policy.offline.transaction_types;
    if types.as_slice() != [TransactionType::Sale] {
        let [french, english] = [fr, en].map(|l| {
            let names: Vec<&str> = types.iter().map(|t| l.transaction_type(*t)).collect();
            match names.as_slice() {
                [] => l.say("aucune", "nothing").to_owned(),
                names => names.join(", "),
            }
        });
        say(
            "offline.transaction_types",
            format!("Opérations possibles sans réseau : {french}."),
            format!("What can be done without the network: {english}."),
        );
    }
    if let (true, Some(most)) = (
        types.contains(&TransactionType::CashBack),
        policy.offline.cash_back_ceiling,
    ) {
        say(
            "offline.cash_back_ceiling",
            format!("Espèces remises : {} au plus.", fr.money(most)),
            format!("Cash handed out: at most {}.", en.money(most)),
        );
    }
    if let Some(rules) = &policy.overrides {
        let names: Vec<&str> = rules.supervisors.iter().map(|one| one.name.as_str()).collect();
        let may = fr.number(names.len() as u64, ["Peut", "Peuvent"], ["May"; 2]);
        let names = names.join(", ");
        let times = rules.window.most;
        let in_english = en.number(times.into(), ["fois"; 2], ["once", "times"]);
        let in_english = match times {
            1 => in_english.to_owned(),
            _ => format!("{times} {in_english}"),
        };
        let [french, english] = [fr, en].map(|l| l.span(rules.window.within_ms / 60_000));
        say(
            "override",
            format!(
                "{may} autoriser un paiement là où le code est exigé, {times} fois en {french} au plus : {names}."
            ),
            format!(
                "May let a payment pass where the PIN is required, {in_english} in {english} at most: {names}."
            ),
        );
    }
}

fn moving(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    for step in &policy.moving.oldest_unsent {
        let (minutes, percent) = (step.from / 60_000, step.percent);
        say(
            "moving.oldest_unsent",
            format!(
                "Un paiement attend d'être envoyé depuis {} : montants à {percent} %.",
                fr.span(minutes)
            ),
            format!(
                "A payment has waited to be sent for {}: amounts at {percent} %.",
                en.span(minutes)
            ),
        );
    }
    for step in &policy.moving.policy_age {
        let (days, percent) = (step.from / 86_400_000, step.percent);
        say(
            "moving.policy_age",
            format!(
                "Règles vieilles de {days} {} : montants à {percent} %.",
                fr.number(days, ["jour", "jours"], [""; 2])
            ),
            format!(
                "Rules {days} {} old: amounts at {percent} %.",
                en.number(days, [""; 2], ["day", "days"])
            ),
        );
    }
    for step in &policy.moving.declined {
        let (from, percent) = (step.from, step.percent);
        let least = u64::from(policy.moving.declined_least());
        say(
            "moving.declined",
            format!(
                "La banque a refusé après coup {from} % ou plus, d'au moins {least} {} : montants à {percent} %.",
                fr.number(least, ["paiement", "paiements"], [""; 2])
            ),
            format!(
                "The bank declined {from} % or more afterwards, of {least} {} at least: amounts at {percent} %.",
                en.number(least, [""; 2], ["payment", "payments"])
            ),
        );
    }
    if let Some(loosening) = policy.moving.loosening {
        let (points, minutes) = (loosening.percent, loosening.every_ms / 60_000);
        say(
            "moving.loosen_percent",
            format!(
                "Des montants réduits remontent de {points} {} toutes les {}.",
                fr.number(points, ["point", "points"], [""; 2]),
                fr.span(minutes)
            ),
            format!(
                "Reduced amounts come back by {points} {} each {}.",
                en.number(points, [""; 2], ["point", "points"]),
                en.span(minutes)
            ),
        );
    }
}

fn often(window: Window, l: In<'_>) -> String {
    let (most, span) = (window.most, l.span(window.within_ms / 60_000));
    let payments = l.number(most.into(), ["paiement", "paiements"], ["payment", "payments"]);
    match l.language {
        Language::French => format!("au plus {most} {payments} en {span}"),
        Language::English => format!("at most {most} {payments} in {span}"),
    }
}

fn week(days: &[Vec<hub_core::policy::hours::Span>; 7], l: In<'_>) -> String {
    const FRENCH: [&str; 7] = [
        "lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche",
    ];
    const ENGLISH: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    let day = |(at, spans): (usize, &Vec<hub_core::policy::hours::Span>)| {
        let names = match l.language {
            Language::French => FRENCH,
            Language::English => ENGLISH,
        };
        let spans: Vec<String> = spans.iter().map(ToString::to_string).collect();
        let hours = match spans.as_slice() {
            [] => l.say("fermé", "closed").to_owned(),
            spans => spans.join(", "),
        };
        format!("{} {hours}", names.get(at).copied().unwrap_or_default())
    };
    let days: Vec<String> = days.iter().enumerate().map(day).collect();
    days.join(l.say(" ; ", "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_beyond_the_tables_is_a_sentence_in_both_languages() {
        let policy = include_bytes!("../../../../config/policies/everything.toml");
        let policy = Policy::parse(policy).unwrap();
        let all = sentences(&policy);
        for key in [
            "hours",
            "offline.transaction_types",
            "offline.cash_back_ceiling",
            "override",
            "model",
            "allowance",
            "attestation.max_age_minutes",
            "attestation.stale_percent",
            "attestation.online_max_age_minutes",
            "offline.oldest_unsent_minutes",
            "card.contactless_cumulative_ceiling",
            "card.contactless_consecutive_limit",
            "card.window_count",
            "class.softpos.device_window_count",
            "moving.oldest_unsent",
            "moving.policy_age",
            "moving.declined",
            "moving.loosen_percent",
            "anomaly.device.tighten",
            "anomaly.store.stop",
            "anomaly.recover_online_minutes",
            "score",
            "score.verify_from",
            "score.decline_from",
        ] {
            assert!(all.iter().any(|one| one.key == key), "{key}");
        }
        let hours = &all[0];
        assert!(
            hours.french.contains("lundi 08:30-20:30 ; mardi"),
            "{}",
            hours.french
        );
        assert!(
            hours.english.contains("Monday 08:30-20:30; Tuesday")
                && hours.english.contains("Sunday 09:00-13:00."),
            "{}",
            hours.english
        );
        for one in &all {
            assert!(
                !one.english.contains(" ;") && !one.english.contains(" :"),
                "{}",
                one.english
            );
        }
        let cut_off = all.iter().find(|one| one.key == "allowance").unwrap();
        assert!(
            cut_off
                .english
                .contains("Of a card's sum, 3 times 10.00 EUR are for that alone."),
            "{}",
            cut_off.english
        );
        let declined = |policy: &Policy| {
            let mut all = sentences(policy).into_iter();
            all.find(|one| one.key == "score.decline_from").unwrap().english
        };
        assert_eq!(
            declined(&policy),
            "Risk, from 90 points on: the payment is declined."
        );
        let mut lifted = policy.clone();
        lifted.score.as_mut().unwrap().override_lifts_decline = true;
        assert_eq!(
            declined(&lifted),
            "Risk, from 90 points on: the payment is declined unless a supervisor signs."
        );
        let score = all.iter().find(|one| one.key == "score").unwrap();
        assert!(
            score.french.contains("carte jamais vue ici 20 ; "),
            "{}",
            score.french
        );
        assert!(score.english.contains("unusual hour 20; "), "{}", score.english);
        let cautious = include_bytes!("../../../../config/policies/france-cautious.toml");
        assert_eq!(sentences(&Policy::parse(cautious).unwrap()).len(), 0);
    }
}
