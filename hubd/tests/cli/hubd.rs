//! `hubd init`, `hubd validate`, `hubd run`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{HUBCTL, HUBD, Hub, Said, path, run};

fn mode(hub: &Hub, name: &str) -> u32 {
    hub.file(name).metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn init_makes_private_keys_and_a_hub_that_validates() {
    let hub = Hub::init(&[
        "--store",
        "Café de l'Étoile",
        "--gateway",
        "https://psp.example.org/pay",
    ]);
    for key in [
        "hub-signing.key",
        "hub-tls.key",
        "hub-vault.key",
        "policy-local.key",
    ] {
        assert_eq!(mode(&hub, &format!("keys/{key}")), 0o600, "{key}");
    }
    assert_eq!(mode(&hub, ""), 0o700);
    assert_eq!(mode(&hub, "keys"), 0o700);
    let said = hub.hubd("validate", &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert!(
        said.stdout.contains("Café de l'Étoile (shop-001), EUR"),
        "{said:?}"
    );
    assert!(said.stdout.contains("https://psp.example.org/pay/"), "{said:?}");
}

#[test]
fn init_says_what_was_made_the_hubs_id_and_what_to_do_next() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("hub");
    let said = run(HUBD, &["init", "--dir", path(&dir), "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(report["hub_id"].as_str().unwrap().len(), 64);
    assert_eq!(report["files"].as_array().unwrap().len(), 8);
    let public = fs::read_to_string(dir.join("hub-signing.pub")).unwrap();
    assert_eq!(report["signing_public_key"].as_str().unwrap(), public.trim());
    assert!(!report["next_steps"].as_array().unwrap().is_empty());
    let valid = run(HUBD, &["validate", "--json", "--dir", path(&dir)]).json();
    assert_eq!(valid["valid"], true);
    assert_eq!(valid["hub_id"], report["hub_id"]);
    assert_eq!(valid["policy_version"], report["policy_version"]);
}

#[test]
fn init_refuses_to_overwrite_anything() {
    let hub = Hub::init(&[]);
    let before = fs::read(hub.file("keys/hub-tls.key")).unwrap();
    let said = hub.hubd("init", &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains("exists already; nothing was changed"),
        "{said:?}"
    );
    assert_eq!(fs::read(hub.file("keys/hub-tls.key")).unwrap(), before);
}

#[test]
fn init_writes_nothing_when_the_values_given_are_wrong() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("hub");
    let said = run(
        HUBD,
        &[
            "init",
            "--dir",
            path(&dir),
            "--gateway",
            "http://psp.example.org",
            "--store-id",
            "a b",
        ],
    );
    assert_eq!(said.code, 78, "{said:?}");
    assert!(
        said.stderr.contains("gateway.url") && said.stderr.contains("hub.store_id"),
        "{said:?}"
    );
    assert!(!dir.exists());
}

/// Breaks a hub in five places of two files.
fn broken() -> Hub {
    let hub = Hub::init(&[]);
    hub.edit("currency = \"EUR\"", "currency = \"euro\"");
    hub.edit("enabled = true", "enable = true");
    hub.edit("deadline = \"3s\"", "deadline = \"3 parsecs\"");
    hub.edit("level = \"info\"", "level = \"loud\"");
    fs::set_permissions(hub.file("keys/hub-vault.key"), fs::Permissions::from_mode(0o644)).unwrap();
    hub
}

fn names_every_fault(hub: &Hub, said: &Said) {
    let text = fs::read_to_string(hub.file("hubd.toml")).unwrap();
    for (needle, expected) in [
        ("currency = \"euro\"", "hub.currency"),
        (
            "enable = true",
            "discovery.enable is not a known key; did you mean enabled?",
        ),
        ("3 parsecs", "gateway.deadline: a duration from 100ms to 8s"),
        ("\"loud\"", "log.level: one of error, warn, info, debug, trace"),
    ] {
        let line = 1 + text.lines().position(|line| line.contains(needle)).unwrap();
        let expected = format!("{}:{line}: {expected}", path(&hub.file("hubd.toml")));
        assert!(said.stderr.contains(&expected), "{expected} in {said:?}");
    }
    let key = format!(
        "{}: is open to others (mode 0644)",
        path(&hub.file("keys/hub-vault.key"))
    );
    assert!(said.stderr.contains(&key), "{said:?}");
    assert!(said.stderr.contains("5 faults"), "{said:?}");
}

#[test]
fn validate_reports_every_fault_at_once_with_its_line_and_exits_with_78() {
    let hub = broken();
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 78, "{said:?}");
    names_every_fault(&hub, &said);
    let json = hub.hubd("validate", &["--json"]);
    assert_eq!(json.code, 78, "{json:?}");
    let report = json.json();
    assert_eq!(report["valid"], false);
    assert_eq!(report["faults"].as_array().unwrap().len(), 5, "{report}");
}

#[test]
fn run_refuses_to_start_on_any_fault_and_exits_with_78() {
    let hub = broken();
    let said = hub.hubd("run", &[]);
    assert_eq!(said.code, 78, "{said:?}");
    names_every_fault(&hub, &said);
    assert!(!hub.file("ledger").exists(), "nothing was started");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let hub = Hub::init(&[]);
    for key in ["hub-signing.key", "hub-tls.key", "hub-vault.key"] {
        let file = hub.file("keys").join(key);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        for command in ["validate", "run"] {
            let said = hub.hubd(command, &[]);
            assert_eq!(said.code, 78, "{said:?}");
            assert!(
                said.stderr.contains(&format!("chmod 600 {}", path(&file))),
                "{said:?}"
            );
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_missing_policy_is_allowed_and_said() {
    let hub = Hub::init(&[]);
    fs::remove_file(hub.file("policy.cose")).unwrap();
    let said = hub.hubd("validate", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr
            .contains("policy.cose: does not exist: nothing is approved offline"),
        "{said:?}"
    );
}

#[test]
fn wrong_usage_exits_with_2_and_both_programs_explain_themselves() {
    for program in [HUBD, HUBCTL] {
        assert_eq!(run(program, &["frobnicate"]).code, 2);
        let help = run(program, &["--help"]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Exit codes: 0 done, 1"), "{help:?}");
        assert!(
            run(program, &["--version"])
                .stdout
                .contains(env!("CARGO_PKG_VERSION"))
        );
    }
}
