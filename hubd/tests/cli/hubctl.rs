//! `hubctl` against the real socket server, with a hub made of cardboard.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hub_core::Disclosed;
use hub_protocol::entry::Finding;
use hub_protocol::{DeviceId, Digest, PaymentId};
use hubd::admin::protocol::{
    DeviceReport, EnrolReport, FleetReport, KeyReport, ListReport, PolicyReport, QueueItem, QueueReport,
    RootReport, RotationReport, StandingReport, StatusReport, TlsStep, TokenReport,
};
use hubd::admin::{AdminServer, Backend, EnrolOrder, Operator, Refused, Settings};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::{Hub, Said, path};

#[derive(Default)]
struct Cardboard {
    done: Mutex<Vec<String>>,
    waiting: AtomicUsize,
    draining: AtomicUsize,
}

impl Cardboard {
    fn note(&self, operator: Operator, text: String) -> Result<(), Refused> {
        assert_eq!(operator.uid, rustix::process::geteuid().as_raw());
        self.done.lock().unwrap().push(text);
        Ok(())
    }
}

fn device(id: &str, name: &str, enrolled: bool) -> DeviceReport {
    DeviceReport {
        id: id.repeat(32),
        name: name.to_owned(),
        class: "mpos".to_owned(),
        enrolled,
        ..DeviceReport::default()
    }
}

const PAYMENT: &str = "0197aabb-ccdd-7eef-8001-020304050607";

