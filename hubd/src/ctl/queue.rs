//! `hubctl status` and `hubctl queue`.

use std::thread::sleep;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::client::Client;
use super::clock::trust;
use super::failure::Failure;
use super::output::{Output, table};
use super::restrictions;
use super::show::{Language, ago, amount, instant, short, span};
use crate::admin::protocol::{Answer, QueueItem, QueueReport, Request, StatusReport};
use crate::clock;
use crate::config::NEAR_END_OF_ROOT_MS;

/// How many items are listed unless told otherwise.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// How often a drain looks.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Drained {
    drained: bool,
    sent: usize,
    remaining: usize,
    parked: usize,
}

pub(super) fn status(client: &Client, output: &Output) -> Result<(), Failure> {
    match client.ask(&Request::Status)? {
        Answer::Status(report) => output.print(&report, || standing(&report, Language::of_environment())),
        other => Err(Client::unexpected(&other)),
    }
}

pub(super) fn list(client: &Client, output: &Output, limit: usize, parked: bool) -> Result<(), Failure> {
    let queue = ask(client, limit, parked)?;
    output.print(&queue, || {
        listed(&queue, clock::wall_ms(), Language::of_environment())
    })
}

/// Asks for a drain and watches until nothing is left that can be sent.
pub(super) fn drain(client: &Client, output: &Output, timeout: Duration) -> Result<(), Failure> {
    let waiting = |queue: &QueueReport| queue.total.saturating_sub(queue.parked);
    let began = clock::monotonic_ms();
    let first = ask(client, 1, false)?;
    match client.ask(&Request::Drain)? {
        Answer::Done => {}
        other => return Err(Client::unexpected(&other)),
    }
    let mut most = waiting(&first);
    let bar = progress(output, most);
    let mut queue = first;
    while waiting(&queue) > 0 && Duration::from_millis(clock::monotonic_ms().saturating_sub(began)) < timeout
    {
        sleep(LOOK);
        queue = ask(client, 1, false)?;
        // The shop goes on selling meanwhile.
        most = most.max(waiting(&queue));
        bar.set_length(most as u64);
        bar.set_position((most - waiting(&queue)) as u64);
    }
    bar.finish_and_clear();
    let result = Drained {
        drained: waiting(&queue) == 0,
        sent: most - waiting(&queue),
        remaining: waiting(&queue),
        parked: queue.parked,
    };
    output.print(&result, || outcome(&result))?;
    if result.drained {
        Ok(())
    } else {
        let reason = queue.items.iter().find_map(|item| item.last_error.as_deref());
        Err(Failure::Refused(format!(
            "{} still wait after {}{}; nothing is lost, the hub goes on trying",
            result.remaining,
            span(timeout.as_secs()),
            reason.map_or_else(String::new, |reason| format!(" ({reason})")),
        )))
    }
}

fn progress(output: &Output, length: usize) -> ProgressBar {
    if !output.watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("sent {pos} of {len} [{wide_bar}] {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn outcome(result: &Drained) -> String {
    let parked = match result.parked {
        0 => String::new(),
        parked => format!("; {parked} parked and waiting for a person (hubctl queue)"),
    };
    match result.remaining {
        0 => format!("{} sent, nothing left to send{parked}", result.sent),
        remaining => format!("{} sent, {remaining} left to send{parked}", result.sent),
    }
}

pub(super) fn ask(client: &Client, limit: usize, parked: bool) -> Result<QueueReport, Failure> {
    match client.ask(&Request::Queue { limit, parked })? {
        Answer::Queue(queue) => Ok(queue),
        other => Err(Client::unexpected(&other)),
    }
}

/// The one queued payment whose id begins so; a whole id needs no list.
pub(super) fn find(queue: &QueueReport, prefix: &str) -> Result<String, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.parse::<hub_protocol::PaymentId>().is_ok() {
        return Ok(prefix);
    }
    let mut found = queue
        .items
        .iter()
        .filter(|item| !prefix.is_empty() && item.payment_id.starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.payment_id.clone()),
        (None, _) => Err(Failure::Refused(format!(
            "no such payment has an id that begins with {prefix:?}; `hubctl queue` lists what waits, and what is parked"
        ))),
        (Some(_), Some(_)) => Err(Failure::Refused(format!(
            "more than one payment has an id that begins with {prefix:?}; give more digits"
        ))),
    }
}

