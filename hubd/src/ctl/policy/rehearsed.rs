//! What a rehearsal found, in tables.

use hub_core::policy::Policy;

use super::super::output::table;
use super::super::show::{Language, amount, count, instant};
use super::rehearse::{Report, ShownDecision};

pub(super) fn described(report: &Report, policy: &Policy, language: Language) -> String {
    let (Some(first_ms), Some(last_ms)) = (report.first_ms, report.last_ms) else {
        return format!("the ledger has no entries since {}", instant(report.since_ms));
    };
    let money = |minor| amount(minor, policy.currency.as_str(), language);
    let mut text = format!(
        "Policy version {} on the ledger from {} until {}\n{}, {} of them decided offline\n",
        report.policy_version,
        instant(first_ms),
        instant(last_ms),
        count(report.payments, "payment", "payments"),
        report.decided_offline,
    );
    if let Some(store) = &report.other_store {
        text += &format!(
            "This shop is {store}; the policy is for {}, and would not hold here.\n",
            policy.stores.join(", ")
        );
    }
    let mut sums = table(["", "As it was", "Under the policy"]);
    let (before, after) = (&report.before, &report.under_policy);
    for (name, before, after) in [
        (
            "approved offline",
            format!(
                "{} ({})",
                before.approved_offline,
                money(before.approved_offline_minor)
            ),
            format!(
                "{} ({})",
                after.approved_offline,
                money(after.approved_offline_minor)
            ),
        ),
        (
            "sent another way",
            before.fallback.to_string(),
            after.fallback.to_string(),
        ),
        (
            "declined",
            before.declined.to_string(),
            after.declined.to_string(),
        ),
        (
            "highest exposure of the store",
            money(before.highest_exposure_minor),
            money(after.highest_exposure_minor),
        ),
        (
            "approved, and declined by the bank later",
            format!(
                "{} ({})",
                before.declined_at_replay,
                money(before.declined_at_replay_minor)
            ),
            format!(
                "{} ({})",
                after.declined_at_replay,
                money(after.declined_at_replay_minor)
            ),
        ),
    ] {
        sums.add_row([name.to_owned(), before, after]);
    }
    for reason in &report.reasons {
        sums.add_row([
            format!("reason {}", reason.reason),
            reason.before.to_string(),
            reason.under_policy.to_string(),
        ]);
    }
    text += &format!(
        "{sums}\n{} of {} would have been decided otherwise, {} more for another reason\n",
        report.otherwise, report.decided_offline, report.other_reason
    );
    if !report.first_changed.is_empty() {
        text += &format!("{}\n", first_changed(report, language));
    }
    if report.otherwise > report.first_changed.len() as u64 {
        text += &format!("the first {} are shown\n", report.first_changed.len());
    }
    if !report.archives_away.is_empty() {
        let numbers: Vec<String> = report.archives_away.iter().map(u32::to_string).collect();
        text += &format!(
            "archives {} are elsewhere: what they hold was not seen\n",
            numbers.join(", ")
        );
    }
    if report.unknown_device > 0 {
        text += &format!(
            "{} left as they were: their devices are enrolled in an archive that is elsewhere\n",
            count(report.unknown_device, "payment is", "payments are")
        );
    }
    text
}

fn first_changed(report: &Report, language: Language) -> comfy_table::Table {
    let mut table = table([
        "Payment",
        "At",
        "Device",
        "Amount",
        "As it was",
        "Under the policy",
    ]);
    for changed in &report.first_changed {
        let told = |decision: &ShownDecision| match (decision.reason, &decision.rule) {
            ("none", _) => decision.decision.to_owned(),
            (reason, None) => format!("{}: {reason}", decision.decision),
            (reason, Some(rule)) => format!("{}: {reason} ({rule})", decision.decision),
        };
        table.add_row([
            changed.payment_id.clone(),
            instant(changed.at_ms),
            changed.class.to_owned(),
            amount(changed.amount_minor, &changed.currency, language),
            told(&changed.before),
            told(&changed.under_policy),
        ]);
    }
    table
}
