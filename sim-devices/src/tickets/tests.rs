use std::io::Write;

use super::*;

fn parse(text: &[u8]) -> TicketFile {
    read(Path::new("tickets.csv"), &mut &text[..]).expect("a readable file")
}

fn skipped(file: &TicketFile, reason: Skip) -> Vec<u64> {
    file.skipped
        .get(&reason)
        .map(|s| s.lines.clone())
        .unwrap_or_default()
}

const GOOD: &str = "card,other,amount_minor,ticket,payment,timestamp\n\
    tok-1,x,1250,A1,card,2024-03-01T10:15:00\n\
    ,x,99,A2,card,2024-03-01 10:14:59\n";

#[test]
fn columns_are_found_by_name_and_tickets_come_by_time() {
    let file = parse(GOOD.as_bytes());
    let got: Vec<_> = file
        .tickets
        .iter()
        .map(|t| (t.ticket.as_str(), t.amount_minor))
        .collect();
    assert_eq!(got, [("A2", 99), ("A1", 1250)]);
    assert_eq!(file.tickets[1].card.as_deref(), Some("tok-1"));
    assert_eq!(file.tickets[0].card, None);
    assert!(file.says_payment && file.says_card && file.skipped.is_empty());
    assert_eq!(file.rows, 2);
}

#[test]
fn gzip_is_told_by_its_first_bytes_not_its_name() {
    let mut file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(GOOD.as_bytes()).unwrap();
    let bytes = gz.finish().unwrap();
    file.write_all(&bytes).unwrap();
    assert_eq!(read_file(file.path()).unwrap().tickets.len(), 2);

    // Cut short, nothing of it is played.
    let mut cut = tempfile::NamedTempFile::new().unwrap();
    cut.write_all(&bytes[..bytes.len() - 12]).unwrap();
    assert!(matches!(read_file(cut.path()), Err(TicketError::Read { .. })));
}

#[test]
fn only_what_was_paid_by_card_is_played_and_the_rest_is_named() {
    let file = parse(
        b"timestamp,ticket,amount_minor,payment\n\
          2024-03-01T10:00:00,1,100,card\n\
          2024-03-01T10:00:00,2,100,cash\n\
          2024-03-01T10:00:00,3,100,mixed\n\
          2024-03-01T10:00:00,4,100,other\n\
          2024-03-01T10:00:00,5,100,\n\
          2024-03-01T10:00:00,6,100,Card?\n",
    );
    assert_eq!(file.tickets.len(), 1);
    assert_eq!(skipped(&file, Skip::PaidCash), [3]);
    assert_eq!(skipped(&file, Skip::PaidMixed), [4]);
    assert_eq!(skipped(&file, Skip::PaidOther), [5]);
    assert_eq!(skipped(&file, Skip::PaymentUnknown), [6, 7]);
}

#[test]
fn without_a_payment_column_every_ticket_is_a_payment() {
    let file = parse(b"timestamp,ticket,amount_minor\n2024-03-01T10:00:00,1,100\n");
    assert!(!file.says_payment);
    assert_eq!(file.tickets.len(), 1);
}

