//! The rules, held to everything that comes out of the hub.

use std::collections::{BTreeMap, BTreeSet};

use hub_protocol::entry::{Event, Finding, VoidEffect, WanState};
use hub_protocol::{
    Allowance, AllowanceChain, Cryptogram, DeviceId, Digest, Entry, PaymentId, PaymentState, PaymentStatus,
    Reason, Receipt, RefusalCode,
};

use crate::disk::{Disk, Record};
use crate::gateway::{Said, What};
use crate::ledger::{Ledger, Signed, Subject};
use crate::profile::Profile;
use crate::shell::{Answer, Forward, Shell, Standing};
use crate::verdict::needs_card;
use crate::violation::{Checked, Rule, hold};
use crate::world::Frame;

/// The longest wait that a gateway can ask for.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// Between two of its answers no more than this counts.
const LONGEST_PAUSE_MS: u64 = 3_660_000;

/// Who waits for an answer, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) device: Option<DeviceId>,
    pub(crate) payment: Option<PaymentId>,
    /// SHA-256 of the signed request, of one who asks for a payment.
    pub(crate) request: Option<Digest>,
    /// Entries there were once the question had been handled.
    pub(crate) head: Option<usize>,
    /// Of a device with an allowance: who, which question, and what it was.
    pub(crate) frame: Option<(usize, u64, Frame)>,
}

/// What the gateway was heard to say for good.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    approved: bool,
    declined: bool,
    reversed: bool,
}

/// A reason as devices are told that state no terms, and do not know the
/// newest numbers.
fn told(reason: Reason) -> Reason {
    match reason.number() {
        305 | 312 | 313 => Reason::FundingNotAllowed,
        213 | 218 | 220 | 230 => Reason::OfflineDisabled,
        217 => Reason::OfflineTooLong,
        219 | 221 | 222 | 322 => Reason::ClassNotAllowed,
        331 | 620..=623 | 630 => Reason::VerificationRequired,
        423 => Reason::StoreCeiling,
        523 => Reason::StoreConsecutiveLimit,
        530 => Reason::CardConsecutiveLimit,
        540 => Reason::CardCeiling,
        531 => Reason::DeviceConsecutiveLimit,
        _ => reason,
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) ledger: Ledger,
    pub(crate) signed: Signed,
    pub(crate) told: BTreeMap<PaymentId, Receipt>,
    max_queue: usize,
    /// Attempts under way.
    pub(crate) attempts: BTreeMap<u64, (PaymentId, What)>,
    /// Payments that were ever sent, other than to be reversed.
    sent: BTreeSet<PaymentId>,
    /// Reversals that were ever asked for.
    reversals: BTreeSet<PaymentId>,
    /// What the desk said last.
    pub(crate) desk: BTreeMap<PaymentId, Finding>,
    heard: BTreeMap<PaymentId, Heard>,
    /// Customers who wait for the gateway, and whether it was asked.
    live: BTreeMap<PaymentId, bool>,
    /// The gateway wants nothing, or nothing of this payment, before.
    wait_all_ms: u64,
    wait_ms: BTreeMap<PaymentId, u64>,
    /// What the gateway was asked for out of the queue, and has: for how long
    /// and how often it has said that it does not know, and when last.
    undecided: BTreeMap<PaymentId, (u64, u32, u64)>,
    /// Of those, what was told to a sale at the counter.
    told_at_the_counter: BTreeSet<PaymentId>,
    /// Over everything that came out: two runs of a seed must agree.
    pub(crate) hash: u64,
}

