use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{ALPN, Answer, PaymentRequest, Request, SealedCard, cbor, frame};
use hub_sdk::PayError;
use quinn::ConnectionError;

use super::*;

/// A frame's body with its length in front.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

fn pay(request: Vec<u8>, sealed_card: SealedCard) -> Vec<u8> {
    frame::to_wire(&Request::Pay { request, sealed_card })
}

struct Bench {
    hub: FakeHub,
    device: DeviceClient,
    identity: DeviceIdentity,
}

impl Bench {
    async fn start() -> Self {
        let hub = FakeHub::start();
        let identity = DeviceIdentity::generate().unwrap();
        let enrolled = hub.enrol(&identity).await;
        let device = DeviceClient::new(identity.clone(), enrolled, options()).unwrap();
        within(device.hello()).await.unwrap();
        Self {
            hub,
            device,
            identity,
        }
    }

    /// The bytes get this number, the core is not asked, and the session goes
    /// on: the same connection answers a good request.
    async fn refuses(&self, what: &str, bytes: &[u8], code: RefusalCode) {
        let asked = self.hub.asked();
        let sessions = &self.hub.devices.inner.shared.sessions;
        let connections = sessions.connections(&self.identity.device_id());
        match within(self.device.send_raw(bytes)).await {
            Ok(Answer::Refused { refusal }) => assert_eq!(refusal.code, code, "{what}: {}", refusal.text),
            other => panic!("{what}: {other:?}"),
        }
        within(self.device.hello()).await.unwrap();
        assert_eq!(
            sessions.connections(&self.identity.device_id()),
            connections,
            "{what}"
        );
        assert_eq!(self.hub.asked(), asked, "{what}: the core was asked");
    }

    fn request(&self) -> (PaymentRequest, SealedCard) {
        let payment = self.device.next_payment(sale(1250));
        (payment.request().clone(), payment.sealed_card().clone())
    }

    /// A good request but for one change, signed.
    fn changed(&self, change: impl FnOnce(&mut PaymentRequest, &mut SealedCard)) -> Vec<u8> {
        let (mut request, mut card) = self.request();
        change(&mut request, &mut card);
        pay(self.identity.sign_request(&request), card)
    }

