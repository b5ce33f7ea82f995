//! What devices say of themselves, and verifiers of them.

use hub_protocol::cose::Unverified;
use hub_protocol::description::{AttestationStatus, Certification, Version};
use hub_protocol::entry::Event;
use hub_protocol::{AttestationResult, DeviceDescription, DeviceId, KeyId, RefusalCode, cbor};
use minicbor::{Decode, Encode};

use crate::core::Core;
use crate::effect::Reply;
use crate::input::Ticket;
use crate::state::DeviceRecord;

/// What is known of a device beside its enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Described {
    /// Who makes it.
    #[n(1)]
    pub vendor: String,
    /// Its model.
    #[n(2)]
    pub model: String,
    /// Its operating system.
    #[n(3)]
    pub os: String,
    /// And that one's version.
    #[n(4)]
    pub os_version: Version,
    /// The version of its payment app.
    #[n(5)]
    pub app_version: Version,
    /// What it is certified as.
    #[n(6)]
    pub certification: Certification,
    /// A verifier's newest word on it.
    #[n(7)]
    pub attested: Option<Attested>,
}

/// A verifier's word on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attested {
    /// When, milliseconds since 1970 UTC, by the verifier's clock.
    #[n(1)]
    pub issued_ms: u64,
    /// What it says.
    #[n(2)]
    pub status: AttestationStatus,
    /// Whose word: the key.
    #[n(3)]
    pub verifier: KeyId,
    /// On the device while it signs with this key; `None`: while it has the
    /// keys that it was enrolled with.
    #[n(4)]
    pub key: Option<KeyId>,
}

impl Attested {
    pub(crate) fn of(result: &AttestationResult, verifier: KeyId) -> Self {
        Self {
            issued_ms: result.issued_s.saturating_mul(1000),
            status: result.status,
            verifier,
            key: result.confirmed.map(|confirmed| confirmed.key),
        }
    }

    /// How old it is.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.issued_ms)
    }
}

impl Described {
    /// What an entry says, beside what was known.
    pub(crate) fn folded(
        before: Option<&Self>,
        description: &[u8],
        attestation: Option<&[u8]>,
    ) -> Option<Self> {
        let description: DeviceDescription = payload(description)?;
        // Its signature was checked before the entry was made.
        let newest = attestation.and_then(|signed| {
            let verifier = Unverified::parse(signed).ok()?.kid();
            Some(Attested::of(&payload(signed)?, verifier))
        });
        Some(Self::of(
            &description,
            newest.or(before.and_then(|before| before.attested)),
        ))
    }

    fn of(description: &DeviceDescription, attested: Option<Attested>) -> Self {
        Self {
            vendor: description.vendor.clone(),
            model: description.model.clone(),
            os: description.os.clone(),
            os_version: description.os_version,
            app_version: description.app_version,
            certification: description.certification,
            attested,
        }
    }
}

fn payload<T>(signed: &[u8]) -> Option<T>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    cbor::decode(Unverified::parse(signed).ok()?.payload_unverified()).ok()
}

impl DeviceRecord {
    /// A verifier's newest word on it, if that is on the keys that it has now.
    pub fn attested(&self) -> Option<&Attested> {
        let attested = self.described.as_deref()?.attested.as_ref()?;
        self.is_meant_by(attested).then_some(attested)
    }

    /// Whether a word on this device is on the keys that it has now. One that
    /// names no key is on those that it was enrolled with: who had looked at
    /// it then knows nothing of what has other keys now.
    fn is_meant_by(&self, attested: &Attested) -> bool {
        match attested.key {
            Some(key) => key == KeyId::of_key(&self.registration.signing_key),
            None => self.keys.is_none(),
        }
    }
}

impl Core {
    /// A device describes itself. What is not new is not written down again,
    /// and of a device that waits to be approved only the first: a stranger
    /// fills no ledger.
    pub(crate) fn describe(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        description: &DeviceDescription,
        signed: Vec<u8>,
        attestation: Option<Vec<u8>>,
    ) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_barred(ticket, device) {
            return;
        }
        if description.device != device {
            self.refuse(
                ticket,
                RefusalCode::FieldMalformed,
                "device: the identity of this connection expected",
            );
            return;
        }
        let record = self.state.device(&device);
        let before = record.and_then(|record| record.described.as_deref());
        let known = before.and_then(|before| before.attested);
        let now_ms = self.clock.effective_ms();
        let rules = self.state.policy().and_then(|policy| policy.attestation.as_ref());
        let found = attestation
            .as_deref()
            .zip(rules)
            .and_then(|(signed, rules)| rules.verify(&device, signed, now_ms))
            .filter(|found| record.is_some_and(|record| record.is_meant_by(found)));
        // An older word, or the same again, changes nothing. One by somebody
        // whom the policy no longer names, or on keys that the device had
        // before, stands in nobody's way.
        let counting = record
            .and_then(DeviceRecord::attested)
            .filter(|known| rules.is_some_and(|rules| rules.names(known.verifier)));
        let newer = found.filter(|found| counting.is_none_or(|known| found.issued_ms > known.issued_ms));
        let after = Described::of(description, newer.or(known));
        let waits = record.is_some_and(DeviceRecord::pending);
        let sequence = if before == Some(&after) || (waits && before.is_some()) {
            self.state.head().sequence
        } else {
            let event = Event::DeviceDescribed {
                device,
                description: signed,
                attestation: attestation.filter(|_| newer.is_some()),
            };
            self.append(event, None, None)
        };
        let attested = found.is_some();
        self.reply_after(sequence, ticket, Reply::Described { attested });
    }
}
