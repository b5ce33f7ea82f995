use hub_core::admission::Access;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::WanState;
use hub_protocol::{
    ALPN, ALPN_1, ALPN_2, ALPN_3, Answer, HubKeyChange, PaymentState, Push, Request, SignedKeyChange, Terms,
    TransactionType, WIRE_VERSION, cbor, frame,
};
use hub_sdk::{LinkError, PayError, PreparedPayment, PushEvent, VerifyError};
use quinn::ConnectionError;

use super::*;
use crate::devices::HubFacts;

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_the_same_request_gets_the_same_receipt() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    let payment = device.next_payment(sale(1250));
    let first = within(device.pay(&payment)).await.unwrap();
    let again = within(device.pay(&payment)).await.unwrap();
    assert_eq!(first.receipt, again.receipt);
    assert_eq!(first.receipt.amount_minor, 1250);
    // From storage, after the app was ended.
    let stored = PreparedPayment::from_bytes(&payment.to_bytes()).unwrap();
    assert_eq!(within(device.pay(&stored)).await.unwrap(), first);
    assert_eq!(hub.book.lock().unwrap().payments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_wire_version_1_gets_its_receipt_signed_alone() {
    let hub = FakeHub::start();
    let identity = DeviceIdentity::generate().unwrap();
    let enrolled = hub.enrol(&identity).await;
    let key = cose::verifying_key(&enrolled.registration.hub_signing_key).unwrap();
    let device = DeviceClient::new(identity.clone(), enrolled, options()).unwrap();
    let payment = device.next_payment(sale(1250));
    let committed = within(device.pay(&payment)).await.unwrap();

    let old = raw::connect(&hub, Some(&identity), ALPN_1).await.unwrap();
    let ask = async |request: &Request| raw::answer(&old, &frame::to_wire(request)).await.unwrap();
    let pay = Request::Pay {
        request: payment.signed().to_vec(),
        sealed_card: payment.sealed_card().clone(),
    };
    let Answer::Receipt { receipt: signed } = ask(&pay).await else {
        panic!("a receipt expected");
    };
    let receipt: Receipt = cose::open(&signed, ObjectType::Receipt, &key).unwrap();
    assert_eq!(receipt, committed.receipt);
    let status = Request::Status {
        payment_id: payment.payment_id(),
    };
    match ask(&status).await {
        Answer::Status { receipt, .. } => assert_eq!(receipt, Some(signed)),
        other => panic!("{other:?}"),
    }
    match ask(&Request::Hello { app: "old".into() }).await {
        Answer::Hello { info } => assert_eq!(info.wire_version, 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_with_terms_needs_wire_version_3_and_one_without_does_not() {
    let hub = FakeHub::start();
    let identity = DeviceIdentity::generate().unwrap();
    let enrolled = hub.enrol(&identity).await;
    let device = DeviceClient::new(identity.clone(), enrolled, options()).unwrap();
    let refund = device.next_payment(Sale {
        terms: Some(Terms::of(TransactionType::Refund)),
        ..sale(1250)
    });
    let plain = device.next_payment(sale(1300));
    let receipt = within(device.pay(&refund)).await.unwrap().receipt;
    assert_eq!(receipt.transaction_type, Some(TransactionType::Refund));

    let pay = |payment: &PreparedPayment| {
        frame::to_wire(&Request::Pay {
            request: payment.signed().to_vec(),
            sealed_card: payment.sealed_card().clone(),
        })
    };
    for alpn in [ALPN_1, ALPN_2] {
        let old = raw::connect(&hub, Some(&identity), alpn).await.unwrap();
        let Some(Answer::Receipt { .. }) = raw::answer(&old, &pay(&plain)).await else {
            panic!("what was signed before an update is asked for after it");
        };
        // As a hub of that version says: it checks another type's signature.
        match raw::answer(&old, &pay(&refund)).await {
            Some(Answer::Refused { refusal }) => assert_eq!(refusal.code, RefusalCode::SignatureBad),
            other => panic!("{other:?}"),
        }
    }
    // Terms under the signature of a request without.
    let signed = cose::sign(
        identity.signing_key(),
        ObjectType::PaymentRequest,
        &cbor::encode(refund.request()),
    );
    for (alpn, expected) in [
        (ALPN_2, RefusalCode::NotCanonical),
        (ALPN, RefusalCode::SignatureBad),
    ] {
        let line = raw::connect(&hub, Some(&identity), alpn).await.unwrap();
        let pay = frame::to_wire(&Request::Pay {
            request: signed.clone(),
            sealed_card: refund.sealed_card().clone(),
        });
        match raw::answer(&line, &pay).await {
            Some(Answer::Refused { refusal }) => assert_eq!(refusal.code, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_a_card_without_its_envelope_is_refused_from_version_4_on_unless_the_payment_is_known() {
    let hub = FakeHub::start();
    let identity = DeviceIdentity::generate().unwrap();
    let enrolled = hub.enrol(&identity).await;
    let device = DeviceClient::new(identity.clone(), enrolled, options()).unwrap();
    let bare = |amount| {
        device.next_payment(Sale {
            sealed_card: hub_sdk::CardData::blob(vec![7; 100]),
            ..sale(amount)
        })
    };
    let (first, second) = (bare(1250), bare(1300));
    let pay = |payment: &PreparedPayment| {
        frame::to_wire(&Request::Pay {
            request: payment.signed().to_vec(),
            sealed_card: payment.sealed_card().clone(),
        })
    };
    let (old, new) = (
        raw::connect(&hub, Some(&identity), ALPN_3).await.unwrap(),
        raw::connect(&hub, Some(&identity), ALPN).await.unwrap(),
    );
    for payment in [&first, &second] {
        match raw::answer(&new, &pay(payment)).await {
            Some(Answer::Refused { refusal }) => assert_eq!(refusal.code, RefusalCode::CardEnvelope),
            other => panic!("{other:?}"),
        }
    }
    assert!(hub.book.lock().unwrap().payments.is_empty());
    let Some(Answer::Receipt { receipt: before }) = raw::answer(&old, &pay(&first)).await else {
        panic!("a hub goes on taking what it took");
    };
    // The device was updated before it had the answer.
    let Some(Answer::Receipt { receipt: after }) = raw::answer(&new, &pay(&first)).await else {
        panic!("a payment that is known keeps its answer");
    };
    let content = |receipt: &[u8]| {
        cbor::decode::<hub_protocol::CommittedReceipt>(receipt)
            .unwrap()
            .receipt
    };
    assert_eq!(content(&before), content(&after));
    // The SDK finds the connection that takes it by itself.
    within(device.hello()).await.unwrap();
    within(device.pay(&second)).await.unwrap();
    assert_eq!(within(device.hello()).await.unwrap().wire_version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_a_receipt_without_its_proof_does_not_leave_the_hub() {
    let hub = FakeHub::start();
    let device = hub.known();
    let payment = device.next_payment(sale(10));
    hub.book.lock().unwrap().durable = 0;
    let error = within(device.pay_once(&payment)).await.unwrap_err();
    assert_eq!(error.refusal_code(), Some(RefusalCode::TimedOut));
    hub.book.lock().unwrap().durable = 1;
    within(device.pay_once(&payment)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_status_and_void_are_answered() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    hub.devices.set_facts(HubFacts {
        policy_version: 7,
        wan: WanState::Degraded,
    });
    let info = within(device.hello()).await.unwrap();
    assert_eq!(info.store, "Épicerie du Port");
    assert_eq!((info.wire_version, info.policy_version), (WIRE_VERSION, 7));
    assert_eq!(info.wan, WanState::Degraded);

    let payment = device.next_payment(sale(100));
    let unknown = within(device.status(payment.payment_id())).await.unwrap_err();
    assert_eq!(unknown.refusal_code(), Some(RefusalCode::PaymentUnknown));
    let receipt = within(device.pay(&payment)).await.unwrap();
    let (status, with) = within(device.status(payment.payment_id())).await.unwrap();
    assert_eq!(status.status.state, PaymentState::Queued);
    assert_eq!(with, Some(receipt));
    let voided = within(device.void(payment.payment_id())).await.unwrap();
    assert_eq!(voided.status.state, PaymentState::Voided);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_device_that_was_never_enrolled_fails_the_handshake() {
    let hub = FakeHub::start();
    let stranger = hub.stranger();
    let payment = stranger.next_payment(sale(100));
    assert!(matches!(
        within(stranger.pay(&payment)).await,
        Err(PayError::NotAllowed)
    ));
    assert_eq!(hub.asked(), 0);
    assert!(hub.devices.connected().is_empty());
    // By the handshake already: the session behind it would refuse it too.
    failed_handshakes(&hub, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_blocked_device_is_cut_off_at_once_and_returns_only_unblocked() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    let registration = device.enrolled().registration.clone();
    within(device.hello()).await.unwrap();

    // A payment is under way while the device is blocked.
    hub.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(100));
    let (client, asked) = (device.clone(), payment.clone());
    let under_way = tokio::spawn(async move { client.pay(&asked).await });
    hub.wait_asked(2).await;
    hub.devices.apply(&registration, Access::Barred);
    assert!(matches!(
        within(under_way).await.unwrap(),
        Err(PayError::NotAllowed)
    ));
    assert!(hub.devices.connected().is_empty());
    assert!(matches!(within(device.hello()).await, Err(PayError::NotAllowed)));
    assert!(hub.devices.registry().list()[0].blocked);

    hub.devices.apply(&registration, Access::Granted);
    within(device.pay(&payment)).await.unwrap();

    // Nor does one stay that asks for nothing, and so is refused nothing.
    let identity = DeviceIdentity::generate().unwrap();
    let silent = hub.enrol(&identity).await;
    let connection = raw::connect(&hub, Some(&identity), ALPN).await.unwrap();
    hub.devices.apply(&silent.registration, Access::Barred);
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            let code = RefusalCode::DeviceNotAllowed.number();
            assert_eq!(close.error_code, u32::from(code).into());
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cut_off_in_the_middle_of_a_payment_gets_the_one_answer() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    within(device.hello()).await.unwrap();
    hub.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(999));
    let (client, asked) = (device.clone(), payment.clone());
    let paying = tokio::spawn(async move { client.pay(&asked).await });
    hub.wait_asked(2).await;
    hub.devices.close(&device.device_id());
    let receipt = within(paying).await.unwrap().unwrap();
    assert_eq!(receipt.receipt.amount_minor, 999);
    let book = hub.book.lock().unwrap();
    assert_eq!(book.payments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_hold_is_no_answer() {
    let hub = FakeHub::start();
    let device = hub.known();
    let payment = device.next_payment(sale(10));
    within(device.pay(&payment)).await.unwrap();
    let right = {
        let mut book = hub.book.lock().unwrap();
        let (_, receipt) = book.payments.get_mut(&payment.payment_id()).unwrap();
        std::mem::replace(&mut receipt.amount_minor, 11)
    };
    let error = within(device.pay_once(&payment)).await.unwrap_err();
    assert!(matches!(
        error,
        PayError::Unverifiable(VerifyError::Differs("the amount"))
    ));
    // Nothing is known, so it is asked again until something is.
    let (client, asked) = (device.clone(), payment.clone());
    let paying = tokio::spawn(async move { client.pay(&asked).await });
    hub.wait_asked(4).await;
    hub.book
        .lock()
        .unwrap()
        .payments
        .get_mut(&payment.payment_id())
        .unwrap()
        .1
        .amount_minor = right;
    assert_eq!(within(paying).await.unwrap().unwrap().receipt.amount_minor, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_hub_owes_is_dropped_when_the_device_goes_away() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    hub.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(10));
    let (client, asked) = (device.clone(), payment.clone());
    let paying = tokio::spawn(async move { client.pay_once(&asked).await });
    hub.wait_asked(2).await;
    device.close().await;
    paying.abort();
    // The request's task ends although the core never answers.
    within(hub.devices.inner.shared.idle()).await;
}

#[test]
fn a_device_learns_at_once_that_the_hub_was_killed_and_is_back() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (keys, before, after) = (keys(), runtime(), runtime());
    let first = before.block_on(async { FakeHub::start_with(settings(), keys.clone(), Registry::default()) });
    let device = first.known();
    after.block_on(async { within(device.hello()).await.unwrap() });
    first.book.lock().unwrap().swallow = 1;
    let payment = device.next_payment(sale(10));
    let (client, asked) = (device.clone(), payment.clone());
    let paying = after.spawn(async move { client.pay_once(&asked).await });
    after.block_on(first.wait_asked(1));

    // Killed: nothing says goodbye. Then back, on the same port.
    let mut settings = settings();
    settings.listen = first.devices.local_addr();
    let registry = first.devices.registry().clone();
    before.shutdown_background();
    drop(first);
    let second = after.block_on(async {
        loop {
            // Until the old process's socket is gone.
            let free = std::net::UdpSocket::bind(settings.listen).is_ok();
            if free {
                break FakeHub::start_with(settings, keys, registry);
            }
            tokio::task::yield_now().await;
        }
    });
    // The stateless reset, and not the idle timeout.
    let error = after.block_on(within(paying)).unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            PayError::NoAnswer(LinkError::Connection(ConnectionError::Reset))
        ),
        "{error:?}"
    );
    after.block_on(async { within(device.pay(&payment)).await.unwrap() });
    assert_eq!(second.book.lock().unwrap().payments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_reach_the_device_signed() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    let mut pushes = device.pushes();
    within(device.hello()).await.unwrap();
    let settled = status(hub.devices.hub_id(), PaymentId([1; 16]), PaymentState::Settled);
    assert!(hub.devices.push_status(&device.device_id(), settled.clone()));
    assert_eq!(
        within(pushes.recv()).await.unwrap(),
        PushEvent::Status(settled.clone())
    );
    hub.devices.push_policy(8);
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::Policy(8));
    assert_eq!(within(device.hello()).await.unwrap().policy_version, 8);
    // Nobody is told who is not there.
    assert!(!hub.devices.push_status(&DeviceId([0; 32]), settled));
}

/// The hub's key and the one after it, as the statement says.
fn key_change(hub: &FakeHub) -> SignedKeyChange {
    let (old, new) = (
        SigningKey::from_bytes(&[42; 32]),
        SigningKey::from_bytes(&[43; 32]),
    );
    let change = HubKeyChange {
        hub: hub.devices.hub_id(),
        number: 1,
        old_key: old.verifying_key().to_bytes(),
        new_key: new.verifying_key().to_bytes(),
        sequence: 5,
        changed_ms: 1,
    };
    SignedKeyChange(change.sign(&old, &new))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_reaches_connected_devices_of_wire_version_4_only() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    let mut pushes = device.pushes();
    within(device.hello()).await.unwrap();
    let old = DeviceIdentity::generate().unwrap();
    hub.enrol(&old).await;
    let connection = raw::connect(&hub, Some(&old), ALPN_3).await.unwrap();
    hub.devices.push_key_change(key_change(&hub));
    hub.devices.push_policy(8);
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::HubKey(1));
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::Policy(8));
    // Pushes come in order: what the old device hears first is the policy.
    let mut stream = within(connection.accept_uni()).await.unwrap();
    let bytes = within(stream.read_to_end(1024)).await.unwrap();
    assert_eq!(frame::from_wire(&bytes), Ok(Push::Policy { version: 8 }));
    let asked = frame::to_wire(&Request::Keys { known: 0 });
    let refused = raw::ask(&connection, &asked).await;
    assert_eq!(refused, Some(RefusalCode::UnknownFrame));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_connection_of_a_device_closes_its_oldest() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    let identity = DeviceIdentity::generate().unwrap();
    let enrolled = hub.enrol(&identity).await;
    drop(device);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = DeviceClient::new(identity.clone(), enrolled.clone(), options()).unwrap();
        within(client.hello()).await.unwrap();
        clients.push(client);
    }
    let sessions = &hub.devices.inner.shared.sessions;
    assert_eq!(sessions.connections(&identity.device_id()).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_stops_answers_what_it_was_asked_and_refuses_the_rest() {
    let hub = FakeHub::start();
    let device = hub.device().await;
    within(device.hello()).await.unwrap();
    within(hub.devices.stop()).await;
    let payment = device.next_payment(sale(10));
    assert!(matches!(
        within(device.pay_once(&payment)).await,
        Err(PayError::NoAnswer(_))
    ));
    assert!(hub.devices.issue_code(hub_protocol::DeviceClass::Mpos).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_devices_pay_at_once() {
    let hub = FakeHub::start();
    let mut paying = tokio::task::JoinSet::new();
    for client in (0..64).map(|_| hub.known()) {
        paying.spawn(async move {
            for amount in 1..=4 {
                let payment = client.next_payment(sale(amount));
                client.pay(&payment).await.unwrap();
            }
        });
    }
    within(async { while paying.join_next().await.transpose().unwrap().is_some() {} }).await;
    assert_eq!(hub.book.lock().unwrap().payments.len(), 256);
}