impl Backend for Cardboard {
    async fn status(&self) -> Result<StatusReport, Refused> {
        Ok(StatusReport {
            store: "Épicerie du Port".to_owned(),
            wan: "offline".to_owned(),
            wan_reason: "many-failed".to_owned(),
            exposure_minor: 123_456,
            currency: "EUR".to_owned(),
            queued: 1,
            oldest_unsent_seconds: Some(3_700),
            ..StatusReport::default()
        })
    }
    async fn devices(&self) -> Result<Vec<DeviceReport>, Refused> {
        let pending = StandingReport {
            pending: true,
            ..StandingReport::default()
        };
        Ok(vec![
            device("a1", "Caisse 1", true),
            DeviceReport {
                standing: Some(pending),
                ..device("a2", "Caisse 2", true)
            },
            device("b3", "Inconnu", false),
        ])
    }
    async fn enrol(&self, operator: Operator, order: EnrolOrder) -> Result<EnrolReport, Refused> {
        self.note(operator, format!("{order:?}"))?;
        Ok(EnrolReport {
            code: "HUB1-TEST".to_owned(),
            valid_seconds: 600,
            enrol_addresses: vec!["192.0.2.10:7412".to_owned()],
            ..EnrolReport::default()
        })
    }
    async fn fleet(&self) -> Result<FleetReport, Refused> {
        Ok(FleetReport {
            tokens: vec![TokenReport {
                token: "c4".repeat(32),
                class: "softpos".to_owned(),
                most: 40,
                used: 3,
                expires_ms: 1_767_225_600_000,
            }],
            list_version: Some(3),
            ..FleetReport::default()
        })
    }
    async fn withdraw(&self, operator: Operator, token: Digest) -> Result<(), Refused> {
        self.note(operator, format!("withdraw {token}"))
    }
    async fn take_list(&self, operator: Operator, signed: Vec<u8>) -> Result<ListReport, Refused> {
        self.note(operator, format!("list of {} bytes", signed.len()))?;
        Ok(ListReport {
            version: 3,
            enrolled: 2,
            ..ListReport::default()
        })
    }
    async fn approve(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(operator, format!("approve {device}"))
    }
    async fn block(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(operator, format!("block {device}"))
    }
    async fn lost(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(operator, format!("lost {device}"))
    }
    async fn unblock(&self, _: Operator, _: DeviceId) -> Result<(), Refused> {
        Err(Refused::new("the device is not blocked"))
    }
    async fn queue(&self, limit: usize, _: bool) -> Result<QueueReport, Refused> {
        // Each look at a draining queue finds one less.
        if self.draining.load(Ordering::SeqCst) > 0 {
            let _ = self
                .waiting
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        }
        let parked = QueueItem {
            payment_id: PAYMENT.to_owned(),
            state: "parked".to_owned(),
            amount_minor: 1250,
            currency: "EUR".to_owned(),
            parked: Some("gateway-conflict".to_owned()),
            ..QueueItem::default()
        };
        Ok(QueueReport {
            items: vec![parked; limit.min(1)],
            total: self.waiting.load(Ordering::SeqCst) + 1,
            parked: 1,
        })
    }
    async fn drain(&self, operator: Operator) -> Result<(), Refused> {
        if self.waiting.load(Ordering::SeqCst) < 10 {
            self.draining.store(1, Ordering::SeqCst);
        }
        self.note(operator, "drain".to_owned())
    }
    async fn release(&self, operator: Operator, payment: PaymentId, not_there: bool) -> Result<(), Refused> {
        let word = if not_there { ", not there" } else { "" };
        self.note(operator, format!("release {payment}{word}"))
    }
    async fn close(
        &self,
        operator: Operator,
        payment: PaymentId,
        finding: Finding,
        note: String,
    ) -> Result<(), Refused> {
        self.note(operator, format!("close {payment} {finding}: {note}"))
    }
    async fn park(&self, operator: Operator, payment: PaymentId) -> Result<(), Refused> {
        self.note(operator, format!("park {payment}"))
    }
    async fn lift(&self, operator: Operator, device: Option<DeviceId>) -> Result<(), Refused> {
        self.note(
            operator,
            format!(
                "lift {}",
                device.map_or_else(|| "the store".to_owned(), |d| d.to_string())
            ),
        )
    }
    async fn confirm_clock(&self, operator: Operator, told_ms: u64) -> Result<(), Refused> {
        self.note(operator, format!("clock {told_ms}"))
    }
    async fn disclosed(&self, _: Operator, _: Disclosed) -> Result<(), Refused> {
        Err(Refused::unavailable("stopping"))
    }
    async fn archive_exported(&self, operator: Operator, number: u32, digest: Digest) -> Result<(), Refused> {
        self.note(operator, format!("exported {number} {digest}"))
    }
    async fn remove_archives(&self, operator: Operator, through: u32) -> Result<(), Refused> {
        self.note(operator, format!("remove archives {through}"))
    }
    async fn keys(&self) -> Result<Vec<KeyReport>, Refused> {
        Ok(vec![KeyReport {
            purpose: "signing".to_owned(),
            holder: "the hub".to_owned(),
            id: Some("ab".repeat(16)),
            public: Some("cd".repeat(32)),
            since_ms: Some(1_767_225_600_000),
            changes: Some(2),
        }])
    }
    async fn rotate_signing_key(
        &self,
        operator: Operator,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        self.note(operator, format!("rotate signing {confirmed}"))?;
        Ok(RotationReport {
            which: "signing".to_owned(),
            changed: true,
            keys: self.keys().await?,
            ..RotationReport::default()
        })
    }
    async fn rotate_tls_key(
        &self,
        operator: Operator,
        step: TlsStep,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        self.note(operator, format!("rotate tls {step:?} {confirmed}"))?;
        Ok(RotationReport {
            which: "tls".to_owned(),
            unconfirmed: !confirmed,
            overlap: step == TlsStep::Begin,
            enrolled: 3,
            too_old: vec!["Caisse 1".to_owned()],
            keys: self.keys().await?,
            ..RotationReport::default()
        })
    }

    async fn rotate_vault_key(&self, operator: Operator) -> Result<Vec<KeyReport>, Refused> {
        self.note(operator, "rotate signing".to_owned())?;
        self.keys().await
    }
    async fn apply_root(&self, _: Operator, _: Vec<u8>) -> Result<RootReport, Refused> {
        Ok(RootReport::default())
    }
    async fn install_policy(&self, operator: Operator, signed: Vec<u8>) -> Result<PolicyReport, Refused> {
        self.note(operator, format!("policy of {} bytes", signed.len()))?;
        Ok(PolicyReport {
            version: 7,
            expires_ms: Some(1_767_225_600_000),
        })
    }
}

struct Served {
    hub: Hub,
    backend: Arc<Cardboard>,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    fn start(waiting: usize) -> Self {
        let hub = Hub::init(&[]);
        let runtime = Runtime::new().unwrap();
        let backend = Arc::new(Cardboard {
            waiting: AtomicUsize::new(waiting),
            ..Cardboard::default()
        });
        let (stop, stopped) = oneshot::channel();
        let settings = Settings {
            socket: hub.file("hubd.sock"),
        };
        let _guard = runtime.enter();
        let server = AdminServer::bind(&settings).unwrap();
        runtime.spawn(server.serve(backend.clone(), async {
            let _ = stopped.await;
        }));
        drop(_guard);
        Self {
            hub,
            backend,
            runtime,
            stop: Some(stop),
        }
    }

