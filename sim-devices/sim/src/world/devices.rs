//! Between devices and hub: questions and answers, and who waits for which.

use hub_protocol::entry::Event;
use hub_protocol::{DeviceClass, Digest, PaymentId, RefusalCode, RestrictionCause};

use crate::checker::Waiting;
use crate::disk::Record;
use crate::shell::{Answer, Ask};
use crate::violation::{Checked, Rule, hold};
use crate::wire;

use super::{Frame, Happening, Question, Sale, World};

impl World {
    /// Sends a question over the shop's network.
    pub(crate) fn ask(&mut self, question: &Question) {
        let copies = if self.rng.chance(self.profile.lan_drop) {
            0
        } else {
            1 + u32::from(self.rng.chance(self.profile.lan_double))
        };
        let asker = match question {
            Question::Pay(message) => Some(usize::from(message.device.0[31])),
            Question::Void(number, _) | Question::Status(number, _) => Some(*number),
            _ => None,
        };
        let apart = asker.is_some_and(|number| self.is_apart(number));
        for _ in 0..copies {
            let delay = 1 + self.rng.below(self.profile.lan_delay_ms);
            if !apart {
                self.later(delay, Happening::AtHub(question.clone()));
            }
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
            Question::Frame(number, _, frame) => {
                let receipt = match frame {
                    Frame::Sync(approval) => Some(&approval.receipt),
                    _ => None,
                };
                (
                    device(number),
                    receipt.map(|receipt| receipt.payment_id),
                    receipt.map(|receipt| receipt.request_digest),
                )
            }
            Question::Describe(said) => (Some(said.device), None, None),
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
                frame: match question {
                    Question::Frame(number, question, frame) => Some((*number, *question, frame.clone())),
                    _ => None,
                },
            },
        );
        let comes = match question {
            Question::Frame(number, _, frame) => Some((*number, frame, self.comes(*number, frame))),
            _ => None,
        };
        let before = self.disk.records.len();
        self.refused_at_once = None;
        let ask = match question {
            Question::Pay(message) => Ask::Pay(message),
            Question::Void(number, id) => Ask::Void(wire::device_id(*number), *id),
            Question::Status(number, id) => Ask::Status(wire::device_id(*number), *id),
            Question::Enrol(number) => Ask::Enrol(wire::device_id(*number), class_of(*number)),
            Question::Activate(limits) => Ask::Activate(limits),
            Question::Block(number, blocked) => Ask::Block(wire::device_id(*number), *blocked),
            Question::Drain => Ask::Drain,
            Question::Release(id, not_there) => Ask::Release(*id, *not_there),
            Question::Close(id, finding) => Ask::Close(*id, *finding),
            Question::Overview => Ask::Overview,
            Question::Frame(number, _, Frame::Ask(closed)) => {
                Ask::Allowance(wire::device_id(*number), *closed)
            }
            Question::Frame(_, _, Frame::Sync(approval)) => Ask::Sync(approval),
            Question::Frame(number, _, Frame::Return(said)) => Ask::Return(wire::device_id(*number), said),
            Question::Forfeit(number) => Ask::Forfeit(wire::device_id(*number)),
            Question::Describe(said) => Ask::Describe(said),
            Question::Lift(number) => Ask::Lift(number.map(wire::device_id)),
        };
        self.with_hub(|hub, index, now| hub.ask(&ask, ticket, index, now))?;
        if let Some((number, frame, comes)) = &comes {
            self.hold_frame(*number, frame, comes, before)?;
            self.hold_apart()?;
        }
        // What ends by itself in the same breath is nobody's answer: time
        // online, and after a description whatever else was due.
        let describes = matches!(question, Question::Describe(_));
        let by_itself = |record: &&Record| match &record.entry.event {
            Event::RestrictionChanged { cause, .. } => *cause == RestrictionCause::TimeOnline || describes,
            Event::DeviceDescribed { .. } => false,
            _ => describes,
        };
        let written = self.disk.records.len() - before;
        let newest = self.disk.records.iter().rev().take(written);
        let after = newest.take_while(by_itself).count();
        let head = self.disk.records.len() - after;
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
        if let (Answer::Refused(code), None) = (answer, waiting.head) {
            self.refused_at_once = Some(*code);
        }
        if let Some((number, question, frame)) = &waiting.frame {
            self.frame_answered(*number, *question, frame, answer);
        }
        let last = match answer {
            Answer::Receipt(_) => true,
            Answer::Refused(code) => {
                waiting.request.is_some() && !code.transient() && *code != RefusalCode::Stopping
            }
            _ => false,
        };
        // The answer may be lost on its way, or its reader may have moved to
        // another network.
        if let Some(id) = waiting.payment.filter(|_| waiting.frame.is_none())
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
        Question::Describe(said) => format!("device {} is {:?}", said.device.0[31], said.summary()),
        Question::Frame(number, _, Frame::Sync(approval)) => {
            let receipt = &approval.receipt;
            format!(
                "device {number} syncs {}, receipt {} under allowance {}",
                receipt.payment_id, receipt.index, receipt.number
            )
        }
        Question::Frame(number, _, Frame::Return(said)) => {
            let said = &said.statement;
            format!(
                "device {number} returns allowance {} after {} payments",
                said.number, said.count
            )
        }
        other => format!("{other:?}"),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Receipt(r) => format!("{} {} {}", r.payment_id, r.decision, r.reason),
        Answer::Status(s, _) => format!("{} {}", s.payment_id, s.state),
        Answer::Synced(r) => format!("synced: {} {} {}", r.payment_id, r.decision, r.reason),
        Answer::Allowance(a, chain) => format!(
            "allowance {}: {} in {} payments, up to {}, until {}, {} are known",
            a.number, a.amount_minor, a.count, a.transaction_ceiling_minor, a.expires_ms, chain.index
        ),
        other => format!("{other:?}"),
    }
}
