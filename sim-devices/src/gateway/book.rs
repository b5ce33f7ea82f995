//! The gateway's own book: what it knows of each payment. Customers' words
//! are held against it at the end of a run.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hub_protocol::TransactionType;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::journal::Journal;

/// Where a payment stands in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BookStatus {
    /// Charged, unless reversed since.
    Approved,
    /// Not charged.
    Declined,
    /// Undecided; the hub has to ask again.
    Pending,
    /// Undone, or never to be done.
    Reversed,
}

impl BookStatus {
    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Declined => "declined",
            Self::Pending => "pending",
            Self::Reversed => "reversed",
        }
    }
}

/// One payment in the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookPayment {
    /// The idempotency key.
    pub payment_id: String,
    /// SHA-256 over payment id and signed request, hex.
    pub fingerprint: String,
    /// The store.
    pub store_id: String,
    /// The device; empty if only a reversal was seen.
    pub device_id: String,
    /// The till's order.
    pub order_id: String,
    /// In minor units.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: String,
    /// What it is: money back to the card for a refund.
    #[serde(default = "sale")]
    pub transaction_type: String,
    /// The operation first seen: `authorise-online`, `authorise-deferred`,
    /// `advice` or `reversal`.
    pub operation: String,
    /// Where it stands.
    pub status: BookStatus,
    /// ISO 8583 field 39, or a code of our own.
    pub response_code: String,
    /// What the issuer advised with its decline: two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant_advice_code: Option<String>,
    /// ISO 8583 field 38, if approved.
    pub authorisation_code: Option<String>,
    /// The gateway's reference.
    pub reference: String,
    /// Whether money was taken, at whatever time.
    pub charged: bool,
    /// Charges beyond the first: the payment was sent again after its
    /// idempotency key was forgotten.
    #[serde(default)]
    pub charged_again: u64,
    /// The presentation to the issuer that was decided last, from 1.
    #[serde(default = "first")]
    pub presentation: u32,
    /// Whether a reversal was confirmed.
    pub reversed: bool,
    /// How many more times it is answered as pending.
    pub pending_left: u32,
    /// How often the gateway was asked about it (without look-ups).
    pub asked: u32,
    /// When it was first decided, milliseconds since 1970 UTC; 0 while it is
    /// pending.
    #[serde(default)]
    pub answered_ms: u64,
}

fn sale() -> String {
    TransactionType::Sale.name().to_owned()
}

const fn first() -> u32 {
    1
}

impl BookPayment {
    /// What the merchant gets for it, minor units: less than nothing for a
    /// refund.
    pub(super) fn paid_out_minor(&self) -> i64 {
        let amount = i64::try_from(self.amount_minor).unwrap_or(i64::MAX);
        if self.transaction_type == TransactionType::Refund.name() {
            -amount
        } else {
            amount
        }
    }

    /// Whether the customer's money is gone: charged and not given back.
    pub const fn stands(&self) -> bool {
        self.charged && !self.reversed
    }
}

/// A line of the file: the payment as it stands from here on, or an ask that
/// changed nothing.
#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
enum Line {
    Payment(Box<BookPayment>),
    Asked { payment_id: String },
}

/// The book, in memory and on disk.
pub(super) struct Book {
    payments: Vec<BookPayment>,
    index: HashMap<String, usize>,
    asked: HashMap<String, u32>,
    journal: Journal,
}

