//! The report at the end of a run: for the store manager (French first,
//! English beside it), and as one JSON object for machines.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hub_protocol::{Currency, Decision, Reason};
use serde_json::{Value, json};

use crate::scene::Closing;
use crate::skipped::Skip;
use crate::tickets::Skipped;
use crate::told::{Answer, Told};

mod words;
use words::Sheet;

/// How many faults are spelled out.
const SHOWN: usize = 10;

/// Everything that is reported.
#[derive(Debug)]
pub struct Report {
    /// What was played: French, English.
    pub title: (String, String),
    /// The shop's currency.
    pub currency: Currency,
    /// How many devices.
    pub devices: usize,
    /// How many of them found the hub over mDNS.
    pub found_by_mdns: usize,
    /// Sales that were brought to a till.
    pub tickets: u64,
    /// Days, for a file of tickets.
    pub days: Option<usize>,
    /// Lines of the file that were not played.
    pub skipped: BTreeMap<Skip, Skipped>,
    /// What a reader has to know of how it was played: French, English.
    pub notes: Vec<(String, String)>,
    /// The books.
    pub closing: Closing,
}

/// The customers' side, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    online: (u64, u64),
    offline: (u64, u64),
    declined: BTreeMap<Reason, u64>,
    fallback: BTreeMap<Reason, u64>,
    refused: BTreeMap<&'static str, u64>,
    unanswered: u64,
}

impl Sums {
    fn of(told: &[Told]) -> Self {
        let mut sums = Self::default();
        for told in told {
            let approved = |sum: &mut (u64, u64)| {
                sum.0 += 1;
                sum.1 += told.amount_minor;
            };
            match &told.answer {
                Answer::Receipt(slip) => match slip.decision {
                    Decision::ApprovedOnline => approved(&mut sums.online),
                    Decision::ApprovedOffline => approved(&mut sums.offline),
                    Decision::Declined => *sums.declined.entry(slip.reason).or_default() += 1,
                    Decision::Fallback => *sums.fallback.entry(slip.reason).or_default() += 1,
                },
                Answer::Refused(code) => *sums.refused.entry(code.name()).or_default() += 1,
                Answer::None(_) => sums.unanswered += 1,
            }
        }
        sums
    }
}

impl Report {
    /// Whether nothing was lost, charged twice or past a ceiling, nothing was
    /// left unsent or unanswered, and the ledger verifies.
    pub fn clean(&self) -> bool {
        let unanswered = self
            .closing
            .told
            .iter()
            .any(|t| matches!(t.answer, Answer::None(_)));
        self.closing.verdict.clean() && self.closing.ledger.verified && !unanswered
    }

