//! `hubctl policy try`: payments from a file through the real core, without
//! any hub.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use comfy_table::Table;
use hub_core::policy::Policy;
use hub_protocol::{Decision, PaymentId, RefusalCode};
use serde::Serialize;

use super::super::failure::Failure;
use super::super::output::{Output, table};
use super::super::show::{Language, amount, count, instant};
use super::Loaded;
use crate::rehearsal::{Answer, Decided, Fault, Line, Pay, Reader, Shop, Step, rule_key};

/// The most faults that are reported.
const MOST_FAULTS: usize = 20;

/// A table for people has so many rows; then another begins, so that a long
/// file costs no memory.
const ROWS: usize = 1000;

/// One decision.
#[derive(Serialize)]
struct Tried {
    payment_id: PaymentIdText,
    decision: &'static str,
    reason: &'static str,
    /// The key of the policy that decided.
    rule: Option<String>,
    effective_ceiling_minor: Option<u64>,
    /// Points; nothing if the policy weighs no risks.
    score: Option<u64>,
    /// After the decision.
    exposure_store_minor: u64,
}

struct PaymentIdText(PaymentId);

impl Serialize for PaymentIdText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What the file comes to.
#[derive(Default)]
struct Sums {
    payments: u64,
    approved_offline: u64,
    approved_offline_minor: u64,
    approved_online: u64,
    declined: u64,
    fallback: u64,
    again: u64,
    conflicts: u64,
    refused: u64,
    highest_minor: u64,
}

pub(in super::super) fn try_out(
    output: &Output,
    Loaded { policy, text, .. }: Loaded,
    file: &Path,
) -> Result<(), Failure> {
    output.lines();
    let failed = |error: io::Error| Failure::file(file, "read", error);
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(failed)?))
    };
    let mut reader = Reader::new(input, policy.currency, policy.not_before_ms);
    let mut faults: Vec<Fault> = Vec::new();
    let mut run = Run::new(output, policy, &text)?;
    while let Some(line) = reader.read().map_err(failed)? {
        // After a fault the rest is only read, to find the others.
        match line {
            Err(found) => faults.extend(found),
            Ok(line) if faults.is_empty() => match run.line(&line)? {
                Ok(()) => {}
                Err(message) => faults.push(Fault {
                    line: line.number,
                    message,
                }),
            },
            Ok(_) => {}
        }
        if faults.len() >= MOST_FAULTS {
            break;
        }
    }
    if faults.is_empty() {
        return run.finish();
    }
    let more = faults.len() >= MOST_FAULTS;
    faults.truncate(MOST_FAULTS);
    let mut lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}:{fault}", file.display()))
        .collect();
    if more {
        lines.push("there may be more".to_owned());
    }
    Err(Failure::Unverified(format!(
        "these are not payments to try\n{}",
        lines.join("\n")
    )))
}

struct Run<'a> {
    output: &'a Output,
    policy: Policy,
    language: Language,
    shop: Shop,
    started: bool,
    sums: Sums,
    table: Table,
    rows: usize,
}

impl<'a> Run<'a> {
    fn new(output: &'a Output, policy: Policy, text: &[u8]) -> Result<Self, Failure> {
        let shop =
            Shop::new(text, policy.clone()).map_err(|refused| Failure::Refused(refused.to_string()))?;
        Ok(Self {
            output,
            policy,
            language: Language::of_environment(),
            shop,
            started: false,
            sums: Sums::default(),
            table: header(),
            rows: 0,
        })
    }

    /// What a line does; the inner error is what is wrong with the line.
    fn line(&mut self, line: &Line) -> Result<Result<(), String>, Failure> {
        self.shop.until(line.at_ms);
        if !std::mem::replace(&mut self.started, true) {
            // The outage begins with the first line, however long after the
            // policy's beginning that is.
            self.shop.go(false);
        }
        if let Step::Pay(pay) = &line.step {
            let answer = self.shop.pay(pay);
            self.decided(line, pay, &answer)?;
            return Ok(Ok(()));
        }
        Ok(self.shop.step(&line.step).map_err(|refused| refused.0))
    }

