//! A device changes its keys: what the old ones are still good for.

use hub_core::admission::Access;
use hub_core::device_keys::{DeviceKeys, KeysBefore};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{ALPN, ALPN_4, ALPN_5, DeviceKeyChange, Request, VoidRequest, cbor, frame};
use hub_sdk::{PayError, PreparedPayment};
use quinn::{Connection, ConnectionError};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::*;
use crate::devices::door::Door;
use crate::devices::tls::Admit;
use crate::devices::{listener, session};

/// A device with its folder, before and after.
struct Changed {
    dir: tempfile::TempDir,
    old: DeviceIdentity,
    enrolled: Enrolled,
    client: DeviceClient,
}

impl Changed {
    /// Enrolled, with keys that have not changed yet.
    async fn before(hub: &FakeHub) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let old = DeviceIdentity::generate().unwrap();
        old.save(dir.path()).unwrap();
        let enrolled = hub.enrol(&old).await;
        let client = DeviceClient::new(old.clone(), enrolled.clone(), options()).unwrap();
        Self {
            dir,
            old,
            enrolled,
            client,
        }
    }

    /// Has the device change its keys, and the core take note of it.
    async fn change(&mut self, hub: &FakeHub) -> DeviceIdentity {
        let last_sequence = self.client.next_sequence() - 1;
        self.client = within(self.client.rotate_keys(self.dir.path())).await.unwrap();
        let new = DeviceIdentity::load(self.dir.path()).unwrap();
        assert_eq!(new.device_id(), self.old.device_id(), "the same device");
        assert_ne!(new.signing_key(), self.old.signing_key());
        hub.devices
            .apply_keys(new.device_id(), self.keys(&new, last_sequence, false));
        let mut registration = self.enrolled.registration.clone();
        registration.signing_key = new.signing_key().verifying_key().to_bytes();
        hub.devices.apply(&registration, Access::Granted);
        new
    }

    fn keys(&self, new: &DeviceIdentity, last_sequence: u64, settled: bool) -> DeviceKeys {
        DeviceKeys {
            number: 1,
            tls: new.tls_digest(),
            before: vec![KeysBefore {
                tls: self.old.tls_digest(),
                signing_key: self.old.signing_key().verifying_key().to_bytes(),
                last_sequence,
            }],
            settled,
            old_used_ms: None,
        }
    }

    /// A client with the keys from before, as a copy has them.
    fn copy(&self) -> DeviceClient {
        let options = ClientOptions {
            give_up_after: Duration::from_secs(5),
            ..options()
        };
        DeviceClient::new(self.old.clone(), self.enrolled.clone(), options).unwrap()
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, PayError>) -> Option<RefusalCode> {
    outcome.unwrap_err().refusal_code()
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_what_the_old_key_signed_before_the_change_counts_and_what_it_signs_later_does_not() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    let queued = device.client.next_payment(sale(10));
    let last = queued.request().device_sequence;
    device.change(&hub).await;
    let receipt = within(device.client.pay(&queued)).await.unwrap().receipt;
    let again = within(device.client.pay(&queued)).await.unwrap().receipt;
    assert_eq!(receipt, again);
    let later = PreparedPayment::new(&device.old, last + 1, sale(11));
    assert_eq!(
        code(within(device.client.pay(&later)).await),
        Some(RefusalCode::KeysReplaced)
    );
    // The new key goes on, and the counter with it.
    let next = device.client.next_payment(sale(12));
    assert_eq!(next.request().device_sequence, last + 1);
    within(device.client.pay(&next)).await.unwrap();
    assert_eq!(hub.book.lock().unwrap().payments.len(), 2);
    // Voids alike.
    let void = |sequence: u64| {
        let request = device.old.sign_void(&VoidRequest {
            payment_id: queued.payment_id(),
            device_sequence: sequence,
            device_time_ms: 1,
        });
        frame::to_wire(&Request::Void { request })
    };
    let voided = within(device.client.send_raw(&void(last))).await;
    assert!(
        matches!(voided, Ok(hub_protocol::Answer::Status { .. })),
        "{voided:?}"
    );
    let refused = within(device.client.send_raw(&void(last + 1))).await;
    let Ok(hub_protocol::Answer::Refused { refusal }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, RefusalCode::KeysReplaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_tls_key_lets_its_device_ask_for_the_change_again_until_the_new_one_is_used() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    let copy = device.copy();
    let payment = copy.next_payment(sale(10));
    let new = device.change(&hub).await;
    let asked = hub.asked();
    within(copy.hello()).await.unwrap();
    assert_eq!(
        code(within(copy.pay(&payment)).await),
        Some(RefusalCode::KeysReplaced)
    );
    // Nor is anything else answered that no signature of the old key is under.
    let status = frame::to_wire(&Request::Status {
        payment_id: payment.payment_id(),
    });
    let refused = within(copy.send_raw(&status)).await;
    let Ok(hub_protocol::Answer::Refused { refusal }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, RefusalCode::KeysReplaced);
    assert_eq!(hub.asked(), asked, "nothing was decided");
    let twin = tempfile::tempdir().unwrap();
    device.old.save(twin.path()).unwrap();
    within(copy.rotate_keys(twin.path())).await.unwrap();
    assert_eq!(
        hub.asked(),
        asked + 1,
        "the core sees whether it is the same change"
    );
    // The new key is used: the hub hears it, and closes what the old one opened.
    within(device.client.hello()).await.unwrap();
    let used = || hub.book.lock().unwrap().keys_used.clone();
    within(async {
        while used().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(used()[0], (new.device_id(), false));
    within(copy.hello()).await.unwrap();
    hub.devices
        .apply_keys(new.device_id(), device.keys(&new, 0, true));
    assert_eq!(code(within(copy.hello()).await), Some(RefusalCode::KeysReplaced));
    within(device.client.hello()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_keys_that_have_given_way_is_told_so_and_so_is_the_hub() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    let copy = device.copy();
    let payment = copy.next_payment(sale(10));
    let new = device.change(&hub).await;
    hub.devices
        .apply_keys(new.device_id(), device.keys(&new, 0, true));
    within(device.client.hello()).await.unwrap();
    let asked = hub.asked();
    assert_eq!(
        code(within(copy.pay(&payment)).await),
        Some(RefusalCode::KeysReplaced)
    );
    assert_eq!(hub.asked(), asked);
    assert!(
        hub.book
            .lock()
            .unwrap()
            .keys_used
            .contains(&(new.device_id(), true))
    );
    // It takes no place of the device's connections.
    let hello = frame::to_wire(&Request::Hello { app: "copy".into() });
    for (alpn, code) in [
        (ALPN, RefusalCode::KeysReplaced),
        (ALPN_4, RefusalCode::DeviceNotAllowed),
    ] {
        for _ in 0..4 {
            // What `connect` sends first is answered so already.
            let refused = raw::first_answer(&hub, &device.old, alpn, &hello).await;
            assert_eq!(refused, Some(code));
        }
    }
    let sessions = &hub.devices.inner.shared.sessions;
    assert_eq!(sessions.connections(&new.device_id()).len(), 1);
    // Blocked, it is not even told.
    hub.devices.apply(&device.enrolled.registration, Access::Barred);
    assert!(raw::connect(&hub, Some(&device.old), ALPN).await.is_none());
}

/// A thief of keys that were changed because of him does not get the device
/// shut out by sending too much with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_keys_that_have_given_way_shuts_out_itself_and_not_the_device() {
    let settings = Settings {
        requests_per_second: 20,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let mut device = Changed::before(&hub).await;
    let new = device.change(&hub).await;
    hub.devices
        .apply_keys(new.device_id(), device.keys(&new, 0, true));
    within(device.client.hello()).await.unwrap();
    let sessions = &hub.devices.inner.shared.sessions;
    let before = sessions.connections(&new.device_id());
    let to = hub.devices.local_addr();
    let copy = raw::dial([127, 0, 0, 1], to, Some(&device.old), ALPN)
        .await
        .unwrap();
    let closed = within(raw::trickle(&copy, 8)).await;
    assert_eq!(closed.0, u64::from(RefusalCode::Busy.number()));
    let hello = frame::to_wire(&Request::Hello { app: "copy".into() });
    assert_eq!(raw::first_answer(&hub, &device.old, ALPN, &hello).await, None);
    within(device.client.hello()).await.unwrap();
    assert_eq!(sessions.connections(&new.device_id()), before, "not even closed");
    assert!(raw::connect(&hub, Some(&new), ALPN).await.is_some());
}

/// SubjectPublicKeyInfo and private half of a device's TLS key.
fn tls_of(identity: &DeviceIdentity) -> ([u8; 91], EcdsaKeyPair) {
    let dir = tempfile::tempdir().unwrap();
    identity.save(dir.path()).unwrap();
    let pem = std::fs::read_to_string(dir.path().join("device-tls.key")).unwrap();
    let pair = rcgen::KeyPair::from_pem(&pem).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
    let der = pair.serialize_der();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
    (spki.try_into().unwrap(), pair.unwrap())
}

/// Frame 11 of a device that names the TLS key of `named`, whose object
/// `signed_by`'s TLS key has signed; `None`: as in wire version 5.
fn asked(
    hub: &FakeHub,
    device: &DeviceIdentity,
    named: &DeviceIdentity,
    signed_by: Option<&DeviceIdentity>,
) -> Vec<u8> {
    let new = SigningKey::from_bytes(&[77; 32]);
    let change = DeviceKeyChange {
        hub: hub.devices.hub_id(),
        device: device.device_id(),
        number: 1,
        old_key: device.signing_key().verifying_key().to_bytes(),
        new_key: new.verifying_key().to_bytes(),
        last_sequence: 9,
        new_tls_key: tls_of(named).0,
    };
    let change = match signed_by {
        Some(by) => {
            let key = tls_of(by).1;
            let sign = |message: &[u8]| {
                let signature = key.sign(&SystemRandom::new(), message).unwrap();
                Ok::<_, ()>(signature.as_ref().try_into().unwrap())
            };
            change.sign(device.signing_key(), &new, sign).unwrap()
        }
        None => {
            let object = ObjectType::DeviceKeyChange2;
            let by_new = cose::sign(&new, object, &cbor::encode(&change));
            cose::sign(device.signing_key(), object, &by_new)
        }
    };
    frame::to_wire(&Request::ChangeKeys { change })
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_device_does_not_take_the_tls_key_of_one_that_is_to_be_enrolled() {
    let hub = FakeHub::start();
    let squatter = DeviceIdentity::generate().unwrap();
    hub.enrol(&squatter).await;
    let phone = DeviceIdentity::generate().unwrap();
    let line = raw::connect(&hub, Some(&squatter), ALPN).await.unwrap();
    let before = hub.asked();
    for (signed_by, code) in [
        (None, RefusalCode::SignatureMalformed),
        (Some(&squatter), RefusalCode::SignatureBad),
    ] {
        let refused = raw::ask(&line, &asked(&hub, &squatter, &phone, signed_by)).await;
        assert_eq!(refused, Some(code));
    }
    assert_eq!(hub.asked(), before, "the core never hears of it");
    hub.enrol(&phone).await;
    // With the key at hand it is taken, on a connection of wire version 6.
    let next = DeviceIdentity::generate().unwrap();
    let good = asked(&hub, &squatter, &next, Some(&next));
    let older = raw::connect(&hub, Some(&squatter), ALPN_5).await.unwrap();
    assert_eq!(raw::ask(&older, &good).await, Some(RefusalCode::UnknownFrame));
    let taken = raw::answer(&line, &good).await;
    assert!(
        matches!(taken, Some(hub_protocol::Answer::KeysChanged { number: 1 })),
        "{taken:?}"
    );
}

/// Both ends of a connection with this device's key, whose handshake is done
/// and which the hub has not looked at again: the hub's end first.
async fn shaken(hub: &FakeHub, identity: &DeviceIdentity) -> (Connection, Connection) {
    let tls = hub.devices.tls();
    let crypto = tls.crypto(Admit::AnyKey, &[ALPN]).unwrap();
    let config = listener::server_config(crypto, listener::MAX_STREAMS);
    let door = Door::new(listener::bounds(1), || 0, Arc::default());
    let endpoint = listener::bind(tls, config, ([127, 0, 0, 1], 0).into(), &Arc::new(door)).unwrap();
    let accepted = async { endpoint.accept().await.unwrap().await.unwrap() };
    let to = endpoint.local_addr().unwrap();
    let dialled = raw::dial([127, 0, 0, 1], to, Some(identity), ALPN);
    let (ours, theirs) = within(async { tokio::join!(accepted, dialled) }).await;
    (ours, theirs.unwrap())
}

/// With which refusal's number the hub closed a connection.
async fn closed_with(connection: &Connection) -> u64 {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_device_that_is_blocked_between_handshake_and_session_is_cut_off_at_once() {
    let hub = FakeHub::start();
    let device = Changed::before(&hub).await;
    let (ours, theirs) = shaken(&hub, &device.old).await;
    hub.devices.apply(&device.enrolled.registration, Access::Barred);
    let shared = Arc::clone(&hub.devices.inner.shared);
    let whose = (device.old.device_id(), device.old.tls_digest());
    tokio::spawn(session::run(shared, whose, ours));
    let code = u64::from(RefusalCode::DeviceNotAllowed.number());
    assert_eq!(closed_with(&theirs).await, code);
    assert_eq!(hub.devices.connected(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_gives_way_between_handshake_and_session_gets_none() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    let new = device.change(&hub).await;
    within(device.client.hello()).await.unwrap();
    let (ours, theirs) = shaken(&hub, &device.old).await;
    // The new key is used, and what the old one has opened is closed.
    hub.devices
        .apply_keys(new.device_id(), device.keys(&new, 0, true));
    let shared = Arc::clone(&hub.devices.inner.shared);
    let whose = (new.device_id(), device.old.tls_digest());
    tokio::spawn(session::run(shared, whose, ours));
    let hello = frame::to_wire(&Request::Hello { app: "copy".into() });
    assert_eq!(raw::ask(&theirs, &hello).await, Some(RefusalCode::KeysReplaced));
    let code = u64::from(RefusalCode::KeysReplaced.number());
    assert_eq!(closed_with(&theirs).await, code);
    let own = hub.devices.inner.shared.sessions.connections(&new.device_id());
    assert_eq!(own.len(), 1, "the device's own connection stays");
    let mut pushes = device.client.pushes();
    hub.devices.push_policy(9);
    let told = within(pushes.recv()).await.unwrap();
    assert_eq!(told, hub_sdk::PushEvent::Policy(9), "and is told what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_whoever_is_turned_away_is_cut_off_at_once_if_the_device_is_blocked() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    let new = device.change(&hub).await;
    hub.devices
        .apply_keys(new.device_id(), device.keys(&new, 0, true));
    let code = u64::from(RefusalCode::DeviceNotAllowed.number());
    // Blocked while it is waited for what it asks; and right before.
    let to = hub.devices.local_addr();
    let copy = raw::dial([127, 0, 0, 1], to, Some(&device.old), ALPN)
        .await
        .unwrap();
    let told = || {
        hub.book
            .lock()
            .unwrap()
            .keys_used
            .contains(&(new.device_id(), true))
    };
    within(async {
        while !told() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (ours, theirs) = shaken(&hub, &device.old).await;
    hub.devices.apply(&device.enrolled.registration, Access::Barred);
    assert_eq!(closed_with(&copy).await, code);
    let shared = Arc::clone(&hub.devices.inner.shared);
    let whose = (new.device_id(), device.old.tls_digest());
    tokio::spawn(async move { session::turn_away(&shared, whose, &ours).await });
    assert_eq!(closed_with(&theirs).await, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_a_device_that_is_opened_carries_a_cut_off_change_on_or_waits_for_the_hub() {
    let hub = FakeHub::start();
    let mut device = Changed::before(&hub).await;
    // What lay there when the answer was lost.
    let cut = tempfile::tempdir().unwrap();
    device.old.save(cut.path()).unwrap();
    device.enrolled.save(cut.path()).unwrap();
    let new = device.change(&hub).await;
    new.save(&cut.path().join("next")).unwrap();
    let gone = ClientOptions {
        give_up_after: Duration::from_millis(300),
        ..options()
    };
    let nowhere = Enrolled::new(
        device.enrolled.registration.clone(),
        vec![([127, 0, 0, 1], 9).into()],
    );
    nowhere.save(cut.path()).unwrap();
    let waiting = within(DeviceClient::open(cut.path(), gone)).await.unwrap();
    let kept = DeviceIdentity::load(cut.path()).unwrap();
    assert_eq!(kept.signing_key(), device.old.signing_key(), "without an answer");
    assert_eq!(waiting.device_id(), new.device_id());
    assert!(cut.path().join("next").exists());
    device.enrolled.save(cut.path()).unwrap();
    let asked = hub.asked();
    let client = within(DeviceClient::open(cut.path(), options())).await.unwrap();
    assert_eq!(hub.asked(), asked + 1, "the same change, once more");
    let ended = DeviceIdentity::load(cut.path()).unwrap();
    assert_eq!(ended.signing_key(), new.signing_key());
    assert!(!cut.path().join("next").exists());
    within(client.pay(&client.next_payment(sale(10)))).await.unwrap();
    // Where nothing is under way nothing is asked.
    let asked = hub.asked();
    within(DeviceClient::open(cut.path(), options())).await.unwrap();
    assert_eq!(hub.asked(), asked);
}