    /// One object for machines. Amounts are in minor units.
    pub fn to_json(&self) -> Value {
        let sums = Sums::of(&self.closing.told);
        let verdict = &self.closing.verdict;
        let by_reason = |counts: &BTreeMap<Reason, u64>| -> Value {
            counts
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                .collect()
        };
        let skipped: Value = self
            .skipped
            .iter()
            .map(|(skip, s)| {
                (
                    skip.name().to_owned(),
                    json!({ "count": s.count, "first_lines": s.lines }),
                )
            })
            .collect();
        let faults: Vec<Value> = verdict
            .faults()
            .take(SHOWN)
            .map(
                |f| json!({ "payment_id": f.payment_id.to_string(), "order_id": f.order_id, "what": f.what }),
            )
            .chain(
                verdict
                    .ceiling_breaches
                    .iter()
                    .take(SHOWN)
                    .map(|b| json!({ "payment_id": b.payment_id.to_string(), "what": b.what })),
            )
            .collect();
        let mut report = json!({
            "clean": self.clean(),
            "currency": self.currency.as_str(),
            "devices": self.devices,
            "devices_found_by_mdns": self.found_by_mdns,
            "tickets": self.tickets,
            "payments": self.closing.told.len(),
            "approved_online": sums.online.0,
            "approved_online_minor": sums.online.1,
            "approved_offline": sums.offline.0,
            "approved_offline_minor": sums.offline.1,
            "declined": by_reason(&sums.declined),
            "fallback": sums.fallback.values().sum::<u64>(),
            "fallback_by_reason": by_reason(&sums.fallback),
            "refused": sums.refused,
            "unanswered": sums.unanswered,
            "replayed": self.closing.replayed,
            "parked": self.closing.parked,
            "unsent": verdict.unsent(),
            "gateway_charges": verdict.gateway_charges,
            "gateway_charged_minor": verdict.gateway_minor,
            "gateway_reversed": verdict.gateway_reversed,
            "declined_at_replay": verdict.merchant_losses,
            "declined_at_replay_minor": verdict.merchant_loss_minor,
            "lost": verdict.lost.len(),
            "charged_twice": verdict.charged_twice.len(),
            "charged_untold": verdict.charged_untold.len(),
            "wrong_amount": verdict.wrong_amount.len(),
            "charged_unasked": verdict.unasked.len(),
            "ceiling_breaches": verdict.ceiling_breaches.len(),
            "faults": faults,
            "ledger_verified": self.closing.ledger.verified,
            "ledger_entries": self.closing.ledger.entries,
            "ledger_receipts_checked": self.closing.ledger.receipts,
            "outages": self.closing.outages,
            "hub_restarts": self.closing.restarts,
        });
        if let Some(days) = self.days {
            report["days"] = json!(days);
            report["skipped"] = skipped;
        }
        report
    }

