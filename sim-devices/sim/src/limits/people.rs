//! Who stands at the device, and what is asked for: as drawn, and what it
//! means, by `docs/policy.md`.

use std::fmt::Write as _;

use hub_protocol::TransactionType;

use super::Pair;
use super::often::Window;
use crate::profile::{Profile, pick};
use crate::rng::Rng;
use crate::terms;

/// Supervisors whose word lets a lower limit pass, in the whole store.
#[derive(Clone, Debug)]
pub(crate) struct Overrides {
    pub(crate) window: Window,
    /// By number.
    pub(crate) supervisors: Vec<usize>,
}

/// See the module's documentation. `None`: the policy does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    types: Option<Vec<TransactionType>>,
    pub(crate) cash: Option<u64>,
    expired: Option<bool>,
    pub(crate) staff: Option<Pair>,
    pub(crate) overrides: Option<Overrides>,
}

impl People {
    /// From a sequence of the policy's own.
    pub(super) fn draw(own: &mut Rng, profile: &Profile) -> Self {
        if !own.chance(profile.people) {
            return Self::default();
        }
        let step = 500;
        let types = own.chance(700).then(|| Self::draw_types(own));
        let hands_out_cash = types
            .as_ref()
            .is_some_and(|types| types.contains(&TransactionType::CashBack));
        let cash = (hands_out_cash || own.chance(200)).then(|| pick(own, &[0, 1, 50, 200, 499, 500, 1_000]));
        let asked = if profile.overrides > 0 { 900 } else { 100 };
        let overrides = own.chance(asked).then(|| Overrides {
            window: Window::draw(own, &[1, 1, 2, 3], profile.pace_ms),
            supervisors: match own.below(4) {
                0 => vec![1],
                1 => vec![0],
                _ => vec![1, 0],
            },
        });
        let lower = if overrides.is_some() { 700 } else { 300 };
        let staff = own.chance(600).then(|| {
            let consecutive = 1 + own.below(7);
            let lower = own.chance(lower).then(|| own.below(consecutive + 1));
            let small = |number: u64| u32::try_from(number).unwrap_or_default();
            Pair {
                exposure: step * (3 + own.below(12)),
                consecutive: small(consecutive),
                lower: lower.map(small),
            }
        });
        Self {
            types,
            cash,
            expired: own.chance(300).then(|| own.chance(600)),
            staff,
            overrides,
        }
    }

    /// Where supervisors may help there is something to help with.
    pub(super) fn lower_too(&self, own: &mut Rng, card: &mut Pair) {
        if self.overrides.is_some() && own.chance(700) {
            let lower = u32::try_from(pick(own, &[0, 0, 1, 2])).unwrap_or_default();
            card.lower = Some(lower.min(card.consecutive));
        }
    }

    /// Most of them as a shop would have it.
    fn draw_types(own: &mut Rng) -> Vec<TransactionType> {
        let chance = |kind: &TransactionType| match kind {
            TransactionType::Sale => 950,
            TransactionType::Refund => 500,
            TransactionType::CashBack => 650,
        };
        let mut types = TransactionType::ALL.to_vec();
        types.retain(|kind| own.chance(chance(kind)));
        if types.is_empty() {
            types.push(TransactionType::Refund);
        }
        types
    }

    /// Everything passes, and nobody has limits.
    pub(super) fn widest() -> Self {
        Self {
            types: Some(TransactionType::ALL.to_vec()),
            cash: Some(1_000_000_000),
            expired: Some(true),
            ..Self::default()
        }
    }

    /// What `[offline]` says of it.
    pub(super) fn text_of_offline(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Some(types) = &self.types {
            let types: Vec<_> = types.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
            let _ = writeln!(text, "transaction_types = [{}]", types.join(", "));
        }
        if let Some(cash) = self.cash {
            let _ = writeln!(text, "cash_back_ceiling = {cash}");
        }
        if let Some(expired) = self.expired {
            let _ = writeln!(text, "expired_cards = {expired}");
        }
        text
    }

    /// Sections of their own.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(staff) = &self.staff {
            let _ = writeln!(text, "[staff]\n{}", staff.text(""));
        }
        if let Some(overrides) = &self.overrides {
            let _ = write!(text, "[override]\n{}", overrides.window.text(""));
            for supervisor in &overrides.supervisors {
                let key = terms::public_key(*supervisor).map(|byte| format!("{byte:02x}"));
                let _ = writeln!(
                    text,
                    "[[override.supervisor]]\nname = \"Supervisor {supervisor}\"\nkey = \"{}\"",
                    key.concat()
                );
            }
        }
        text
    }

    pub(crate) fn takes(&self, kind: TransactionType) -> bool {
        match &self.types {
            Some(types) => types.contains(&kind),
            None => kind == TransactionType::Sale,
        }
    }

    pub(crate) fn takes_expired(&self) -> bool {
        self.expired == Some(true)
    }
}
