//! What is kept back for allowances: at risk, although no payment has come.

use hub_protocol::{Allowance, AllowanceChain, DeviceReceipt, Digest, MAX_ALLOWANCE_COUNT, Restriction};
use minicbor::{Decode, Encode};

use crate::record::{CardKey, DeviceRecord, StoreRecord, Subject};

/// How much and how many payments are kept back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reserved {
    /// In minor units.
    #[n(1)]
    pub minor: u64,
    /// How many payments.
    #[n(2)]
    pub count: u32,
}

impl Reserved {
    pub(crate) fn add(&mut self, other: Self) {
        self.minor = self.minor.saturating_add(other.minor);
        self.count = self.count.saturating_add(other.count);
    }

    pub(crate) fn take(&mut self, other: Self) {
        self.minor = self.minor.saturating_sub(other.minor);
        self.count = self.count.saturating_sub(other.count);
    }
}

/// What has become of an allowance that is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Closed {
    /// The entry that closed it.
    #[n(1)]
    pub sequence: u64,
    /// Whether a person closed it, because the device is lost.
    #[n(2)]
    pub lost: bool,
}

/// A payment that a device approved under its allowance, in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Spent {
    /// The first 16 bytes of its receipt's digest.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub receipt: [u8; 16],
    /// Which card.
    #[n(2)]
    pub card: CardKey,
    /// In minor units.
    #[n(3)]
    pub amount_minor: u64,
}

impl Spent {
    /// What stands for a receipt.
    pub(crate) fn mark(receipt: &Digest) -> [u8; 16] {
        let mut mark = [0; 16];
        mark.copy_from_slice(&receipt.0[..16]);
        mark
    }
}

/// The newest allowance of a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AllowanceRecord {
    /// As given.
    #[n(1)]
    pub allowance: Allowance,
    /// How far its receipts are known.
    #[n(2)]
    pub chain: AllowanceChain,
    /// The payments under it, in the order of their indexes.
    #[n(3)]
    pub spent: Vec<Spent>,
    /// What is still kept back for it.
    #[n(4)]
    pub reserved: Reserved,
    /// Set once it is closed.
    #[n(5)]
    pub closed: Option<Closed>,
    /// What stays at risk until a person has looked at the device, if anything:
    /// payments that were refused, and what may still come of a forked chain.
    #[n(6)]
    pub withheld: Option<Reserved>,
    /// The most that one card has paid under the allowances before this one, as
    /// long as the device had something at risk; minor units.
    #[n(7)]
    pub before_card_minor: Option<u64>,
}

/// Where a receipt stands to what is known of its device's allowances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Under an allowance that the hub has never given.
    NotGiven,
    /// It is known, in its place.
    Known,
    /// Under an allowance before the newest.
    Older,
    /// Under the newest, which is closed.
    Closed,
    /// Others before it are missing.
    Ahead,
    /// The next one of the chain.
    Next,
    /// Another has its place, or it does not follow from the one before.
    Forked,
}

