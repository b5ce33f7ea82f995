//! Between devices and hub: questions and answers, and who waits for which.

use hub_protocol::{DeviceClass, Digest, PaymentId, RefusalCode};

use crate::checker::Waiting;
use crate::shell::{Answer, Ask};
use crate::violation::{Checked, Rule, hold};
use crate::wire;

use super::{Happening, Question, Sale, World};

impl World {
    /// Sends a question over the shop's network.
    pub(crate) fn ask(&mut self, question: &Question) {
        let copies = if self.rng.chance(self.profile.lan_drop) {
            0
        } else {
            1 + u32::from(self.rng.chance(self.profile.lan_double))
        };
        for _ in 0..copies {
            let delay = 1 + self.rng.below(self.profile.lan_delay_ms);
            self.later(delay, Happening::AtHub(question.clone()));
        }
    }

    pub(super) fn at_hub(&mut self, question: &Question) -> Checked {
        if self.hub.is_none() {
            return Ok(());
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let device = |number: &usize| Some(wire::device_id(*number));
        let (asker, payment, request) = match question {
            Question::Pay(message) => (
                Some(message.device),
                Some(message.request.payment_id),
                Some(Digest::of(&message.signed)),
            ),
            Question::Void(number, id) | Question::Status(number, id) => (device(number), Some(*id), None),
            _ => (None, None, None),
        };
        self.note(|_| format!("ticket {ticket}: {}", describe(question)));
        self.waiting.insert(
            ticket,
            Waiting {
                device: asker,
                payment,
                request,
                head: None,
            },
        );
        let ask = match question {
            Question::Pay(message) => Ask::Pay(message),
            Question::Void(number, id) => Ask::Void(wire::device_id(*number), *id),
            Question::Status(number, id) => Ask::Status(wire::device_id(*number), *id),
            Question::Enrol(number) => Ask::Enrol(wire::device_id(*number), class_of(*number)),
            Question::Activate(limits) => Ask::Activate(limits),
            Question::Block(number, blocked) => Ask::Block(wire::device_id(*number), *blocked),
            Question::Drain => Ask::Drain,
            Question::Release(id) => Ask::Release(*id),
            Question::Overview => Ask::Overview,
        };
        self.with_hub(|hub, index, now| hub.ask(&ask, ticket, index, now))?;
        let head = self.disk.records.len();
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.head = Some(head);
        }
        Ok(())
    }

    pub(super) fn reply(&mut self, ticket: u64, answer: &Answer) -> Checked {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return hold(false, Rule::OneCharge, || {
                format!("ticket {ticket} is answered twice")
            });
        };
        self.check.reply(&self.disk, &waiting, answer)?;
        self.note(|_| format!("ticket {ticket} is answered: {}", told(answer)));
        let last = match answer {
            Answer::Receipt(_) => true,
            Answer::Refused(code) => {
                waiting.request.is_some() && !code.transient() && *code != RefusalCode::Stopping
            }
            _ => false,
        };
        // The answer may be lost on its way, or its reader may have moved to
        // another network.
        if let Some(id) = waiting.payment
            && !self.rng.chance(self.profile.lan_drop)
        {
            let delay = 1 + self.rng.below(self.profile.lan_delay_ms);
            self.later(delay, Happening::AtDevice(id, last));
        }
        Ok(())
    }

    pub(crate) fn impatient_after(&mut self, sale: usize, delay_ms: u64) {
        self.later(delay_ms, Happening::Impatient(sale));
    }

    pub(super) fn sale_of(&mut self, id: &PaymentId) -> Option<&mut Sale> {
        self.sales
            .iter_mut()
            .find(|sale| sale.message.request.payment_id == *id)
    }
}

/// The class of a device, which it keeps.
fn class_of(number: usize) -> DeviceClass {
    match number % 3 {
        0 => DeviceClass::Mpos,
        1 => DeviceClass::Softpos,
        _ => DeviceClass::Terminal,
    }
}

fn describe(question: &Question) -> String {
    match question {
        Question::Pay(m) => format!(
            "device {} pays {} with {} as {}",
            m.device.0[31],
            m.request.amount_minor(),
            m.request.card.token,
            m.request.payment_id
        ),
        Question::Activate(limits) => format!("{limits:?}"),
        other => format!("{other:?}"),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Receipt(r) => format!("{} {} {}", r.payment_id, r.decision, r.reason),
        Answer::Status(s, _) => format!("{} {}", s.payment_id, s.state),
        other => format!("{other:?}"),
    }
}
