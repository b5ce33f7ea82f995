//! `hubctl policy try`, on files, and the example in `docs/policy.md`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{HUBCTL, Hub, Said, blocks, path, run, sample};

struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn tries(&self, policy: &Path, payments: &str, more: &[&str]) -> Said {
        let payments = self.file("payments.jsonl", payments);
        let mut args = vec![
            "policy",
            "try",
            "--policy",
            path(policy),
            "--payments",
            path(&payments),
        ];
        args.extend(more);
        run(HUBCTL, &args)
    }

    fn decisions(&self, policy: &Path, payments: &str) -> Vec<Value> {
        let said = self.tries(policy, payments, &["--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let lines = said.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Decision, reason and rule of each payment under the cautious policy.
    fn outcomes(&self, payments: &str) -> Vec<[String; 3]> {
        let decisions = self.decisions(&sample("france-cautious"), payments);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        decisions
            .iter()
            .map(|tried| {
                [
                    text(&tried["decision"]),
                    text(&tried["reason"]),
                    text(&tried["rule"]),
                ]
            })
            .collect()
    }
}

#[test]
fn the_documented_example_says_what_the_document_says() {
    let [payments, expected] = blocks("policy.md", "try").try_into().unwrap();
    let desk = Desk::new();
    let said = desk.tries(&sample("france-cautious"), &payments, &["--json"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, expected.as_str()),
        "{said:?}"
    );
}

#[test]
fn a_minimal_line_is_an_amount_and_a_card_and_an_object_comes_of_it() {
    let desk = Desk::new();
    let decisions = desk.decisions(
        &sample("france-cautious"),
        "{\"amount_minor\": 2500, \"card\": \"tok-1\"}\n",
    );
    assert_eq!(
        decisions,
        [json!({
            "payment_id": "00000000-0000-0000-0000-000000000001",
            "decision": "approved-offline",
            "reason": "none",
            "rule": null,
            "effective_ceiling_minor": 10_000,
            "score": null,
            "exposure_store_minor": 2_500,
        })]
    );
}

#[test]
fn a_table_and_a_summary_are_printed_for_people() {
    let desk = Desk::new();
    let payments =
        "{\"amount_minor\": 2500, \"card\": \"tok-1\"}\n{\"amount_minor\": 250000, \"card\": \"tok-1\"}\n";
    let said = desk.tries(&sample("france-cautious"), payments, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for expected in [
        "class.mpos.transaction_ceiling",
        "2500.00 EUR",
        "2 payments: 1 approved offline (25.00 EUR), 0 approved online, 1 declined, 0 sent another way; \
         exposure 25.00 EUR at the end, 25.00 EUR at most",
    ] {
        assert!(said.stdout.contains(expected), "{expected} in {}", said.stdout);
    }
}

#[test]
fn the_same_payment_gets_the_first_answer_again_and_other_content_a_conflict() {
    let id = "00112233-4455-6677-8899-aabbccddeeff";
    let line = |amount: u32| {
        format!("{{\"payment_id\": \"{id}\", \"amount_minor\": {amount}, \"card\": \"tok-1\"}}\n")
    };
    let desk = Desk::new();
    let decisions = desk.decisions(
        &sample("france-cautious"),
        &[line(2500), line(2500), line(2600)].concat(),
    );
    assert_eq!(decisions[0], decisions[1]);
    assert_eq!(decisions[2]["decision"], "conflict");
    assert_eq!(decisions[2]["reason"], "payment-id-conflict");
    assert_eq!(decisions[2]["exposure_store_minor"], 2500, "counted once");
    let other_number = line(2500).replace('{', "{\"device_sequence\": 9, ");
    let decisions = desk.decisions(&sample("france-cautious"), &(line(2500) + &other_number));
    assert_eq!(decisions[1]["decision"], "conflict", "the number is content too");
}

#[test]
fn online_a_payment_is_approved_unless_its_line_says_otherwise() {
    let desk = Desk::new();
    let outcomes = desk.outcomes(
        "{\"event\": \"wan_up\"}\n\
         {\"amount_minor\": 99900, \"card\": \"tok-1\"}\n\
         {\"amount_minor\": 99900, \"card\": \"tok-1\", \"gateway\": \"declined\"}\n\
         {\"amount_minor\": 99900, \"card\": \"tok-1\", \"gateway\": \"no-answer\"}\n",
    );
    let expected = [
        ["approved-online", "none", "-"],
        ["declined", "gateway-declined", "-"],
        [
            "declined",
            "transaction-ceiling",
            "class.mpos.transaction_ceiling",
        ],
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn what_is_settled_or_voided_makes_room_again_and_a_restart_does_not() {
    let payment = "{\"amount_minor\": 9000, \"card\": \"tok-1\"}\n";
    let full = [payment, payment].concat();
    let first = "\"payment_id\": \"00000000-0000-0000-0000-000000000001\"";
    let approved = ["approved-offline", "none", "-"];
    let refused = ["declined", "card-ceiling", "card.exposure_ceiling"];
    let desk = Desk::new();
    for (events, expected) in [
        (String::new(), refused),
        ("{\"event\": \"restart\"}\n".to_owned(), refused),
        (format!("{{\"event\": \"void\", {first}}}\n"), approved),
        (
            format!(
                "{{\"event\": \"wan_up\"}}\n{{\"event\": \"settled\", {first}, \"outcome\": \"approved\"}}\n\
                 {{\"event\": \"wan_down\"}}\n"
            ),
            approved,
        ),
        (
            "{\"event\": \"wan_up\"}\n{\"event\": \"settled\", \"outcome\": \"declined\"}\n\
             {\"event\": \"wan_down\"}\n{\"event\": \"restart\"}\n"
                .to_owned(),
            approved,
        ),
        // The line came back, and the gateway has said nothing yet.
        (
            "{\"event\": \"wan_up\"}\n{\"event\": \"wan_down\"}\n".to_owned(),
            refused,
        ),
    ] {
        let outcomes = desk.outcomes(&[full.as_str(), &events, payment].concat());
        assert_eq!(outcomes[..2], [approved, refused], "{events}");
        assert_eq!(outcomes[2], expected, "{events}");
    }
}

#[test]
fn time_offline_runs_by_the_lines_own_instants() {
    let desk = Desk::new();
    let outcomes = desk.outcomes(
        "{\"at\": \"2026-07-14T12:00:00+02:00\", \"amount_minor\": 100, \"card\": \"tok-1\"}\n\
         {\"at\": \"2026-07-14T16:00:00+02:00\", \"amount_minor\": 100, \"card\": \"tok-2\"}\n\
         {\"amount_minor\": 100, \"card\": \"tok-2\"}\n\
         {\"at\": \"2028-01-01T00:00:00Z\", \"amount_minor\": 100, \"card\": \"tok-2\"}\n",
    );
    let expected = [
        ["approved-offline", "none", "-"],
        ["approved-offline", "none", "-"],
        ["declined", "offline-too-long", "offline.longest_minutes"],
        ["declined", "policy-expired", "expires"],
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_doubtful_clock_a_blocked_device_and_a_full_disk_can_be_staged() {
    let desk = Desk::new();
    let event = |name: &str| format!("{{\"event\": \"{name}\"}}\n");
    let pays = |card: u32| format!("{{\"amount_minor\": 5001, \"card\": \"tok-{card}\"}}\n");
    let yes = ["approved-offline", "none", "-"];
    let halved = ["declined", "clock-in-doubt", "-"];
    let blocked = ["refused", "device-not-allowed", "-"];
    let full = ["declined", "storage-full", "-"];
    for (begins, ends, between) in [
        ("clock_doubtful", "clock_trusted", halved),
        ("device_blocked", "device_unblocked", blocked),
        ("disk_full", "disk_ok", full),
    ] {
        let lines = [
            pays(1),
            event(begins),
            pays(2),
            event("restart"),
            pays(3),
            event(ends),
            pays(4),
        ];
        let outcomes = desk.outcomes(&lines.concat());
        assert_eq!(outcomes, [yes, between, between, yes], "{begins}");
    }
    // Half of the ceiling is left, and other devices go on.
    let smaller = "{\"amount_minor\": 5000, \"card\": \"tok-9\"}\n";
    let outcomes = desk.outcomes(&[&event("clock_doubtful"), smaller].concat());
    assert_eq!(outcomes, [yes]);
    let other = "{\"amount_minor\": 5000, \"card\": \"tok-9\", \"device\": \"till 2\"}\n";
    let outcomes = desk.outcomes(&[&event("device_blocked"), other, &pays(1)].concat());
    assert_eq!(outcomes, [yes, blocked]);
}

#[test]
fn devices_describe_themselves_staff_counts_and_a_supervisor_lets_pass() {
    let desk = Desk::new();
    let decisions = desk.decisions(
        &sample("everything"),
        r#"{"at": "2026-01-06T12:00:00+01:00", "event": "describe", "device": "softpos", "vendor": "Acme", "model": "Tap 3", "os_version": "13", "app_version": "2.4", "certification": "mpoc", "attestation": "affirming"}
           {"amount_minor": 1000, "card": {"token": "tok-1", "bin": "497020"}, "device": "softpos", "staff": "anna"}
           {"amount_minor": 1000, "card": {"token": "tok-1", "bin": "497020"}, "device": "softpos", "transaction_type": "refund"}
           {"amount_minor": 1000, "card": {"token": "tok-1", "bin": "497020", "expiry": "2512"}, "device": "softpos"}
           {"amount_minor": 1000, "card": {"token": "tok-1", "bin": "497020"}, "device": "softpos"}
           {"amount_minor": 900, "card": {"token": "tok-1", "bin": "497020"}, "device": "softpos", "verification": "signature"}
           {"amount_minor": 900, "card": {"token": "tok-1", "bin": "497020"}, "device": "softpos", "verification": "signature", "override": true}
           {"at": "2026-01-07T12:01:01+01:00", "amount_minor": 900, "card": {"token": "tok-2", "bin": "497020"}, "device": "softpos"}
        "#,
    );
    let reasons: Vec<&str> = decisions
        .iter()
        .map(|one| one["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "none",
            "transaction-type-not-allowed",
            "card-expired",
            "none",
            "card-consecutive-lower-limit",
            "none",
            "offline-too-long"
        ]
    );
}

#[test]
fn a_ceiling_for_a_kind_of_payments_is_named_by_its_place_in_the_file() {
    let desk = Desk::new();
    let decisions = desk.decisions(
        &sample("everything"),
        "{\"at\": \"2026-01-06T11:59:00+01:00\", \"event\": \"describe\", \"device\": \"mpos\", \
         \"vendor\": \"Acme\", \"model\": \"R1\", \"certification\": \"pts\"}\n\
         {\"at\": \"2026-01-06T12:00:00+01:00\", \"amount_minor\": 20001, \
         \"card\": {\"token\": \"tok-1\", \"bin\": \"497020\"}}\n",
    );
    assert_eq!(decisions[0]["rule"], "ceiling[1]", "{decisions:?}");
    assert_eq!(decisions[0]["effective_ceiling_minor"], 20_000);
}

#[test]
fn all_faults_are_told_at_once_with_their_lines_and_nothing_is_decided_after_the_first() {
    let desk = Desk::new();
    let payments = "{\"amount_minor\": 100, \"card\": \"tok-1\"}\n\
                    {\"amount\": 100, \"card\": \"tok-1\", \"entry_mode\": \"swipe\"}\n\
                    not json\n\
                    \n\
                    {\"amount_minor\": 0, \"card\": {\"scheme\": \"cb\", \"brand\": \"x\"}}\n\
                    {\"amount_minor\": 100, \"card\": \"4111111111111111\"}\n\
                    {\"amount_minor\": 100, \"card\": \"tok-1\", \"class\": \"softpos\", \"device\": \"mpos\"}\n\
                    {\"event\": \"settled\", \"payment_id\": \"00000000-0000-0000-0000-000000000001\"}\n\
                    {\"event\": \"void\", \"payment_id\": \"00000000-0000-0000-0000-000000000099\"}\n\
                    {\"event\": \"lunch\"}\n\
                    {\"at\": \"2020-01-01T00:00:00Z\", \"amount_minor\": 100, \"card\": \"tok-1\"}\n\
                    {\"amount_minor\": 100, \"card\": \"tok-1\"}\n";
    let said = desk.tries(&sample("france-cautious"), payments, &["--json"]);
    assert_eq!(said.code, 65, "{said:?}");
    for expected in [
        ":2: amount is not a known field; did you mean amount_minor, in cents? known here: at, amount_minor, payment_id,",
        ":2: amount_minor is missing",
        ":2: entry_mode: one of chip, contactless, magnetic-stripe, keyed expected",
        ":3: not a JSON object:",
        ":5: amount_minor: a whole number of minor units (cents) from 1 to 999999999999 expected",
        ":5: card.token is missing",
        ":5: card.brand is not a known field",
        ":6: card.token holds a clear card number",
        ":7: class: device mpos is of class mpos in a line above",
        ":8: settled: nothing is sent while the line is down",
        ":8: outcome is missing",
        ":9: payment_id: no line above has a payment with this id",
        ":10: event: one of wan_up, wan_down, settled, void, describe, restart, clock_doubtful,",
        ":11: at: an instant from the policy's not_before on expected",
    ] {
        assert!(said.stderr.contains(expected), "{expected} in {}", said.stderr);
    }
    let lines: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{said:?}");
    assert_eq!(lines[0]["decision"], "approved-offline");
    assert_eq!(lines[1]["error"]["code"], "unverified");
    assert!(!said.stderr.contains("4111"), "{said:?}");
}

#[test]
fn a_step_that_the_hub_would_not_do_is_a_fault_of_its_line() {
    let desk = Desk::new();
    let refused = "{\"amount_minor\": 999999, \"card\": \"tok-1\"}\n";
    let payment = "{\"amount_minor\": 100, \"card\": \"tok-1\"}\n";
    let id = |line| format!("\"payment_id\": \"00000000-0000-0000-0000-00000000000{line}\"");
    for (payments, expected) in [
        (
            format!("{refused}{{\"event\": \"void\", {}}}\n", id(1)),
            ":2: void: the payment was not approved",
        ),
        (
            format!(
                "{payment}{payment}{{\"event\": \"wan_up\"}}\n\
                 {{\"event\": \"settled\", {}, \"outcome\": \"approved\"}}\n",
                id(2)
            ),
            ":4: settled: another payment of its card or device, from a line above, is sent before it",
        ),
        (
            format!(
                "{refused}{{\"event\": \"wan_up\"}}\n{{\"event\": \"settled\", {}, \"outcome\": \"approved\"}}\n",
                id(1)
            ),
            ":3: settled: the payment does not wait for the gateway: it is refused",
        ),
    ] {
        let said = desk.tries(&sample("france-cautious"), &payments, &[]);
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.stderr.contains(expected), "{expected} in {said:?}");
    }
}

#[test]
fn a_void_by_the_number_of_a_line_voids_the_payment_of_that_line() {
    let desk = Desk::new();
    let line = |number: u32| format!("{{\"amount_minor\": 100, \"card\": \"tok-{number}\"}}\n");
    let lines: String = (1..=16).map(line).collect();
    let void = "{\"event\": \"void\", \"payment_id\": \"00000000-0000-0000-0000-000000000010\"}\n";
    // Card 10 has its whole ceiling again, card 16 has not.
    let again = "{\"amount_minor\": 10000, \"card\": \"tok-10\"}\n{\"amount_minor\": 10000, \"card\": \"tok-16\"}\n\
                 {\"amount_minor\": 5000, \"card\": \"tok-10\"}\n{\"amount_minor\": 5000, \"card\": \"tok-16\"}\n";
    let decisions = desk.decisions(&sample("france-cautious"), &format!("{lines}{void}{again}"));
    assert_eq!(
        decisions[15]["payment_id"],
        "00000000-0000-0000-0000-000000000016"
    );
    let reasons: Vec<&str> = decisions[16..]
        .iter()
        .map(|tried| tried["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["none", "none", "none", "card-ceiling"]);
}

#[test]
fn a_field_of_a_line_is_named_as_the_line_has_it() {
    let desk = Desk::new();
    let card = "\"card\": \"tok-1\", \"transaction_type\": \"cash-back\"";
    for (line, expected) in [
        (
            format!("{{\"amount_minor\": 100, {card}, \"cash_back_minor\": 100}}"),
            ":1: cash_back_minor: with cash-back, from 1 to below the amount expected",
        ),
        (
            format!("{{\"amount_minor\": 100, {card}}}"),
            ":1: cash_back_minor: ",
        ),
        (
            "{\"amount_minor\": 100, \"card\": \"tok-1\", \"staff\": \"\"}".to_owned(),
            ":1: staff: ",
        ),
    ] {
        let said = desk.tries(&sample("everything"), &line, &[]);
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.stderr.contains(expected), "{expected} in {said:?}");
    }
}

#[test]
fn no_more_than_twenty_faults_are_told() {
    let desk = Desk::new();
    let said = desk.tries(&sample("france-cautious"), &"{}\n".repeat(50), &[]);
    assert_eq!(said.code, 65);
    assert!(said.stderr.contains("there may be more"), "{said:?}");
    assert_eq!(said.stderr.matches("is missing").count(), 20, "{said:?}");
}

#[test]
fn a_signed_policy_and_payments_from_standard_input_serve_too() {
    let hub = Hub::init(&[]);
    let mut child = Command::new(HUBCTL)
        .args([
            "--dir",
            path(&hub.dir),
            "policy",
            "try",
            "--json",
            "--payments",
            "-",
        ])
        .args(["--policy", path(&hub.file("policy.cose"))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(b"{\"amount_minor\": 100, \"card\": \"tok-1\"}\n")
        .unwrap();
    drop(input);
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["decision"], "approved-offline");
    // By nobody whom this hub trusts.
    let stranger = Hub::init(&[]);
    let said = stranger.hubctl(&[
        "policy",
        "try",
        "--policy",
        path(&hub.file("policy.cose")),
        "--payments",
        "/dev/null",
    ]);
    assert_eq!(said.code, 65, "{said:?}");
}

#[test]
fn the_faults_of_a_policy_are_told() {
    let desk = Desk::new();
    let bad = desk.file("bad.toml", "format = 1\n");
    let said = desk.tries(&bad, "", &[]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("tenant is missing"), "{said:?}");
}

#[test]
fn no_line_is_passed_over_in_silence() {
    let desk = Desk::new();
    for (line, expected) in [
        (r#"{"amount_minor": 500, "card": ""}"#, "token"),
        (r#"{"amount_minor": 500, "card": {"token": ""}}"#, "token"),
        (r#"{"amount_minor": 500, "card": {}}"#, "card.token is missing"),
        (
            r#"{"amount_minor": 500, "amount_minor": 600, "card": "a"}"#,
            "amount_minor stands there twice",
        ),
    ] {
        let said = desk.tries(&sample("france-cautious"), line, &["--json"]);
        assert_eq!(said.code, 65, "{line}: {said:?}");
        assert!(said.stderr.contains(expected), "{line}: {said:?}");
    }
    let marked = format!("\u{feff}{}", r#"{"amount_minor": 500, "card": "a"}"#);
    assert_eq!(desk.decisions(&sample("france-cautious"), &marked).len(), 1);
}

#[test]
fn the_ceiling_told_is_the_one_that_decided_when_the_payment_itself_was_odd() {
    let desk = Desk::new();
    let refused = r#"{"amount_minor": 3000, "card": "a", "cryptogram": "refused"}"#;
    let payments = [
        refused,
        &refused.replace("\"a\"", "\"b\""),
        r#"{"amount_minor": 5000, "card": "c"}"#,
    ];
    let decisions = desk.decisions(&sample("france-watchful"), &payments.join("\n"));
    let last = &decisions[2];
    assert_eq!(last["reason"], "transaction-ceiling", "{last}");
    assert_eq!(last["effective_ceiling_minor"], 2000, "{last}");
}

#[test]
fn of_two_keys_that_share_a_reason_the_one_that_refused_is_named() {
    let desk = Desk::new();
    let device = "{\"at\": \"2026-01-06T11:59:00+01:00\", \"event\": \"describe\", \"device\": \"mpos\", \
                  \"vendor\": \"Acme\", \"model\": \"R1\", \"certification\": \"pts\"}\n";
    let pay = |minute: usize, token: &str, bin: &str, amount: u64| {
        format!(
            "{{\"at\": \"2026-01-06T12:{minute:02}:00+01:00\", \"amount_minor\": {amount}, \
             \"entry_mode\": \"contactless\", \"verification\": \"none\", \
             \"card\": {{\"token\": \"{token}\", \"bin\": \"{bin}\"}}}}\n"
        )
    };
    let policy = fs::read_to_string(sample("everything")).unwrap();
    // What else the sample counts is out of the way.
    let policy = policy.replace("\nwindow_count = ", "\nwindow_count = 1").replace(
        "contactless_cumulative_ceiling = 15000",
        "contactless_cumulative_ceiling = 10000",
    );
    let others = |line: &&str| !line.contains("consecutive_lower_limit");
    let policy: Vec<&str> = policy.lines().filter(others).collect();
    let policy = policy.join("\n");
    let policy = desk.file("policy.toml", &policy);
    let last = |payments: String| {
        let decisions = desk.decisions(&policy, &format!("{device}{payments}"));
        let last = decisions.last().unwrap().clone();
        (last["reason"].clone(), last["rule"].clone())
    };
    let tapped = |each: u64| {
        (0..6)
            .map(|at| pay(at, "tok-1", "497020", each))
            .collect::<String>()
    };
    for (payments, reason, rule) in [
        (
            pay(0, "tok-1", "497010", 500),
            "bin-not-allowed",
            "card.bins_denied",
        ),
        (
            pay(0, "tok-1", "397020", 500),
            "bin-not-allowed",
            "card.bins_allowed",
        ),
        (
            tapped(500),
            "card-contactless-limit",
            "card.contactless_consecutive_limit",
        ),
        (
            tapped(3_001),
            "card-contactless-limit",
            "card.contactless_cumulative_ceiling",
        ),
    ] {
        assert_eq!(last(payments.clone()), (json!(reason), json!(rule)), "{payments}");
    }
}
