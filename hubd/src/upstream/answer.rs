//! What an HTTP answer means, in the core's words.

use hub_core::{Forward, GatewayAnswer, LONGEST_RETRY_AFTER_MS, LONGEST_SPREAD_MS, Operation};
use hub_protocol::{GatewayResult, MerchantAdvice, PaymentId};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde::Deserialize;

use super::text::{MAX_DETAIL, clean};

/// Over how many seconds stores are to spread their first contact after an
/// outage.
const REPLAY_SPREAD: HeaderName = HeaderName::from_static("replay-spread");

/// The `title` of the 404 that means "no payment under this reference".
const UNKNOWN_PAYMENT: &str = "unknown-payment";

/// The longest response code (ISO 8583 field 39 and its relatives), in bytes.
const MAX_RESPONSE_CODE: usize = 8;

/// The longest authorisation code and reference taken over, in bytes.
const MAX_REFERENCE: usize = 64;

/// An answer as it came over the line.
pub(super) struct Received<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// At most the allowed size.
    pub(super) body: &'a [u8],
    /// Why the body is not all there, if it is not.
    pub(super) cut: Option<&'a str>,
}

#[derive(Deserialize)]
struct FinalBody {
    payment_id: String,
    status: String,
    response_code: Option<String>,
    authorisation_code: Option<String>,
    reference: Option<String>,
    /// Which presentation the answer is to; the first if it is not said.
    presentation: Option<u32>,
    /// Whatever stands there: a slip in it is no reason to lose the answer.
    merchant_advice_code: Option<serde_json::Value>,
}

impl FinalBody {
    /// What the issuer advised with a decline of a payment. What is no code of
    /// two digits counts as none.
    fn advice(&self, asked: Operation) -> Option<MerchantAdvice> {
        if asked == Operation::Reverse || self.status != "declined" {
            return None;
        }
        self.merchant_advice_code.as_ref()?.as_str()?.parse().ok()
    }
}

