use std::sync::atomic::{AtomicU64, Ordering};

use hub_core::admission::Access;
use hub_protocol::{ALPN, Request, frame};

use super::*;
use crate::devices::bounds::{Bound, LINES};
use crate::devices::bucket::Rate;
use crate::devices::codes::MAX_WRONG_TRIES;
use crate::devices::mdns::{MAX_NAMES, MAX_RECORDS, MAX_TEXTS, MAX_TIMERS, PAUSE};
use crate::devices::tries::{MAX_WRONG_TRIES_OF_ADDRESS, SHUT_OUT_MS};
use crate::devices::{enrolment, gate, listener, packets, quic_frames, request, sessions};
use crate::port;

/// The table of bounds in `docs/threats.md`, by the code.
fn table() -> String {
    let settings = Settings::default();
    let at = listener::bounds(settings.max_connections);
    let enrol = enrolment::bounds();
    let rate = |rate: Rate| format!("{} a second, {} at once", rate.per_second, rate.burst);
    let per_device = settings.requests_per_second;
    let kib = |bytes: u32| bytes / 1024;
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let rows: [(&str, String, &str, &[Bound]); 22] = [
        (
            "first packets of addresses not proved, unless known, that are answered",
            rate(at.retries),
            "no answer",
            &[Bound::Unproved],
        ),
        (
            "packets that begin handshakes, with and without what the hub sent before: of one address, of all that are \
             known, of all others",
            format!(
                "{}; {}; the same",
                rate(gate::of_address(at.address)),
                rate(gate::of_all(at.strangers))
            ),
            "thrown away",
            &[Bound::HandshakePackets],
        ),
        (
            "handshakes of one address",
            rate(at.address),
            "refused",
            &[Bound::AddressRate],
        ),
        (
            "handshakes of all strangers",
            rate(at.strangers),
            "refused",
            &[Bound::StrangerRate],
        ),
        (
            "handshakes in progress: all, of strangers, of one address",
            format!(
                "{}, {}, {}",
                at.handshakes, at.handshakes_of_strangers, at.handshakes_of_address
            ),
            "refused",
            &[Bound::Handshakes, Bound::AddressHandshakes],
        ),
        (
            "one handshake",
            seconds(listener::HANDSHAKE_TIMEOUT),
            "ended",
            &[Bound::FailedHandshakes],
        ),
        (
            "connections: all, of one address",
            format!("{}, {}", at.connections, at.connections_of_address),
            "refused",
            &[Bound::Connections, Bound::AddressConnections],
        ),
        (
            "connections of one device",
            sessions::MAX_PER_DEVICE.to_string(),
            "the oldest is closed",
            &[Bound::DeviceConnections],
        ),
        (
            "connections to enrol: all, of one address",
            format!("{}, {}", enrol.connections, enrol.connections_of_address),
            "refused",
            &[Bound::Connections, Bound::AddressConnections],
        ),
        (
            "connections to enrol: without a request; in all",
            format!(
                "{}; {}",
                seconds(enrolment::SILENCE),
                seconds(enrolment::CONNECTION_TIMEOUT)
            ),
            "closed",
            &[],
        ),
        (
            "connections of devices that wait to be approved: all, of one device",
            format!("{}, {}", sessions::MAX_PENDING, sessions::MAX_PER_PENDING),
            "refused; the oldest is closed",
            &[Bound::PendingConnections],
        ),
        (
            "connections refused with an answer (QUIC 0x2)",
            rate(at.refusals),
            "no answer",
            &[],
        ),
        (
            "addresses kept in mind; first packets that wait",
            format!("{}; {} KiB", at.addresses, listener::INCOMING_BUFFER / 1024),
            "counts as a stranger above the rate; no answer",
            &[Bound::StrangerRate],
        ),
        (
            "streams of one connection; bytes ahead on a stream, on a connection",
            format!(
                "{} (to enrol {}); {} KiB, {} KiB",
                listener::MAX_STREAMS,
                enrolment::MAX_STREAMS,
                kib(listener::STREAM_WINDOW),
                kib(listener::CONNECTION_WINDOW)
            ),
            "the device waits",
            &[],
        ),
        (
            "requests of one device, over all its connections",
            format!("{per_device} a second, {} at once", per_device * 2),
            "they wait",
            &[Bound::Requests],
        ),
        (
            "QUIC frames, or packets, of one device, over all its connections; of one connection to enrol",
            format!(
                "{}; {}",
                rate(quic_frames::rate(per_device)),
                quic_frames::MOST_TO_ENROL
            ),
            "closed, and refusal 5001 as QUIC code for half a minute; closed",
            &[Bound::QuicFrames],
        ),
        (
            "packets that are opened: of one connection, of one to enrol; before its session; of each kind of a \
             handshake's; longest",
            format!(
                "{}, {} in {} ms; {}; {}; {} bytes",
                quic_frames::share(per_device),
                quic_frames::SHARE_TO_ENROL,
                packets::SHARE_MS,
                packets::BEFORE,
                packets::OF_HANDSHAKE,
                packets::LONGEST
            ),
            "as good as lost on the way",
            &[],
        ),
        (
            "one frame to arrive; its longest",
            format!("{}; {} bytes", seconds(request::READ_TIMEOUT), frame::MAX_FRAME),
            "refusal 1001; refusal 1002, closed",
            &[Bound::SlowStreams, Bound::LongFrames],
        ),
        (
            "requests that wait for the hub's own thread",
            port::QUEUE.to_string(),
            "refusal 5001",
            &[],
        ),
        (
            "unknown enrolment tokens: of one address, of all",
            format!("{MAX_WRONG_TRIES_OF_ADDRESS}, {MAX_WRONG_TRIES}"),
            "refusal 5001 for ten minutes; all codes void",
            &[Bound::EnrolmentTries],
        ),
        (
            "records of mDNS that are kept, texts among them; names of devices; times to wake",
            format!("{MAX_RECORDS}, {MAX_TEXTS}; {MAX_NAMES}; {MAX_TIMERS}"),
            "all are dropped, and nothing is browsed for during a minute",
            &[Bound::MdnsRecords],
        ),
        (
            "log lines of one kind that anybody can cause",
            format!("{} at once, then one in ten seconds", LINES.burst),
            "counted in the next",
            &[],
        ),
    ];
    assert_eq!(SHUT_OUT_MS, 600_000);
    assert_eq!(PAUSE, Duration::from_secs(60));
    let mut table = "| what | bound | beyond it | counted as |\n| --- | --- | --- | --- |\n".to_owned();
    for (what, bound, beyond, counted) in rows {
        let counted: Vec<_> = counted.iter().map(|bound| format!("`{bound}`")).collect();
        table += &format!("| {what} | {bound} | {beyond} | {} |\n", counted.join(", "));
    }
    table
}