    /// The report for people.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let sums = Sums::of(&self.closing.told);
        writeln!(out)?;
        writeln!(out, "{}", self.title.0)?;
        writeln!(out, "{}", self.title.1)?;
        writeln!(out)?;
        self.sold(&sums).print(out)?;
        self.refused(&sums).print(out)?;
        self.bank().print(out)?;
        self.checked(&sums).print(out)?;
        for (french, english) in &self.notes {
            writeln!(out, "  {french}\n  {english}\n")?;
        }
        self.print_faults(out)?;
        let (french, english) = if self.clean() {
            (
                "RIEN N’EST PERDU, RIEN N’EST DÉBITÉ DEUX FOIS, AUCUN PLAFOND N’EST DÉPASSÉ.",
                "Nothing lost, nothing charged twice, no ceiling passed.",
            )
        } else {
            (
                "LES COMPTES NE SONT PAS JUSTES : voir ci-dessus.",
                "The books do not agree: see above.",
            )
        };
        writeln!(out, "{french}\n{english}")
    }

    fn sold(&self, sums: &Sums) -> Sheet {
        let c = self.currency;
        let mut sheet = Sheet::new("Ce qui a été vendu", "What was sold");
        if let Some(days) = self.days {
            sheet.count("Jours joués", "Days played", days as u64);
        }
        sheet.count(
            "Clients à la caisse, carte en main",
            "Customers at the till, card in hand",
            self.tickets,
        );
        sheet.amount(
            "Accepté par la banque",
            "Approved by the bank",
            sums.online.0,
            sums.online.1,
            c,
        );
        sheet.amount(
            "Accepté sans la banque (hors ligne)",
            "Approved without the bank (offline)",
            sums.offline.0,
            sums.offline.1,
            c,
        );
        sheet.count("Refusé", "Declined", sums.declined.values().sum());
        sheet.count(
            "Renvoyé vers un autre geste",
            "Sent another way",
            sums.fallback.values().sum(),
        );
        for (skip, skipped) in &self.skipped {
            let (french, english) = skip.text();
            let lines: Vec<String> = skipped.lines.iter().map(u64::to_string).collect();
            sheet.row(
                &format!("Non joué : {french}"),
                &format!("Not played: {english} (lines {}…)", lines.join(", ")),
                &skipped.count.to_string(),
                "",
            );
        }
        sheet
    }

    fn refused(&self, sums: &Sums) -> Sheet {
        let mut sheet = Sheet::new(
            "Ce qui a été refusé, et ce que le caissier a lu",
            "What was refused, and why",
        );
        for (reason, count) in sums.declined.iter().chain(&sums.fallback) {
            sheet.count(reason.text_fr(), reason.text_en(), *count);
        }
        for (code, count) in &sums.refused {
            sheet.count("Message non conforme", code, *count);
        }
        if sums.unanswered > 0 {
            sheet.count(
                "Appareil resté sans réponse",
                "Device without an answer",
                sums.unanswered,
            );
        }
        sheet
    }

    fn bank(&self) -> Sheet {
        let verdict = &self.closing.verdict;
        let c = self.currency;
        let mut sheet = Sheet::new(
            "Ce que dit le livre de la banque",
            "What the bank's own book says",
        );
        sheet.amount(
            "Débité aux clients",
            "Charged to customers",
            verdict.gateway_charges,
            verdict.gateway_minor,
            c,
        );
        sheet.count("Transmis après coup", "Sent on afterwards", self.closing.replayed);
        sheet.amount(
            "Refusé après coup : perte du magasin",
            "Declined afterwards: the shop's loss",
            verdict.merchant_losses,
            verdict.merchant_loss_minor,
            c,
        );
        sheet.count(
            "Débit annulé (client averti du refus)",
            "Charge undone (customer was told no)",
            verdict.gateway_reversed,
        );
        sheet.count(
            "En attente d’une personne",
            "Waiting for a person",
            self.closing.parked,
        );
        if verdict.unsent() > 0 {
            sheet.count("Pas encore transmis", "Not sent yet", verdict.unsent());
        }
        sheet
    }

    fn checked(&self, sums: &Sums) -> Sheet {
        let verdict = &self.closing.verdict;
        let closing = &self.closing;
        let mut sheet = Sheet::new("Contrôle des comptes", "The books compared");
        sheet.count("Paiements perdus", "Payments lost", verdict.lost.len() as u64);
        sheet.count(
            "Clients débités deux fois",
            "Customers charged twice",
            verdict.charged_twice.len() as u64,
        );
        sheet.count(
            "Plafonds dépassés",
            "Ceilings passed",
            verdict.ceiling_breaches.len() as u64,
        );
        let others = verdict.charged_untold.len() + verdict.wrong_amount.len() + verdict.unasked.len();
        sheet.count(
            "Autres écarts",
            "Other differences",
            others as u64 + sums.unanswered,
        );
        let ledger = &closing.ledger;
        sheet.row(
            "Journal vérifié avec la clé publique",
            &format!(
                "Ledger verified ({} entries, {} receipts)",
                ledger.entries, ledger.receipts
            ),
            if ledger.verified { "oui / yes" } else { "NON / NO" },
            "",
        );
        sheet.count("Coupures de la ligne", "Outages", closing.outages as u64);
        sheet.count(
            "Arrêts brutaux du boîtier (kill -9)",
            "Hub killed (kill -9)",
            u64::from(closing.restarts),
        );
        sheet.row(
            "Appareils",
            &format!("Devices ({} found the hub over mDNS)", self.found_by_mdns),
            &self.devices.to_string(),
            "",
        );
        sheet
    }

    fn print_faults(&self, out: &mut dyn Write) -> io::Result<()> {
        let verdict = &self.closing.verdict;
        for fault in verdict.faults().take(SHOWN) {
            writeln!(
                out,
                "  ! {} ({}): {}",
                fault.order_id, fault.payment_id, fault.what
            )?;
        }
        for breach in verdict.ceiling_breaches.iter().take(SHOWN) {
            writeln!(out, "  ! {}: {}", breach.payment_id, breach.what)?;
        }
        if let Some(fault) = &self.closing.ledger.fault {
            writeln!(out, "  ! {fault}")?;
        }
        let unanswered = self
            .closing
            .told
            .iter()
            .filter(|t| matches!(t.answer, Answer::None(_)));
        for told in unanswered.take(SHOWN) {
            if let Answer::None(why) = &told.answer {
                writeln!(out, "  ! {} ({}): {why}", told.order_id, told.payment_id)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