fn listed(queue: &QueueReport, now: u64, language: Language) -> String {
    if queue.total == 0 {
        return "Nothing waits to be sent.".to_owned();
    }
    let mut table = table([
        "Payment",
        "State",
        "As",
        "Amount",
        "Device",
        "Decided",
        "Tries",
        "Next, or why not",
    ]);
    for item in &queue.items {
        table.add_row([
            item.payment_id.as_str(),
            &item.state,
            &item.operation,
            &amount(item.amount_minor, &item.currency, language),
            short(&item.device),
            &ago(item.decided_ms, now),
            &item.attempts.to_string(),
            &next(item),
        ]);
    }
    let mut text = format!("{table}\n{} in all, {} parked", queue.total, queue.parked);
    if queue.items.len() < queue.total {
        text += &format!("; {} are shown (--limit, --parked)", queue.items.len());
    }
    text
}

fn next(item: &QueueItem) -> String {
    let when = match (&item.parked, item.next_try_ms) {
        (Some(reason), _) => format!("parked: {reason}"),
        (None, Some(0)) => "in its turn".to_owned(),
        (None, Some(ms)) => format!("in {}", span(ms.div_ceil(1000))),
        (None, None) => "under way".to_owned(),
    };
    match &item.last_error {
        Some(error) => format!("{when}; {error}"),
        None => when,
    }
}

fn archives(report: &StatusReport) -> String {
    if report.archives == 0 && report.archive_trouble.is_none() {
        return "none yet".to_owned();
    }
    let stand = format!(
        "{}, {} copied away, {} removed, {} MiB here",
        report.archives,
        report.archives_exported,
        report.archives_removed,
        report.archive_bytes >> 20
    );
    match &report.archive_trouble {
        Some(trouble) => format!("{stand}; {trouble}"),
        None => stand,
    }
}

fn disk(report: &StatusReport) -> String {
    let free = format!(
        "{} MiB free, {} MiB in reserve",
        report.storage_free_bytes >> 20,
        report.storage_reserve_bytes >> 20
    );
    match report.storage.as_str() {
        "full" => format!("full, nothing is approved offline: make room ({free})"),
        "low" => format!("getting full: make room ({free})"),
        _ => free,
    }
}

/// Of the exposure, what devices may still approve by themselves.
fn kept_back(report: &StatusReport, language: Language) -> String {
    if report.allowances.is_empty() {
        return "nothing: no device has an allowance".to_owned();
    }
    let sum = report.allowances.iter().map(|one| one.kept_back_minor).sum();
    let expired = report
        .allowances
        .iter()
        .filter(|one| one.expires_ms <= report.time_ms)
        .count();
    let mut said = format!(
        "{} for the allowances of {} devices",
        amount(sum, &report.currency, language),
        report.allowances.len()
    );
    if expired > 0 {
        said += &format!(", {expired} of them expired and not returned (hubctl devices lost)");
    }
    said
}

/// What bounds at the devices' endpoints were reached, most often first.
fn turned_away(report: &StatusReport) -> String {
    let mut all: Vec<_> = report.turned_away.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let all: Vec<_> = all
        .iter()
        .map(|(bound, count)| format!("{count} {bound}"))
        .collect();
    if all.is_empty() {
        return "nothing".to_owned();
    }
    all.join(", ")
}

/// The root in force, and what is the matter with it.
fn root(report: &StatusReport) -> String {
    let Some(root) = &report.root else {
        return "none: [policy] trusted_keys says whose policies count".to_owned();
    };
    let left_ms = root.expires_ms.saturating_sub(report.time_ms);
    let stand = match (&root.policy_objection, left_ms) {
        (Some(objection), _) => format!("; THE POLICY DOES NOT COUNT: {objection}"),
        (None, 0) => "; EXPIRED, nothing is approved offline: hubctl root apply the next one".to_owned(),
        (None, left) if left < NEAR_END_OF_ROOT_MS => {
            "; ENDS SOON: ask headquarters for the next one".to_owned()
        }
        _ => String::new(),
    };
    format!(
        "version {}, until {}{stand}",
        root.version,
        instant(root.expires_ms)
    )
}

