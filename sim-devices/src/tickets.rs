//! Reading a file of real tickets.
//!
//! CSV with a header, plain or gzip (told by its first bytes, not its name).
//! Columns by name: `timestamp` (shop time, no zone), `ticket`,
//! `amount_minor` (1/100 of the currency), and where there are such columns
//! `payment` and `card`; others are ignored. Lines are read one at a time
//! with a bound on each. A line that is no card payment is counted under its
//! reason and named by its number; nothing is guessed or mended.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use jiff::civil::DateTime;

use crate::skipped::Skip;

mod line;
use line::{Line, LineReader};

/// The longest line, in bytes. A longer one is skipped and counted.
pub const MAX_LINE: usize = 4096;

/// The most lines of one file; a longer file is refused as a whole.
pub const MAX_LINES: u64 = 5_000_000;

/// How many line numbers are kept for each reason to skip.
pub const EXAMPLES: usize = 5;

/// One card payment of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Shop time.
    pub at: DateTime,
    /// The ticket's number, unique in the file, 1 to 48 bytes.
    pub ticket: String,
    /// In 1/100 of the file's currency, at least 1.
    pub amount_minor: u64,
    /// The card's token, where the file has one.
    pub card: Option<String>,
}

/// Lines that were skipped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first [`EXAMPLES`] of their line numbers, from 1.
    pub lines: Vec<u64>,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct TicketFile {
    /// The card payments, by time; equal times in the file's order.
    pub tickets: Vec<Ticket>,
    /// Everything else, by reason.
    pub skipped: BTreeMap<Skip, Skipped>,
    /// Lines after the header, empty ones left out.
    pub rows: u64,
    /// Whether the file says which tickets were paid by card. Where it does
    /// not, every ticket is played as a card payment.
    pub says_payment: bool,
    /// Whether the file has tokens for cards.
    pub says_card: bool,
}

/// Why a file cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The file cannot be opened or read, or its compression is damaged.
    #[error("{} cannot be read beyond line {line}; nothing of it was played", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line that was read.
        line: u64,
        /// What happened.
        source: std::io::Error,
    },
    /// The header is not there or lacks a column.
    #[error("{}: {what}; expected a first line such as timestamp,ticket,amount_minor,payment,card", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// More lines than can be played.
    #[error("{}: more than {MAX_LINES} lines; split the file by day", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the file at `path`.
pub fn read_file(path: &Path) -> Result<TicketFile, TicketError> {
    let fault = |source| TicketError::Read {
        path: path.to_owned(),
        line: 0,
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(fault)?);
    let gzip = reader.fill_buf().map_err(fault)?.starts_with(&[0x1f, 0x8b]);
    if gzip {
        read(path, &mut BufReader::new(MultiGzDecoder::new(reader)))
    } else {
        read(path, &mut reader)
    }
}

/// Reads tickets from `reader`; `path` is for the words of errors only.
pub fn read(path: &Path, reader: &mut dyn BufRead) -> Result<TicketFile, TicketError> {
    let mut lines = LineReader::new(reader);
    let mut buffer = Vec::with_capacity(256);
    let columns = loop {
        match next(path, &mut lines, &mut buffer)? {
            None => return Err(header(path, "the file is empty")),
            Some(Line::Whole) if buffer.is_empty() => {}
            Some(Line::Whole) => break Columns::parse(&buffer).map_err(|what| header(path, &what))?,
            Some(Line::TooLong) => return Err(header(path, "the first line is too long")),
        }
    };
    let mut file = TicketFile {
        says_payment: columns.payment.is_some(),
        says_card: columns.card.is_some(),
        ..TicketFile::default()
    };
    let mut seen = HashSet::new();
    while let Some(line) = next(path, &mut lines, &mut buffer)? {
        let row = match line {
            Line::TooLong => Err(Skip::LineTooLong),
            Line::Whole if buffer.is_empty() => continue,
            Line::Whole => columns.ticket(&buffer, &mut seen),
        };
        file.rows += 1;
        if file.rows > MAX_LINES {
            return Err(TicketError::TooLong {
                path: path.to_owned(),
            });
        }
        match row {
            Ok(ticket) => file.tickets.push(ticket),
            Err(reason) => {
                let skipped = file.skipped.entry(reason).or_default();
                skipped.count += 1;
                if skipped.lines.len() < EXAMPLES {
                    skipped.lines.push(lines.number());
                }
            }
        }
    }
    file.tickets.sort_by_key(|ticket| ticket.at);
    Ok(file)
}

fn next(path: &Path, lines: &mut LineReader<'_>, buffer: &mut Vec<u8>) -> Result<Option<Line>, TicketError> {
    lines.next(buffer).map_err(|source| TicketError::Read {
        path: path.to_owned(),
        line: lines.number(),
        source,
    })
}