    fn ok(&self, args: &[&str]) -> Said {
        let said = self.hub.hubctl(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.backend.done.lock().unwrap())
    }
}

#[test]
fn every_command_answers_people_and_with_json_machines() {
    let served = Served::start(0);
    let status = served.ok(&["status"]).stdout;
    for expected in [
        "Épicerie du Port",
        "offline (many-failed)",
        "1234.56 EUR",
        "1h 1m 40s",
        "none: nothing is approved offline",
    ] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
    assert_eq!(served.ok(&["status", "--json"]).json()["exposure_minor"], 123_456);
    let devices = served.ok(&["devices"]).stdout;
    assert!(
        devices.contains("Caisse 1") && devices.contains("not enrolled"),
        "{devices}"
    );
    assert_eq!(
        served.ok(&["devices", "list", "--json"]).json()["devices"][2]["enrolled"],
        false
    );
    let enrol = served.ok(&["enrol"]).stdout;
    assert!(
        enrol.contains("HUB1-TEST") && enrol.contains("192.0.2.10:7412"),
        "{enrol}"
    );
    assert!(!enrol.contains('█'), "no terminal: {enrol}");
    assert_eq!(served.ok(&["enrol", "--json"]).json()["code"], "HUB1-TEST");
    assert_eq!(
        served.ok(&["enrol", "--qr", "--json"]).json()["code"],
        "HUB1-TEST"
    );
    let drawn = served.ok(&["enrol", "--qr"]).stdout;
    let picture = drawn.find('█').unwrap();
    assert!(picture < drawn.find("HUB1-TEST").unwrap(), "{drawn}");
    let svg = served.hub.file("code.svg");
    served.ok(&["enrol", "--svg", svg.to_str().unwrap()]);
    assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&svg.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let queue = served.ok(&["queue"]).stdout;
    assert!(
        queue.contains("12.50 EUR") && queue.contains("parked: gateway-conflict"),
        "{queue}"
    );
    assert_eq!(
        served.ok(&["--json", "queue", "list"]).json()["items"][0]["payment_id"],
        PAYMENT
    );
}

#[test]
fn a_code_goes_into_no_file_that_somebody_else_has_made() {
    let served = Served::start(0);
    let svg = served.hub.file("code.svg");
    // Left by somebody, for himself; and a way to such a file.
    std::fs::write(&svg, "").unwrap();
    let link = served.hub.file("link.svg");
    std::os::unix::fs::symlink(served.hub.file("elsewhere"), &link).unwrap();
    for file in [&svg, &link] {
        let said = served.hub.hubctl(&["enrol", "--svg", file.to_str().unwrap()]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("is there already"), "{said:?}");
    }
    assert_eq!(std::fs::read_to_string(&svg).unwrap(), "");
    assert!(!served.hub.file("elsewhere").exists());
    assert!(served.done().is_empty(), "no code was made");
    // Nothing is left where the hub refuses.
    let refused = served.hub.file("refused.svg");
    let said = served
        .hub
        .hubctl(&["enrol", "--replaces", "ffff", "--svg", refused.to_str().unwrap()]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!refused.exists());
}

#[test]
fn devices_are_blocked_by_the_digits_that_tell_them_apart() {
    let served = Served::start(0);
    let said = served.ok(&["devices", "block", "A1", "--json"]);
    assert_eq!(said.json()["blocked"], true);
    assert_eq!(served.done(), [format!("block {}", "a1".repeat(32))]);
    for (prefix, expected) in [
        ("a", "more than one device"),
        ("b3", "no enrolled device"),
        ("zz", "no enrolled device"),
    ] {
        let said = served.hub.hubctl(&["devices", "block", prefix]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains(expected), "{said:?}");
    }
    assert!(served.done().is_empty());
}