    fn decided(&mut self, line: &Line, pay: &Pay, answer: &Answer) -> Result<(), Failure> {
        let exposure_store_minor = self.shop.exposure_minor();
        self.sums.add(pay, answer, exposure_store_minor);
        let payment_id = PaymentIdText(pay.request.payment_id);
        let tried = match answer {
            Answer::Refused(code) => Tried {
                payment_id,
                decision: match code {
                    RefusalCode::PaymentIdConflict => "conflict",
                    _ => "refused",
                },
                reason: code.name(),
                rule: None,
                effective_ceiling_minor: None,
                score: None,
                exposure_store_minor,
            },
            Answer::Decided(decided) => Tried {
                payment_id,
                decision: decided.record.decision.name(),
                reason: decided.record.reason.name(),
                rule: self.rule(pay, decided),
                effective_ceiling_minor: decided
                    .assessed
                    .as_ref()
                    .and_then(|assessed| assessed.effective_ceiling_minor),
                score: decided.record.score.as_ref().map(|score| u64::from(score.points)),
                exposure_store_minor,
            },
        };
        if self.output.is_json() {
            return self.output.line(&tried);
        }
        self.add_row(line, pay, &tried);
        if self.rows == ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn rule(&self, pay: &Pay, decided: &Decided) -> Option<String> {
        rule_key(
            decided.record.reason,
            &pay.request,
            pay.class,
            &self.policy,
            decided.assessed.as_ref(),
        )
    }

    fn add_row(&mut self, line: &Line, pay: &Pay, tried: &Tried) {
        let currency = pay.request.currency.to_string();
        let money = |minor| amount(minor, &currency, self.language);
        let of_policy = |minor| amount(minor, self.policy.currency.as_str(), self.language);
        self.table.add_row([
            line.number.to_string(),
            instant(self.shop.now_ms()),
            pay.device.clone(),
            pay.request.card.token.clone(),
            money(pay.request.amount_minor()),
            tried.decision.to_owned(),
            tried.reason.to_owned(),
            tried.rule.clone().unwrap_or_default(),
            tried.effective_ceiling_minor.map_or_else(String::new, of_policy),
            of_policy(tried.exposure_store_minor),
        ]);
        self.rows += 1;
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.rows = 0;
        let rows = std::mem::replace(&mut self.table, header());
        self.output.text(&rows.to_string())
    }

    fn finish(mut self) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        if self.rows > 0 {
            self.flush()?;
        }
        let money = |minor| amount(minor, self.policy.currency.as_str(), self.language);
        let sums = &self.sums;
        let mut parts = vec![
            format!(
                "{} approved offline ({})",
                sums.approved_offline,
                money(sums.approved_offline_minor)
            ),
            format!("{} approved online", sums.approved_online),
            format!("{} declined", sums.declined),
            format!("{} sent another way", sums.fallback),
        ];
        if sums.again > 0 {
            parts.push(format!("{} asked again", sums.again));
        }
        if sums.conflicts > 0 {
            parts.push(count(sums.conflicts, "conflict", "conflicts"));
        }
        if sums.refused > 0 {
            parts.push(format!("{} refused", sums.refused));
        }
        self.output.text(&format!(
            "{}: {}; exposure {} at the end, {} at most",
            count(sums.payments, "payment", "payments"),
            parts.join(", "),
            money(self.shop.exposure_minor()),
            money(sums.highest_minor),
        ))
    }
}

impl Sums {
    fn add(&mut self, pay: &Pay, answer: &Answer, exposure_minor: u64) {
        self.payments += 1;
        self.highest_minor = self.highest_minor.max(exposure_minor);
        match answer {
            Answer::Refused(RefusalCode::PaymentIdConflict) => self.conflicts += 1,
            Answer::Refused(_) => self.refused += 1,
            Answer::Decided(decided) if decided.again => self.again += 1,
            Answer::Decided(decided) => match decided.record.decision {
                Decision::ApprovedOnline => self.approved_online += 1,
                Decision::ApprovedOffline => {
                    self.approved_offline += 1;
                    self.approved_offline_minor += pay.request.amount_minor();
                }
                Decision::Declined => self.declined += 1,
                Decision::Fallback => self.fallback += 1,
            },
        }
    }
}

fn header() -> Table {
    table([
        "Line", "At", "Device", "Card", "Amount", "Decision", "Reason", "Rule", "Ceiling", "Exposure",
    ])
}
