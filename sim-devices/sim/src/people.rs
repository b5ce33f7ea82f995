//! What devices and staff do: honest retries, and lies.

use std::rc::Rc;

use hub_protocol::entry::Finding;
use hub_protocol::{EntryMode, PaymentId, PaymentRequest, PaymentState, Verification};

use crate::limits;
use crate::profile::pick;
use crate::rng::Rng;
use crate::terms;
use crate::violation::Checked;
use crate::wire::{self, PayMessage};
use crate::world::{BEGIN_MS, Question, Sale, World};

impl World {
    /// Somebody at a device does something.
    pub(crate) fn act(&mut self) {
        if self.rng.chance(self.profile.regrets)
            && let Some((device, id)) = self.some_settled_sale()
        {
            self.ask(&Question::Void(device, id));
            return;
        }
        match self.rng.below(100) {
            0..=9 => {
                if let Some((device, id)) = self.some_sale() {
                    self.ask(&Question::Void(device, id));
                }
            }
            10..=16 => {
                if let Some((device, id)) = self.some_sale() {
                    self.ask(&Question::Status(device, id));
                }
            }
            // A device restored from a backup asks for old payments again.
            17..=22 => {
                let place = self.some_place();
                if let Some(sale) = self.sales.get(place) {
                    let question = Question::Pay(Rc::clone(&sale.message));
                    self.ask(&question);
                }
            }
            // It has moved to another network: whatever was under way is
            // asked once more, at once.
            23..=25 => {
                let open: Vec<_> = self
                    .sales
                    .iter()
                    .filter(|s| !s.closed)
                    .map(|s| Rc::clone(&s.message))
                    .collect();
                for message in open {
                    self.ask(&Question::Pay(message));
                }
            }
            _ if self.rng.chance(self.profile.liar) => self.lie(),
            _ => self.sell(),
        }
    }

    fn some_place(&mut self) -> usize {
        let count = u64::try_from(self.sales.len()).unwrap_or_default();
        usize::try_from(self.rng.below(count)).unwrap_or_default()
    }

    fn some_sale(&mut self) -> Option<(usize, PaymentId)> {
        let place = self.some_place();
        let sale = self.sales.get(place)?;
        Some((sale.device, sale.message.request.payment_id))
    }

    /// Approved offline, and the gateway has approved it since.
    fn some_settled_sale(&mut self) -> Option<(usize, PaymentId)> {
        let payments = &self.check.ledger.payments;
        let settled = |id: &PaymentId| {
            payments.get(id).is_some_and(|payment| {
                payment.state == PaymentState::Settled && payment.approved_ms.is_some()
            })
        };
        let all: Vec<_> = self
            .sales
            .iter()
            .map(|sale| (sale.device, sale.message.request.payment_id))
            .filter(|(_, id)| settled(id))
            .collect();
        let place = self.rng.below(u64::try_from(all.len()).unwrap_or_default());
        all.get(usize::try_from(place).unwrap_or_default()).copied()
    }

    fn some_device(&mut self) -> usize {
        usize::try_from(self.rng.below(u64::try_from(self.profile.devices).unwrap_or(1))).unwrap_or_default()
    }

    pub(crate) fn sell(&mut self) {
        let device = self.some_device();
        let card = self.rng.below(self.profile.cards);
        let number = u64::try_from(self.sales.len()).unwrap_or_default() + 1;
        let id = wire::payment_id(self.seed, number);
        let mut request = wire::request(&mut self.rng, id, number, card);
        if self.rng.chance(self.profile.taps) {
            (request.entry_mode, request.verification) = (EntryMode::Contactless, Verification::None);
        }
        if self.profile.tapping > 0 {
            limits::tap(
                &mut request,
                &mut Rng::of(self.seed, &format!("tap {number}")),
                self.profile.tapping,
            );
        }
        let mut own = Rng::of(self.seed, &format!("payment {number}"));
        if own.chance(self.profile.terms) {
            request.terms = Some(Box::new(terms::draw(&mut own, BEGIN_MS + self.now_ms)));
        }
        request.amount = self.some_amount(device, &request).into();
        if let Some(amount) = self.same_again(device) {
            request.amount = amount.into();
        }
        let message = self.state_terms(&mut own, PayMessage::new(wire::device_id(device), request));
        let message = self.sign(message);
        self.sales.push(Sale {
            device,
            message: Rc::clone(&message),
            tries: 1,
            closed: false,
        });
        self.ask(&Question::Pay(message));
        let patience = 500 + self.rng.below(6_000);
        self.impatient_after(self.sales.len() - 1, patience);
    }

