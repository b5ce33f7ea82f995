use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use tempfile::TempDir;

use super::*;

use crate::init::{InitOptions, init};

mod iso8583;

struct Hub {
    _root: TempDir,
    dir: PathBuf,
}

impl Hub {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("hub");
        init(&dir, &InitOptions::default()).unwrap();
        Self { _root: root, dir }
    }

    /// Replaces text in hubd.toml; it must be there.
    fn edit(&self, from: &str, to: &str) -> &Self {
        let file = self.dir.join("hubd.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in the sample");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        self
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> &Self {
        let path = self.dir.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn load(&self) -> Result<Config, Vec<ConfigFault>> {
        Config::load(&self.dir)
    }

    /// The faults, as people see them, without the folder.
    fn faults(&self) -> Vec<String> {
        let faults = self.load().expect_err("the configuration has faults");
        let folder = format!("{}/", self.dir.display());
        faults
            .iter()
            .map(|fault| fault.to_string().replace(&folder, ""))
            .collect()
    }

    /// The line of hubd.toml that holds a text.
    fn line(&self, needle: &str) -> usize {
        let text = fs::read_to_string(self.dir.join("hubd.toml")).unwrap();
        1 + text.lines().position(|line| line.contains(needle)).unwrap()
    }
}

#[test]
fn the_defaults_stated_in_the_sample_are_those_that_hold_without_the_keys() {
    let hub = Hub::new();
    let full = hub.load().unwrap();
    let text = fs::read_to_string(hub.dir.join("hubd.toml")).unwrap();
    let keep = ["store", "store_id", "currency", "url", "trusted_keys"];
    let sparse: String = text
        .lines()
        .filter(|line| line.starts_with('[') || keep.iter().any(|key| line.starts_with(&format!("{key} = "))))
        .map(|line| format!("{line}\n"))
        .collect();
    hub.write("hubd.toml", sparse, 0o644);
    let sparse = hub.load().unwrap();
    assert_eq!(sparse.devices, full.devices);
    assert_eq!(sparse.discovery, full.discovery);
    assert_eq!(format!("{:?}", sparse.gateway), format!("{:?}", full.gateway));
    assert_eq!(sparse.policy.file, full.policy.file);
    assert_eq!(sparse.ledger, full.ledger);
    assert_eq!(sparse.admin, full.admin);
    assert_eq!(sparse.log, full.log);
}

#[test]
fn nothing_is_archived_that_the_gateway_still_knows_by_its_key() {
    let hub = Hub::new();
    hub.edit("idempotency_retention_h = 24", "idempotency_retention_h = 744")
        .edit("retention_days = 90", "retention_days = 31");
    let faults = hub.faults();
    let line = hub.line("retention_days");
    let expected = "ledger.retention_days: longer than gateway.idempotency_retention_h expected";
    let found = |fault: &String| fault.contains(expected) && fault.contains(&format!(":{line}"));
    assert!(faults.iter().any(found), "{faults:?}");
}

#[test]
fn each_wrong_value_is_named_with_its_line_and_what_would_be_right() {
    // What is replaced, by what, and what the fault says.
    let cases = [
        (
            "store = \"Épicerie du Port\"",
            "store = \"\"",
            "hub.store: the shop's name in 1 to 64 bytes expected, \"\" found",
        ),
        (
            "store_id = \"shop-001\"",
            "store_id = \"shop 1\"",
            "hub.store_id: 1 to 64 letters",
        ),
        (
            "currency = \"EUR\"",
            "currency = \"euro\"",
            "hub.currency: three capital letters",
        ),
        (
            "listen = \"0.0.0.0:7411\"",
            "listen = \"0.0.0.0\"",
            "devices.listen: an address and port",
        ),
        (
            "enrol_listen = \"0.0.0.0:7412\"",
            "enrol_listen = \"0.0.0.0:7411\"",
            "devices.enrol_listen: another port",
        ),
        (
            "advertise = []",
            "advertise = [\"0.0.0.0\"]",
            "devices.advertise: a list of at most 8 addresses",
        ),
        (
            "requests_per_second = 100",
            "requests_per_second = 0",
            "devices.requests_per_second: a whole number from 1 to 1000000",
        ),
        (
            "enabled = true",
            "enabled = \"yes\"",
            "discovery.enabled: true or false expected",
        ),
        (
            "interfaces = []",
            "interfaces = [\"a/b\"]",
            "discovery.interfaces: a list of at most 16",
        ),
        (
            "url = \"https://",
            "url = \"http://",
            "gateway.url: an https address",
        ),
        (
            "url = \"https://gateway",
            "url = \"https://me:secret@gateway",
            "gateway.url: an https address",
        ),
        (
            "deadline = \"3s\"",
            "deadline = \"31s\"",
            "gateway.deadline: a duration from 100ms to 8s",
        ),
        (
            "deadline = \"3s\"",
            "deadline = 3",
            "gateway.deadline: a duration from 100ms to 8s",
        ),
        (
            "probe_interval = \"5s\"",
            "probe_interval = \"5\"",
            "gateway.probe_interval: a duration from 100ms to 10m",
        ),
        (
            "max_in_flight = 64",
            "max_in_flight = 0",
            "gateway.max_in_flight: a whole number from 1 to 64",
        ),
        (
            "idempotency_retention_h = 24",
            "idempotency_retention_h = 745",
            "gateway.idempotency_retention_h: hours from 1 to 744",
        ),
        (
            "undecided_after = \"4h\"",
            "undecided_after = \"9m\"",
            "gateway.undecided_after: a duration from 10m to 168h",
        ),
        (
            "undecided_after = \"4h\"",
            "undecided_after = \"169h\"",
            "gateway.undecided_after: a duration from 10m to 168h",
        ),
        (
            "spread = \"0s\"",
            "spread = \"2h\"",
            "gateway.spread: a duration from 0s to 1h",
        ),
        (
            "#ca_file = \"gateway-ca.pem\"",
            "ca_file = \"gone.pem\"",
            "gone.pem does not exist",
        ),
        (
            "#credential_file = \"gateway.credential\"",
            "credential_file = \"gone\"",
            "gone does not exist",
        ),
        (
            "trusted_keys = [",
            "trusted_keys = [\"00\", ",
            "policy.trusted_keys: a list of at most 8 Ed25519",
        ),
        (
            "file = \"policy.cose\"",
            "file = 3",
            "policy.file: the path of a file expected",
        ),
        (
            "retention_days = 90",
            "retention_days = 1",
            "ledger.retention_days: days from 2 to 3660",
        ),
        (
            "archive_mib = 4096",
            "archive_mib = 63",
            "ledger.archive_mib: MiB from 64 to 1048576",
        ),
        // Not as it was printed: what was wrapped for it nobody could open.
        (
            "archive_mib = 4096",
            "recovery_key = \"hubrec1-0000000000000000000000000000000000000000000000000000000000000000-00000000\"",
            "ledger.recovery_key: the line that `hubctl keygen --recovery` printed, as it stands",
        ),
        (
            "archive_mib = 4096",
            "recovery_key = \"3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29\"",
            "ledger.recovery_key: the line that `hubctl keygen --recovery` printed, as it stands",
        ),
        (
            "segment_mib = 16",
            "segment_mib = 1025",
            "ledger.segment_mib: MiB from 1 to 1024",
        ),
        (
            "level = \"info\"",
            "level = \"loud\"",
            "log.level: one of error, warn",
        ),
        (
            "format = \"text\"",
            "format = \"xml\"",
            "log.format: \"text\" or \"json\"",
        ),
    ];
    for (from, to, expected) in cases {
        let hub = Hub::new();
        let faults = hub.edit(from, to).faults();
        let line = hub.line(to);
        assert_eq!(faults.len(), 1, "{to}: {faults:#?}");
        assert!(
            faults[0].starts_with(&format!("hubd.toml:{line}: ")),
            "{to}: {faults:#?}"
        );
        assert!(faults[0].contains(expected), "{to}: {faults:#?}");
    }
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_a_fault() {
    let hub = Hub::new();
    let faults = hub
        .edit(
            "socket = \"hubd.sock\"",
            &format!("socket = \"/{}\"", "s".repeat(100)),
        )
        .faults();
    assert!(
        faults[0].contains("admin.socket: a path of at most 100 bytes"),
        "{faults:#?}"
    );
}

#[test]
fn all_faults_of_all_files_are_reported_at_once() {
    let hub = Hub::new();
    hub.edit("currency = \"EUR\"", "currency = \"eur\"")
        .edit("deadline = \"3s\"", "deadine = \"3s\"")
        .edit("[log]", "[logs]")
        .write("keys/hub-vault.key", "short\n", 0o600)
        .write("policy.cose", "not signed", 0o644);
    fs::remove_file(hub.dir.join("keys/hub-tls.key")).unwrap();
    let faults = hub.faults();
    let (currency, deadline, log) = (hub.line("\"eur\""), hub.line("deadine"), hub.line("[logs]"));
    let expected = [
        format!("hubd.toml:{currency}: hub.currency"),
        format!("hubd.toml:{deadline}: gateway.deadine is not a known key"),
        format!("hubd.toml:{log}: logs is not a known key"),
        "keys/hub-tls.key: does not exist".to_owned(),
        "keys/hub-vault.key: is not a key: 64 hex digits".to_owned(),
        "policy.cose: not a signed policy".to_owned(),
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(&expected) {
        assert!(
            fault.starts_with(expected),
            "{fault} should begin with {expected}"
        );
    }
}

#[test]
fn an_unknown_key_is_a_fault_that_names_the_nearest_known_one() {
    let hub = Hub::new();
    let faults = hub.edit("probe_interval =", "prob_interval =").faults();
    assert!(
        faults[0].contains("gateway.prob_interval is not a known key; did you mean probe_interval?"),
        "{faults:#?}"
    );
}

#[test]
fn syntax_errors_have_lines_and_do_not_hide_faults_of_the_keys() {
    let hub = Hub::new();
    let faults = hub
        .edit("segment_mib = 16", "segment_mib = ")
        .write("keys/hub-vault.key", "", 0o600)
        .faults();
    let line = hub.line("segment_mib = ");
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(
        faults[0].starts_with(&format!("hubd.toml:{line}: ")),
        "{faults:#?}"
    );
    assert!(faults[1].starts_with("keys/hub-vault.key: "), "{faults:#?}");
}

#[test]
fn a_doubled_key_is_a_fault() {
    let hub = Hub::new();
    let faults = hub
        .edit("segment_mib = 16", "segment_mib = 64\nsegment_mib = 65")
        .faults();
    assert!(faults[0].contains("duplicate key"), "{faults:#?}");
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let secrets = ["keys/hub-signing.key", "keys/hub-tls.key", "keys/hub-vault.key"];
    for name in secrets {
        for mode in [0o640, 0o604, 0o620] {
            let hub = Hub::new();
            fs::set_permissions(hub.dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
            let faults = hub.faults();
            assert_eq!(faults.len(), 1, "{faults:#?}");
            assert!(
                faults[0].starts_with(&format!("{name}: is open to others (mode {mode:04o})")),
                "{faults:#?}"
            );
        }
    }
    let hub = Hub::new();
    let faults = hub
        .edit("#credential_file", "credential_file")
        .write("gateway.credential", "x", 0o644)
        .faults();
    assert!(
        faults[0].contains("gateway.credential is open to others (mode 0644)"),
        "{faults:#?}"
    );
}

#[test]
fn a_present_key_that_cannot_be_used_is_refused_beside_a_next_one_too() {
    for key in ["signing", "tls", "vault"] {
        let [own, next] = ["", ".next"].map(|which| format!("keys/hub-{key}{which}.key"));
        let hub = Hub::new();
        fs::copy(hub.dir.join(&own), hub.dir.join(&next)).unwrap();
        assert!(hub.load().is_ok(), "{key}: both are good");
        fs::set_permissions(hub.dir.join(&own), fs::Permissions::from_mode(0o644)).unwrap();
        let faults = hub.faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        let expected = format!("{own}: is open to others (mode 0644)");
        assert!(faults[0].starts_with(&expected), "{faults:#?}");
        let faults = hub.write(&own, "no key", 0o600).faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(faults[0].starts_with(&format!("{own}: is not a")), "{faults:#?}");
        // What a power cut leaves of a key that has given way.
        assert!(
            hub.write(&own, [0; 65], 0o600).load().is_ok(),
            "{key}: overwritten"
        );
        fs::remove_file(hub.dir.join(&own)).unwrap();
        assert!(hub.load().is_ok(), "{key}: gone");
    }
}

#[test]
fn a_secret_of_somebody_else_is_refused() {
    const STRANGER: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: giving files away needs root");
        return;
    }
    let hub = Hub::new();
    hub.edit("#credential_file", "credential_file")
        .write("gateway.credential", "x", 0o600);
    for name in [
        "keys/hub-signing.key",
        "keys/hub-tls.key",
        "keys/hub-vault.key",
        "gateway.credential",
    ] {
        let file = hub.dir.join(name);
        chown(&file, Some(STRANGER), None).unwrap();
        let faults = hub.faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(
            faults[0].contains(name) && faults[0].contains("belongs to user 65534"),
            "{faults:#?}"
        );
        chown(&file, Some(0), None).unwrap();
    }
    // Root looks after a hub that runs as a user of its own: wherever its
    // secrets lie.
    let elsewhere = hub.dir.with_file_name("gateway.credential");
    fs::rename(hub.dir.join("gateway.credential"), &elsewhere).unwrap();
    hub.edit("\"gateway.credential\"", "\"../gateway.credential\"");
    for file in [
        "",
        "keys",
        "keys/hub-signing.key",
        "keys/hub-tls.key",
        "keys/hub-vault.key",
        "../gateway.credential",
    ] {
        chown(hub.dir.join(file), Some(STRANGER), None).unwrap();
    }
    hub.load().unwrap();
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    for name in ["", "keys"] {
        let hub = Hub::new();
        fs::set_permissions(hub.dir.join(name), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(hub.faults()[0].contains("can be written to by others (mode 0770)"));
    }
}

#[test]
fn a_public_key_file_of_another_key_is_refused() {
    let hub = Hub::new();
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key();
    let faults = hub
        .write(
            "hub-signing.pub",
            data_encoding::HEXLOWER.encode(other.as_bytes()),
            0o644,
        )
        .faults();
    assert!(
        faults[0].contains("is not the public half of keys/hub-signing.key"),
        "{faults:#?}"
    );
}

#[test]
fn a_policy_by_a_stranger_or_for_another_shop_is_refused() {
    let sign = |hub: &Hub, key: &SigningKey, text: &str| {
        hub.write(
            "policy.cose",
            cose::sign(key, ObjectType::Policy, text.as_bytes()),
            0o644,
        );
        hub.faults()
    };
    let hub = Hub::new();
    let text = fs::read_to_string(hub.dir.join("policy.toml")).unwrap();
    let key = read_signing_key(&hub.dir.join("keys/policy-local.key")).unwrap();
    let faults = sign(&hub, &SigningKey::from_bytes(&[7; 32]), &text);
    assert!(
        faults[0].contains("not among [policy] trusted_keys"),
        "{faults:#?}"
    );
    let faults = sign(
        &hub,
        &key,
        &text.replace("stores = [\"*\"]", "stores = [\"shop-002\"]"),
    );
    assert!(faults[0].contains("[hub] store_id = \"shop-001\""), "{faults:#?}");
    let faults = sign(
        &hub,
        &key,
        &text.replace("currency = \"EUR\"", "currency = \"CHF\""),
    );
    assert!(
        faults[0].contains("is for CHF, and the shop takes EUR"),
        "{faults:#?}"
    );
    let faults = sign(&hub, &key, &text.replace("[store]", "[stor]"));
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("in the signed text, line")),
        "{faults:#?}"
    );
}

#[test]
fn a_missing_or_expired_policy_is_a_warning_because_silence_means_no() {
    let hub = Hub::new();
    let key = read_signing_key(&hub.dir.join("keys/policy-local.key")).unwrap();
    let text = SAMPLE_POLICY_2001;
    hub.write(
        "policy.cose",
        cose::sign(&key, ObjectType::Policy, text.as_bytes()),
        0o644,
    );
    let config = hub.load().unwrap();
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.message.contains("has expired"))
    );
    fs::remove_file(hub.dir.join("policy.cose")).unwrap();
    let config = hub.load().unwrap();
    assert!(config.policy.present.is_none());
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.message.contains("nothing is approved offline"))
    );
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let faults = Config::load(Path::new("/nonexistent")).unwrap_err();
    assert!(faults[0].message.contains("hubd init"), "{}", faults[0]);
}

