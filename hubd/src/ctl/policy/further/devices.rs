//! Which devices, as sentences of the page for the wall.

use hub_core::policy::Policy;
use hub_core::policy::device::Model;
use hub_protocol::DeviceClass;
use hub_protocol::description::Version;

use super::In;

/// What tells certified models apart.
pub(super) fn models(policy: &Policy, fr: In<'_>, en: In<'_>, say: &mut impl FnMut(&str, String, String)) {
    if policy.models.is_empty() {
        return;
    }
    let [french, english] = [fr, en].map(|l| {
        let all: Vec<String> = policy.models.iter().map(|model| described(model, l)).collect();
        all.join(l.say(" ; ", "; "))
    });
    say(
        "model",
        format!("Seuls appareils admis sans réseau : {french}."),
        format!("The only devices that may be used without the network: {english}."),
    );
}

/// "Acme Tap 3 (SoftPOS, system from 13 on, certified mpoc, PIN on its screen)".
fn described(model: &Model, l: In<'_>) -> String {
    let name = match &model.model {
        Some(name) => format!("{} {name}", model.vendor),
        None => format!("{}, {}", model.vendor, l.say("tous modèles", "any model")),
    };
    let mut told = vec![match model.class {
        Some(class) => short_class(class).to_owned(),
        None => l
            .say("mPOS, SoftPOS, Terminal", "mPOS, SoftPOS, Terminal")
            .to_owned(),
    }];
    for (french, english, lowest) in [
        ("système", "system", model.os_version),
        ("application", "app", model.app_version),
    ] {
        if lowest != Version::default() {
            told.push(format!(
                "{} {lowest}",
                l.say(
                    &format!("{french} à partir de"),
                    &format!("{english} from version")
                )
            ));
        }
    }
    let certified: Vec<&str> = model.certification.iter().map(|one| one.name()).collect();
    let certified = match certified.as_slice() {
        [] => l.say("aucune", "nothing").to_owned(),
        names => names.join(l.say(" ou ", " or ")),
    };
    told.push(format!("{} {certified}", l.say("certification", "certified")));
    // Others have a keypad, or none whatever the policy says.
    if model.class.is_none_or(|class| class == DeviceClass::Softpos) {
        let pin = match model.pin_on_glass {
            true => l.say("code sur l'écran", "PIN on its screen"),
            false => l.say("pas de code sur l'écran", "no PIN on its screen"),
        };
        told.push(pin.to_owned());
    }
    format!("{name} ({})", told.join(", "))
}

const fn short_class(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Mpos => "mPOS",
        DeviceClass::Softpos => "SoftPOS",
        DeviceClass::Terminal => "Terminal",
    }
}

/// How fresh a verifier's word must be.
pub(super) fn attestation(
    policy: &Policy,
    fr: In<'_>,
    en: In<'_>,
    say: &mut impl FnMut(&str, String, String),
) {
    let Some(rules) = &policy.attestation else {
        return;
    };
    let verifiers: Vec<&str> = rules.verifiers.iter().map(|one| one.name.as_str()).collect();
    let verifiers = verifiers.join(", ");
    let [french, english] = [fr, en].map(|l| {
        let classes: Vec<String> = rules.classes.iter().map(|class| l.class(class.name())).collect();
        (classes.join(", "), l.span(rules.max_age_ms / 60_000))
    });
    say(
        "attestation.max_age_minutes",
        format!(
            "{} : contrôlé par {verifiers} il y a moins de {}, sinon aucun paiement sans réseau.",
            french.0, french.1
        ),
        format!(
            "{}: checked by {verifiers} within {}, else no payment without the network.",
            english.0, english.1
        ),
    );
    if let Some(stale) = rules.stale {
        let percent = stale.percent;
        let [french, english] = [fr, en].map(|l| l.span(stale.after_ms / 60_000));
        say(
            "attestation.stale_percent",
            format!("Contrôle datant de plus de {french} : montants à {percent} %."),
            format!("A check older than {english}: amounts at {percent} %."),
        );
    }
    if let Some(most) = rules.online_max_age_ms {
        let [french, english] = [fr, en].map(|l| l.span(most / 60_000));
        say(
            "attestation.online_max_age_minutes",
            format!("Contrôle datant de plus de {french} : aucun paiement, même avec le réseau."),
            format!("A check older than {english}: no payment, not even with the network."),
        );
    }
}

/// What a device may approve that cannot reach the hub.
pub(super) fn allowances(
    policy: &Policy,
    fr: In<'_>,
    en: In<'_>,
    say: &mut impl FnMut(&str, String, String),
) {
    let Some(rules) = &policy.allowance else {
        return;
    };
    if !rules.cards_pass(&policy.cards) {
        say(
            "allowance.unchecked_cards",
            "Appareil coupé du boîtier : aucun paiement (la liste d'opposition, les pays et les numéros \
             n'y seraient pas contrôlés)."
                .to_owned(),
            "A device cut off from the hub: no payment (exception list, countries and numbers would \
             not be checked there)."
                .to_owned(),
        );
        return;
    }
    let unchecked = rules.unchecked_cards;
    let [french, english] = [fr, en].map(|l| {
        let classes: Vec<String> = rules.classes.iter().map(|class| l.class(class.name())).collect();
        let (count, devices) = (rules.count, rules.devices);
        let (classes, span) = (classes.join(", "), l.span(rules.valid_ms / 60_000));
        let sum = l.money(rules.amount_minor);
        let each = l.money(rules.transaction_ceiling_minor);
        let card = l.money(rules.card_ceiling_minor);
        let payments = l.number(count.into(), ["paiement", "paiements"], ["payment", "payments"]);
        match l.language {
            super::Language::French => format!(
                "Appareil coupé du boîtier ({classes}) : {sum} et {count} {payments} au plus, de {each} au plus, \
                 pendant {span}. De la somme d'une carte, {devices} fois {card} y sont réservées.{}",
                match unchecked {
                    true => " La liste d'opposition, les pays et les numéros n'y sont pas contrôlés.",
                    false => "",
                }
            ),
            super::Language::English => format!(
                "A device cut off from the hub ({classes}): at most {sum} and {count} {payments} of at most {each}, \
                 for {span}. Of a card's sum, {devices} times {card} are for that alone.{}",
                match unchecked {
                    true => " Exception list, countries and numbers are not checked there.",
                    false => "",
                }
            ),
        }
    });
    say("allowance", french, english);
}