#[test]
fn what_is_no_payment_is_counted_and_named_never_guessed() {
    let mut text = b"timestamp,ticket,amount_minor,card\n".to_vec();
    let lines: [(&[u8], Skip); 17] = [
        (b"2024-03-01T10:00:00,a,0,t", Skip::AmountZero),
        (b"2024-03-01T10:00:00,b,-0,t", Skip::AmountZero),
        (b"2024-03-01T10:00:00,c,-5,t", Skip::AmountNegative),
        (b"2024-03-01T10:00:00,d,12.50,t", Skip::AmountMalformed),
        (b"2024-03-01T10:00:00,e,+12,t", Skip::AmountMalformed),
        (b"2024-03-01T10:00:00,f,,t", Skip::AmountMalformed),
        (b"2024-03-01T10:00:00,g,1000000000000,t", Skip::AmountTooLarge),
        (
            b"2024-03-01T10:00:00,h,99999999999999999999999,t",
            Skip::AmountTooLarge,
        ),
        (b"2024-03-01,i,5,t", Skip::TimestampMalformed),
        (b"2024-02-30T10:00:00,j,5,t", Skip::TimestampMalformed),
        (b"2024-03-01T10:00:00Z,k,5,t", Skip::TimestampMalformed),
        (b"2024-03-01T10:00:00,,5,t", Skip::TicketNumberMalformed),
        (b"2024-03-01T10:00:00,a,5,t", Skip::TicketDoubled),
        (b"2024-03-01T10:00:00,l,5", Skip::ColumnsWrong),
        (b"2024-03-01T10:00:00,m,5,t,u", Skip::ColumnsWrong),
        (b"2024-03-01T10:00:00,n\xff,5,t", Skip::NotUtf8),
        (b"2024-03-01T10:00:00,o,5,4111111111111111", Skip::ClearCardNumber),
    ];
    for (line, _) in &lines {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    let file = parse(&text);
    assert!(file.tickets.is_empty());
    assert_eq!(file.rows, 17);
    for (place, (line, reason)) in lines.iter().enumerate() {
        let number = place as u64 + 2;
        assert!(
            skipped(&file, *reason).contains(&number),
            "{} {reason:?}",
            line.escape_ascii()
        );
    }
    assert_eq!(file.skipped.values().map(|s| s.count).sum::<u64>(), 17);
}

#[test]
fn a_line_above_the_bound_is_passed_over_without_being_held() {
    let mut text = b"timestamp,ticket,amount_minor\n2024-03-01T10:00:00,".to_vec();
    text.resize(text.len() + 3 * MAX_LINE, b'9');
    text.extend_from_slice(b",5\n2024-03-01T10:00:00,2,5");
    // A small buffer makes the line arrive in many pieces.
    let mut reader = std::io::BufReader::with_capacity(64, &text[..]);
    let file = read(Path::new("t"), &mut reader).unwrap();
    assert_eq!(skipped(&file, Skip::LineTooLong), [2]);
    assert_eq!(file.tickets.len(), 1, "the line after it is read");
}

#[test]
fn only_the_first_line_numbers_of_a_reason_are_kept() {
    let mut text = String::from("timestamp,ticket,amount_minor\n");
    for n in 0..100 {
        text.push_str(&format!("2024-03-01T10:00:00,{n},0\n"));
    }
    let file = parse(text.as_bytes());
    let zero = &file.skipped[&Skip::AmountZero];
    assert_eq!((zero.count, zero.lines.len()), (100, EXAMPLES));
}

#[test]
fn a_file_without_a_usable_header_is_refused_with_what_is_missing() {
    for (text, word) in [
        ("", "empty"),
        ("timestamp,ticket\n", "amount_minor"),
        ("timestamp;ticket;amount_minor\n", "timestamp"),
        ("timestamp,ticket,amount_minor,ticket\n", "two columns"),
    ] {
        let error = read(Path::new("t.csv"), &mut text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word) && error.contains("t.csv"), "{error}");
    }
}

#[test]
fn rule_6_no_ticket_number_makes_an_order_id_that_passes_for_a_card_number() {
    use hub_protocol::card_number::holds_card_number;
    assert!(holds_card_number("4111-1111-1111-1111"));
    for ticket in ["4111111111111111", "4111-1111-1111-1111", "A 4111 1111 1111 1111"] {
        let order = order_id(ticket);
        assert!(!holds_card_number(&order), "{order}");
        assert_eq!(order.replace('x', ""), ticket, "the number can still be read");
    }
    // Made up, in the shape of a supermarket's: date, till, counter.
    for counter in 0..2000 {
        let ticket = format!("2404105060410{counter:04}-104");
        assert!(!holds_card_number(&order_id(&ticket)));
    }
    assert!(order_id(&"9".repeat(48)).len() <= 64);
}
