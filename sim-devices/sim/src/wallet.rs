//! A device that holds an allowance: what it keeps, and what it approves while
//! it cannot reach the hub, by `docs/protocol.md`. The same rules, in the
//! model's own words, say afterwards which approvals were none of its business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use hub_protocol::{
    Allowance, AllowanceChain, AllowanceMisuse, AllowanceReturn, Cryptogram, DeviceId, DeviceReceipt, Digest,
    PaymentRequest, TransactionType, Verification, cbor,
};

use crate::limits::is_tap;
use crate::terms::is_over;
use crate::wire::{self, PayMessage};

/// A payment that a device approved by itself.
#[derive(Clone, Debug)]
pub(crate) struct Approval {
    pub(crate) device: DeviceId,
    pub(crate) message: Rc<PayMessage>,
    pub(crate) receipt: DeviceReceipt,
    /// Of the receipt.
    pub(crate) digest: Digest,
    pub(crate) signed: Vec<u8>,
}

impl Approval {
    pub(crate) fn new(message: &Rc<PayMessage>, receipt: DeviceReceipt) -> Rc<Self> {
        let signed = wire::unsigned(message.device.0[31], &cbor::encode(&receipt));
        Rc::new(Self {
            device: message.device,
            message: Rc::clone(message),
            digest: receipt.digest(),
            receipt,
            signed,
        })
    }

    pub(crate) fn amount(&self) -> u64 {
        self.receipt.amount_minor
    }
}

/// A device's word that it has closed an allowance.
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub(crate) statement: AllowanceReturn,
    pub(crate) signed: Vec<u8>,
}

/// What was approved under an allowance before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    pub(crate) count: u32,
    pub(crate) total: u64,
    /// The time of the last one.
    pub(crate) last_ms: u64,
    /// By the same card.
    pub(crate) of_card: u64,
}

/// What it is to approve this payment under this allowance now; nothing if
/// it may be approved.
pub(crate) fn misuses(
    allowance: &Allowance,
    request: &PaymentRequest,
    before: Before,
    at_ms: u64,
) -> BTreeSet<AllowanceMisuse> {
    let amount = request.amount_minor();
    let terms = request.terms.as_deref();
    let kind = terms.map_or(TransactionType::Sale, |terms| terms.transaction_type);
    let expired = terms
        .and_then(|terms| terms.card_expiry)
        .is_some_and(|expiry| is_over(expiry, at_ms));
    let mut all = BTreeSet::new();
    if at_ms < allowance.issued_ms || at_ms < before.last_ms || at_ms >= allowance.expires_ms {
        all.insert(AllowanceMisuse::Expired);
    }
    if amount > allowance.transaction_ceiling_minor
        || before.of_card + amount > allowance.card_ceiling_minor
        || before.total + amount > allowance.amount_minor
        || before.count >= allowance.count
    {
        all.insert(AllowanceMisuse::Overspent);
    }
    if terms.is_some_and(|terms| terms.training)
        || request.cryptogram == Cryptogram::Refused
        || request.currency != allowance.currency
        || kind != TransactionType::Sale
        || expired
        || !allowance.schemes.contains(&request.card.scheme)
        || !allowance.funding.contains(&request.card.funding)
        || !allowance.entry_modes.contains(&request.entry_mode)
        || request.verification == Verification::OnlinePin
        || is_tap(request)
            && allowance
                .unverified_tap_ceiling_minor
                .is_some_and(|most| amount > most)
    {
        all.insert(AllowanceMisuse::ForeignCardRules);
    }
    all
}

/// An allowance in the device's hands.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) allowance: Rc<Allowance>,
    pub(crate) chain: AllowanceChain,
    cards: BTreeMap<String, u64>,
    /// By how much the device's clock was behind the hub's.
    behind_ms: u64,
    /// Nothing more is approved under it.
    pub(crate) returning: bool,
}

