//! Enrolling in number, over real processes: a hub, `hubctl`, and devices by
//! the SDK.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hub_protocol::{DeviceClass, EnrolmentCode, PaymentId, RefusalCode, Request, frame};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, SdkError};

use super::running::{Running, loopback};
use super::{Hub, path};

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), work)
            .await
            .expect("an answer")
    })
}

fn enrol(identity: &DeviceIdentity, code: &EnrolmentCode) -> Result<Enrolled, RefusalCode> {
    let enrolled = within(hub_sdk::enrol(
        identity,
        code,
        DeviceClass::Terminal,
        "Caisse 9",
        "Test 9",
    ));
    match enrolled {
        Ok(enrolled) => Ok(enrolled),
        Err(SdkError::Refused(refusal)) => Err(refusal.code),
        Err(other) => panic!("{other:?}"),
    }
}

fn keys(identity: &DeviceIdentity) -> DeviceIdentity {
    let dir = tempfile::tempdir().unwrap();
    identity.save(dir.path()).unwrap();
    DeviceIdentity::load(dir.path()).unwrap()
}

/// What a device is told that asks after a payment.
fn told(identity: &DeviceIdentity, mut enrolled: Enrolled, hub: &Hub) -> RefusalCode {
    // The hub may have been started again, on another port.
    let listen = hub.hubctl(&["status", "--json"]).json()["listen"]
        .as_str()
        .unwrap()
        .parse::<SocketAddr>()
        .unwrap();
    enrolled.addresses = vec![SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listen.port())];
    let options = ClientOptions {
        discovery: None,
        ..ClientOptions::default()
    };
    within(async {
        let client = DeviceClient::new(keys(identity), enrolled, options).unwrap();
        let payment_id = PaymentId([1; 16]);
        let asked = frame::to_wire(&Request::Status { payment_id });
        let answer = client.send_raw(&asked).await;
        client.close().await;
        match answer {
            Ok(hub_protocol::Answer::Refused { refusal }) => refusal.code,
            other => panic!("{other:?}"),
        }
    })
}

fn code_of(said: &super::Said) -> EnrolmentCode {
    said.json()["code"].as_str().unwrap().parse().unwrap()
}

fn ok(hub: &Hub, args: &[&str]) -> super::Said {
    let said = hub.hubctl(args);
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said
}

#[test]
fn rule_5_devices_of_a_fleet_are_pending_until_approved_through_restarts() {
    let hub = loopback();
    let running = Running::start(&hub);
    let made = ok(
        &hub,
        &[
            "enrol", "--fleet", "--most", "2", "--valid", "1h", "--class", "mpos", "--json",
        ],
    );
    let code = code_of(&made);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let devices = [0; 3].map(|_| DeviceIdentity::generate().unwrap());
    let first = enrol(&devices[0], &code).unwrap();
    assert_eq!(first.registration.class, hub_protocol::DeviceClass::Mpos);
    assert_eq!(told(&devices[0], first.clone(), &hub), RefusalCode::DevicePending);
    running.kill();

    // The token is in the ledger, by its digest; the endpoint opens by itself.
    let running = Running::start(&hub);
    let enrol_listen = ok(&hub, &["status", "--json"]).json()["enrol_listen"]
        .as_str()
        .unwrap()
        .to_owned();
    let code = EnrolmentCode {
        enrol_addresses: vec![enrol_listen],
        ..code
    };
    let second = enrol(&devices[1], &code).unwrap();
    assert_eq!(
        enrol(&devices[2], &code).unwrap_err(),
        RefusalCode::EnrolmentUnknown,
        "for two"
    );
    assert_eq!(enrol(&devices[1], &code).unwrap(), second, "its answer was lost");
    let fleet = ok(&hub, &["fleet", "--json"]).json();
    assert_eq!(fleet["tokens"][0]["used"], 2);
    let id = devices[0].device_id().to_string();
    ok(&hub, &["devices", "approve", &id[..16]]);
    assert_eq!(
        told(&devices[0], first.clone(), &hub),
        RefusalCode::PaymentUnknown
    );
    assert_eq!(told(&devices[1], second, &hub), RefusalCode::DevicePending);
    running.terminate();

    // Now from the index, which has it all.
    let running = Running::start(&hub);
    assert_eq!(ok(&hub, &["fleet", "--json"]).json()["tokens"][0]["used"], 2);
    let shown = ok(&hub, &["devices", "show", &id]).stdout;
    assert!(shown.contains(&token[..16]), "{shown}");
    ok(&hub, &["fleet", "withdraw", &token]);
    running.terminate();
    let verified = ok(&hub, &["ledger", "verify", "--json"]).json();
    assert_eq!(verified["kinds"]["fleet-device-enrolled"], 2);
    let journal = std::fs::read_dir(hub.file("ledger")).unwrap();
    for segment in journal {
        let bytes = std::fs::read(segment.unwrap().path()).unwrap();
        assert!(
            !bytes.windows(16).any(|window| window == code.token),
            "the token itself"
        );
    }
}

