//! What devices say of themselves and verifiers of them: as drawn, and the
//! model of what it leads to.

use std::rc::Rc;
use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::description::{AttestationStatus, Certification, Version};
use hub_protocol::{
    AttestationResult, DeviceClass, DeviceDescription, DeviceId, PaymentRequest, Reason, Verification, cbor,
};

use crate::ledger::{Ledger, Signed};
use crate::limits::{Devices, Limits};
use crate::profile::pick;
use crate::rng::Rng;
use crate::violation::{Checked, Rule, hold};
use crate::wire;

const MINUTE_MS: u64 = 60_000;

/// A verifier's clock may be ahead of the hub's by so much.
const AHEAD_MS: u64 = 5 * MINUTE_MS;

/// Verifiers: the first two may stand in policies, the third stands in none.
static KEYS: LazyLock<[SigningKey; 3]> =
    LazyLock::new(|| [211, 212, 213].map(|seed| SigningKey::from_bytes(&[seed; 32])));

/// A verifier's public key, by number.
pub(crate) fn public_key(verifier: usize) -> [u8; 32] {
    KEYS.get(verifier)
        .map_or([0; 32], |key| key.verifying_key().to_bytes())
}

/// A verifier's word, in clear: the model never reads the signed bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    verifier: usize,
    device: DeviceId,
    issued_ms: u64,
    status: AttestationStatus,
    /// The signature is that of the verifier's key.
    sound: bool,
}

/// What a device sends.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) device: DeviceId,
    pub(crate) description: DeviceDescription,
    pub(crate) signed: Vec<u8>,
    word: Option<Word>,
    pub(crate) attestation: Option<Vec<u8>>,
}

impl Described {
    /// Of this device; now and then of another one.
    pub(crate) fn draw(own: &mut Rng, device: DeviceId, now_ms: u64, ages: &[u64]) -> Rc<Self> {
        let number = own.below(20);
        let description = DeviceDescription {
            device: if number == 0 { wire::device_id(9) } else { device },
            device_time_ms: 0,
            vendor: "Acme".to_owned(),
            model: ["One", "Two"][usize::from(own.chance(300))].to_owned(),
            os: "os".to_owned(),
            os_version: Version([u32::try_from(pick(own, &[9, 10, 11])).unwrap_or(9), 0, 0, 0]),
            app_version: Version([1, 0, 0, 0]),
            certification: match own.below(6) {
                0 => Certification::None,
                1 | 2 => Certification::CpocPin,
                _ => Certification::Pts,
            },
        };
        let word = own.chance(800).then(|| Word {
            verifier: usize::try_from(pick(own, &[0, 0, 0, 0, 1, 2])).unwrap_or_default(),
            device: if own.chance(50) {
                wire::device_id(8)
            } else {
                device
            },
            issued_ms: match own.below(8) {
                0 => now_ms + MINUTE_MS * pick(own, &[3, 5, 6, 600]),
                1..=3 => now_ms.saturating_sub(MINUTE_MS * pick(own, ages)),
                _ => now_ms.saturating_sub(own.below(MINUTE_MS)),
            } / 1000
                * 1000,
            status: match own.below(12) {
                0 => AttestationStatus::None,
                1 => AttestationStatus::Contraindicated,
                2 | 3 => AttestationStatus::Warning,
                _ => AttestationStatus::Affirming,
            },
            sound: !own.chance(50),
        });
        let attestation = word.as_ref().map(Word::signed);
        let signed = wire::unsigned(device.0[31], &cbor::encode(&description));
        Rc::new(Self {
            device,
            description,
            signed,
            word,
            attestation,
        })
    }
}

impl Described {
    /// For a person.
    pub(crate) fn summary(&self) -> impl core::fmt::Debug + use<> {
        (self.description.clone(), self.word)
    }
}

impl Word {
    fn signed(&self) -> Vec<u8> {
        let result = AttestationResult::new(self.device, self.issued_ms / 1000, self.status);
        let Some(key) = KEYS.get(self.verifier) else {
            return Vec::new();
        };
        let mut signed = cose::sign(key, ObjectType::AttestationResult, &cbor::encode(&result));
        if let Some(last) = signed.last_mut() {
            *last ^= u8::from(!self.sound);
        }
        signed
    }

    /// A policy's verifier says it, whatever it says.
    fn is_of(&self, rules: &Devices) -> bool {
        rules.verifiers.contains(&self.verifier)
    }
}

/// What is known of a device beside its enrolment.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    said: Rc<Described>,
    word: Option<Word>,
}

/// A verifier's word as it stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    Stale,
    Missing,
}

impl Ledger {
    /// Takes in what a device has said, and holds it to the rules.
    pub(crate) fn describe(
        &mut self,
        device: DeviceId,
        description: &[u8],
        attestation: Option<&[u8]>,
        now_ms: u64,
        signed: &Signed,
    ) -> Checked {
        let said = signed.descriptions.iter().rev().find(|said| {
            said.device == device
                && said.signed == description
                && attestation.is_none_or(|a| said.attestation.as_deref() == Some(a))
        });
        let Some(said) = said.filter(|said| said.description.device == device).cloned() else {
            return hold(false, Rule::SilenceMeansNo, || {
                "a device is described as it has not done itself".to_owned()
            });
        };
        let known = self.known.get(&device).and_then(|known| known.word);
        let word = said.word.filter(|_| attestation.is_some());
        if let Some(word) = word {
            let rules = self.policy.as_ref().and_then(|limits| limits.devices.as_ref());
            let counts = rules.is_some_and(|rules| {
                let newer = known
                    .filter(|known| known.is_of(rules))
                    .is_none_or(|known| word.issued_ms > known.issued_ms);
                word.sound && word.device == device && word.is_of(rules) && newer
            });
            hold(
                counts && word.issued_ms <= now_ms + AHEAD_MS,
                Rule::SilenceMeansNo,
                || format!("{word:?} is taken"),
            )?;
        }
        let word = word.or(known);
        self.known.insert(device, Known { said, word });
        Ok(())
    }

