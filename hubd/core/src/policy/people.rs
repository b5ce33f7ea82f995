//! Who stands at the device: limits of a member of staff, and supervisors who
//! may let a payment pass a lower limit or a score.

use hub_protocol::cose::{ObjectType, Unverified, verifying_key};
use hub_protocol::{DeviceId, KeyId, Override, PaymentRequest, cbor};
use toml::de::DeValue;

use super::velocity::{Window, read_window};
use super::{SubjectLimits, read_subject, short_text};
use crate::toml_reader::Section;

/// The most keys of one kind in a policy.
pub const MAX_NAMED: usize = 64;

/// Whose word lets a payment pass a lower limit or a score, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRules {
    /// At most so many in the whole store.
    pub window: Window,
    /// Who.
    pub supervisors: Vec<Named>,
}

/// Somebody whose word counts, by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What people call them, 1 to 64 bytes.
    pub name: String,
    /// Their Ed25519 key.
    pub key: [u8; 32],
}

impl Named {
    /// The key's id.
    pub fn key_id(&self) -> KeyId {
        KeyId::of_key(&self.key)
    }
}

impl OverrideRules {
    /// Who has let this payment of this device pass: the key whose override it
    /// brings, if that is a supervisor's and says the same as the payment.
    pub fn supervisor_of(&self, device: DeviceId, request: &PaymentRequest) -> Option<KeyId> {
        let signed = request.terms.as_ref()?.supervisor.as_ref()?;
        let object = Unverified::parse(signed).ok()?;
        let kid = object.kid();
        let mut supervisors = self.supervisors.iter();
        let supervisor = supervisors.find(|one| one.key_id() == kid)?;
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
    let supervisors = read_named(&section, "supervisor", "override.supervisor");
    section.finish();
    Some(OverrideRules {
        window: window?,
        supervisors,
    })
}

/// Reads who is named by a list of tables with `name` and `key`, at least one.
pub(super) fn read_named(section: &Section<'_, '_>, key_of: &'static str, path: &str) -> Vec<Named> {
    let listed = section.sections(key_of);
    if !section.holds(key_of) || section.holds_empty_list(key_of) {
        section.fault(
            section.line(),
            format!("{path} is missing: at least one [[{path}]] expected"),
        );
    }
    let mut all: Vec<Named> = Vec::with_capacity(listed.len());
    for (at, one) in listed.into_iter().enumerate() {
        let line = one.line();
        if at == MAX_NAMED {
            one.fault(line, format!("{path}: at most {MAX_NAMED} expected"));
        }
        let name = one.required("name", "a name of 1 to 64 bytes", short_text);
        let public = one.required("key", "an Ed25519 public key, 64 hexadecimal digits,", key);
        if let Some(public) = &public
            && all.iter().any(|other| other.key == public.value)
        {
            one.fault(line, format!("{path}: this key stands here twice"));
        }
        one.finish();
        if let (Some(name), Some(public)) = (name, public) {
            all.push(Named {
                name: name.value,
                key: public.value,
            });
        }
    }
    all
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