impl AllowanceRecord {
    /// One that has just been given: all of it is kept back.
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self {
            chain: AllowanceChain::new(&allowance),
            spent: Vec::new(),
            reserved: Reserved {
                minor: allowance.amount_minor,
                count: allowance.count,
            },
            closed: None,
            withheld: None,
            before_card_minor: None,
            allowance,
        }
    }

    /// The most that one card can have paid under it and those before it, if
    /// the device keeps to it: known, or not yet. Minor units.
    fn card_minor(&self) -> u64 {
        let most = self.allowance.card_ceiling_minor;
        let this = match self.closed {
            None => most,
            Some(_) => most.min(self.chain.total_minor),
        };
        // What another end of the chain may bring.
        let two_ends = self.closed.is_some() && self.withheld.is_some();
        let other = if two_ends { most } else { 0 };
        let before = self.before_card_minor.unwrap_or(0);
        this.saturating_add(other).saturating_add(before)
    }

    /// Where this receipt stands.
    pub(crate) fn link(&self, receipt: &DeviceReceipt) -> Link {
        let known = |at: &Spent| at.receipt == Spent::mark(&receipt.digest());
        if receipt.number > self.allowance.number {
            Link::NotGiven
        } else if receipt.number < self.allowance.number {
            Link::Older
        } else if self.at(receipt.index).is_some_and(known) {
            Link::Known
        } else if self.closed.is_some_and(|closed| !closed.lost) {
            Link::Closed
        } else if receipt.index > self.chain.index.saturating_add(1) {
            Link::Ahead
        } else if self.chain.is_next(receipt) {
            Link::Next
        } else {
            Link::Forked
        }
    }

    /// What may still come of both ends of the chain, if a receipt of the other
    /// end stands at `index` and follows from `previous`: of this one what is
    /// kept back, of the other all that there was where they part.
    pub(crate) fn of_both_ends(&self, index: u32, previous: &Digest) -> Reserved {
        let before = index.saturating_sub(1);
        let parts_there = match before {
            0 => *previous == self.allowance.digest(),
            _ => self
                .at(before)
                .is_some_and(|at| at.receipt == Spent::mark(previous)),
        };
        // What cannot be shown to be common may have been spent twice.
        let common = if parts_there { before } else { 0 };
        let spent = self
            .spent
            .iter()
            .take(usize::try_from(common).unwrap_or(usize::MAX));
        let spent = spent.fold(0_u64, |sum, one| sum.saturating_add(one.amount_minor));
        let mut both = self.reserved;
        both.add(Reserved {
            minor: self.allowance.amount_minor.saturating_sub(spent),
            count: self.allowance.count.saturating_sub(common),
        });
        both
    }

    /// What stays at risk until a person has looked.
    pub(crate) fn withheld(&self) -> Reserved {
        self.withheld.unwrap_or_default()
    }

    pub(crate) fn withhold(&mut self, more: Reserved) {
        let mut sum = self.withheld();
        sum.add(more);
        self.withheld = Some(sum).filter(|sum| *sum != Reserved::default());
    }

    /// The next payment of the chain is known now. Gives what is kept back no
    /// more, because the payment itself is at risk.
    pub(crate) fn spend(&mut self, receipt: &DeviceReceipt, card: CardKey) -> Reserved {
        self.chain = self.chain.after(receipt);
        // Beyond the count only the chain goes on: a record has its bounds.
        if self.spent.len() < MAX_ALLOWANCE_COUNT as usize {
            self.spent.push(Spent {
                receipt: Spent::mark(&receipt.digest()),
                card,
                amount_minor: receipt.amount_minor,
            });
        }
        let freed = Reserved {
            minor: receipt.amount_minor.min(self.reserved.minor),
            count: self.reserved.count.min(1),
        };
        self.reserved.take(freed);
        freed
    }

    /// What a card has paid under it.
    pub(crate) fn of_card(&self, card: &CardKey) -> u64 {
        let amounts = self.spent.iter().filter(|spent| spent.card == *card);
        amounts.fold(0, |sum, spent| sum.saturating_add(spent.amount_minor))
    }

    /// The receipt at an index of the chain.
    pub(crate) fn at(&self, index: u32) -> Option<&Spent> {
        self.spent.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }
}

impl Subject {
    pub(crate) fn with(self, reserved: Reserved) -> Self {
        Self {
            exposure_minor: self.exposure_minor.saturating_add(reserved.minor),
            consecutive: self.consecutive.saturating_add(reserved.count),
            ..self
        }
    }
}

impl DeviceRecord {
    /// What is kept back for its allowance, and what is withheld.
    pub fn reserved(&self) -> Reserved {
        let mut sum = self.withheld();
        if let Some(held) = &self.allowance {
            sum.add(held.reserved);
        }
        sum
    }

    /// What stays at risk until a person has looked at the device.
    pub fn withheld(&self) -> Reserved {
        self.allowance
            .as_ref()
            .map_or_else(Reserved::default, |held| held.withheld())
    }

    /// The most that one card can have at risk by allowances of this device,
    /// minor units. What the gateway has answered is at risk no more.
    pub(crate) fn allowed_card_minor(&self) -> u64 {
        let Some(held) = &self.allowance else {
            return 0;
        };
        let over = held.closed.is_some() && held.withheld.is_none();
        if over && self.subject.exposure_minor == 0 {
            0
        } else {
            held.card_minor()
        }
    }

