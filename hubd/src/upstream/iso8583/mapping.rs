//! From the core's order to a message, and from its answer to the core's
//! words. Pure.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hub_core::{Forward, GatewayAnswer, Operation};
use hub_protocol::{Cryptogram, DeviceId, GatewayResult, PaymentRequest, SealedCard, TransactionType};

use super::super::message::{Unsendable, request_of};
use super::super::text::{MAX_DETAIL, clean};
use crate::iso8583::dialect::{Asking, Meaning, TerminalRule};
use crate::iso8583::field::Kind;
use crate::iso8583::frame::MAX_MESSAGE;
use crate::iso8583::trace::{Trace, local_time, transmission_time};
use crate::iso8583::{Dialect, Identity, Message, Mti, Value};

/// Network management, field 70: sign-on.
pub(super) const SIGN_ON: &str = "001";

/// Network management, field 70: echo test.
pub(super) const ECHO: &str = "301";

/// A payment as the ledger holds it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The device's signed request.
    pub signed_request: &'a [u8],
    /// When the ledger entry with the request was made, milliseconds since
    /// 1970 UTC: the same for life, so trace numbers and field 7 can hang on
    /// it.
    pub requested_ms: u64,
    /// The sealed card; not needed for a reversal.
    pub sealed_card: Option<&'a SealedCard>,
}

/// A message, and what an answer must agree with.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) message: Message,
    pub(super) trace: Trace,
    repeat: bool,
}

/// Writes payments in one acquirer's dialect.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) dialect: Dialect,
    pub(super) identity: Identity,
}

impl Mapping {
    /// The message for `forward`, sent at `now_ms`. The request was verified
    /// when it came in; here it is only held to be the one that the forward
    /// names.
    pub(super) fn question(
        &self,
        forward: &Forward,
        stored: &Stored<'_>,
        now_ms: u64,
    ) -> Result<Question, Unsendable> {
        let request = request_of(forward, stored.signed_request)?;
        let trace = Trace::new(
            forward.traces,
            forward.request_sequence,
            stored.requested_ms,
            &request,
        );
        let repeat = forward.number > 1 || forward.maybe_sent;
        let mti = |asking: Asking| if repeat { asking.repeat } else { asking.first };
        let types = &self.dialect.messages;
        let message = match forward.operation {
            Operation::AuthoriseOnline => {
                self.payment(mti(types.authorisation), forward, stored, &request, &trace)?
            }
            Operation::AuthoriseDeferred | Operation::LookUp => {
                let mut message =
                    self.payment(mti(types.authorisation), forward, stored, &request, &trace)?;
                let deferred = &self.dialect.deferred;
                message.set(deferred.field, &deferred.value);
                message
            }
            Operation::Advice => self.payment(mti(types.advice), forward, stored, &request, &trace)?,
            Operation::Reverse => self.reversal(mti(types.reversal), forward, &request, &trace, now_ms)?,
        };
        // What cannot be written will never pass.
        self.frame(&message).map_err(Unsendable::Request)?;
        Ok(Question {
            message,
            trace,
            repeat,
        })
    }

    fn payment(
        &self,
        mti: Mti,
        forward: &Forward,
        stored: &Stored<'_>,
        request: &PaymentRequest,
        trace: &Trace,
    ) -> Result<Message, Unsendable> {
        let sealed = stored.sealed_card.ok_or(Unsendable::Card)?;
        sealed
            .check(&request.sealed_card_digest)
            .map_err(|_| Unsendable::Card)?;
        let mut message = self.common(mti, forward, request, trace)?;
        // The same in every repeat, so that a reversal can name it.
        message.set(7, transmission_time(trace.at_ms));
        self.put_sealed(&mut message, sealed)?;
        Ok(message)
    }

    fn reversal(
        &self,
        mti: Mti,
        forward: &Forward,
        request: &PaymentRequest,
        trace: &Trace,
        now_ms: u64,
    ) -> Result<Message, Unsendable> {
        let mut message = self.common(mti, forward, request, trace)?;
        message.set(7, transmission_time(now_ms));
        let original = match request.cryptogram {
            Cryptogram::CardApproved => self.dialect.messages.advice.first,
            Cryptogram::AsksOnline | Cryptogram::Refused => self.dialect.messages.authorisation.first,
        };
        let acquirer = self.identity.acquirer_id.as_deref().unwrap_or_default();
        message.set(
            90,
            format!(
                "{original}{}{}{acquirer:0>11}{:0>11}",
                trace.stan,
                transmission_time(trace.at_ms),
                // No institution forwards for the hub.
                ""
            ),
        );
        Ok(message)
    }

