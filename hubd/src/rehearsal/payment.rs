//! The payment that a line asks for.

use std::io::BufRead;

use hub_protocol::{
    CardExpiry, CardFacts, CardScheme, Cryptogram, DeviceClass, EntryMode, Funding, MAX_AMOUNT_MINOR,
    PaymentId, PaymentRequest, SealedCard, Terms, TransactionType, Verification,
};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::lines::{GatewaySays, Pay, Reader, instant};

impl<R: BufRead> Reader<R> {
    pub(super) fn payment(&self, fields: &Fields<'_>, at_ms: u64) -> Option<Pay> {
        let expected = format!("a whole number of minor units (cents) from 1 to {MAX_AMOUNT_MINOR}");
        let amount = fields.read("amount_minor", &expected, |value| {
            value
                .as_u64()
                .filter(|amount| (1..=MAX_AMOUNT_MINOR).contains(amount))
        });
        let amount = fields.required("amount_minor", amount, &expected);
        let payment_id = Self::id(fields).unwrap_or_else(|| id_of_line(self.number));
        let currency = fields.read("currency", "three capital letters (ISO 4217)", |value| {
            value.as_str()?.parse().ok()
        });
        let order_id = fields.text("order_id");
        let (card, expiry) = card(fields);
        let entry_mode = fields
            .name(
                "entry_mode",
                &names(EntryMode::ALL.iter().map(|mode| mode.name())),
            )
            .unwrap_or(EntryMode::Chip);
        let usual = match entry_mode {
            EntryMode::Chip => Verification::OfflinePin,
            _ => Verification::None,
        };
        let verification = fields
            .name("verification", &names(Verification::ALL.iter().map(|v| v.name())))
            .unwrap_or(usual);
        let cryptogram = fields
            .name("cryptogram", &names(Cryptogram::ALL.iter().map(|c| c.name())))
            .unwrap_or(Cryptogram::AsksOnline);
        let (device, class) = self.device(fields)?;
        let number = fields.read("device_sequence", "a whole number from 0", Value::as_u64);
        let device_time_ms = instant(fields, "device_time");
        let sent = self.payments.get(&payment_id);
        let next = self.devices.get(&device).map_or(0, |device| device.requests) + 1;
        let gateway = fields.name("gateway", &GatewaySays::NAMES).unwrap_or_default();
        let overridden = Self::is_overridden(fields);
        let terms = terms(fields, expiry, overridden);
        let sealed_card = SealedCard {
            salt: payment_id.0,
            blob: payment_id.0.to_vec(),
        };
        let request = PaymentRequest {
            payment_id,
            device_sequence: number.or(sent.map(|sent| sent.device_sequence)).unwrap_or(next),
            device_time_ms: device_time_ms
                .or(sent.map(|sent| sent.device_time_ms))
                .unwrap_or(at_ms),
            amount: amount?.into(),
            currency: currency.unwrap_or(self.currency),
            order_id: order_id.unwrap_or_else(|| "try".to_owned()),
            card: card?,
            entry_mode,
            verification,
            cryptogram,
            sealed_card_digest: sealed_card.digest(),
            terms,
        };
        if let Err(refusal) = request.check() {
            fields.fault(as_in_the_line(&refusal.text));
            return None;
        }
        Some(Pay {
            request,
            sealed_card,
            device,
            class,
            gateway,
            overridden,
        })
    }

