//! Policies as they are read.

use super::*;

const SAMPLE: &str = include_str!("../../../../config/policies/france-cautious.toml");

#[test]
fn the_sample_policy_is_read_whole() {
    let policy = Policy::parse(SAMPLE.as_bytes()).unwrap();
    assert_eq!(policy.currency, Currency::EUR);
    assert_eq!(policy.classes.len(), 3);
    let [softpos, mpos] = [DeviceClass::Softpos, DeviceClass::Mpos].map(|class| policy.classes[&class]);
    assert!(
        softpos.transaction_ceiling < mpos.transaction_ceiling,
        "SoftPOS is stricter than mPOS"
    );
    assert!(softpos.device.exposure_ceiling < mpos.device.exposure_ceiling);
}

#[test]
fn all_faults_of_a_policy_are_reported_at_once_with_their_lines() {
    let broken = SAMPLE
        .replace("version = 1", "version = 0")
        .replace("schemes = [\"cb\"", "schemes = [\"cbb\"")
        .replace("[store]\n", "[store]\nceilling = 1\n");
    let faults = Policy::parse(broken.as_bytes()).unwrap_err();
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{texts:#?}");
    assert!(
        texts[0].contains("version: a whole number from 1 to 4294967295 expected"),
        "{texts:#?}"
    );
    assert!(
        texts[1].contains("offline.schemes: a list of other, cb"),
        "{texts:#?}"
    );
    assert!(
        texts[2].contains("store.ceilling is not a known key"),
        "{texts:#?}"
    );
    for (fault, needle) in faults.iter().zip(["version = 0", "cbb", "ceilling"]) {
        assert!(
            broken.lines().nth(fault.line - 1).unwrap().contains(needle),
            "{fault}"
        );
    }
}

const EVERYTHING: &str = include_str!("../../../../config/policies/everything.toml");

/// The faults of the sample with everything after one change.
fn faults_after(from: &str, to: &str) -> Vec<String> {
    assert!(EVERYTHING.contains(from), "{from}");
    let faults = Policy::parse(EVERYTHING.replacen(from, to, 1).as_bytes()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn two_ceilings_that_say_equally_much_and_meet_are_a_fault() {
    let tie = "[[ceiling]]\nentry_mode = \"contactless\"\nclass = \"mpos\"\namount = 1\n[[moving.outage]]";
    let faults = faults_after("[[moving.outage]]", tie);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("both say equally much"), "{faults:?}");
    // Of two classes, they never meet; one that says more goes before.
    for apart in [
        "class = \"softpos\"\nverification = \"offline-pin\"",
        "class = \"mpos\"",
    ] {
        let more = format!("[[ceiling]]\n{apart}\namount = 1\n[[moving.outage]]");
        assert!(Policy::parse(EVERYTHING.replacen("[[moving.outage]]", &more, 1).as_bytes()).is_ok());
    }
}

#[test]
fn what_would_never_hold_or_says_nothing_is_a_fault() {
    for (from, to, expected) in [
        ("domestic = [\"FR\"]", "", "ceiling.issuer needs card.domestic"),
        (
            "from_minutes = 180",
            "from_minutes = 60",
            "larger than in the step before",
        ),
        (
            "\npercent = 50",
            "\npercent = 76",
            "larger than in the step before",
        ),
        (
            "cash_back_ceiling = 5000",
            "#",
            "offline.cash_back_ceiling is missing",
        ),
        ("window_minutes = 240", "#", "window_count says something only"),
        (
            "name = \"Claire\"\nkey",
            "name = \"Claire\"\nkey = \"00\"\n#",
            "override.supervisor.key: an Ed25519 public key",
        ),
        (
            "stale_minutes = 240",
            "stale_minutes = 1440",
            "below max_age_minutes expected",
        ),
        ("stale_percent = 60", "#", "only beside each other"),
        (
            "os_version = \"13\"",
            "os_version = \"13b\"",
            "up to four numbers",
        ),
        (
            "consecutive_lower_limit = 2\n",
            "consecutive_lower_limit = 6\n",
            "not above the limit",
        ),
        (
            "countries = [\"FR\", \"BE\", \"LU\", \"DE\", \"ES\", \"IT\"]",
            "",
            "only beside card.countries",
        ),
        ("\"FR\", \"BE\"", "\"fr\", \"BE\"", "two capital letters"),
        ("\"497010\"", "\"4970\"", "6 or 8 digits"),
        ("49701234-49701236", "49701236-49701234", "6 or 8 digits"),
        ("49701234-49701236", "497012-49701236", "6 or 8 digits"),
        ("[\"400000-599999\"]", "[]", "a list of BINs"),
        ("tok-11d2e8b7", "tok-7f3a90c1", "listed twice"),
        (
            "\"asks-online\" ",
            "\"refused\" ",
            "one of card-approved, asks-online",
        ),
        ("percent = 75", "percent = 101", "percent from 0 to 100"),
        (
            "verify_from = 50 ",
            "verify_from = 90 ",
            "verify_from below decline_from",
        ),
        (
            "decline_from = 90 ",
            "decline_from = 161 ",
            "all factors together count 160",
        ),
        ("decline_from = 90 ", "#", "only beside score.decline_from"),
        ("percentile = 95", "percentile = 100", "percent from 50 to 99"),
        (
            "least_payments = 200",
            "least_payments = 19",
            "payments from 20 to 4000",
        ),
        ("least_weeks = 4 ", "least_weeks = 0 ", "weeks from 1 to 26"),
        ("times = 4 ", "times = 1 ", "a whole number from 2 to 100"),
        ("least = 60 ", "least = 1 ", "payments from 2 to 100000"),
        ("times = 3 ", "times = 0 ", "a whole number from 1 to 100"),
        ("percentile = 99 ", "percentile = 49 ", "percent from 50 to 99"),
        ("count = 5\n", "count = 17\n", "a whole number from 2 to 16"),
    ] {
        let faults = faults_after(from, to);
        assert!(faults[0].contains(expected), "{to}: {faults:?}");
    }
    let nothing = EVERYTHING
        .replace("verify_from = 50 ", "#")
        .replace("decline_from = 90 ", "#");
    let faults = Policy::parse(nothing.as_bytes()).unwrap_err();
    assert!(faults[0].message.contains("score leads to nothing"), "{faults:?}");
    let one_table = EVERYTHING.replace("[[moving.store_used]]", "[moving.store_used]");
    let faults = Policy::parse(one_table.as_bytes()).unwrap_err();
    assert!(
        faults[0]
            .message
            .contains("tables, each under [[moving.store_used]]"),
        "{faults:?}"
    );
}

#[test]
fn a_factor_of_the_score_that_could_never_count_is_a_fault() {
    let with = |rest: &str| {
        let text = format!("{SAMPLE}\n[score]\nverify_from = 1\n[score.new_card]\npoints = 1\n{rest}");
        let faults = Policy::parse(text.as_bytes()).err().unwrap_or_default();
        faults
            .iter()
            .map(|fault| fault.message.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(with(""), Vec::<String>::new());
    for (table, needs) in [
        ("amount_above_usual]\npercentile = 90", "[profile]"),
        ("foreign_card]", "card.domestic"),
        ("unusual_hour]", "[hours] or [profile]"),
        ("device_odd]\nfrom_points = 1", "[anomaly]"),
    ] {
        let faults = with(&format!("[score.{table}\npoints = 1\n"));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(&format!("needs {needs}")), "{faults:?}");
    }
}

#[test]
fn a_detector_of_what_is_unusual_needs_to_know_what_is_usual() {
    let anomaly = "[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 1\n";
    for table in [
        "arrival_rate]\nleast = 9\ntimes = 2",
        "unusual_amount]\npercentile = 99\ntimes = 2",
    ] {
        let text = format!("{SAMPLE}\n{anomaly}[anomaly.{table}\npoints = 1\n");
        let faults = Policy::parse(text.as_bytes()).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].message.contains("needs [profile]"), "{faults:?}");
        let known = format!("{text}\n[profile]\nleast_payments = 20\nleast_weeks = 1\n");
        assert!(Policy::parse(known.as_bytes()).is_ok());
    }
}

#[test]
fn a_policy_of_another_format_or_a_reversed_period_is_refused() {
    let faults = Policy::parse(SAMPLE.replace("format = 1", "format = 2").as_bytes()).unwrap_err();
    assert!(faults[0].message.contains("format 2 is not known"), "{faults:?}");
    let reversed = SAMPLE.replace("expires = 2027", "expires = 2025");
    assert!(
        Policy::parse(reversed.as_bytes()).unwrap_err()[0]
            .message
            .contains("after not_before")
    );
}

/// The faults of a policy with everything after one line is replaced.
fn faults_with_line(at: usize, line: &str) -> Vec<Fault> {
    let mut lines: Vec<&str> = EVERYTHING.lines().collect();
    lines[at] = line;
    let faults = Policy::parse(lines.join("\n").as_bytes());
    faults.err().unwrap_or_default()
}

#[test]
fn one_wrong_value_of_any_key_is_one_fault_at_its_line() {
    let mut tried = 0;
    for (at, line) in EVERYTHING.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else {
            continue;
        };
        for wrong in ["-1", "\"\\u0000\""] {
            let faults = faults_with_line(at, &format!("{key} = {wrong}"));
            let [fault] = faults.as_slice() else {
                panic!("line {}, {key} = {wrong}: {faults:#?}", at + 1);
            };
            assert_eq!(fault.line, at + 1, "{key} = {wrong}: {fault}");
            assert!(!fault.message.contains("missing"), "{key} = {wrong}: {fault}");
            tried += 1;
        }
    }
    assert!(tried > 2 * 150, "{tried}");
}

