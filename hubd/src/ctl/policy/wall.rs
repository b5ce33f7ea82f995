//! The page for the wall: what `explain` found, in words.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hub_core::policy::Policy;
use hub_protocol::DeviceClass;
use jiff::tz::TimeZone;

use super::super::show::Language;
use super::explain::{Explained, Limit, Moved};
use super::words::In;
use crate::rehearsal::highest::Row;

pub(super) fn text(policy: &Policy, explained: &Explained, rows: &[Row], language: Language) -> String {
    let l = In {
        language,
        currency: &explained.currency,
    };
    let title = match language {
        Language::French => format!(
            "PAIEMENTS SANS RÉSEAU : {}, règles version {}, magasins : {}",
            explained.tenant,
            explained.version,
            explained.stores.join(", ")
        ),
        Language::English => format!(
            "PAYMENTS WITHOUT THE NETWORK: {}, policy version {}, stores: {}",
            explained.tenant,
            explained.version,
            explained.stores.join(", ")
        ),
    };
    let validity = validity(policy, explained, l);
    if !explained.offline {
        let nothing = l.say(
            "Aucun paiement n'est accepté sans réseau.",
            "No payment is accepted without the network.",
        );
        return [title, validity, nothing.to_owned()].join("\n");
    }
    let longest = l.span(explained.longest_minutes);
    let mut parts = vec![
        title,
        validity,
        match language {
            Language::French => format!("Au plus {longest} sans réseau d'affilée ; après : aucun paiement."),
            Language::English => format!("At most {longest} without the network at a time; then no payment."),
        },
        String::new(),
        l.say(
            "MONTANT LE PLUS HAUT D'UN PAIEMENT (ce montant passe encore)",
            "HIGHEST AMOUNT OF ONE PAYMENT (that amount still passes)",
        )
        .to_owned(),
        match rows {
            [] => l
                .say(
                    "Aucune carte n'est acceptée sans réseau.",
                    "No card is accepted without the network.",
                )
                .to_owned(),
            rows => payments(policy, rows, l).to_string(),
        },
    ];
    parts.push(l.say(
        "Le code que la banque vérifie n'est pas possible sans réseau. Une carte qui refuse elle-même est refusée.",
        "A PIN that the bank checks is not possible without the network. A card that itself refuses is refused.",
    ).to_owned());
    if policy.classes.contains_key(&DeviceClass::Softpos) {
        parts.push(
            l.say(
                "Un téléphone seul n'a pas de fente : là, insérer la carte dans un autre appareil.",
                "A phone alone has no slot: there, insert the card into another device.",
            )
            .to_owned(),
        );
    }
    if let Some(ceiling) = explained.contactless_unverified_ceiling_minor {
        let ceiling = l.money(ceiling);
        parts.push(match language {
            Language::French => {
                format!(
                    "Sans contact et sans code au-dessus de {ceiling} : insérer la carte, composer le code."
                )
            }
            Language::English => {
                format!("Contactless without PIN above {ceiling}: insert the card, enter the PIN.")
            }
        });
    }
    parts.extend([
        String::new(),
        l.say(
            "EN TOUT, TANT QUE LA BANQUE N'A PAS RÉPONDU",
            "IN ALL, UNTIL THE BANK HAS ANSWERED",
        )
        .to_owned(),
        limits(&explained.limits, l).to_string(),
        String::new(),
        l.say("QUELLES CARTES", "WHICH CARDS").to_owned(),
    ]);
    parts.extend(cards(policy, explained, l));
    if !explained.moving.is_empty() {
        parts.extend([
            String::new(),
            l.say(
                "CE QUI CHANGE PENDANT LA COUPURE",
                "WHAT CHANGES AS THE OUTAGE GOES ON",
            )
            .to_owned(),
            moving(&explained.moving, l).to_string(),
        ]);
    }
    if !explained.further.is_empty() {
        parts.extend([
            String::new(),
            l.say("AUTRES LIMITES", "FURTHER LIMITS").to_owned(),
        ]);
        let texts = explained.further.iter().map(|one| one.text(language));
        parts.extend(texts.map(str::to_owned));
    }
    parts.join("\n")
}

