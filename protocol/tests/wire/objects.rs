//! `keys.json`, `objects.json` and `enrolment-code.json`.

use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::fixtures::*;
use crate::judge::check_p256;
use crate::tree::diagnostic;

#[derive(Serialize, Deserialize)]
struct SigningKeyVector {
    name: String,
    seed: String,
    public_key: String,
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct TlsKeyVector {
    name: String,
    private_scalar: String,
    subject_public_key_info: String,
    identity: String,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    signing: Vec<SigningKeyVector>,
    tls: Vec<TlsKeyVector>,
}

/// A signed object, and the same without its signature.
#[derive(Serialize, Deserialize)]
struct Object {
    name: String,
    r#type: String,
    signer: String,
    external_aad: String,
    diagnostic: String,
    payload: String,
    signed: String,
}

/// What a hub's certificate says of its keys: the extension's content, which
/// is an octet string in DER, and the CBOR in it.
#[derive(Serialize, Deserialize)]
struct Certificate {
    oid: String,
    content: String,
    cbor: String,
    diagnostic: String,
}

#[derive(Serialize, Deserialize)]
struct Code {
    text: String,
    /// Of the same hub, once its TLS key is not the one it is named after.
    later_text: String,
    later_cbor: String,
    also_read: Vec<String>,
    diagnostic: String,
    cbor: String,
    refused: Vec<String>,
}

pub(crate) fn signing_key(name: &str) -> SigningKey {
    match name {
        "device" => device_key(),
        "hub" => hub_key(),
        "next hub" => next_hub_key(),
        "next device" => next_device_key(),
        "policy" => policy_key(),
        "supervisor" => supervisor_key(),
        "verifier" => verifier_key(),
        "stranger" => stranger_key(),
        _ => panic!("no key of that name"),
    }
}

fn keys() -> Keys {
    let signing = [
        "device",
        "hub",
        "next device",
        "next hub",
        "policy",
        "stranger",
        "supervisor",
        "verifier",
    ]
    .map(|name| {
        let public = signing_key(name).verifying_key().to_bytes();
        SigningKeyVector {
            name: name.into(),
            seed: hex(signing_key(name).as_bytes()),
            public_key: hex(&public),
            kid: KeyId::of_key(&public).to_string(),
        }
    });
    let tls = [
        ("hub", 1, HUB_POINT, hub_id().to_string()),
        ("next hub", 3, NEXT_HUB_POINT, next_tls_key().to_string()),
        ("device", 2, DEVICE_POINT, device_id().to_string()),
        (
            "next device",
            4,
            NEXT_DEVICE_POINT,
            device_key_change().new_tls().to_string(),
        ),
    ]
    .map(|(name, scalar, point, identity)| TlsKeyVector {
        name: name.into(),
        private_scalar: format!("{scalar:064x}"),
        subject_public_key_info: hex(&spki(point)),
        identity,
    });
    Keys {
        signing: signing.into(),
        tls: tls.into(),
    }
}

fn object(name: &str, kind: &str, signer: &str, object: ObjectType, payload: &[u8]) -> Object {
    Object {
        name: name.into(),
        r#type: kind.into(),
        signer: signer.into(),
        external_aad: object.aad().into(),
        diagnostic: diagnostic(payload),
        payload: hex(payload),
        signed: hex(&cose::sign(&signing_key(signer), object, payload)),
    }
}

fn objects() -> Vec<Object> {
    let mut all = vec![
        object(
            "payment request with every field",
            "PaymentRequest",
            "device",
            ObjectType::PaymentRequest,
            &cbor::encode(&payment_full()),
        ),
        object(
            "payment request with mandatory fields only",
            "PaymentRequest",
            "device",
            ObjectType::PaymentRequest,
            &cbor::encode(&payment_least()),
        ),
        object(
            "payment request of the largest amount",
            "PaymentRequest",
            "device",
            ObjectType::PaymentRequest,
            &cbor::encode(&PaymentRequest {
                amount: MAX_AMOUNT_MINOR.into(),
                ..payment_full()
            }),
        ),
        object(
            "payment request with every term",
            "PaymentRequest",
            "device",
            ObjectType::PaymentRequest2,
            &cbor::encode(&payment_with_terms()),
        ),
        object(
            "payment request for a refund, with mandatory terms only",
            "PaymentRequest",
            "device",
            ObjectType::PaymentRequest2,
            &cbor::encode(&PaymentRequest {
                terms: Some(Box::new(Terms::of(TransactionType::Refund))),
                ..payment_least()
            }),
        ),
        object(
            "override",
            "Override",
            "supervisor",
            ObjectType::Override,
            &cbor::encode(&supervisors_word()),
        ),
        object(
            "device description",
            "DeviceDescription",
            "device",
            ObjectType::DeviceDescription,
            &cbor::encode(&device_description()),
        ),
        object(
            "attestation result",
            "AttestationResult",
            "verifier",
            ObjectType::AttestationResult,
            &cbor::encode(&attestation_result()),
        ),
        object(
            "attestation result that names the device's key",
            "AttestationResult",
            "verifier",
            ObjectType::AttestationResult2,
            &cbor::encode(&later_attestation()),
        ),
        object(
            "void request",
            "VoidRequest",
            "device",
            ObjectType::VoidRequest,
            &cbor::encode(&void_request()),
        ),
        object(
            "enrolment request",
            "EnrolmentRequest",
            "device",
            ObjectType::Enrolment,
            &cbor::encode(&enrolment_request()),
        ),
        object(
            "registration",
            "Registration",
            "hub",
            ObjectType::Registration,
            &cbor::encode(&registration()),
        ),
    ];
    let without_tap = Allowance {
        unverified_tap_ceiling_minor: None,
        ..allowance()
    };
    for (name, allowance) in [
        ("every field", allowance()),
        ("mandatory fields only", without_tap),
    ] {
        all.push(object(
            &format!("allowance with {name}"),
            "Allowance",
            "hub",
            ObjectType::Allowance,
            &cbor::encode(&allowance),
        ));
    }
    all.push(object(
        "a device's receipt",
        "DeviceReceipt",
        "device",
        ObjectType::DeviceReceipt,
        &cbor::encode(&device_receipt()),
    ));
    all.push(object(
        "return of an allowance",
        "AllowanceReturn",
        "device",
        ObjectType::AllowanceReturn,
        &cbor::encode(&allowance_return()),
    ));
    all.push(object(
        "change of the hub's signing key, signed by the new one",
        "HubKeyChange",
        "next hub",
        ObjectType::HubKeyChange,
        &cbor::encode(&hub_key_change()),
    ));
    let change = cbor::encode(&device_key_change());
    all.push(Object {
        name: "change of a device's keys, signed by the new TLS key".into(),
        r#type: "DeviceKeyChange".into(),
        signer: "next device".into(),
        external_aad: ObjectType::DeviceTlsKey.aad().into(),
        diagnostic: diagnostic(&change),
        payload: hex(&change),
        signed: hex(&good_key_change_by_tls()),
    });
    all.push(object(
        "change of a device's keys in wire version 5, signed by the new Ed25519 key",
        "FormerDeviceKeyChange",
        "next device",
        ObjectType::DeviceKeyChange,
        &former_key_change(),
    ));
    all.push(object(
        "the hub's TLS keys while two overlap",
        "HubTlsKeys",
        "next hub",
        ObjectType::HubTlsKeys,
        &cbor::encode(&hub_tls_keys()),
    ));
    all.push(object(
        "head office's list of devices",
        "DeviceList",
        "policy",
        ObjectType::DeviceList,
        &cbor::encode(&device_list()),
    ));
    for (name, receipt) in receipts() {
        let name = format!("receipt: {name}");
        all.push(object(
            &name,
            "Receipt",
            "hub",
            ObjectType::Receipt,
            &cbor::encode(&receipt),
        ));
    }
    all.push(object(
        "ledger commit without receipts",
        "LedgerCommit",
        "hub",
        ObjectType::LedgerCommit,
        &cbor::encode(&LedgerCommit {
            receipts: None,
            ..ledger_commit(None)
        }),
    ));
    all.push(object(
        "ledger commit with receipts",
        "LedgerCommit",
        "hub",
        ObjectType::LedgerCommit,
        &cbor::encode(&ledger_commit(Some(group(5).root()))),
    ));
    all.push(object(
        "manifest of an archive",
        "ArchiveManifest",
        "hub",
        ObjectType::ArchiveManifest,
        &cbor::encode(&archive_manifest()),
    ));
    for policy in [None, Some(base_policy())] {
        let name = if policy.is_some() { "with" } else { "without" };
        all.push(object(
            &format!("base {name} a policy"),
            "LedgerBase",
            "hub",
            ObjectType::LedgerBase,
            &cbor::encode(&ledger_base(policy)),
        ));
    }
    for status in statuses() {
        let name = format!("status: {}", status.state);
        all.push(object(
            &name,
            "PaymentStatus",
            "hub",
            ObjectType::Status,
            &cbor::encode(&status),
        ));
    }
    all
}

fn code() -> Code {
    let text = enrolment_code().to_string();
    let cbor = cbor::encode(&enrolment_code());
    let body = &text[5..];
    let other = |bytes: &[u8]| format!("HUB1-{}", data_encoding::BASE32_NOPAD.encode(bytes));
    let mut trailing = cbor.clone();
    trailing.push(0);
    Code {
        also_read: vec![
            text.to_lowercase(),
            format!("  {}\n{} ", &text[..40], &text[40..]),
        ],
        diagnostic: diagnostic(&cbor),
        refused: vec![
            String::new(),
            "HUB1-".into(),
            body.into(),
            format!("HUB2-{body}"),
            text[..text.len() - 1].into(),
            format!("{text}A"),
            format!("{text}===="),
            text.replace('A', "1"),
            other(&cbor[..cbor.len() - 1]),
            other(&trailing),
        ],
        cbor: hex(&cbor),
        text,
        later_text: later_enrolment_code().to_string(),
        later_cbor: hex(&cbor::encode(&later_enrolment_code())),
    }
}

#[test]
fn the_committed_keys_objects_and_code_are_what_the_code_makes() {
    hold("keys.json", &keys());
    hold("objects.json", &objects());
    hold("enrolment-code.json", &code());
}

fn decode_as(kind: &str, payload: &[u8]) -> Result<Vec<u8>, cbor::CborError> {
    Ok(match kind {
        "PaymentRequest" => cbor::encode(&cbor::decode::<PaymentRequest>(payload)?),
        "DeviceDescription" => cbor::encode(&cbor::decode::<DeviceDescription>(payload)?),
        "AttestationResult" => cbor::encode(&cbor::decode::<AttestationResult>(payload)?),
        "Override" => cbor::encode(&cbor::decode::<Override>(payload)?),
        "VoidRequest" => cbor::encode(&cbor::decode::<VoidRequest>(payload)?),
        "EnrolmentRequest" => cbor::encode(&cbor::decode::<EnrolmentRequest>(payload)?),
        "Registration" => cbor::encode(&cbor::decode::<Registration>(payload)?),
        "Receipt" => cbor::encode(&cbor::decode::<Receipt>(payload)?),
        "ArchiveManifest" => cbor::encode(&cbor::decode::<ArchiveManifest>(payload)?),
        "LedgerBase" => cbor::encode(&cbor::decode::<LedgerBase>(payload)?),
        "LedgerCommit" => cbor::encode(&cbor::decode::<LedgerCommit>(payload)?),
        "Allowance" => cbor::encode(&cbor::decode::<Allowance>(payload)?),
        "DeviceReceipt" => cbor::encode(&cbor::decode::<DeviceReceipt>(payload)?),
        "AllowanceReturn" => cbor::encode(&cbor::decode::<AllowanceReturn>(payload)?),
        "HubKeyChange" => cbor::encode(&cbor::decode::<HubKeyChange>(payload)?),
        "HubTlsKeys" => cbor::encode(&cbor::decode::<HubTlsKeys>(payload)?),
        "DeviceKeyChange" => cbor::encode(&cbor::decode::<DeviceKeyChange>(payload)?),
        "FormerDeviceKeyChange" => cbor::encode(&cbor::decode::<FormerKeyChange>(payload)?),
        "DeviceList" => cbor::encode(&cbor::decode::<DeviceList>(payload)?),
        "PaymentStatus" => cbor::encode(&cbor::decode::<PaymentStatus>(payload)?),
        _ => panic!("no type {kind}"),
    })
}

pub(crate) const ALL_OBJECTS: [ObjectType; 27] = [
    ObjectType::PaymentRequest,
    ObjectType::PaymentRequest2,
    ObjectType::Override,
    ObjectType::DeviceDescription,
    ObjectType::AttestationResult,
    ObjectType::AttestationResult2,
    ObjectType::VoidRequest,
    ObjectType::Receipt,
    ObjectType::Status,
    ObjectType::LedgerEntry,
    ObjectType::LedgerCommit,
    ObjectType::SegmentFooter,
    ObjectType::ArchiveManifest,
    ObjectType::LedgerBase,
    ObjectType::Policy,
    ObjectType::DeviceList,
    ObjectType::Root,
    ObjectType::Enrolment,
    ObjectType::Registration,
    ObjectType::Allowance,
    ObjectType::DeviceReceipt,
    ObjectType::AllowanceReturn,
    ObjectType::HubKeyChange,
    ObjectType::HubTlsKeys,
    ObjectType::DeviceTlsKey,
    ObjectType::DeviceKeyChange2,
    ObjectType::DeviceKeyChange,
];

#[test]
fn every_committed_object_decodes_and_verifies_as_its_type_only() {
    for vector in committed::<Vec<Object>>("objects.json") {
        let payload = unhex(&vector.payload);
        assert_eq!(
            decode_as(&vector.r#type, &payload).unwrap(),
            payload,
            "{}",
            vector.name
        );
        let key = signing_key(&vector.signer).verifying_key();
        let signed = unhex(&vector.signed);
        let by_tls = vector.external_aad == ObjectType::DeviceTlsKey.aad();
        for object in ALL_OBJECTS {
            let verified = match by_tls {
                false => cose::verify(&signed, object, &key),
                true => cose::UnverifiedP256::parse(&signed)
                    .and_then(|parsed| parsed.verify(object, &spki(NEXT_DEVICE_POINT), check_p256))
                    .map(<[u8]>::to_vec),
            };
            if object.aad() == vector.external_aad {
                assert_eq!(verified, Ok(payload.clone()), "{}", vector.name);
            } else {
                assert_eq!(verified, Err(cose::CoseError::BadSignature), "{}", vector.name);
            }
        }
    }
}

#[test]
fn every_cut_of_a_committed_object_is_truncated_and_every_longer_one_trails() {
    for vector in committed::<Vec<Object>>("objects.json") {
        let payload = unhex(&vector.payload);
        for length in 0..payload.len() {
            let cut = decode_as(&vector.r#type, &payload[..length]);
            assert_eq!(
                cut,
                Err(cbor::CborError::Truncated),
                "{} at {length}",
                vector.name
            );
        }
        let longer = [&payload[..], &[0]].concat();
        assert_eq!(
            decode_as(&vector.r#type, &longer),
            Err(cbor::CborError::Trailing),
            "{}",
            vector.name
        );
    }
}

#[test]
fn the_committed_enrolment_code_is_read_in_every_form_and_no_other() {
    let vector: Code = committed("enrolment-code.json");
    for text in [&[vector.text][..], &vector.also_read].concat() {
        let read: EnrolmentCode = text.parse().unwrap();
        assert!(read == enrolment_code(), "{text}");
        assert_eq!(cbor::encode(&read), unhex(&vector.cbor));
        assert_eq!(read.pin(), Digest(hub_id().0));
    }
    let later: EnrolmentCode = vector.later_text.parse().unwrap();
    assert!(later == later_enrolment_code() && later.pin() == next_tls_key());
    assert_eq!(cbor::encode(&later), unhex(&vector.later_cbor));
    for text in vector.refused {
        assert!(text.parse::<EnrolmentCode>().is_err(), "{text}");
    }
    let endless = format!("HUB1-{}", "A".repeat(enrolment::MAX_CODE_TEXT));
    assert!(endless.parse::<EnrolmentCode>().is_err());
}

fn certificate() -> Certificate {
    let cbor = cbor::encode(&certificate_keys());
    Certificate {
        oid: TLS_KEYS_OID.map(|arc| arc.to_string()).join("."),
        content: hex(&certificate_keys().to_der()),
        diagnostic: diagnostic(&cbor),
        cbor: hex(&cbor),
    }
}

#[test]
fn the_committed_extension_of_a_certificate_is_what_the_code_makes() {
    hold("certificate.json", &certificate());
}

/// What a request is signed as hangs on its bytes alone, whatever they are.
#[test]
fn a_request_with_terms_is_another_object_than_one_without() {
    for (request, expected) in [
        (payment_full(), ObjectType::PaymentRequest),
        (payment_least(), ObjectType::PaymentRequest),
        (payment_with_terms(), ObjectType::PaymentRequest2),
    ] {
        let payload = cbor::encode(&request);
        assert_eq!(request.object_type(), expected);
        assert_eq!(PaymentRequest::object_type_of(&payload), expected);
        for length in 0..payload.len() {
            // Never a panic; what is cut off before its terms has none.
            let _ = PaymentRequest::object_type_of(&payload[..length]);
        }
    }
    for bytes in [
        &b""[..],
        b"\xff",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x0c",
    ] {
        let _ = PaymentRequest::object_type_of(bytes);
    }
}

#[test]
fn terms_out_of_range_are_refused() {
    type Change = fn(&mut Terms);
    let cases: [(&str, Change); 9] = [
        ("cash-back without cash", |t| t.cash_back_minor = None),
        ("cash of nothing", |t| t.cash_back_minor = Some(0)),
        ("cash of the whole amount", |t| t.cash_back_minor = Some(2590)),
        ("cash in a sale", |t| t.transaction_type = TransactionType::Sale),
        ("staff without a name", |t| t.staff = Some(String::new())),
        ("month 0", |t| t.card_expiry = Some(CardExpiry(2700))),
        ("month 13", |t| t.card_expiry = Some(CardExpiry(2713))),
        ("an override of nothing", |t| t.supervisor = Some(Vec::new())),
        ("an override that is too long", |t| {
            t.supervisor = Some(vec![0; 513])
        }),
    ];
    assert_eq!(payment_with_terms().check(), Ok(()));
    for (what, change) in cases {
        let mut request = payment_with_terms();
        change(request.terms.as_mut().unwrap());
        let refusal = request.check().unwrap_err();
        assert_eq!(refusal.code, RefusalCode::FieldMalformed, "{what}");
    }
    let mut request = payment_with_terms();
    request.terms.as_mut().unwrap().staff = Some("4111 1111 1111 1111".to_owned());
    assert_eq!(request.check().unwrap_err().code, RefusalCode::ClearCardNumber);
}

#[test]
fn a_payment_request_takes_its_optional_fields_one_by_one() {
    for present in 0..8 {
        let mut request = payment_full();
        let given = |bit: u8, value: &mut Option<String>| {
            if present & (1 << bit) == 0 {
                *value = None;
            }
        };
        given(0, &mut request.card.issuer_country);
        given(1, &mut request.card.bin);
        given(2, &mut request.card.last4);
        let bytes = cbor::encode(&request);
        assert_eq!(cbor::decode::<PaymentRequest>(&bytes), Ok(request.clone()));
        assert_eq!(request.check(), Ok(()));
    }
}
