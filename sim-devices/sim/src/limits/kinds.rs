//! Ceilings for kinds of payments, and the steps by which ceilings move: as
//! drawn, and what they mean, by `docs/policy.md`.

use std::fmt::Write as _;

use hub_protocol::{Cryptogram, DeviceClass, EntryMode, Funding, Verification};

use crate::profile::pick;
use crate::rng::Rng;

/// What a payment is, in the policy's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payment {
    pub(crate) class: DeviceClass,
    pub(crate) entry_mode: EntryMode,
    pub(crate) verification: Verification,
    pub(crate) funding: Funding,
    pub(crate) domestic: bool,
    pub(crate) cryptogram: Cryptogram,
}

/// A ceiling for one kind of payments. What is `None` is for all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    class: Option<DeviceClass>,
    entry_mode: Option<EntryMode>,
    verification: Option<Verification>,
    funding: Option<Funding>,
    domestic: Option<bool>,
    cryptogram: Option<Cryptogram>,
    pub(crate) amount: u64,
}

impl Kind {
    /// A few of them, no two of which say equally much of one payment.
    pub(super) fn draw_some(rng: &mut Rng, domestic_known: bool, step: u64) -> Vec<Self> {
        let mut kinds: Vec<Self> = Vec::new();
        for _ in 0..=rng.below(4) {
            let mut kind = Self::draw(rng, domestic_known);
            // Not always round, so that shares of it are rounded.
            kind.amount = step * rng.below(10) + pick(rng, &[0, 1, 50]);
            let tie = |other: &Self| other.says() == kind.says() && other.meets(&kind);
            if !kinds.iter().any(tie) {
                kinds.push(kind);
            }
        }
        kinds
    }

    fn draw(rng: &mut Rng, domestic_known: bool) -> Self {
        fn some<T: Copy>(rng: &mut Rng, of: &[T]) -> Option<T> {
            let place = usize::try_from(rng.below(3 * u64::try_from(of.len()).unwrap_or(1)));
            of.get(place.unwrap_or_default()).copied()
        }
        let mut kind = Self {
            class: some(rng, DeviceClass::ALL),
            entry_mode: some(rng, &[EntryMode::Chip, EntryMode::Contactless]),
            verification: some(
                rng,
                &[Verification::OfflinePin, Verification::None, Verification::Cdcvm],
            ),
            funding: some(rng, &[Funding::Debit, Funding::Credit]),
            domestic: some(rng, &[true, false]).filter(|_| domestic_known),
            cryptogram: some(rng, &[Cryptogram::CardApproved, Cryptogram::AsksOnline]),
            amount: 0,
        };
        // What needs a PIN is the commonest reason for such a ceiling.
        if rng.chance(350) {
            kind.verification = Some(Verification::OfflinePin);
        }
        kind
    }

    pub(super) fn text(&self) -> String {
        let mut text = "[[ceiling]]\n".to_owned();
        let said = [
            ("class", self.class.map(|class| class.name())),
            ("entry_mode", self.entry_mode.map(|mode| mode.name())),
            ("verification", self.verification.map(|how| how.name())),
            ("funding", self.funding.map(|funding| funding.name())),
            (
                "issuer",
                self.domestic
                    .map(|home| if home { "domestic" } else { "foreign" }),
            ),
            ("cryptogram", self.cryptogram.map(|word| word.name())),
        ];
        // Writing to a String cannot fail.
        for (key, value) in said {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = \"{value}\"");
            }
        }
        let _ = writeln!(text, "amount = {}", self.amount);
        text
    }

    pub(crate) fn fits(&self, payment: &Payment) -> bool {
        self.class.is_none_or(|class| class == payment.class)
            && self.entry_mode.is_none_or(|mode| mode == payment.entry_mode)
            && self.verification.is_none_or(|how| how == payment.verification)
            && self.funding.is_none_or(|funding| funding == payment.funding)
            && self.domestic.is_none_or(|domestic| domestic == payment.domestic)
            && self.cryptogram.is_none_or(|word| word == payment.cryptogram)
    }

    /// Whether it may be of a payment at such a device.
    pub(crate) fn fits_class(&self, class: DeviceClass) -> bool {
        self.class.is_none_or(|own| own == class)
    }

    /// How much it says of a payment.
    pub(crate) fn says(&self) -> usize {
        usize::from(self.class.is_some())
            + usize::from(self.entry_mode.is_some())
            + usize::from(self.verification.is_some())
            + usize::from(self.funding.is_some())
            + usize::from(self.domestic.is_some())
            + usize::from(self.cryptogram.is_some())
    }

    /// Whether one payment can be of both kinds.
    fn meets(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, two: Option<T>) -> bool {
            match (one, two) {
                (Some(one), Some(two)) => one == two,
                _ => true,
            }
        }
        agree(self.class, other.class)
            && agree(self.entry_mode, other.entry_mode)
            && agree(self.verification, other.verification)
            && agree(self.funding, other.funding)
            && agree(self.domestic, other.domestic)
            && agree(self.cryptogram, other.cryptogram)
    }
}

/// From a value on, ceilings are a share of the signed ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) from: u64,
    pub(crate) percent: u64,
}

impl Step {
    /// One or two, each further on and with a smaller share.
    pub(super) fn draw_some(rng: &mut Rng, least: u64, most: u64) -> Vec<Self> {
        let mut from = least + rng.below(most);
        let mut percent = pick(rng, &[99, 75, 67, 50, 33]);
        let mut steps = Vec::new();
        for _ in 0..=rng.below(2) {
            steps.push(Self { from, percent });
            from += 1 + rng.below(most);
            percent = percent * pick(rng, &[0, 40, 100]) / 100;
        }
        steps
    }

    pub(super) fn text(&self, name: &str, key: &str) -> String {
        let Self { from, percent } = self;
        format!("[[moving.{name}]]\n{key} = {from}\npercent = {percent}\n")
    }
}
