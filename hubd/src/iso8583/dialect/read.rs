//! Reading a dialect file: every fault at once.

use std::collections::BTreeMap;

use hub_core::toml_reader::{Document, Fault, Section, boolean, text};
use toml::de::DeValue;

use super::super::bitmap::{BitmapCode, MAX_FIELD};
use super::super::encoding::{Charset, OddDigit};
use super::super::field::{DataCode, Field, LengthCode};
use super::super::frame::{Framing, LengthHeader};
use super::super::message::{Format, Mti, MtiCode};
use super::carried;
use super::fields::{self, FREE_FIELD, free_field, takes};
use super::notation::{self, Defaults, Numbers};
use super::{
    Asking, Carry, Dialect, EntryModes, Marker, Meaning, Messages, ResponseCodes, TerminalRule, TraceSource,
};

/// Approved for a part of the amount: there is no such thing here.
const PARTIAL: &str = "10";

pub(super) fn read(file: &str) -> Result<Dialect, Vec<Fault>> {
    let document = Document::parse(file)?;
    let dialect = read_document(&document);
    let faults = document.into_faults();
    match dialect {
        Some(dialect) if faults.is_empty() => Ok(dialect),
        _ => Err(faults),
    }
}

/// Reads every section before giving up, so that all faults are found.
fn read_document(document: &Document<'_>) -> Option<Dialect> {
    let root = document.root();
    let name = root.required("name", "the dialect's name in 1 to 64 bytes", |value| {
        text::<String>(value).filter(|name| (1..=64).contains(&name.len()))
    });
    let framing = read_framing(root.section("frame"));
    let encoding = read_encoding(root.section("encoding"));
    // With a fault in the encodings, formats are judged by stand-ins.
    let defaults = encoding.as_ref().map_or(STAND_IN, |encoding| encoding.defaults);
    let fields = fields::read(root.section("fields"), &defaults);
    let messages = read_messages(root.section("messages"));
    let constants = fields::read_constants(root.section("constants"), &fields);
    let carry = carried::read(root.section("carry"), &fields, &constants);
    let deferred = read_deferred(root.section("deferred"), &fields, (&constants, &carry));
    let entry_modes = read_entry_modes(root.section("entry_modes"), &fields);
    let terminal = read_terminal(root.section("terminal"));
    let trace = read_trace(root.section("trace"), &fields);
    let (codes, echoes) = read_answers(root.section("answers"));
    root.finish();
    let encoding = encoding?;
    Some(Dialect {
        name: name?.value,
        framing: framing?,
        format: Format {
            mti: encoding.mti,
            bitmap: encoding.bitmap,
            fields,
        },
        messages: messages?,
        constants,
        carry,
        deferred: deferred?,
        entry_modes: entry_modes?,
        terminal: terminal?,
        trace: trace?,
        codes,
        echoes,
    })
}

fn read_framing(section: Section<'_, '_>) -> Option<Framing> {
    let length = section.required(
        "length",
        "\"binary2\", \"binary4\", \"bcd2\", \"ascii4\" or \"ebcdic4\"",
        |value| LengthHeader::named(value.as_str()?),
    );
    let inclusive = section.optional("inclusive", "true or false", boolean);
    let header = section.optional(
        "header",
        "at most 32 bytes in hex, such as \"6000010000\",",
        |value| {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_str()?.as_bytes());
            bytes.ok().filter(|bytes| bytes.len() <= 32)
        },
    );
    section.finish();
    Some(Framing {
        length: length?.value,
        inclusive: inclusive.is_some_and(|at| at.value),
        header: header.map(|at| at.value).unwrap_or_default(),
    })
}

struct Encoding {
    mti: MtiCode,
    bitmap: BitmapCode,
    defaults: Defaults,
}

const STAND_IN: Defaults = Defaults {
    numbers: Numbers::Chars(Charset::Ascii),
    texts: Charset::Ascii,
    bytes: DataCode::Bytes,
    lengths: LengthCode::Chars(Charset::Ascii),
    odd: OddDigit::Left,
};

