//! Which devices: certified models, and how fresh a verifier's word on them
//! must be.

use hub_protocol::cose::{Unverified, verifying_key};
use hub_protocol::description::{AttestationStatus, Certification, Version};
use hub_protocol::{AttestationResult, DeviceClass, DeviceId, KeyId, cbor};

use super::people::{Named, read_named};
use super::{names, not_empty, short_text};
use crate::described::{Attested, Described};
use crate::toml_reader::{Section, boolean, integer, list, text};

/// The most `[[model]]` tables.
pub const MAX_MODELS: usize = 256;

/// A verifier's clock may be ahead of the hub's by so much, milliseconds.
const AHEAD_MS: u64 = 5 * 60 * 1000;

const MINUTES: &str = "minutes from 1 to 525600 (a year)";

/// A certified model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Devices of this class; `None`: of any.
    pub class: Option<DeviceClass>,
    /// Who makes it.
    pub vendor: String,
    /// Which; `None`: any of the vendor's.
    pub model: Option<String>,
    /// The lowest version of the operating system.
    pub os_version: Version,
    /// The lowest version of the payment app.
    pub app_version: Version,
    /// Certified as one of these.
    pub certification: Vec<Certification>,
    /// Whether the PIN may be entered on its glass.
    pub pin_on_glass: bool,
}

impl Model {
    fn fits(&self, class: DeviceClass, device: &Described) -> bool {
        self.class.is_none_or(|own| own == class)
            && self.vendor == device.vendor
            && self.model.as_ref().is_none_or(|model| *model == device.model)
            && device.os_version >= self.os_version
            && device.app_version >= self.app_version
            && self.certification.contains(&device.certification)
    }
}

/// How fresh a verifier's word on a device must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationRules {
    /// Devices that need one.
    pub classes: Vec<DeviceClass>,
    /// Older, and nothing is approved offline, in milliseconds.
    pub max_age_ms: u64,
    /// Older, and ceilings are smaller.
    pub stale: Option<Stale>,
    /// Older, and nothing is asked online either; `None`: no such limit.
    pub online_max_age_ms: Option<u64>,
    /// Whose word counts.
    pub verifiers: Vec<Named>,
}

/// When an attestation is stale, and what holds then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// From this age on, exclusive, in milliseconds.
    pub after_ms: u64,
    /// Ceilings are this share of the signed ones.
    pub percent: u64,
}

/// How a device stands to the policy's rules for devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether its model is certified, if that is asked for.
    pub certified: bool,
    /// Whether the PIN may be entered on its glass, were it a SoftPOS: only
    /// where a model of the policy says so.
    pub pin_on_glass: bool,
    /// The verifier's word, if one is asked for.
    pub attestation: Attestation,
    /// When that becomes worse by its age, milliseconds since 1970 UTC;
    /// `u64::MAX`: never.
    pub attested_until_ms: u64,
    /// Whether that is fresh enough to be asked online.
    pub online: bool,
}

/// A verifier's word as it stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// Fresh, or none is asked for.
    Good,
    /// Stale, or a warning: ceilings are smaller.
    Stale,
    /// None, too old, or not good.
    Missing,
}

impl Default for Standing {
    /// Of a device of which nothing is asked, and nothing is known.
    fn default() -> Self {
        Self {
            certified: true,
            pin_on_glass: false,
            attestation: Attestation::Good,
            attested_until_ms: u64::MAX,
            online: true,
        }
    }
}

impl Standing {
    /// Of a device at this time, with the word on the keys that it has.
    pub(crate) fn of(
        models: &[Model],
        rules: Option<&AttestationRules>,
        class: DeviceClass,
        device: Option<&Described>,
        attested: Option<&Attested>,
        now_ms: u64,
    ) -> Self {
        let mut standing = Self::default();
        if !models.is_empty() {
            let mut fitting = models
                .iter()
                .filter(|model| device.is_some_and(|device| model.fits(class, device)))
                .peekable();
            standing.certified = fitting.peek().is_some();
            standing.pin_on_glass = fitting.any(|model| model.pin_on_glass);
        }
        if let Some(rules) = rules.filter(|rules| rules.classes.contains(&class)) {
            standing.attestation = rules.judge(attested, now_ms);
            standing.attested_until_ms = rules.until_ms(attested, standing.attestation);
            standing.online = rules
                .online_max_age_ms
                .is_none_or(|most| rules.counts(attested).is_some_and(|a| a.age_ms(now_ms) <= most));
        }
        standing
    }
}

impl Standing {
    /// Of the best device of a class that the policy knows of: of a certified
    /// model, with a fresh word of a verifier.
    pub(crate) fn best(models: &[Model], class: DeviceClass) -> Self {
        let mut of_class = models
            .iter()
            .filter(|model| model.class.is_none_or(|own| own == class));
        Self {
            pin_on_glass: of_class.clone().any(|model| model.pin_on_glass),
            certified: models.is_empty() || of_class.next().is_some(),
            ..Self::default()
        }
    }
}

impl AttestationRules {
    /// What a verifier says of this device, if it is a verifier of the policy.
    pub(crate) fn verify(&self, device: &DeviceId, signed: &[u8], now_ms: u64) -> Option<Attested> {
        let object = Unverified::parse(signed).ok()?;
        let verifier = object.kid();
        let named = self.verifiers.iter().find(|one| one.key_id() == verifier)?;
        let key = verifying_key(&named.key)?;
        let result: AttestationResult = cbor::decode(object.payload_unverified()).ok()?;
        object.verify(result.object_type(), &key).ok()?;
        let attested = Attested::of(&result, verifier);
        (result.is_of(device) && attested.issued_ms <= now_ms.saturating_add(AHEAD_MS)).then_some(attested)
    }

