//! The fields of a dialect, and what the hub needs of those it fills.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hub_core::toml_reader::{Section, integer, text};
use toml::de::DeValue;

use super::super::bitmap::MAX_FIELD;
use super::super::field::{Field, Kind, Length, Value};
use super::notation::{self, Defaults};

/// Field numbers as keys. `toml_reader` names its keys for good.
static NUMBERS: LazyLock<Vec<String>> = LazyLock::new(|| (0..=MAX_FIELD).map(|n| n.to_string()).collect());

/// Fields that the hub fills itself, so that no constant may.
const FILLED: [u8; 13] = [4, 7, 11, 12, 13, 22, 32, 37, 41, 42, 49, 70, 90];

/// Fields that stay empty: card number, expiry, tracks, PIN, chip data. What is
/// in clear there would be card data, or pass for it.
const EMPTY: [u8; 7] = [2, 14, 34, 35, 45, 52, 55];

/// The answer's own.
const RESPONSE_CODE: u8 = 39;

fn key(number: u8) -> &'static str {
    NUMBERS.get(usize::from(number)).map_or("", String::as_str)
}

pub(super) fn read(section: Section<'_, '_>, defaults: &Defaults) -> BTreeMap<u8, Field> {
    let mut fields = BTreeMap::new();
    for number in (2..=MAX_FIELD).filter(|number| *number != 65) {
        let field = section.optional(
            key(number),
            "a format such as \"n6\", \"ans..25\" or \"b...255 data=hex\"",
            |value| notation::field(value.as_str()?, defaults),
        );
        let Some(at) = field else { continue };
        if let Some(wanted) = wanted(number).filter(|wanted| !wanted.fits(&at.value)) {
            section.fault(at.line, format!("fields.{number}: {} expected", wanted.words));
        }
        fields.insert(number, at.value);
    }
    for number in (2..=MAX_FIELD).filter(|number| !section.holds(key(*number))) {
        if let Some(wanted) = wanted(number).filter(|wanted| wanted.required) {
            section.fault(
                section.line(),
                format!("fields.{number} is missing: {} expected", wanted.words),
            );
        }
    }
    section.finish();
    fields
}

/// What the hub needs of a field that it fills or reads.
struct Wanted {
    required: bool,
    kinds: &'static [Kind],
    lengths: fn(Length) -> bool,
    words: &'static str,
}

impl Wanted {
    fn fits(&self, field: &Field) -> bool {
        self.kinds.contains(&field.kind()) && (self.lengths)(field.length())
    }
}

fn wanted(number: u8) -> Option<Wanted> {
    use Length::{Fixed, Variable};
    const NUMBER: &[Kind] = &[Kind::Numeric];
    const ANY_TEXT: &[Kind] = &[Kind::Numeric, Kind::AlphaNumeric, Kind::Text];
    const CURRENCY: &[Kind] = &[Kind::Numeric, Kind::Alpha];
    type Row = (bool, &'static [Kind], fn(Length) -> bool, &'static str);
    let (required, kinds, lengths, words): Row = match number {
        3 => (true, NUMBER, |l| l == Fixed(6), "n6 (processing code)"),
        4 => (true, NUMBER, |l| l == Fixed(12), "n12 (amount)"),
        7 => (true, NUMBER, |l| l == Fixed(10), "n10 (transmission time)"),
        11 => (true, NUMBER, |l| l == Fixed(6), "n6 (trace number)"),
        12 => (false, NUMBER, |l| l == Fixed(6), "n6 (local time)"),
        13 => (false, NUMBER, |l| l == Fixed(4), "n4 (local date)"),
        22 => (
            false,
            ANY_TEXT,
            |l| matches!(l, Fixed(_)),
            "a fixed length (entry mode)",
        ),
        32 => (
            false,
            NUMBER,
            |l| {
                matches!(
                    l,
                    Variable {
                        digits: 2,
                        max: 1..=11
                    }
                )
            },
            "n..11 (acquirer)",
        ),
        37 => (true, ANY_TEXT, |l| l == Fixed(12), "an12 (retrieval reference)"),
        39 => (true, ANY_TEXT, |l| l == Fixed(2), "an2 (response code)"),
        41 => (true, ANY_TEXT, |l| l == Fixed(8), "ans8 (terminal)"),
        42 => (true, ANY_TEXT, |l| l == Fixed(15), "ans15 (merchant)"),
        49 => (true, CURRENCY, |l| l == Fixed(3), "n3 or a3 (currency)"),
        70 => (true, NUMBER, |l| l == Fixed(3), "n3 (network management)"),
        90 => (true, NUMBER, |l| l == Fixed(42), "n42 (original data)"),
        _ => return None,
    };
    Some(Wanted {
        required,
        kinds,
        lengths,
        words,
    })
}

/// Whether a field takes a text.
pub(super) fn takes(fields: &BTreeMap<u8, Field>, number: u8, text: &str) -> bool {
    let value = Value::Text(text.to_owned());
    fields
        .get(&number)
        .is_some_and(|field| field.encode(&value, &mut Vec::new()).is_ok())
}

pub(super) fn read_constants(section: Section<'_, '_>, fields: &BTreeMap<u8, Field>) -> BTreeMap<u8, String> {
    let mut constants = BTreeMap::new();
    for number in fields.keys().filter(|number| !FILLED.contains(number)) {
        if EMPTY.contains(number) || *number == RESPONSE_CODE {
            // Whatever stands there is not repeated: it may be a card number.
            let there = section.optional(key(*number), "nothing", |_| Some(()));
            if let Some(at) = there {
                let text = format!("constants.{number}: hubd leaves this field empty; take the line out");
                section.fault(at.line, text);
            }
            continue;
        }
        let words = match number {
            3 => "the processing code of a purchase, which begins with 00,",
            _ => "a text that the field takes",
        };
        let constant = section.optional(key(*number), words, |value| {
            let text = text::<String>(value).filter(|text| takes(fields, *number, text))?;
            (*number != 3 || text.starts_with("00")).then_some(text)
        });
        if let Some(at) = constant {
            constants.insert(*number, at.value);
        }
    }
    if !section.holds(key(3)) {
        section.fault(
            section.line(),
            "constants.3 is missing: the processing code of a purchase, such as \"000000\", expected",
        );
    }
    section.finish();
    constants
}

/// The number of a field that the dialect has and the hub does not fill
/// otherwise.
pub(super) fn free_field(fields: &BTreeMap<u8, Field>) -> impl Fn(&DeValue<'_>) -> Option<u8> {
    move |value| {
        let number = integer(2..=u64::from(MAX_FIELD))(value)?;
        let number = u8::try_from(number).ok()?;
        let kept = FILLED.contains(&number) || EMPTY.contains(&number);
        (fields.contains_key(&number) && !kept && number != 3 && number != RESPONSE_CODE).then_some(number)
    }
}

pub(super) const FREE_FIELD: &str =
    "the number of a field in [fields] that the hub does not fill otherwise, nor leaves empty,";
