use std::net::UdpSocket;

use hub_protocol::{MDNS_DEVICE_TYPE, MDNS_HUB_TYPE};

use super::*;

fn metrics(counts: &[(&str, i64)]) -> Metrics {
    let counts = counts.iter().copied();
    counts.map(|(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn the_mdns_library_may_hold_so_many_records_texts_and_times_and_no_more() {
    let shop = [
        ("cached-ptr", 200),
        ("cached-txt", 200),
        ("cached-addr", 800),
        ("timer", 20_000),
        ("respond", i64::MAX),
    ];
    assert!(!is_too_much(&metrics(&shop)));
    assert!(!is_too_much(&metrics(&[("cached-srv", MAX_RECORDS)])));
    assert!(is_too_much(&metrics(&[
        ("cached-srv", MAX_RECORDS),
        ("cached-nsec", 1)
    ])));
    assert!(is_too_much(&metrics(&[("cached-txt", MAX_TEXTS + 1)])));
    assert!(is_too_much(&metrics(&[("timer", MAX_TIMERS + 1)])));
    assert!(is_too_much(&metrics(&[
        ("dns-registry-name-change", i64::MAX),
        ("cached-ptr", 1)
    ])));
}

#[tokio::test]
async fn the_mdns_library_counts_what_it_holds_under_the_names_that_are_read() {
    let daemon = ServiceDaemon::new_with_port(free_port()).unwrap();
    let counted = daemon.get_metrics().unwrap().recv_async().await.unwrap();
    for name in ["ptr", "srv", "addr", "txt", "nsec", "subtype"] {
        assert!(
            counted.contains_key(&format!("cached-{name}")),
            "{name}: {counted:?}"
        );
    }
    assert!(counted.contains_key("timer") && counted.contains_key("dns-registry-name-change"));
    shut_down(&daemon).await;
}

#[test]
fn a_name_that_is_heard_again_does_not_count_twice() {
    let mut names = Names::default();
    for round in 0..3 {
        assert!(
            (0..MAX_NAMES).all(|n| !names.are_too_many(&format!("till {n}"))),
            "{round}"
        );
    }
    assert!(names.are_too_many("another"));
}

/// Another port than 5353: whatever else runs here is not flooded.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn on_loopback() -> IfPredicate {
    IfPredicate::new(|interface| interface.is_loopback() && interface.ip().is_ipv4())
}

fn announcement(port: u16, service: &str, name: &str) -> Announcement {
    let host = format!("{}.local.", name.to_lowercase());
    Announcement {
        info: ServiceInfo::new(service, name, &host, "127.0.0.1", 7411, &[("k", name)][..]).unwrap(),
        interfaces: on_loopback(),
        port,
        pause: Duration::from_secs(2),
    }
}

/// An answer with records of fresh names, that are to be kept for a day: of
/// devices, or of hosts alone, which a daemon keeps that browses for nothing.
fn strangers(number: u32, of_devices: bool) -> Vec<u8> {
    let kept = 86_400_u32.to_be_bytes();
    let name = |labels: &[&str]| {
        let mut out = Vec::new();
        for label in labels {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out
    };
    let mut records = Vec::new();
    let mut count = 0_u16;
    let mut record = |name: &[u8], kind: u16, data: &[u8]| {
        records.extend_from_slice(name);
        records.extend_from_slice(&kind.to_be_bytes());
        records.extend_from_slice(&[0, 1]);
        records.extend_from_slice(&kept);
        records.extend_from_slice(&(data.len() as u16).to_be_bytes());
        records.extend_from_slice(data);
        count += 1;
    };
    for n in 0..8 {
        let one = format!("s{number}-{n}");
        let mut service: Vec<&str> = MDNS_DEVICE_TYPE.trim_end_matches('.').split('.').collect();
        let ty = name(&service);
        service.insert(0, &one);
        if of_devices {
            record(&ty, 12, &name(&service));
        }
        record(&name(&[&one, "local"]), 1, &number.to_be_bytes());
    }
    let mut out = vec![0, 0, 0x84, 0, 0, 0];
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&records);
    out
}

fn flood(port: u16, of_devices: bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..1500 {
        socket
            .send_to(&strangers(number, of_devices), ("224.0.0.251", port))
            .unwrap();
        if number % 50 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

async fn counted(counts: &Counts, least: u64) {
    let reached = async {
        while counts
            .report()
            .get("mdns-records")
            .is_none_or(|count| *count < least)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), reached).await.unwrap();
}

async fn shows(seen: &Seen, name: &str) {
    let mut changes = seen.subscribe();
    let there = changes.wait_for(|all| all.values().any(|device| device.short_id == name));
    timeout(Duration::from_secs(30), there).await.unwrap().unwrap();
}

async fn announces(port: u16, name: &str) {
    let daemon = ServiceDaemon::new_with_port(port).unwrap();
    daemon.disable_interface(IfKind::All).unwrap();
    daemon.enable_interface(IfKind::Predicate(on_loopback())).unwrap();
    let events = daemon.browse(MDNS_HUB_TYPE).unwrap();
    let found = async {
        while let Ok(event) = events.recv_async().await {
            if matches!(event, ServiceEvent::ServiceResolved(service) if service.fullname.starts_with(name)) {
                return true;
            }
        }
        false
    };
    assert!(timeout(Duration::from_secs(30), found).await.unwrap());
    shut_down(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_the_mdns_library_up_to_its_bound_and_the_hub_stays_announced() {
    if !crate::devices::tests::discovery::multicast_works() {
        eprintln!("skipped: no multicast on loopback here");
        return;
    }
    let port = free_port();
    let hub = announcement(port, MDNS_HUB_TYPE, "Hub");
    let daemon = hub.begin().unwrap();
    let seen = Seen::new(watch::Sender::default());
    let counts = Arc::<Counts>::default();
    let (leave, left) = watch::channel(false);
    let first = daemon.clone();
    tokio::spawn(hub.keep_up(daemon, Arc::clone(&seen), Arc::clone(&counts), left));
    let till = announcement(port, MDNS_DEVICE_TYPE, "Till").begin().unwrap();
    shows(&seen, "Till").await;

    tokio::task::spawn_blocking(move || flood(port, true))
        .await
        .unwrap();
    counted(&counts, 1).await;
    assert!(
        seen.borrow().values().any(|device| device.short_id == "Till"),
        "it is kept"
    );
    announces(port, "Hub").await;
    let ended = async {
        while first.get_metrics().is_ok() {
            sleep(WATCH).await
        }
    };
    timeout(Duration::from_secs(30), ended)
        .await
        .expect("its thread ends");

    // While nothing is browsed for, what has no PTR record is kept all the same.
    tokio::task::spawn_blocking(move || flood(port, false))
        .await
        .unwrap();
    counted(&counts, 2).await;
    announces(port, "Hub").await;

    // Devices are heard again after the pause.
    let other = announcement(port, MDNS_DEVICE_TYPE, "Other").begin().unwrap();
    shows(&seen, "Other").await;
    assert!(counts.report()["mdns-records"] <= 4, "and it does not spin");
    leave.send_replace(true);
    timeout(Duration::from_secs(30), leave.closed()).await.unwrap();
    for daemon in [till, other] {
        shut_down(&daemon).await;
    }
}