/// Any answer to any question: two bytes for the status, one for what was
/// asked, then header lines, an empty line, the body.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    use reqwest::header::HeaderValue;
    let Some(([high, low, asked], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let Ok(status) = StatusCode::from_u16(u16::from_be_bytes([*high, *low]) % 900 + 100) else {
        return;
    };
    let end = rest
        .windows(2)
        .position(|two| two == b"\n\n")
        .unwrap_or(rest.len());
    let (head, body) = rest.split_at(end);
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let operations = [
        Operation::AuthoriseOnline,
        Operation::AuthoriseDeferred,
        Operation::Advice,
        Operation::Reverse,
        Operation::LookUp,
    ];
    let forward = Forward {
        attempt: hub_core::AttemptId(1),
        payment_id: PaymentId([7; 16]),
        operation: operations[usize::from(*asked) % operations.len()],
        request_sequence: 1,
        device: hub_protocol::DeviceId([1; 32]),
        decided_ms: 1,
        number: 1,
        presentation: 1,
        maybe_sent: true,
        traces: hub_protocol::entry::TraceRule::Entry,
        deadline_ms: 1,
    };
    let received = Received {
        status,
        headers: &headers,
        body: body.get(2..).unwrap_or_default(),
        cut: (asked & 0x80 != 0).then_some("cut"),
    };
    let answer = read(&forward, &received, 1_798_000_000_000);
    super::text::hold(&answer);
    match answer {
        // Only a whole body that names the payment is final.
        GatewayAnswer::Final(_) => assert!(received.cut.is_none() && status.is_success()),
        GatewayAnswer::Advised { result, .. } => {
            assert!(received.cut.is_none() && status.is_success() && !result.approved);
        }
        GatewayAnswer::NotFound => assert!(forward.operation == Operation::LookUp),
        _ => {}
    }
    let _ = (spread_ms(&headers), date_ms(&headers));
}

/// Says what `received` means for what was asked. `now_ms` is the hub's wall
/// clock, used only where the answer carries no `Date`.
pub(super) fn read(asked: &Forward, received: &Received<'_>, now_ms: u64) -> GatewayAnswer {
    let retry_after_ms = retry_after_ms(received.headers, now_ms);
    let detail = || detail_of(received);
    let looks_up = asked.operation == Operation::LookUp;
    match received.status.as_u16() {
        200 => read_final(asked, received, retry_after_ms),
        404 if looks_up && says_unknown(asked.payment_id, received) => GatewayAnswer::NotFound,
        // A page of something between here and the gateway, perhaps. What is
        // taken for "not found" may be charged twice.
        404 if looks_up => GatewayAnswer::NoAnswer {
            detail: "HTTP 404, but without saying of this payment that it is unknown".to_owned(),
        },
        // 409: the same payment is being worked on, by an earlier call.
        202 | 409 => GatewayAnswer::Pending { retry_after_ms },
        422 => GatewayAnswer::Conflict { detail: detail() },
        429 => GatewayAnswer::Throttled { retry_after_ms },
        401 | 403 | 407 => GatewayAnswer::RefusesHub { detail: detail() },
        // Not the fault of the message: it passes once the road is mended.
        300..=399 | 408 | 425 | 500..=599 => GatewayAnswer::Broken {
            retry_after_ms,
            detail: detail(),
        },
        400..=499 => GatewayAnswer::RefusesMessage { detail: detail() },
        _ => GatewayAnswer::NoAnswer {
            detail: format!("HTTP {} is not in the contract", received.status.as_u16()),
        },
    }
}

/// A 200 is final only if it can be read in full, names this payment, and
/// fits what was asked. Anything else may hide an approval: no answer.
fn read_final(asked: &Forward, received: &Received<'_>, retry_after_ms: Option<u64>) -> GatewayAnswer {
    let no_answer = |detail: String| GatewayAnswer::NoAnswer { detail };
    if let Some(cut) = received.cut {
        return no_answer(format!("HTTP 200, but {cut}"));
    }
    let body: FinalBody = match serde_json::from_slice(received.body) {
        Ok(body) => body,
        Err(error) => {
            return no_answer(format!(
                "HTTP 200, but its body cannot be read: {}",
                place(&error)
            ));
        }
    };
    if body.payment_id.parse() != Ok(asked.payment_id) {
        return no_answer("HTTP 200, but for another payment".to_owned());
    }
    let earlier = body.presentation.unwrap_or(1) < asked.presentation;
    let approved = match (asked.operation, body.status.as_str()) {
        (_, "pending") => return GatewayAnswer::Pending { retry_after_ms },
        (Operation::Reverse, "reversed") => true,
        // Too late to undo, for instance: a person has to see to it.
        (Operation::Reverse, "declined") => false,
        (Operation::Reverse, _) => return no_answer(misfit("a reversal")),
        (_, "approved") => true,
        // The decline that led to the presentation which is looked for.
        (Operation::LookUp, "declined") if earlier => return GatewayAnswer::NotFound,
        (_, "declined") if earlier => {
            return no_answer("HTTP 200, but with the decline of an earlier presentation".to_owned());
        }
        (_, "declined") => false,
        // Whatever is sent under this id now would be declined.
        (Operation::LookUp, "reversed") => false,
        _ => return no_answer(misfit("an authorisation")),
    };
    let advice = body.advice(asked.operation);
    let Some(response_code) = body.response_code else {
        return no_answer("HTTP 200, but without a response code".to_owned());
    };
    let optional = |text: Option<String>| {
        text.map(|text| clean(&text, MAX_REFERENCE))
            .filter(|text| !text.is_empty())
    };
    let result = GatewayResult {
        approved,
        response_code: clean(&response_code, MAX_RESPONSE_CODE),
        authorisation_code: optional(body.authorisation_code),
        reference: optional(body.reference),
    };
    match advice {
        Some(advice) => GatewayAnswer::Advised { result, advice },
        None => GatewayAnswer::Final(result),
    }
}

#[derive(Deserialize)]
struct Unknown {
    title: String,
    payment_id: String,
}

/// Whether a 404 says in so many words that this payment is not known.
fn says_unknown(payment_id: PaymentId, received: &Received<'_>) -> bool {
    received.cut.is_none()
        && serde_json::from_slice::<Unknown>(received.body)
            .is_ok_and(|body| body.title == UNKNOWN_PAYMENT && body.payment_id.parse() == Ok(payment_id))
}

fn misfit(asked: &str) -> String {
    format!("HTTP 200, but its status is not an answer to {asked}")
}

/// Where JSON went wrong, without quoting what stood there.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// The gateway's words: `detail` or `title` of a problem document (RFC 9457),
/// or else the text itself.
fn detail_of(received: &Received<'_>) -> String {
    let words = match serde_json::from_slice::<Problem>(received.body) {
        Ok(problem) => problem.detail.or(problem.title).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(received.body).into_owned(),
    };
    let status = received.status.as_u16();
    let words = clean(&words, MAX_DETAIL);
    if words.is_empty() {
        format!("HTTP {status}")
    } else {
        clean(&format!("HTTP {status}: {words}"), MAX_DETAIL)
    }
}

/// `Retry-After` (RFC 9110 §10.2.3) in milliseconds from now, at most
/// [`LONGEST_RETRY_AFTER_MS`]. A date is counted from the answer's own `Date`, so
/// that a wrong clock at the hub does not matter.
pub(super) fn retry_after_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean a very long time.
        text.parse::<u64>().map_or(u64::MAX, |s| s.saturating_mul(1000))
    } else {
        let base = date_ms(headers).unwrap_or(now_ms);
        http_date_ms(text)?.saturating_sub(base)
    };
    Some(wait.min(LONGEST_RETRY_AFTER_MS))
}

