//! Devices with allowances: they ask, lose the hub, approve by themselves, come
//! back, tell of it and give back what is left; or do what they must not. All
//! of it is drawn from a sequence of its own.

use std::rc::Rc;

use hub_protocol::{DeviceReceipt, PaymentState, TransactionType};

use crate::ledger::Subject;
use crate::profile::pick;
use crate::terms;
use crate::violation::{Checked, Rule, hold};
use crate::wallet::{Held, Wallet};
use crate::wire::{self, PayMessage};

use super::{BEGIN_MS, Frame, Happening, Question, Sale, World};

impl World {
    /// Whether this device is out of the hub's reach.
    pub(super) fn is_apart(&self, device: usize) -> bool {
        self.wallets
            .get(device)
            .is_some_and(|wallet| wallet.is_apart(self.now_ms))
    }

    pub(super) fn begin_apart(&mut self) {
        if self.profile.allowances == 0 {
            return;
        }
        self.wallets = (0..self.profile.devices).map(|_| Default::default()).collect();
        for place in 0..self.wallets.len() {
            let hours = i64::try_from(self.newer.below(5)).unwrap_or_default() - 2;
            if self.newer.chance(200)
                && let Some(wallet) = self.wallets.get_mut(place)
            {
                wallet.clock_ms = hours * 3_600_000;
            }
        }
        self.later(20, Happening::Apart);
    }

    /// A device does something about its allowance.
    pub(super) fn apart(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.newer.below(2 * self.profile.pace_ms);
        let pause = self.stretched(pause);
        self.later(pause, Happening::Apart);
        let count = u64::try_from(self.wallets.len()).unwrap_or_default();
        let place = usize::try_from(self.newer.below(count)).unwrap_or_default();
        self.people_look(place);
        if self.wallets.get(place).is_none_or(|wallet| wallet.lost) {
            return;
        }
        if self.newer.chance(self.profile.rogues) {
            self.misuse(place);
        } else if !self.is_apart(place) {
            self.tell(place);
        }
        for place in 0..self.wallets.len() {
            let goes_on = self.is_apart(place) && self.newer.chance(600);
            // Not every customer's card will do.
            for _ in 0..if goes_on { 3 } else { 0 } {
                if self.approve(place, false) {
                    break;
                }
            }
        }
    }

    /// Everybody tells the hub what is left to tell.
    pub(super) fn finish_apart(&mut self) {
        let rests = self.apart_at_rest();
        self.later(if rests { 5_000 } else { 50 }, Happening::ComeBack);
        for place in 0..self.wallets.len() {
            if self.wallets.get(place).is_some_and(|wallet| !wallet.at_rest()) {
                self.tell(place);
            }
        }
    }

    /// Now and then somebody lifts a quarantine, or declares a device lost:
    /// mostly one that is.
    fn people_look(&mut self, place: usize) {
        if !self.newer.chance(40) {
            return;
        }
        let wrongly = self.newer.chance(100);
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        if wallet.lost || wrongly {
            // What it approves from now on is nobody's fault but theirs.
            wallet.suspect = true;
            self.tell_hub(Question::Forfeit(place));
        } else {
            self.tell_hub(Question::Lift(Some(place)));
        }
    }

    /// It can reach the hub.
    fn tell(&mut self, place: usize) {
        let luck = self.newer.below(100);
        let calm = self.calm;
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        if let Some(next) = wallet.unsynced.front() {
            let frame = Frame::Sync(Rc::clone(next));
            self.send(place, frame);
            return;
        }
        let Some(held) = wallet.memory.held.as_mut() else {
            if !calm {
                let closed = match luck {
                    // One of a hub that was here before.
                    0..=3 => Some(wallet.memory.closed.unwrap_or_default() + luck * 7),
                    _ => wallet.memory.closed,
                };
                self.send(place, Frame::Ask(closed));
            }
            return;
        };
        let used_up = held.chain.index >= held.allowance.count;
        if held.returning || calm || luck < if used_up { 50 } else { 12 } {
            held.returning = true;
            let said = Rc::new(held.statement());
            self.send(place, Frame::Return(said));
        } else if luck < 20 {
            let frame = Frame::Ask(wallet.memory.closed);
            self.send(place, frame);
        } else if luck < 26 {
            // What was told of before, once more.
            let all = u64::try_from(wallet.all.len()).unwrap_or_default();
            let old = usize::try_from(self.newer.below(all)).unwrap_or_default();
            if let Some(old) = self.wallets.get(place).and_then(|wallet| wallet.all.get(old)) {
                let frame = Frame::Sync(Rc::clone(old));
                self.send(place, frame);
            }
        } else {
            self.lose_the_hub(place);
        }
    }

