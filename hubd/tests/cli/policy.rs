//! `hubctl policy sign` and `check`, on files.

use std::fs;

use super::{HUBCTL, Hub, path, run};

#[test]
fn a_policy_is_signed_checked_and_shown() {
    let hub = Hub::init(&[]);
    let (key, out) = (hub.file("keys/policy-local.key"), hub.file("new.cose"));
    let text = hub.file("policy.toml");
    let said = run(
        HUBCTL,
        &["policy", "sign", "--key", path(&key), path(&text), path(&out)],
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        fs::read(&out).unwrap(),
        fs::read(hub.file("policy.cose")).unwrap()
    );
    let said = hub.hubctl(&["policy", "check", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    for expected in [
        "demo version 1 for *, signed by",
        ", in force: from",
        "one softpos",
        "50.00 EUR",
        "3000.00 EUR",
    ] {
        assert!(said.stdout.contains(expected), "{expected} in {said:?}");
    }
    let json = hub.hubctl(&["policy", "check", "--json", path(&out)]).json();
    assert_eq!(
        (json["version"].as_u64(), json["in_force"].as_bool()),
        (Some(1), Some(true))
    );
}

#[test]
fn a_key_is_made_once_and_signs() {
    let hub = Hub::init(&[]);
    let (key, out) = (hub.file("claire"), hub.file("new.cose"));
    let made = hub.hubctl(&["keygen", "--json", path(&key)]).json();
    let public = made["public_key"].as_str().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = hub.file("policy.toml");
    let said = run(
        HUBCTL,
        &["policy", "sign", "--key", path(&key), path(&text), path(&out)],
    );
    assert!(said.stdout.contains(public), "{said:?}");
    let before = fs::read(&key).unwrap();
    let again = hub.hubctl(&["keygen", path(&key)]);
    assert_eq!(again.code, 1, "never over a key that is there");
    assert!(again.stderr.contains("give another name"), "{again:?}");
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn a_policy_with_faults_is_not_signed() {
    let hub = Hub::init(&[]);
    let text = fs::read_to_string(hub.file("policy.toml")).unwrap();
    let bad = hub.file("bad.toml");
    fs::write(
        &bad,
        text.replace("version = 1 ", "version = 0 ")
            .replace("[store]", "[stor]"),
    )
    .unwrap();
    let (key, out) = (hub.file("keys/policy-local.key"), hub.file("new.cose"));
    for args in [
        vec!["policy", "sign", "--key", path(&key), path(&bad), path(&out)],
        vec!["policy", "check", path(&bad)],
    ] {
        let said = run(HUBCTL, &args);
        assert_eq!(said.code, 65, "{said:?}");
        assert!(
            said.stderr
                .contains("version: a whole number from 1 to 4294967295 expected"),
            "{said:?}"
        );
        assert!(
            said.stderr
                .contains("stor is not a known key; did you mean store?"),
            "{said:?}"
        );
    }
    assert!(!out.exists());
}

#[test]
fn a_signed_policy_that_was_changed_or_signed_by_a_stranger_does_not_verify() {
    let hub = Hub::init(&[]);
    let mut signed = fs::read(hub.file("policy.cose")).unwrap();
    let middle = signed.len() / 2;
    signed[middle] ^= 1;
    let changed = hub.file("changed.cose");
    fs::write(&changed, signed).unwrap();
    let said = hub.hubctl(&["policy", "check", path(&changed)]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("the signature does not verify"), "{said:?}");
    let stranger = Hub::init(&[]);
    let said = hub.hubctl(&["policy", "check", path(&stranger.file("policy.cose"))]);
    assert_eq!(said.code, 65, "{said:?}");
    let key = stranger.hubd("validate", &["--json"]);
    assert_eq!(key.code, 0);
    assert!(
        said.stderr.contains("not among [policy] trusted_keys"),
        "{said:?}"
    );
}

#[test]
fn a_policy_key_that_others_can_read_does_not_sign() {
    use std::os::unix::fs::PermissionsExt;
    let hub = Hub::init(&[]);
    let (key, text) = (hub.file("keys/policy-local.key"), hub.file("policy.toml"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let out = hub.file("new.cose");
    let said = run(
        HUBCTL,
        &["policy", "sign", "--key", path(&key), path(&text), path(&out)],
    );
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("open to others"), "{said:?}");
    assert!(!out.exists());
}
