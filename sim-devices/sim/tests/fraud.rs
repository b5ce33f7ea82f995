//! Fraud in offline shop days, on a few seeds; docs/fraud.md has the figures of
//! many, and the command. The bounds are loose: they hold a detector that finds
//! nothing or cries wolf, not a percent.
#![cfg(feature = "cli")]
#![allow(missing_docs, clippy::unwrap_used)]

use hub_sim::fraud::measure::{Measured, Seeds, measure};
use hub_sim::fraud::{Scenario, rules};

/// Neither tuned on nor reported.
const SEEDS: Seeds = Seeds {
    first: 5_001,
    last: 5_030,
};

fn watchful() -> Measured {
    let contender = rules::whole("watchful", rules::WATCHFUL).unwrap();
    measure(&contender, SEEDS, 2, &|_| {})
}

/// As the document does it.
#[test]
fn the_detectors_of_every_sample_can_stand_in_for_those_of_the_watchful_one() {
    let everything = include_str!("../../../config/policies/everything.toml");
    for other in [everything, rules::WATCHFUL] {
        assert!(rules::with_detectors_of("other", rules::WATCHFUL, other).is_ok());
        assert!(rules::without_detectors("without", other).is_ok());
        assert!(rules::caps_only("caps", other).is_ok());
        assert!(rules::with_refunds("refunds", other).is_ok());
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part * 100 / whole
}

#[test]
fn most_attacks_are_seen_and_few_honest_payments_flagged() {
    let measured = watchful();
    let seen = |wanted: Scenario| {
        let (_, tally) = measured
            .scenarios
            .iter()
            .find(|(scenario, _)| *scenario == wanted)
            .unwrap();
        assert_eq!(tally.incidents, 30);
        percent(tally.incidents_flagged_at_device, tally.incidents)
    };
    for (scenario, least) in [
        (Scenario::StolenCard, 15),
        (Scenario::CardTesting, 70),
        (Scenario::Splitting, 60),
        (Scenario::CompromisedDevice, 60),
        (Scenario::ClonedDevice, 50),
        (Scenario::RefundAbuse, 70),
    ] {
        assert!(
            seen(scenario) >= least,
            "{}: {} %",
            scenario.name(),
            seen(scenario)
        );
    }
    let all = measured.all();
    assert!(all.honest > 10_000);
    assert!(
        all.honest_flagged * 1_000 <= all.honest * 6,
        "{} of {}",
        all.honest_flagged,
        all.honest
    );
    let true_alarms = measured.fraud();
    assert!(percent(true_alarms.alarms_true, true_alarms.alarms) >= 60);
}

#[test]
fn a_watchful_policy_lets_through_less_than_fixed_caps_and_than_limits_alone() {
    let through = |contender: Result<_, String>| {
        let measured = measure(&contender.unwrap(), SEEDS, 2, &|_| {});
        let fraud = measured.fraud();
        assert_eq!(fraud.honest_flagged, fraud.alarms);
        fraud.let_through
    };
    let caps = through(rules::caps_only("caps", rules::WATCHFUL));
    let limits = through(rules::without_detectors("limits", rules::WATCHFUL));
    let watchful = watchful().fraud().let_through;
    assert!(limits * 10 < caps * 8, "{limits} of {caps}");
    assert!(watchful * 10 < limits * 9, "{watchful} of {limits}");
}

#[test]
fn the_same_seeds_give_the_same_figures_on_any_number_of_threads() {
    let few = Seeds { first: 7, last: 10 };
    let contender = rules::whole("watchful", rules::WATCHFUL).unwrap();
    let one = measure(&contender, few, 1, &|_| {});
    assert_eq!(one, measure(&contender, few, 3, &|_| {}));
    let others = Seeds { first: 11, last: 14 };
    assert_ne!(one, measure(&contender, others, 1, &|_| {}));
}

#[test]
fn the_document_has_a_row_for_every_scenario() {
    let text = include_str!("../../../docs/fraud.md");
    for scenario in Scenario::ALL {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
        let named = rows.filter(|line| line.starts_with(scenario.name()));
        assert_eq!(named.count(), 3, "{}", scenario.name());
    }
}