/// `Replay-Spread` in milliseconds; 0 if it is missing or no number of
/// seconds.
pub(super) fn spread_ms(headers: &HeaderMap) -> u64 {
    let seconds = headers
        .get(REPLAY_SPREAD)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    seconds.map_or(0, |seconds| seconds.saturating_mul(1000).min(LONGEST_SPREAD_MS))
}

/// The answer's `Date`, milliseconds since 1970 UTC.
pub(super) fn date_ms(headers: &HeaderMap) -> Option<u64> {
    http_date_ms(headers.get(DATE)?.to_str().ok()?.trim())
}

/// One of the three forms of RFC 9110 §5.6.7, all of which a recipient must
/// understand.
fn http_date_ms(text: &str) -> Option<u64> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(text)
        .ok()
        .or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT", text))
        .or_else(|| obsolete("%a %b %e %H:%M:%S %Y", text))?;
    u64::try_from(parsed.as_millisecond()).ok()
}

fn obsolete(format: &str, text: &str) -> Option<Timestamp> {
    let civil = jiff::fmt::strtime::parse(format, text).ok()?.to_datetime().ok()?;
    civil
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    const ID: PaymentId = PaymentId([7; 16]);
    /// 1994-11-06T08:49:37Z, the example of RFC 9110.
    const RFC: u64 = 784_111_777_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn answer(
        operation: Operation,
        status: u16,
        pairs: &[(&'static str, &str)],
        body: &str,
    ) -> GatewayAnswer {
        presented(operation, 1, status, pairs, body)
    }

    fn asked(operation: Operation, presentation: u32) -> Forward {
        Forward {
            attempt: hub_core::AttemptId(1),
            payment_id: ID,
            operation,
            request_sequence: 1,
            device: hub_protocol::DeviceId([1; 32]),
            decided_ms: 0,
            number: 1,
            presentation,
            maybe_sent: true,
            traces: hub_protocol::entry::TraceRule::Entry,
            deadline_ms: 0,
        }
    }

    fn presented(
        operation: Operation,
        presentation: u32,
        status: u16,
        pairs: &[(&'static str, &str)],
        body: &str,
    ) -> GatewayAnswer {
        let received = Received {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers(pairs),
            body: body.as_bytes(),
            cut: None,
        };
        read(&asked(operation, presentation), &received, RFC)
    }

    fn body(status: &str) -> String {
        format!(r#"{{"payment_id":"{ID}","status":"{status}","response_code":"00","reference":"r1"}}"#)
    }

    #[test]
    fn every_status_has_its_meaning() {
        let wait = Some(7000);
        let after = [("retry-after", "7")];
        for status in [202, 409] {
            let told = answer(Operation::AuthoriseOnline, status, &after, "");
            assert_eq!(told, GatewayAnswer::Pending { retry_after_ms: wait }, "{status}");
        }
        let told = answer(Operation::AuthoriseOnline, 429, &after, "");
        assert_eq!(told, GatewayAnswer::Throttled { retry_after_ms: wait });
        for status in [301, 302, 307, 408, 425, 500, 502, 503, 504, 599] {
            let told = answer(Operation::Advice, status, &after, "no");
            assert!(
                matches!(&told, GatewayAnswer::Broken { retry_after_ms, detail }
                    if *retry_after_ms == wait && detail == &format!("HTTP {status}: no")),
                "{told:?}"
            );
        }
        for status in [401, 403, 407] {
            let told = answer(Operation::Reverse, status, &[], "");
            assert!(matches!(told, GatewayAnswer::RefusesHub { .. }), "{status}");
        }
        for status in [400, 404, 405, 410, 413, 414, 415, 418, 428, 431, 451] {
            let told = answer(Operation::Reverse, status, &[], "");
            assert!(matches!(told, GatewayAnswer::RefusesMessage { .. }), "{status}");
        }
        let told = answer(
            Operation::AuthoriseDeferred,
            422,
            &[],
            r#"{"title":"t","detail":"other content"}"#,
        );
        let detail = "HTTP 422: other content".to_owned();
        assert_eq!(told, GatewayAnswer::Conflict { detail });
        for status in [201, 203, 204, 206, 299, 600, 999] {
            let told = answer(Operation::AuthoriseOnline, status, &[], &body("approved"));
            assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{status}");
        }
    }

    #[test]
    fn only_a_200_that_fits_the_question_is_final() {
        use Operation::{Advice, AuthoriseDeferred, AuthoriseOnline, Reverse};
        for operation in [AuthoriseOnline, AuthoriseDeferred, Advice] {
            for (status, expected) in [
                ("approved", Some(true)),
                ("declined", Some(false)),
                ("reversed", None),
            ] {
                let told = answer(operation, 200, &[], &body(status));
                match expected {
                    Some(yes) => {
                        assert!(
                            matches!(&told, GatewayAnswer::Final(r) if r.approved == yes),
                            "{told:?}"
                        )
                    }
                    None => assert!(matches!(told, GatewayAnswer::NoAnswer { .. })),
                }
            }
        }
        assert!(
            matches!(answer(Reverse, 200, &[], &body("reversed")), GatewayAnswer::Final(r) if r.approved)
        );
        assert!(
            matches!(answer(Reverse, 200, &[], &body("declined")), GatewayAnswer::Final(r) if !r.approved)
        );
        for status in ["approved", "maybe", ""] {
            let told = answer(Reverse, 200, &[], &body(status));
            assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{status}");
        }
        let told = answer(AuthoriseOnline, 200, &[], &body("pending"));
        assert_eq!(told, GatewayAnswer::Pending { retry_after_ms: None });
    }

    #[test]
    fn a_200_that_cannot_be_trusted_is_never_final() {
        let other = body("approved").replace(&ID.to_string(), &PaymentId([8; 16]).to_string());
        let approved = body("approved");
        for bad in [
            other.as_str(),
            &approved[..approved.len() - 1],
            "",
            "[]",
            "<html>approved</html>",
            r#"{"status":"approved","response_code":"00"}"#,
            &approved.replace(r#","response_code":"00""#, ""),
            &approved.replace("approved", "APPROVED"),
            &format!("{approved} {approved}"),
        ] {
            let told = answer(Operation::AuthoriseOnline, 200, &[], bad);
            assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{bad}: {told:?}");
        }
        let cut = Received {
            status: StatusCode::OK,
            headers: &HeaderMap::new(),
            body: approved.as_bytes(),
            cut: Some("it is too long"),
        };
        let told = read(&asked(Operation::AuthoriseOnline, 1), &cut, RFC);
        assert!(matches!(told, GatewayAnswer::NoAnswer { .. }));
    }

    #[test]
    fn only_a_404_that_names_the_payment_means_not_found() {
        let unknown = format!(r#"{{"title":"unknown-payment","status":404,"payment_id":"{ID}"}}"#);
        assert_eq!(
            answer(Operation::LookUp, 404, &[], &unknown),
            GatewayAnswer::NotFound
        );
        let other = unknown.replace(&ID.to_string(), &PaymentId([8; 16]).to_string());
        for bad in [
            other.as_str(),
            "",
            "<html>Not found</html>",
            r#"{"title":"unknown-payment"}"#,
            &unknown.replace("unknown-payment", "no such route"),
            &unknown[..unknown.len() - 1],
        ] {
            let told = answer(Operation::LookUp, 404, &[], bad);
            assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{bad}: {told:?}");
        }
        for operation in [Operation::AuthoriseDeferred, Operation::Reverse] {
            let told = answer(operation, 404, &[], &unknown);
            assert!(matches!(told, GatewayAnswer::RefusesMessage { .. }), "{told:?}");
        }
    }

    #[test]
    fn what_a_look_up_finds_is_the_answer_to_the_payment() {
        for (status, approved) in [("approved", true), ("declined", false), ("reversed", false)] {
            let told = answer(Operation::LookUp, 200, &[], &body(status));
            assert!(
                matches!(&told, GatewayAnswer::Final(r) if r.approved == approved),
                "{told:?}"
            );
        }
        let told = answer(Operation::LookUp, 200, &[], &body("pending"));
        assert_eq!(told, GatewayAnswer::Pending { retry_after_ms: None });
    }

    #[test]
    fn a_decline_of_an_earlier_presentation_is_no_answer_to_a_later_one() {
        let first = body("declined");
        let second = first.replace("\"status\"", "\"presentation\":2,\"status\"");
        assert_eq!(
            presented(Operation::LookUp, 2, 200, &[], &first),
            GatewayAnswer::NotFound
        );
        let told = presented(Operation::AuthoriseDeferred, 2, 200, &[], &first);
        assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{told:?}");
        for operation in [Operation::LookUp, Operation::AuthoriseDeferred] {
            let told = presented(operation, 2, 200, &[], &second);
            assert!(
                matches!(&told, GatewayAnswer::Final(r) if !r.approved),
                "{told:?}"
            );
            let told = presented(operation, 2, 200, &[], &body("approved"));
            assert!(
                matches!(&told, GatewayAnswer::Final(r) if r.approved),
                "one charge over all"
            );
        }
    }

    #[test]
    fn a_merchant_advice_code_comes_with_a_decline_of_a_payment_alone() {
        let with = |status: &str, code: &str| {
            body(status).replace(
                "\"status\"",
                &format!("\"merchant_advice_code\":{code},\"status\""),
            )
        };
        for operation in [
            Operation::AuthoriseOnline,
            Operation::AuthoriseDeferred,
            Operation::LookUp,
        ] {
            let told = answer(operation, 200, &[], &with("declined", "\"03\""));
            assert!(
                matches!(&told, GatewayAnswer::Advised { result, advice }
                    if !result.approved && result.response_code == "00" && advice.to_string() == "03"),
                "{told:?}"
            );
            let told = answer(operation, 200, &[], &with("approved", "\"01\""));
            assert!(matches!(&told, GatewayAnswer::Final(r) if r.approved), "{told:?}");
        }
        let told = answer(Operation::LookUp, 200, &[], &with("reversed", "\"03\""));
        assert!(
            matches!(&told, GatewayAnswer::Final(r) if !r.approved),
            "{told:?}"
        );
        let told = answer(Operation::Reverse, 200, &[], &with("declined", "\"03\""));
        assert!(
            matches!(&told, GatewayAnswer::Final(r) if !r.approved),
            "{told:?}"
        );
        // What is no code is no reason to ask for ever.
        for bad in [
            "null", "3", "\"3\"", "\"003\"", "\" 03\"", "\"R3\"", "[\"03\"]", "{}", "true", "3.0",
        ] {
            let told = answer(Operation::AuthoriseDeferred, 200, &[], &with("declined", bad));
            assert!(
                matches!(&told, GatewayAnswer::Final(r) if !r.approved),
                "{bad}: {told:?}"
            );
        }
        // Said twice, the body is no JSON object that can be trusted.
        let twice = with("declined", "\"03\",\"merchant_advice_code\":\"24\"");
        let told = answer(Operation::AuthoriseDeferred, 200, &[], &twice);
        assert!(matches!(told, GatewayAnswer::NoAnswer { .. }), "{told:?}");
    }

    #[test]
    fn the_spread_is_read_in_seconds_and_bounded() {
        for (text, expected) in [
            ("60", 60_000),
            ("0", 0),
            ("99999999", LONGEST_SPREAD_MS),
            ("soon", 0),
        ] {
            assert_eq!(
                spread_ms(&headers(&[("replay-spread", text)])),
                expected,
                "{text}"
            );
        }
        assert_eq!(spread_ms(&HeaderMap::new()), 0);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_in_every_form_of_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120_000)),
            ("99999999999999999999999", Some(LONGEST_RETRY_AFTER_MS)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10_000)),
            ("Sun Nov  6 08:49:47 1994", Some(10_000)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Sun, 06 Nov 2094 08:49:07 GMT", Some(LONGEST_RETRY_AFTER_MS)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            // Once by the answer's own clock, while the hub's is far off.
            assert_eq!(
                retry_after_ms(&headers(&[("date", date), ("retry-after", text)]), 0),
                expected,
                "{text}"
            );
            // Once by the hub's clock, for want of another.
            assert_eq!(
                retry_after_ms(&headers(&[("retry-after", text)]), RFC),
                expected,
                "{text}"
            );
        }
        assert_eq!(date_ms(&headers(&[("date", date)])), Some(RFC));
    }

    #[test]
    fn rule_6_no_clear_card_number_comes_in_with_an_answer() {
        let told = answer(Operation::Advice, 400, &[], "PAN 4111 1111 1111 1111 is bad");
        assert!(
            matches!(&told, GatewayAnswer::RefusesMessage { detail } if !detail.contains("4111")),
            "{told:?}"
        );
        let echo = body("approved").replace("r1", "4111111111111111");
        let told = answer(Operation::Advice, 200, &[], &echo);
        assert!(!format!("{told:?}").contains("4111"), "{told:?}");
    }

    #[test]
    fn long_texts_are_shortened() {
        let told = answer(Operation::Advice, 500, &[], &"long ".repeat(1000));
        assert!(matches!(&told, GatewayAnswer::Broken { detail, .. } if detail.len() <= MAX_DETAIL));
        let long = body("approved")
            .replace("r1", &"r".repeat(1000))
            .replace("\"00\"", "\"0123456789\"");
        let GatewayAnswer::Final(result) = answer(Operation::Advice, 200, &[], &long) else {
            panic!("a long reference is no reason to lose an approval");
        };
        assert_eq!(result.response_code, "01234567");
        assert_eq!(result.reference.map(|r| r.len()), Some(MAX_REFERENCE));
    }
}
