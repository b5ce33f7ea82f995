//! The policy that a run is played under: written as TOML for the hub, and
//! the same values for the reconciliation, which reads them by itself.

use std::fmt::Write as _;
use std::str::FromStr;

use hub_protocol::{CardScheme, Currency, DeviceClass, EntryMode, Funding};
use jiff::{Timestamp, ToSpan};
use serde::Deserialize;

/// Limits of a subject: a card, a device, the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectLimits {
    /// Highest sum approved offline and not settled, minor units, inclusive.
    pub exposure: u64,
    /// Most offline approvals in a row.
    pub consecutive: u32,
}

/// Limits of a class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// Highest single amount offline, minor units, inclusive.
    pub transaction: u64,
    /// Of each device.
    pub device: SubjectLimits,
}

/// All of a policy that bounds what is approved offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The shop's currency.
    pub currency: Currency,
    /// Longest time offline, minutes.
    pub longest_minutes: u32,
    /// Accepted schemes.
    pub schemes: Vec<CardScheme>,
    /// Accepted funding types.
    pub funding: Vec<Funding>,
    /// Accepted ways of reading the card.
    pub entry_modes: Vec<EntryMode>,
    /// Highest contactless amount without verification, minor units.
    pub unverified: u64,
    /// Of the whole store.
    pub store: SubjectLimits,
    /// Of one card.
    pub card: SubjectLimits,
    /// In the order of [`DeviceClass::ALL`]: mpos, softpos, terminal.
    pub classes: [ClassLimits; 3],
}

/// A policy file that cannot be used for a run.
#[derive(Debug, thiserror::Error)]
#[error("the policy cannot be used: {0}")]
pub struct LimitsError(String);

impl Limits {
    /// The demo's: small enough to be reached in one outage of a busy shop.
    pub fn demo() -> Self {
        Self {
            currency: Currency::EUR,
            longest_minutes: 240,
            schemes: vec![CardScheme::Cb, CardScheme::Visa, CardScheme::Mastercard],
            funding: vec![Funding::Credit, Funding::Debit, Funding::DeferredDebit],
            entry_modes: vec![EntryMode::Chip, EntryMode::Contactless],
            unverified: 5000,
            store: subject(300_000, 300),
            card: subject(8000, 3),
            classes: [
                class(10_000, subject(60_000, 60)),
                class(5000, subject(30_000, 30)),
                class(15_000, subject(90_000, 80)),
            ],
        }
    }

    /// For files of real tickets: the amounts are in the file's own currency,
    /// whose unit may be worth much less than a euro.
    pub fn real_days(currency: Currency) -> Self {
        Self {
            currency,
            store: subject(1_500_000, 400),
            card: subject(60_000, 5),
            classes: [
                class(40_000, subject(250_000, 80)),
                class(20_000, subject(120_000, 40)),
                class(60_000, subject(400_000, 120)),
            ],
            unverified: 5000,
            ..Self::demo()
        }
    }

    /// So high that nothing but the machine limits the load.
    pub fn load() -> Self {
        let any = subject(hub_protocol::MAX_AMOUNT_MINOR, 1_000_000);
        Self {
            longest_minutes: 43_200,
            store: any,
            card: any,
            classes: [class(1_000_000, any); 3],
            ..Self::demo()
        }
    }

    /// Of a class.
    pub fn class(&self, class: DeviceClass) -> ClassLimits {
        match class {
            DeviceClass::Mpos => self.classes[0],
            DeviceClass::Softpos => self.classes[1],
            DeviceClass::Terminal => self.classes[2],
        }
    }