    /// A good request but for one change to its encoding, signed.
    fn changed_bytes(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let (request, card) = self.request();
        let mut payload = cbor::encode(&request);
        change(&mut payload);
        let signed = cose::sign(self.identity.signing_key(), ObjectType::PaymentRequest, &payload);
        pay(signed, card)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_frame_has_its_number_and_the_session_goes_on() {
    let bench = Bench::start().await;
    let good = frame::to_wire(&Request::Hello { app: "t".into() });
    let longer = [&good[..], &[0]].concat();
    let cases: &[(&str, &[u8], RefusalCode)] = &[
        ("nothing", &[], RefusalCode::Truncated),
        ("inside the length", &good[..3], RefusalCode::Truncated),
        (
            "inside the frame",
            &good[..good.len() - 1],
            RefusalCode::Truncated,
        ),
        (
            "inside the message",
            &framed(&good[4..good.len() - 1]),
            RefusalCode::Truncated,
        ),
        ("after the frame", &longer, RefusalCode::Trailing),
        ("after the message", &framed(&longer[4..]), RefusalCode::Trailing),
        // [1, {1: "t", 1: "t"}]
        (
            "a doubled key",
            &framed(b"\x82\x01\xa2\x01\x61t\x01\x61t"),
            RefusalCode::NotCanonical,
        ),
        // [1, {1: "t", 9: 0}]
        (
            "an unknown key",
            &framed(b"\x82\x01\xa2\x01\x61t\x09\x00"),
            RefusalCode::NotCanonical,
        ),
        // [1, {1: "t"}] with the 1 in two bytes
        (
            "a long form",
            &framed(b"\x82\x18\x01\xa1\x01\x61t"),
            RefusalCode::NotCanonical,
        ),
        // [1, {1: 5}]
        (
            "a wrong type",
            &framed(b"\x82\x01\xa1\x01\x05"),
            RefusalCode::Malformed,
        ),
        // [1, {1: 1.0}]
        (
            "a float",
            &framed(b"\x82\x01\xa1\x01\xf9\x3c\x00"),
            RefusalCode::Malformed,
        ),
        // [99, {}]
        (
            "an unknown frame",
            &framed(b"\x82\x18\x63\xa0"),
            RefusalCode::UnknownFrame,
        ),
    ];
    for (what, bytes, code) in cases {
        bench.refuses(what, bytes, *code).await;
    }
    let enrol = frame::to_wire(&Request::Enrol { request: vec![1] });
    bench
        .refuses("an enrolment", &enrol, RefusalCode::UnknownFrame)
        .await;
    let long = frame::to_wire(&Request::Hello { app: "x".repeat(65) });
    bench
        .refuses("a long app name", &long, RefusalCode::FieldMalformed)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_frame_has_its_number_and_closes_the_connection() {
    let bench = Bench::start().await;
    let mut announced = vec![0; 100];
    announced[..4].copy_from_slice(&(frame::MAX_FRAME as u32 + 1).to_be_bytes());
    let sent = framed(&vec![0; 4 * frame::MAX_FRAME]);
    for bytes in [announced, sent] {
        // A device that does not close when it is told to.
        let raw = raw::connect(&bench.hub, Some(&bench.identity), ALPN)
            .await
            .unwrap();
        assert_eq!(raw::ask(&raw, &bytes).await, Some(RefusalCode::Oversized));
        match within(raw.closed()).await {
            ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, 1002u32.into()),
            other => panic!("{other}"),
        }
        within(bench.device.hello()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_wire_version_or_no_key_fails_the_handshake() {
    let bench = Bench::start().await;
    let connected = |identity, alpn| raw::connect(&bench.hub, identity, alpn);
    assert!(connected(Some(&bench.identity), b"store-hub/7").await.is_none());
    assert!(
        connected(Some(&bench.identity), b"store-hub-enrol/1")
            .await
            .is_none()
    );
    assert!(connected(None, ALPN).await.is_none());
    assert!(connected(Some(&bench.identity), ALPN).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_signature_has_its_number_and_the_session_goes_on() {
    let bench = Bench::start().await;
    let (request, card) = bench.request();
    let payload = cbor::encode(&request);
    let signed = bench.identity.sign_request(&request);
    let mut flipped = signed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut other_algorithm = signed.clone();
    // {1: -19 …} becomes {1: -8 …}
    let at = other_algorithm.windows(2).position(|w| w == b"\x01\x32").unwrap();
    other_algorithm[at + 1] = 0x27;
    let stranger = DeviceIdentity::generate().unwrap();
    let as_void = cose::sign(bench.identity.signing_key(), ObjectType::VoidRequest, &payload);
    for (what, request, code) in [
        ("no COSE", vec![1, 2, 3], RefusalCode::SignatureMalformed),
        (
            "cut off",
            signed[..signed.len() - 1].to_vec(),
            RefusalCode::SignatureMalformed,
        ),
        (
            "trailing",
            [&signed[..], &[0]].concat(),
            RefusalCode::SignatureMalformed,
        ),
        (
            "another algorithm",
            other_algorithm,
            RefusalCode::SignatureAlgorithm,
        ),
        (
            "another device's key",
            stranger.sign_request(&request),
            RefusalCode::SignatureUnknownKey,
        ),
        ("a flipped bit", flipped, RefusalCode::SignatureBad),
        ("another type", as_void, RefusalCode::SignatureBad),
    ] {
        bench.refuses(what, &pay(request, card.clone()), code).await;
    }
    let void = frame::to_wire(&Request::Void { request: signed });
    bench
        .refuses("a payment as a void", &void, RefusalCode::SignatureBad)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_content_has_its_number_and_the_session_goes_on() {
    let bench = Bench::start().await;
    let too_large = hub_protocol::MAX_AMOUNT_MINOR + 1;
    let currency = |payload: &mut Vec<u8>, to: &[u8; 3]| {
        let at = payload.windows(3).position(|w| w == b"EUR").unwrap();
        payload[at..at + 3].copy_from_slice(to);
    };
    let cases = [
        (
            "zero",
            bench.changed(|r, _| r.amount = 0u64.into()),
            RefusalCode::AmountZero,
        ),
        (
            "negative",
            bench.changed(|r, _| r.amount = (-1i64).into()),
            RefusalCode::AmountNegative,
        ),
        (
            "13 digits",
            bench.changed(|r, _| r.amount = too_large.into()),
            RefusalCode::AmountTooLarge,
        ),
        (
            "overflow",
            bench.changed(|r, _| r.amount = u64::MAX.into()),
            RefusalCode::AmountTooLarge,
        ),
        (
            "currency",
            bench.changed_bytes(|p| currency(p, b"eUR")),
            RefusalCode::CurrencyMalformed,
        ),
        (
            "no order",
            bench.changed(|r, _| r.order_id.clear()),
            RefusalCode::FieldMalformed,
        ),
        (
            "a card number as order",
            bench.changed(|r, _| r.order_id = "4111 1111 1111 1111".into()),
            RefusalCode::ClearCardNumber,
        ),
        (
            "a card number as token",
            bench.changed(|r, _| r.card.token = "5500000000000004".into()),
            RefusalCode::ClearCardNumber,
        ),
        (
            "a long BIN",
            bench.changed(|r, _| r.card.bin = Some("123456789".into())),
            RefusalCode::FieldMalformed,
        ),
        (
            "no sealed card",
            bench.changed(|_, c| c.blob.clear()),
            RefusalCode::SealedCardSize,
        ),
        (
            "a large sealed card",
            bench.changed(|_, c| c.blob = vec![1; hub_protocol::payment::MAX_SEALED_CARD + 1]),
            RefusalCode::SealedCardSize,
        ),
        (
            "another sealed card",
            bench.changed(|_, c| c.blob[0] ^= 1),
            RefusalCode::SealedCardDigest,
        ),
        (
            "another salt",
            bench.changed(|_, c| c.salt[0] ^= 1),
            RefusalCode::SealedCardDigest,
        ),
        (
            "payload cut off",
            bench.changed_bytes(|p| _ = p.pop()),
            RefusalCode::Truncated,
        ),
        (
            "payload trailing",
            bench.changed_bytes(|p| p.push(0)),
            RefusalCode::Trailing,
        ),
    ];
    for (what, bytes, code) in &cases {
        bench.refuses(what, bytes, *code).await;
    }
    assert!(bench.hub.book.lock().unwrap().payments.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_an_id_used_twice_with_other_bytes_is_a_conflict() {
    let bench = Bench::start().await;
    let (mut request, card) = bench.request();
    let first = pay(bench.identity.sign_request(&request), card.clone());
    assert!(matches!(
        within(bench.device.send_raw(&first)).await,
        Ok(Answer::Receipt { .. })
    ));
    request.order_id = "T-2".into();
    let other = pay(bench.identity.sign_request(&request), card);
    match within(bench.device.send_raw(&other)).await {
        Ok(Answer::Refused { refusal }) => assert_eq!(refusal.code, RefusalCode::PaymentIdConflict),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_refusal_ends_pay_at_once() {
    let bench = Bench::start().await;
    let payment = bench.device.next_payment(sale(0));
    assert!(matches!(
        within(bench.device.pay(&payment)).await,
        Err(PayError::Refused(refusal)) if refusal.code == RefusalCode::AmountZero
    ));
}
