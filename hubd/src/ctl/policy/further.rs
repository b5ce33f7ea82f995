//! Limits that are a sentence each on the page for the wall: hours, taps,
//! windows, ages, and what oddities lead to.

use hub_core::policy::Policy;
use hub_core::policy::anomaly::Thresholds;
use hub_core::policy::velocity::Window;
use hub_protocol::TransactionType;
use serde::Serialize;

use super::super::show::Language;
use super::words::In;

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
    devices(policy, fr, en, &mut say);
    allowances(policy, fr, en, &mut say);
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
    oddities(policy, &mut say);
    weighed(policy, &mut say);
    all
}

fn operations(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    let types = &policy.offline.transaction_types;
    if types.as_slice() != [TransactionType::Sale] {
        let [french, english] = [fr, en].map(|l| {
            let names: Vec<&str> = types.iter().map(|t| l.transaction_type(*t)).collect();
            names.join(", ")
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
        let names = names.join(", ");
        let [french, english] =
            [fr, en].map(|l| (rules.window.most, l.span(rules.window.within_ms / 60_000)));
        say(
            "override",
            format!(
                "Peuvent autoriser un paiement là où le code est exigé, {} fois en {} au plus : {names}.",
                french.0, french.1
            ),
            format!(
                "May let a payment pass where the PIN is required, {} times in {} at most: {names}.",
                english.0, english.1
            ),
        );
    }
}

fn allowances(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    let Some(rules) = &policy.allowance else {
        return;
    };
    let [french, english] = [fr, en].map(|l| {
        let classes: Vec<String> = rules.classes.iter().map(|class| l.class(class.name())).collect();
        let sum = l.money(rules.amount_minor);
        let card = l.money(rules.card_ceiling_minor);
        (classes.join(", "), sum, l.span(rules.valid_ms / 60_000), card)
    });
    let (count, devices) = (rules.count, rules.devices);
    say(
        "allowance",
        format!(
            "Appareil coupé du boîtier ({}) : {} et {count} paiements au plus, pendant {}. \
             De la somme d'une carte, {devices} fois {} y sont réservées.",
            french.0, french.1, french.2, french.3
        ),
        format!(
            "A device cut off from the hub ({}): at most {} and {count} payments, for {}. \
             Of a card's sum, {devices} times {} are for that alone.",
            english.0, english.1, english.2, english.3
        ),
    );
}

fn devices(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    if !policy.models.is_empty() {
        let names: Vec<String> = policy
            .models
            .iter()
            .map(|model| format!("{} {}", model.vendor, model.model.as_deref().unwrap_or("*")))
            .collect();
        let names = names.join(", ");
        say(
            "model",
            format!("Seuls appareils admis sans réseau : {names}."),
            format!("The only devices that may be used without the network: {names}."),
        );
    }
    let Some(rules) = &policy.attestation else {
        return;
    };
    let [french, english] = [fr, en].map(|l| {
        let classes: Vec<String> = rules.classes.iter().map(|class| l.class(class.name())).collect();
        (classes.join(", "), l.span(rules.max_age_ms / 60_000))
    });
    say(
        "attestation.max_age_minutes",
        format!(
            "{} : contrôlé en ligne depuis moins de {}, sinon aucun paiement.",
            french.0, french.1
        ),
        format!(
            "{}: checked online within {}, else no payment.",
            english.0, english.1
        ),
    );
    if let Some(stale) = rules.stale {
        let percent = stale.percent;
        let [french, english] = [fr, en].map(|l| l.span(stale.after_ms / 60_000));
        say(
            "attestation.stale_percent",
            format!("Contrôle plus ancien que {french} : montants à {percent} %."),
            format!("A check older than {english}: amounts at {percent} %."),
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
            format!("Règles vieilles de {days} jours : montants à {percent} %."),
            format!("Rules {days} days old: amounts at {percent} %."),
        );
    }
    for step in &policy.moving.declined {
        let (from, percent) = (step.from, step.percent);
        say(
            "moving.declined",
            format!("La banque a refusé après coup {from} % ou plus : montants à {percent} %."),
            format!("The bank declined {from} % or more afterwards: amounts at {percent} %."),
        );
    }
    if let Some(loosening) = policy.moving.loosening {
        let (points, minutes) = (loosening.percent, loosening.every_ms / 60_000);
        say(
            "moving.loosen_percent",
            format!(
                "Des montants réduits remontent de {points} points toutes les {}.",
                fr.span(minutes)
            ),
            format!(
                "Reduced amounts come back by {points} points each {}.",
                en.span(minutes)
            ),
        );
    }
}

fn oddities(policy: &Policy, say: &mut impl FnMut(&str, String, String)) {
    let Some(rules) = &policy.anomaly else {
        return;
    };
    let percent = rules.tighten_percent;
    let places: [(&str, &str, &str, Thresholds); 2] = [
        ("anomaly.device", "sur un appareil", "at a device", rules.device),
        ("anomaly.store", "dans le magasin", "in the store", rules.store),
    ];
    for (key, french, english, thresholds) in places {
        if let Some(points) = thresholds.tighten {
            say(
                &format!("{key}.tighten"),
                format!("Anomalies {french}, dès {points} points : montants à {percent} %."),
                format!("Anomalies {english}, from {points} points on: amounts at {percent} %."),
            );
        }
        if let Some(points) = thresholds.stop {
            say(
                &format!("{key}.stop"),
                format!(
                    "Anomalies {french}, dès {points} points : plus de paiement sans réseau, prévenir le responsable."
                ),
                format!(
                    "Anomalies {english}, from {points} points on: no payment without the network, tell the manager."
                ),
            );
        }
    }
}

/// What makes a payment look risky, and what comes of it.
fn weighed(policy: &Policy, say: &mut impl FnMut(&str, String, String)) {
    let Some(rules) = &policy.score else {
        return;
    };
    let mut french = Vec::new();
    let mut english = Vec::new();
    let mut counts = |points: Option<u16>, fr: String, en: String| {
        if let Some(points) = points {
            french.push(format!("{fr} {points}"));
            english.push(format!("{en} {points}"));
        }
    };
    if let Some(rule) = rules.amount_above_usual {
        let percent = rule.percentile;
        counts(
            Some(rule.points),
            format!("montant plus haut que {percent} % des paiements du magasin"),
            format!("amount above {percent} % of the shop's payments"),
        );
    }
    for (points, fr, en) in [
        (
            rules.new_card,
            "carte jamais vue ici",
            "card not seen here before",
        ),
        (rules.foreign_card, "carte étrangère", "foreign card"),
        (
            rules.no_chip,
            "numéro saisi ou piste magnétique",
            "number typed in or magnetic stripe",
        ),
        (rules.unusual_hour, "heure inhabituelle", "unusual hour"),
    ] {
        counts(points, fr.to_owned(), en.to_owned());
    }
    if let Some(rule) = rules.card_lately {
        let (count, minutes) = (rule.window.most, rule.window.within_ms / 60_000);
        counts(
            Some(rule.points),
            format!("dès {count} paiements de la carte en {minutes} min"),
            format!("from {count} payments of the card in {minutes} min on"),
        );
    }
    let odd = rules.device_odd.map(|rule| rule.points);
    counts(
        odd,
        "anomalies sur l'appareil".to_owned(),
        "oddities at the device".to_owned(),
    );
    say(
        "score",
        format!("Points de risque d'un paiement : {}.", french.join(" ; ")),
        format!("Points of risk of a payment: {}.", english.join("; ")),
    );
    if let Some(points) = rules.verify_from {
        say(
            "score.verify_from",
            format!("Risque, dès {points} points : insérer la carte, composer le code."),
            format!("Risk, from {points} points on: insert the card, enter the PIN."),
        );
    }
    if let Some(points) = rules.decline_from {
        let (french, english) = if rules.override_lifts_decline {
            (
                " sauf autorisation d'un responsable",
                " unless a supervisor signs",
            )
        } else {
            ("", "")
        };
        say(
            "score.decline_from",
            format!("Risque, dès {points} points : paiement refusé{french}."),
            format!("Risk, from {points} points on: the payment is declined{english}."),
        );
    }
}

fn often(window: Window, l: In<'_>) -> String {
    let (most, span) = (window.most, l.span(window.within_ms / 60_000));
    match l.language {
        Language::French => format!("au plus {most} paiements en {span}"),
        Language::English => format!("at most {most} payments in {span}"),
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
    days.join(" ; ")
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
        assert!(hours.english.contains("Sunday 09:00-13:00."), "{}", hours.english);
        let cut_off = all.iter().find(|one| one.key == "allowance").unwrap();
        assert!(
            cut_off
                .english
                .ends_with("Of a card's sum, 3 times 10.00 EUR are for that alone."),
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
