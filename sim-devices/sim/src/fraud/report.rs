//! What people and machines read.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ColumnConstraint, Table};
use serde_json::{Value, json};

use super::measure::{Found, Measured, Seeds, Tally};
use super::scenarios::Scenario;
use hub_protocol::AnomalyKind;

/// One policy and what it came to.
pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    pub(super) measured: &'a Measured,
}

/// The tables: attacks, then honest customers. The last policy is the one that
/// is measured. `refunds` are those that were played with refund abuse only.
pub(super) fn text(rows: &[Row<'_>], refunds: &[Row<'_>], seeds: Seeds) -> String {
    let Some(watched) = rows.last() else {
        return String::new();
    };
    format!(
        "Seeds {seeds}: {} shop days, each without fraud and with one attack of each kind.\n\n\
         Attacks under {}:\n\n{}\n\n\
         What an attack was let through on average, the most of one, and the share of the first \
         policy's:\n\n{}\n\n\
         Honest customers:\n\n{}\n\n\
         Payments under {} at which each anomaly was found:\n\n{}\n\n\
         Refunds, on days without fraud and with refund abuse:\n\n{}\n",
        watched.measured.honest.days,
        watched.name,
        detection(watched.measured),
        money(rows),
        honest(rows),
        watched.name,
        kinds(watched.measured),
        refund_table(rows, refunds)
    )
}

/// What detectors saw.
fn detection(measured: &Measured) -> Table {
    let mut table = table(&[
        "attack",
        "attacks",
        "seen",
        "at its own payments",
        "alarms true",
        "payments tried",
        "flagged",
        "flags true",
        "refused",
        "let through before the first flag",
    ]);
    let scenarios = measured.scenarios.iter();
    let named = scenarios.map(|(scenario, tally)| (scenario.name(), *tally));
    for (name, tally) in named.chain([("all", measured.fraud())]) {
        table.add_row([
            name.to_owned(),
            tally.incidents.to_string(),
            percent(tally.incidents_flagged_at_device, tally.incidents),
            percent(tally.incidents_flagged, tally.incidents),
            percent(tally.alarms_true, tally.alarms),
            tally.fraud.to_string(),
            percent(tally.fraud_flagged, tally.fraud),
            percent(
                tally.fraud_flagged,
                tally.fraud_flagged + tally.bystanders_flagged + tally.honest_flagged,
            ),
            percent(tally.fraud - tally.fraud_approved, tally.fraud),
            each(tally.let_through_unflagged, tally.incidents),
        ]);
    }
    table
}