impl Checker {
    pub(crate) fn new(max_queue: usize) -> Self {
        Self {
            max_queue,
            ..Self::default()
        }
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    /// A new entry.
    pub(crate) fn append(&mut self, disk: &mut Disk, payload: &[u8], card: Option<PaymentId>) -> Checked {
        let digest = Entry::digest(payload);
        let entry: Entry = match crate::wire::read_entry(payload) {
            Ok(entry) => entry,
            Err(error) => {
                return hold(false, Rule::Broken, || {
                    format!("an entry cannot be read: {error}")
                });
            }
        };
        let last = disk.records.last();
        let follows = usize::try_from(entry.sequence) == Ok(disk.records.len() + 1)
            && entry.previous == last.map_or(Digest::ZERO, |record| record.digest);
        hold(follows, Rule::NothingLost, || {
            format!("entry {} does not follow the last one", entry.sequence)
        })?;
        self.mix(u64::from_le_bytes(digest.0[..8].try_into().unwrap_or_default()));
        self.ledger.apply(&entry, &self.signed, self.max_queue)?;
        self.hold_word(&entry.event)?;
        let risks = match &entry.event {
            Event::PaymentDecided { record, .. } => {
                record.decision == hub_protocol::Decision::ApprovedOffline && record.allowance.is_none()
            }
            Event::AllowanceGiven { .. } => true,
            _ => false,
        };
        let has_room = disk.room.has(disk.waiting_bytes() + payload.len());
        hold(!risks || has_room, Rule::NothingLost, || {
            format!("entry {} takes a risk, and uses the reserve", entry.sequence)
        })?;
        match &entry.event {
            Event::PaymentOpened { payment_id, .. } => {
                self.live.insert(*payment_id, false);
            }
            Event::PaymentDecided { payment_id, .. } => {
                self.live.remove(payment_id);
                // What it said while the customer stood there was said to
                // another question.
                self.undecided.remove(payment_id);
            }
            Event::PaymentReleased { payment_id, .. } | Event::PaymentVoided { payment_id, .. } => {
                self.wait_ms.remove(payment_id);
                self.undecided.remove(payment_id);
            }
            _ => {}
        }
        disk.append(
            Record {
                entry,
                digest,
                bytes: payload.len(),
            },
            card,
        );
        Ok(())
    }

    /// What is written in the gateway's name, the gateway has said.
    fn hold_word(&self, event: &Event) -> Checked {
        let heard = |id: &PaymentId| self.heard.get(id).copied().unwrap_or_default();
        let (id, holds, what) = match event {
            Event::PaymentDecided {
                payment_id, record, ..
            } if record.decision == hub_protocol::Decision::ApprovedOnline => {
                (payment_id, heard(payment_id).approved, "approved online")
            }
            Event::PaymentSettled {
                payment_id, gateway, ..
            } if gateway.approved => (payment_id, heard(payment_id).approved, "settled"),
            Event::PaymentSettled { payment_id, .. } => {
                (payment_id, heard(payment_id).declined, "declined at replay")
            }
            Event::PaymentReversed { payment_id, .. } => (payment_id, heard(payment_id).reversed, "reversed"),
            Event::PaymentClosed {
                payment_id, finding, ..
            }
            | Event::PaymentReleased {
                payment_id,
                finding: Some(finding),
                ..
            } => {
                let said = self.desk.get(payment_id);
                return hold(said == Some(finding), Rule::OneCharge, || {
                    format!("{payment_id} is {finding} by nobody's word")
                });
            }
            Event::PaymentVoided {
                payment_id,
                effect: VoidEffect::CancelledBeforeSending,
                ..
            } => {
                return hold(!self.sent.contains(payment_id), Rule::OneCharge, || {
                    format!("{payment_id} is cancelled without a reversal, and had been sent")
                });
            }
            _ => return Ok(()),
        };
        hold(holds, Rule::OneCharge, || {
            format!("{id} is written down as {what}, which the gateway never said")
        })
    }

    /// An answer leaves the hub.
    pub(crate) fn reply(&mut self, disk: &Disk, waiting: &Waiting, answer: &Answer) -> Checked {
        match answer {
            Answer::Receipt(receipt) => self.receipt(disk, waiting, receipt),
            Answer::Status(status, receipt) => {
                self.mix(status.sequence);
                let owner = self.ledger.payments.get(&status.payment_id).map(|p| p.device);
                hold(owner == waiting.device, Rule::OneCharge, || {
                    format!("{} is told to a stranger", status.payment_id)
                })?;
                self.status(disk, status)?;
                receipt
                    .as_ref()
                    .map_or(Ok(()), |receipt| self.receipt(disk, waiting, receipt))
            }
            Answer::Refused(code) => {
                let synced = matches!(waiting.frame, Some((_, _, Frame::Sync(_))));
                if synced && *code == RefusalCode::PaymentIdConflict {
                    self.hold_durable(disk, waiting, answer)?;
                }
                self.refused(waiting, *code)
            }
            Answer::Synced(receipt) => {
                self.hold_durable(disk, waiting, answer)?;
                self.receipt(disk, waiting, receipt)
            }
            Answer::Allowance(allowance, chain) => self.given(disk, waiting, allowance, *chain),
            Answer::Returned(number) => {
                let kept = waiting.device.and_then(|device| self.ledger.kept.get(&device));
                let closed = kept.is_some_and(|kept| {
                    let newest = kept.allowance.number;
                    let on_disk = |at: u64| disk.read(at).is_some();
                    newest > *number || newest == *number && kept.closed.is_some_and(|(at, _)| on_disk(at))
                });
                hold(closed, Rule::DurableBeforeAnswered, || {
                    format!("allowance {number} is said to be closed before that is on disk")
                })
            }
            Answer::Registered | Answer::PolicyActive | Answer::Done => {
                self.hold_durable(disk, waiting, answer)
            }
            Answer::Standing(told) => self.standing(disk, told),
            Answer::Other => Ok(()),
        }
    }

    #[allow(clippy::unused_self)] // one of the checks
    fn hold_durable(&self, disk: &Disk, waiting: &Waiting, answer: &Answer) -> Checked {
        let durable = waiting.head.is_none_or(|head| head <= disk.durable);
        let at_once = waiting.head.is_none() && disk.durable < disk.records.len();
        hold(durable && !at_once, Rule::DurableBeforeAnswered, || {
            format!("{answer:?} is answered before it is on disk")
        })
    }

    /// A device is told what it may approve by itself.
    fn given(
        &mut self,
        disk: &Disk,
        waiting: &Waiting,
        allowance: &Allowance,
        chain: AllowanceChain,
    ) -> Checked {
        self.mix(allowance.number);
        let number = allowance.number;
        // A person may have closed it before the answer leaves.
        let given = disk.records.iter().position(|record| {
            matches!(&record.entry.event, Event::AllowanceGiven { allowance: given } if given == allowance)
        });
        let on_disk = given.is_some_and(|at| at < disk.durable);
        hold(on_disk, Rule::DurableBeforeAnswered, || {
            format!("allowance {number} is told before it is on disk")
        })?;
        let kept = waiting.device.and_then(|device| self.ledger.kept.get(&device));
        let newest = kept.map(|kept| (kept.allowance.number, kept.count()));
        let same = waiting.device == Some(allowance.device)
            && newest
                .is_some_and(|(newest, count)| newest > number || newest == number && chain.index <= count);
        hold(same, Rule::NoCeilingPassed, || {
            format!("allowance {number} is told other than it was given")
        })
    }

    /// What a person is told of the store is what the ledger says.
    fn standing(&self, disk: &Disk, told: &Standing) -> Checked {
        hold(
            usize::try_from(told.newest) == Ok(disk.records.len()),
            Rule::SameAgain,
            || format!("entry {} is told to be the newest", told.newest),
        )?;
        let [exposure] = self.ledger.exposures(&[Subject::Store]);
        let (minor, count) = self.ledger.kept_back(&Subject::Store);
        let at_risk = (exposure + minor, self.ledger.consecutive(&Subject::Store) + count);
        hold(told.at_risk == at_risk, Rule::NoCeilingPassed, || {
            format!(
                "at risk, in a row: {:?} are told, there are {at_risk:?}",
                told.at_risk
            )
        })?;
        let open: Vec<_> = self
            .ledger
            .kept
            .iter()
            .filter_map(|(device, kept)| Some((*device, kept.allowance.number, kept.out()?)))
            .collect();
        hold(told.allowances == open, Rule::NoCeilingPassed, || {
            format!("out of reach: {:?} are told, there are {open:?}", told.allowances)
        })?;
        let restricted = self.ledger.restricted();
        hold(told.restricted == restricted, Rule::SilenceMeansNo, || {
            format!(
                "restricted: {:?} are told, there are {restricted:?}",
                told.restricted
            )
        })?;
        let payments = || self.ledger.payments.values();
        let in_state = |state| payments().filter(|p| p.state == state).count();
        let waiting = (
            in_state(PaymentState::Queued),
            in_state(PaymentState::ReversalQueued),
            payments().filter(|p| p.is_parked()).count(),
        );
        hold(told.waiting == waiting, Rule::NothingLost, || {
            format!(
                "to be sent, to be reversed, parked: {:?} are told, there are {waiting:?}",
                told.waiting
            )
        })
    }

    fn receipt(&mut self, disk: &Disk, waiting: &Waiting, receipt: &Receipt) -> Checked {
        self.mix(receipt.sequence);
        let id = receipt.payment_id;
        let Some(record) = disk.read(receipt.sequence) else {
            return hold(false, Rule::DurableBeforeAnswered, || {
                format!(
                    "{id} is answered by entry {}, which is not on disk",
                    receipt.sequence
                )
            });
        };
        let stated = self
            .ledger
            .payments
            .get(&id)
            .and_then(|p| p.asked.request.terms.as_ref());
        let stated = stated.map(|terms| terms.transaction_type);
        let as_told = |reason: Reason| stated.map_or_else(|| told(reason), |_| reason);
        let says = matches!(&record.entry.event, Event::PaymentDecided { payment_id, record, .. }
            if *payment_id == id && record.decision == receipt.decision && as_told(record.reason) == receipt.reason);
        hold(
            receipt.transaction_type == stated,
            Rule::DurableBeforeAnswered,
            || {
                format!(
                    "{id} is receipted as {:?} and was {stated:?}",
                    receipt.transaction_type
                )
            },
        )?;
        hold(
            says && record.digest == receipt.entry_digest,
            Rule::DurableBeforeAnswered,
            || {
                format!(
                    "{id}: entry {} does not say what the receipt says",
                    receipt.sequence
                )
            },
        )?;
        let same = waiting
            .request
            .is_none_or(|digest| digest == receipt.request_digest)
            && waiting.device == Some(receipt.device);
        hold(same, Rule::OneCharge, || {
            format!("{id} is answered to somebody who sent other bytes under this id")
        })?;
        let amount = self.ledger.payments.get(&id).map(|p| p.amount);
        hold(amount == Some(receipt.amount_minor), Rule::OneCharge, || {
            format!("{id} is receipted over another amount")
        })?;
        let first = self.told.entry(id).or_insert_with(|| receipt.clone());
        hold(first == receipt, Rule::OneCharge, || {
            format!(
                "{id} was told {} before, and now {}",
                first.decision, receipt.decision
            )
        })
    }

    /// A status that somebody is told.
    pub(crate) fn status(&mut self, disk: &Disk, status: &PaymentStatus) -> Checked {
        let id = status.payment_id;
        let on_disk = usize::try_from(status.sequence).is_ok_and(|sequence| sequence <= disk.durable);
        hold(on_disk, Rule::DurableBeforeAnswered, || {
            format!("{id} is said to be {} before that is on disk", status.state)
        })?;
        let stands = self
            .ledger
            .payments
            .get(&id)
            .and_then(|p| p.state_at(status.sequence));
        hold(stands == Some(status.state), Rule::NothingLost, || {
            format!("{id} is said to be {}, in the ledger {stands:?}", status.state)
        })
    }

    fn refused(&mut self, waiting: &Waiting, code: RefusalCode) -> Checked {
        self.mix(u64::from(code.number()));
        let payment = waiting.payment.and_then(|id| self.ledger.payments.get(&id));
        let own = payment.filter(|p| Some(p.device) == waiting.device);
        let state = own.map(|p| p.state);
        let (wrong, rule) = match code {
            RefusalCode::PaymentIdConflict => (
                own.is_some_and(|p| Some(p.request_digest) == waiting.request) || payment.is_none(),
                Rule::OneCharge,
            ),
            RefusalCode::PaymentUnknown => (payment.is_some(), Rule::NothingLost),
            RefusalCode::PaymentOfOtherDevice => (payment.is_none() || own.is_some(), Rule::NothingLost),
            RefusalCode::NothingToVoid => (
                !matches!(state, Some(PaymentState::Refused | PaymentState::SettledDeclined)),
                Rule::NothingLost,
            ),
            // A payment without an answer is cancelled, not refused.
            RefusalCode::VoidBeforeAnswer => (true, Rule::NothingLost),
            RefusalCode::DeviceNotAllowed => (
                waiting
                    .device
                    .and_then(|device| self.ledger.devices.get(&device))
                    .is_some_and(|(_, blocked)| !blocked),
                Rule::NothingLost,
            ),
            _ => (false, Rule::NothingLost),
        };
        hold(!wrong, rule, || {
            format!(
                "{:?} is refused: {code}, in the ledger {state:?}",
                waiting.payment
            )
        })
    }

    /// A sealed card is about to be destroyed.
    pub(crate) fn erase(&self, disk: &Disk, id: &PaymentId) -> Checked {
        let durable = u64::try_from(disk.durable).unwrap_or_default();
        let state = self.ledger.payments.get(id).and_then(|p| p.state_at(durable));
        hold(state.is_none_or(|s| !needs_card(s)), Rule::NothingLost, || {
            format!("the card of {id} is destroyed in state {state:?}")
        })
    }

    /// Something goes to the gateway. The device's signed request, as the
    /// journal has it.
    pub(crate) fn forward(
        &mut self,
        disk: &Disk,
        forward: &Forward,
        now_ms: u64,
        profile: &Profile,
    ) -> Result<Vec<u8>, crate::Violation> {
        let id = forward.id;
        self.mix(forward.attempt);
        let request = match disk
            .read(forward.request_sequence)
            .map(|record| &record.entry.event)
        {
            Some(
                Event::PaymentOpened {
                    payment_id, request, ..
                }
                | Event::PaymentDecided {
                    payment_id,
                    request: Some(request),
                    ..
                },
            ) if *payment_id == id => request.clone(),
            _ => {
                return Err(crate::Violation {
                    rule: Rule::OneCharge,
                    text: format!(
                        "{id} is sent, and entry {} does not hold it",
                        forward.request_sequence
                    ),
                });
            }
        };
        let Some(payment) = self.ledger.payments.get(&id) else {
            return Err(crate::Violation {
                rule: Rule::OneCharge,
                text: format!("{id} is sent, and the ledger does not know it"),
            });
        };
        hold(
            usize::try_from(payment.latest()).is_ok_and(|latest| latest <= disk.durable),
            Rule::DurableBeforeAnswered,
            || format!("{id} is sent before entry {} is on disk", payment.latest()),
        )?;
        let before = match forward.what {
            What::Reverse => &self.reversals,
            _ => &self.sent,
        };
        hold(
            forward.maybe_sent || !before.contains(&id),
            Rule::OneCharge,
            || format!("{id} is sent as if for the first time, and had been sent"),
        )?;
        let fits = match forward.what {
            What::Online => payment.state == PaymentState::Open,
            What::Deferred | What::Advice => {
                let chip = payment.asked.request.cryptogram == Cryptogram::CardApproved;
                payment.state == PaymentState::Queued && chip == (forward.what == What::Advice)
            }
            What::Reverse => payment.state == PaymentState::ReversalQueued,
            What::LookUp => matches!(payment.state, PaymentState::Queued | PaymentState::Open),
        };
        hold(fits, Rule::OneCharge, || {
            format!("{id} goes out as {:?} in state {}", forward.what, payment.state)
        })?;
        let twice = self.attempts.values().any(|(other, _)| *other == id);
        hold(!twice, Rule::OneCharge, || {
            format!("{id} is sent while it is being sent")
        })?;
        let customer_waits = payment.state == PaymentState::Open;
        if customer_waits {
            self.live.insert(id, true);
        } else {
            self.hold_turn(&id)?;
            self.hold_patience(&id, profile)?;
            // A customer's no is reversed at once: asking for the money was to
            // wait, giving it back was not.
            let reverses_a_no = forward.what == What::Reverse && self.told_at_the_counter.contains(&id);
            let own = self.wait_ms.get(&id).copied().filter(|_| !reverses_a_no);
            let until = own.unwrap_or_default().max(self.wait_all_ms);
            hold(now_ms >= until, Rule::RetryAfter, || {
                format!("{id} is sent {} ms before the gateway wants it", until - now_ms)
            })?;
        }
        match forward.what {
            What::Reverse => _ = self.reversals.insert(id),
            What::LookUp => {}
            What::Online | What::Deferred | What::Advice => _ = self.sent.insert(id),
        }
        self.attempts.insert(forward.attempt, (id, forward.what));
        if !customer_waits {
            self.hold_room(profile)?;
        }
        Ok(request)
    }

    /// One of the backlog has left: there was room for it, as things stood
    /// then. What a customer gives up later in the same breath joins the
    /// backlog without having been sent for it.
    fn hold_room(&self, profile: &Profile) -> Checked {
        let in_flight = self
            .attempts
            .values()
            .filter(|(id, what)| {
                !matches!(what, What::Online | What::LookUp)
                    || self
                        .ledger
                        .payments
                        .get(id)
                        .is_some_and(|p| p.state != PaymentState::Open)
            })
            .count();
        let live = !self.live.is_empty();
        let most = if live || self.ledger.wan != Some(WanState::Online) {
            Shell::most_in_flight_beside_live(profile)
        } else {
            Shell::most_in_flight(profile)
        };
        hold(in_flight <= most, Rule::LiveBeforeBacklog, || {
            format!(
                "{in_flight} attempts of the backlog are under way, customers wait: {live}, at most {most}"
            )
        })
    }

    /// What the gateway has left undecided for too long waits for a person, and
    /// holds up nobody.
    fn hold_patience(&self, id: &PaymentId, profile: &Profile) -> Checked {
        let most_ms = match profile.undecided_ms {
            0 => 4 * 3_600_000,
            own => own,
        };
        let (for_ms, times, _) = self.undecided.get(id).copied().unwrap_or_default();
        hold(for_ms < most_ms || times < 5, Rule::NothingLost, || {
            format!(
                "{id} is asked for again, which the gateway has left undecided {times} times in {for_ms} ms"
            )
        })
    }

    /// Nobody waits before it with the same card or at the same device.
    fn hold_turn(&self, id: &PaymentId) -> Checked {
        let Some(payment) = self.ledger.payments.get(id) else {
            return Ok(());
        };
        let before = self.ledger.payments.iter().find(|(_, other)| {
            other.waits_to_be_sent()
                && other.place < payment.place
                && (other.card == payment.card || other.device == payment.device)
        });
        hold(before.is_none(), Rule::Order, || {
            format!(
                "{id} goes before {}",
                before.map_or(String::new(), |(id, _)| id.to_string())
            )
        })
    }

    /// An attempt has ended and the hub is about to hear of it.
    pub(crate) fn answered(&mut self, attempt: u64, said: &Said, now_ms: u64) {
        let Some((id, what)) = self.attempts.remove(&attempt) else {
            return;
        };
        let heard = self.heard.entry(id).or_default();
        match said {
            Said::Approved => heard.approved = true,
            Said::Declined => heard.declined = true,
            Said::Reversed => heard.reversed = true,
            _ => {}
        }
        let live = self.live.contains_key(&id);
        let asks_reversal = self
            .ledger
            .payments
            .get(&id)
            .is_some_and(|p| p.state == PaymentState::ReversalQueued);
        let overtaken = asks_reversal && what != What::Reverse;
        if matches!(said, Said::Pending { .. }) && what != What::Online && !overtaken {
            let (for_ms, times, last_ms) = self.undecided.entry(id).or_insert((0, 0, now_ms));
            *for_ms += (now_ms - *last_ms).min(LONGEST_PAUSE_MS);
            *times += 1;
            *last_ms = now_ms;
        }
        let (all, wait) = match said {
            Said::Throttled { retry_after_ms } => (true, *retry_after_ms),
            Said::Broken { retry_after_ms } => (true, *retry_after_ms),
            Said::Pending { retry_after_ms } => (false, *retry_after_ms),
            _ => return,
        };
        // What one meets that has been voided meanwhile says nothing to the
        // queue.
        let Some(wait) = wait.filter(|_| !overtaken) else {
            return;
        };
        let until = now_ms + wait.min(LONGEST_WAIT_MS);
        if all {
            self.wait_all_ms = self.wait_all_ms.max(until);
        }
        self.wait_ms.insert(id, until);
        if live {
            self.told_at_the_counter.insert(id);
        } else {
            self.told_at_the_counter.remove(&id);
        }
    }

    /// An input has been handled and its effects carried out.
    pub(crate) fn after(&self, disk: &Disk) -> Checked {
        self.ledger.hold_restricted()?;
        let waiting = self.live.keys().find(|id| {
            let payment = self.ledger.payments.get(*id);
            self.live.get(*id) == Some(&false)
                && payment.is_some_and(|p| {
                    p.state == PaymentState::Open
                        && usize::try_from(p.request_sequence).is_ok_and(|sequence| sequence <= disk.durable)
                })
        });
        hold(waiting.is_none(), Rule::LiveBeforeBacklog, || {
            format!("the customer of {waiting:?} waits, and the gateway is not asked")
        })
    }

    /// The process is gone; what is on disk is left.
    pub(crate) fn crashed(&mut self, disk: &Disk) -> Checked {
        self.ledger = Ledger::default();
        for record in &disk.records {
            self.ledger.apply(&record.entry, &self.signed, self.max_queue)?;
        }
        self.attempts.clear();
        self.live.clear();
        self.wait_all_ms = 0;
        self.wait_ms.clear();
        self.undecided.clear();
        self.told_at_the_counter.clear();
        let lost = self.told.iter().find(|(id, receipt)| {
            let decided = self.ledger.payments.get(*id).and_then(|p| p.decided.as_ref());
            decided.is_none_or(|(sequence, _)| *sequence != receipt.sequence)
        });
        hold(lost.is_none(), Rule::NothingLost, || {
            format!(
                "{:?} was answered, and no entry on disk holds it",
                lost.map(|(id, _)| id)
            )
        })
    }
}
