//! A hub whose gateway is an acquirer.

use rcgen::{CertificateParams, KeyPair};

use super::*;

const DIALECT: &str = include_str!("../../../../config/dialects/ascii.toml");

/// A hub with a good configuration for an acquirer.
fn hub() -> Hub {
    let hub = Hub::new();
    hub.write("dialect.toml", DIALECT, 0o644)
        .edit("protocol = \"https\"", "protocol = \"iso8583\"")
        .edit("url = \"https", "#url = \"https")
        .edit("#address =", "address =")
        .edit("#dialect =", "dialect =")
        .edit("#merchant_id =", "merchant_id =")
        .edit("#terminal_id =", "terminal_id =");
    hub
}

#[test]
fn the_samples_keys_make_a_hub_of_an_acquirer() {
    let hub = hub();
    hub.edit("#acquirer_id =", "acquirer_id =")
        .edit("#time_zone =", "time_zone =");
    let config = hub.load().unwrap();
    let Peer::Iso8583(acquirer) = &config.gateway.peer else {
        panic!("asked for iso8583");
    };
    assert_eq!(
        (acquirer.host.as_str(), acquirer.port),
        ("acquirer.example.com", 5000)
    );
    assert_eq!(acquirer.identity.terminal_id, "SHOP0001");
    assert_eq!(acquirer.client_certificate, None);
}

#[test]
fn each_wrong_value_for_an_acquirer_is_named_with_its_key() {
    let cases = [
        (
            "protocol = \"iso8583\"",
            "protocol = \"iso\"",
            "gateway.protocol: \"https\" or",
        ),
        (
            "address = \"acquirer.example.com:5000\"",
            "address = \"acquirer\"",
            "gateway.address: the acquirer's host",
        ),
        (
            "address = \"acquirer.example.com:5000\"",
            "address = \"a b:5000\"",
            "gateway.address: the acquirer's host",
        ),
        (
            "address = \"acquirer.example.com:5000\"",
            "address = \"a:0\"",
            "gateway.address: the acquirer's host",
        ),
        (
            "dialect = \"dialect.toml\"",
            "dialect = \"gone.toml\"",
            "gone.toml does not exist",
        ),
        ("dialect = \"dialect.toml\"", "", "gateway.dialect is missing"),
        (
            "#client_key_file",
            "client_key_file",
            "gateway.client_key_file: both expected",
        ),
        (
            "merchant_id = \"123456789012345\"",
            "merchant_id = \"1234567890123456\"",
            "gateway.merchant_id: 1 to 15",
        ),
        (
            "merchant_id = \"123456789012345\"",
            "merchant_id = \"é\"",
            "gateway.merchant_id: 1 to 15",
        ),
        (
            "terminal_id = \"SHOP0001\"",
            "terminal_id = \"\"",
            "gateway.terminal_id: 1 to 8",
        ),
        (
            "#acquirer_id = \"12345678901\"",
            "acquirer_id = \"12A\"",
            "gateway.acquirer_id: 1 to 11",
        ),
        (
            "#time_zone = \"Europe/Paris\"",
            "time_zone = \"Europe/Nowhere\"",
            "gateway.time_zone: a time zone",
        ),
        (
            "#url = \"https",
            "url = \"https",
            "gateway.url is not a known key",
        ),
        (
            "currency = \"EUR\"",
            "currency = \"XTS\"",
            "gateway.dialect: no ISO 4217 number is known for XTS",
        ),
    ];
    for (from, to, expected) in cases {
        let hub = hub();
        let faults = hub.edit(from, to).faults();
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "{to}: {faults:#?}"
        );
    }
}

#[test]
fn the_dialects_faults_are_reported_at_once_with_its_own_lines() {
    let hub = hub();
    let dialect = DIALECT
        .replace("4 = \"n12\"", "4 = \"n13\"")
        .replace("names = \"hub\"", "named = \"hub\"");
    hub.write("dialect.toml", &dialect, 0o644)
        .edit("deadline = \"3s\"", "deadline = \"3\"");
    let faults = hub.faults();
    let line = 1 + dialect.lines().position(|line| line == "4 = \"n13\"").unwrap();
    let expected = [
        format!("dialect.toml:{line}: fields.4: n12 (amount) expected"),
        "terminal.names is missing".to_owned(),
        "terminal.named is not a known key; did you mean names?".to_owned(),
        "gateway.deadline: a duration".to_owned(),
    ];
    for expected in expected {
        assert!(
            faults.iter().any(|fault| fault.contains(&expected)),
            "{expected}: {faults:#?}"
        );
    }
}

#[test]
fn terminals_that_name_devices_leave_room_for_the_device() {
    let hub = hub();
    hub.write(
        "dialect.toml",
        DIALECT.replace("names = \"hub\"", "names = \"device\""),
        0o644,
    );
    assert!(hub.faults()[0].contains("gateway.terminal_id: 1 to 4 characters"));
}

#[test]
fn the_client_certificate_and_its_key_belong_together_and_the_key_is_secret() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec!["shop".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let hub = hub();
    hub.edit("#client_certificate_file", "client_certificate_file")
        .edit("#client_key_file", "client_key_file")
        .write("acquirer-client.pem", certificate.pem(), 0o644)
        .write("acquirer-client.key", key.serialize_pem(), 0o600);
    let config = hub.load().unwrap();
    let Peer::Iso8583(acquirer) = &config.gateway.peer else {
        panic!("asked for iso8583");
    };
    assert!(acquirer.client_certificate.is_some());
    hub.write("acquirer-client.key", other.serialize_pem(), 0o600);
    assert!(hub.faults()[0].contains("gateway.client_key_file: the key of the certificate"));
    hub.write("acquirer-client.key", key.serialize_pem(), 0o644);
    assert!(hub.faults()[0].contains("acquirer-client.key is open to others"));
    hub.write("acquirer-client.key", "nothing", 0o600);
    assert!(hub.faults()[0].contains("holds no private key"));
}