    /// The policy file for these limits, in force from a day before `now` to
    /// 30 days after it.
    pub fn to_toml(&self, version: u64, now: Timestamp) -> String {
        let from = now - 24.hours();
        let to = now + (30 * 24).hours();
        let mut text = format!(
            "format = 1\ntenant = \"simulation\"\nstores = [\"*\"]\nversion = {version}\n\
             not_before = {from:.0}\nexpires = {to:.0}\ncurrency = \"{}\"\n\n\
             [offline]\nenabled = true\nlongest_minutes = {}\nschemes = {}\nfunding = {}\nentry_modes = {}\n\
             contactless_unverified_ceiling = {}\n",
            self.currency,
            self.longest_minutes,
            names(self.schemes.iter().map(|s| s.name())),
            names(self.funding.iter().map(|f| f.name())),
            names(self.entry_modes.iter().map(|m| m.name())),
            self.unverified,
        );
        for (name, limits) in [("store", self.store), ("card", self.card)] {
            let SubjectLimits {
                exposure,
                consecutive,
            } = limits;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n[{name}]\nexposure_ceiling = {exposure}\nconsecutive_limit = {consecutive}\n"
            );
        }
        for class in DeviceClass::ALL {
            let limits = self.class(*class);
            let _ = write!(
                text,
                "\n[class.{class}]\ntransaction_ceiling = {}\ndevice_exposure_ceiling = {}\n\
                 device_consecutive_limit = {}\n",
                limits.transaction, limits.device.exposure, limits.device.consecutive
            );
        }
        text
    }

    /// Reads the limits of a policy file. A class that is not named takes
    /// nothing offline.
    pub fn parse(text: &str) -> Result<Self, LimitsError> {
        let file: PolicyFile = toml::from_str(text).map_err(|e| LimitsError(e.to_string()))?;
        let class_of = |limits: Option<ClassFile>| {
            limits.map_or(class(0, subject(0, 0)), |l| {
                class(
                    l.transaction_ceiling,
                    subject(l.device_exposure_ceiling, l.device_consecutive_limit),
                )
            })
        };
        Ok(Self {
            currency: parse_name(&file.currency)?,
            longest_minutes: file.offline.longest_minutes,
            schemes: parse_names(&file.offline.schemes)?,
            funding: parse_names(&file.offline.funding)?,
            entry_modes: parse_names(&file.offline.entry_modes)?,
            unverified: file.offline.contactless_unverified_ceiling.unwrap_or(u64::MAX),
            store: subject(file.store.exposure_ceiling, file.store.consecutive_limit),
            card: subject(file.card.exposure_ceiling, file.card.consecutive_limit),
            classes: [
                class_of(file.class.mpos),
                class_of(file.class.softpos),
                class_of(file.class.terminal),
            ],
        })
    }
}

const fn subject(exposure: u64, consecutive: u32) -> SubjectLimits {
    SubjectLimits {
        exposure,
        consecutive,
    }
}

const fn class(transaction: u64, device: SubjectLimits) -> ClassLimits {
    ClassLimits { transaction, device }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn parse_name<T: FromStr>(name: &str) -> Result<T, LimitsError> {
    name.parse()
        .map_err(|_| LimitsError(format!("{name} is not known")))
}

fn parse_names<T: FromStr>(names: &[String]) -> Result<Vec<T>, LimitsError> {
    names.iter().map(|name| parse_name(name)).collect()
}

#[derive(Deserialize)]
struct PolicyFile {
    currency: String,
    offline: OfflineFile,
    store: SubjectFile,
    card: SubjectFile,
    class: ClassesFile,
}

#[derive(Deserialize)]
struct OfflineFile {
    longest_minutes: u32,
    schemes: Vec<String>,
    funding: Vec<String>,
    entry_modes: Vec<String>,
    contactless_unverified_ceiling: Option<u64>,
}

#[derive(Deserialize)]
struct SubjectFile {
    exposure_ceiling: u64,
    consecutive_limit: u32,
}

#[derive(Deserialize)]
struct ClassesFile {
    mpos: Option<ClassFile>,
    softpos: Option<ClassFile>,
    terminal: Option<ClassFile>,
}

#[derive(Deserialize)]
struct ClassFile {
    transaction_ceiling: u64,
    device_exposure_ceiling: u64,
    device_consecutive_limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_the_hub_reads_back_as_the_same_limits() {
        let now: Timestamp = "2026-03-14T12:00:00Z".parse().unwrap();
        for limits in [
            Limits::demo(),
            Limits::load(),
            Limits::real_days("PLN".parse().unwrap()),
        ] {
            let text = limits.to_toml(3, now);
            assert_eq!(Limits::parse(&text).unwrap(), limits, "{text}");
            assert!(text.contains("version = 3") && text.contains("not_before = 2026-03-13T12:00:00Z"));
        }
    }

    #[test]
    fn softpos_is_stricter_than_mpos() {
        for limits in [Limits::demo(), Limits::real_days(Currency::EUR)] {
            let (softpos, mpos) = (
                limits.class(DeviceClass::Softpos),
                limits.class(DeviceClass::Mpos),
            );
            assert!(softpos.transaction < mpos.transaction);
            assert!(softpos.device.exposure < mpos.device.exposure);
        }
    }

    #[test]
    fn a_class_that_is_not_named_takes_nothing_offline() {
        let now: Timestamp = "2026-03-14T12:00:00Z".parse().unwrap();
        let text = Limits::demo().to_toml(1, now);
        let cut = text.split("\n[class.terminal]").next().unwrap();
        assert_eq!(
            Limits::parse(cut)
                .unwrap()
                .class(DeviceClass::Terminal)
                .transaction,
            0
        );
        assert!(Limits::parse("currency = 3").is_err());
    }
}