fn read_encoding(section: Section<'_, '_>) -> Option<Encoding> {
    let mti = section.required(
        "mti",
        "\"ascii\", \"cp037\", \"cp500\" or \"bcd\"",
        |value| match value.as_str()? {
            "bcd" => Some(MtiCode::Bcd),
            name => Charset::named(name).map(MtiCode::Chars),
        },
    );
    let bitmap = section.required(
        "bitmap",
        "\"binary\", or \"ascii\", \"cp037\" or \"cp500\" for hex digits,",
        |value| match value.as_str()? {
            "binary" => Some(BitmapCode::Binary),
            name => Charset::named(name).map(BitmapCode::Hex),
        },
    );
    let numbers = section.required("numbers", "\"ascii\", \"cp037\", \"cp500\" or \"bcd\"", |value| {
        notation::numbers_named(value.as_str()?)
    });
    let texts = section.required("texts", "\"ascii\", \"cp037\" or \"cp500\"", |value| {
        Charset::named(value.as_str()?)
    });
    let charset = texts.map_or(Charset::Ascii, |at| at.value);
    let bytes = section.required("bytes", "\"binary\" or \"hex\"", |value| {
        notation::bytes_named(value.as_str()?, charset)
    });
    let lengths = section.required(
        "lengths",
        "\"ascii\", \"cp037\", \"cp500\", \"bcd\" or \"binary\"",
        |value| notation::lengths_named(value.as_str()?),
    );
    let odd = section.optional("odd", "\"left\" or \"right\"", |value| {
        notation::odd_named(value.as_str()?)
    });
    section.finish();
    Some(Encoding {
        mti: mti?.value,
        bitmap: bitmap?.value,
        defaults: Defaults {
            numbers: numbers?.value,
            texts: texts?.value,
            bytes: bytes?.value,
            lengths: lengths?.value,
            odd: odd.map_or(OddDigit::Left, |at| at.value),
        },
    })
}

fn read_messages(section: Section<'_, '_>) -> Option<Messages> {
    let one = |first: &'static str, repeat: &'static str, allowed: &'static [&'static str], words: &str| {
        let of = |value: &DeValue<'_>, origin: char| {
            let text = value.as_str()?;
            let known = text.ends_with(origin) && allowed.contains(&text.get(..3)?);
            known.then(|| text.parse::<Mti>().ok()).flatten()
        };
        let first_at = section.required(first, words, |value| of(value, '0'));
        let repeat_words = format!("the type in {first}, or the same ending in 1,");
        let repeat_at = section.optional(repeat, &repeat_words, |value| {
            of(value, '1').or_else(|| of(value, '0'))
        });
        let first_mti = first_at?.value;
        if let Some(at) = repeat_at.filter(|at| at.value.family() != first_mti.family()) {
            let name = format!("messages.{repeat}");
            section.fault(
                at.line,
                format!("{name}: {repeat_words} expected, {} found", at.value),
            );
        }
        Some(Asking {
            first: first_mti,
            repeat: repeat_at.map_or(first_mti, |at| at.value),
        })
    };
    let authorisation = one(
        "authorisation",
        "authorisation_repeat",
        &["010", "020"],
        "\"0100\" or \"0200\"",
    );
    let advice = one("advice", "advice_repeat", &["012", "022"], "\"0120\" or \"0220\"");
    let reversal = one(
        "reversal",
        "reversal_repeat",
        &["040", "042"],
        "\"0420\" or \"0400\"",
    );
    section.finish();
    Some(Messages {
        authorisation: authorisation?,
        advice: advice?,
        reversal: reversal?,
    })
}

fn read_deferred(
    section: Section<'_, '_>,
    fields: &BTreeMap<u8, Field>,
    (constants, carry): (&BTreeMap<u8, String>, &Carry),
) -> Option<Marker> {
    let field = section.required("field", FREE_FIELD, free_field(fields));
    let value = section.required(
        "value",
        "the text that marks a deferred authorisation",
        text::<String>,
    );
    if let (Some(field), Some(value)) = (&field, &value)
        && !takes(fields, field.value, &value.value)
    {
        section.fault(
            value.line,
            format!("deferred.value: a text that field {} takes expected", field.value),
        );
    }
    if let Some(field) = &field
        && let Some(by) = carry.holder(field.value)
    {
        section.fault(field.line, carried::taken("deferred.field", field.value, by));
    }
    if let (Some(field), Some(value)) = (&field, &value)
        && (value.value.is_empty() || constants.get(&field.value) == Some(&value.value))
    {
        let text = format!(
            "deferred.value: at least one character, and another text than constants.{} expected",
            field.value
        );
        section.fault(value.line, text);
    }
    section.finish();
    Some(Marker {
        field: field?.value,
        value: value?.value,
    })
}

