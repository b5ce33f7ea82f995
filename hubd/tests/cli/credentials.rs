//! Keys that the service manager supplies, and those that are to follow them.

use std::fs;
use std::path::PathBuf;

use super::running::{Running, loopback};
use super::{Hub, Said, path};

/// A hub whose own keys are credentials in this folder.
fn with_credentials() -> (Hub, PathBuf) {
    let hub = loopback();
    let credentials = hub.file("credentials");
    fs::create_dir(&credentials).unwrap();
    for key in ["hub-signing.key", "hub-tls.key", "hub-vault.key"] {
        fs::rename(hub.file("keys").join(key), credentials.join(key)).unwrap();
    }
    (hub, credentials)
}

/// Makes the key that is to follow one of the hub's.
fn supply(hub: &Hub, which: &str, file: &std::path::Path) {
    let made = match which {
        "tls" => hub.hubctl(&["keygen", "--tls", path(file)]),
        _ => hub.hubctl(&["keygen", path(file)]),
    };
    assert_eq!(made.code, 0, "{made:?}");
}

fn rotate(hub: &Hub, which: &str) -> Said {
    hub.hubctl(&["keys", "rotate", which])
}

#[test]
fn rule_2_a_next_key_in_a_file_never_follows_a_credential() {
    for which in ["signing", "tls", "vault"] {
        let (hub, credentials) = with_credentials();
        let running = Running::start_with(&hub, Some(&credentials));
        let name = format!("hub-{which}.next.key");
        let next = hub.file("keys").join(&name);
        // None is there, and one is there as a file.
        for supplied in [false, true] {
            if supplied {
                supply(&hub, which, &next);
            }
            let said = rotate(&hub, which);
            assert_eq!(said.code, 1, "{which}: {said:?}");
            for told in [
                "nothing was changed",
                &format!("systemd-creds encrypt --name={name} "),
                &format!("LoadCredentialEncrypted={name}"),
            ] {
                assert!(said.stderr.contains(told), "{which}, {told}: {said:?}");
            }
            assert_eq!(said.stderr.contains(path(&next)), supplied, "{said:?}");
        }
        assert!(!hub.file("hub-id").exists());
        running.terminate();
        // It starts as before, and with the next one as a credential goes on.
        fs::rename(&next, credentials.join(&name)).unwrap();
        let running = Running::start_with(&hub, Some(&credentials));
        let said = rotate(&hub, which);
        assert_eq!(said.code, 0, "{which}: {said:?}");
        running.terminate();
        Running::start_with(&hub, Some(&credentials)).terminate();
    }
}

#[test]
fn rule_2_a_file_that_the_ledger_went_on_with_stays_beside_an_older_credential() {
    for which in ["signing", "tls", "vault"] {
        // As where a change that was made with files is cut off behind its
        // entry, and the old key becomes a credential then.
        let (hub, credentials) = with_credentials();
        let name = format!("hub-{which}.next.key");
        supply(&hub, which, &credentials.join(&name));
        let running = Running::start_with(&hub, Some(&credentials));
        let said = rotate(&hub, which);
        assert_eq!(said.code, 0, "{which}: {said:?}");
        if which == "tls" {
            let said = hub.hubctl(&["keys", "rotate", "tls", "--finish"]);
            assert_eq!(said.code, 0, "{said:?}");
        }
        running.terminate();
        let next = hub.file("keys").join(&name);
        fs::rename(credentials.join(&name), &next).unwrap();
        for _ in 0..2 {
            let running = Running::start_with(&hub, Some(&credentials));
            assert!(next.exists(), "{which}");
            let said = rotate(&hub, which);
            assert_eq!(said.code, 1, "{which}: {said:?}");
            assert!(said.stderr.contains(&name), "{which}: {said:?}");
            assert!(next.exists(), "{which}");
            running.terminate();
        }
    }
}

#[test]
fn a_hub_whose_credential_is_the_older_signing_key_is_told_so() {
    let (hub, credentials) = with_credentials();
    let file = hub.file("keys").join("hub-signing.key");
    supply(&hub, "signing", &file);
    let public = hub.hubctl(&["--json", "keygen", path(&hub.file("other.key"))]);
    let validate = || -> Said {
        let mut command = std::process::Command::new(super::HUBD);
        command.args(["validate", "--dir", path(&hub.dir)]);
        command
            .env("CREDENTIALS_DIRECTORY", &credentials)
            .output()
            .unwrap()
            .into()
    };
    let old = fs::read_to_string(hub.file("hub-signing.pub")).unwrap();
    // The public half of neither.
    let neither = public.json()["public_key"].as_str().unwrap().to_owned();
    fs::write(hub.file("hub-signing.pub"), neither).unwrap();
    let said = validate();
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.stderr.contains("the credential hub-signing.key"), "{said:?}");
    // That of the file, which a change has put there.
    fs::rename(hub.file("other.key"), &file).unwrap();
    let said = validate();
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.stderr.contains("in place of the old credential"), "{said:?}");
    assert!(!said.stderr.contains(old.trim()), "{said:?}");
}