/// What was let through, an attack, one column a policy.
fn money(rows: &[Row<'_>]) -> Table {
    let mut heads = vec!["an attack gets"];
    heads.extend(rows.iter().map(|row| row.name));
    let mut table = table(&heads);
    let Some(first) = rows.first() else {
        return table;
    };
    let line = |name: &str, of: &dyn Fn(&Measured) -> Tally| {
        let base = of(first.measured).let_through;
        let mut cells = vec![name.to_owned()];
        cells.extend(rows.iter().map(|row| {
            let tally = of(row.measured);
            format!(
                "{}, {}, {}",
                each(tally.let_through, tally.incidents),
                euros(tally.let_through_most),
                percent(tally.let_through, base)
            )
        }));
        cells
    };
    for (place, (scenario, _)) in first.measured.scenarios.iter().enumerate() {
        let of = |measured: &Measured| measured.scenarios.get(place).map_or_else(Tally::default, |s| s.1);
        table.add_row(line(scenario.name(), &of));
    }
    table.add_row(line("all", &Measured::fraud));
    table
}

fn honest(rows: &[Row<'_>]) -> Table {
    let mut table = table(&[
        "policy",
        "days",
        "payments",
        "flagged",
        "bystanders",
        "flagged",
        "asked offline",
        "approved",
        "alarms a day",
    ]);
    for row in rows {
        let kinds = [
            ("without fraud", row.measured.honest),
            ("with an attack", row.measured.fraud()),
            ("all", row.measured.all()),
        ];
        for (kind, tally) in kinds {
            table.add_row([
                row.name.to_owned(),
                kind.to_owned(),
                tally.honest.to_string(),
                percent(tally.honest_flagged, tally.honest),
                tally.bystanders.to_string(),
                percent(tally.bystanders_flagged, tally.bystanders),
                tally.honest_offline.to_string(),
                percent(tally.honest_approved, tally.honest_offline),
                hundredths(tally.alarms - tally.alarms_true, tally.days),
            ]);
        }
    }
    table
}

/// Which detector found what.
fn kinds(measured: &Measured) -> Table {
    let mut table = table(&[
        "anomaly",
        "attackers'",
        "bystanders'",
        "honest, with an attack",
        "honest, without fraud",
    ]);
    let (fraud, honest) = (measured.fraud(), measured.honest);
    for (place, kind) in AnomalyKind::ALL.iter().enumerate() {
        let of = |found: &Found| found.get(place).copied().unwrap_or(0).to_string();
        table.add_row([
            kind.to_string(),
            of(&fraud.fraud_found),
            of(&fraud.bystanders_found),
            of(&fraud.honest_found),
            of(&honest.honest_found),
        ]);
    }
    table
}

/// What refunds cost and bring, where they are taken offline and where not.
fn refund_table(rows: &[Row<'_>], refunds: &[Row<'_>]) -> Table {
    let mut table = table(&[
        "policy",
        "seen",
        "an attack gets",
        "at most",
        "of the first",
        "honest refunds",
        "flagged",
        "offline",
        "approved",
        "honest payments flagged",
    ]);
    let attacks = |row: &Row<'_>| {
        let mut scenarios = row.measured.scenarios.iter();
        scenarios
            .find(|(scenario, _)| *scenario == Scenario::RefundAbuse)
            .map_or_else(Tally::default, |(_, tally)| *tally)
    };
    let base = rows.first().map_or(0, |row| attacks(row).let_through);
    for row in rows.iter().chain(refunds) {
        let attacks = attacks(row);
        let mut all = row.measured.honest;
        all.add(&attacks);
        table.add_row([
            row.name.to_owned(),
            percent(attacks.incidents_flagged_at_device, attacks.incidents),
            each(attacks.let_through, attacks.incidents),
            euros(attacks.let_through_most),
            percent(attacks.let_through, base),
            all.refunds.to_string(),
            percent(all.refunds_flagged, all.refunds),
            all.refunds_offline.to_string(),
            percent(all.refunds_approved, all.refunds_offline),
            percent(all.honest_flagged, all.honest),
        ]);
    }
    table
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(heads.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// For machines: the figures as they are, amounts in minor units.
pub(super) fn json(rows: &[Row<'_>], refunds: &[Row<'_>], seeds: Seeds, tuned_on: Option<Seeds>) -> Value {
    let policies: Vec<Value> = rows
        .iter()
        .chain(refunds)
        .map(|row| {
            let scenarios = row.measured.scenarios.iter();
            let scenarios: serde_json::Map<String, Value> = scenarios
                .map(|(scenario, tally)| (scenario.name().to_owned(), figures(tally)))
                .collect();
            json!({
                "policy": row.name,
                "honest": figures(&row.measured.honest),
                "scenarios": scenarios,
                "all": figures(&row.measured.all()),
            })
        })
        .collect();
    json!({
        "seeds": seeds.to_string(),
        "tuned_on": tuned_on.map(|seeds| seeds.to_string()),
        "policies": policies,
    })
}

fn figures(tally: &Tally) -> Value {
    let by_kind = |found: &Found| -> serde_json::Map<String, Value> {
        let kinds = AnomalyKind::ALL.iter().zip(found);
        kinds
            .map(|(kind, found)| (kind.to_string(), json!(found)))
            .collect()
    };
    json!({
        "days": tally.days,
        "honest": tally.honest,
        "honest_flagged": tally.honest_flagged,
        "bystanders": tally.bystanders,
        "bystanders_flagged": tally.bystanders_flagged,
        "honest_offline": tally.honest_offline,
        "honest_approved": tally.honest_approved,
        "refunds": tally.refunds,
        "refunds_flagged": tally.refunds_flagged,
        "refunds_offline": tally.refunds_offline,
        "refunds_approved": tally.refunds_approved,
        "fraud": tally.fraud,
        "fraud_flagged": tally.fraud_flagged,
        "fraud_approved": tally.fraud_approved,
        "incidents": tally.incidents,
        "incidents_flagged": tally.incidents_flagged,
        "incidents_flagged_at_device": tally.incidents_flagged_at_device,
        "alarms": tally.alarms,
        "alarms_true": tally.alarms_true,
        "let_through_minor": tally.let_through,
        "let_through_unflagged_minor": tally.let_through_unflagged,
        "let_through_most_minor": tally.let_through_most,
        "honest_found": by_kind(&tally.honest_found),
        "bystanders_found": by_kind(&tally.bystanders_found),
        "fraud_found": by_kind(&tally.fraud_found),
    })
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{} %", hundredths(part * 100, whole)),
    }
}

/// A quotient with two decimals, cut off.
fn hundredths(part: u64, whole: u64) -> String {
    let of = part * 100 / whole.max(1);
    format!("{}.{:02}", of / 100, of % 100)
}

fn each(minor: u64, incidents: u64) -> String {
    euros(minor / incidents.max(1))
}

fn euros(minor: u64) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}
