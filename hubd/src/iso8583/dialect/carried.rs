//! Where the hub's own things travel.

use std::collections::BTreeMap;

use hub_core::toml_reader::{At, Section, text};
use hub_protocol::payment::MAX_SEALED_CARD;

use super::super::field::{Field, FieldFault, Kind, Length, Value};
use super::Carry;
use super::fields::{FREE_FIELD, free_field};

/// A field of the messages that two keys want to fill.
pub(super) fn taken(name: &str, number: u8, by: &str) -> String {
    format!("{name}: field {number} holds {by} already; give it a field of its own")
}

pub(super) fn read(
    section: Section<'_, '_>,
    fields: &BTreeMap<u8, Field>,
    constants: &BTreeMap<u8, String>,
) -> Carry {
    let prefix = section.optional("payment_id_prefix", "a text of at most 32 characters", |value| {
        text::<String>(value).filter(|text| text.len() <= 32)
    });
    let prefix = prefix.map(|at| at.value).unwrap_or_default();
    let payment_id = section.optional("payment_id", FREE_FIELD, free_field(fields));
    if let Some(at) = payment_id
        && payment_id_value(&prefix, [0; 16], fields.get(&at.value)).is_none()
    {
        section.fault(
            at.line,
            "carry.payment_id: a field expected that takes the prefix and an id: 16 bytes (b), 32 hex digits \
             (an) or 36 characters (ans)",
        );
    }
    let sealed = section.optional(
        "sealed_card",
        "a list of at most 8 numbers of fields in [fields] that the hub does not fill otherwise",
        |value| {
            let array = value.as_array().filter(|array| array.len() <= 8)?;
            let field = free_field(fields);
            array
                .iter()
                .map(|item| field(item.get_ref()))
                .collect::<Option<Vec<u8>>>()
        },
    );
    if let Some(at) = &sealed {
        check_sealed(&section, at, fields);
    }
    let short = |name| {
        let at = section.optional(name, FREE_FIELD, free_field(fields))?;
        let variable = fields.get(&at.value).is_some_and(|field| {
            field.kind() == Kind::Text && matches!(field.length(), Length::Variable { .. })
        });
        if !variable {
            section.fault(
                at.line,
                format!("carry.{name}: a field of variable length and kind ans expected"),
            );
        }
        Some(at)
    };
    let order_id = short("order_id");
    let card_token = short("card_token");
    let mut holders: BTreeMap<u8, String> = BTreeMap::new();
    for number in constants.keys() {
        holders.insert(*number, format!("constants.{number}"));
    }
    let one = |name, at: &Option<At<u8>>| at.iter().map(|at| (name, at.line, at.value)).collect::<Vec<_>>();
    let of_sealed = sealed.iter().flat_map(|at| {
        at.value
            .iter()
            .map(|number| ("carry.sealed_card", at.line, *number))
    });
    let all = one("carry.payment_id", &payment_id).into_iter().chain(of_sealed);
    let all = all
        .chain(one("carry.order_id", &order_id))
        .chain(one("carry.card_token", &card_token));
    for (name, line, number) in all {
        if let Some(by) = holders.insert(number, name.to_owned()) {
            section.fault(line, taken(name, number, &by));
        }
    }
    section.finish();
    Carry {
        payment_id: payment_id.map(|at| at.value),
        payment_id_prefix: prefix,
        sealed_card: sealed.map(|at| at.value).unwrap_or_default(),
        order_id: order_id.map(|at| at.value),
        card_token: card_token.map(|at| at.value),
    }
}

/// The fields together must hold the largest sealed card.
fn check_sealed(section: &Section<'_, '_>, at: &At<Vec<u8>>, fields: &BTreeMap<u8, Field>) {
    let formats: Vec<&Field> = at.value.iter().filter_map(|number| fields.get(number)).collect();
    let one_kind = formats.iter().all(|field| field.kind() == Kind::Binary)
        || formats.iter().all(|field| field.kind() == Kind::Text);
    let variable = formats
        .iter()
        .all(|field| matches!(field.length(), Length::Variable { .. }));
    let capacity: usize = formats.iter().map(|field| field.capacity()).sum();
    let needed = match formats.first().map(|field| field.kind()) {
        Some(Kind::Text) => MAX_SEALED_CARD.div_ceil(3) * 4,
        Some(_) => MAX_SEALED_CARD,
        None => 0,
    };
    if !one_kind || !variable || capacity < needed {
        section.fault(
            at.line,
            format!(
                "carry.sealed_card: fields of variable length expected, all of kind b or all of kind ans (base64), \
                 that together hold {needed} or more; these hold {capacity}"
            ),
        );
    }
}

/// A payment id as a field takes it; `None` if it does not.
pub(super) fn payment_id_value(prefix: &str, id: [u8; 16], field: Option<&Field>) -> Option<Value> {
    let field = field?;
    let hex = data_encoding::HEXLOWER.encode(&id);
    let value = match field.kind() {
        Kind::Binary => Value::Bytes([prefix.as_bytes(), &id].concat()),
        Kind::AlphaNumeric => Value::Text(format!("{prefix}{hex}")),
        Kind::Text => Value::Text(format!(
            "{prefix}{}-{}-{}-{}-{}",
            hex.get(..8)?,
            hex.get(8..12)?,
            hex.get(12..16)?,
            hex.get(16..20)?,
            hex.get(20..)?
        )),
        Kind::Numeric | Kind::Alpha | Kind::Track => return None,
    };
    let taken: Result<(), FieldFault> = field.encode(&value, &mut Vec::new());
    taken.ok().map(|()| value)
}