    /// What payments and reversals have in common. Fields that the dialect
    /// does not have are left out.
    fn common(
        &self,
        mti: Mti,
        forward: &Forward,
        request: &PaymentRequest,
        trace: &Trace,
    ) -> Result<Message, Unsendable> {
        let mut message = Message::new(mti);
        for (number, text) in &self.dialect.constants {
            message.set(*number, text);
        }
        self.put_transaction_type(&mut message, request)?;
        let (time, date) = local_time(request.device_time_ms, &self.identity.time_zone);
        message.set(4, format!("{:012}", request.amount_minor()));
        message.set(11, &trace.stan);
        message.set(12, time);
        message.set(13, date);
        message.set(22, self.dialect.entry_modes.of(request.entry_mode));
        if let Some(acquirer) = &self.identity.acquirer_id {
            message.set(32, acquirer);
        }
        message.set(37, &trace.rrn);
        message.set(41, self.terminal(forward.device));
        message.set(42, format!("{:<15}", self.identity.merchant_id));
        let letters = request.currency.as_str();
        let currency = self
            .dialect
            .currency(letters)
            .ok_or_else(|| Unsendable::Request(format!("no ISO 4217 number is known for {letters}")))?;
        message.set(49, currency);
        for optional in [12, 13, 22, 32] {
            if !self.dialect.format.has(optional) {
                message.remove(optional);
            }
        }
        self.put_carried(&mut message, forward, request);
        Ok(message)
    }

    /// Field 3 as the dialect has it for a purchase, with the transaction type
    /// of ISO 8583:1987 in its first two digits; and the cash, in field 54.
    fn put_transaction_type(
        &self,
        message: &mut Message,
        request: &PaymentRequest,
    ) -> Result<(), Unsendable> {
        let Some(terms) = &request.terms else {
            return Ok(());
        };
        let code = match terms.transaction_type {
            TransactionType::Sale => return Ok(()),
            TransactionType::Refund => "20",
            TransactionType::CashBack => "09",
        };
        let accounts = self
            .dialect
            .constants
            .get(&3)
            .and_then(|purchase| purchase.get(2..));
        message.set(3, format!("{code}{}", accounts.unwrap_or("0000")));
        let Some(cash) = terms.cash_back_minor else {
            return Ok(());
        };
        let currency = self.dialect.currency(request.currency.as_str());
        let (Some(currency), true) = (currency, self.dialect.format.has(54)) else {
            return Err(Unsendable::Request(
                "the dialect has no field 54, which cash-back needs".to_owned(),
            ));
        };
        // Default account, amount type 40: cash back, a debit.
        message.set(54, format!("0040{currency}D{cash:012}"));
        Ok(())
    }

    fn put_carried(&self, message: &mut Message, forward: &Forward, request: &PaymentRequest) {
        let carry = &self.dialect.carry;
        if let Some(number) = carry.payment_id
            && let Some(value) = self.dialect.payment_id(forward.payment_id.0)
        {
            message.set_value(number, value);
        }
        for (number, text) in [
            (carry.order_id, &request.order_id),
            (carry.card_token, &request.card.token),
        ] {
            if let Some(number) = number
                && let Some(field) = self.dialect.format.fields.get(&number)
            {
                // Both are printable ASCII.
                message.set(number, text.chars().take(field.capacity()).collect::<String>());
            }
        }
    }

