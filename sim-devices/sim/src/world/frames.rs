//! What devices with allowances and the hub tell one another, and what must
//! come of it.

use std::rc::Rc;

use hub_protocol::entry::Event;
use hub_protocol::{Allowance, AllowanceChain, AllowanceMisuse, DeviceId, PaymentId, RefusalCode};

use crate::disk::Record;
use crate::kept::{Due, DueReturn};
use crate::shell::Answer;
use crate::violation::{Checked, Rule, hold};
use crate::wallet::{Approval, Return};
use crate::wire;

use super::{BEGIN_MS, Happening, Question, World};

/// What a device with an allowance asks.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// With the number of the last one that it has closed.
    Ask(Option<u64>),
    Sync(Rc<Approval>),
    Return(Rc<Return>),
}

/// What must come of a frame, by the model.
#[derive(Debug)]
pub(super) enum Comes {
    Given { open: bool },
    Synced(Due),
    Returned(DueReturn),
}

/// What a device hears.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Given(Rc<Allowance>, AllowanceChain),
    Synced(PaymentId),
    Returned(u64),
    Refused(RefusalCode, Option<PaymentId>),
}

impl World {
    /// Over the shop's network, with all its faults.
    pub(super) fn send(&mut self, place: usize, frame: Frame) {
        if let Frame::Return(said) = &frame {
            self.check
                .signed
                .returns
                .insert(said.signed.clone(), said.statement);
        }
        let now_ms = self.now_ms;
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        wallet.question += 1;
        if wallet.is_apart(now_ms) {
            return;
        }
        let question = Question::Frame(place, wallet.question, frame);
        let copies = if self.newer.chance(self.profile.lan_drop) {
            0
        } else {
            1 + u32::from(self.newer.chance(self.profile.lan_double))
        };
        for _ in 0..copies {
            let delay = 1 + self.newer.below(self.profile.lan_delay_ms);
            self.later(delay, Happening::AtHub(question.clone()));
        }
    }

    /// What must come of a frame that the hub is about to hear.
    pub(super) fn comes(&self, place: usize, frame: &Frame) -> Comes {
        let (device, ledger) = (wire::device_id(place), &self.check.ledger);
        match frame {
            Frame::Ask(_) => {
                let open = ledger.kept.get(&device).is_some_and(|kept| kept.closed.is_none());
                Comes::Given {
                    open: open && !ledger.quarantined.contains(&device),
                }
            }
            Frame::Sync(approval) => Comes::Synced(ledger.due(approval)),
            Frame::Return(said) => Comes::Returned(ledger.due_return(device, &said.statement)),
        }
    }

    /// Holds what the hub has made of a frame to what must come of it.
    pub(super) fn hold_frame(&self, place: usize, frame: &Frame, comes: &Comes, before: usize) -> Checked {
        let device = wire::device_id(place);
        let new = self.disk.records.get(before..).unwrap_or_default();
        let made = Made::of(new, device);
        let refused = self.refused_at_once;
        let turned_away = matches!(
            refused,
            Some(RefusalCode::Stopping | RefusalCode::DeviceNotAllowed)
        );
        if turned_away {
            let stopping = refused != Some(RefusalCode::Stopping) || self.stopping;
            return hold(stopping && made == Made::default(), Rule::NothingLost, || {
                format!("{frame:?} is turned away ({refused:?}), and {made:?} is written")
            });
        }
        match (comes, frame) {
            (Comes::Given { open }, _) => {
                let given = usize::from(refused.is_none() && !open);
                let none = refused == Some(RefusalCode::AllowanceNotGiven);
                let agreed =
                    made == Made {
                        given,
                        ..Made::default()
                    } && (refused.is_none() || none && !open);
                hold(agreed, Rule::NoCeilingPassed, || {
                    format!("device {place} asks, has an open allowance: {open}, and {made:?}, {refused:?}")
                })
            }
            (Comes::Synced(due), Frame::Sync(approval)) => {
                let id = approval.receipt.payment_id;
                let refusal = due.conflict.then_some(RefusalCode::PaymentIdConflict);
                let decided = new.iter().any(|record| {
                    matches!(&record.entry.event, Event::PaymentDecided { payment_id, .. } if *payment_id == id)
                });
                let next = usize::from(due.next);
                let places = if due.conflict { (0, next) } else { (next, 0) };
                let agreed = (made.spent, made.refused) == places
                    && made.forked.iter().eq(&due.forked)
                    && made.misuses == due.misuses.iter().map(|kind| kind.number()).collect::<Vec<_>>()
                    && decided == due.decided
                    && (made.given, made.closed) == (0, 0)
                    // What is written first is answered later.
                    && (refused == refusal || due.conflict && refused.is_none());
                hold(agreed, Rule::NothingLost, || {
                    format!("{id} is synced; {due:?} is due, and {made:?}, decided: {decided}, {refused:?}")
                })?;
                let honest = self.wallets.get(place).is_some_and(|wallet| !wallet.suspect);
                // Somebody else may have used its payment's id.
                let fine = made.misuses.is_empty() || due.conflict && made.forked.is_empty();
                hold(!honest || fine, Rule::NothingLost, || {
                    format!("device {place} did nothing that it must not: {made:?}")
                })
            }
            (Comes::Returned(due), _) => {
                let (closed, forked, refusal) = match due {
                    DueReturn::Unknown => (0, None, Some(RefusalCode::AllowanceUnknown)),
                    DueReturn::Closed { now } => (usize::from(*now), None, None),
                    DueReturn::NotSynced => (0, None, Some(RefusalCode::AllowanceNotSynced)),
                    DueReturn::Forked(both) => (0, Some(*both), None),
                };
                let forks = forked.map(|_| AllowanceMisuse::Forked.number());
                let agreed = made.closed == closed
                    && made.forked.iter().eq(&forked)
                    && made.misuses.iter().eq(&forks)
                    && (made.given, made.spent, made.refused) == (0, 0, 0)
                    && refused == refusal;
                let honest = self.wallets.get(place).is_some_and(|wallet| !wallet.suspect);
                hold(!honest || forked.is_none(), Rule::NothingLost, || {
                    format!("device {place} did nothing that it must not: {made:?}")
                })?;
                hold(agreed, Rule::NoCeilingPassed, || {
                    format!("{due:?} is due of {frame:?}, and {made:?}, {refused:?}")
                })
            }
            (Comes::Synced(_), _) => Ok(()),
        }
    }

