//! The hub's TLS key gives way to another: who finds the hub, and who is none.

use ed25519_dalek::SigningKey;
use hub_protocol::{ALPN, ALPN_4, ALPN_5, ALPN_ENROL, Digest, HubId, HubTlsKeys, Registration};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, PayError, PushEvent};

use super::*;

const NAME: HubId = HubId([5; 32]);

/// A hub's TLS keys, by name.
struct TlsKeys(HashMap<&'static str, HubIdentity>);

impl TlsKeys {
    fn new() -> Self {
        let names = ["first", "second", "third"];
        Self(
            names
                .map(|name| (name, HubIdentity::from_pem(&pem()).unwrap()))
                .into(),
        )
    }

    fn hub(&self) -> HubId {
        HubId(self.digest("first").0)
    }

    fn digest(&self, name: &str) -> Digest {
        self.0[name].digest()
    }

    fn stated(&self, number: u32, names: &[&str]) -> HubTlsKeys {
        HubTlsKeys {
            hub: self.hub(),
            number,
            keys: names.iter().map(|name| self.digest(name)).collect(),
            sequence: 1,
            changed_ms: 1,
        }
    }

    /// What a hub has that holds these private keys.
    fn keys(&self, signing: u8, held: &[&str], stated: Option<HubTlsKeys>) -> Keys {
        let signing = KeyRing::first(self.hub(), SigningKey::from_bytes(&[signing; 32]));
        let held = held.iter().map(|name| self.0[name].clone()).collect();
        Keys {
            tls: HubTls::new(self.hub(), signing.clone(), held, stated).unwrap(),
            signing,
        }
    }
}

/// A device that was enrolled under the first key, and has been away since.
struct Away {
    identity: DeviceIdentity,
    registration: Registration,
    registry: Registry,
    dir: tempfile::TempDir,
}

impl Away {
    fn of(hub: HubId) -> Self {
        let identity = DeviceIdentity::generate().unwrap();
        let registration = Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: DeviceClass::Mpos,
            name: "Caisse 9".into(),
            model: "Test 1".into(),
            hub,
            hub_signing_key: SigningKey::from_bytes(&[42; 32]).verifying_key().to_bytes(),
            enrolled_ms: 1,
        };
        let registry = Registry::default();
        registry.apply(&registration, false);
        let dir = tempfile::tempdir().unwrap();
        Enrolled::new(registration.clone(), Vec::new())
            .save(dir.path())
            .unwrap();
        Self {
            identity,
            registration,
            registry,
            dir,
        }
    }

    /// Whether it takes this for its hub, by what it has on its disk.
    async fn finds(&self, keys: Keys) -> bool {
        let hub = FakeHub::start_with(settings(), keys, self.registry.clone());
        let enrolled = Enrolled::load(self.dir.path()).unwrap();
        let options = ClientOptions {
            static_addresses: vec![hub.devices.local_addr()],
            give_up_after: Duration::from_millis(400),
            ..ClientOptions::default()
        };
        let device = DeviceClient::new(self.identity.clone(), enrolled, options).unwrap();
        let payment = device.next_payment(sale(10));
        match within(device.pay(&payment)).await {
            Ok(_) => true,
            Err(PayError::GaveUp { .. }) => {
                assert_eq!(hub.asked(), 0, "nothing was sent to it");
                assert_eq!(hub.devices.connected(), [], "it was not even connected to");
                false
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_finds_its_hub_after_any_number_of_changes_of_the_tls_key() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    assert!(away.finds(tls.keys(42, &["first"], None)).await);
    for (number, names) in [(1, &["second", "first"][..]), (4, &["third"])] {
        let keys = tls.keys(42, names, Some(tls.stated(number, names)));
        assert!(away.finds(keys).await, "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_tls_key_that_has_given_way_is_no_hub_to_a_device_that_followed() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let after = || tls.keys(42, &["second"], Some(tls.stated(2, &["second"])));
    assert!(away.finds(after()).await);
    // The key alone, and with everything that was ever stated of it.
    let stolen = tls.keys(42, &["first"], None);
    assert!(!away.finds(stolen).await);
    let overlap = tls.stated(1, &["second", "first"]);
    assert!(!away.finds(tls.keys(42, &["first"], Some(overlap))).await);
    assert!(away.finds(after()).await, "the hub itself is found as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_key_is_taken_on_the_word_of_the_hubs_signing_key_alone() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let unknown = tls.keys(9, &["second"], Some(tls.stated(1, &["second"])));
    assert!(!away.finds(unknown).await, "signed by a stranger");
    // Another hub, signed by the right key: head office gave both the same.
    let other = HubTlsKeys {
        hub: NAME,
        ..tls.stated(1, &["second"])
    };
    assert!(
        !away.finds(tls.keys(42, &["second"], Some(other))).await,
        "another hub's"
    );
    // A statement is no word on a key that it does not list.
    let mut keys = tls.keys(42, &["third"], Some(tls.stated(1, &["third"])));
    let listed = tls.keys(42, &["second"], Some(tls.stated(2, &["second"])));
    keys.tls = keys.tls.saying_of(&listed.tls);
    assert!(!away.finds(keys).await, "of another key");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_two_tls_keys_overlap_each_device_is_shown_the_one_that_it_can_know() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let names = ["second", "first"];
    let keys = tls.keys(42, &names, Some(tls.stated(1, &names)));
    let hub = FakeHub::start_with(settings(), keys, away.registry.clone());
    let code = hub.devices.issue_code(DeviceClass::Mpos).unwrap();
    assert_eq!((code.hub, code.pin()), (tls.hub(), tls.digest("first")));
    let (pay, enrol) = (hub.devices.local_addr(), hub.devices.enrol_addr().unwrap());
    for (to, alpn, name) in [
        (pay, ALPN, "second"),
        (pay, ALPN_5, "second"),
        (pay, ALPN_4, "first"),
        (enrol, ALPN_ENROL, "first"),
    ] {
        let shown = raw::shown_key(to, &away.identity, alpn).await;
        assert_eq!(shown, tls.digest(name), "{}", String::from_utf8_lossy(alpn));
    }
    hub.devices.push_tls_keys(tls.stated(2, &["second"]));
    let code = hub.devices.issue_code(DeviceClass::Mpos).unwrap();
    assert_eq!(code.pin(), tls.digest("second"));
    for (to, alpn) in [(pay, ALPN), (pay, ALPN_4), (enrol, ALPN_ENROL)] {
        let shown = raw::shown_key(to, &away.identity, alpn).await;
        assert_eq!(shown, tls.digest("second"));
    }
    // And whoever enrols by that code follows from its first payment on.
    let identity = DeviceIdentity::generate().unwrap();
    let enrolled = hub.enrol(&identity).await;
    assert_eq!(enrolled.hub, tls.hub(), "the name stays");
    let device = DeviceClient::new(identity, enrolled, options()).unwrap();
    let payment = device.next_payment(sale(10));
    within(device.pay(&payment)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_device_is_told_of_another_tls_key_and_the_hub_knows_that_it_was() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let keys = tls.keys(42, &["second", "first"], None);
    let hub = FakeHub::start_with(settings(), keys, away.registry.clone());
    let enrolled = Enrolled::new(away.registration.clone(), vec![hub.devices.local_addr()]);
    let known = enrolled.hub_keys.clone().unwrap();
    let device = DeviceClient::new(away.identity.clone(), enrolled, options()).unwrap();
    let mut pushes = device.pushes();
    within(device.hello()).await.unwrap();
    let old = raw::connect(&hub, Some(&away.identity), ALPN_4).await.unwrap();
    let heard = |hub: &FakeHub| hub.devices.heard()[&away.identity.device_id()];
    assert_eq!((heard(&hub).wire, heard(&hub).tls_keys), (6, 0));
    drop(old);
    within(device.close()).await;
    within(device.hello()).await.unwrap();
    hub.devices.push_tls_keys(tls.stated(1, &["second", "first"]));
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::HubTlsKeys(1));
    assert!(known.tls().accepts(&tls.digest("second")));
    let told = async {
        while heard(&hub).tls_keys != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(told).await;
    // The connection outlives the old key.
    hub.devices.push_tls_keys(tls.stated(2, &["second"]));
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::HubTlsKeys(2));
    within(device.hello()).await.unwrap();
    assert!(!known.tls().accepts(&tls.digest("first")));
}