#[test]
fn headquarters_list_approves_what_waits_and_a_replacement_blocks_the_old_device() {
    let hub = loopback();
    let running = Running::start(&hub);
    let code = code_of(&ok(&hub, &["enrol", "--fleet", "--json"]));
    let device = DeviceIdentity::generate().unwrap();
    let enrolled = enrol(&device, &code).unwrap();
    let (id, key) = (
        device.device_id().to_string(),
        device.signing_key().verifying_key(),
    );
    let list = format!(
        "tenant = \"demo\"\nstores = [\"*\"]\nversion = 1\nnot_before = 2020-01-01T00:00:00Z\n\
         expires = 2099-01-01T00:00:00Z\n[[device]]\nid = \"{id}\"\nkey = \"{}\"\nclass = \"softpos\"\n\
         name = \"Caisse 9\"\nmodel = \"Test 9\"\n",
        data_encoding::HEXLOWER.encode(key.as_bytes())
    );
    let policy_key = hub.file("keys/policy-local.key");
    let take = |text: &str| {
        let (written, signed) = (hub.file("list.toml"), hub.file("list.cose"));
        std::fs::write(&written, text).unwrap();
        ok(
            &hub,
            &[
                "fleet",
                "sign",
                "--key",
                path(&policy_key),
                path(&written),
                path(&signed),
            ],
        );
        ok(&hub, &["fleet", "check", path(&signed)]);
        ok(&hub, &["fleet", "apply", path(&signed), "--json"]).json()
    };
    assert_eq!(take(&list)["approved"], 1);
    assert_eq!(told(&device, enrolled.clone(), &hub), RefusalCode::PaymentUnknown);
    // With other keys for the device it is passed over, by name; the device
    // stays as it was.
    let own = data_encoding::HEXLOWER.encode(key.as_bytes());
    let other = DeviceIdentity::generate().unwrap().signing_key().verifying_key();
    let wrong = list
        .replace(&own, &data_encoding::HEXLOWER.encode(other.as_bytes()))
        .replace("version = 1", "version = 2");
    let taken = take(&wrong);
    assert_eq!(taken["contradicted"][0]["listed"], id.as_str());
    assert_eq!((&taken["approved"], &taken["shut_out"]), (&0.into(), &0.into()));
    let said = ok(&hub, &["fleet", "apply", path(&hub.file("list.cose"))]).stdout;
    assert!(
        said.contains(&format!("Passed over: {} (Caisse 9)", &id[..16])),
        "{said}"
    );
    assert_eq!(told(&device, enrolled.clone(), &hub), RefusalCode::PaymentUnknown);
    // The list does not come back as an older one, nor by a stranger's key.
    let stranger = hub.file("stranger.key");
    ok(&hub, &["keygen", path(&stranger)]);
    let forged = hub.file("forged.cose");
    let newer = list.replace("version = 1", "version = 9");
    std::fs::write(hub.file("list.toml"), newer).unwrap();
    ok(
        &hub,
        &[
            "fleet",
            "sign",
            "--key",
            path(&stranger),
            path(&hub.file("list.toml")),
            path(&forged),
        ],
    );
    let said = hub.hubctl(&["fleet", "apply", path(&forged)]);
    assert!(said.code == 1 && said.stderr.contains("trusted_keys"), "{said:?}");

    let code = code_of(&ok(&hub, &["enrol", "--replaces", &id[..12], "--lost", "--json"]));
    let replacement = DeviceIdentity::generate().unwrap();
    let taken = enrol(&replacement, &code).unwrap();
    assert_eq!(taken.registration.name, "Caisse 9");
    assert_eq!(told(&replacement, taken, &hub), RefusalCode::PaymentUnknown);
    let shown = ok(&hub, &["devices", "show", &id, "--json"]).json();
    assert_eq!(shown["verdict"], "lost");
    assert_eq!(shown["device"]["blocked"], true);
    let new = replacement.device_id().to_string();
    assert_eq!(
        ok(&hub, &["devices", "show", &new, "--json"]).json()["verdict"],
        "replacement"
    );
    running.terminate();
}
