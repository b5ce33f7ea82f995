//! `[allowance]`: what a device may approve by itself while it cannot reach
//! the hub. Without the section no device is given any.

use hub_protocol::{DeviceClass, MAX_ALLOWANCE_COUNT, MAX_AMOUNT_MINOR};

use super::cards::CardRules;
use super::{AMOUNT, SubjectLimits, names, not_empty};
use crate::toml_reader::{Section, boolean, integer, list};

/// At how many devices a card is counted on to be used out of reach, unless the
/// policy says so.
const DEVICES: u32 = 4;

/// What allowances are given, as far as there is room under the ceilings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowanceRules {
    /// The highest amount of one allowance, minor units.
    pub amount_minor: u64,
    /// Its highest number of payments.
    pub count: u32,
    /// The highest amount of one payment under it, minor units.
    pub transaction_ceiling_minor: u64,
    /// The highest sum of one card under one allowance, minor units.
    pub card_ceiling_minor: u64,
    /// For so many devices a part of the card's ceiling is set aside.
    pub devices: u32,
    /// How long it is good for, in milliseconds.
    pub valid_ms: u64,
    /// To which classes of devices.
    pub classes: Vec<DeviceClass>,
    /// Whether they are given although a device knows neither the exception
    /// list nor the rules for countries and BINs.
    pub unchecked_cards: bool,
}

impl AllowanceRules {
    /// The part of a card's ceiling that is for allowances, minor units: nobody
    /// else uses it, since no device knows what a card has paid elsewhere.
    pub(crate) fn card_set_aside_minor(&self) -> u64 {
        self.card_ceiling_minor.saturating_mul(u64::from(self.devices))
    }

    /// Whether a device could judge every card that the policy judges.
    pub fn cards_pass(&self, cards: &CardRules) -> bool {
        let listed = cards.exceptions.is_empty() && cards.countries.is_empty();
        let bins = cards.bins_allowed.is_empty() && cards.bins_denied.is_empty();
        self.unchecked_cards || (listed && bins)
    }
}