    fn standing(&self, rules: &Devices, device: DeviceId, now_ms: u64) -> Standing {
        let Some(word) = self.counting(rules, device) else {
            return Standing::Missing;
        };
        let age_ms = now_ms.saturating_sub(word.issued_ms);
        let warned = word.status == AttestationStatus::Warning;
        match rules.stale {
            _ if age_ms > rules.max_age * MINUTE_MS => Standing::Missing,
            Some((after, _)) if warned || age_ms > after * MINUTE_MS => Standing::Stale,
            None if warned => Standing::Missing,
            _ => Standing::Good,
        }
    }

    /// The newest word on it, if that says something good, by one who counts.
    fn counting(&self, rules: &Devices, device: DeviceId) -> Option<Word> {
        let word = self.known.get(&device)?.word?;
        let good = matches!(
            word.status,
            AttestationStatus::Affirming | AttestationStatus::Warning
        );
        Some(word).filter(|word| good && word.is_of(rules))
    }

    fn asks_for_word(&self, rules: &Devices, device: DeviceId) -> bool {
        let class = self.devices.get(&device).map(|(class, _)| *class);
        class.is_some_and(|class| rules.classes.contains(&class))
    }

    /// What stands against a device that may not approve offline for what it
    /// is.
    pub(crate) fn against_device(&self, limits: &Limits, device: DeviceId, now_ms: u64) -> Vec<Reason> {
        let Some(rules) = &limits.devices else {
            return Vec::new();
        };
        let mut all = Vec::new();
        if rules.models && self.certified(rules, device).is_none() {
            all.push(Reason::ModelNotCertified);
        }
        if self.asks_for_word(rules, device) && self.standing(rules, device, now_ms) == Standing::Missing {
            all.push(Reason::AttestationMissing);
        }
        all
    }

    /// Whether a certified model, and if so, whether a PIN may be entered on
    /// its glass.
    fn certified(&self, rules: &Devices, device: DeviceId) -> Option<bool> {
        let said = &self.known.get(&device)?.said.description;
        let fits = said.os_version >= Version([10, 0, 0, 0])
            && matches!(said.certification, Certification::Pts | Certification::CpocPin);
        let pin = said.certification == Certification::CpocPin && said.model == "One" && rules.pin_on_glass;
        fits.then_some(pin)
    }

    /// A PIN that was entered where it may not be.
    pub(crate) fn pin_on_glass(&self, limits: &Limits, device: DeviceId, request: &PaymentRequest) -> bool {
        request.verification == Verification::OfflinePin && self.takes_no_pin(limits, device)
    }

    /// A phone on whose glass no PIN may be entered.
    pub(crate) fn takes_no_pin(&self, limits: &Limits, device: DeviceId) -> bool {
        let softpos = self
            .devices
            .get(&device)
            .is_some_and(|(class, _)| *class == DeviceClass::Softpos);
        let rules = limits.devices.as_ref().filter(|rules| rules.models);
        let may = rules.is_some_and(|rules| self.certified(rules, device) == Some(true));
        softpos && !may
    }

    /// The share of the ceilings that is left by a stale word.
    pub(crate) fn stale_percent(&self, limits: &Limits, device: DeviceId, now_ms: u64) -> Option<u64> {
        let rules = limits.devices.as_ref()?;
        let (_, percent) = rules.stale.filter(|_| self.asks_for_word(rules, device))?;
        (self.standing(rules, device, now_ms) == Standing::Stale).then_some(percent)
    }

    /// When the word on the device becomes stale, or too old.
    pub(crate) fn word_changes_ms(&self, limits: &Limits, device: DeviceId, now_ms: u64) -> Option<u64> {
        let rules = limits.devices.as_ref()?;
        let word = self
            .counting(rules, device)
            .filter(|_| self.asks_for_word(rules, device))?;
        let fresh = self.standing(rules, device, now_ms) == Standing::Good;
        let minutes = match rules.stale {
            Some((after, _)) if fresh => after.min(rules.max_age),
            _ => rules.max_age,
        };
        Some(word.issued_ms + minutes * MINUTE_MS)
    }

    /// Whether the gateway may be asked for it.
    pub(crate) fn may_go_online(&self, device: DeviceId, now_ms: u64) -> bool {
        let rules = self.policy.as_ref().and_then(|limits| limits.devices.as_ref());
        rules.is_none_or(|rules| {
            let Some(most) = rules.online.filter(|_| self.asks_for_word(rules, device)) else {
                return true;
            };
            let word = self.counting(rules, device);
            word.is_some_and(|word| now_ms.saturating_sub(word.issued_ms) <= most * MINUTE_MS)
        })
    }
}