#[test]
fn a_code_is_for_one_device_for_several_or_in_anothers_place() {
    let served = Served::start(0);
    let of = |number: &str| DeviceId(number.repeat(32).parse::<Digest>().unwrap().0);
    for (args, expected) in [
        (&["--class", "mpos"][..], "One(Mpos)".to_owned()),
        (
            &["--fleet", "--valid", "2h", "--most", "12"],
            "Fleet(Softpos, FleetOrder { most: 12, valid_seconds: 7200 })".to_owned(),
        ),
        (
            &["--fleet"],
            "Fleet(Softpos, FleetOrder { most: 40, valid_seconds: 86400 })".to_owned(),
        ),
        (
            &["--replaces", "a1", "--lost"],
            format!("Replacing {{ class: Mpos, device: {:?}, lost: true }}", of("a1")),
        ),
    ] {
        let said = served.ok(&[&["enrol"], args].concat());
        assert!(said.stdout.contains("HUB1-TEST"), "{said:?}");
        assert_eq!(served.done(), [expected]);
    }
    for args in [
        &["enrol", "--lost"][..],
        &["enrol", "--most", "3"],
        &["enrol", "--fleet", "--replaces", "a1"],
        &["enrol", "--replaces", "a1", "--class", "mpos"],
        &["enrol", "--fleet", "--most", "501"],
        &["enrol", "--fleet", "--valid", "31d"],
    ] {
        assert_eq!(served.hub.hubctl(args).code, 2, "{args:?}");
    }
    assert!(served.done().is_empty());
}

#[test]
fn fleets_are_listed_withdrawn_and_approved() {
    let served = Served::start(0);
    let listed = served.ok(&["fleet"]).stdout;
    assert!(
        listed.contains("c4c4c4c4c4c4c4c4") && listed.contains("3 of 40"),
        "{listed}"
    );
    assert_eq!(served.ok(&["fleet", "--json"]).json()["tokens"][0]["used"], 3);
    served.ok(&["fleet", "withdraw", "C4"]);
    assert_eq!(served.done(), [format!("withdraw {}", "c4".repeat(32))]);
    assert_eq!(served.hub.hubctl(&["fleet", "withdraw", "dd"]).code, 1);
    let devices = served.ok(&["devices"]).stdout;
    assert!(
        devices.contains("pending") && devices.contains("hubctl devices approve"),
        "{devices}"
    );
    served.ok(&["devices", "approve", "a2"]);
    assert_eq!(served.done(), [format!("approve {}", "a2".repeat(32))]);
    let shown = served.ok(&["devices", "show", "a2"]).stdout;
    assert!(
        shown.contains("Caisse 2") && shown.contains("waits to be approved"),
        "{shown}"
    );
    assert_eq!(
        served.ok(&["devices", "show", "a1", "--json"]).json()["verdict"],
        "usual"
    );
}