    /// The answer to a device's frame, on its way back.
    pub(super) fn frame_answered(&mut self, place: usize, question: u64, frame: &Frame, answer: &Answer) {
        let id = match frame {
            Frame::Sync(approval) => Some(approval.receipt.payment_id),
            _ => None,
        };
        let heard = match answer {
            Answer::Allowance(allowance, chain) => Heard::Given(Rc::new((**allowance).clone()), *chain),
            Answer::Synced(receipt) => Heard::Synced(receipt.payment_id),
            Answer::Returned(number) => Heard::Returned(*number),
            Answer::Refused(code) => Heard::Refused(*code, id),
            _ => return,
        };
        if self.newer.chance(self.profile.lan_drop) {
            return;
        }
        let delay = 1 + self.newer.below(self.profile.lan_delay_ms);
        self.later(delay, Happening::AtWallet(place, question, heard));
    }

    pub(super) fn at_wallet(&mut self, place: usize, question: u64, heard: &Heard) {
        let now_ms = self.now_ms;
        let calm = self.calm;
        let Some(wallet) = self.wallets.get_mut(place) else {
            return;
        };
        if wallet.is_apart(now_ms) || wallet.question != question {
            return;
        }
        match heard {
            Heard::Given(allowance, chain) => {
                wallet.take(allowance, *chain, BEGIN_MS + now_ms);
                // It has returned this one.
                if wallet.memory.held.is_none() {
                    wallet.suspect = true;
                }
            }
            Heard::Synced(id) => {
                wallet
                    .unsynced
                    .retain(|approval| approval.receipt.payment_id != *id);
            }
            Heard::Returned(number) => wallet.returned(*number),
            Heard::Refused(RefusalCode::PaymentIdConflict, Some(id)) => {
                // Somebody was here before, under the same id.
                wallet
                    .unsynced
                    .retain(|approval| approval.receipt.payment_id != *id);
                wallet.suspect = true;
                self.approved.remove(id);
            }
            Heard::Refused(RefusalCode::AllowanceNotSynced | RefusalCode::AllowanceUnknown, _) => {
                if calm {
                    // A person looks at it.
                    wallet.memory.held = None;
                    self.tell_hub(Question::Forfeit(place));
                } else if !wallet.suspect {
                    self.broken_return = Some(place);
                }
            }
            // Somebody has blocked it, and sees now what it still holds.
            Heard::Refused(RefusalCode::DeviceNotAllowed, _) if calm => {
                self.tell_hub(Question::Block(place, false));
            }
            Heard::Refused(..) => {}
        }
    }
}

/// What new entries say of a device's allowance.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    given: usize,
    spent: usize,
    /// Refused, with a place in the chain.
    refused: usize,
    closed: usize,
    forked: Vec<(u64, u32)>,
    misuses: Vec<u16>,
}

impl Made {
    fn of(new: &[Record], of: DeviceId) -> Self {
        let mut made = Self::default();
        for record in new {
            match &record.entry.event {
                Event::AllowanceGiven { allowance } if allowance.device == of => made.given += 1,
                Event::AllowanceSpent { device, .. } if *device == of => made.spent += 1,
                Event::AllowancePaymentRefused { device, .. } if *device == of => made.refused += 1,
                Event::AllowanceReturned { device, .. } if *device == of => made.closed += 1,
                Event::AllowanceForked {
                    device,
                    amount_minor,
                    count,
                    ..
                } if *device == of => made.forked.push((*amount_minor, *count)),
                Event::AllowanceMisused { device, kind, .. } if *device == of => {
                    made.misuses.push(kind.number());
                }
                _ => {}
            }
        }
        made
    }
}