fn header(path: &Path, what: &str) -> TicketError {
    TicketError::Header {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// Where the columns stand.
#[derive(Debug)]
struct Columns {
    count: usize,
    timestamp: usize,
    ticket: usize,
    amount: usize,
    payment: Option<usize>,
    card: Option<usize>,
}

impl Columns {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let record = split(line).map_err(|_| "the first line is not UTF-8".to_owned())?;
        let names: Vec<String> = record.iter().map(|n| n.trim().to_ascii_lowercase()).collect();
        let find = |name: &str| -> Result<Option<usize>, String> {
            let mut places = names
                .iter()
                .enumerate()
                .filter(|(_, n)| *n == name)
                .map(|(i, _)| i);
            let first = places.next();
            match places.next() {
                Some(_) => Err(format!("there are two columns called {name}")),
                None => Ok(first),
            }
        };
        let need = |name: &str| find(name)?.ok_or_else(|| format!("there is no column called {name}"));
        Ok(Self {
            count: names.len(),
            timestamp: need("timestamp")?,
            ticket: need("ticket")?,
            amount: need("amount_minor")?,
            payment: find("payment")?,
            card: find("card")?,
        })
    }

    fn ticket(&self, line: &[u8], seen: &mut HashSet<String>) -> Result<Ticket, Skip> {
        let record = split(line)?;
        if record.len() != self.count {
            return Err(Skip::ColumnsWrong);
        }
        let field = |place: usize| record.get(place).unwrap_or_default().trim();
        let ticket = field(self.ticket);
        // 48 bytes leave room for what an order id has beside it.
        if ticket.is_empty() || ticket.len() > 48 || unusable(ticket) {
            return Err(Skip::TicketNumberMalformed);
        }
        if !seen.insert(ticket.to_owned()) {
            return Err(Skip::TicketDoubled);
        }
        let at = timestamp(field(self.timestamp))?;
        let amount_minor = amount(field(self.amount))?;
        match self.payment.map(&field) {
            None | Some("card") => {}
            Some("cash") => return Err(Skip::PaidCash),
            Some("mixed") => return Err(Skip::PaidMixed),
            Some("other") => return Err(Skip::PaidOther),
            Some(_) => return Err(Skip::PaymentUnknown),
        }
        let card = match self.card.map(&field) {
            None | Some("") => None,
            Some(token) if hub_protocol::card_number::holds_card_number(token) => {
                return Err(Skip::ClearCardNumber);
            }
            Some(token) if token.len() > 64 || unusable(token) => return Err(Skip::CardMalformed),
            Some(token) => Some(token.to_owned()),
        };
        Ok(Ticket {
            at,
            ticket: ticket.to_owned(),
            amount_minor,
            card,
        })
    }
}

fn unusable(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The order id of a ticket: its number, with an `x` after every sixth digit
/// in a row. Long ticket numbers of real tills pass for card numbers by
/// chance, and a hub refuses whatever could be one.
pub fn order_id(ticket: &str) -> String {
    let mut order = String::with_capacity(ticket.len() + 8);
    let mut run = 0;
    for letter in ticket.chars() {
        match letter {
            '0'..='9' if run == 6 => {
                order.push('x');
                run = 1;
            }
            '0'..='9' => run += 1,
            '-' | ' ' => {}
            _ => run = 0,
        }
        order.push(letter);
    }
    order
}

fn split(line: &[u8]) -> Result<csv::StringRecord, Skip> {
    let mut record = csv::StringRecord::new();
    let read = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(line)
        .read_record(&mut record);
    match read {
        Ok(true) => Ok(record),
        Ok(false) => Err(Skip::ColumnsWrong),
        Err(_) => Err(Skip::NotUtf8),
    }
}

fn timestamp(text: &str) -> Result<DateTime, Skip> {
    // A date alone would be read as midnight: a guess.
    let has_time = text.len() >= 16 && matches!(text.as_bytes().get(10), Some(b'T' | b' '));
    if !has_time {
        return Err(Skip::TimestampMalformed);
    }
    text.parse().map_err(|_| Skip::TimestampMalformed)
}

fn amount(text: &str) -> Result<u64, Skip> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Skip::AmountMalformed);
    }
    // Overlong digits are no amount that anybody paid.
    let value: u64 = digits.parse().map_err(|_| Skip::AmountTooLarge)?;
    match value {
        0 => Err(Skip::AmountZero),
        _ if text.starts_with('-') => Err(Skip::AmountNegative),
        _ if value > hub_protocol::MAX_AMOUNT_MINOR => Err(Skip::AmountTooLarge),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests;
