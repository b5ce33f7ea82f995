//! How one acquirer speaks ISO 8583: read from a dialect file.

mod carried;
mod fields;
mod notation;
mod read;

use std::collections::BTreeMap;

use hub_core::toml_reader::Fault;
use hub_protocol::EntryMode;
use hub_protocol::entry::TraceRule;

use super::currency;
use super::field::{Kind, Value};
use super::frame::Framing;
use super::message::{Format, Mti};

/// An acquirer's dialect. Made by [`Dialect::parse`] only, which holds its
/// parts to each other: every field that the hub fills has a format that takes
/// what the hub puts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// What people call it.
    pub name: String,
    /// How messages follow each other.
    pub framing: Framing,
    /// What messages look like.
    pub format: Format,
    /// Which message asks what.
    pub messages: Messages,
    /// Fields with the same text in every payment and reversal.
    pub constants: BTreeMap<u8, String>,
    /// Where the hub's own things travel.
    pub carry: Carry,
    /// Marks an authorisation as deferred.
    pub deferred: Marker,
    /// Field 22.
    pub entry_modes: EntryModes,
    /// Field 41.
    pub terminal: TerminalRule,
    /// Fields 7, 11 and 37.
    pub trace: TraceSource,
    /// Field 39.
    pub codes: ResponseCodes,
    /// The fields that an answer must repeat as they were asked. Others of the
    /// payment must agree where they are present.
    pub echoes: Vec<u8>,
}

/// A message type and the type of its repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The first time.
    pub first: Mti,
    /// Every later time.
    pub repeat: Mti,
}

/// Which message asks what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Online and deferred authorisations.
    pub authorisation: Asking,
    /// What the chip approved.
    pub advice: Asking,
    /// Undo.
    pub reversal: Asking,
}

/// Where the hub's own things travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The payment id, if the acquirer takes it.
    pub payment_id: Option<u8>,
    /// A text before the payment id in its field: the tag and length of a
    /// sub-element, for instance.
    pub payment_id_prefix: String,
    /// The sealed card, spread over these fields in this order. Empty: it does
    /// not travel, and the acquirer knows the card otherwise.
    pub sealed_card: Vec<u8>,
    /// The till's order, cut to the field.
    pub order_id: Option<u8>,
    /// The token that stands for the card, cut to the field.
    pub card_token: Option<u8>,
}

impl Carry {
    /// The key that fills this field, if one does.
    fn holder(&self, field: u8) -> Option<&'static str> {
        let named = [
            (self.payment_id, "carry.payment_id"),
            (self.order_id, "carry.order_id"),
            (self.card_token, "carry.card_token"),
        ];
        let named = named.into_iter().find(|(number, _)| *number == Some(field));
        let sealed = self.sealed_card.contains(&field).then_some("carry.sealed_card");
        named.map(|(_, name)| name).or(sealed)
    }
}

/// A field that says something by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Which.
    pub field: u8,
    /// What it says.
    pub value: String,
}

/// Field 22 for each way to read a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryModes {
    chip: String,
    contactless: String,
    magnetic_stripe: String,
    keyed: String,
}

impl EntryModes {
    /// What stands in field 22.
    pub fn of(&self, mode: EntryMode) -> &str {
        match mode {
            EntryMode::Chip => &self.chip,
            EntryMode::Contactless => &self.contactless,
            EntryMode::MagneticStripe => &self.magnetic_stripe,
            EntryMode::Keyed => &self.keyed,
        }
    }
}

/// What the terminal id, field 41, names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalRule {
    /// The hub: the configured id as it is.
    Hub,
    /// The device: the configured id, filled up with base32 digits of the
    /// device's id.
    Device,
}

/// From what trace number, retrieval reference and transmission time are
/// found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceSource {
    /// The ledger's entry.
    Entry,
    /// The signed request; the trace number only if field 41 names the device,
    /// since the devices of a shop count each for itself.
    Payment,
}

/// What a response code, field 39, means for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Yes.
    Approved,
    /// No. Every code that the dialect does not name.
    Declined,
    /// Not known yet, the issuer cannot be reached: ask again later.
    Pending,
    /// The acquirer is out of order: ask again later.
    OutOfOrder,
    /// Too many messages.
    SlowDown,
    /// The acquirer does not take messages from this hub.
    RefusesHub,
    /// The message itself is wrong.
    RefusesMessage,
    /// Known already, without saying what the first answer was.
    Duplicate,
    /// There is nothing to reverse.
    NothingToReverse,
}

/// The response codes that mean something else than "declined".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseCodes {
    meanings: BTreeMap<String, Meaning>,
    /// Whether "known already" to a repeated advice or reversal acknowledges
    /// it. Otherwise a person has to see to it.
    pub duplicate_acknowledges: bool,
}

impl ResponseCodes {
    /// What a code means.
    pub fn meaning(&self, code: &str) -> Meaning {
        self.meanings.get(code).copied().unwrap_or(Meaning::Declined)
    }
}

impl Dialect {
    /// Reads a dialect file.
    ///
    /// # Errors
    /// Every fault at once, each with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        read::read(text)
    }

    /// Field 49 of a currency, from its ISO 4217 letters; `None` if the number
    /// is asked for and not known here.
    pub fn currency<'c>(&self, letters: &'c str) -> Option<&'c str> {
        match self.format.fields.get(&49)?.kind() {
            Kind::Alpha => Some(letters),
            _ => currency::number(letters),
        }
    }

    /// How this acquirer's payments are named.
    pub fn trace_rule(&self) -> TraceRule {
        match (self.trace, self.terminal) {
            (TraceSource::Entry, _) => TraceRule::Entry,
            (TraceSource::Payment, TerminalRule::Hub) => TraceRule::Payment,
            (TraceSource::Payment, TerminalRule::Device) => TraceRule::PaymentAndDevice,
        }
    }

    /// A payment id as it travels, if it does.
    pub fn payment_id(&self, id: [u8; 16]) -> Option<Value> {
        let field = self.format.fields.get(&self.carry.payment_id?);
        carried::payment_id_value(&self.carry.payment_id_prefix, id, field)
    }
}

#[cfg(test)]
mod tests;
