//! The words of the page for the wall, in its two languages.

use hub_core::policy::ceilings::Issuer;
use hub_protocol::{Cryptogram, DeviceClass, EntryMode, Funding, TransactionType, Verification};
use jiff::Timestamp;

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

    pub(super) fn money(&self, minor: u64) -> String {
        amount(minor, self.currency, self.language)
    }

    pub(super) fn money_or_no(&self, minor: Option<u64>) -> String {
        minor.map_or_else(|| self.say("non", "no").to_owned(), |minor| self.money(minor))
    }

    pub(super) fn instant(&self, ms: u64) -> String {
        let format = self.say("%d/%m/%Y à %H:%M UTC", "%d %B %Y, %H:%M UTC");
        i64::try_from(ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| "?".to_owned(), |instant| instant.strftime(format).to_string())
    }

    pub(super) fn span(&self, minutes: u64) -> String {
        let (hours, rest) = (minutes / 60, minutes % 60);
        match (hours, rest) {
            (0, _) => format!("{minutes} min"),
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

    pub(super) fn way(&self, way: Way) -> String {
        let read = match way.entry_mode {
            EntryMode::Chip => self.say("Carte insérée", "Card inserted"),
            EntryMode::Contactless => self.say("Sans contact", "Contactless"),
            EntryMode::MagneticStripe => self.say("Piste magnétique", "Magnetic stripe"),
            EntryMode::Keyed => self.say("Numéro saisi", "Number typed in"),
        };
        let verified = match way.verification {
            Verification::None => self.say("sans code", "without PIN"),
            Verification::Signature => self.say("signature", "signature"),
            Verification::OfflinePin => self.say("avec code", "with PIN"),
            Verification::OnlinePin => self.say("code vérifié par la banque", "PIN checked by the bank"),
            Verification::Cdcvm => self.say(
                "téléphone ou montre, déverrouillé par le client",
                "phone or watch, unlocked by the customer",
            ),
        };
        format!("{read}, {verified}")
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