fn standing(report: &StatusReport, language: Language) -> String {
    let policy = report.policy.as_ref().map_or_else(
        || "none: nothing is approved offline".to_owned(),
        |policy| {
            let counts = report
                .root
                .as_ref()
                .is_none_or(|root| root.policy_objection.is_none());
            let until = match policy.expires_ms.filter(|_| counts) {
                _ if !counts => ", which does not count: see Root".to_owned(),
                Some(ms) => format!(", until {}", instant(ms)),
                None => String::new(),
            };
            format!("version {}{until}", policy.version)
        },
    );
    let oldest = report
        .oldest_unsent_seconds
        .filter(|_| report.queued + report.reversals_queued > 0)
        .map_or_else(String::new, |age| format!(", the oldest for {}", span(age)));
    let rows = [
        ("Shop", format!("{} ({})", report.store, report.store_id)),
        (
            "Hub",
            format!("{}, version {}", short(&report.hub_id), report.version),
        ),
        ("Running for", span(report.uptime_seconds)),
        ("Gateway", format!("{} ({})", report.wan, report.wan_reason)),
        ("Policy", policy),
        ("Root", root(report)),
        (
            "Waiting to be sent",
            format!(
                "{} payments, {} reversals{oldest}",
                report.queued, report.reversals_queued
            ),
        ),
        ("Waiting for a person", report.parked.to_string()),
        (
            "Offline exposure",
            format!(
                "{} in {} approvals in a row",
                amount(report.exposure_minor, &report.currency, language),
                report.consecutive
            ),
        ),
        ("Kept back", kept_back(report, language)),
        ("Ledger", format!("{} entries", report.ledger_entries)),
        ("Offline approvals", restrictions::summary(report)),
        ("Archives", archives(report)),
        ("Disk", disk(report)),
        ("Clock", trust(report).to_owned()),
        (
            "Devices",
            format!(
                "{} enrolled, {} connected",
                report.devices_enrolled, report.devices_connected
            ),
        ),
        ("Turned away", turned_away(report)),
        (
            "Listening at",
            format!(
                "{} (payments), {} (enrolment, while a code is outstanding)",
                report.listen, report.enrol_listen
            ),
        ),
    ];
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::protocol::AllowanceReport;

    fn item(payment_id: &str) -> QueueItem {
        QueueItem {
            payment_id: payment_id.to_owned(),
            amount_minor: 1250,
            currency: "EUR".to_owned(),
            ..QueueItem::default()
        }
    }

    #[test]
    fn a_payment_is_found_by_its_first_digits_or_its_whole_id() {
        let whole = "00112233-4455-6677-8899-aabbccddeeff";
        let queue = QueueReport {
            items: vec![item("01aa"), item("01ab")],
            total: 2,
            parked: 0,
        };
        assert_eq!(find(&queue, "01AA").unwrap(), "01aa");
        assert_eq!(find(&queue, whole).unwrap(), whole);
        assert!(find(&queue, "01").is_err() && find(&queue, "02").is_err() && find(&queue, "").is_err());
    }

    #[test]
    fn the_status_says_what_is_kept_back_and_what_has_expired() {
        let allowance = |kept_back_minor, expires_ms| AllowanceReport {
            kept_back_minor,
            expires_ms,
            ..AllowanceReport::default()
        };
        let said = |allowances| {
            let report = StatusReport {
                allowances,
                currency: "EUR".to_owned(),
                time_ms: 1_000,
                ..StatusReport::default()
            };
            kept_back(&report, Language::French)
        };
        assert!(said(vec![]).starts_with("nothing"));
        assert_eq!(
            said(vec![allowance(1_250, 1_001)]),
            "12,50 EUR for the allowances of 1 devices"
        );
        let expired = said(vec![allowance(1_250, 1_001), allowance(100, 1_000)]);
        assert!(
            expired.contains("13,50 EUR") && expired.contains("1 of them expired"),
            "{expired}"
        );
    }

    #[test]
    fn the_status_says_in_good_time_that_a_root_ends() {
        let mut report = StatusReport::default();
        assert!(root(&report).starts_with("none"));
        let mut says = |expires_ms, objection: Option<&str>| {
            report.time_ms = 1_000;
            report.root = Some(crate::admin::protocol::RootReport {
                version: 3,
                expires_ms,
                policy_objection: objection.map(str::to_owned),
                ..Default::default()
            });
            root(&report)
        };
        assert_eq!(
            says(1_000 + NEAR_END_OF_ROOT_MS, None),
            "version 3, until 1970-01-31T00:00:01Z"
        );
        assert!(says(999 + NEAR_END_OF_ROOT_MS, None).contains("ENDS SOON"));
        assert!(says(1_000, None).contains("EXPIRED"));
        assert!(says(u64::from(u32::MAX), Some("gone")).contains("DOES NOT COUNT: gone"));
    }

    #[test]
    fn the_status_says_which_bounds_were_reached_most_often_first() {
        let mut report = StatusReport::default();
        assert_eq!(turned_away(&report), "nothing");
        report.turned_away = [("handshakes".to_owned(), 2), ("slow-streams".to_owned(), 30)].into();
        assert_eq!(turned_away(&report), "30 slow-streams, 2 handshakes");
    }

    #[test]
    fn the_list_shows_amounts_reasons_and_what_is_not_shown() {
        let parked = QueueItem {
            parked: Some("gateway-conflict".to_owned()),
            last_error: Some("other content".to_owned()),
            ..item("01ab")
        };
        let queue = QueueReport {
            items: vec![item("01aa"), parked],
            total: 7,
            parked: 1,
        };
        let text = listed(&queue, 60_000, Language::French);
        for expected in [
            "12,50 EUR",
            "under way",
            "parked: gateway-conflict; other content",
            "7 in all, 1 parked; 2 are shown",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