#[test]
fn a_number_beyond_its_range_is_one_fault_at_its_line() {
    for (from, to) in [
        ("loosen_percent = 10 ", "loosen_percent = 0"),
        ("loosen_minutes = 15 ", "loosen_minutes = 0"),
        ("cash_back_ceiling = 5000 ", "cash_back_ceiling = -1"),
        (
            "countries = [\"FR\", \"BE\", \"LU\", \"DE\", \"ES\", \"IT\"]",
            "countries = []",
        ),
        ("stale_percent = 60", "stale_percent = 100"),
        ("stale_minutes = 240", "stale_minutes = 0"),
        ("domestic = [\"FR\"]", "domestic = [\"fr\"]"),
        ("decline_from = 90 ", "decline_from = 0 "),
        ("[score.new_card]", "[score.new_card]\nponts = 1\n[score.no_card]"),
        ("devices = 3    ", "devices = 0 "),
        (
            "time_zone = \"CET-1CEST,M3.5.0,M10.5.0/3\"",
            "time_zone = \"Europe/Paris\"",
        ),
        ("least_payments = 200", "least_payments = 1"),
        ("fade_points_per_hour = 20", "fade_points_per_hour = 0"),
    ] {
        let faults = faults_after(from, to);
        let expected = if to.starts_with("[score") { 3 } else { 1 };
        assert_eq!(faults.len(), expected, "{to}: {faults:#?}");
    }
}