impl Held {
    fn before(&self, card: &str) -> Before {
        Before {
            count: self.chain.index,
            total: self.chain.total_minor,
            last_ms: self.chain.last_ms,
            of_card: self.cards.get(card).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn statement(&self) -> Return {
        let statement = AllowanceReturn::new(self.allowance.number, &self.chain);
        let signed = wire::unsigned(self.allowance.device.0[31], &cbor::encode(&statement));
        Return { statement, signed }
    }

    /// What is left, in minor units, and the most for one payment.
    pub(crate) fn left(&self) -> (u64, u64) {
        let left = self.allowance.amount_minor.saturating_sub(self.chain.total_minor);
        (left, self.allowance.transaction_ceiling_minor)
    }
}

/// What a backup of it would hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) held: Option<Held>,
    /// The highest number of an allowance that is closed.
    pub(crate) closed: Option<u64>,
    highest_ms: u64,
}

/// One device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wallet {
    pub(crate) memory: Memory,
    pub(crate) backup: Option<Memory>,
    /// What the hub has not taken note of yet.
    pub(crate) unsynced: VecDeque<Rc<Approval>>,
    /// Everything it ever approved.
    pub(crate) all: Vec<Rc<Approval>>,
    /// Its last question: an answer to another one is not heard.
    pub(crate) question: u64,
    /// It is out of the hub's reach until then.
    pub(crate) apart_until_ms: u64,
    /// By how much its clock is wrong.
    pub(crate) clock_ms: i64,
    /// It is never seen again.
    pub(crate) lost: bool,
    /// It has done what it must not, or a backup of it came back.
    pub(crate) suspect: bool,
}

impl Wallet {
    /// Out of the hub's reach.
    pub(crate) fn is_apart(&self, now_ms: u64) -> bool {
        self.lost || now_ms < self.apart_until_ms
    }

    fn wall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.clock_ms)
    }

    /// The time that its receipts have.
    fn time_ms(&self, held: &Held, now_ms: u64) -> u64 {
        self.memory
            .highest_ms
            .max(self.wall_ms(now_ms).saturating_add(held.behind_ms))
    }

    /// Takes what the hub gave.
    pub(crate) fn take(&mut self, allowance: &Rc<Allowance>, chain: AllowanceChain, now_ms: u64) {
        if self
            .memory
            .closed
            .is_some_and(|closed| allowance.number <= closed)
        {
            return;
        }
        let wall_ms = self.wall_ms(now_ms);
        match &mut self.memory.held {
            Some(held) if held.allowance.number == allowance.number => {
                // Older than what the hub has seen of it: a backup.
                if held.chain.index < chain.index {
                    held.chain = chain;
                }
            }
            held => {
                *held = Some(Held {
                    behind_ms: allowance.issued_ms.saturating_sub(wall_ms),
                    allowance: Rc::clone(allowance),
                    chain,
                    cards: BTreeMap::new(),
                    returning: false,
                });
            }
        }
    }

    /// Whether it may approve this payment.
    pub(crate) fn permits(&self, request: &PaymentRequest, now_ms: u64) -> bool {
        let held = self.memory.held.as_ref().filter(|held| !held.returning);
        held.is_some_and(|held| {
            let before = held.before(&request.card.token);
            misuses(&held.allowance, request, before, self.time_ms(held, now_ms)).is_empty()
        })
    }

    /// Approves it, whether it may or not. `change` is what a cheat does to the
    /// receipt.
    pub(crate) fn approve(
        &mut self,
        message: &Rc<PayMessage>,
        now_ms: u64,
        change: impl FnOnce(&mut DeviceReceipt),
    ) -> Option<Rc<Approval>> {
        let at_ms = self.time_ms(self.memory.held.as_ref()?, now_ms);
        let held = self.memory.held.as_mut()?;
        let request = &message.request;
        let mut receipt = held
            .chain
            .receipt(held.allowance.number, request, &message.signed, at_ms);
        change(&mut receipt);
        if receipt.number == held.allowance.number {
            held.chain = held.chain.after(&receipt);
            *held.cards.entry(request.card.token.clone()).or_default() += request.amount_minor();
        }
        self.memory.highest_ms = self.memory.highest_ms.max(at_ms);
        let approval = Approval::new(message, receipt);
        self.unsynced.push_back(Rc::clone(&approval));
        self.all.push(Rc::clone(&approval));
        Some(approval)
    }

    /// The hub has closed it.
    pub(crate) fn returned(&mut self, number: u64) {
        self.memory.closed = self.memory.closed.max(Some(number));
        let held = &mut self.memory.held;
        *held = held.take().filter(|held| held.allowance.number > number);
    }

    /// Nothing is left to tell the hub.
    pub(crate) fn at_rest(&self) -> bool {
        self.lost || self.unsynced.is_empty() && self.memory.held.is_none()
    }
}
