use super::*;

#[test]
fn rule_6_clear_card_numbers_are_found_with_and_without_gaps() {
    for clear in [
        "4111111111111111",
        "x 4111 1111 1111 1111 y",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "3056 930902 5904",
        "2223003122003222",
        "4222222222222",
        "6205500000000000004",
        "4111.1111.1111.1111",
        "4111  1111 / 1111 / 1111",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111",
        "4-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1",
        "41111111 11111111",
        "6205 5000 0000 0000 004",
        "order 12 4111 1111 1111 1111",
        "4222 222 222 222",
        "620550 0000000000004",
        "4111    1111    1111    1111",
        "4111 -- 1111 -- 1111 -- 1111",
    ] {
        assert!(holds_card_number(clear), "{clear}");
    }
}

#[test]
fn rule_6_clear_card_numbers_are_found_glued_to_other_things() {
    for clear in [
        "PAN4111111111111111",
        "a4111111111111111b",
        "pan=4111111111111111;",
        "tok_4111111111111111",
        // Padded to 19 digits and with F, as in ISO 8583 and EMV.
        "0004111111111111111",
        "00000000004111111111111111",
        "4111111111111111FFF",
        // Tracks: with the separators, and run together.
        "%B4111111111111111^DOE/J^2712101?",
        ";4111111111111111=27121010000012300000?",
        "4111111111111111D27121010000012300000F",
        "41111111111111112712",
        "41111111111111111227",
        "4111111111111111122712101",
        "3782822463100052712",
        "VISA4111111111111111EXP1227CVV123",
    ] {
        assert!(holds_card_number(clear), "{clear}");
    }
}

#[test]
fn other_numbers_and_tokens_are_no_card_numbers() {
    for other in [
        "",
        "4111111111111112",
        "order 12345",
        "tok_9f86d081884c7d65",
        "1234567890123",
        // Tickets of real tills: date and number, and a date with a time.
        "190328106044-104",
        "2026-01-12-000123",
        "20260112-093015-0042",
        // A shop's number with a date and a counter, or a time: each would be
        // a card number if any groups were.
        "4012-20261127-0018",
        "411111-1111111111",
        "411111-1795781447562",
        "4111 .... 1111 .... 1111 .... 1111",
        // All zeros pass the Luhn check.
        "0000000000000000",
        "ANON-0000-0000-0001",
        // Luhn passes, but no card begins or is as long like this.
        "1111111111111117",
        // Followed by digits that are no expiry date: a longer number.
        "41111111111111119915",
        "41111111111110",
        "7911111111111116",
    ] {
        assert!(!holds_card_number(other), "{other}");
    }
    assert!(passes_luhn(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7]));
}

#[test]
fn a_hash_or_uuid_is_no_card_number_although_its_digits_may_be_one() {
    for token in [
        "a1b2c34111111111111111deadbeef00",
        "a4111111111111111b2c",
        "018f3c2a-4111-7111-8111-111111111111",
        "4111a111-1111-4111-8111-11111111111a",
    ] {
        assert!(!holds_card_number(token), "{token}");
    }
}

/// ISO/IEC 7813 and EMV Book 3, annex A: tags 5A and 57.
#[test]
fn rule_6_clear_card_numbers_are_found_in_emv_tags() {
    let hex = |text: &str| data_encoding::HEXUPPER.decode(text.as_bytes()).unwrap();
    for clear in [
        "5A084111111111111111",
        "5A08378282246310005F",
        "5A0A6205500000000000004F",
        "57134111111111111111D27121010000012300000F",
        "5710378282246310005D271210100000123F",
        "9F2701805A08411111111111111157115F3401",
    ] {
        assert!(bytes_hold_card_number(&hex(clear)), "{clear}");
        assert!(holds_card_number(clear), "{clear}");
        assert!(
            holds_card_number(&format!("tlv={} x", clear.to_lowercase())),
            "{clear}"
        );
        for around in ["id", "a", "ab", "card"] {
            assert!(holds_card_number(&format!("{around}{clear}")), "{around}{clear}");
            assert!(holds_card_number(&format!("{clear}{around}")), "{clear}{around}");
        }
    }
    for other in [
        // Luhn fails, no such scheme, cut off, a length that does not fit, no
        // expiry date behind.
        "5A084111111111111112",
        "5A087911111111111116",
        "5A0841111111111111",
        "5A064111111111111111",
        "57134111111111111111D27131010000012300000F",
    ] {
        assert!(!bytes_hold_card_number(&hex(other)), "{other}");
    }
}

#[test]
fn rule_6_clear_card_numbers_are_found_as_text_and_packed_in_bytes() {
    assert!(
        bytes_hold_card_number(b"4111111111111111"),
        "as long as a payment id"
    );
    assert!(bytes_hold_card_number(b"\x00\xff 4111-1111-1111-1111 \xfe"));
    for packed in [
        "4111111111111111",
        "0004111111111111111F",
        "41111111111111110000000000000000",
    ] {
        let packed = data_encoding::HEXUPPER.decode(packed.as_bytes()).unwrap();
        assert!(bytes_hold_card_number(&packed), "{packed:02x?}");
    }
    assert!(!bytes_hold_card_number(&[0; 16]));
    assert!(!bytes_hold_card_number(&[]));
    assert!(!bytes_hold_card_number(&[
        0x01, 0x92, 0xf3, 0xa0, 0x11, 0x11, 0x70, 0x00, 0x80, 0, 0, 0, 0, 0, 0xca, 0xfe
    ]));
}

/// Honest ids and tokens, 200,000 of each kind and a million in all: UUIDs as
/// text, hexadecimal, base64, base64url, and ids as bytes. Of the UUIDs a few
/// have digits alone in three groups of four and at the beginning of the last.
#[test]
fn a_million_honest_tokens_are_refused_as_rarely_as_the_document_says() {
    let mut state = 0x5eed_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut refused = [0u32; 5];
    for _ in 0..200_000 {
        let bytes: Vec<u8> = (0..4).flat_map(|_| next().to_be_bytes()).collect();
        let id = crate::PaymentId(bytes[..16].try_into().unwrap());
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        let base64 = data_encoding::BASE64.encode(&bytes[..24]);
        let url = data_encoding::BASE64URL_NOPAD.encode(&bytes[..16]);
        refused[0] += u32::from(holds_card_number(&id.to_string()));
        refused[1] += u32::from(holds_card_number(&hex));
        refused[2] += u32::from(holds_card_number(&base64));
        refused[3] += u32::from(holds_card_number(&url));
        refused[4] += u32::from(bytes_hold_card_number(&id.0));
    }
    assert_eq!(refused, [6, 0, 0, 0, 0]);
}

/// A token that is refused is a card that never works in this shop, and an
/// order id that is refused a sale lost for no reason that anybody sees.
#[test]
fn hex_tokens_and_order_ids_are_not_refused_by_chance() {
    let mut refused = [0u32; 3];
    let tries = 20_000u64;
    for n in 0..tries {
        let token = crate::Digest::of(&n.to_be_bytes()).to_string();
        refused[0] += u32::from(holds_card_number(&token));
        refused[1] += u32::from(holds_card_number(&token[..32]));
        let ticket = format!("19032810{:04}-{}", n % 10_000, 100 + n % 900);
        refused[2] += u32::from(holds_card_number(&ticket));
    }
    assert_eq!(refused, [0, 0, 0]);
}
