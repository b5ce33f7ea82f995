//! Stores that earlier versions wrote, opened by the program as it is now.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, PreparedPayment};
use serde_json::Value;

use super::running::Running;
use super::{Hub, path};

/// A copy of a store under `tests/fixtures`, and what is to be found in it.
struct Earlier {
    hub: Hub,
    root: PathBuf,
    expected: Value,
}

impl Earlier {
    fn unpack(name: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().to_owned();
        let unpacked = Command::new("tar")
            .args(["--no-same-owner", "-xzf"])
            .arg(fixtures.join(format!("{name}.tar.gz")))
            .arg("-C")
            .arg(&root)
            .status()
            .unwrap();
        assert!(unpacked.success());
        let expected = std::fs::read_to_string(root.join("expected.json")).unwrap();
        let hub = Hub {
            _root: temporary,
            dir: root.join("hub"),
        };
        // Whatever ports were free when it was made may be taken now.
        let file = hub.file("hubd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some((key @ ("listen" | "enrol_listen"), _)) => format!("{key} = \"127.0.0.1:0\""),
            Some(("url", _)) => "url = \"https://127.0.0.1:9/\"".to_owned(),
            _ => line.to_owned(),
        });
        let text: Vec<String> = lines.collect();
        std::fs::write(&file, text.join("\n")).unwrap();
        Self {
            hub,
            root,
            expected: serde_json::from_str(&expected).unwrap(),
        }
    }

    /// `hubctl ledger verify` with every receipt that the devices held.
    fn verify(&self) -> Value {
        let mut args = vec!["ledger".to_owned(), "verify".into(), "--json".into()];
        let receipts = std::fs::read_dir(self.root.join("receipts")).unwrap();
        for receipt in receipts {
            args.extend(["--receipt".into(), path(&receipt.unwrap().path()).to_owned()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = self.hub.hubctl(&args);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// What waits, once so many do: a hub that has just started takes its
    /// queue from the index part by part. The last that was seen of a thousand.
    fn queue_of(&self, many: usize) -> Vec<Value> {
        let mut items = Vec::new();
        for _ in 0..1000 {
            let queue = self.hub.hubctl(&["queue", "--json"]).json();
            items.clone_from(queue["items"].as_array().unwrap());
            if items.len() >= many {
                break;
            }
        }
        items
    }

    /// Asks again for the payment that a device has kept, with the same
    /// bytes. Gives sequence and digest of the answer's entry.
    fn ask_again(&self, listen: &str) -> (u64, String) {
        let device = self.root.join(format!(
            "dev-{}",
            self.expected["again"]["device"].as_str().unwrap()
        ));
        let bytes = std::fs::read(self.root.join("again.payment")).unwrap();
        let options = ClientOptions {
            static_addresses: vec![listen.parse().unwrap()],
            discovery: None,
            next_sequence: 1000,
            ..ClientOptions::default()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let receipt = runtime.block_on(async {
            let client = DeviceClient::new(
                DeviceIdentity::load(&device).unwrap(),
                Enrolled::load(&device).unwrap(),
                options,
            )
            .unwrap();
            let payment = PreparedPayment::from_bytes(&bytes).unwrap();
            client.pay(&payment).await.unwrap().receipt
        });
        (receipt.sequence, receipt.entry_digest.to_string())
    }
}

fn opens_with_the_same_queue_exposure_and_answers(name: &str) {
    let store = Earlier::unpack(name);
    let expected = &store.expected;
    assert_eq!(store.verify()["last_digest"], expected["last_digest"]);
    let running = Running::start(&store.hub);
    let status = store.hub.hubctl(&["status", "--json"]).json();
    for key in [
        "exposure_minor",
        "consecutive",
        "queued",
        "parked",
        "reversals_queued",
        "devices_enrolled",
    ] {
        assert_eq!(status[key], expected[key], "{key}");
    }
    assert_eq!(status["policy"]["version"], expected["policy_version"]);
    let wanted = expected["queue"].as_array().unwrap();
    let items = store.queue_of(wanted.len());
    assert_eq!(items.len(), wanted.len());
    for (item, wanted) in items.iter().zip(wanted) {
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(item[key], *value, "{key} of {item}");
        }
    }
    let again = &expected["again"];
    let answer = store.ask_again(status["listen"].as_str().unwrap());
    assert_eq!(
        (Some(answer.0), Some(answer.1.as_str())),
        (again["sequence"].as_u64(), again["entry_digest"].as_str()),
        "the first answer again"
    );
    running.terminate();
    let stamp = std::fs::read_to_string(store.hub.file("format")).unwrap();
    let stamped = format!("format = {}\n", hubd::ledger::STORE_FORMAT);
    assert!(
        stamp.contains(&stamped),
        "an older hubd must not open it: {stamp}"
    );
    let after = store.verify();
    assert!(after["entries"].as_u64() > expected["entries"].as_u64());
    let held = after["receipts"].as_array().unwrap();
    assert_eq!(held.len(), expected["receipts"].as_array().unwrap().len());
    assert!(held.iter().all(|receipt| receipt["present"] == true), "{held:?}");
}

#[test]
fn the_store_of_format_1_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v1");
}

#[test]
fn the_store_of_format_2_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v2");
}

#[test]
fn the_store_of_format_3_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v3");
}

