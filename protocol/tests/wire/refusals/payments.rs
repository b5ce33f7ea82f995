//! Payments, well signed, that nobody may ask for.

use crate::files::unhex;
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

pub(super) fn bad_payments() -> Vec<(RefusalCode, Vec<Case>)> {
    let field = |path: &[i128], value: Tree| pay_payload(&payment().with(path, value));
    let raw = |payload: Vec<u8>| pay_with(&signed_by(&device_key(), &payload));
    let good = cbor::encode(&payment_full());
    let amount = |value: i128| field(&[3], int(value));
    let card = |blob: Vec<u8>, own_digest: bool| {
        let sealed_card = SealedCard {
            blob,
            ..sealed_card()
        };
        let digest = if own_digest {
            sealed_card.digest()
        } else {
            self::sealed_card().digest()
        };
        let payload = cbor::encode(&PaymentRequest {
            sealed_card_digest: digest,
            ..payment_full()
        });
        frame::to_wire(&Request::Pay {
            request: signed_by(&device_key(), &payload),
            sealed_card,
        })
    };
    let other_salt = SealedCard {
        salt: [0; 16],
        ..sealed_card()
    };
    vec![
        (
            RefusalCode::Truncated,
            vec![
                case("the signed payment is cut", raw(good[..good.len() - 1].to_vec())),
                case("the signed payment is empty", raw(vec![])),
            ],
        ),
        (
            RefusalCode::Trailing,
            vec![case(
                "a byte follows the signed payment",
                raw([&good[..], &[0]].concat()),
            )],
        ),
        (
            RefusalCode::NotCanonical,
            vec![
                case(
                    "a key of the payment is doubled",
                    pay_payload(&payment().and(int(11), int(0))),
                ),
                case(
                    "a key of the payment is unknown",
                    pay_payload(&payment().and(int(13), int(0))),
                ),
                case(
                    "a key of the card is unknown",
                    field(
                        &[6],
                        Tree::parse(&cbor::encode(&payment_full().card)).and(int(7), text("x")),
                    ),
                ),
                case("an absent field as null", field(&[6, 5], Tree::Null)),
                case(
                    "an amount longer than needed",
                    field(&[3], Tree::Raw(unhex("1a00000a1e"))),
                ),
            ],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "the payment without a mandatory field",
                    pay_payload(&payment().without(9)),
                ),
                case(
                    "the amount as a float",
                    field(&[3], Tree::Raw(unhex("fb40a43c0000000000"))),
                ),
                case("the amount as text", field(&[3], text("2590"))),
                case(
                    "the amount as a big number",
                    field(&[3], Tree::Raw(unhex("c249010000000000000000"))),
                ),
                case("a card scheme that is not assigned", field(&[6, 2], int(99))),
                case("a cryptogram that is not assigned", field(&[9], int(0))),
                case("the entry mode by name", field(&[7], text("chip"))),
                case("the currency as a number", field(&[4], int(978))),
                case("a digest of 31 bytes", field(&[10], bytes(&[0; 31]))),
                case("a negative device time", field(&[11], int(-1))),
            ],
        ),
        (RefusalCode::AmountZero, vec![case("amount zero", amount(0))]),
        (
            RefusalCode::AmountNegative,
            vec![
                case("amount minus one", amount(-1)),
                case("the smallest amount that CBOR has", amount(-(1 << 64))),
            ],
        ),
        (
            RefusalCode::AmountTooLarge,
            vec![
                case("an amount of 13 digits", amount(1_000_000_000_000)),
                case("the largest amount that CBOR has", amount((1 << 64) - 1)),
                case("an amount that would be negative in 64 bits", amount(1 << 63)),
            ],
        ),
        (
            RefusalCode::CurrencyMalformed,
            ["", "eur", "EU", "EURO", "E1R", "€"]
                .into_iter()
                .map(|currency| case(&format!("currency {currency:?}"), field(&[4], text(currency))))
                .collect(),
        ),
        (
            RefusalCode::FieldMalformed,
            [(&[5][..], "order id"), (&[6, 1], "card token")]
                .into_iter()
                .flat_map(|(path, name)| {
                    [
                        ("empty", String::new()),
                        ("of 65 bytes", "x".repeat(65)),
                        ("with a line feed", "a\nb".into()),
                        ("not ASCII", "é".into()),
                    ]
                    .map(|(fault, value)| case(&format!("{name} {fault}"), field(path, text(&value))))
                })
                .chain([
                    case("issuer country in small letters", field(&[6, 4], text("fr"))),
                    case("issuer country of three letters", field(&[6, 4], text("FRA"))),
                    case("issuer country empty", field(&[6, 4], text(""))),
                    case("BIN of 5 digits", field(&[6, 5], text("49700"))),
                    case("BIN of 9 digits", field(&[6, 5], text("497000001"))),
                    case("BIN with a letter", field(&[6, 5], text("49700x"))),
                    case("last digits: 3", field(&[6, 6], text("123"))),
                    case("last digits: 5", field(&[6, 6], text("12345"))),
                    case("last digits with a letter", field(&[6, 6], text("12a4"))),
                ])
                .collect(),
        ),
        (
            RefusalCode::ClearCardNumber,
            [(&[5][..], "order id"), (&[6, 1], "card token")]
                .into_iter()
                .flat_map(|(path, name)| {
                    ["4111111111111111", "4111 1111 1111 1111", "PAN4111111111111111"]
                        .map(|value| case(&format!("{name} {value}"), field(path, text(value))))
                })
                .collect(),
        ),
        (
            RefusalCode::SealedCardSize,
            vec![
                case("no sealed card", card(vec![], true)),
                case("a sealed card of 1025 bytes", card(vec![7; 1025], true)),
            ],
        ),
        (
            RefusalCode::SealedCardDigest,
            vec![
                case(
                    "another sealed card than was signed for",
                    card(b"another".to_vec(), false),
                ),
                case(
                    "another salt than was signed for",
                    frame::to_wire(&Request::Pay {
                        request: signed_payment(),
                        sealed_card: other_salt,
                    }),
                ),
            ],
        ),
        (
            RefusalCode::CardEnvelope,
            vec![
                case(
                    "a sealed card without its envelope",
                    card(sealed_card().blob, true),
                ),
                case(
                    "an envelope with a byte behind it",
                    card([envelope(SealScheme::Hpke, 16), vec![0]].concat(), true),
                ),
                case(
                    "an envelope with a key id of HPKE of 15 bytes",
                    card(envelope(SealScheme::Hpke, 15), true),
                ),
                case(
                    "an envelope without a key serial number",
                    card(envelope(SealScheme::Dukpt, 0), true),
                ),
            ],
        ),
    ]
}