    /// A device has the class that its first line gives it.
    pub(super) fn device(&self, fields: &Fields<'_>) -> Option<(String, DeviceClass)> {
        let said: Option<DeviceClass> =
            fields.name("class", &names(DeviceClass::ALL.iter().map(|class| class.name())));
        let name = fields.read("device", "a name of 1 to 64 bytes, or a number,", |value| {
            let name = match value {
                Value::String(name) => name.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            (1..=64).contains(&name.len()).then_some(name)
        });
        let name = name.unwrap_or_else(|| said.unwrap_or(DeviceClass::Mpos).name().to_owned());
        let known = self.devices.get(&name).map(|device| device.class);
        if let (Some(known), Some(said)) = (known, said)
            && known != said
        {
            fields.fault(format!(
                "class: device {name} is of class {known} in a line above"
            ));
            return None;
        }
        let class = known.or(said).or_else(|| name.parse().ok());
        Some((name, class.unwrap_or(DeviceClass::Mpos)))
    }
}

/// What wire version 3 states; nothing if the line names none of it.
fn terms(fields: &Fields<'_>, card_expiry: Option<CardExpiry>, overridden: bool) -> Option<Box<Terms>> {
    let transaction_type: Option<TransactionType> = fields.name(
        "transaction_type",
        &names(TransactionType::ALL.iter().map(|t| t.name())),
    );
    let cash_back_minor = fields.read("cash_back_minor", "minor units (cents) from 1", Value::as_u64);
    let staff = fields.text("staff");
    let training = fields.read("training", "true or false", Value::as_bool);
    let stated = overridden
        || transaction_type.is_some()
        || cash_back_minor.is_some()
        || staff.is_some()
        || training.is_some()
        || card_expiry.is_some();
    stated.then(|| {
        Box::new(Terms {
            cash_back_minor,
            staff,
            training: training.unwrap_or(false),
            card_expiry,
            ..Terms::of(transaction_type.unwrap_or(TransactionType::Sale))
        })
    })
}

/// The card, and its last month if the line says it.
fn card(fields: &Fields<'_>) -> (Option<CardFacts>, Option<CardExpiry>) {
    let expected = "a token, or an object with a token";
    let object = match fields.value("card") {
        Some(Value::String(token)) => Map::from_iter([("token".to_owned(), Value::String(token.clone()))]),
        Some(Value::Object(object)) => object.clone(),
        None => {
            return (fields.required("card", None, expected), None);
        }
        Some(_) => {
            fields.fault(format!("card: {expected} expected"));
            return (None, None);
        }
    };
    let given = fields.inner(object, "card.");
    let token = given.text("token");
    let country = given.text("issuer_country");
    let token = given.required("token", token, "1 to 64 printable ASCII characters");
    let card = CardFacts {
        token: token.clone().unwrap_or_default(),
        scheme: given
            .name(
                "scheme",
                &names(CardScheme::ALL.iter().map(|scheme| scheme.name())),
            )
            .unwrap_or(CardScheme::Cb),
        funding: given
            .name(
                "funding",
                &names(Funding::ALL.iter().map(|funding| funding.name())),
            )
            .unwrap_or(Funding::Debit),
        issuer_country: match given.has("issuer_country") {
            true => country,
            false => Some("FR".to_owned()),
        },
        bin: given.text("bin"),
        last4: given.text("last4"),
    };
    let expiry = given.read("expiry", "year and month, such as \"2711\",", |value| {
        value.as_str()?.parse().ok()
    });
    given.finish();
    // An empty one is the request's own fault, as a device would be told.
    (token.map(|_| card), expiry)
}

pub(super) fn names(all: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    all.collect()
}

/// What the protocol says of a field, with the name that a line has for it.
fn as_in_the_line(text: &str) -> String {
    const NAMES: [(&str, &str); 3] = [
        ("terms.cash_back:", "cash_back_minor:"),
        ("terms.staff:", "staff:"),
        ("terms.card_expiry:", "card.expiry:"),
    ];
    let renamed = NAMES
        .iter()
        .find_map(|(wire, line)| Some(format!("{line}{}", text.strip_prefix(wire)?)));
    renamed.unwrap_or_else(|| text.to_owned())
}

/// The id of a payment that has none of its own: the digits of the line's
/// number, as people read it.
fn id_of_line(number: u64) -> PaymentId {
    let digits = number.to_string();
    let as_read = digits
        .bytes()
        .fold(0, |id: u128, digit| id << 4 | u128::from(digit - b'0'));
    PaymentId(as_read.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_without_an_id_has_the_digits_of_its_line() {
        for (number, id) in [
            (7, "00000000-0000-0000-0000-000000000007"),
            (10, "00000000-0000-0000-0000-000000000010"),
            (16, "00000000-0000-0000-0000-000000000016"),
            (u64::MAX, "00000000-0000-1844-6744-073709551615"),
        ] {
            assert_eq!(id_of_line(number).to_string(), id);
        }
    }
}
