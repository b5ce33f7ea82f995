//! `hubctl ledger` on a real journal, and on copies of it that were touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{
    CommittedReceipt, Currency, Decision, DeviceId, Digest, Entry, EntrySeal, Event, PaymentId, Reason,
    Receipt, cbor,
};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Head, Journal, JournalOptions};

use super::{HUBCTL, Hub, Said, path, run};

const TIME: EntryTime = EntryTime {
    wall_ms: 1_767_225_600_000,
    monotonic_ms: 1,
    boot: [3; 16],
    quality: ClockQuality::Synchronised,
};

/// A hub with a ledger of ten entries, and receipts for the last two.
struct Kept {
    hub: Hub,
    receipts: [PathBuf; 2],
}

impl Kept {
    fn new() -> Self {
        Self::written(|_, entry| entry.encode())
    }

    /// As hubd writes it: what the entries say is encrypted.
    fn encrypted() -> Self {
        let mut seal = None;
        Self::written(|config, entry| {
            let seal = seal.get_or_insert_with(|| {
                let key = StoreKey::create(&config.layout, &[7; 32], &config.keys.vault).unwrap();
                EntrySeal::new(key.key())
            });
            seal.encode(entry)
        })
    }

    fn written(mut encode: impl FnMut(&Config, &Entry) -> Vec<u8>) -> Self {
        let hub = Hub::init(&[]);
        let config = Config::load(&hub.dir).unwrap();
        let options = JournalOptions {
            segment_bytes: 64 * 1024,
            create: true,
        };
        let signing = config.keys.signing.clone();
        let (mut journal, _) =
            Journal::open(&config.layout.ledger, config.keys.hub_id, signing, options).unwrap();
        let mut heads = Vec::new();
        for at in 0..10 {
            let before = journal.head();
            let entry = Entry {
                sequence: before.sequence + 1,
                previous: before.digest,
                time: TIME,
                policy_version: 1,
                event: Event::OperatorActed {
                    operator: "uid 0".to_owned(),
                    action: format!("test {at}"),
                },
            };
            heads.push(journal.append(&[encode(&config, &entry)]).unwrap());
        }
        let receipts = [8, 9].map(|at| {
            let head: Head = heads[at];
            let receipt = Receipt {
                hub: config.keys.hub_id,
                device: DeviceId([1; 32]),
                payment_id: PaymentId([2; 16]),
                request_digest: Digest([3; 32]),
                amount_minor: 1250,
                currency: Currency::EUR,
                decision: Decision::ApprovedOffline,
                reason: Reason::None,
                fallback: None,
                submission: None,
                gateway: None,
                sequence: head.sequence,
                entry_digest: head.digest,
                time: TIME,
                policy_version: 1,
                transaction_type: None,
                score: None,
            };
            let key = &config.keys.signing;
            let held = if at == 8 {
                // As wire version 1 had it.
                cose::sign(key, ObjectType::Receipt, &cbor::encode(&receipt))
            } else {
                cbor::encode(&CommittedReceipt::restated(
                    key,
                    &receipt,
                    head.sequence,
                    head.digest,
                ))
            };
            let file = hub.file(&format!("receipt-{at}"));
            fs::write(&file, held).unwrap();
            file
        });
        Self { hub, receipts }
    }

