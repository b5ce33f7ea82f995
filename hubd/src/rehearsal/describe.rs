//! What devices are in a trial, and the keys that speak for them there: a
//! trial has no verifier's key and no supervisor's.

use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::{Input, Ticket};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    AttestationResult, AttestationStatus, Certification, DeviceClass, DeviceDescription, DeviceId, Override,
    PaymentRequest, Version, cbor,
};
use serde_json::Value;
use std::io::BufRead;

use super::fields::Fields;
use super::lines::{Reader, instant};
use super::payment::names;

/// What a line says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Describe {
    /// The device, by the name that the file gives it.
    pub device: String,
    /// What it is.
    pub class: DeviceClass,
    vendor: String,
    model: String,
    os: String,
    os_version: Version,
    app_version: Version,
    certification: Certification,
    /// A verifier's word, and when it was given, milliseconds since 1970 UTC.
    attestation: Option<(AttestationStatus, u64)>,
}

/// Signs in a trial as verifier and as supervisor.
pub(super) fn own_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

/// The policy, with the trial's own key beside those that it names. As it was
/// if there is no place for one more.
pub(super) fn with_own_keys(text: &[u8], policy: Policy) -> (Vec<u8>, Policy) {
    let key = data_encoding::HEXLOWER.encode(own_key().verifying_key().as_bytes());
    let mut more = text.to_vec();
    for (asked_for, table) in [
        (policy.attestation.is_some(), "attestation.verifier"),
        (policy.overrides.is_some(), "override.supervisor"),
    ] {
        if asked_for {
            more.extend(format!("\n[[{table}]]\nname = \"trial\"\nkey = \"{key}\"\n").bytes());
        }
    }
    match Policy::parse(&more) {
        Ok(with_keys) => (more, with_keys),
        Err(_) => (text.to_vec(), policy),
    }
}

/// The request with a supervisor's word on it.
pub(super) fn overridden(request: &PaymentRequest, device: DeviceId) -> PaymentRequest {
    let said = Override {
        payment_id: request.payment_id,
        device,
        amount_minor: request.amount_minor(),
        currency: request.currency,
        time_ms: request.device_time_ms,
    };
    let mut request = request.clone();
    if let Some(terms) = &mut request.terms {
        terms.supervisor = Some(cose::sign(&own_key(), ObjectType::Override, &cbor::encode(&said)));
    }
    request
}

impl Describe {
    pub(super) fn input(&self, ticket: Ticket, device: DeviceId, now_ms: u64) -> Input {
        let description = DeviceDescription {
            device,
            device_time_ms: now_ms,
            vendor: self.vendor.clone(),
            model: self.model.clone(),
            os: self.os.clone(),
            os_version: self.os_version,
            app_version: self.app_version,
            certification: self.certification,
        };
        let attestation = self.attestation.map(|(status, issued_ms)| {
            let result = AttestationResult::new(device, issued_ms / 1000, status);
            cose::sign(&own_key(), ObjectType::AttestationResult, &cbor::encode(&result))
        });
        Input::Describe {
            ticket,
            device,
            // By whom does not matter here; the core reads it back.
            signed: cose::sign(
                &own_key(),
                ObjectType::DeviceDescription,
                &cbor::encode(&description),
            ),
            description: Box::new(description),
            attestation,
        }
    }
}

impl<R: BufRead> Reader<R> {
    pub(super) fn described(&self, fields: &Fields<'_>, at_ms: u64) -> Option<Describe> {
        const NAME: &str = "a name of 1 to 64 bytes";
        let (device, class) = self.device(fields)?;
        let text = |name| fields.required(name, fields.text(name), NAME);
        let version = |name| {
            fields.read(name, "up to four numbers, such as \"14.2\",", |value| {
                value.as_str()?.parse::<Version>().ok()
            })
        };
        let (vendor, model) = (text("vendor"), text("model"));
        let os = fields.text("os");
        let (os_version, app_version) = (version("os_version"), version("app_version"));
        let certification = fields.name(
            "certification",
            &names(Certification::ALL.iter().map(|c| c.name())),
        );
        let status = fields.name(
            "attestation",
            &names(AttestationStatus::ALL.iter().map(|s| s.name())),
        );
        let attested_ms = instant(fields, "attested");
        if attested_ms.is_some() && status.is_none() && !fields.has("attestation") {
            fields.fault("attested: says something only beside attestation");
        }
        Some(Describe {
            device,
            class,
            vendor: vendor?,
            model: model?,
            os: os.unwrap_or_else(|| "Android".to_owned()),
            os_version: os_version.unwrap_or_default(),
            app_version: app_version.unwrap_or_default(),
            certification: certification.unwrap_or(Certification::None),
            attestation: status.map(|status| (status, attested_ms.unwrap_or(at_ms))),
        })
    }

    /// Whether a supervisor lets the payment pass.
    pub(super) fn is_overridden(fields: &Fields<'_>) -> bool {
        fields
            .read("override", "true or false", Value::as_bool)
            .unwrap_or(false)
    }
}