    fn lose_the_hub(&mut self, place: usize) {
        let lasts = 1 + self.newer.below(self.profile.apart_ms);
        let lost = self.newer.chance(self.profile.losses);
        let keeps = self.newer.chance(300);
        let until = self.now_ms + lasts;
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        wallet.apart_until_ms = until;
        wallet.question += 1;
        if keeps {
            wallet.backup = Some(wallet.memory.clone());
        }
        if lost {
            // It goes on for a while, and nobody ever hears of it.
            self.approve(place, false);
            if let Some(wallet) = self.wallets.get_mut(place) {
                wallet.lost = true;
            }
        }
        self.note(|_| format!("device {place} is out of reach for {lasts} ms, for ever: {lost}"));
    }

    /// A payment of which the gateway is being asked, at best a refund.
    fn asked_online(&self, place: usize) -> Option<Rc<PayMessage>> {
        let payments = &self.check.ledger.payments;
        let open = self.sales.iter().filter(|sale| {
            let payment = payments.get(&sale.message.request.payment_id);
            sale.device == place && payment.is_some_and(|payment| payment.state == PaymentState::Open)
        });
        let kind = |sale: &&Sale| {
            let terms = sale.message.request.terms.as_ref();
            terms.is_some_and(|terms| terms.transaction_type == TransactionType::Refund)
        };
        open.max_by_key(kind).map(|sale| Rc::clone(&sale.message))
    }

    /// A customer whom the hub cannot serve: one who waits already, or a new
    /// one.
    fn customer(&mut self, place: usize, careless: bool) -> Rc<PayMessage> {
        if careless && let Some(asked) = self.asked_online(place) {
            return asked;
        }
        let held = self
            .wallets
            .get(place)
            .and_then(|wallet| wallet.memory.held.as_ref());
        let (left, one) = held.map(Held::left).unwrap_or_default();
        let waits = self
            .sales
            .iter()
            .find(|sale| sale.device == place && !sale.closed);
        if let Some(waits) = waits.map(|sale| Rc::clone(&sale.message))
            && self.newer.chance(400)
        {
            return waits;
        }
        let number = u64::try_from(self.sales.len()).unwrap_or_default() + 1;
        let id = wire::payment_id(self.seed, number);
        let card = self.newer.below(self.profile.cards);
        let mut request = wire::request(&mut self.newer, id, number, card);
        if self.newer.chance(self.profile.terms) {
            let mut stated = terms::draw(&mut self.newer, BEGIN_MS + self.now_ms);
            // Most of what devices do by themselves are sales.
            if self.newer.chance(850) {
                stated.transaction_type = TransactionType::Sale;
            }
            request.terms = Some(Box::new(stated));
        }
        let amount = match self.newer.below(10) {
            0..=2 => left + self.newer.below(2),
            3 | 4 => one + self.newer.below(2),
            5 => left / 2,
            _ => pick(&mut self.newer, &[1, 100, 250, 500, 501, 1_000, 1_500]),
        };
        request.amount = amount.max(1).into();
        let mut message = PayMessage::new(wire::device_id(place), request);
        terms::complete(&mut self.newer, &mut message, None, 0);
        Rc::new(message.encoded_again())
    }

    /// Approves a payment by itself; `careless`, whether it may or not.
    fn approve(&mut self, place: usize, careless: bool) -> bool {
        let now_ms = BEGIN_MS + self.now_ms;
        if self
            .wallets
            .get(place)
            .is_none_or(|wallet| wallet.lost || wallet.memory.held.is_none())
        {
            return false;
        }
        let message = self.customer(place, careless);
        let id = message.request.payment_id;
        let twice = self.approved.contains(&id) && !careless;
        let may = self
            .wallets
            .get(place)
            .is_some_and(|wallet| wallet.permits(&message.request, now_ms));
        if twice || !careless && !may {
            return false;
        }
        let tampered = careless.then(|| self.newer.below(8));
        let change = |receipt: &mut DeviceReceipt| match tampered {
            Some(0) => receipt.number += 1,
            Some(1) => receipt.total_minor = receipt.amount_minor.saturating_sub(1),
            Some(2) => receipt.index = 0,
            Some(3) => receipt.device_time_ms = receipt.device_time_ms.saturating_add(400 * 24 * 3_600_000),
            _ => {}
        };
        let Some(wallet) = self.wallets.get_mut(place) else {
            return false;
        };
        let Some(approval) = wallet.approve(&message, now_ms, change) else {
            return false;
        };
        wallet.suspect |= careless && (!may || tampered.is_some_and(|how| how < 4));
        self.check
            .signed
            .approvals
            .insert(approval.signed.clone(), Rc::clone(&approval));
        self.check
            .signed
            .payments
            .insert(message.signed.clone(), Rc::clone(&message));
        match self.sale_of(&id) {
            Some(sale) => sale.closed = true,
            None => self.sales.push(Sale {
                device: place,
                message: Rc::clone(&message),
                tries: 1,
                closed: true,
            }),
        }
        self.approved.insert(id);
        self.note(|_| {
            let receipt = &approval.receipt;
            format!(
                "device {place} approves {} with {} as {id} under allowance {}, receipt {}",
                receipt.amount_minor, message.request.card.token, receipt.number, receipt.index
            )
        });
        true
    }

