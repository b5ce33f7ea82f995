//! The hub's TLS key gives way to another: who finds the hub, and who is none.

use ed25519_dalek::SigningKey;
use hub_core::admission::Access;
use hub_protocol::{
    ALPN, ALPN_4, ALPN_5, ALPN_ENROL, Digest, HubId, HubKeyChange, HubTlsKeys, Push, Registration,
    SignedKeyChange, frame,
};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, PayError, PushEvent};
use quinn::crypto::HmacKey as _;
use tokio::net::UdpSocket;

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
        registry.apply(&registration, Access::Granted);
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

/// The signing key of the tests and the one after it.
fn next_signing_key(hub: HubId) -> (SigningKey, SignedKeyChange) {
    let (old, new) = (
        SigningKey::from_bytes(&[42; 32]),
        SigningKey::from_bytes(&[43; 32]),
    );
    let change = HubKeyChange {
        hub,
        number: 1,
        old_key: old.verifying_key().to_bytes(),
        new_key: new.verifying_key().to_bytes(),
        sequence: 5,
        changed_ms: 1,
    };
    (new.clone(), SignedKeyChange(change.sign(&old, &new)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_signing_key_is_followed_by_the_tls_keys_under_the_new_one() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let keys = tls.keys(42, &["second"], Some(tls.stated(2, &["second"])));
    let ring = keys.signing.clone();
    let hub = FakeHub::start_with(settings(), keys, away.registry.clone());
    let enrolled = Enrolled::new(away.registration.clone(), vec![hub.devices.local_addr()]);
    let known = enrolled.hub_keys.clone().unwrap();
    let device = DeviceClient::new(away.identity.clone(), enrolled, options()).unwrap();
    let mut pushes = device.pushes();
    within(device.hello()).await.unwrap();
    assert_eq!(within(pushes.recv()).await.unwrap(), PushEvent::HubTlsKeys(2));
    // One of wire version 4 is told of the signing key alone.
    let older = DeviceIdentity::generate().unwrap();
    hub.enrol(&older).await;
    let line = raw::connect(&hub, Some(&older), ALPN_4).await.unwrap();
    let (new, change) = next_signing_key(tls.hub());
    let mut chain = ring.chain();
    chain.push(&change).unwrap();
    ring.change(new, chain);
    hub.devices.push_key_change(change);
    hub.devices.push_policy(8);
    for expected in [
        PushEvent::HubKey(1),
        PushEvent::HubTlsKeys(2),
        PushEvent::Policy(8),
    ] {
        assert_eq!(within(pushes.recv()).await.unwrap(), expected);
    }
    assert!(known.tls().accepts(&tls.digest("second")));
    assert!(!known.tls().accepts(&tls.digest("first")));
    for number in [203, 202] {
        let mut stream = within(line.accept_uni()).await.unwrap();
        let bytes = within(stream.read_to_end(1024)).await.unwrap();
        let heard = match frame::from_wire(&bytes).unwrap() {
            Push::KeyChanged { .. } => 203,
            Push::Policy { .. } => 202,
            other => panic!("{other:?}"),
        };
        assert_eq!(heard, number);
    }
    within(device.close()).await;
    within(device.hello()).await.unwrap();
}

#[test]
fn ids_and_resets_are_made_with_the_newest_tls_key_from_the_change_on() {
    let tls = TlsKeys::new();
    let token = |tls: &HubTls| {
        let mut token = [0; 32];
        tls.sign(b"an id of a connection", &mut token);
        token
    };
    let alone = |name: &str| token(&tls.keys(42, &[name], Some(tls.stated(9, &[name]))).tls);
    let (first, second) = (alone("first"), alone("second"));
    assert_ne!(first, second);
    let hub = tls.keys(42, &["second", "first"], None).tls;
    assert_eq!(token(&hub), first);
    hub.state(tls.stated(1, &["second", "first"])).unwrap();
    assert_eq!(token(&hub), second, "while two overlap");
    hub.state(tls.stated(2, &["second"])).unwrap();
    assert_eq!(token(&hub), second);
    // Given up instead, the first is the newest again.
    hub.state(tls.stated(3, &["first"])).unwrap();
    assert_eq!(token(&hub), first);
}

/// The device's address, and the hub's id of the connection.
type Seen = Arc<Mutex<Option<(std::net::SocketAddr, [u8; 8])>>>;

/// Between a device and the hub: sees what passes, and can send the device
/// packets that seem to be the hub's.
struct Wiretap {
    address: std::net::SocketAddr,
    inside: Arc<UdpSocket>,
    seen: Seen,
}

impl Wiretap {
    async fn start(hub: std::net::SocketAddr) -> Self {
        let bound = async || Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (inside, outside) = (bound().await, bound().await);
        outside.connect(hub).await.unwrap();
        let seen = Seen::default();
        let (back_in, back_out, back) = (Arc::clone(&inside), Arc::clone(&outside), Arc::clone(&seen));
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok(length) = back_out.recv(&mut packet).await {
                let device = back.lock().unwrap().map(|(device, _)| device);
                if let Some(device) = device {
                    let _ = back_in.send_to(&packet[..length], device).await;
                }
            }
        });
        let (tap_in, tap) = (Arc::clone(&inside), Arc::clone(&seen));
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, device)) = tap_in.recv_from(&mut packet).await {
                // A short header: no more of the handshake.
                let id: [u8; 8] = match packet[0] & 0x80 {
                    0 => packet[1..9].try_into().unwrap(),
                    _ => [0; 8],
                };
                *tap.lock().unwrap() = Some((device, id));
                let _ = outside.send(&packet[..length]).await;
            }
        });
        let address = inside.local_addr().unwrap();
        Self {
            address,
            inside,
            seen,
        }
    }

    /// Sends the device a stateless reset by whoever has this hub's keys.
    async fn reset_by(&self, tls: &HubTls) {
        let (device, id) = self.seen.lock().unwrap().unwrap();
        assert_ne!(id, [0; 8], "connected");
        let mut token = [0; 32];
        tls.sign(&id, &mut token);
        let packet = [&[0x40; 30][..], &token[..16]].concat();
        self.inside.send_to(&packet, device).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_tls_key_from_before_ends_no_connection_made_after_the_change() {
    let tls = TlsKeys::new();
    let away = Away::of(tls.hub());
    let keys = tls.keys(42, &["second", "first"], None);
    let hub = FakeHub::start_with(settings(), keys, away.registry.clone());
    for (number, names) in [(1, &["second", "first"][..]), (2, &["second"])] {
        hub.devices.push_tls_keys(tls.stated(number, names));
    }
    let tap = Wiretap::start(hub.devices.local_addr()).await;
    let enrolled = Enrolled::new(away.registration.clone(), vec![tap.address]);
    let device = DeviceClient::new(away.identity.clone(), enrolled, options()).unwrap();
    within(device.hello()).await.unwrap();
    let stolen = tls.keys(42, &["first"], None).tls;
    let own = tls.keys(42, &["second"], Some(tls.stated(2, &["second"]))).tls;
    let connection = || {
        let sessions = &hub.devices.inner.shared.sessions;
        sessions.connections(&away.identity.device_id())
    };
    let before = connection();
    tap.reset_by(&stolen).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    within(device.hello()).await.unwrap();
    assert_eq!(connection(), before, "the connection is still there");
    // And with the hub's present key it would have been ended.
    tap.reset_by(&own).await;
    within(async {
        while connection() == before {
            let _ = device.hello().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
