use ed25519_dalek::SigningKey;
use hub_core::AttemptId;
use hub_protocol::cose::sign;
use hub_protocol::entry::TraceRule;
use hub_protocol::{
    CardFacts, CardScheme, Currency, EntryMode, Funding, PaymentId, Terms, Verification, cbor,
};
use jiff::tz::TimeZone;

use super::*;

const DIALECTS: [(&str, &str); 3] = [
    ("ascii", include_str!("../../../../../config/dialects/ascii.toml")),
    ("bcd", include_str!("../../../../../config/dialects/bcd.toml")),
    (
        "ebcdic",
        include_str!("../../../../../config/dialects/ebcdic.toml"),
    ),
];

/// 2026-09-21T14:13:20Z.
const REQUESTED_MS: u64 = 1_790_000_000_000;

fn mapping(dialect: &str) -> Mapping {
    Mapping {
        dialect: Dialect::parse(dialect).unwrap(),
        identity: Identity {
            merchant_id: "SHOP-001".to_owned(),
            terminal_id: "HUB1".to_owned(),
            acquirer_id: Some("123456".to_owned()),
            time_zone: TimeZone::get("Europe/Paris").unwrap(),
        },
    }
}

struct Sale {
    request: PaymentRequest,
    signed: Vec<u8>,
    card: SealedCard,
}

fn sale(cryptogram: Cryptogram) -> Sale {
    stating(cryptogram, None)
}

