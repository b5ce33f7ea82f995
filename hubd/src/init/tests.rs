use super::*;
use crate::config::Config;

fn keys_of(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once(" = "))
        .filter(|(key, _)| !key.contains(' '))
        .map(|(key, _)| key.to_owned())
        .collect()
}

#[test]
fn the_written_configuration_is_the_sample_but_for_the_values_given() {
    let options = InitOptions {
        store: Some("Quai \"Nord\"".to_owned()),
        gateway_ca: Some(PathBuf::from("/etc/ssl/gateway.pem")),
        interfaces: vec!["lo".to_owned()],
        ..InitOptions::default()
    };
    let text = config_text(&options, &"ab".repeat(32)).unwrap();
    let changed: Vec<(&str, &str)> = config::SAMPLE
        .lines()
        .zip(text.lines())
        .filter(|(sample, written)| sample != written)
        .collect();
    assert_eq!(text.lines().count(), config::SAMPLE.lines().count());
    assert_eq!(
        changed.iter().map(|(sample, _)| *sample).collect::<Vec<_>>(),
        [
            "store = \"Épicerie du Port\"",
            "interfaces = []",
            "#ca_file = \"gateway-ca.pem\"",
            "trusted_keys = []"
        ]
    );
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["hub"]["store"].as_str(), Some("Quai \"Nord\""));
    assert_eq!(table["gateway"]["ca_file"].as_str(), Some("/etc/ssl/gateway.pem"));
}

#[test]
fn every_key_of_the_sample_is_explained_above_it() {
    let lines: Vec<&str> = config::SAMPLE.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if keys_of(line).is_empty() {
            continue;
        }
        assert!(
            lines[at - 1].starts_with("# "),
            "{line} has no explanation above it"
        );
        let paragraph: Vec<&str> = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("# "))
            .copied()
            .collect();
        let text = paragraph.join(" ");
        let states_what_holds_without_it = ["Default", "Required.", "Left out:"]
            .iter()
            .any(|word| text.contains(word));
        assert!(states_what_holds_without_it, "{line}: {text}");
    }
}

#[test]
fn a_new_hub_validates_and_its_first_policy_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(&dir.path().join("hub"), &InitOptions::default()).unwrap();
    let config = Config::load(&report.dir).unwrap();
    assert_eq!(config.keys.hub_id.to_string(), report.hub_id);
    let policy = config.policy.present.unwrap().policy;
    let now = crate::clock::wall_ms();
    assert!(policy.not_before_ms <= now && now < policy.expires_ms);
    assert_eq!(
        (policy.expires_ms - policy.not_before_ms) / 86_400_000,
        SAMPLE_POLICY_DAYS as u64 + 1
    );
}

#[test]
fn a_new_hubs_policy_stops_offline_approval_at_a_device_that_was_copied() {
    let policy = Policy::parse(SAMPLE_POLICY.as_bytes()).unwrap();
    let anomaly = policy.anomaly.unwrap();
    assert!(anomaly.sequence_reused.unwrap() >= u16::try_from(anomaly.device.stop.unwrap()).unwrap());
    assert_eq!(anomaly.recover_online_ms, None, "only a person ends it");
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let hub = dir.path().join("hub");
    init(&hub, &InitOptions::default()).unwrap();
    let key = std::fs::read(hub.join("keys/hub-signing.key")).unwrap();
    let again = init(&hub, &InitOptions::default());
    assert!(matches!(again, Err(InitError::Exists(_))));
    assert_eq!(std::fs::read(hub.join("keys/hub-signing.key")).unwrap(), key);
}

#[test]
fn a_broken_policy_makes_no_hub() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "format = 1\n").unwrap();
    let options = InitOptions {
        policy: Some(policy),
        ..InitOptions::default()
    };
    let hub = dir.path().join("hub");
    assert!(matches!(init(&hub, &options), Err(InitError::Policy { .. })));
    assert!(!hub.exists());
}