    /// Whether this is the key of a verifier of the policy.
    pub(crate) fn names(&self, verifier: KeyId) -> bool {
        self.verifiers.iter().any(|one| one.key_id() == verifier)
    }

    /// An attestation that says something good, by a verifier of the policy.
    fn counts<'a>(&self, attested: Option<&'a Attested>) -> Option<&'a Attested> {
        attested.filter(|attested| {
            let known = self.names(attested.verifier);
            let good = matches!(
                attested.status,
                AttestationStatus::Affirming | AttestationStatus::Warning
            );
            known && good
        })
    }

    /// When a word that stands like this becomes worse.
    fn until_ms(&self, attested: Option<&Attested>, standing: Attestation) -> u64 {
        let stale = self.stale.filter(|_| standing == Attestation::Good);
        let lasts_ms = stale.map_or(self.max_age_ms, |stale| stale.after_ms.min(self.max_age_ms));
        attested.map_or(u64::MAX, |attested| attested.issued_ms.saturating_add(lasts_ms))
    }

    fn judge(&self, attested: Option<&Attested>, now_ms: u64) -> Attestation {
        let Some(attested) = self.counts(attested) else {
            return Attestation::Missing;
        };
        let age_ms = attested.age_ms(now_ms);
        if age_ms > self.max_age_ms {
            return Attestation::Missing;
        }
        let warned = attested.status == AttestationStatus::Warning;
        match self.stale {
            Some(stale) if warned || age_ms > stale.after_ms => Attestation::Stale,
            None if warned => Attestation::Missing,
            _ => Attestation::Good,
        }
    }
}

/// Reads `[[model]]`.
pub(super) fn read_models(listed: Vec<Section<'_, '_>>) -> Vec<Model> {
    let mut models = Vec::with_capacity(listed.len());
    for (at, section) in listed.into_iter().enumerate() {
        if at == MAX_MODELS {
            section.fault(section.line(), format!("model: at most {MAX_MODELS} expected"));
        }
        models.extend(read_model(section));
    }
    models
}

fn read_model(section: Section<'_, '_>) -> Option<Model> {
    const NAME: &str = "a name of 1 to 64 bytes";
    const VERSION: &str = "up to four numbers, such as \"14.2\",";
    let class = section.optional(
        "class",
        &names(DeviceClass::ALL.iter().map(|c| c.name())).replace("a list of ", "one of "),
        text,
    );
    let vendor = section.required("vendor", NAME, short_text);
    let model = section.required("model", "a name of 1 to 64 bytes, or \"*\",", short_text);
    let os_version = section.optional("os_version", VERSION, text::<Version>);
    let app_version = section.optional("app_version", VERSION, text::<Version>);
    let certification = section.required(
        "certification",
        &names(Certification::ALL.iter().map(|c| c.name())),
        list,
    );
    let pin = section.optional("pin_on_glass", "true or false", boolean);
    not_empty(
        &section,
        "certification",
        certification.as_ref(),
        "it would fit no device: leave the model out",
    );
    section.finish();
    Some(Model {
        class: class.map(|at| at.value),
        vendor: vendor?.value,
        model: model.map(|at| at.value).filter(|model| model != "*"),
        os_version: os_version.map_or_else(Version::default, |at| at.value),
        app_version: app_version.map_or_else(Version::default, |at| at.value),
        certification: certification?.value,
        pin_on_glass: pin.is_some_and(|at| at.value),
    })
}

/// Reads `[attestation]`. Without it no attestation is asked for.
pub(super) fn read_attestation(section: Section<'_, '_>) -> Option<AttestationRules> {
    if !section.present() {
        section.finish();
        return None;
    }
    let minutes = integer(1..=525_600);
    let classes = section.required("classes", &names(DeviceClass::ALL.iter().map(|c| c.name())), list);
    let max_age = section.required("max_age_minutes", MINUTES, &minutes);
    let after = section.optional("stale_minutes", MINUTES, &minutes);
    let percent = section.optional("stale_percent", "percent from 0 to 99", integer(0..=99));
    let online = section.optional("online_max_age_minutes", MINUTES, &minutes);
    if section.holds("stale_minutes") != section.holds("stale_percent") {
        let line = after.or(percent).map_or(section.line(), |at| at.line);
        section.fault(
            line,
            "attestation.stale_minutes and attestation.stale_percent say something only beside each other",
        );
    }
    if let (Some(after), Some(most)) = (&after, &max_age)
        && after.value >= most.value
    {
        section.fault(
            after.line,
            "attestation.stale_minutes: below max_age_minutes expected",
        );
    }
    let verifiers = read_named(&section, "verifier", "attestation.verifier");
    not_empty(&section, "classes", classes.as_ref(), "leave [attestation] out");
    section.finish();
    Some(AttestationRules {
        classes: classes?.value,
        max_age_ms: max_age?.value * 60_000,
        stale: after.zip(percent).map(|(after, percent)| Stale {
            after_ms: after.value * 60_000,
            percent: percent.value,
        }),
        online_max_age_ms: online.map(|at| at.value * 60_000),
        verifiers,
    })
}
