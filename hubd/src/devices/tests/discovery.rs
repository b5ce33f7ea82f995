use hub_protocol::DeviceClass;
use hub_sdk::{DiscoveryOptions, advertise, find_hubs};

use super::*;
use crate::devices::discovery::{addresses_for_codes, serves};
use crate::devices::{DiscoverySettings, SeenDevice};

/// Whether a packet to the mDNS group comes back on loopback here; some
/// containers forbid it.
pub(in crate::devices) fn multicast_works() -> bool {
    let try_it = || -> std::io::Result<()> {
        let receiver = std::net::UdpSocket::bind("0.0.0.0:0")?;
        receiver.join_multicast_v4(&[224, 0, 0, 251].into(), &[127, 0, 0, 1].into())?;
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        let sender = std::net::UdpSocket::bind("127.0.0.1:0")?;
        sender.send_to(b"?", ("224.0.0.251", receiver.local_addr()?.port()))?;
        receiver.recv(&mut [0; 8]).map(drop)
    };
    try_it().is_ok()
}

fn on_loopback() -> DiscoveryOptions {
    DiscoveryOptions {
        interfaces: vec!["lo".into()],
        timeout: Duration::from_secs(20),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_and_device_find_each_other_over_mdns() {
    if !multicast_works() {
        eprintln!("skipped: no multicast on loopback here");
        return;
    }
    // Names of our own: whatever else runs here announces on loopback too.
    let keys = keys();
    let store = format!("Épicerie {}", keys.tls.hub_id().short());
    let mut settings = settings();
    settings.store = store.clone();
    settings.discovery = Some(DiscoverySettings {
        interfaces: vec!["lo".into()],
    });
    let hub = FakeHub::start_with(settings, keys, Registry::default());
    let identity = DeviceIdentity::generate().unwrap();
    let mut enrolled = hub.enrol(&identity).await;

    // The device finds the hub.
    let short = hub.devices.hub_id().short();
    let found = within(async {
        loop {
            let hubs = find_hubs(&on_loopback()).await.unwrap();
            if let Some(hub) = hubs.into_iter().find(|h| h.hub_short == short) {
                break hub;
            }
        }
    })
    .await;
    assert_eq!(found.name, store);
    assert_eq!(found.addresses, [hub.devices.local_addr()]);

    // And pays with nothing but that.
    enrolled.addresses.clear();
    let client = DeviceClient::new(
        identity.clone(),
        enrolled,
        ClientOptions {
            discovery: Some(on_loopback()),
            ..options()
        },
    )
    .unwrap();
    let payment = client.next_payment(sale(100));
    within(client.pay(&payment)).await.unwrap();

    // The hub lists devices it has seen, enrolled or not.
    let other = DeviceIdentity::generate().unwrap();
    let (one, two) = (identity.device_id().short(), other.device_id().short());
    let name = |short: &str| format!("Caisse {short}");
    let advertisements = [
        advertise(&identity, DeviceClass::Mpos, &name(&one), &on_loopback()).unwrap(),
        advertise(&other, DeviceClass::Softpos, &name(&two), &on_loopback()).unwrap(),
    ];
    let mut changes = hub.devices.inner.discovery.as_ref().unwrap().seen.subscribe();
    let lists =
        |all: &HashMap<String, SeenDevice>, short: &String| all.values().any(|s| s.short_id == *short);
    within(changes.wait_for(|all| lists(all, &one) && lists(all, &two)))
        .await
        .unwrap();
    let seen = [&one, &two].map(|short| {
        let all = hub.devices.seen();
        all.into_iter().find(|s| s.short_id == *short).unwrap()
    });
    assert_eq!(seen[0].enrolled, Some(identity.device_id()));
    assert_eq!(seen[0].class, Some(DeviceClass::Mpos));
    assert_eq!(seen[1].enrolled, None);
    assert_eq!(seen[1].class, Some(DeviceClass::Softpos));
    assert_eq!(seen[1].instance, name(&two));

    // A device that takes its leave is listed no longer.
    drop(advertisements);
    within(changes.wait_for(|all| !lists(all, &two))).await.unwrap();
    within(hub.devices.stop()).await;
}

#[test]
fn codes_carry_the_addresses_given_else_the_one_listened_on_else_the_interfaces() {
    let any = ([0, 0, 0, 0], 7411).into();
    let given = ["192.0.2.10".parse().unwrap()];
    assert_eq!(addresses_for_codes(&given, &[], any), given);
    let one = ([127, 0, 0, 1], 7411).into();
    assert_eq!(addresses_for_codes(&[], &[], one), [one.ip()]);
    let found = addresses_for_codes(&[], &[], any);
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|ip| ip.is_ipv4() && !ip.is_unspecified()),
        "{found:?}"
    );
    let lo = addresses_for_codes(&[], &["lo".into()], any);
    assert!(lo.iter().all(std::net::IpAddr::is_loopback), "{lo:?}");
}

#[test]
fn only_addresses_that_the_hub_listens_on_are_announced() {
    let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert!(serves(([0, 0, 0, 0], 1).into(), v4));
    assert!(!serves(([0, 0, 0, 0], 1).into(), v6));
    assert!(serves("[::]:1".parse().unwrap(), v4));
    assert!(serves("[::]:1".parse().unwrap(), v6));
    assert!(serves("192.0.2.1:1".parse().unwrap(), v4));
    assert!(!serves("192.0.2.2:1".parse().unwrap(), v4));
}
