use std::sync::atomic::{AtomicU64, Ordering};

use hub_core::admission::Access;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{ALPN_ENROL, Answer, EnrolmentCode, Request, cbor, frame};
use hub_sdk::SdkError;

use super::*;

async fn present(code: &EnrolmentCode, identity: &DeviceIdentity) -> Result<Enrolled, SdkError> {
    within(hub_sdk::enrol(
        identity,
        code,
        DeviceClass::Softpos,
        "Caisse 2",
        "Test 1",
    ))
    .await
}

fn code_of(result: Result<Enrolled, SdkError>) -> RefusalCode {
    match result {
        Err(SdkError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

fn identity() -> DeviceIdentity {
    DeviceIdentity::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_code_enrols_one_device_with_both_its_keys() {
    let hub = FakeHub::start();
    assert_eq!(hub.devices.enrol_addr(), None);
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    assert!(hub.devices.enrol_addr().is_some());
    // As a technician carries it.
    let code: EnrolmentCode = code.to_string().parse().unwrap();
    let first = identity();
    let enrolled = present(&code, &first).await.unwrap();
    assert_eq!(enrolled.hub, hub.devices.hub_id());
    assert_eq!(enrolled.addresses, [hub.devices.local_addr()]);
    let list = hub.devices.registry().list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].device, first.device_id());
    assert_eq!(list[0].verifying_key, first.signing_key().verifying_key());
    // Used twice: by the same device, whose answer may have been lost; by another.
    assert_eq!(present(&code, &first).await.unwrap(), enrolled);
    assert_eq!(
        code_of(present(&code, &identity()).await),
        RefusalCode::EnrolmentUnknown
    );
    // What was learnt outlives the app.
    let dir = tempfile::tempdir().unwrap();
    enrolled.save(dir.path()).unwrap();
    assert_eq!(Enrolled::load(dir.path()).unwrap(), enrolled);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_device_is_of_the_class_its_code_was_made_for_whatever_it_says() {
    let hub = FakeHub::start();
    let code = hub
        .devices
        .issue_code(hub_protocol::DeviceClass::Softpos)
        .unwrap();
    let claims = hub_protocol::DeviceClass::Terminal;
    let enrolled = hub_sdk::enrol(&identity(), &code, claims, "Caisse 1", "test")
        .await
        .unwrap();
    assert_eq!(enrolled.registration.class, hub_protocol::DeviceClass::Softpos);
    assert_eq!(
        hub.devices.registry().list()[0].class,
        hub_protocol::DeviceClass::Softpos
    );
}

/// The bytes of an enrolment with this code, for the wire.
fn enrolment(code: &EnrolmentCode, identity: &DeviceIdentity) -> Vec<u8> {
    let request = hub_protocol::EnrolmentRequest {
        token: code.token,
        hub: code.hub,
        device: identity.device_id(),
        signing_key: identity.signing_key().verifying_key().to_bytes(),
        class: DeviceClass::Mpos,
        name: "Caisse 2".into(),
        model: "Test 1".into(),
    };
    let request = cose::sign(
        identity.signing_key(),
        ObjectType::Enrolment,
        &cbor::encode(&request),
    );
    frame::to_wire(&Request::Enrol { request })
}

/// What the hub answers to an enrolment that comes from this address.
pub(super) async fn present_from(from: [u8; 4], hub: &FakeHub, code: &EnrolmentCode) -> Answer {
    let identity = identity();
    let to = hub.devices.enrol_addr().unwrap();
    let connection = raw::connect_from(from, to, Some(&identity), ALPN_ENROL)
        .await
        .unwrap();
    raw::answer(&connection, &enrolment(code, &identity))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_tokens_shuts_out_its_own_address_and_voids_nobodys_code() {
    const GUEST: [u8; 4] = [127, 0, 0, 9];
    let hub = FakeHub::start();
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let wrong = EnrolmentCode {
        token: [0; 16],
        ..code.clone()
    };
    let refused = |answer: Answer| match answer {
        Answer::Refused { refusal } => refusal.code,
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        let answer = present_from(GUEST, &hub, &wrong).await;
        assert_eq!(refused(answer), RefusalCode::EnrolmentUnknown);
    }
    for code in [&wrong, &code] {
        let answer = present_from(GUEST, &hub, code).await;
        assert_eq!(refused(answer), RefusalCode::Busy, "not even looked at");
    }
    assert_eq!(hub.devices.bounds_reached()["enrolment-tries"], 2);
    assert_eq!(hub.asked(), 0);
    present(&code, &identity()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_shut_out_for_guessing_has_no_more_requests_on_its_connection() {
    let hub = FakeHub::start();
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let (identity, to) = (identity(), hub.devices.enrol_addr().unwrap());
    let connection = raw::dial([127, 0, 0, 9], to, Some(&identity), ALPN_ENROL)
        .await
        .unwrap();
    let wrong = EnrolmentCode {
        token: [0; 16],
        ..code
    };
    let guess = enrolment(&wrong, &identity);
    for _ in 0..3 {
        let refused = raw::ask(&connection, &guess).await;
        assert_eq!(refused, Some(RefusalCode::EnrolmentUnknown));
    }
    let closed = within(connection.closed()).await;
    assert!(matches!(
        closed,
        quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code.into_inner() == u64::from(RefusalCode::Busy.number())
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_enrol_that_sends_in_tiny_pieces_is_closed() {
    let hub = FakeHub::start();
    hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let to = hub.devices.enrol_addr().unwrap();
    let connection = raw::dial([127, 0, 0, 9], to, Some(&identity()), ALPN_ENROL)
        .await
        .unwrap();
    let closed = within(raw::trickle(&connection, 2)).await;
    assert_eq!(closed, (u64::from(RefusalCode::Busy.number()), "busy".to_owned()));
    assert_eq!(hub.devices.bounds_reached()["quic-frames-of-device"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_tokens_void_the_codes_wherever_they_come_from() {
    let hub = FakeHub::start();
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let wrong = EnrolmentCode {
        token: [0; 16],
        ..code.clone()
    };
    for host in 10..15 {
        assert!(matches!(
            present_from([127, 0, 0, host], &hub, &wrong).await,
            Answer::Refused { refusal } if refusal.code == RefusalCode::EnrolmentUnknown
        ));
    }
    match present(&code, &identity()).await {
        // The endpoint may be closed already.
        Err(SdkError::NotReached(_)) => {}
        other => assert_eq!(code_of(other), RefusalCode::EnrolmentUnknown),
    }
    assert_eq!(hub.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_code_is_refused_and_the_endpoint_closes_with_the_last() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let mut settings = settings();
    settings.monotonic_ms = || NOW.load(Ordering::SeqCst);
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let expired = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    NOW.store(599_999, Ordering::SeqCst);
    // Keeps the endpoint open.
    let good = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    NOW.store(600_000, Ordering::SeqCst);
    assert_eq!(
        code_of(present(&expired, &identity()).await),
        RefusalCode::EnrolmentExpired
    );
    present(&good, &identity()).await.unwrap();
    let endpoint = hub.devices.inner.enrolment.endpoint().clone().unwrap();
    NOW.store(2_000_000, Ordering::SeqCst);
    // Ends when the endpoint is closed.
    assert!(within(endpoint.accept()).await.is_none());
    assert_eq!(hub.devices.enrol_addr(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_nothing_is_enrolled_that_the_hub_could_not_write_down() {
    let hub = FakeHub::start();
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let device = identity();
    hub.book.lock().unwrap().refuse_enrolments = Some(RefusalCode::LedgerUnavailable);
    assert_eq!(
        code_of(present(&code, &device).await),
        RefusalCode::LedgerUnavailable
    );
    assert!(hub.devices.registry().list().is_empty());
    // The code was not used up by that.
    hub.book.lock().unwrap().refuse_enrolments = None;
    present(&code, &device).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrolled_with_other_keys_is_refused() {
    let hub = FakeHub::start();
    let device = identity();
    let enrolled = hub.enrol(&device).await;
    hub.book
        .lock()
        .unwrap()
        .registrations
        .get_mut(&device.device_id())
        .unwrap()
        .signing_key = identity().signing_key().verifying_key().to_bytes();
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    assert_eq!(
        code_of(present(&code, &device).await),
        RefusalCode::EnrolledAlready
    );
    // With the same keys it gets its registration again.
    hub.book
        .lock()
        .unwrap()
        .registrations
        .insert(device.device_id(), enrolled.registration.clone());
    assert_eq!(present(&code, &device).await.unwrap(), enrolled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_talks_to_no_hub_but_the_one_of_its_code() {
    let (hub, impostor) = (FakeHub::start(), FakeHub::start());
    let mut code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    code.enrol_addresses = impostor
        .devices
        .issue_code(hub_protocol::DeviceClass::Mpos)
        .unwrap()
        .enrol_addresses;
    assert!(matches!(
        present(&code, &identity()).await,
        Err(SdkError::NotReached(_))
    ));
    assert_eq!(impostor.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_does_not_unblock() {
    let hub = FakeHub::start();
    let device = identity();
    let enrolled = hub.enrol(&device).await;
    hub.devices.apply(&enrolled.registration, Access::Barred);
    let code = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    // The stand-in for the core says "registered"; the block stays.
    present(&code, &device).await.unwrap();
    assert!(hub.devices.registry().list()[0].blocked);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_nothing_keeps_no_place_at_enrolment() {
    let hub = FakeHub::start();
    let code = hub.devices.issue_code(DeviceClass::Mpos).unwrap();
    let to = hub.devices.enrol_addr().unwrap();
    let idle = raw::dial([127, 0, 0, 9], to, Some(&identity()), ALPN_ENROL)
        .await
        .unwrap();
    // Not only once a connection has lasted as long as it may.
    match within(idle.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(&close.reason[..], b"nothing is asked");
        }
        other => panic!("{other:?}"),
    }
    present(&code, &identity()).await.unwrap();
}
