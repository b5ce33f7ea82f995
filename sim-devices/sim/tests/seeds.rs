//! Every rule holds in seeds that once failed and in some hundred others; the
//! long run is `hub-sim --runs 10000`.
#![allow(missing_docs, clippy::unwrap_used)]

use hub_protocol::{AllowanceMisuse, Reason};
use hub_sim::{Options, run, run_many};

#[test]
fn every_rule_holds_in_every_seed_that_ever_failed() {
    let seeds = include_str!("../seeds.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in seeds {
        let seed = line.split_whitespace().next().unwrap().parse().unwrap();
        // As it was when it failed, and with what has come since.
        for plain in [true, false] {
            let options = Options {
                plain,
                ..Options::default()
            };
            let outcome = run(seed, &options);
            assert_eq!(outcome.violation, None, "seed {seed}, plain: {plain}");
        }
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn every_rule_holds_in_some_hundred_seeds() {
    let summary = run_many(1, 800, 2, &Options::default(), &|_| {});
    let failure = summary.first_failure.as_ref();
    assert_eq!(failure.and_then(|outcome| outcome.violation.as_ref()), None);
    assert_eq!(summary.runs, 800);
    assert!(summary.payments > 1_000 && summary.restarts > 100, "{summary:?}");
    assert!(summary.allowances > 100, "{summary:?}");
    let all: Vec<_> = AllowanceMisuse::ALL.to_vec();
    assert_eq!(summary.misuses.iter().copied().collect::<Vec<_>>(), all);
    // A rule that no simulated policy has, or no payment meets, is not tested.
    let plain = Options {
        plain: true,
        ..Options::default()
    };
    let older = run_many(1, 200, 2, &plain, &|_| {});
    assert!(older.first_failure.is_none(), "{:?}", older.first_failure);
    let reasons = &summary.reasons | &older.reasons;
    let never = Reason::ALL
        .iter()
        .filter(|reason| !NOT_SIMULATED.contains(reason) && !reasons.contains(reason));
    assert_eq!(never.collect::<Vec<_>>(), Vec::<&Reason>::new());
}

/// The model does not know the age of what waits yet. That the clock goes back
/// to before a policy's time takes more seeds than these.
const NOT_SIMULATED: [Reason; 2] = [Reason::UnsentTooLong, Reason::PolicyNotYetValid];

#[test]
fn rule_9_a_seed_repeats_a_run_exactly() {
    let options = Options {
        trace: true,
        ..Options::default()
    };
    for seed in [1, 2, 3, 500] {
        let (one, two) = (run(seed, &options), run(seed, &options));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!((one.hash, one.steps), (two.hash, two.steps));
    }
}

#[test]
fn the_document_lists_the_deliberate_faults_with_their_rules() {
    let list: toml::Table = include_str!("../faults.toml").parse().unwrap();
    let text = include_str!("../../../docs/reliability.md");
    let (_, table) = text.split_once("### Deliberate faults").unwrap();
    let documented: Vec<(&str, &str)> = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with("| "))
        .map(|row| {
            let mut cells = row.split('|').map(str::trim).skip(1);
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let listed: Vec<(&str, &str)> = list["fault"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            let rule = fault["rule"].as_str().unwrap();
            let rule = match rule.split_once(' ').unwrap() {
                (number, _) if number.parse::<u8>().is_ok() => number,
                ("closures", _) => "closures",
                ("runs", _) => "runs at all",
                _ => "Retry-After",
            };
            (fault["name"].as_str().unwrap(), rule)
        })
        .collect();
    assert_eq!(documented, listed);
    assert!(listed.len() >= 14);
}

/// The run of the faults would say so too, but takes long and so runs rarely.
#[test]
fn every_deliberate_fault_finds_its_text_exactly_once() {
    let list: toml::Table = include_str!("../faults.toml").parse().unwrap();
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stale: Vec<String> = list["fault"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|fault| {
            let [name, file, find] = ["name", "file", "find"].map(|key| fault[key].as_str().unwrap());
            let source = std::fs::read_to_string(project.join(file)).unwrap();
            let count = source.matches(find).count();
            (count != 1).then(|| format!("\"{name}\": {count} times in {file}"))
        })
        .collect();
    assert!(stale.is_empty(), "texts of faults.toml: {stale:#?}");
}