fn stating(cryptogram: Cryptogram, terms: Option<Terms>) -> Sale {
    let card = SealedCard {
        salt: [1; 16],
        blob: (0..40).collect(),
    };
    let request = PaymentRequest {
        payment_id: PaymentId([0xa5; 16]),
        device_sequence: 1,
        amount: 1250_u64.into(),
        currency: Currency::EUR,
        order_id: "order-1".to_owned(),
        card: CardFacts {
            token: "tok_abc".to_owned(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: None,
            bin: None,
            last4: None,
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::None,
        cryptogram,
        sealed_card_digest: card.digest(),
        device_time_ms: REQUESTED_MS - 1000,
        terms: terms.map(Box::new),
    };
    let key = SigningKey::from_bytes(&[7; 32]);
    let signed = sign(&key, request.object_type(), &cbor::encode(&request));
    Sale {
        request,
        signed,
        card,
    }
}

fn forward(operation: Operation, number: u32) -> Forward {
    Forward {
        attempt: AttemptId(1),
        payment_id: PaymentId([0xa5; 16]),
        operation,
        request_sequence: 41,
        device: DeviceId([7; 32]),
        decided_ms: REQUESTED_MS + 5000,
        number,
        presentation: 1,
        maybe_sent: false,
        traces: TraceRule::Entry,
        deadline_ms: 1000,
    }
}

fn asked(mapping: &Mapping, operation: Operation, number: u32, maybe_sent: bool) -> Question {
    let sale = sale(match operation {
        Operation::Advice => Cryptogram::CardApproved,
        _ => Cryptogram::AsksOnline,
    });
    let stored = Stored {
        signed_request: &sale.signed,
        requested_ms: REQUESTED_MS,
        sealed_card: (operation != Operation::Reverse).then_some(&sale.card),
    };
    let order = Forward {
        maybe_sent,
        ..forward(operation, number)
    };
    mapping.question(&order, &stored, REQUESTED_MS + 60_000).unwrap()
}

fn asked_as(mapping: &Mapping, terms: Terms) -> Result<Message, Unsendable> {
    let sale = stating(Cryptogram::AsksOnline, Some(terms));
    let stored = Stored {
        signed_request: &sale.signed,
        requested_ms: REQUESTED_MS,
        sealed_card: Some(&sale.card),
    };
    let asked = mapping.question(&forward(Operation::AuthoriseOnline, 1), &stored, REQUESTED_MS);
    asked.map(|question| question.message)
}

#[test]
fn refunds_and_cash_back_have_their_processing_codes() {
    let mapping = mapping(DIALECTS[0].1);
    let text = |message: &Message, number| message.text(number).map(str::to_owned);
    let sale = asked_as(&mapping, Terms::of(TransactionType::Sale)).unwrap();
    assert_eq!(text(&sale, 3).as_deref(), Some("000000"));
    let refund = asked_as(&mapping, Terms::of(TransactionType::Refund)).unwrap();
    assert_eq!(text(&refund, 3).as_deref(), Some("200000"));
    let with_cash = Terms {
        cash_back_minor: Some(250),
        ..Terms::of(TransactionType::CashBack)
    };
    let cash_back = asked_as(&mapping, with_cash.clone()).unwrap();
    assert_eq!(text(&cash_back, 3).as_deref(), Some("090000"));
    assert_eq!(text(&cash_back, 54).as_deref(), Some("0040978D000000000250"));
    let mut without = mapping;
    without.dialect.format.fields.remove(&54);
    assert!(asked_as(&without, with_cash).is_err(), "no field for the cash");
}

fn answered(question: &Question, code: &str) -> Message {
    let mut answer = Message::new(question.message.mti.answer());
    for number in [3, 4, 7, 11, 12, 13, 37, 41, 42, 49] {
        if let Some(value) = question.message.get(number) {
            answer.set_value(number, value.clone());
        }
    }
    answer.set(39, code);
    if code == "00" {
        answer.set(38, "4F2A9C");
    }
    answer
}

/// Compares with the golden file, or writes it with UPDATE_VECTORS=1.
fn golden(name: &str, frame: &[u8]) {
    let hex = data_encoding::HEXLOWER.encode(frame);
    let lines: Vec<&str> = hex
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let text = format!("{}\n", lines.join("\n"));
    let path = format!("{}/tests/golden/iso8583/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(kept, text, "{name} changed on the wire");
}

#[test]
fn every_message_has_its_golden_bytes_in_every_dialect() {
    for (name, text) in DIALECTS {
        let mapping = mapping(text);
        let kinds = [
            ("authorisation-online", Operation::AuthoriseOnline, 1),
            ("authorisation-deferred", Operation::AuthoriseDeferred, 1),
            ("authorisation-deferred-repeat", Operation::AuthoriseDeferred, 2),
            ("advice", Operation::Advice, 1),
            ("advice-repeat", Operation::Advice, 2),
            ("reversal", Operation::Reverse, 1),
            ("reversal-repeat", Operation::Reverse, 2),
        ];
        let framed = |kind: &str, message: &Message| {
            let frame = mapping.frame(message).unwrap();
            golden(&format!("{name}-{kind}"), &frame);
            let head = mapping.dialect.framing.length.size();
            let body = mapping.dialect.framing.message(&frame[head..]);
            assert!(mapping.dialect.format.decode(body).as_ref() == Ok(message));
        };
        for (kind, operation, number) in kinds {
            let question = asked(&mapping, operation, number, false);
            framed(kind, &question.message);
            if number == 1 {
                framed(&format!("{kind}-answer"), &answered(&question, "00"));
            }
        }
        for (kind, information) in [("sign-on", SIGN_ON), ("echo", ECHO)] {
            let question = mapping.network(information, 1, REQUESTED_MS);
            framed(kind, &question);
            framed(&format!("{kind}-answer"), &Mapping::network_answer(&question));
        }
    }
}

#[test]
fn each_operation_is_the_message_that_the_dialect_names() {
    for (name, text) in DIALECTS {
        let mapping = mapping(text);
        let mti = |operation, number, maybe_sent| {
            asked(&mapping, operation, number, maybe_sent)
                .message
                .mti
                .to_string()
        };
        let advice = if name == "ebcdic" { "022" } else { "012" };
        assert_eq!(mti(Operation::AuthoriseOnline, 1, false), "0100");
        assert_eq!(mti(Operation::AuthoriseDeferred, 1, false), "0100");
        assert_eq!(mti(Operation::Advice, 1, false), format!("{advice}0"));
        assert_eq!(mti(Operation::Reverse, 1, false), "0420");
        for (number, maybe_sent) in [(2, false), (1, true)] {
            assert_eq!(mti(Operation::AuthoriseOnline, number, maybe_sent), "0101");
            assert_eq!(mti(Operation::Advice, number, maybe_sent), format!("{advice}1"));
            assert_eq!(mti(Operation::Reverse, number, maybe_sent), "0421");
        }
    }
}

#[test]
fn a_repeat_is_the_same_message_but_for_its_type() {
    for (_, text) in DIALECTS {
        let mapping = mapping(text);
        for operation in [Operation::AuthoriseDeferred, Operation::Advice] {
            let first = asked(&mapping, operation, 1, false);
            let mut repeat = asked(&mapping, operation, 7, true);
            assert_ne!(repeat.message.mti, first.message.mti);
            repeat.message.mti = first.message.mti;
            assert_eq!(repeat.message, first.message);
        }
    }
}

#[test]
fn deferred_and_online_differ_by_the_dialects_marker_alone() {
    for (_, text) in DIALECTS {
        let mapping = mapping(text);
        let online = asked(&mapping, Operation::AuthoriseOnline, 1, false);
        let mut deferred = asked(&mapping, Operation::AuthoriseDeferred, 1, false);
        let marker = &mapping.dialect.deferred;
        assert_eq!(deferred.message.text(marker.field), Some(marker.value.as_str()));
        deferred.message.remove(marker.field);
        assert_eq!(deferred.message, online.message);
    }
}

#[test]
fn a_reversal_carries_the_originals_references() {
    for (name, text) in DIALECTS {
        let mapping = mapping(text);
        let original = asked(&mapping, Operation::AuthoriseOnline, 1, false).message;
        let reversal = asked(&mapping, Operation::Reverse, 1, false).message;
        for number in [4, 11, 12, 13, 37, 41, 42, 49] {
            assert_eq!(
                reversal.get(number),
                original.get(number),
                "{name} field {number}"
            );
        }
        let sent = original.text(7).unwrap();
        let data = format!("0100000041{sent}0000012345600000000000");
        assert_eq!(reversal.text(90), Some(data.as_str()), "{name}");
        assert_eq!(reversal.text(7), Some("0921141420"), "its own time of sending");
        for number in &mapping.dialect.carry.sealed_card {
            assert_eq!(reversal.get(*number), None, "no card data in a reversal");
        }
    }
}

#[test]
fn times_amount_terminal_and_currency_stand_as_the_standard_has_them() {
    let ascii = mapping(DIALECTS[0].1);
    let message = asked(&ascii, Operation::AuthoriseOnline, 1, false).message;
    let expected = [
        (3, "000000"),
        (4, "000000001250"),
        (7, "0921141320"),
        (11, "000041"),
        // Paris, in summer, a second before the ledger's entry.
        (12, "161319"),
        (13, "0921"),
        (22, "071"),
        (32, "123456"),
        (37, "626414000041"),
        (41, "HUB1    "),
        (42, "SHOP-001       "),
        (46, "tok_abc"),
        (47, "order-1"),
        (48, "PI36a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5"),
        (49, "978"),
    ];
    for (number, text) in expected {
        assert_eq!(message.text(number), Some(text), "field {number}");
    }
    // Of the device's id, 07070707…
    let bcd = asked(&mapping(DIALECTS[1].1), Operation::AuthoriseOnline, 1, false).message;
    assert_eq!(bcd.text(41), Some("HUB1A4DQ"));
    let ebcdic = asked(&mapping(DIALECTS[2].1), Operation::AuthoriseOnline, 1, false).message;
    assert_eq!(ebcdic.text(49), Some("EUR"));
}

#[test]
fn rule_6_no_message_carries_a_card_number_in_clear() {
    for (_, text) in DIALECTS {
        let mapping = mapping(text);
        for operation in [Operation::AuthoriseOnline, Operation::Advice, Operation::Reverse] {
            let message = asked(&mapping, operation, 1, false).message;
            for number in [2, 14, 35, 36, 45, 52, 55] {
                assert_eq!(message.get(number), None, "field {number}");
            }
        }
    }
}

#[test]
fn the_largest_sealed_card_fits_and_comes_out_whole() {
    for (name, text) in DIALECTS {
        let mapping = mapping(text);
        let mut message = Message::new("0100".parse().unwrap());
        let blob: Vec<u8> = (0..1024_u32).map(|n| (n % 251) as u8).collect();
        let sealed = SealedCard {
            salt: [0; 16],
            blob: blob.clone(),
        };
        mapping.put_sealed(&mut message, &sealed).unwrap();
        let parts: Vec<u8> = mapping
            .dialect
            .carry
            .sealed_card
            .iter()
            .flat_map(|number| match message.get(*number).unwrap() {
                Value::Text(text) => text.clone().into_bytes(),
                Value::Bytes(bytes) => bytes.clone(),
            })
            .collect();
        let whole = match name {
            "ascii" => BASE64_STANDARD.decode(parts).unwrap(),
            _ => parts,
        };
        assert_eq!(whole, blob, "{name}");
        assert!(mapping.frame(&message).is_ok());
    }
}

#[test]
fn a_payment_without_its_own_card_is_not_sent() {
    let mapping = mapping(DIALECTS[0].1);
    let sale = sale(Cryptogram::AsksOnline);
    let other = SealedCard {
        salt: [9; 16],
        blob: vec![9; 40],
    };
    for card in [None, Some(&other)] {
        let stored = Stored {
            signed_request: &sale.signed,
            requested_ms: REQUESTED_MS,
            sealed_card: card,
        };
        let told = mapping.question(&forward(Operation::AuthoriseOnline, 1), &stored, 0);
        assert_eq!(told.err(), Some(Unsendable::Card));
    }
    assert_eq!(sale.request.payment_id, PaymentId([0xa5; 16]));
}

#[test]
fn an_answer_that_differs_from_its_question_is_not_its_answer() {
    for (name, text) in DIALECTS {
        let mapping = mapping(text);
        let question = asked(&mapping, Operation::AuthoriseOnline, 1, false);
        let good = answered(&question, "00");
        assert_eq!(mapping.agrees(&question.message, &good), Ok(()), "{name}");
        let others = [
            (4, "000000001251"),
            (11, "000042"),
            (37, "626414000042"),
            (41, "OTHER   "),
        ];
        for (number, other) in others {
            let mut wrong = good.clone();
            wrong.set(number, other);
            assert_eq!(mapping.agrees(&question.message, &wrong), Err(number), "{name}");
            wrong.remove(number);
            assert_eq!(
                mapping.agrees(&question.message, &wrong),
                Err(number),
                "{name}: missing"
            );
        }
        // Not asked to repeat it, but if it does, it has to be the same.
        let carried = mapping.dialect.carry.payment_id.unwrap();
        let mut wrong = good.clone();
        wrong.set_value(carried, Value::Bytes(vec![1; 16]));
        assert_eq!(mapping.agrees(&question.message, &wrong), Err(carried), "{name}");
    }
}

/// The table of docs/iso8583.md.
#[test]
fn each_response_code_means_what_the_dialect_says() {
    use Operation::{Advice, AuthoriseDeferred, Reverse};
    let mapping = mapping(DIALECTS[1].1);
    let told = |operation, number, code: &str| {
        let question = asked(&mapping, operation, number, false);
        let answer = mapping.read(operation, &question, &answered(&question, code));
        match answer {
            GatewayAnswer::Final(result) if result.approved => "yes",
            GatewayAnswer::Final(_) => "no",
            GatewayAnswer::Pending { .. } => "pending",
            GatewayAnswer::Conflict { .. } => "conflict",
            GatewayAnswer::Throttled { .. } => "slow down",
            GatewayAnswer::RefusesMessage { .. } => "refuses message",
            GatewayAnswer::RefusesHub { .. } => "refuses hub",
            GatewayAnswer::Broken { .. } => "out of order",
            _ => "no answer",
        }
    };
    let table = [
        (AuthoriseDeferred, 1, "00", "yes"),
        (AuthoriseDeferred, 1, "85", "yes"),
        (AuthoriseDeferred, 1, "10", "no"),
        (AuthoriseDeferred, 1, "05", "no"),
        (AuthoriseDeferred, 1, "25", "no"),
        (AuthoriseDeferred, 1, "91", "pending"),
        (AuthoriseDeferred, 1, "96", "out of order"),
        (AuthoriseDeferred, 1, "03", "refuses hub"),
        (AuthoriseDeferred, 1, "30", "refuses message"),
        (AuthoriseDeferred, 2, "94", "conflict"),
        (Advice, 1, "94", "conflict"),
        (Advice, 2, "94", "yes"),
        (Reverse, 1, "00", "yes"),
        (Reverse, 1, "25", "yes"),
        (Reverse, 1, "12", "no"),
        (Reverse, 1, "94", "conflict"),
        (Reverse, 2, "94", "yes"),
    ];
    for (operation, number, code, expected) in table {
        assert_eq!(
            told(operation, number, code),
            expected,
            "{operation:?} {number} {code}"
        );
    }
    let question = asked(&mapping, Advice, 1, false);
    let mut mute = answered(&question, "00");
    mute.remove(39);
    assert!(matches!(
        mapping.read(Advice, &question, &mute),
        GatewayAnswer::NoAnswer { .. }
    ));
}
