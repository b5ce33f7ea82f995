//! The words of the page for the wall, in its two languages.

use hub_core::policy::ceilings::Issuer;
use hub_protocol::{Cryptogram, DeviceClass, EntryMode, Funding, TransactionType, Verification};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::show::{Language, amount};
use crate::rehearsal::highest::{Row, Way};

/// Says something in one of the two languages.
#[derive(Clone, Copy)]
pub(super) struct In<'a> {
    pub(super) language: Language,
    pub(super) currency: &'a str,
}

impl In<'_> {
    pub(super) fn say<'t>(&self, french: &'t str, english: &'t str) -> &'t str {
        match self.language {
            Language::French => french,
            Language::English => english,
        }
    }

    /// With the thousands set apart: "1 000,00 EUR" (with the narrow space of
    /// French printing), "1,000.00 EUR".
    pub(super) fn money(&self, minor: u64) -> String {
        let plain = amount(minor, self.currency, self.language);
        let whole = plain.bytes().take_while(u8::is_ascii_digit).count();
        let separator = self.say("\u{202f}", ",");
        let mut text = String::with_capacity(plain.len() + 8);
        for (at, letter) in plain.char_indices() {
            if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
                text.push_str(separator);
            }
            text.push(letter);
        }
        text
    }

    /// "1 paiement", "2 paiements": the form for this number. French has the
    /// singular for 0 as well.
    pub(super) fn number<'t>(&self, number: u64, french: [&'t str; 2], english: [&'t str; 2]) -> &'t str {
        let ([one, many], single) = match self.language {
            Language::French => (french, number < 2),
            Language::English => (english, number == 1),
        };
        if single { one } else { many }
    }

    pub(super) fn money_or_no(&self, minor: Option<u64>) -> String {
        minor.map_or_else(|| self.say("non", "no").to_owned(), |minor| self.money(minor))
    }

    /// By the clock of a time zone, which is named.
    pub(super) fn instant(&self, ms: u64, zone: &TimeZone) -> String {
        let format = self.say("%d/%m/%Y à %H:%M %Z", "%d %B %Y, %H:%M %Z");
        i64::try_from(ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .map_or_else(
                || "?".to_owned(),
                |instant| instant.to_zoned(zone.clone()).strftime(format).to_string(),
            )
    }

    pub(super) fn span(&self, minutes: u64) -> String {
        let (hours, rest) = (minutes / 60, minutes % 60);
        match (hours, rest) {
            (0, _) => format!("{minutes} min"),
            // Of more than two days nobody counts the hours.
            (72.., 0) if hours.is_multiple_of(24) => {
                format!("{} {}", hours / 24, self.say("jours", "days"))
            }
            (_, 0) => format!("{hours} h"),
            _ => format!("{hours} h {rest} min"),
        }
    }

    pub(super) fn class(&self, class: &str) -> String {
        match class.parse() {
            Ok(DeviceClass::Mpos) => self.say("mPOS (téléphone et lecteur)", "mPOS (phone and reader)"),
            Ok(DeviceClass::Softpos) => self.say("SoftPOS (téléphone seul)", "SoftPOS (phone alone)"),
            Ok(DeviceClass::Terminal) => "Terminal",
            Err(_) => class,
        }
        .to_owned()
    }

    /// Several ways of one way of reading.
    pub(super) fn ways(&self, ways: &[Way]) -> String {
        let Some(first) = ways.first() else {
            return String::new();
        };
        let read = match first.entry_mode {
            EntryMode::Chip => self.say("Carte insérée", "Card inserted"),
            EntryMode::Contactless => self.say("Sans contact", "Contactless"),
            EntryMode::MagneticStripe => self.say("Piste magnétique", "Magnetic stripe"),
            EntryMode::Keyed => self.say("Numéro saisi", "Number typed in"),
        };
        const USUAL: [Verification; 4] = [
            Verification::None,
            Verification::Signature,
            Verification::OfflinePin,
            Verification::Cdcvm,
        ];
        let holds = |by: &Verification| ways.iter().any(|way| way.verification == *by);
        if USUAL.iter().all(holds) && ways.len() == USUAL.len() {
            let however = self.say(
                "avec ou sans code, quelle que soit la vérification",
                "with or without PIN, however verified",
            );
            return format!("{read}, {however}");
        }
        let verified: Vec<&str> = ways.iter().map(|way| self.verified(*way)).collect();
        format!("{read}, {}", verified.join(" / "))
    }

    fn verified(&self, way: Way) -> &'static str {
        match (way.verification, way.entry_mode) {
            (Verification::None, _) => self.say("sans code", "without PIN"),
            (Verification::Signature, _) => self.say("signature", "signature"),
            (Verification::OfflinePin, _) => self.say("avec code", "with PIN"),
            (Verification::OnlinePin, _) => self.say("code vérifié par la banque", "PIN checked by the bank"),
            (Verification::Cdcvm, EntryMode::Contactless) => self.say(
                "téléphone ou montre que le client a déverrouillé",
                "phone or watch that the customer has unlocked",
            ),
            (Verification::Cdcvm, _) => self.say(
                "vérifié sur l'appareil du client",
                "verified on the customer's device",
            ),
        }
    }

    pub(super) fn transaction_type(&self, transaction_type: TransactionType) -> &'static str {
        match transaction_type {
            TransactionType::Sale => self.say("vente", "sale"),
            TransactionType::Refund => self.say("remboursement", "refund"),
            TransactionType::CashBack => self.say("vente avec remise d'espèces", "sale with cash-back"),
        }
    }

    pub(super) fn funding(&self, funding: Funding) -> &'static str {
        match (self.language, funding) {
            (Language::French, Funding::Credit) => "crédit",
            (Language::French, Funding::Debit) => "débit",
            (Language::French, Funding::DeferredDebit) => "débit différé",
            (Language::French, Funding::Prepaid) => "prépayée",
            (Language::French, Funding::Unknown) => "type inconnu",
            (Language::English, Funding::DeferredDebit) => "deferred debit",
            (Language::English, Funding::Unknown) => "unknown type",
            (Language::English, other) => other.name(),
        }
    }

    pub(super) fn kind(&self, row: &Row) -> String {
        let mut parts = Vec::new();
        if let Some(fundings) = &row.fundings {
            let names: Vec<&str> = fundings.iter().map(|funding| self.funding(*funding)).collect();
            parts.push(names.join(", "));
        }
        parts.extend(row.issuer.map(|issuer| match issuer {
            Issuer::Domestic => self.say("carte nationale", "domestic card").to_owned(),
            Issuer::Foreign => self.say("carte étrangère", "foreign card").to_owned(),
        }));
        parts.extend(row.cryptogram.map(|cryptogram| {
            match cryptogram {
                Cryptogram::CardApproved => self
                    .say("acceptée par la puce", "approved by the chip")
                    .to_owned(),
                _ => self
                    .say("la puce demande la banque", "the chip asks for the bank")
                    .to_owned(),
            }
        }));
        match parts.as_slice() {
            [] if row.others => self.say("toutes les autres", "all others").to_owned(),
            [] => self.say("toutes", "all").to_owned(),
            parts => parts.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inn(language: Language) -> In<'static> {
        In {
            language,
            currency: "EUR",
        }
    }

    #[test]
    fn thousands_stand_apart_as_each_language_prints_them() {
        for (minor, french, english) in [
            (5, "0,05 EUR", "0.05 EUR"),
            (99_999, "999,99 EUR", "999.99 EUR"),
            (100_000, "1\u{202f}000,00 EUR", "1,000.00 EUR"),
            (123_456_789, "1\u{202f}234\u{202f}567,89 EUR", "1,234,567.89 EUR"),
        ] {
            assert_eq!(inn(Language::French).money(minor), french);
            assert_eq!(inn(Language::English).money(minor), english);
        }
        let yen = In {
            language: Language::English,
            currency: "JPY",
        };
        assert_eq!(yen.money(1_250_000), "1,250,000 JPY");
    }

    #[test]
    fn one_of_a_thing_is_not_said_in_the_plural() {
        let forms = |language, number| {
            inn(language)
                .number(number, ["paiement", "paiements"], ["payment", "payments"])
                .to_owned()
        };
        let french = [0, 1, 2].map(|number| forms(Language::French, number));
        assert_eq!(french, ["paiement", "paiement", "paiements"]);
        let english = [0, 1, 2].map(|number| forms(Language::English, number));
        assert_eq!(english, ["payments", "payment", "payments"]);
    }
}
