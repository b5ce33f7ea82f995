use hub_core::admission::FleetToken;
use hub_protocol::{ALPN, ALPN_2, ALPN_3, Digest, EnrolmentCode, Request, frame};

use super::*;

async fn present(code: &EnrolmentCode) -> Result<Enrolled, hub_sdk::SdkError> {
    let identity = DeviceIdentity::generate().unwrap();
    within(hub_sdk::enrol(
        &identity,
        code,
        DeviceClass::Softpos,
        "Caisse 2",
        "Test 1",
    ))
    .await
}

fn token(code: &EnrolmentCode) -> FleetToken {
    FleetToken {
        token: Digest::of(&code.token),
        class: hub_protocol::DeviceClass::Mpos,
        most: 40,
        used: 0,
        expires_ms: u64::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_void_one_time_codes_and_no_fleets_token() {
    let hub = FakeHub::start();
    let fleet = hub.devices.fleet_code().unwrap();
    hub.devices.set_fleet_tokens(vec![token(&fleet)]);
    let once = hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
    let wrong = EnrolmentCode {
        token: [0; 16],
        ..once.clone()
    };
    for host in 20..25 {
        let refused = super::enrolment::present_from([127, 0, 0, host], &hub, &wrong).await;
        assert!(matches!(refused, hub_protocol::Answer::Refused { .. }));
    }
    assert_eq!(hub.asked(), 0);
    assert!(present(&once).await.is_err(), "void");
    for _ in 0..3 {
        present(&fleet).await.unwrap();
    }
    // Withdrawn: the endpoint has nothing to wait for.
    let endpoint = hub.devices.inner.enrolment.endpoint().clone().unwrap();
    hub.devices.set_fleet_tokens(Vec::new());
    assert!(within(endpoint.accept()).await.is_none());
    assert_eq!(hub.devices.enrol_addr(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_requests_come_in_turns_from_two_addresses_is_told_of() {
    let hub = FakeHub::start();
    let identity = DeviceIdentity::generate().unwrap();
    hub.enrol(&identity).await;
    let to = hub.devices.local_addr();
    let mut connections = Vec::new();
    for host in [31, 32] {
        let from = [127, 0, 0, host];
        connections.push(raw::connect_from(from, to, Some(&identity), ALPN).await.unwrap());
    }
    let hello = frame::to_wire(&Request::Hello { app: "test".into() });
    // Each has asked once while it connected.
    for turn in 0..3 {
        assert!(
            hub.book.lock().unwrap().two_places.is_empty(),
            "at the third return"
        );
        raw::answer(&connections[turn % 2], &hello).await.unwrap();
    }
    within(async {
        while hub.book.lock().unwrap().two_places.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(hub.book.lock().unwrap().two_places, [identity.device_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_device_is_told_so_by_a_number_that_its_wire_version_has() {
    let hub = FakeHub::start();
    let identity = DeviceIdentity::generate().unwrap();
    hub.enrol(&identity).await;
    hub.book.lock().unwrap().pending = true;
    let payment_id = PaymentId([1; 16]);
    let status = frame::to_wire(&Request::Status { payment_id });
    for (alpn, expected) in [
        (ALPN, RefusalCode::DevicePending),
        (ALPN_3, RefusalCode::DeviceNotAllowed),
        (ALPN_2, RefusalCode::DeviceNotAllowed),
    ] {
        let to = hub.devices.local_addr();
        let connection = raw::connect_from([127, 0, 0, 1], to, Some(&identity), alpn)
            .await
            .unwrap();
        assert_eq!(raw::ask(&connection, &status).await, Some(expected));
    }
}
