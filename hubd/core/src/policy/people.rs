//! Who stands at the device: limits of a member of staff, and supervisors who
//! may let a payment pass a lower limit or a score.

use hub_protocol::cose::{ObjectType, Unverified, verifying_key};
use hub_protocol::{DeviceId, KeyId, Override, PaymentRequest, cbor};
use toml::de::DeValue;

use super::velocity::{Window, read_window};
use super::{SubjectLimits, read_subject, short_text};
use crate::toml_reader::Section;

/// The most supervisors of a policy.
pub const MAX_SUPERVISORS: usize = 64;

/// Whose word lets a payment pass a lower limit or a score, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRules {
    /// At most so many in the whole store.
    pub window: Window,
    /// Who.
    pub supervisors: Vec<Supervisor>,
}

/// Somebody whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervisor {
    /// What people call them, 1 to 64 bytes.
    pub name: String,
    /// Their Ed25519 key.
    pub key: [u8; 32],
}

impl OverrideRules {
    /// Who has let this payment of this device pass: the key whose override it
    /// brings, if that is a supervisor's and says the same as the payment.
    pub fn supervisor_of(&self, device: DeviceId, request: &PaymentRequest) -> Option<KeyId> {
        let signed = request.terms.as_ref()?.supervisor.as_ref()?;
        let object = Unverified::parse(signed).ok()?;
        let kid = object.kid();
        let mut supervisors = self.supervisors.iter();
        let supervisor = supervisors.find(|one| KeyId::of_key(&one.key) == kid)?;
        let key = verifying_key(&supervisor.key)?;
        let payload = object.verify(ObjectType::Override, &key).ok()?;
        let said: Override = cbor::decode(&payload).ok()?;
        let same = said.payment_id == request.payment_id
            && said.device == device
            && said.amount_minor == request.amount_minor()
            && said.currency == request.currency;
        same.then_some(kid)
    }
}

/// Reads `[staff]`. Without it nobody has limits of their own.
pub(super) fn read_staff(section: Section<'_, '_>) -> Option<SubjectLimits> {
    if section.present() {
        read_subject(section)
    } else {
        section.finish();
        None
    }
}

/// Reads `[override]`. Without it nothing is let pass.
pub(super) fn read_overrides(section: Section<'_, '_>) -> Option<OverrideRules> {
    if !section.present() {
        section.finish();
        return None;
    }
    let line = section.line();
    let window = read_window(&section, "window_count", "window_minutes");
    if window.is_none() && !section.holds("window_count") && !section.holds("window_minutes") {
        section.fault(
            line,
            "override.window_count and override.window_minutes are missing: how often",
        );
    }
    let listed = section.sections("supervisor");
    if listed.is_empty() {
        section.fault(
            line,
            "override.supervisor is missing: at least one [[override.supervisor]] expected",
        );
    }
    let mut supervisors: Vec<Supervisor> = Vec::with_capacity(listed.len());
    for (at, one) in listed.into_iter().enumerate() {
        if at == MAX_SUPERVISORS {
            one.fault(
                one.line(),
                format!("override.supervisor: at most {MAX_SUPERVISORS} expected"),
            );
        }
        let line = one.line();
        let name = one.required("name", "a name of 1 to 64 bytes", short_text);
        let key = one.required("key", "an Ed25519 public key, 64 hexadecimal digits,", key);
        one.finish();
        let (Some(name), Some(key)) = (name, key) else {
            continue;
        };
        if supervisors.iter().any(|other| other.key == key.value) {
            section.fault(line, "override.supervisor: this key stands here twice");
        }
        supervisors.push(Supervisor {
            name: name.value,
            key: key.value,
        });
    }
    section.finish();
    Some(OverrideRules {
        window: window?,
        supervisors,
    })
}

fn key(value: &DeValue<'_>) -> Option<[u8; 32]> {
    let text = value
        .as_str()
        .filter(|text| text.len() == 64 && text.is_ascii())?;
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = core::str::from_utf8(digits).ok()?;
        // A sign would be taken for a digit's place.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    verifying_key(&key).map(|_| key)
}