#[test]
fn the_bounds_in_the_document_are_those_of_the_code_and_each_that_is_counted_is_there() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/threats.md");
    let document = std::fs::read_to_string(file).unwrap();
    let (_, rest) = document.split_once("<!-- begin flood-bounds -->\n").unwrap();
    let (written, _) = rest.split_once("<!-- end flood-bounds -->").unwrap();
    let made = table();
    assert_eq!(
        written.trim(),
        made.trim(),
        "docs/threats.md should have:\n{made}"
    );
    for bound in Bound::ALL {
        assert!(made.contains(&format!("`{bound}`")), "{bound}");
    }
}

fn hello() -> Vec<u8> {
    frame::to_wire(&Request::Hello { app: "test".into() })
}

/// A device that the hub knows, and its connection.
async fn connected(hub: &FakeHub) -> quinn::Connection {
    let identity = DeviceIdentity::generate().unwrap();
    let registration = hub.registration(&identity);
    hub.devices.apply(&registration, Access::Granted);
    raw::connect(hub, Some(&identity), ALPN).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_a_devices_rate_wait_and_none_is_lost() {
    let settings = Settings {
        requests_per_second: 20,
        // Nothing is gained: the count is exact.
        monotonic_ms: || 0,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    // One request was sent to see whether it was let in.
    let connection = connected(&hub).await;
    for _ in 0..44 {
        let answer = raw::answer(&connection, &hello()).await;
        assert!(matches!(answer, Some(hub_protocol::Answer::Hello { .. })));
    }
    assert_eq!(hub.devices.bounds_reached()["requests-of-device"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_sends_in_tiny_pieces_is_cut_off_and_turned_away_and_no_other() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let settings = Settings {
        requests_per_second: 20,
        monotonic_ms: || NOW.load(Ordering::Relaxed),
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let (mad, honest) = (DeviceIdentity::generate().unwrap(), connected(&hub).await);
    hub.devices.apply(&hub.registration(&mad), Access::Granted);
    let to = hub.devices.local_addr();
    let connection = raw::connect(&hub, Some(&mad), ALPN).await.unwrap();
    let busy = u64::from(RefusalCode::Busy.number());
    let closed = within(raw::trickle(&connection, 8)).await;
    assert_eq!(closed, (busy, "busy".to_owned()));
    // A second later it has frames enough to connect, and may not.
    NOW.store(1000, Ordering::Relaxed);
    let again = raw::dial([127, 0, 0, 1], to, Some(&mad), ALPN).await.unwrap();
    let closed = within(again.closed()).await;
    assert!(matches!(
        closed,
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == busy
    ));
    let answer = raw::answer(&honest, &hello()).await;
    assert!(matches!(answer, Some(hub_protocol::Answer::Hello { .. })));
    assert_eq!(hub.devices.bounds_reached()["quic-frames-of-device"], 2);
    NOW.store(quic_frames::SHUT_OUT_MS, Ordering::Relaxed);
    assert!(raw::connect(&hub, Some(&mad), ALPN).await.is_some());
}

/// The library answers some by itself, as often as it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_begin_handshakes_are_thrown_away_beyond_their_bound() {
    let settings = Settings {
        monotonic_ms: || 0,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // A version that nobody speaks, and room for all of one kind.
    let mut packet = [0; 1200];
    packet[..6].copy_from_slice(&[0xc3, 9, 9, 9, 9, 8]);
    let reached = || hub.devices.bounds_reached().get("handshake-packets").copied();
    let most = gate::of_all(listener::bounds(1).strangers).burst;
    let mut sent = 0;
    let flood = async {
        while reached() < Some(200) {
            for _ in 0..32 {
                socket.send_to(&packet, hub.devices.local_addr()).await.unwrap();
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(flood).await;
    assert!(sent >= most + 200, "{sent}");
}

/// Keys that change bring no packets that nobody counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_connections_packets_count_behind_a_change_of_its_keys_too() {
    let hub = FakeHub::start();
    let connection = connected(&hub).await;
    let mut before = hub.devices.inner.shared.quic_frames.packets_opened();
    for _ in 0..4 {
        connection.force_key_update();
        for _ in 0..8 {
            assert!(raw::answer(&connection, &hello()).await.is_some());
        }
        let opened = hub.devices.inner.shared.quic_frames.packets_opened();
        assert!(opened >= before + 8, "{before}, {opened}");
        before = opened;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_hangs_up_and_comes_back_has_no_new_burst() {
    let settings = Settings {
        requests_per_second: 5,
        monotonic_ms: || 0,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let identity = DeviceIdentity::generate().unwrap();
    hub.devices.apply(&hub.registration(&identity), Access::Granted);
    for _ in 0..12 {
        // Each asks once.
        raw::connect(&hub, Some(&identity), ALPN).await.unwrap();
    }
    assert_eq!(hub.devices.bounds_reached()["requests-of-device"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_open_more_than_its_share_of_handshakes() {
    let settings = Settings {
        monotonic_ms: || 0,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    let stranger = DeviceIdentity::generate().unwrap();
    for _ in 0..100 {
        // Not enrolled: the handshake fails.
        assert!(raw::connect(&hub, Some(&stranger), ALPN).await.is_none());
    }
    failed_handshakes(&hub, 100).await;
    assert!(raw::connect(&hub, Some(&stranger), ALPN).await.is_none());
    let reached = hub.devices.bounds_reached();
    assert_eq!(
        (reached["failed-handshakes"], reached["handshake-rate-of-address"]),
        (100, 1)
    );
    let identity = DeviceIdentity::generate().unwrap();
    hub.devices.apply(&hub.registration(&identity), Access::Granted);
    let to = hub.devices.local_addr();
    let elsewhere = raw::connect_from([127, 0, 0, 2], to, Some(&identity), ALPN).await;
    assert!(elsewhere.is_some(), "another address is not held to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_streams_and_long_frames_are_counted() {
    let hub = FakeHub::start();
    let connection = connected(&hub).await;
    let before = hub.devices.bounds_reached();
    assert!(!before.contains_key("long-frames") && !before.contains_key("slow-streams"));
    let (mut send, mut slow) = connection.open_bi().await.unwrap();
    send.write_all(&[0]).await.unwrap();
    let answer = within(slow.read_to_end(1024)).await.unwrap();
    assert!(matches!(
        frame::from_wire(&answer),
        Ok(hub_protocol::Answer::Refused { refusal }) if refusal.code == RefusalCode::Truncated
    ));
    let long = vec![0; 4 + frame::MAX_FRAME + 2];
    assert_eq!(raw::ask(&connection, &long).await, Some(RefusalCode::Oversized));
    let after = hub.devices.bounds_reached();
    assert_eq!((after["slow-streams"], after["long-frames"]), (1, 1));
}

/// Devices that wait to be approved.
fn pending(hub: &FakeHub, count: usize) -> Vec<DeviceIdentity> {
    let wait = |identity: &DeviceIdentity| hub.devices.apply(&hub.registration(identity), Access::Pending);
    let all: Vec<_> = (0..count).map(|_| DeviceIdentity::generate().unwrap()).collect();
    all.iter().for_each(wait);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_wait_to_be_approved_keep_no_device_of_the_shop_out() {
    let settings = Settings {
        max_connections: sessions::MAX_PENDING + 2,
        ..settings()
    };
    let hub = FakeHub::start_with(settings, keys(), Registry::default());
    // From addresses of their own, so that no address's share is reached.
    let to = hub.devices.local_addr();
    let from = |number: usize| [127, 0, 1, u8::try_from(number).unwrap() % 8];
    let mut open = Vec::new();
    let waiting = pending(&hub, sessions::MAX_PENDING + 3);
    for (number, identity) in waiting.iter().enumerate() {
        open.push(raw::connect_from(from(number), to, Some(identity), ALPN).await);
    }
    let (taken, left_out) = open.split_at(sessions::MAX_PENDING);
    assert!(taken.iter().all(Option::is_some) && left_out.iter().all(Option::is_none));
    assert_eq!(hub.devices.bounds_reached()["connections-of-pending"], 3);
    let ours = DeviceIdentity::generate().unwrap();
    hub.devices.apply(&hub.registration(&ours), Access::Granted);
    let ours = raw::connect_from([127, 0, 0, 9], to, Some(&ours), ALPN).await;
    assert!(ours.is_some());
    // Once one of them is approved, another has its place.
    hub.devices.apply(&hub.registration(&waiting[0]), Access::Granted);
    drop(ours);
    let last = waiting.last();
    assert!(raw::connect_from([127, 0, 0, 9], to, last, ALPN).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_to_be_approved_has_one_connection() {
    let hub = FakeHub::start();
    let identity = &pending(&hub, 1)[0];
    let first = raw::connect(&hub, Some(identity), ALPN).await.unwrap();
    let second = raw::connect(&hub, Some(identity), ALPN).await.unwrap();
    within(first.closed()).await;
    assert!(second.close_reason().is_none());
    assert_eq!(hub.devices.bounds_reached()["connections-of-pending"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_to_be_approved_makes_no_address_known() {
    let hub = FakeHub::start();
    let identity = &pending(&hub, 1)[0];
    let known = || hub.devices.inner.door.knows([127, 0, 0, 1].into());
    let _connection = raw::connect(&hub, Some(identity), ALPN).await.unwrap();
    assert!(!known());
    let _ours = connected(&hub).await;
    assert!(known());
}
