//! A device changes its keys: what the old ones are still good for.

use hub_core::device_keys::{DeviceKeys, KeysBefore};
use hub_protocol::{ALPN, ALPN_4, Request, VoidRequest, frame};
use hub_sdk::{PayError, PreparedPayment};

use super::*;

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
        hub.devices.apply(&registration, false);
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
    hub.devices.apply(&device.enrolled.registration, true);
    assert!(raw::connect(&hub, Some(&device.old), ALPN).await.is_none());
}