    /// Where that is odd, often the amount that was asked for last.
    fn same_again(&mut self, device: usize) -> Option<u64> {
        if self.profile.oddities == 0 || !self.newer.chance(400) {
            return None;
        }
        let last = self.sales.iter().rev().find(|sale| sale.device == device)?;
        Some(last.message.request.amount_minor())
    }

    /// What hangs on the numbers that hold for people: now and then an amount
    /// that a member of staff has just room for.
    fn state_terms(&self, own: &mut Rng, mut message: PayMessage) -> PayMessage {
        if self.stocks() {
            terms::complete(own, &mut message, None, 0);
            return message.encoded_again();
        }
        let now_ms = self.last_wall_ms();
        let (room, most_cash) = self
            .check
            .ledger
            .room_of_people(message.device, &message.request, now_ms);
        let parts = if own.chance(850) { 1 } else { 2 };
        let more = own.below(2);
        if let Some(room) = room.filter(|_| own.chance(150)) {
            message.request.amount = (room / parts + more).max(1).into();
        }
        terms::complete(own, &mut message, most_cash, self.profile.overrides);
        message.encoded_again()
    }

    fn last_wall_ms(&self) -> u64 {
        self.disk.records.last().map_or(0, |last| last.entry.time.wall_ms)
    }

    fn sign(&mut self, message: PayMessage) -> Rc<PayMessage> {
        let message = Rc::new(message);
        self.check
            .signed
            .payments
            .insert(message.signed.clone(), Rc::clone(&message));
        message
    }

    /// Often exactly what a limit has room for, or one cent more.
    fn some_amount(&mut self, device: usize, request: &PaymentRequest) -> u64 {
        let ordinary = pick(
            &mut self.rng,
            &[1, 100, 250, 499, 500, 501, 1_000, 1_500, 2_000, 2_500, 4_000],
        );
        if self.stocks() || !self.rng.chance(350) {
            return ordinary;
        }
        let now_ms = self.last_wall_ms();
        let edges = self.check.ledger.edges(wire::device_id(device), request, now_ms);
        let edge = if self.rng.chance(500) {
            edges.iter().min().copied()
        } else {
            let place = self.rng.below(u64::try_from(edges.len()).unwrap_or_default());
            edges.get(usize::try_from(place).unwrap_or_default()).copied()
        };
        // While the clock is in doubt, half of it is the edge.
        let parts = if self.rng.chance(850) { 1 } else { 2 };
        edge.map_or(ordinary, |edge| (edge / parts + self.rng.below(2)).max(1))
    }

    /// A device that says what is not so.
    fn lie(&mut self) {
        let place = self.some_place();
        let Some(sale) = self.sales.get(place) else {
            return;
        };
        let (mut device, mut request) = (sale.device, sale.message.request.clone());
        let word = sale.message.word.clone();
        let id = request.payment_id;
        match self.rng.below(5) {
            // The same id over another amount.
            0 => request.amount = (request.amount_minor() + 100).into(),
            // The same id with another card.
            1 => request.card.token = format!("card-{}", self.rng.below(self.profile.cards + 1)),
            // The payment of another device, under its own signature.
            2 => device = (device + 1) % self.profile.devices,
            // Of another device: void it, or look at it.
            3 => {
                let other = (device + 1) % self.profile.devices;
                let question = if self.rng.chance(500) {
                    Question::Void(other, id)
                } else {
                    Question::Status(other, id)
                };
                self.ask(&question);
                return;
            }
            // A device that nobody has enrolled.
            _ => {
                device = 77;
                request.payment_id = wire::payment_id(self.seed, 1_000_000 + self.steps);
                request.sealed_card_digest = wire::sealed_card(request.payment_id).digest();
            }
        }
        let mut message = PayMessage::new(wire::device_id(device), request);
        message.word = word;
        let message = self.sign(message);
        self.ask(&Question::Pay(message));
    }

