//! The gateway's mind: the book, the faults, what is being worked on.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_protocol::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::book::{Book, BookPayment, BookStatus, unix_ms};
use super::card_key::CardOpener;
use super::check::Checked;
use super::faults::{Dice, Faults};
use super::under_way::UnderWay;

/// What came in, by what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCounts {
    /// Calls about payments, reversals and look-ups, however they ended.
    pub calls: u64,
    /// Probes.
    pub probes: u64,
    /// Calls without the right credential (401).
    pub unauthorised: u64,
    /// Malformed calls, those with a wrong sealed card included (400, 413).
    pub refused: u64,
    /// Calls under a used id with another signed request (422), real ones.
    pub conflicts: u64,
    /// Look-ups.
    #[serde(default)]
    pub look_ups: u64,
    /// Calls that met an earlier one about the same payment (409).
    pub overlapped: u64,
    /// Calls turned away by a fault (canned, 422, 429, 503).
    pub turned_away: u64,
    /// Calls swallowed by a fault.
    pub swallowed: u64,
    /// Calls that were booked and whose line was then dropped by a fault.
    pub dropped: u64,
}

pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) credential: String,
    /// Opens sealed cards.
    pub(super) card_key: CardOpener,
    /// Places for calls about payments.
    pub(super) places: Mutex<(u32, Arc<Semaphore>)>,
    /// What is under way beside what.
    pub(super) under_way: Arc<UnderWay>,
    /// Turns true when the gateway stops.
    pub(super) stopping: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` once the gateway has stopped: nothing is booked any more.
    book: Option<Book>,
    /// What the book held when it was closed.
    last: Summary,
    faults: Faults,
    counts: GatewayCounts,
    working: HashSet<String>,
}

#[derive(Default)]
struct Summary {
    payments: Vec<BookPayment>,
    charges: u64,
    charged_twice: u64,
}

/// What a call about a payment comes to.
pub(super) enum Verdict {
    /// Wait for the flush, then say where the payment stands.
    Stands(Box<BookPayment>, oneshot::Receiver<()>),
    /// Undecided.
    Pending(oneshot::Receiver<()>),
    /// The id was used with another signed request.
    Conflict,
    /// A presentation without the decline of the one before.
    NotDeclined,
    /// The gateway has stopped.
    Closed,
}

/// Held while a payment is being worked on.
pub(super) struct Working {
    shared: Arc<Shared>,
    payment_id: String,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.shared.lock().working.remove(&self.payment_id);
    }
}

impl Shared {
    pub(super) fn open(
        book: &Path,
        seed: u64,
        credential: String,
        card_key: CardOpener,
        faults: Faults,
    ) -> io::Result<Self> {
        Ok(Self {
            seed,
            credential,
            card_key,
            places: Mutex::new((0, Arc::new(Semaphore::new(0)))),
            under_way: Arc::default(),
            stopping: watch::Sender::new(false),
            inner: Mutex::new(Inner {
                book: Some(Book::open(book)?),
                last: Summary::default(),
                faults,
                counts: GatewayCounts::default(),
                working: HashSet::new(),
            }),
        })
    }

    /// Waits for a place, if their number is limited.
    pub(super) async fn place(&self, limit: Option<u32>) -> Option<OwnedSemaphorePermit> {
        let limit = limit?;
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            if places.0 != limit {
                *places = (limit, Arc::new(Semaphore::new(limit as usize)));
            }
            Arc::clone(&places.1)
        };
        places.acquire_owned().await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the book; what it held can still be read here.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if let Some(book) = inner.book.take() {
            inner.last = Summary {
                payments: book.payments(),
                charges: book.charges(),
                charged_twice: book.charged_twice(),
            };
        }
    }

    pub(super) fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub(super) fn counts(&self) -> GatewayCounts {
        self.lock().counts
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut GatewayCounts)) {
        add(&mut self.lock().counts);
    }

    pub(super) fn charges(&self) -> u64 {
        let inner = self.lock();
        inner.book.as_ref().map_or(inner.last.charges, Book::charges)
    }

    pub(super) fn charged_twice(&self) -> u64 {
        let inner = self.lock();
        inner
            .book
            .as_ref()
            .map_or(inner.last.charged_twice, Book::charged_twice)
    }

    pub(super) fn payments(&self) -> Vec<BookPayment> {
        let inner = self.lock();
        match &inner.book {
            Some(book) => book.payments(),
            None => inner.last.payments.clone(),
        }
    }

    pub(super) fn payment(&self, payment_id: &str) -> Option<BookPayment> {
        let inner = self.lock();
        match &inner.book {
            Some(book) => book.get(payment_id),
            None => {
                let mut known = inner.last.payments.iter();
                known.find(|p| p.payment_id == payment_id).cloned()
            }
        }
    }

    /// Counts an ask about a payment and gives its number, from 1.
    pub(super) fn ask(&self, payment_id: &str) -> u32 {
        self.lock().book.as_mut().map_or(1, |book| book.ask(payment_id))
    }

    /// Begins to work on a payment, unless that is being done already.
    pub(super) fn begin(self: &Arc<Self>, payment_id: &str) -> Option<Working> {
        self.lock()
            .working
            .insert(payment_id.to_owned())
            .then(|| Working {
                shared: Arc::clone(self),
                payment_id: payment_id.to_owned(),
            })
    }

    /// Books an authorisation or an advice, or gives the answer that it got
    /// before.
    pub(super) fn authorise(&self, call: &Checked) -> Verdict {
        let mut inner = self.lock();
        let faults = inner.faults.clone();
        let Some(book) = &mut inner.book else {
            return Verdict::Closed;
        };
        let dice = Dice {
            seed: self.seed,
            payment_id: &call.payment_id,
        };
        let mut payment = match book.get(&call.payment_id) {
            Some(known) if known.fingerprint != call.fingerprint => {
                inner.counts.conflicts += 1;
                return Verdict::Conflict;
            }
            Some(known) if forgotten(&known, &faults) => taken_again(known, call, &faults, dice),
            Some(known) => known,
            None if call.presentation > 1 => return Verdict::NotDeclined,
            None => BookPayment {
                pending_left: if dice.falls("pending", 0, faults.pending) {
                    faults.pending_times
                } else {
                    0
                },
                ..first_seen(call)
            },
        };
        if payment.status == BookStatus::Pending {
            if payment.pending_left > 0 {
                payment.pending_left -= 1;
                return Verdict::Pending(book.write(payment));
            }
            decide(&mut payment, call, &faults, dice);
        } else if payment.status == BookStatus::Declined && call.presentation == payment.presentation + 1 {
            payment.presentation = call.presentation;
            decide(&mut payment, call, &faults, dice);
        } else if payment.status == BookStatus::Declined && call.presentation > payment.presentation {
            return Verdict::NotDeclined;
        }
        // Written again even if nothing changed: the answer must wait for the
        // flush of whoever came first.
        let flushed = book.write(payment.clone());
        Verdict::Stands(Box::new(payment), flushed)
    }

    /// Books a reversal. One of an unknown payment succeeds, so that whatever
    /// arrives late under that id is refused.
    pub(super) fn reverse(&self, call: &Checked) -> Verdict {
        let mut inner = self.lock();
        let Some(book) = &mut inner.book else {
            return Verdict::Closed;
        };
        let mut payment = match book.get(&call.payment_id) {
            Some(known) if known.fingerprint != call.fingerprint => {
                inner.counts.conflicts += 1;
                return Verdict::Conflict;
            }
            Some(known) => known,
            None => first_seen(call),
        };
        if payment.status != BookStatus::Reversed {
            payment.status = BookStatus::Reversed;
            payment.reversed = true;
            payment.charged_again = 0;
            payment.pending_left = 0;
            payment.response_code = "00".to_owned();
        }
        let flushed = book.write(payment.clone());
        Verdict::Stands(Box::new(payment), flushed)
    }
}

fn first_seen(call: &Checked) -> BookPayment {
    let reference = Digest::of(call.fingerprint.as_bytes()).to_string();
    BookPayment {
        payment_id: call.payment_id.clone(),
        fingerprint: call.fingerprint.clone(),
        store_id: call.store_id.clone(),
        device_id: call.device_id.clone(),
        order_id: call.request.order_id.clone(),
        amount_minor: call.request.amount_minor(),
        currency: call.request.currency.to_string(),
        transaction_type: call.request.transaction_type().name().to_owned(),
        operation: call.operation.clone(),
        status: BookStatus::Pending,
        response_code: String::new(),
        merchant_advice_code: None,
        authorisation_code: None,
        // A letter between the digits, so that a reference never looks like a
        // card number.
        reference: format!("gw-{}-{}", &reference[..6], &reference[6..12]),
        charged: false,
        charged_again: 0,
        presentation: 1,
        reversed: false,
        pending_left: 0,
        asked: 0,
        answered_ms: 0,
    }
}

/// Whether the payment was decided so long ago that its key is forgotten. A
/// reversed one is not taken again: that is by the merchant reference.
fn forgotten(known: &BookPayment, faults: &Faults) -> bool {
    let decided = matches!(known.status, BookStatus::Approved | BookStatus::Declined);
    let age_ms = unix_ms().saturating_sub(known.answered_ms);
    decided && faults.forget_keys_after_ms.is_some_and(|most| age_ms >= most)
}

/// The same payment, taken for a new one: charged once more.
fn taken_again(known: BookPayment, call: &Checked, faults: &Faults, dice: Dice<'_>) -> BookPayment {
    let mut payment = BookPayment {
        charged_again: known.charged_again + u64::from(known.stands()),
        answered_ms: 0,
        ..known
    };
    decide(&mut payment, call, faults, dice);
    payment
}

fn decide(payment: &mut BookPayment, call: &Checked, faults: &Faults, dice: Dice<'_>) {
    let by_rule = faults
        .decline_token_prefix
        .as_ref()
        .is_some_and(|prefix| call.request.card.token.starts_with(prefix))
        || faults
            .decline_amount_ending
            .is_some_and(|ending| payment.amount_minor % 100 == u64::from(ending));
    // An advice tells what the chip has approved: nobody is asked.
    let by_rule = by_rule
        && faults
            .decline_presentations
            .is_none_or(|most| call.presentation <= most);
    let declined = call.operation != "advice" && (by_rule || dice.falls("decline", 0, faults.decline));
    if declined {
        payment.status = BookStatus::Declined;
        // 05: do not honour; 51: insufficient funds.
        payment.response_code = match &faults.decline_code {
            _ if !by_rule => "51".to_owned(),
            Some(code) => code.clone(),
            None => "05".to_owned(),
        };
        payment.merchant_advice_code = faults.decline_advice.clone().filter(|_| by_rule);
    } else {
        payment.status = BookStatus::Approved;
        payment.response_code = "00".to_owned();
        payment.merchant_advice_code = None;
        payment.authorisation_code = Some(payment.reference[3..9].to_uppercase());
        payment.charged = true;
    }
}