/// From when until when, by the shop's own clock if the policy knows it.
fn validity(policy: &Policy, explained: &Explained, l: In<'_>) -> String {
    let own = policy.hours.as_ref().map(|hours| hours.zone().clone());
    let whose = match own {
        Some(_) => l.say(" (heure du magasin)", " (the shop's time)"),
        None => "",
    };
    let zone = own.unwrap_or(TimeZone::UTC);
    let [from, until] = [explained.not_before_ms, explained.expires_ms].map(|at_ms| l.instant(at_ms, &zone));
    match l.language {
        Language::French => {
            format!("Valable du {from} au {until}{whose}. Avant et après : aucun paiement sans réseau.")
        }
        Language::English => format!(
            "In force from {from} until {until}{whose}. Before and after: no payment without the network."
        ),
    }
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn payments(policy: &Policy, rows: &[Row], l: In<'_>) -> Table {
    let with_kinds = rows
        .iter()
        .any(|row| row.others || row.fundings.is_some() || row.issuer.is_some() || row.cryptogram.is_some());
    let mut header = vec![l.say("Façon de payer", "Way of paying").to_owned()];
    if with_kinds {
        header.push(l.say("Cartes", "Cards").to_owned());
    }
    header.extend(DeviceClass::ALL.iter().map(|class| l.class(class.name())));
    let mut table = table(header);
    for row in rows {
        let mut cells = vec![l.ways(&row.ways)];
        if with_kinds {
            cells.push(l.kind(row));
        }
        // A class that the policy does not name may not sell offline.
        cells.extend(DeviceClass::ALL.iter().map(|class| {
            let cell = row.cells.iter().find(|cell| cell.class == *class);
            l.money_or_no(
                cell.filter(|_| policy.classes.contains_key(class))
                    .and_then(|cell| cell.highest_minor),
            )
        }));
        table.add_row(cells);
    }
    table
}

fn limits(limits: &[Limit], l: In<'_>) -> Table {
    let mut table = table(
        [
            l.say("Pour", "For"),
            l.say("Somme", "Sum"),
            l.say("Paiements de suite", "Payments in a row"),
            l.say("Code exigé", "PIN required"),
        ]
        .map(str::to_owned)
        .to_vec(),
    );
    for limit in limits {
        let name = match limit.of {
            "card" => l
                .say("une carte, tous appareils", "one card, at all devices")
                .to_owned(),
            "staff" => l
                .say("une personne de l'équipe", "one member of staff")
                .to_owned(),
            "store" => l.say("le magasin", "the store").to_owned(),
            class => match l.language {
                Language::French => format!("un appareil {}", l.class(class)),
                Language::English => format!("one {}", l.class(class)),
            },
        };
        let pin = limit.consecutive_lower_limit.map(|lower| match l.language {
            Language::French => format!("après {lower} de suite"),
            Language::English => format!("after {lower} in a row"),
        });
        table.add_row([
            name,
            l.money(limit.exposure_ceiling_minor),
            limit.consecutive_limit.to_string(),
            pin.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

fn cards(policy: &Policy, explained: &Explained, l: In<'_>) -> Vec<String> {
    let cards = &explained.cards;
    let fundings: Vec<&str> = policy
        .offline
        .funding
        .iter()
        .map(|funding| l.funding(*funding))
        .collect();
    let mut lines = vec![
        format!("{}{}", l.say("Marques : ", "Brands: "), cards.schemes.join(", ")),
        format!("{}{}", l.say("Types : ", "Types: "), fundings.join(", ")),
    ];
    lines.push(
        match cards.expired {
            true => l.say("Cartes périmées : acceptées", "Expired cards: accepted"),
            false => l.say("Cartes périmées : refusées", "Expired cards: refused"),
        }
        .to_owned(),
    );
    let unknown = match cards.unknown_country {
        true => l.say(" ; pays inconnu : oui", "; country not known: yes"),
        false => l.say(" ; pays inconnu : non", "; country not known: no"),
    };
    lines.push(match cards.countries.as_slice() {
        [] => l.say("Pays : tous", "Countries: all").to_owned(),
        countries => format!(
            "{}{}{unknown}",
            l.say("Pays : ", "Countries: "),
            countries.join(", ")
        ),
    });
    if !cards.domestic.is_empty() {
        lines.push(format!(
            "{}{}",
            l.say("Cartes nationales : ", "Domestic cards: "),
            cards.domestic.join(", ")
        ));
    }
    for (french, english, bins) in [
        (
            "Numéros commençant par (seuls acceptés) : ",
            "Numbers beginning with (only these): ",
            &cards.bins_allowed,
        ),
        (
            "Numéros commençant par (refusés) : ",
            "Numbers beginning with (refused): ",
            &cards.bins_denied,
        ),
    ] {
        if !bins.is_empty() {
            lines.push(format!("{}{}", l.say(french, english), bins.join(", ")));
        }
    }
    lines.push(match (cards.exceptions, l.language) {
        (0, _) => l
            .say("Liste d'opposition : vide", "Exception list: empty")
            .to_owned(),
        (all, _) => {
            let refused = l.number(
                all as u64,
                ["carte refusée", "cartes refusées"],
                ["card refused", "cards refused"],
            );
            let for_good = cards.exceptions_for_good;
            match l.language {
                Language::French => {
                    format!("Liste d'opposition : {all} {refused}, dont {for_good} sans date de fin")
                }
                Language::English => format!("Exception list: {all} {refused}, {for_good} of them for good"),
            }
        }
    });
    lines
}

fn moving(steps: &[Moved], l: In<'_>) -> Table {
    let mut header = vec![
        l.say("À partir de", "From").to_owned(),
        l.say("Part", "Share").to_owned(),
    ];
    let classes = steps.first().into_iter().flat_map(|step| &step.classes);
    header.extend(classes.map(|class| {
        let with = l.say(
            "sans / avec code ou téléphone déverrouillé",
            "without / with PIN or unlocked phone",
        );
        format!("{}, {with}", l.class(class.class.0.name()))
    }));
    header.push(l.say("Une carte en tout", "One card in all").to_owned());
    let mut table = table(header);
    for step in steps {
        let from = match (step.from_minutes, step.from_store_minor) {
            (Some(minutes), _) => format!(
                "{} {}",
                l.span(minutes),
                l.say("sans réseau", "without the network")
            ),
            (None, minor) => format!(
                "{} {}",
                l.money(minor.unwrap_or(0)),
                l.say("en attente dans le magasin", "waiting in the store")
            ),
        };
        let mut cells = vec![from, format!("{} %", step.percent)];
        cells.extend(step.classes.iter().map(|class| {
            format!(
                "{} / {}",
                l.money_or_no(class.without_pin_minor),
                l.money_or_no(class.with_pin_minor)
            )
        }));
        cells.push(l.money_or_no(step.card_minor));
        table.add_row(cells);
    }
    table
}