    /// No answer yet: the same bytes again, until the customer walks off.
    pub(crate) fn impatient(&mut self, place: usize) {
        let Some(sale) = self.sales.get_mut(place).filter(|sale| !sale.closed) else {
            return;
        };
        if sale.tries >= 4 && !self.calm {
            return;
        }
        sale.tries += 1;
        let message = Rc::clone(&sale.message);
        self.ask(&Question::Pay(message));
        let patience = 500 + self.rng.below(6_000);
        self.impatient_after(place, patience);
    }

    /// The hub is there again after hours: some devices still want to know
    /// what came of their last sales.
    pub(crate) fn ask_again(&mut self) {
        for place in 0..self.sales.len() {
            let Some(sale) = self.sales.get_mut(place).filter(|sale| !sale.closed) else {
                continue;
            };
            sale.tries = 1;
            if self.rng.chance(700) {
                let found_after = 1 + self.rng.below(5_000);
                self.impatient_after(place, found_after);
            }
        }
    }

    /// What may come between any two steps.
    pub(crate) fn mischief(&mut self) -> Checked {
        if self.rng.chance(self.profile.clock_jump) {
            let hour = 3_600_000;
            let ms = match self.rng.below(4) {
                0 => -i64::try_from(self.rng.below(300_000)).unwrap_or_default(),
                1 => i64::try_from(self.rng.below(300_000)).unwrap_or_default(),
                2 => -i64::try_from(self.rng.below(72 * hour)).unwrap_or_default(),
                _ => i64::try_from(self.rng.below(72 * hour)).unwrap_or_default(),
            };
            self.jump(ms);
        }
        if self.rng.chance(self.profile.policy) {
            self.new_policy(1);
        }
        if self.rng.chance(self.profile.operator) {
            self.operate();
        }
        if self.rng.chance(self.profile.looks) {
            self.tell_hub(Question::Overview);
        }
        self.newer_mischief()?;
        if self.hub.is_none() {
            return Ok(());
        }
        if self.rng.chance(self.profile.stop) && !self.stocks() {
            return self.stop();
        }
        if self.rng.chance(self.profile.crash) {
            return self.crash();
        }
        Ok(())
    }

    /// What somebody does about a parked payment: puts it back, or asks the
    /// acquirer's desk.
    pub(crate) fn see_to(&mut self, id: PaymentId, state: PaymentState) -> Question {
        let asks = self.calm || self.rng.chance(700);
        if !self.profile.acquirer || !asks || self.on_its_way(&id) {
            return Question::Release(id, false);
        }
        let reversal = state == PaymentState::ReversalParked;
        match self.gateway.desk(&id, self.now_ms) {
            Some(Finding::Taken) if reversal => {
                self.gateway.undo(&id);
                self.desk_says(id, Finding::Undone)
            }
            Some(Finding::NotThere) if !reversal && self.rng.chance(600) => {
                self.check.desk.insert(id, Finding::NotThere);
                Question::Release(id, true)
            }
            Some(finding) => self.desk_says(id, finding),
            None => Question::Release(id, false),
        }
    }

    fn desk_says(&mut self, id: PaymentId, finding: Finding) -> Question {
        self.check.desk.insert(id, finding);
        Question::Close(id, finding)
    }

    fn operate(&mut self) {
        let device = self.some_device();
        let most = if self.profile.acquirer { 12 } else { 6 };
        let question = match self.rng.below(most) {
            0 => Question::Block(device, true),
            1 => Question::Block(device, false),
            2 => Question::Overview,
            3 => Question::Drain,
            _ => {
                let parked = self.check.ledger.payments.iter().find(|(_, p)| p.is_parked());
                let parked = parked.map(|(id, payment)| (*id, payment.state));
                parked.map_or(Question::Drain, |(id, state)| self.see_to(id, state))
            }
        };
        self.tell_hub(question);
    }
}