    /// What it has at risk, with what is kept back for its allowance.
    pub fn at_risk(&self) -> Subject {
        self.subject.with(self.reserved())
    }

    /// How far its offline approvals are restricted: by anomalies, or because
    /// it is quarantined.
    pub fn restriction(&self) -> Restriction {
        if self.quarantined() {
            Restriction::Stopped
        } else {
            self.alert().restriction
        }
    }

    /// Whether it misused an allowance, and nobody has lifted that.
    pub fn misused(&self) -> bool {
        self.misused_at.is_some()
    }

    /// Whether it misused an allowance, or sent card numbers in clear again and
    /// again, and nobody has lifted that.
    pub fn quarantined(&self) -> bool {
        self.misused_at.is_some() || self.card_numbers_at.is_some()
    }

    /// The allowance that it holds, or may hold.
    pub fn open_allowance(&self) -> Option<&AllowanceRecord> {
        self.allowance.as_deref().filter(|held| held.closed.is_none())
    }
}

impl StoreRecord {
    /// What is kept back for allowances.
    pub fn reserved(&self) -> Reserved {
        self.reserved.unwrap_or_default()
    }

    pub(crate) fn keep_back(&mut self, reserved: Reserved) {
        let mut sum = self.reserved();
        sum.add(reserved);
        self.reserved = Some(sum).filter(|sum| *sum != Reserved::default());
    }

    pub(crate) fn free(&mut self, reserved: Reserved) {
        let mut sum = self.reserved();
        sum.take(reserved);
        self.reserved = Some(sum).filter(|sum| *sum != Reserved::default());
    }

    /// What the store has at risk, with what is kept back for allowances.
    pub fn at_risk(&self) -> Subject {
        self.subject.with(self.reserved())
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::{CardScheme, Currency, DeviceId, EntryMode, Funding, HubId, PaymentId, cbor};

    use super::*;

    /// A hub may have nothing but the base that it wrote before there were
    /// allowances.
    #[test]
    fn records_without_allowances_are_as_they_were_before_there_were_any() {
        let store = cbor::encode(&StoreRecord::default());
        assert_eq!(store.first(), Some(&0xa8), "the eight fields that must be there");
        let mut with = StoreRecord::default();
        with.keep_back(Reserved { minor: 5, count: 1 });
        assert_ne!(cbor::encode(&with), store);
        with.free(Reserved { minor: 5, count: 1 });
        assert_eq!(cbor::encode(&with), store);
    }

    /// The index takes values of 6 KB; a device's record without this is below
    /// half of that.
    #[test]
    fn the_largest_allowance_leaves_half_of_a_devices_record_to_the_rest() {
        let mut record = AllowanceRecord::new(Allowance {
            hub: HubId([0xff; 32]),
            device: DeviceId([0xff; 32]),
            number: u64::MAX,
            amount_minor: u64::MAX,
            count: u32::MAX,
            transaction_ceiling_minor: u64::MAX,
            card_ceiling_minor: u64::MAX,
            currency: Currency::EUR,
            schemes: CardScheme::ALL.to_vec(),
            funding: Funding::ALL.to_vec(),
            entry_modes: EntryMode::ALL.to_vec(),
            unverified_tap_ceiling_minor: Some(u64::MAX),
            issued_ms: u64::MAX,
            expires_ms: u64::MAX,
            policy_version: u64::MAX,
        });
        for index in 1..=MAX_ALLOWANCE_COUNT {
            let receipt = DeviceReceipt {
                number: u64::MAX,
                index,
                previous: record.chain.head,
                payment_id: PaymentId([0xff; 16]),
                request_digest: Digest([0xff; 32]),
                amount_minor: u64::MAX / 100,
                total_minor: u64::MAX / 100 * u64::from(index),
                device_time_ms: u64::MAX,
            };
            assert!(record.chain.is_next(&receipt));
            record.spend(&receipt, CardKey([0xff; 16]));
        }
        let length = cbor::encode(&record).len();
        assert!((2_800..3_500).contains(&length), "{length}");
        assert_eq!(record.reserved.count, u32::MAX - MAX_ALLOWANCE_COUNT);
        assert!(record.at(0).is_none() && record.at(1).is_some() && record.at(65).is_none());
    }
}
