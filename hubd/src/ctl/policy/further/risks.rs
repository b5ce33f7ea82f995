//! What is odd, and what looks risky, as sentences of the page for the wall.

use hub_core::policy::Policy;
use hub_core::policy::anomaly::Thresholds;

use super::In;

/// What comes of anomalies, and what ends it.
pub(super) fn oddities(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    let Some(rules) = &policy.anomaly else {
        return;
    };
    let percent = rules.tighten_percent;
    let places: [(&str, &str, &str, Thresholds); 2] = [
        ("anomaly.device", "sur un appareil", "at a device", rules.device),
        ("anomaly.store", "dans le magasin", "in the store", rules.store),
    ];
    for (key, french, english, thresholds) in places {
        if let Some(points) = thresholds.warn {
            say(
                &format!("{key}.warn"),
                format!("Anomalies {french}, dès {points} points : à examiner par le responsable."),
                format!("Anomalies {english}, from {points} points on: the manager should look."),
            );
        }
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
    let fade = rules.fade_per_hour;
    let ends = rules.recover_online_ms.map(|most| most / 60_000);
    let [french, english] = [fr, en].map(|l| ends.map(|minutes| l.span(minutes)));
    say(
        "anomaly.recover_online_minutes",
        format!(
            "Les points d'anomalie baissent de {fade} par heure. Une restriction prend fin {}.",
            match french {
                Some(span) => format!("après {span} de réponses de la banque sans interruption"),
                None => "par une personne ou par de nouvelles règles, jamais d'elle-même".to_owned(),
            }
        ),
        format!(
            "Points of anomalies go down by {fade} an hour. A restriction ends {}.",
            match english {
                Some(span) => format!("after {span} of answers from the bank without a break"),
                None => "by a person or a new policy, never by itself".to_owned(),
            }
        ),
    );
}

/// What makes a payment look risky, and what comes of it.
pub(super) fn weighed(policy: &Policy, say: &mut impl FnMut(&str, String, String)) {
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
            format!("dès {count} paiements de la carte en {minutes} min :"),
            format!("from {count} payments of the card in {minutes} min on:"),
        );
    }
    if let Some(rule) = rules.device_odd {
        let from = rule.from_points;
        counts(
            Some(rule.points),
            format!("anomalies sur l'appareil, dès {from} points :"),
            format!("anomalies at the device, from {from} points on:"),
        );
    }
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