impl Book {
    /// Opens the book and folds its lines.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (journal, lines) = Journal::open(path)?;
        let mut book = Self {
            payments: Vec::new(),
            index: HashMap::new(),
            asked: HashMap::new(),
            journal,
        };
        for (number, text) in lines.iter().enumerate() {
            let line = serde_json::from_str(text).map_err(|error| {
                let told = format!("{} line {}: {error}", path.display(), number + 1);
                io::Error::new(io::ErrorKind::InvalidData, told)
            })?;
            match line {
                Line::Payment(payment) => book.put(*payment),
                Line::Asked { payment_id } => book.count(&payment_id),
            }
        }
        Ok(book)
    }

    /// Counts an ask and gives its number for this payment, from 1.
    pub(super) fn ask(&mut self, payment_id: &str) -> u32 {
        self.count(payment_id);
        // Nobody is answered on the strength of this line alone, so nobody
        // waits for its flush.
        drop(self.append(&Line::Asked {
            payment_id: payment_id.to_owned(),
        }));
        self.asked.get(payment_id).copied().unwrap_or_default()
    }

    /// Writes a payment down as it stands now. To be waited for.
    pub(super) fn write(&mut self, mut payment: BookPayment) -> oneshot::Receiver<()> {
        if payment.status != BookStatus::Pending && payment.answered_ms == 0 {
            payment.answered_ms = unix_ms();
        }
        let flushed = self.append(&Line::Payment(Box::new(payment.clone())));
        self.put(payment);
        flushed
    }

    /// The payment with this id.
    pub(super) fn get(&self, payment_id: &str) -> Option<BookPayment> {
        let payment = self.payments.get(*self.index.get(payment_id)?)?;
        Some(self.with_asked(payment))
    }

    /// All payments, in the order in which they were first seen.
    pub(super) fn payments(&self) -> Vec<BookPayment> {
        self.payments.iter().map(|p| self.with_asked(p)).collect()
    }

    /// Payments whose money is gone.
    pub(super) fn charges(&self) -> u64 {
        let charges = self.payments.iter().filter(|p| p.stands());
        charges.map(|p| 1 + p.charged_again).sum()
    }

    /// Charges beyond the first for one order of one store: what customers
    /// would have paid twice, under two payment ids or under one.
    pub(super) fn charged_twice(&self) -> u64 {
        let mut orders = HashSet::new();
        let charges = self.payments.iter().filter(|p| p.stands());
        charges
            .map(|p| {
                let first = orders.insert((p.store_id.as_str(), p.order_id.as_str()));
                p.charged_again + u64::from(!first)
            })
            .sum()
    }

    fn with_asked(&self, payment: &BookPayment) -> BookPayment {
        BookPayment {
            asked: self.asked.get(&payment.payment_id).copied().unwrap_or_default(),
            ..payment.clone()
        }
    }

    fn count(&mut self, payment_id: &str) {
        *self.asked.entry(payment_id.to_owned()).or_default() += 1;
    }

    fn put(&mut self, payment: BookPayment) {
        match self.index.get(&payment.payment_id) {
            Some(at) => self.payments[*at] = payment,
            None => {
                self.index.insert(payment.payment_id.clone(), self.payments.len());
                self.payments.push(payment);
            }
        }
    }

    fn append(&self, line: &Line) -> oneshot::Receiver<()> {
        // Strings, numbers and flags only: encoding them cannot fail.
        self.journal.append(serde_json::to_vec(line).unwrap_or_default())
    }
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(id: &str, order: &str) -> BookPayment {
        BookPayment {
            payment_id: id.into(),
            fingerprint: "f".into(),
            store_id: "s".into(),
            device_id: "d".into(),
            order_id: order.into(),
            amount_minor: 100,
            currency: "EUR".into(),
            transaction_type: sale(),
            operation: "advice".into(),
            status: BookStatus::Approved,
            response_code: "00".into(),
            merchant_advice_code: None,
            authorisation_code: None,
            reference: "r".into(),
            charged: true,
            charged_again: 0,
            presentation: 1,
            reversed: false,
            pending_left: 0,
            asked: 0,
            answered_ms: 0,
        }
    }

    #[test]
    fn the_book_survives_and_an_unfinished_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.jsonl");
        let mut book = Book::open(&path).unwrap();
        assert_eq!(book.ask("a"), 1);
        assert_eq!(book.ask("a"), 2);
        book.write(payment("a", "1")).blocking_recv().unwrap();
        book.write(payment("b", "2")).blocking_recv().unwrap();
        let before = book.payments();
        drop(book);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(br#"{"line":"payment","payment_id":"c""#);
        std::fs::write(&path, bytes).unwrap();
        let mut book = Book::open(&path).unwrap();
        assert_eq!(book.payments(), before);
        assert_eq!(book.charges(), 2);
        book.write(payment("c", "3")).blocking_recv().unwrap();
        drop(book);
        assert_eq!(Book::open(&path).unwrap().charges(), 3);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_refused_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.jsonl");
        std::fs::write(&path, "{\"line\":\"asked\",\"payment_id\":\"a\"}\nrubbish\n").unwrap();
        let told = Book::open(&path).err().unwrap().to_string();
        assert!(told.contains("line 2"), "{told}");
    }

    #[test]
    fn two_ids_charged_for_one_order_count_as_charged_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open(&dir.path().join("book.jsonl")).unwrap();
        for (id, order) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "1")] {
            drop(book.write(payment(id, order)));
        }
        assert_eq!(book.charged_twice(), 2);
        let reversed = BookPayment {
            reversed: true,
            ..payment("a", "1")
        };
        drop(book.write(reversed));
        let declined = BookPayment {
            charged: false,
            ..payment("b", "1")
        };
        drop(book.write(declined));
        assert_eq!((book.charges(), book.charged_twice()), (2, 0));
    }
}
