//! Holds `docs/gateway.openapi.yaml` and `docs/gateway-api.md` to what is
//! served here. Reads lines instead of YAML: the file is written in one style
//! and a parser would be a dependency for a test.

use std::collections::BTreeSet;

use axum::response::IntoResponse as _;
use hub_protocol::{CardScheme, Cryptogram, EntryMode, Funding, Verification};

use super::api::ROUTES;
use super::problem::Problem;

const OPENAPI: &str = include_str!("../../../docs/gateway.openapi.yaml");
const WORDS: &str = include_str!("../../../docs/gateway-api.md");

/// Every refusal that the gateway makes.
fn problems() -> [Problem; 9] {
    [
        Problem::malformed("the fields differ from the signed request"),
        Problem::card_not_opened("the sealed card does not open for this payment and this store"),
        Problem::unauthorised(),
        Problem::unknown("0198c1de-7a31-7c3e-9d52-0a6b1f3c4d5e"),
        Problem::in_progress(),
        Problem::too_large(),
        Problem::conflict(),
        Problem::throttled(None),
        Problem::unavailable(None),
    ]
}

#[test]
fn every_route_of_the_openapi_file_is_served_and_none_besides() {
    let documented: BTreeSet<_> = OPENAPI
        .lines()
        .filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':'))
        .map(|path| format!("/{path}"))
        .collect();
    let served: BTreeSet<_> = ROUTES.map(str::to_owned).into();
    assert_eq!(documented, served);
    for route in ROUTES {
        assert!(WORDS.contains(route), "gateway-api.md does not name {route}");
    }
}

#[test]
fn every_refusal_stands_in_the_openapi_file_as_it_is_made() {
    for problem in problems() {
        let example = problem.example();
        assert!(OPENAPI.contains(&example), "missing: {example}");
        let status = problem.into_response().status().as_u16();
        assert!(OPENAPI.contains(&format!("        \"{status}\":")), "{status}");
    }
}

#[test]
fn every_status_of_the_openapi_file_is_explained_in_words() {
    let statuses: BTreeSet<_> = OPENAPI
        .lines()
        .filter_map(|line| line.strip_prefix("        \"")?.strip_suffix("\":"))
        .collect();
    assert!(
        statuses.contains("200") && statuses.contains("202"),
        "{statuses:?}"
    );
    let explained = WORDS
        .lines()
        .skip_while(|line| !line.starts_with("## What hubd does"))
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split('|').nth(1))
        .collect::<Vec<_>>()
        .join(" ");
    for status in statuses {
        let status = if status == "503" { "5XX" } else { status };
        let named = explained.to_uppercase().contains(status);
        assert!(named, "{status} in {explained}");
    }
}

#[test]
fn every_name_on_the_wire_stands_in_the_documents() {
    fn names(all: impl Iterator<Item = &'static str>) -> String {
        all.collect::<Vec<_>>().join(", ")
    }
    for (field, names) in [
        ("scheme", names(CardScheme::ALL.iter().map(|c| c.name()))),
        ("funding", names(Funding::ALL.iter().map(|c| c.name()))),
        ("entry_mode", names(EntryMode::ALL.iter().map(|c| c.name()))),
        ("verification", names(Verification::ALL.iter().map(|c| c.name()))),
        ("cryptogram", names(Cryptogram::ALL.iter().map(|c| c.name()))),
    ] {
        assert!(OPENAPI.contains(&format!("enum: [{names}]")), "{field}: {names}");
        for name in names.split(", ") {
            assert!(WORDS.contains(&format!("`{name}`")), "{field}: {name}");
        }
    }
}
