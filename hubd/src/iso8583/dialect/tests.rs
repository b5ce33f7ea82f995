use proptest::prelude::*;

use super::super::field::{Kind, Length};
use super::super::{Message, Value};
use super::*;

const ASCII: &str = include_str!("../../../../config/dialects/ascii.toml");
const BCD: &str = include_str!("../../../../config/dialects/bcd.toml");
const EBCDIC: &str = include_str!("../../../../config/dialects/ebcdic.toml");
const SAMPLES: [&str; 3] = [ASCII, BCD, EBCDIC];

fn faults(text: &str) -> Vec<String> {
    let faults = Dialect::parse(text).expect_err("the dialect has faults");
    faults.iter().map(ToString::to_string).collect()
}

/// One fault, after one change to the ASCII sample.
fn fault(from: &str, to: &str) -> String {
    assert!(ASCII.contains(from), "{from} is not in the sample");
    let mut found = faults(&ASCII.replacen(from, to, 1));
    assert_eq!(found.len(), 1, "{from} -> {to}: {found:#?}");
    found.remove(0)
}

#[test]
fn the_samples_are_dialects() {
    for sample in SAMPLES {
        Dialect::parse(sample).unwrap_or_else(|faults| panic!("{faults:#?}"));
    }
}

#[test]
fn each_wrong_value_is_named_with_its_key_and_what_would_be_right() {
    let cases = [
        (
            "name = \"ASCII with hex bitmaps\"",
            "name = \"\"",
            "name: the dialect's name",
        ),
        (
            "length = \"ascii4\"",
            "length = \"ascii5\"",
            "frame.length: \"binary2\"",
        ),
        (
            "inclusive = false",
            "inclusive = 1",
            "frame.inclusive: true or false",
        ),
        (
            "inclusive = false",
            "header = \"6\"",
            "frame.header: at most 32 bytes in hex",
        ),
        ("mti = \"ascii\"", "mti = \"utf8\"", "encoding.mti: \"ascii\""),
        (
            "bitmap = \"ascii\"",
            "bitmap = \"bcd\"",
            "encoding.bitmap: \"binary\"",
        ),
        (
            "lengths = \"ascii\"",
            "length = \"ascii\"",
            "encoding.lengths is missing",
        ),
        (
            "authorisation = \"0100\"",
            "authorisation = \"0101\"",
            "messages.authorisation: \"0100\" or",
        ),
        (
            "advice = \"0120\"",
            "advice = \"0100\"",
            "messages.advice: \"0120\" or \"0220\"",
        ),
        (
            "reversal_repeat = \"0421\"",
            "reversal_repeat = \"0401\"",
            "messages.reversal_repeat: the type in",
        ),
        (
            "4 = \"n12\"\n5",
            "4 = \"n11\"\n5",
            "fields.4: n12 (amount) expected",
        ),
        ("37 = \"an12\"\n", "", "fields.37 is missing: an12"),
        ("43 = \"ans40\"", "43 = \"x40\"", "fields.43: a format such as"),
        (
            "43 = \"ans40\"",
            "129 = \"ans40\"",
            "fields.129 is not a known key",
        ),
        ("43 = \"ans40\"", "65 = \"b8\"", "fields.65 is not a known key"),
        (
            "43 = \"ans40\"",
            "43 = \"ans..100\"",
            "fields.43: a format such as",
        ),
        (
            "43 = \"ans40\"",
            "43 = \"ans40 pad=0\"",
            "fields.43: a format such as",
        ),
        (
            "25 = \"00\"",
            "25 = \"0\"",
            "constants.25: a text that the field takes",
        ),
        ("25 = \"00\"", "26 = \"00\"", "constants.26 is not a known key"),
        (
            "25 = \"00\"",
            "41 = \"00000001\"",
            "constants.41 is not a known key",
        ),
        ("3 = \"000000\"\n", "", "constants.3 is missing"),
        (
            "payment_id = 48",
            "payment_id = 50",
            "carry.payment_id: a field expected",
        ),
        (
            "payment_id = 48",
            "payment_id = 41",
            "carry.payment_id: the number of a field",
        ),
        (
            "sealed_card = [62, 63]",
            "sealed_card = [63]",
            "carry.sealed_card: fields of variable length",
        ),
        (
            "sealed_card = [62, 63]",
            "sealed_card = [62, 43]",
            "carry.sealed_card: fields of variable length",
        ),
        (
            "order_id = 47",
            "order_id = 38",
            "carry.order_id: a field of variable length",
        ),
        (
            "value = \"DEFERRED\"",
            "value = \"é\"",
            "deferred.value: a text that field 60 takes",
        ),
        (
            "chip = \"051\"",
            "chip = \"51\"",
            "entry_modes.chip: a text that field 22 takes",
        ),
        (
            "names = \"hub\"",
            "names = \"till\"",
            "terminal.names: \"hub\" or \"device\"",
        ),
        (
            "3 = \"000000\"",
            "3 = \"200000\"",
            "constants.3: the processing code of a purchase, which begins with 00,",
        ),
        (
            "3 = \"000000\"",
            "3 = \"000000\"\n2 = \"4111111111111111\"",
            "constants.2: hubd leaves this field empty",
        ),
        (
            "3 = \"000000\"",
            "3 = \"000000\"\n39 = \"00\"",
            "constants.39: hubd leaves this field empty",
        ),
        (
            "3 = \"000000\"",
            "3 = \"000000\"\n47 = \"x\"",
            "carry.order_id: field 47 holds constants.47 already",
        ),
        (
            "payment_id = 48",
            "payment_id = 55",
            "carry.payment_id: the number of a field in [fields] that the hub does not fill otherwise, nor leaves empty,",
        ),
        (
            "order_id = 47",
            "order_id = 46",
            "carry.card_token: field 46 holds carry.order_id already",
        ),
        (
            "sealed_card = [62, 63]",
            "sealed_card = [62, 62]",
            "carry.sealed_card: field 62 holds carry.sealed_card already",
        ),
        (
            "field = 60",
            "field = 48",
            "deferred.field: field 48 holds carry.payment_id already",
        ),
        (
            "value = \"DEFERRED\"",
            "value = \"\"",
            "deferred.value: at least one character",
        ),
        (
            "from = \"payment\"",
            "from = \"hub\"",
            "trace.from: \"entry\", or \"payment\"",
        ),
        (
            "37 = \"an12\"",
            "37 = \"n12\"",
            "trace.from: \"entry\", or \"payment\" if field 37 takes letters",
        ),
        (
            "approved = [\"00\",",
            "approved = [\"10\",",
            "answers.approved: 10 approves a part",
        ),
        (
            "duplicate = [\"94\"]",
            "duplicate = [\"00\"]",
            "answers.duplicate: 00 stands in another list",
        ),
        (
            "duplicate = [\"94\"]",
            "duplicate = [\"094\"]",
            "answers.duplicate: a list of response codes",
        ),
        (
            "echoes = [4, 11, 37, 41]",
            "echoes = [4, 11]",
            "answers.echoes: a list of fields among",
        ),
    ];
    for (from, to, expected) in cases {
        let fault = if to == "length = \"ascii\"" {
            // A slip in a key is two faults: one key missing, one unknown.
            faults(&ASCII.replacen(from, to, 1)).join("\n")
        } else {
            fault(from, to)
        };
        assert!(fault.contains(expected), "{to}: {fault}");
        assert!(!fault.contains("4111"), "a card number is not repeated: {fault}");
        assert!(fault.starts_with("line "), "{fault}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let nothing = faults("");
    for key in [
        "name",
        "frame.length",
        "encoding.mti",
        "fields.4",
        "messages.advice",
        "constants.3",
        "deferred.field",
        "entry_modes.keyed",
        "terminal.names",
        "answers.approved",
    ] {
        assert!(
            nothing
                .iter()
                .any(|fault| fault.contains(&format!("{key} is missing"))),
            "{key}: {nothing:#?}"
        );
    }
}

const DOCUMENT: &str = include_str!("../../../../docs/iso8583.md");

/// The keys of each section, as the reader names them when it meets a stranger.
fn known_keys() -> std::collections::BTreeSet<String> {
    let sections = [
        "frame",
        "encoding",
        "messages",
        "carry",
        "deferred",
        "entry_modes",
        "terminal",
        "trace",
        "answers",
    ];
    let mut keys = std::collections::BTreeSet::new();
    for section in sections.into_iter().map(Some).chain([None]) {
        let text = section.map_or_else(|| "zzz = 1".to_owned(), |section| format!("[{section}]\nzzz = 1"));
        let faults = faults(&text);
        let known = faults
            .iter()
            .find_map(|fault| fault.split_once("zzz is not a known key; known here: "))
            .unwrap_or_else(|| panic!("{section:?}: {faults:#?}"));
        let own = known.1.split(", ");
        match section {
            Some(section) => keys.extend(own.map(|key| format!("{section}.{key}"))),
            // Sections have rows for their keys.
            None => keys.extend(own.filter(|key| *key == "name").map(str::to_owned)),
        }
    }
    keys.extend(["fields.N", "constants.N"].map(str::to_owned));
    keys
}

#[test]
fn every_key_is_in_the_document_and_no_other() {
    let (_, rest) = DOCUMENT.split_once("| key | value |\n|---|---|\n").unwrap();
    let table = rest.split_once("\n\n").unwrap().0;
    let documented: std::collections::BTreeSet<String> = table
        .lines()
        .map(|line| line.split('`').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(documented, known_keys());
}

#[test]
fn the_documents_example_is_the_golden_message() {
    let golden = include_str!("../../../tests/golden/iso8583/bcd-reversal.hex");
    assert!(DOCUMENT.contains(golden));
}

#[test]
fn the_documents_response_codes_are_the_samples() {
    for sample in SAMPLES {
        let codes = Dialect::parse(sample).unwrap().codes;
        let rows = [
            ("approved", Meaning::Approved),
            ("pending", Meaning::Pending),
            ("out_of_order", Meaning::OutOfOrder),
            ("slow_down", Meaning::SlowDown),
            ("refuses_hub", Meaning::RefusesHub),
            ("refuses_message", Meaning::RefusesMessage),
            ("duplicate", Meaning::Duplicate),
            ("nothing_to_reverse", Meaning::NothingToReverse),
        ];
        for (name, meaning) in rows {
            let listed: Vec<&str> = codes
                .meanings
                .iter()
                .filter(|(_, found)| **found == meaning)
                .map(|(code, _)| code.as_str())
                .collect();
            let row = format!("| `{name}` | {}", listed.join(", "));
            assert!(DOCUMENT.contains(row.trim_end()), "{row}");
        }
    }
}

/// A message of the sample's fields, any of them.
fn message(sample: usize) -> impl Strategy<Value = Message> {
    let dialect = Dialect::parse(SAMPLES[sample]).unwrap();
    let fields: Vec<_> = dialect
        .format
        .fields
        .iter()
        .map(|(number, field)| {
            let shortest = match field.length() {
                Length::Fixed(_) => field.capacity(),
                Length::Variable { .. } => 0,
            };
            let text = |class: &str| {
                let pattern = format!("{class}{{{shortest},{}}}", field.capacity());
                proptest::string::string_regex(&pattern)
                    .unwrap()
                    .prop_map(Value::Text)
                    .boxed()
            };
            let value = match field.kind() {
                Kind::Numeric => text("[0-9]"),
                Kind::Alpha => text("[A-Za-z ]"),
                Kind::AlphaNumeric => text("[A-Za-z0-9 ]"),
                Kind::Text => text("[ -~]"),
                Kind::Track => text("[0-9D]"),
                Kind::Binary => proptest::collection::vec(any::<u8>(), shortest..=field.capacity())
                    .prop_map(Value::Bytes)
                    .boxed(),
            };
            (Just(*number), proptest::option::of(value))
        })
        .collect();
    ("[0-9]{4}", fields).prop_map(|(mti, fields)| {
        let mut message = Message::new(mti.parse().unwrap());
        for (number, value) in fields {
            if let Some(value) = value {
                message.set_value(number, value);
            }
        }
        message
    })
}

fn reads_back(sample: usize, message: &Message) -> Result<(), TestCaseError> {
    let format = &Dialect::parse(SAMPLES[sample]).unwrap().format;
    let wire = format.encode(message).unwrap();
    prop_assert!(format.decode(&wire).as_ref() == Ok(message));
    // Cut off anywhere, it is no message.
    let cut = wire.len() / 2;
    prop_assert!(format.decode(&wire[..cut]).is_err());
    let mut longer = wire;
    longer.push(0x30);
    prop_assert!(format.decode(&longer).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_ascii_message_reads_back_as_it_was_written(message in message(0)) {
        reads_back(0, &message)?;
    }

    #[test]
    fn a_bcd_message_reads_back_as_it_was_written(message in message(1)) {
        reads_back(1, &message)?;
    }

    #[test]
    fn an_ebcdic_message_reads_back_as_it_was_written(message in message(2)) {
        reads_back(2, &message)?;
    }

    #[test]
    fn what_can_be_read_is_written_as_a_message_that_reads_the_same(
        sample in 0usize..3,
        wire in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let format = &Dialect::parse(SAMPLES[sample]).unwrap().format;
        if let Ok(message) = format.decode(&wire) {
            let again = format.encode(&message).unwrap();
            prop_assert!(format.decode(&again) == Ok(message));
        }
    }

    #[test]
    fn a_message_with_a_changed_byte_never_panics(
        message in message(1),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let format = &Dialect::parse(BCD).unwrap().format;
        let mut wire = format.encode(&message).unwrap();
        let at = at.index(wire.len());
        wire[at] = byte;
        let _ = format.decode(&wire);
    }

    #[test]
    fn any_text_at_all_is_a_dialect_or_a_list_of_faults(
        from in any::<proptest::sample::Index>(),
        to in "[ -~\n]{0,12}",
    ) {
        let at = from.index(ASCII.len());
        let text = format!("{}{to}{}", &ASCII[..at], &ASCII[at + 1..]);
        if let Err(faults) = Dialect::parse(&text) {
            prop_assert!(!faults.is_empty());
        }
    }
}