#[test]
fn the_store_of_format_4_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v4");
}

#[test]
fn the_store_of_format_5_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v5");
}

#[test]
fn the_store_of_format_6_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v6");
}

#[test]
fn the_store_of_format_7_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v7");
}

#[test]
fn the_store_of_format_8_opens_with_the_same_queue_exposure_and_answers() {
    opens_with_the_same_queue_exposure_and_answers("store-v8");
}

#[test]
fn a_store_tells_of_its_closures_and_one_from_before_them_has_none() {
    let store = Earlier::unpack("store-v7");
    let closures = || store.hub.hubctl(&["ledger", "closures", "--json"]).json();
    assert_eq!(closures()["closures"], serde_json::json!([]));
    let since = store.expected["entries"].as_u64().unwrap() + 1;
    Running::start(&store.hub).terminate();
    let started = store.hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert!(started["entries"].as_u64() >= Some(since));
    // The newer one has them: of the day on which its archived payments were
    // made, 40 days before the others.
    let store = Earlier::unpack("store-v8");
    for period in ["day", "month"] {
        let said = store
            .hub
            .hubctl(&["ledger", "closures", "--json", "--period", period]);
        assert_eq!(said.code, 0, "{said:?}");
        let list = said.json();
        let closures = list["closures"].as_array().unwrap();
        assert!(!closures.is_empty(), "{list}");
        for closure in closures {
            assert_eq!(
                (&closure["held"], &closure["since_entry"]),
                (&"right".into(), &1.into())
            );
        }
    }
}

#[test]
fn the_store_of_format_6_opens_by_its_recovery_key_once_its_vault_key_is_lost() {
    let store = Earlier::unpack("store-v6");
    std::fs::remove_file(store.hub.file("keys").join("hub-vault.key")).unwrap();
    let said = store.hub.hubd("run", &[]);
    assert_ne!(said.code, 0, "{said:?}");
    let recovery = store.root.join("recovery.key");
    let said = store
        .hub
        .hubctl(&["keys", "recover", "--recovery", path(&recovery)]);
    assert_eq!(said.code, 0, "{said:?}");
    let running = Running::start(&store.hub);
    let wanted = store.expected["queue"].as_array().unwrap().len();
    assert_eq!(store.queue_of(wanted).len(), wanted);
    running.terminate();
}

#[test]
fn a_store_of_format_5_without_its_data_key_is_refused_and_says_what_to_put_back() {
    let store = Earlier::unpack("store-v5");
    let places = [store.hub.file("data-key"), store.hub.file("ledger/data-key")];
    let kept = std::fs::read(&places[0]).unwrap();
    for place in &places {
        std::fs::remove_file(place).unwrap();
    }
    // Not even if the stamp is lost too: nothing is begun anew.
    for stamp in [true, false] {
        if !stamp {
            std::fs::remove_file(store.hub.file("format")).unwrap();
        }
        let said = store.hub.hubd("run", &[]);
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("data-key"), "{said:?}");
        assert!(said.code == 78 || !stamp, "{said:?}");
        assert!(places.iter().all(|place| !place.exists()));
        // It verifies all the same.
        let report = store.verify();
        assert_eq!(report["last_digest"], store.expected["last_digest"]);
        assert!(report["unread"].as_u64() > Some(10), "{report}");
    }
    std::fs::write(store.hub.file("format"), "format = 5\n").unwrap();
    // One copy is enough, and the other is made again.
    std::fs::write(&places[1], &kept).unwrap();
    let running = Running::start(&store.hub);
    assert_eq!(store.hub.hubctl(&["status"]).code, 0);
    running.terminate();
    assert_eq!(std::fs::read(&places[0]).unwrap(), kept);
}

#[test]
fn a_newer_store_is_refused_and_systemd_is_told_not_to_try_again() {
    let store = Earlier::unpack("store-v1");
    std::fs::write(store.hub.file("format"), "format = 9\nwritten_by = \"8.0.0\"\n").unwrap();
    let said = store.hub.hubd("run", &[]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(
        said.stderr.contains("Start hubd 8.0.0 or a newer one"),
        "{said:?}"
    );
    let unit = include_str!("../../../systemd/hubd.service");
    assert!(unit.contains("RestartPreventExitStatus=75 78"));
}

#[test]
fn the_receipts_of_the_fixture_are_signed_objects_and_not_made_here() {
    let store = Earlier::unpack("store-v1");
    let mut count = 0;
    for receipt in std::fs::read_dir(store.root.join("receipts")).unwrap() {
        let text = std::fs::read_to_string(receipt.unwrap().path()).unwrap();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .unwrap();
        // COSE_Sign1, tagged.
        assert_eq!(bytes.first(), Some(&0xd2));
        count += 1;
    }
    assert_eq!(count, 17);
}