    fn put_sealed(&self, message: &mut Message, sealed: &SealedCard) -> Result<(), Unsendable> {
        let fields = &self.dialect.format.fields;
        let numbers = &self.dialect.carry.sealed_card;
        let Some(first) = numbers.first().and_then(|number| fields.get(number)) else {
            return Ok(());
        };
        let in_text = first.kind() != Kind::Binary;
        let content = if in_text {
            BASE64_STANDARD.encode(&sealed.blob).into_bytes()
        } else {
            sealed.blob.clone()
        };
        let mut rest = content.as_slice();
        for number in numbers {
            let room = fields.get(number).map_or(0, |field| field.capacity());
            let (part, behind) = rest.split_at(room.min(rest.len()));
            rest = behind;
            if part.is_empty() {
                break;
            }
            let value = if in_text {
                Value::Text(String::from_utf8_lossy(part).into_owned())
            } else {
                Value::Bytes(part.to_vec())
            };
            message.set_value(*number, value);
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Unsendable::Card)
        }
    }

    /// Field 41, always 8 characters.
    fn terminal(&self, device: DeviceId) -> String {
        let configured = &self.identity.terminal_id;
        let filled = match self.dialect.terminal {
            TerminalRule::Hub => format!("{configured:<8}"),
            TerminalRule::Device => format!("{configured}{}", data_encoding::BASE32.encode(&device.0)),
        };
        filled.chars().take(8).collect()
    }

    /// A message as it goes on the line; or in words why it cannot.
    pub(super) fn frame(&self, message: &Message) -> Result<Vec<u8>, String> {
        let wire = self
            .dialect
            .format
            .encode(message)
            .map_err(|fault| format!("the dialect cannot carry the {}: {fault}", message.mti))?;
        self.dialect
            .framing
            .wrap(&wire)
            .ok_or_else(|| format!("the {} is longer than {MAX_MESSAGE} bytes", message.mti))
    }

    /// A network management request.
    pub(super) fn network(&self, information: &str, stan: u64, now_ms: u64) -> Message {
        let mut message = Message::new(Mti::NETWORK);
        message.set(7, transmission_time(now_ms));
        message.set(11, format!("{stan:06}"));
        if let Some(acquirer) = &self.identity.acquirer_id
            && self.dialect.format.has(32)
        {
            message.set(32, acquirer);
        }
        message.set(42, format!("{:<15}", self.identity.merchant_id));
        message.set(70, information);
        message
    }

    /// The answer to the acquirer's own network management request.
    pub(super) fn network_answer(request: &Message) -> Message {
        let mut answer = Message::new(request.mti.answer());
        for number in [7, 11, 32, 70] {
            if let Some(value) = request.get(number) {
                answer.set_value(number, value.clone());
            }
        }
        answer.set(39, "00");
        answer
    }

    /// Whether a message answers a question: its type, trace and whatever else
    /// it repeats of the payment. If not, says which field differs.
    pub(super) fn agrees(&self, question: &Message, answer: &Message) -> Result<(), u8> {
        let payment_id = self.dialect.carry.payment_id;
        for number in [4, 11, 37, 41, 42, 49].into_iter().chain(payment_id) {
            let (asked, told) = (question.get(number), answer.get(number));
            let must = self.dialect.echoes.contains(&number);
            if told != asked && (must || told.is_some()) {
                return Err(number);
            }
        }
        Ok(())
    }

    /// What the answer to a payment or reversal means.
    pub(super) fn read(&self, operation: Operation, question: &Question, answer: &Message) -> GatewayAnswer {
        let Some(code) = answer.text(39) else {
            return GatewayAnswer::NoAnswer {
                detail: "an answer without a response code (field 39)".to_owned(),
            };
        };
        let detail = || {
            clean(
                &format!("response code {code} to {}", question.message.mti),
                MAX_DETAIL,
            )
        };
        let reversal = operation == Operation::Reverse;
        let told_only = reversal || operation == Operation::Advice;
        let codes = &self.dialect.codes;
        let approved = match codes.meaning(code) {
            Meaning::Approved => true,
            Meaning::NothingToReverse => reversal,
            Meaning::Declined => false,
            Meaning::Duplicate if question.repeat && told_only && codes.duplicate_acknowledges => true,
            Meaning::Duplicate => return GatewayAnswer::Conflict { detail: detail() },
            Meaning::Pending => return GatewayAnswer::Pending { retry_after_ms: None },
            Meaning::SlowDown => return GatewayAnswer::Throttled { retry_after_ms: None },
            Meaning::RefusesHub => return GatewayAnswer::RefusesHub { detail: detail() },
            Meaning::RefusesMessage => return GatewayAnswer::RefusesMessage { detail: detail() },
            Meaning::OutOfOrder => {
                return GatewayAnswer::Broken {
                    retry_after_ms: None,
                    detail: detail(),
                };
            }
        };
        let authorisation_code = answer
            .text(38)
            .map(|code| clean(code, 64))
            .filter(|code| !code.is_empty());
        GatewayAnswer::Final(GatewayResult {
            approved,
            response_code: clean(code, 8),
            authorisation_code,
            reference: Some(question.trace.rrn.clone()),
        })
    }
}

/// Reads answers in a dialect.
#[cfg(fuzzing)]
pub struct Reader(Mapping);

#[cfg(fuzzing)]
impl Reader {
    /// Of this dialect.
    pub fn new(dialect: Dialect) -> Self {
        let identity = Identity {
            merchant_id: "SHOP-001".to_owned(),
            terminal_id: "HUB1".to_owned(),
            acquirer_id: None,
            time_zone: jiff::tz::TimeZone::UTC,
        };
        Self(Mapping { dialect, identity })
    }

    /// The dialect.
    pub fn dialect(&self) -> &Dialect {
        &self.0.dialect
    }

    /// What any message is taken for, as an answer and as the acquirer's own
    /// question.
    pub fn read(&self, message: &Message) {
        fuzz(&self.0, message);
    }
}

#[cfg(fuzzing)]
fn fuzz(mapping: &Mapping, message: &Message) {
    let mut asked = Message::new(message.mti);
    for number in [4, 11] {
        if let Some(value) = message.get(number) {
            asked.set_value(number, value.clone());
        }
    }
    let _ = mapping.agrees(&asked, message);
    for operation in [Operation::AuthoriseOnline, Operation::Advice, Operation::Reverse] {
        let question = Question {
            message: asked.clone(),
            trace: Trace::of_entry(41, 1_790_000_000_000),
            repeat: true,
        };
        super::super::text::hold(&mapping.read(operation, &question, message));
    }
    if message.mti.asks() {
        let _ = mapping.frame(&Mapping::network_answer(message));
    }
}

#[cfg(test)]
mod tests;