#[test]
fn a_list_of_devices_is_signed_checked_and_applied() {
    let served = Served::start(0);
    let file = |name: &str| served.hub.file(name).to_str().unwrap().to_owned();
    let (key, text, signed) = (file("hq.key"), file("devices.toml"), file("devices.cose"));
    let public = served.ok(&["keygen", &key, "--json"]).json()["public_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let device_key = served.ok(&["keygen", &file("device.key"), "--json"]).json()["public_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let list = format!(
        "tenant = \"acme\"\nstores = [\"*\"]\nversion = 3\nnot_before = 2020-01-01T00:00:00Z\n\
         expires = 2099-01-01T00:00:00Z\nrevoked = [\"{}\"]\n\n[[device]]\nid = \"{}\"\nkey = \"{device_key}\"\n\
         class = \"mpos\"\nname = \"Caisse 7\"\nmodel = \"Test 1\"\n",
        "22".repeat(32),
        "33".repeat(32),
    );
    std::fs::write(&text, &list).unwrap();
    let said = served.ok(&["fleet", "sign", "--key", &key, &text, &signed, "--json"]);
    assert_eq!(said.json()["version"], 3);
    let checked = served.ok(&["fleet", "check", &signed, "--key", &public]).stdout;
    for part in ["version 3", "Caisse 7", "acme", "1 revoked"] {
        assert!(checked.contains(part), "{checked}");
    }
    let said = served.ok(&["fleet", "apply", &signed]);
    assert!(
        said.stdout.contains("version 3") && said.stdout.contains("2 enrolled"),
        "{said:?}"
    );
    let length = std::fs::metadata(&signed).unwrap().len();
    assert_eq!(served.done(), [format!("list of {length} bytes")]);
    // Another's key, an unsigned list, a key that is unknown, a fault.
    assert_eq!(
        served
            .hub
            .hubctl(&["fleet", "check", &signed, "--key", &device_key])
            .code,
        65
    );
    assert_eq!(served.hub.hubctl(&["fleet", "apply", &text]).code, 65);
    for wrong in [
        format!("colour = 1\n{list}"),
        list.replace("version = 3", "version = 0"),
        list.replace("class = \"mpos\"", "class = \"till\""),
        list.replace("2099", "2019"),
        list.replace(&"22".repeat(32), &"33".repeat(32)),
    ] {
        std::fs::write(&text, wrong).unwrap();
        let said = served
            .hub
            .hubctl(&["fleet", "sign", "--key", &key, &text, &signed]);
        assert_eq!(said.code, 65, "{said:?}");
    }
    assert!(served.done().is_empty());
}

#[test]
fn a_refusal_of_the_hub_exits_with_1_and_says_why() {
    let served = Served::start(0);
    let said = served.hub.hubctl(&["devices", "unblock", "a1", "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.json()["error"]["message"], "the device is not blocked");
    assert!(said.stderr.contains("the device is not blocked"), "{said:?}");
}

#[test]
fn a_parked_payment_is_released_by_its_first_digits() {
    let served = Served::start(0);
    served.ok(&["queue", "release", "0197"]);
    assert_eq!(served.done(), [format!("release {PAYMENT}")]);
    served.ok(&["queue", "release", "0197", "--not-there"]);
    assert_eq!(served.done(), [format!("release {PAYMENT}, not there")]);
}

#[test]
fn all_that_is_parked_is_released_at_once_but_nothing_twice() {
    let served = Served::start(0);
    let said = served.ok(&["queue", "release", "--all", "--json"]).json();
    assert_eq!(said["payment_ids"].as_array().unwrap().len(), 1);
    // The hub of this test still says that it is parked.
    assert_eq!(served.done(), [format!("release {PAYMENT}")]);
    let said = served.ok(&["queue", "release", "--all", "--reason", "kept-back"]);
    assert!(
        said.stdout.contains("what is parked is for gateway-conflict"),
        "{said:?}"
    );
    assert!(served.done().is_empty(), "parked for another reason");
    for wrong in [
        &["queue", "release"][..],
        &["queue", "release", "0197", "--all"],
        &["queue", "release", "--all", "--not-there"],
        &["queue", "release", "--all", "--reason", "foo"],
    ] {
        assert_eq!(served.hub.hubctl(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_parked_payment_is_closed_by_what_one_person_found_out() {
    let served = Served::start(0);
    let said = served.ok(&[
        "queue",
        "close",
        "0197",
        "--taken",
        "--note",
        "desk, 14:05, ref 77",
    ]);
    assert!(said.stdout.contains("the customer is charged"), "{said:?}");
    assert_eq!(
        served.done(),
        [format!("close {PAYMENT} taken: desk, 14:05, ref 77")]
    );
    let close = ["queue", "close", "0197", "--undone", "--note", "desk", "--json"];
    assert_eq!(served.ok(&close).json()["finding"], "undone");
    served.ok(&["queue", "park", "0197"]);
    assert_eq!(
        served.done(),
        [format!("close {PAYMENT} undone: desk"), format!("park {PAYMENT}")]
    );
    for wrong in [
        &["queue", "close", "0197", "--note", "no finding"][..],
        &["queue", "close", "0197", "--taken"],
        &["queue", "close", "0197", "--taken", "--undone", "--note", "both"],
    ] {
        assert_eq!(served.hub.hubctl(wrong).code, 2, "{wrong:?}");
    }
    assert!(served.done().is_empty());
}

#[test]
fn a_device_is_declared_lost_by_its_first_digits() {
    let served = Served::start(0);
    let said = served.ok(&["devices", "lost", "a1", "--json"]).json();
    let id = said["lost"].as_str().unwrap();
    assert!(id.starts_with("a1"));
    assert_eq!(served.done(), [format!("lost {id}")]);
}

#[test]
fn a_restriction_is_lifted_at_a_device_or_in_the_store() {
    let served = Served::start(1);
    let listed = served.ok(&["restrictions", "--json"]).json();
    assert_eq!(listed["restrictions"], serde_json::json!([]));
    assert_eq!(served.hub.hubctl(&["restrictions", "lift"]).code, 2, "which?");
    served.ok(&["restrictions", "lift", "--store"]);
    let devices = served.ok(&["devices", "--json"]).json();
    let mut enrolled = devices["devices"].as_array().unwrap().iter();
    let enrolled = enrolled.find(|device| device["enrolled"] == true).unwrap();
    let id = enrolled["id"].as_str().unwrap();
    served.ok(&["restrictions", "lift", id]);
    assert_eq!(served.done(), ["lift the store".to_owned(), format!("lift {id}")]);
}

#[test]
fn a_clock_is_shown_and_confirmed_by_the_time_that_somebody_reads() {
    let served = Served::start(1);
    let report = served.ok(&["clock", "--json"]).json();
    assert_eq!(report["suspect"], false, "{report}");
    served.ok(&["clock", "confirm", "2026-11-26T10:15+01:00"]);
    assert_eq!(served.done(), ["clock 1795684500000"]);
    let said = served.hub.hubctl(&["clock", "confirm", "ten"]);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn a_drain_is_watched_until_only_parked_payments_are_left() {
    let served = Served::start(3);
    let said = served.ok(&["queue", "drain", "--json"]);
    let report = said.json();
    assert_eq!(report["drained"], true, "{report}");
    assert_eq!(
        (report["sent"].as_u64(), report["parked"].as_u64()),
        (Some(3), Some(1))
    );
    assert_eq!(served.done(), ["drain"]);
}

#[test]
fn a_drain_that_does_not_end_says_what_is_left_and_exits_with_1() {
    let served = Served::start(10);
    let said = served.hub.hubctl(&["queue", "drain", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stdout.contains("0 sent, 10 left to send; 1 parked"),
        "{said:?}"
    );
    assert!(said.stderr.contains("nothing is lost"), "{said:?}");
}

#[test]
fn a_policy_is_installed_as_it_was_signed() {
    let served = Served::start(0);
    let file = served.hub.file("policy.cose");
    let said = served.ok(&["policy", "install", path(&file)]);
    assert!(
        said.stdout
            .contains("version 7 is in force, until 2026-01-01T00:00:00Z"),
        "{said:?}"
    );
    let length = std::fs::metadata(&file).unwrap().len();
    assert_eq!(served.done(), [format!("policy of {length} bytes")]);
    let said = served
        .hub
        .hubctl(&["policy", "install", path(&served.hub.file("policy.toml"))]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("is not signed"), "{said:?}");
    assert!(served.done().is_empty());
}

#[test]
fn a_hub_that_cannot_be_reached_exits_with_69() {
    let mut served = Served::start(0);
    served.stop.take().unwrap().send(()).unwrap();
    drop(served.runtime);
    let said = served.hub.hubctl(&["status", "--json"]);
    assert_eq!(said.code, 69, "{said:?}");
    assert_eq!(said.json()["error"]["code"], "unreachable");
    let said = super::run(super::HUBCTL, &["status", "--socket", "/nonexistent/hubd.sock"]);
    assert_eq!(said.code, 69, "{said:?}");
}

#[test]
fn a_folder_without_a_configuration_exits_with_78() {
    let said = super::run(super::HUBCTL, &["--dir", "/nonexistent", "status"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(
        said.stderr.contains("/nonexistent/hubd.toml: does not exist"),
        "{said:?}"
    );
}

#[test]
fn a_change_of_a_key_that_leaves_devices_behind_is_done_with_yes_only() {
    let served = Served::start(0);
    let said = served.hub.hubctl(&["keys", "rotate", "tls"]);
    assert_eq!(said.code, 1, "{said:?}");
    for expected in ["Nothing was changed", "Caisse 1", "--yes"] {
        assert!(said.stderr.contains(expected), "{expected} in {said:?}");
    }
    let begun = served.ok(&["keys", "rotate", "tls", "--yes"]).stdout;
    assert!(
        begun.contains("2 of 3 devices know the new one") && begun.contains("Caisse 1"),
        "{begun}"
    );
    served.ok(&["keys", "rotate", "tls", "--finish", "--yes"]);
    served.ok(&["keys", "rotate", "tls", "--abandon", "--yes"]);
    assert_eq!(
        served
            .hub
            .hubctl(&["keys", "rotate", "tls", "--finish", "--abandon"])
            .code,
        2
    );
    served.ok(&["keys", "rotate", "signing", "--yes"]);
    assert_eq!(
        served.done(),
        [
            "rotate tls Begin false",
            "rotate tls Begin true",
            "rotate tls Finish true",
            "rotate tls Abandon true",
            "rotate signing true"
        ]
    );
}