#[test]
fn nothing_secret_shows_in_debug_output() {
    let hub = Hub::new();
    hub.edit("#credential_file", "credential_file")
        .write("gateway.credential", "tok-sesame\n", 0o600);
    let config = hub.load().unwrap();
    let Peer::Https { credential, .. } = &config.gateway.peer else {
        panic!("https is the default");
    };
    assert_eq!(credential.as_deref().map(String::as_str), Some("tok-sesame"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("tok-sesame"));
    for key in ["hub-signing.key", "hub-vault.key"] {
        let text = fs::read_to_string(hub.dir.join("keys").join(key)).unwrap();
        assert!(!shown.contains(text.trim()), "{key}");
        let bytes = data_encoding::HEXLOWER.decode(text.trim().as_bytes()).unwrap();
        assert!(!shown.contains(&format!("{bytes:?}")), "{key}");
    }
}

#[test]
fn the_admin_socket_is_found_in_spite_of_faults_elsewhere() {
    let hub = Hub::new();
    hub.edit("currency = \"EUR\"", "currency = 3");
    assert_eq!(Config::admin_socket(&hub.dir).unwrap(), hub.dir.join("hubd.sock"));
}

const SAMPLE_POLICY_2001: &str = r#"
format = 1
tenant = "demo"
stores = ["*"]
version = 1
not_before = 2001-01-01T00:00:00Z
expires = 2001-02-01T00:00:00Z
currency = "EUR"
offline = { enabled = true, longest_minutes = 1, schemes = ["cb"], funding = ["debit"], entry_modes = ["chip"] }
store = { exposure_ceiling = 1, consecutive_limit = 1 }
card = { exposure_ceiling = 1, consecutive_limit = 1 }
class.mpos = { transaction_ceiling = 1, device_exposure_ceiling = 1, device_consecutive_limit = 1 }
"#;

/// The shop's name is logged, announced and sent to every device.
#[test]
fn rule_6_a_configuration_that_holds_a_card_number_is_refused_and_not_repeated() {
    let hub = Hub::new();
    let store = fs::read_to_string(hub.dir.join("hubd.toml")).unwrap();
    let line = store.lines().find(|line| line.starts_with("store = ")).unwrap();
    let faults = hub.edit(line, "store = \"4929 1234 5678 9015\"").faults();
    assert_eq!(faults.len(), 1, "{faults:#?}");
    assert!(
        faults[0].contains("hub.store holds a clear card number"),
        "{faults:#?}"
    );
    assert!(!faults[0].contains("4929"), "{faults:#?}");
}

#[test]
fn a_shop_whose_id_is_its_siret_starts() {
    let hub = Hub::new();
    let file = fs::read_to_string(hub.dir.join("hubd.toml")).unwrap();
    let line = file.lines().find(|line| line.starts_with("store_id = ")).unwrap();
    hub.edit(line, "store_id = \"38123456700018\"").load().unwrap();
}
