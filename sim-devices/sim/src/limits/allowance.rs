//! What devices may approve out of the hub's reach: as drawn, and what it
//! means, by `docs/policy.md`.

use hub_protocol::DeviceClass;

use crate::profile::{Profile, pick};
use crate::rng::Rng;

/// What a policy gives, as far as there is room.
#[derive(Clone, Debug)]
pub(crate) struct Allowances {
    pub(crate) amount: u64,
    pub(crate) count: u32,
    pub(crate) transaction: u64,
    pub(crate) minutes: u64,
    pub(crate) classes: Vec<DeviceClass>,
    /// Although a device knows neither the exception list nor the rules for
    /// countries and BINs.
    pub(crate) unchecked: bool,
    /// The highest sum of one card under one of them; `None`: half of the
    /// card's ceiling for all.
    card: Option<u64>,
    /// For so many devices; `None`: four.
    devices: Option<u64>,
}

impl Allowances {
    /// From a sequence of the policy's own.
    pub(super) fn draw(own: &mut Rng, profile: &Profile) -> Option<Self> {
        if !own.chance(profile.allowances) {
            return None;
        }
        let step = 500;
        let mut classes = DeviceClass::ALL.to_vec();
        classes.retain(|_| own.chance(850));
        if classes.is_empty() {
            classes.push(DeviceClass::Softpos);
        }
        Some(Self {
            amount: step * (1 + own.below(14)) + pick(own, &[0, 0, 1]),
            count: u32::try_from(pick(own, &[1, 2, 3, 5, 8, 64])).unwrap_or(1),
            transaction: step * (1 + own.below(6)),
            minutes: 1 + own.below(2 + profile.pace_ms * 100 / 60_000),
            classes,
            unchecked: own.chance(900),
            card: None,
            devices: None,
        })
    }

    /// How much of each card's ceiling is set aside, and for how many.
    pub(super) fn split(&mut self, own: &mut Rng, ceiling: u64) {
        self.devices = own.chance(800).then(|| pick(own, &[1, 1, 2, 3]));
        let most = ceiling / self.for_devices();
        self.card = own
            .chance(750)
            .then(|| pick(own, &[most, most / 2, most - most / 4]));
    }

    fn for_devices(&self) -> u64 {
        self.devices.unwrap_or(4)
    }

    /// The highest sum of one card under one allowance, if this is its ceiling.
    pub(crate) fn of_card(&self, ceiling: u64) -> u64 {
        self.card.unwrap_or(ceiling / 2 / self.for_devices())
    }

    /// The part of a card's ceiling that the hub itself does not use.
    pub(crate) fn set_aside(&self, ceiling: u64) -> u64 {
        self.of_card(ceiling) * self.for_devices()
    }

    pub(super) fn text(&self) -> String {
        let Self {
            amount,
            count,
            transaction,
            minutes,
            classes,
            unchecked,
            card,
            devices,
        } = self;
        let classes: Vec<_> = classes
            .iter()
            .map(|class| format!("\"{}\"", class.name()))
            .collect();
        let optional = [("card_ceiling", card), ("devices", devices)];
        let optional: String = optional
            .iter()
            .filter_map(|(key, value)| value.map(|value| format!("{key} = {value}\n")))
            .collect();
        format!(
            "[allowance]\namount = {amount}\ncount = {count}\ntransaction_ceiling = {transaction}\n\
             minutes = {}\nclasses = [{}]\nunchecked_cards = {unchecked}\n{optional}",
            minutes.min(&1_440),
            classes.join(", ")
        )
    }

    /// In milliseconds.
    pub(crate) fn valid_ms(&self) -> u64 {
        self.minutes.min(1_440) * 60_000
    }
}