/// Reads `[allowance]`. All of it may be missing. `card` are the limits of one
/// card, if they could be read.
pub(super) fn read(section: Section<'_, '_>, card: Option<&SubjectLimits>) -> Option<AllowanceRules> {
    if !section.present() {
        section.finish();
        return None;
    }
    let amount = section.required("amount", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let count = section.required(
        "count",
        "a whole number from 1 to 64",
        integer(1..=u64::from(MAX_ALLOWANCE_COUNT)),
    );
    let transaction = section.required("transaction_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let of_card = section.optional("card_ceiling", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let devices = section.optional("devices", "a whole number from 1 to 1000", integer(1..=1_000));
    let devices_or_usual = devices.map_or(u64::from(DEVICES), |at| at.value);
    let ceiling = card.map_or(0, |card| card.exposure_ceiling);
    // A number that is wrong has its own fault.
    let told = devices.is_some() || !section.holds("devices");
    if let Some(at) = of_card.filter(|at| told && card.is_some() && at.value > ceiling / devices_or_usual) {
        section.fault(
            at.line,
            format!(
                "allowance.card_ceiling: {devices_or_usual} times as much is above card.exposure_ceiling ({ceiling})"
            ),
        );
    }
    // Half is left to the hub.
    let of_card = of_card.map_or(ceiling / 2 / devices_or_usual, |at| at.value);
    let minutes = section.required("minutes", "minutes from 1 to 1440 (a day)", integer(1..=1_440));
    let classes = section.required("classes", &names(DeviceClass::ALL.iter().map(|c| c.name())), list);
    let unchecked = section.optional("unchecked_cards", "true or false", boolean);
    not_empty(&section, "classes", classes.as_ref(), "leave [allowance] out");
    section.finish();
    Some(AllowanceRules {
        amount_minor: amount?.value,
        count: u32::try_from(count?.value).ok()?,
        transaction_ceiling_minor: transaction?.value,
        card_ceiling_minor: of_card,
        devices: u32::try_from(devices_or_usual).ok()?,
        valid_ms: minutes?.value.saturating_mul(60_000),
        classes: classes?.value,
        unchecked_cards: unchecked.is_some_and(|at| at.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_reader::Document;

    fn rules(text: &str) -> (Option<AllowanceRules>, Vec<String>) {
        let document = Document::parse(text).unwrap();
        let card = SubjectLimits {
            exposure_ceiling: 15_000,
            consecutive_limit: 5,
            consecutive_lower_limit: None,
        };
        let rules = read(document.root().section("allowance"), Some(&card));
        let faults = document.into_faults();
        (rules, faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn without_the_section_there_are_no_allowances() {
        assert_eq!(rules(""), (None, vec![]));
    }

    #[test]
    fn every_key_is_read_and_lists_are_unchecked_only_if_said_so() {
        let text = "[allowance]\namount = 20000\ncount = 20\ntransaction_ceiling = 5000\nminutes = 60\n\
                    classes = [\"mpos\", \"terminal\"]\n";
        let (read, faults) = rules(text);
        assert_eq!(faults, Vec::<String>::new());
        let read = read.unwrap();
        assert_eq!(
            read,
            AllowanceRules {
                amount_minor: 20_000,
                count: 20,
                transaction_ceiling_minor: 5_000,
                card_ceiling_minor: 1_875,
                devices: 4,
                valid_ms: 3_600_000,
                classes: vec![DeviceClass::Mpos, DeviceClass::Terminal],
                unchecked_cards: false,
            }
        );
        assert!(read.cards_pass(&CardRules::default()));
        let mut listed = CardRules::default();
        listed.exceptions.insert("tok".to_owned(), None);
        assert!(!read.cards_pass(&listed));
        let (unchecked, _) = rules(&format!("{text}unchecked_cards = true\n"));
        assert!(unchecked.unwrap().cards_pass(&listed));
    }

    #[test]
    fn rule_5_half_of_a_cards_ceiling_is_for_four_devices_unless_the_policy_says_otherwise() {
        let text = "[allowance]\namount = 20000\ncount = 20\ntransaction_ceiling = 5000\nminutes = 60\n\
                    classes = [\"mpos\"]\n";
        for (more, each, aside) in [
            ("", 1_875, 7_500),
            ("devices = 3", 2_500, 7_500),
            ("card_ceiling = 1000", 1_000, 4_000),
            ("card_ceiling = 5000\ndevices = 3", 5_000, 15_000),
            ("card_ceiling = 0", 0, 0),
        ] {
            let (read, faults) = rules(&format!("{text}{more}\n"));
            assert_eq!(faults, Vec::<String>::new(), "{more}");
            let read = read.unwrap();
            assert_eq!(
                (read.card_ceiling_minor, read.card_set_aside_minor()),
                (each, aside)
            );
        }
        for more in ["card_ceiling = 5001\ndevices = 3", "card_ceiling = 3751"] {
            let (_, faults) = rules(&format!("{text}{more}\n"));
            assert!(
                faults[0].contains("above card.exposure_ceiling (15000)"),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn what_is_out_of_range_is_a_fault() {
        for (key, value) in [
            ("amount", "-1"),
            ("amount", "1000000000000"),
            ("count", "0"),
            ("count", "65"),
            ("minutes", "0"),
            ("minutes", "1441"),
            ("classes", "[\"till\"]"),
            ("unchecked_cards", "1"),
            ("card_ceiling", "-1"),
            ("devices", "0"),
            ("devices", "1001"),
        ] {
            let (_, faults) = rules(&format!("[allowance]\n{key} = {value}\n"));
            let of_key = format!("allowance.{key}: ");
            assert!(
                faults.iter().any(|fault| fault.starts_with(&of_key)),
                "{key}: {faults:?}"
            );
        }
        let (read, faults) = rules("[allowance]\n");
        assert_eq!((read, faults.len()), (None, 5), "five keys must be there");
    }
}