#[test]
fn what_is_no_table_is_one_fault_and_not_one_for_each_key_in_it() {
    let without = |section: &str| {
        let mut kept = true;
        let lines = SAMPLE.lines().filter(|line| {
            if line.starts_with('[') {
                kept = !line.trim_start_matches('[').starts_with(section);
            }
            kept
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    for section in ["store", "card", "offline", "class", "replay"] {
        let text = format!("{section} = 3\n{}", without(section));
        let faults = Policy::parse(text.as_bytes()).unwrap_err();
        assert_eq!(faults.len(), 1, "{section}: {faults:?}");
        assert_eq!(faults[0].message, format!("{section}: a table expected"));
    }
}

#[test]
fn a_value_that_stands_twice_is_a_fault_and_so_are_hours_that_overlap() {
    for (from, to, expected) in [
        (
            "\"cb\", \"visa\"",
            "\"cb\", \"cb\"",
            "offline.schemes: \"cb\" stands here twice",
        ),
        (
            "stores = [\"*\"]",
            "stores = [\"a\", \"a\"]",
            "stores: \"a\" stands here twice",
        ),
        (
            "[\"pts\", \"spoc\"]",
            "[\"pts\", \"pts\"]",
            "model.certification: \"pts\" stands here twice",
        ),
        (
            "retry = [\"51\", \"61\"",
            "retry = [\"51\", \"51\"",
            "replay.scheme.visa.retry: \"51\" stands here twice",
        ),
        (
            "monday = [\"08:30-20:30\"]",
            "monday = [\"08:30-20:30\", \"08:30-20:30\"]",
            "hours.monday: \"08:30-20:30\" stands here twice",
        ),
        (
            "monday = [\"08:30-20:30\"]",
            "monday = [\"08:30-12:30\", \"12:29-20:30\"]",
            "hours.monday: 12:29-20:30 begins before 08:30-12:30 of monday ends",
        ),
        (
            "monday = [\"08:30-20:30\"]",
            "monday = [\"20:00-08:31\"]",
            "hours.tuesday: 08:30-20:30 begins before 20:00-08:31 of monday ends",
        ),
        (
            "sunday = [\"09:00-13:00\"]",
            "sunday = [\"22:00-08:31\"]",
            "hours.sunday: 22:00-08:31 begins before 08:30-20:30 of monday ends",
        ),
    ] {
        let faults = faults_after(from, to);
        assert_eq!(faults.len(), 1, "{to}: {faults:?}");
        assert!(faults[0].contains(expected), "{to}: {faults:?}");
        let text = EVERYTHING.replacen(from, to, 1);
        assert!(
            Policy::parse_taken(text.as_bytes()).is_ok(),
            "{to}: a policy in force would end at an upgrade"
        );
    }
    for apart in ["[\"08:30-12:30\", \"12:30-20:30\"]", "[\"20:30-08:30\"]"] {
        let text = EVERYTHING.replacen("[\"08:30-20:30\"]", apart, 1);
        assert!(Policy::parse(text.as_bytes()).is_ok(), "{apart}");
    }
}

#[test]
fn an_empty_list_that_could_mean_all_or_none_is_a_fault() {
    for (from, key, instead) in [
        (
            "schemes = [\"cb\", \"visa\", \"mastercard\"]",
            "schemes",
            "write enabled = false",
        ),
        (
            "funding = [\"credit\", \"debit\", \"deferred-debit\"]",
            "funding",
            "write enabled = false",
        ),
        (
            "entry_modes = [\"chip\", \"contactless\"]",
            "entry_modes",
            "write enabled = false",
        ),
        (
            "certification = [\"mpoc\"]",
            "certification",
            "leave the model out",
        ),
        ("classes = [\"softpos\"]", "classes", "leave [attestation] out"),
        (
            "classes = [\"mpos\", \"terminal\"]",
            "classes",
            "leave [allowance] out",
        ),
    ] {
        let to = format!("{key} = []");
        let faults = faults_after(from, &to);
        assert_eq!(faults.len(), 1, "{to}: {faults:?}");
        assert!(
            faults[0].contains("an empty list says nothing") && faults[0].contains(instead),
            "{faults:?}"
        );
        let text = EVERYTHING.replacen(from, &to, 1);
        assert!(Policy::parse_taken(text.as_bytes()).is_ok(), "{to}");
    }
}

#[test]
fn what_cannot_be_read_is_no_policy_even_if_it_was_taken() {
    let text = SAMPLE.replace("version = 1", "version = 0");
    assert_eq!(Policy::parse_taken(text.as_bytes()).unwrap_err().len(), 1);
}

/// The sample with this put for that, and the one fault of it.
fn replay_fault(from: &str, to: &str) -> String {
    assert!(EVERYTHING.contains(from), "{from}");
    let faults = Policy::parse(EVERYTHING.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert_eq!(faults.len(), 1, "{to}: {faults:?}");
    faults[0].message.clone()
}

#[test]
fn faults_of_the_backlogs_rules_are_named_with_what_would_be_right() {
    for (from, to, expected) in [
        (
            "worth_sending_h = 24 ",
            "worth_sending_h = 0 ",
            "replay.worth_sending_h: hours from 1 to 744 (31 days) expected, 0 found",
        ),
        (
            "worth_sending_h = 120",
            "worth_sending_h = 745",
            "replay.scheme.visa.worth_sending_h: hours from 1 to 744 (31 days) expected, 745 found",
        ),
        (
            "[\"03\", \"21\"]",
            "[\"3\"]",
            "replay.scheme.mastercard.never_retry_advice: a list of at most 64 merchant advice codes of two \
             digits expected, [\"3\"] found",
        ),
        (
            "[\"03\", \"21\"]",
            "[\"03\", \"24\"]",
            "replay.scheme.mastercard.advice_wait: after 24 the payment is never presented again \
             (never_retry_advice)",
        ),
        (
            "code = \"25\"\nhours = 24\n",
            "code = \"24\"\nhours = 24\n",
            "replay.scheme.mastercard.advice_wait: 24 stands here twice",
        ),
        (
            "code = \"25\"\nhours = 24\n",
            "code = \"25\"\nhours = 721\n",
            "replay.scheme.mastercard.advice_wait.hours: hours from 1 to 720 (30 days) expected, 721 found",
        ),
        (
            "code = \"25\"\nhours = 24\n",
            "code = 25\nhours = 24\n",
            "replay.scheme.mastercard.advice_wait.code: a merchant advice code of two digits expected, 25 found",
        ),
        (
            "code = \"25\"\nhours = 24\n",
            "code = \"25\"\n",
            "replay.scheme.mastercard.advice_wait.hours is missing: hours from 1 to 720 (30 days) expected",
        ),
        (
            "[replay.scheme.visa]\n",
            "[replay.scheme.cb]\nnever_retry_advice = [\"03\"]\nnever_retry = []\nretry = []\n\
             most_per_24h = 1\nmost_per_30_days = 1\n[replay.scheme.visa]\n",
            "replay.scheme.cb.min_wait_minutes is missing: minutes from 1 to 43200 (30 days) expected",
        ),
    ] {
        assert_eq!(replay_fault(from, to), expected, "{to}");
    }
}

#[test]
fn a_scheme_may_say_how_long_alone_and_then_every_decline_is_final() {
    let text = EVERYTHING.replacen(
        "[replay.scheme.visa]\n",
        "[replay.scheme.cb]\nworth_sending_h = 48\n[replay.scheme.visa]\n",
        1,
    );
    let rules = Policy::parse(text.as_bytes()).unwrap().replay;
    const HOUR_MS: u64 = 60 * 60 * 1000;
    for (scheme, hours) in [
        (CardScheme::Cb, 48),
        (CardScheme::Visa, 120),
        (CardScheme::Mastercard, 168),
        (CardScheme::Amex, 24),
    ] {
        assert_eq!(rules.worth_sending_ms(scheme), hours * HOUR_MS, "{scheme}");
    }
    assert!(!rules.schemes.contains_key(&CardScheme::Cb));
    let told = replay_fault(
        "[replay.scheme.visa]\n",
        "[replay.scheme.cb]\nworth_sending_h = 48\nretri = []\n[replay.scheme.visa]\n",
    );
    assert!(told.contains("did you mean retry?"), "{told}");
    let whole = replay::ReplayRules::default();
    assert_eq!(
        whole.worth_sending_ms(CardScheme::Visa),
        replay::DEFAULT_WORTH_SENDING_MS
    );
}

/// All of the file is kept for good, in the ledger and beside it.
#[test]
fn rule_6_a_policy_that_holds_a_card_number_is_refused_and_one_in_force_goes_on() {
    const NUMBER: &str = "4929 1234 5678 9015";
    let plain = NUMBER.replace(' ', "");
    let sample = include_str!("../../../../config/policies/everything.toml");
    Policy::parse(sample.as_bytes()).unwrap();
    for (from, to, what) in [
        ("tok-7f3a90c1", plain.as_str(), "card.exception.token"),
        (
            "[offline]",
            "# Mr Martin: 4929 1234 5678 9015\n[offline]",
            "the comment",
        ),
    ] {
        assert!(sample.contains(from), "{from}");
        let text = sample.replacen(from, to, 1);
        let faults = Policy::parse(text.as_bytes()).unwrap_err();
        let line = 1 + text.lines().position(|line| line.contains("4929")).unwrap();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].line, line);
        assert!(
            faults[0]
                .message
                .starts_with(&format!("{what} holds a clear card number")),
            "{faults:?}"
        );
        assert!(!faults[0].message.contains("4929"), "{faults:?}");
        assert!(Policy::parse_taken(text.as_bytes()).is_ok(), "one in force");
    }
    let twice = sample
        .replace("tok-7f3a90c1", &plain)
        .replace("tok-11d2e8b7", &plain);
    let faults = Policy::parse(twice.as_bytes()).unwrap_err();
    assert!(
        faults.len() >= 2 && !format!("{faults:?}").contains("4929"),
        "{faults:?}"
    );
    let key = sample.replacen("[offline]", &format!("[offline]\n{plain} = 1"), 1);
    let faults = Policy::parse(key.as_bytes()).unwrap_err();
    assert!(
        faults
            .iter()
            .any(|fault| fault.message.starts_with("a key holds a clear card number")),
        "{faults:?}"
    );
}

/// A SIRET has 14 digits and passes the Luhn check, as a Diners Club card.
#[test]
fn a_shop_whose_id_is_its_siret_is_no_card_number() {
    let stores = SAMPLE.lines().find(|line| line.starts_with("stores = ")).unwrap();
    let text = SAMPLE.replacen(stores, "stores = [\"38123456700018\"]", 1);
    assert_eq!(Policy::parse(text.as_bytes()).map(|policy| policy.version), Ok(1));
}
