//! The end of a run: all faults cease, people mend what is parked, everybody
//! asks once more; and then the books must agree.

use std::rc::Rc;

use hub_protocol::{Decision, PaymentState};

use crate::gateway::Outcome;
use crate::violation::{Checked, Rule, hold};
use crate::world::{Question, World};

/// Within so much virtual time after the last fault everything is sent.
const REST_WITHIN_MS: u64 = 15 * 60_000;

/// A run that takes more steps than this to come to rest never does.
const MOST_STEPS: u64 = 40_000;

/// Within so much of it the gateway decides.
const DECIDES_WITHIN_MS: u64 = 120_000;

/// A message in the shop's network takes no longer.
const LONGEST_DELAY_MS: u64 = 5_100;

impl World {
    /// See the module's documentation.
    pub(crate) fn heal(&mut self) -> Checked {
        self.note(|_| "all faults cease".to_owned());
        self.calm = true;
        self.profile.calm();
        self.line_is_up_for_good();
        self.gateway.decide_by(self.now_ms + DECIDES_WITHIN_MS);
        self.start_soon();
        self.come_back();
        if self.profile.room_changes > 0 {
            self.look_at_room()?;
        }
        for place in 0..self.sales.len() {
            if self.sales.get(place).is_some_and(|sale| !sale.closed) {
                self.impatient_after(place, 1);
            }
        }
        self.rest()?;
        if !self.wallets.is_empty() {
            // What was asked long ago may still be on its way.
            let heard_ms = self.now_ms + LONGEST_DELAY_MS;
            while self.now_ms < heard_ms {
                self.step()?;
            }
            self.give_up_lost();
            self.rest()?;
        }
        if self.profile.acquirer {
            self.gateway.resolve_all();
            // Nobody rings the desk before what was sent must have arrived.
            while self.any_on_its_way() {
                self.step()?;
            }
        }
        for round in 0..2 {
            let parked: Vec<_> = self
                .check
                .ledger
                .payments
                .iter()
                .filter(|(_, p)| p.is_parked())
                .map(|(id, p)| (*id, p.state))
                .collect();
            for (id, state) in parked {
                if round == 1 || self.rng.chance(500) {
                    self.gateway.mend(&id);
                }
                let question = self.see_to(id, state);
                self.tell_hub(question);
            }
            self.rest()?;
        }
        self.crash()?;
        self.rest()?;
        for place in 0..self.sales.len() {
            let Some(sale) = self.sales.get(place) else { break };
            let (device, message) = (sale.device, Rc::clone(&sale.message));
            let id = message.request.payment_id;
            // Nobody will ever ask for what a lost device has kept to itself.
            let lost = self.wallets.get(device).is_some_and(|wallet| wallet.lost);
            if lost && !self.check.ledger.payments.contains_key(&id) {
                continue;
            }
            self.tell_hub(Question::Status(device, message.request.payment_id));
            self.tell_hub(Question::Pay(message));
        }
        self.rest()?;
        self.agree_apart()?;
        self.agree()
    }

    fn rest(&mut self) -> Checked {
        let sales = u64::try_from(self.sales.len()).unwrap_or_default();
        let until = self.now_ms + REST_WITHIN_MS + 1_000 * sales;
        // What was said a moment ago is still on its way.
        let least = self.now_ms + 100;
        let most = self.steps + MOST_STEPS + 20 * sales;
        while self.now_ms < least || !self.at_rest() {
            hold(
                self.now_ms <= until && self.steps < most,
                Rule::NothingLost,
                || self.unrest(),
            )?;
            self.step()?;
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.hub.is_some()
            && self.disk.durable == self.disk.records.len()
            && self.disk.erasures.is_empty()
            && self.waiting.is_empty()
            && self.check.attempts.is_empty()
            && self.apart_at_rest()
            && !self
                .check
                .ledger
                .payments
                .values()
                .rev()
                .any(|p| p.waits_to_be_sent() || p.state == PaymentState::Open)
            && self.sales.iter().rev().all(|sale| sale.closed)
    }

    fn unrest(&self) -> String {
        let payment = self
            .check
            .ledger
            .payments
            .iter()
            .find(|(_, p)| p.waits_to_be_sent() || p.state == PaymentState::Open);
        match payment {
            Some((id, p)) => format!(
                "{id} is still {} {REST_WITHIN_MS} ms after the last fault",
                p.state
            ),
            None => {
                let open = self.sales.iter().find(|sale| !sale.closed);
                let open = open.map(|sale| sale.message.request.payment_id);
                format!(
                    "not at rest {REST_WITHIN_MS} ms after the last fault: open {open:?}, {} wait",
                    self.waiting.len()
                )
            }
        }
    }

    /// The ledger, the gateway's book and what was told are one story.
    fn agree(&mut self) -> Checked {
        self.gateway.resolve_all();
        for (id, payment) in &self.check.ledger.payments {
            let account = self.gateway.book.get(id);
            let net = account.map_or(0, |a| a.net());
            let state = payment.state;
            let outcome = account.and_then(|a| a.outcome);
            hold(account.is_none_or(|a| a.charges <= 1), Rule::OneCharge, || {
                format!("{id} is charged twice")
            })?;
            let approved = payment.decision().is_some_and(Decision::approved);
            hold(
                !approved || state != PaymentState::Refused,
                Rule::NothingLost,
                || format!("{id} was approved and stands as {state}"),
            )?;
            match state {
                PaymentState::Settled => {
                    hold(approved && net == 1, Rule::NothingLost, || {
                        format!("{id} stands as settled and is charged {net} times")
                    })?;
                }
                PaymentState::SettledDeclined => hold(
                    net == 0 && (outcome == Some(Outcome::Declined) || payment.closed),
                    Rule::NothingLost,
                    || format!("{id} stands as declined by the gateway, whose book says {outcome:?}"),
                )?,
                PaymentState::Parked => hold(!self.disk.cards.contains(id), Rule::NothingLost, || {
                    format!("{id} is parked, and nothing stands in its way")
                })?,
                PaymentState::Refused | PaymentState::Voided | PaymentState::Reversed => {
                    hold(net == 0, Rule::OneCharge, || {
                        format!("{id} stands as {state} and is charged")
                    })?;
                }
                PaymentState::Open
                | PaymentState::Queued
                | PaymentState::ReversalQueued
                | PaymentState::ReversalParked => {
                    hold(false, Rule::NothingLost, || format!("{id} ends as {state}"))?;
                }
            }
            let at_risk = payment.at_risk && !payment.parked;
            hold(!at_risk, Rule::NothingLost, || {
                format!("{id} is at risk for ever")
            })?;
        }
        let unknown = self
            .gateway
            .book
            .iter()
            .find(|(id, account)| account.net() > 0 && !self.check.ledger.payments.contains_key(*id));
        hold(unknown.is_none(), Rule::OneCharge, || {
            format!("{:?} is charged and in no ledger", unknown.map(|(id, _)| id))
        })?;
        let kept = self.disk.cards.iter().find(|id| {
            self.check
                .ledger
                .payments
                .get(*id)
                .is_none_or(|p| p.state != PaymentState::Parked)
        });
        hold(kept.is_none(), Rule::NothingLost, || {
            format!("the card of {kept:?} is kept after the gateway's last word")
        })
    }
}