    /// What no honest device does.
    fn misuse(&mut self, place: usize) {
        let kind = self.newer.below(8);
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        match kind {
            0..=2 => {
                if self.approve(place, true)
                    && self.newer.chance(600)
                    && let Some(wallet) = self.wallets.get_mut(place)
                    && let Some(last) = wallet.unsynced.back().map(Rc::clone)
                {
                    // While the gateway is asked, perhaps, and before others.
                    wallet.suspect |= wallet.unsynced.len() > 1;
                    self.send(place, Frame::Sync(last));
                }
            }
            // A backup comes back, or a copy of the device.
            3 | 4 => match wallet.backup.clone() {
                Some(backup) => {
                    let forgets = wallet.memory.closed;
                    wallet.memory = backup;
                    if kind == 4 {
                        wallet.memory.closed = forgets;
                    }
                    wallet.suspect = true;
                    wallet.question += 1;
                    self.note(|_| format!("a backup of device {place} comes back"));
                }
                None => wallet.backup = Some(wallet.memory.clone()),
            },
            // The last one first.
            5 => {
                if let Some(last) = wallet.unsynced.back().map(Rc::clone) {
                    wallet.suspect |= wallet.unsynced.len() > 1;
                    self.send(place, Frame::Sync(last));
                }
            }
            // Less than it approved, under an allowance that it keeps using.
            6 => {
                let backup = wallet.backup.as_ref().and_then(|backup| backup.held.as_ref());
                if let Some(said) = backup.map(|held| Rc::new(held.statement())) {
                    wallet.suspect = true;
                    self.send(place, Frame::Return(said));
                }
            }
            // It says that it returns it, and does not stop.
            _ => {
                if let Some(held) = wallet.memory.held.as_mut().filter(|held| held.returning) {
                    held.returning = false;
                    wallet.suspect = true;
                }
            }
        }
    }

    /// What is out of reach is inside of what is kept back.
    pub(super) fn hold_apart(&self) -> Checked {
        if let Some(place) = self.broken_return {
            return hold(false, Rule::NothingLost, || {
                format!("device {place} has told of everything, and its return is not taken")
            });
        }
        for (place, wallet) in self.wallets.iter().enumerate() {
            let Some(held) = wallet.memory.held.as_ref().filter(|_| !wallet.suspect) else {
                continue;
            };
            self.check.ledger.hold_inside(
                wire::device_id(place),
                held.allowance.number,
                wallet.unsynced.iter(),
            )?;
        }
        Ok(())
    }

    /// All faults cease: everybody is back, and may ask.
    pub(crate) fn come_back(&mut self) {
        if self.wallets.is_empty() {
            return;
        }
        for wallet in &mut self.wallets {
            wallet.apart_until_ms = 0;
        }
        let lost = |device: usize| self.wallets.get(device).is_some_and(|wallet| wallet.lost);
        for sale in self.sales.iter_mut().filter(|sale| lost(sale.device)) {
            sale.closed = true;
        }
        self.later(10, Happening::ComeBack);
    }

    pub(crate) fn apart_at_rest(&self) -> bool {
        self.wallets.iter().all(Wallet::at_rest)
    }

    /// What nobody will give back any more.
    pub(crate) fn give_up_lost(&mut self) {
        let open: Vec<_> = (0..self.wallets.len())
            .filter(|place| {
                let kept = self.check.ledger.kept.get(&wire::device_id(*place));
                kept.is_some_and(|kept| kept.out().is_some())
            })
            .collect();
        for place in open {
            self.tell_hub(Question::Forfeit(place));
        }
    }

    /// Nothing is kept back, and everything that a device approved is there.
    pub(crate) fn agree_apart(&self) -> Checked {
        let back = self.check.ledger.kept_back(&Subject::Store);
        hold(back == (0, 0), Rule::NothingLost, || {
            format!("{back:?} are kept back for ever")
        })?;
        let missing = self.approved.iter().find(|id| {
            let sale = self
                .sales
                .iter()
                .find(|sale| sale.message.request.payment_id == **id);
            let lost = sale.is_some_and(|sale| self.wallets.get(sale.device).is_some_and(|w| w.lost));
            !lost && !self.check.ledger.is_final(id)
        });
        hold(missing.is_none(), Rule::NothingLost, || {
            format!("{missing:?} was approved by its device, and the ledger does not say so")
        })
    }
}