    fn segment(&self) -> PathBuf {
        let files = fs::read_dir(self.hub.file("ledger")).unwrap();
        let mut files = files
            .map(|file| file.unwrap().path())
            .filter(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files.next().expect("a segment")
    }

    fn verify(&self, more: &[&str]) -> Said {
        let mut args = vec!["ledger", "verify", "--json"];
        args.extend(more);
        self.hub.hubctl(&args)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_whole_ledger_verifies_with_the_receipts_that_devices_hold() {
    let kept = Kept::new();
    let [first, second] = &kept.receipts;
    let said = kept.verify(&["--receipt", path(first), "--receipt", path(second)]);
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(
        (report["verified"].as_bool(), report["entries"].as_u64()),
        (Some(true), Some(10))
    );
    assert_eq!(report["receipts"][1]["sequence"], 10);
}

#[test]
fn a_copied_ledger_verifies_with_nothing_but_the_public_key() {
    let kept = Kept::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = elsewhere.path().join("ledger");
    copy(&kept.hub.file("ledger"), &copied);
    let public = fs::read_to_string(kept.hub.file("hub-signing.pub")).unwrap();
    let file = elsewhere.path().join("key");
    fs::write(&file, &public).unwrap();
    for key in [public.trim(), path(&file)] {
        let said = run(
            HUBCTL,
            &["ledger", "verify", "--dir", path(&copied), "--key", key],
        );
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            said.stdout
                .contains("10 entries in 1 files, every signature and link is good"),
            "{said:?}"
        );
    }
    let said = run(HUBCTL, &["ledger", "verify", "--dir", path(&copied)]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("--key"), "{said:?}");
    let stranger = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    let said = run(
        HUBCTL,
        &["ledger", "verify", "--dir", path(&copied), "--key", stranger],
    );
    assert_eq!(said.code, 65, "{said:?}");
}

#[test]
fn a_flipped_byte_is_found_and_the_entry_named() {
    let kept = Kept::new();
    let segment = kept.segment();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"test 4").unwrap();
    bytes[at + 5] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let said = kept.verify(&[]);
    assert_eq!(said.code, 65, "{said:?}");
    assert_eq!(said.json()["broken"]["sequence"], 5, "{said:?}");
    assert!(
        said.stderr.contains("the first entry that does not verify is 5"),
        "{said:?}"
    );
}

#[test]
fn a_receipt_by_another_hub_or_above_the_end_does_not_verify() {
    let kept = Kept::new();
    let other = Kept::new();
    let said = kept.verify(&["--receipt", path(&other.receipts[0])]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(
        said.stdout.contains("is not a receipt that this hub signed"),
        "{said:?}"
    );
    // The folder as it was before the last entry, put back by somebody.
    let segment = kept.segment();
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.windows(6).position(|window| window == b"test 9").unwrap();
    // Everything behind the commit of entry 9 becomes unwritten space.
    let earlier = bytes.windows(6).position(|window| window == b"test 8").unwrap();
    let length = last - earlier;
    let keep = bytes.len().min(last);
    let from = (keep - length..keep)
        .rev()
        .find(|at| {
            let mut cut = bytes.clone();
            cut[*at..].fill(0);
            fs::write(&segment, &cut).unwrap();
            kept.verify(&[]).code == 0
        })
        .expect("a place at which the ledger is whole again");
    bytes[from..].fill(0);
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(kept.verify(&["--receipt", path(&kept.receipts[0])]).code, 0);
    let said = kept.verify(&["--receipt", path(&kept.receipts[1])]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(
        said.stdout
            .contains("what verifies ends at 9: the end was cut off"),
        "{said:?}"
    );
}

#[test]
fn what_can_be_read_of_a_damaged_ledger_is_salvaged() {
    let kept = Kept::new();
    let segment = kept.segment();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"test 4").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let out = kept.hub.file("salvaged.jsonl");
    let said = kept.hub.hubctl(&["ledger", "salvage", path(&out), "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(report["entries"], 9, "{report}");
    assert_eq!(report["gaps"][0]["after_sequence"], 4, "{report}");
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 9);
    assert_eq!(
        fs::read(&segment).unwrap(),
        bytes,
        "the ledger itself is not touched"
    );
    let again = kept.hub.hubctl(&["ledger", "salvage", path(&out)]);
    assert_eq!(again.code, 1, "nothing is overwritten: {again:?}");
}

#[test]
fn a_copied_encrypted_ledger_verifies_by_the_public_key_and_says_what_was_not_read() {
    let kept = Kept::encrypted();
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = elsewhere.path().join("ledger");
    copy(&kept.hub.file("ledger"), &copied);
    let public = kept.hub.file("hub-signing.pub");
    let verify = |more: &[&str]| {
        let mut args = vec!["ledger", "verify", "--json", "--dir", path(&copied)];
        args.extend(["--key", path(&public)]);
        args.extend(more);
        run(HUBCTL, &args)
    };
    let receipts = [
        "--receipt",
        path(&kept.receipts[0]),
        "--receipt",
        path(&kept.receipts[1]),
    ];
    let said = verify(&receipts);
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!((&report["entries"], &report["unread"]), (&10.into(), &10.into()));
    assert_eq!(report["kinds"]["operator-acted"], serde_json::Value::Null);
    // With the vault key, from the hub's own folder or given.
    let key = kept.hub.file("keys/hub-vault.key");
    for said in [verify(&["--vault-key", path(&key)]), kept.verify(&[])] {
        assert_eq!(said.code, 0, "{said:?}");
        let report = said.json();
        assert_eq!(
            (&report["unread"], &report["kinds"]["operator-acted"]),
            (&0.into(), &10.into())
        );
    }
    // Another key is said to be another one.
    let other = Kept::encrypted();
    let said = verify(&["--vault-key", path(&other.hub.file("keys/hub-vault.key"))]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("another vault key"), "{said:?}");
    // A changed byte of what is encrypted is found without any key.
    let segment = copied.join("00000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert_eq!(verify(&[]).code, 65);
}

#[test]
fn keys_of_single_entries_open_these_and_no_others() {
    let kept = Kept::encrypted();
    let out = kept.hub.file("disclosed.jsonl");
    let said = kept
        .hub
        .hubctl(&["ledger", "disclose", "--from", "4", "--to", "6", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = elsewhere.path().join("ledger");
    copy(&kept.hub.file("ledger"), &copied);
    let public = kept.hub.file("hub-signing.pub");
    let verify = |keys: &Path| {
        let args = [
            "ledger",
            "verify",
            "--json",
            "--dir",
            path(&copied),
            "--key",
            path(&public),
        ];
        run(HUBCTL, &[&args[..], &["--disclosed", path(keys)]].concat())
    };
    let said = verify(&out);
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(
        (&report["unread"], &report["kinds"]["operator-acted"]),
        (&7.into(), &3.into())
    );
    // A key that is said to be another entry's opens nothing.
    let text = fs::read_to_string(&out).unwrap();
    let moved = kept.hub.file("moved.jsonl");
    fs::write(&moved, text.replace("\"sequence\":4", "\"sequence\":7")).unwrap();
    let said = verify(&moved);
    assert_eq!(said.code, 65, "{said:?}");
    // Without the vault key there is nothing to disclose.
    let said = run(
        HUBCTL,
        &[
            "ledger",
            "disclose",
            "--all",
            "--dir",
            path(&copied),
            "--key",
            path(&public),
            path(&elsewhere.path().join("none")),
        ],
    );
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn what_is_salvaged_of_an_encrypted_ledger_is_opened_by_the_vault_key_only() {
    let kept = Kept::encrypted();
    let copied = kept.hub.file("copy");
    copy(&kept.hub.file("ledger"), &copied);
    let (public, key) = (
        kept.hub.file("hub-signing.pub"),
        kept.hub.file("keys/hub-vault.key"),
    );
    for (more, unread) in [(&[][..], 10), (&["--vault-key", path(&key)][..], 0)] {
        let out = kept.hub.file(&format!("salvaged-{unread}"));
        let args = [
            "ledger",
            "salvage",
            "--json",
            "--dir",
            path(&copied),
            "--key",
            path(&public),
        ];
        let said = run(HUBCTL, &[&args[..], more, &[path(&out)]].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let report = said.json();
        assert_eq!(
            (&report["entries"], &report["signed"], &report["unread"]),
            (&10.into(), &10.into(), &unread.into())
        );
        let lines = fs::read_to_string(&out).unwrap();
        assert_eq!(lines.contains("event_opened"), unread == 0);
        let mode = out.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "persons are named in it");
    }
}