fn read_entry_modes(section: Section<'_, '_>, fields: &BTreeMap<u8, Field>) -> Option<EntryModes> {
    let mode = |name| {
        section.required(name, "a text that field 22 takes", |value| {
            text::<String>(value).filter(|text| !fields.contains_key(&22) || takes(fields, 22, text))
        })
    };
    let (chip, contactless) = (mode("chip"), mode("contactless"));
    let (magnetic_stripe, keyed) = (mode("magnetic_stripe"), mode("keyed"));
    section.finish();
    Some(EntryModes {
        chip: chip?.value,
        contactless: contactless?.value,
        magnetic_stripe: magnetic_stripe?.value,
        keyed: keyed?.value,
    })
}

fn read_terminal(section: Section<'_, '_>) -> Option<TerminalRule> {
    let rule = section.required("names", "\"hub\" or \"device\"", |value| {
        match value.as_str()? {
            "hub" => Some(TerminalRule::Hub),
            "device" => Some(TerminalRule::Device),
            _ => None,
        }
    });
    section.finish();
    rule.map(|at| at.value)
}

fn read_trace(section: Section<'_, '_>, fields: &BTreeMap<u8, Field>) -> Option<TraceSource> {
    let expected = "\"entry\", or \"payment\" if field 37 takes letters and digits (an12),";
    let from = section.optional("from", expected, |value| match value.as_str()? {
        "entry" => Some(TraceSource::Entry),
        "payment" if !fields.contains_key(&37) || takes(fields, 37, "0123456789AZ") => {
            Some(TraceSource::Payment)
        }
        _ => None,
    });
    section.finish();
    Some(from.map_or(TraceSource::Entry, |at| at.value))
}

fn read_answers(section: Section<'_, '_>) -> (ResponseCodes, Vec<u8>) {
    let mut meanings: BTreeMap<String, Meaning> = BTreeMap::new();
    let lists = [
        ("approved", Meaning::Approved),
        ("pending", Meaning::Pending),
        ("out_of_order", Meaning::OutOfOrder),
        ("slow_down", Meaning::SlowDown),
        ("refuses_hub", Meaning::RefusesHub),
        ("refuses_message", Meaning::RefusesMessage),
        ("duplicate", Meaning::Duplicate),
        ("nothing_to_reverse", Meaning::NothingToReverse),
    ];
    for (name, meaning) in lists {
        let expected = "a list of response codes of two letters or digits, such as [\"00\"],";
        let convert = |value: &DeValue<'_>| {
            let array = value.as_array()?;
            let codes = array.iter().map(|item| {
                text::<String>(item.get_ref())
                    .filter(|code| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            });
            codes.collect::<Option<Vec<String>>>()
        };
        let list = match meaning {
            Meaning::Approved => section.required(name, expected, convert),
            _ => section.optional(name, expected, convert),
        };
        let Some(list) = list else { continue };
        if meaning == Meaning::Approved && list.value.is_empty() {
            section.fault(list.line, "answers.approved: at least one response code expected");
        }
        for code in list.value {
            if meaning == Meaning::Approved && code == PARTIAL {
                section.fault(
                    list.line,
                    "answers.approved: 10 approves a part of the amount, and a part is no approval here; leave it out",
                );
            } else if meanings.insert(code.clone(), meaning).is_some() {
                section.fault(
                    list.line,
                    format!("answers.{name}: {code} stands in another list too"),
                );
            }
        }
    }
    let acknowledges = section.optional("duplicate_acknowledges", "true or false", boolean);
    let echoes = section.optional(
        "echoes",
        "a list of fields among 4, 7, 11, 37, 41, 42 and 49 with 11 and 37",
        |value| {
            let array = value.as_array()?;
            let numbers = array.iter().map(|item| {
                let number = hub_core::toml_reader::integer(2..=u64::from(MAX_FIELD))(item.get_ref())?;
                let number = u8::try_from(number).ok()?;
                [4, 7, 11, 37, 41, 42, 49].contains(&number).then_some(number)
            });
            let numbers = numbers.collect::<Option<Vec<u8>>>()?;
            (numbers.contains(&11) && numbers.contains(&37)).then_some(numbers)
        },
    );
    section.finish();
    let codes = ResponseCodes {
        meanings,
        duplicate_acknowledges: acknowledges.is_some_and(|at| at.value),
    };
    (codes, echoes.map_or_else(|| vec![4, 11, 37, 41], |at| at.value))
}
