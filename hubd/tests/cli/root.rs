//! `hubctl root`, on files, and the root in `hubd.toml`.

use std::fs;

use ed25519_dalek::SigningKey;
use hub_protocol::root::{Root, SignedRoot};

use super::running::{Running, loopback};
use super::{HUBCTL, Hub, Said, path, run};

/// Keys of headquarters lie in the hub's own folder here.
struct Holders<'h>(&'h Hub);

impl Holders<'_> {
    fn new(hub: &Hub) -> Holders<'_> {
        for seed in 1..=5_u8 {
            let file = hub.file(&format!("holder-{seed}"));
            fs::write(&file, format!("{}\n", hex(&[seed; 32]))).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&file, private).unwrap();
        }
        Holders(hub)
    }

    fn text(&self, version: u32, keys: &[u8], delegates: &[String]) -> String {
        let mut text = format!(
            "tenant = \"demo\"\nversion = {version}\nexpires = 2040-01-01T00:00:00Z\nthreshold = 2\n"
        );
        for seed in keys {
            let public = hex(&SigningKey::from_bytes(&[*seed; 32]).verifying_key().to_bytes());
            text += &format!("[[key]]\nname = \"holder {seed}\"\nkey = \"{public}\"\n");
        }
        for (place, key) in delegates.iter().enumerate() {
            text += &format!(
                "[[delegate]]\nname = \"desk {place}\"\nkey = \"{key}\"\nstores = [\"*\"]\nsigns = [\"policies\"]\n\
                 not_before = 2026-01-01T00:00:00Z\nexpires = 2040-01-01T00:00:00Z\n"
            );
        }
        text
    }

    fn init(&self, version: u32, keys: &[u8], delegates: &[String]) -> String {
        let (text, root) = (
            self.0.file("root.toml"),
            self.0.file(&format!("root-{version}.cose")),
        );
        fs::write(&text, self.text(version, keys, delegates)).unwrap();
        let said = self.0.hubctl(&["root", "init", path(&text), path(&root)]);
        assert_eq!(said.code, 0, "{said:?}");
        path(&root).to_owned()
    }

    fn sign(&self, root: &str, seed: u8, before: Option<&str>) -> Said {
        let key = self.0.file(&format!("holder-{seed}"));
        let mut args = vec!["root", "sign", "--json", "--key", path(&key), root];
        if let Some(before) = before {
            args.extend(["--before", before]);
        }
        self.0.hubctl(&args)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key that signed the sample policy.
fn local_key(hub: &Hub) -> String {
    let text = fs::read_to_string(hub.file("hubd.toml")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("trusted_keys = "))
        .unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// `trusted_keys = [...]` as it stands.
fn trusted_line(hub: &Hub) -> String {
    let text = fs::read_to_string(hub.file("hubd.toml")).unwrap();
    text.lines()
        .find(|line| line.starts_with("trusted_keys = "))
        .unwrap()
        .to_owned()
}

#[test]
fn a_root_collects_signatures_and_is_shown_and_verified() {
    let hub = Hub::init(&[]);
    let holders = Holders::new(&hub);
    let root = holders.init(1, &[1, 2, 3], &[local_key(&hub)]);
    let again = hub.hubctl(&["root", "init", path(&hub.file("root.toml")), &root]);
    assert_eq!(again.code, 1, "never over signatures: {again:?}");
    let said = hub.hubctl(&["root", "verify", &root]);
    assert_eq!(said.code, 65);
    assert!(said.stderr.contains("0 of the 2 signatures"), "{said:?}");
    for _ in 0..2 {
        let json = holders.sign(&root, 1, None).json();
        assert_eq!(json["own"]["signed_by"].as_array().unwrap().len(), 1, "{json}");
    }
    assert_eq!(hub.hubctl(&["root", "verify", &root]).code, 65, "one of three");
    let stranger = holders.sign(&root, 4, None);
    assert_eq!(stranger.code, 1);
    assert!(stranger.stderr.contains("--before"), "{stranger:?}");
    assert_eq!(holders.sign(&root, 3, None).code, 0);
    let said = hub.hubctl(&["root", "verify", &root]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("2 of 2 signatures (holder 1, holder 3)"),
        "{said:?}"
    );
    let said = hub.hubctl(&["root", "show", &root]);
    for expected in ["Root 1 of demo", "desk 0", "policies", "holder 2"] {
        assert!(said.stdout.contains(expected), "{expected} in {said:?}");
    }
    let json = hub.hubctl(&["root", "show", "--json", &root]).json();
    let signed: Vec<bool> = (0..3)
        .map(|place| json["keys"][place]["signed"].as_bool().unwrap())
        .collect();
    assert_eq!(signed, [true, false, true]);
    // What the next one is written from says the same.
    let text = hub.hubctl(&["root", "show", "--toml", &root]).stdout;
    let (written, other) = (hub.file("again.toml"), hub.file("again.cose"));
    fs::write(&written, text).unwrap();
    hub.hubctl(&["root", "init", path(&written), path(&other)]);
    let content = |file: &str| -> Root {
        SignedRoot::parse(&fs::read(file).unwrap())
            .unwrap()
            .root()
            .clone()
    };
    assert_eq!(content(path(&other)), content(&root));
    let damaged = hub.file("damaged.cose");
    let mut bytes = fs::read(&root).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let said = hub.hubctl(&["root", "verify", path(&damaged)]);
    assert_eq!(said.code, 65);
    assert!(said.stderr.contains("the signature does not verify"), "{said:?}");
}

#[test]
fn a_root_with_faults_is_not_made() {
    let hub = Hub::init(&[]);
    let holders = Holders::new(&hub);
    let (text, out) = (hub.file("root.toml"), hub.file("root.cose"));
    let bad = holders.text(1, &[1, 2, 2], &[]).replace("tenant =", "tennant =");
    fs::write(&text, bad).unwrap();
    let said = run(HUBCTL, &["root", "init", path(&text), path(&out)]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(
        said.stderr.contains("root.toml:1: tennant is not a known key"),
        "{said:?}"
    );
    fs::write(&text, holders.text(1, &[1, 2, 2], &[])).unwrap();
    let said = run(HUBCTL, &["root", "init", path(&text), path(&out)]);
    assert!(said.stderr.contains("stands in it twice"), "{said:?}");
    assert!(!out.exists());
}

#[test]
fn a_configuration_names_a_root_or_keys_and_the_root_must_have_its_threshold() {
    let hub = Hub::init(&[]);
    let holders = Holders::new(&hub);
    let (key, trusted) = (local_key(&hub), trusted_line(&hub));
    let root = holders.init(1, &[1, 2, 3], std::slice::from_ref(&key));
    hub.edit(&trusted, &format!("{trusted}\nroot_file = \"root-1.cose\""));
    holders.sign(&root, 1, None);
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(
        said.stderr.contains("take it or policy.trusted_keys out"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("1 of the 2 signatures"),
        "all faults at once: {said:?}"
    );
    hub.edit(&format!("{trusted}\n"), "");
    assert_eq!(hub.hubd("validate", &[]).code, 78);
    holders.sign(&root, 2, None);
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("policy demo version 1"), "{said:?}");
    assert_eq!(
        hub.hubctl(&["policy", "check", path(&hub.file("policy.cose"))])
            .code,
        0
    );
    hub.edit(
        "\nroot_file = \"root-1.cose\"",
        "\nroot_file = \"elsewhere.cose\"",
    );
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 78);
    assert!(said.stderr.contains("elsewhere.cose: does not exist"), "{said:?}");
    // A root that does not know the policy's key is a warning: a later one may.
    let other = holders.init(7, &[1, 2, 3], &[]);
    holders.sign(&other, 1, None);
    holders.sign(&other, 2, None);
    hub.edit("elsewhere.cose", "root-7.cose");
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("nor delegated by the root in force"),
        "{said:?}"
    );
}

#[test]
fn a_running_hub_takes_the_next_root_and_no_other() {
    let hub = loopback();
    let holders = Holders::new(&hub);
    let (key, trusted) = (local_key(&hub), trusted_line(&hub));
    let first = holders.init(1, &[1, 2, 3], std::slice::from_ref(&key));
    let second = holders.init(2, &[1, 2, 4], std::slice::from_ref(&key));
    let third = holders.init(3, &[1, 2, 4], &[key]);
    for (root, before, by) in [
        (&first, None, &[1_u8, 2][..]),
        (&second, Some(&first), &[3, 4]),
        (&third, Some(&second), &[1, 2]),
    ] {
        for seed in by {
            let said = holders.sign(root, *seed, before.map(String::as_str));
            assert_eq!(said.code, 0, "{said:?}");
        }
    }
    hub.edit(&trusted, "root_file = \"root-1.cose\"");
    let running = Running::start(&hub);
    let apply = |files: &[&str]| hub.hubctl(&[&["root", "apply"], files].concat());
    let said = apply(&[&second]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr
            .contains("1 of the 2 signatures that are wanted of the keys of root 1"),
        "{said:?}"
    );
    assert_eq!(hub.hubctl(&["root", "verify", &first, &second]).code, 65);
    assert_eq!(holders.sign(&second, 1, Some(&first)).code, 0);
    assert_eq!(hub.hubctl(&["root", "verify", &first, &second, &third]).code, 0);
    let said = apply(&[&third]);
    assert!(said.stderr.contains("root 2 comes next"), "{said:?}");
    let said = apply(&[&second, &third]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("Root 3 is in force, until 2040-01-01"),
        "{said:?}"
    );
    let status = hub.hubctl(&["status"]);
    assert!(
        status.stdout.contains("version 3, until 2040-01-01"),
        "{status:?}"
    );
    let doctor = hub.hubctl(&["doctor", "--json"]).json().to_string();
    assert!(doctor.contains("version 3, until 2040-01-01"), "{doctor}");
    running.terminate();
    // The ledger says who did it.
    let out = hub.file("salvaged.jsonl");
    assert_eq!(hub.hubctl(&["ledger", "salvage", path(&out)]).code, 0);
    let lines = fs::read_to_string(&out).unwrap();
    let applied: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("root-applied"))
        .collect();
    assert_eq!(applied.len(), 3, "{lines}");
}
