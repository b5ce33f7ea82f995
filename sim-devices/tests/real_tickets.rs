//! The two files of real tickets, where they are at hand. They are not part
//! of the project (the first is non-commercial).

#![allow(clippy::expect_used)] // a test that cannot read fails

use std::path::{Path, PathBuf};

use hub_protocol::card_number::holds_card_number;
use sim_devices::generate;
use sim_devices::skipped::Skip;
use sim_devices::tickets::{self, TicketFile};

/// `../shared/data` beside the project, or the folder that `SIM_TICKETS`
/// names.
fn read(name: &str) -> Option<TicketFile> {
    let folder = std::env::var_os("SIM_TICKETS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(tickets::read_file(&path).expect("a readable file"))
}

fn count(file: &TicketFile, reason: Skip) -> u64 {
    file.skipped.get(&reason).map_or(0, |skipped| skipped.count)
}

/// Every sale can be asked for, and none is lost on the way.
fn assert_playable(file: &TicketFile) {
    let sales = generate::from_tickets(1, &file.tickets);
    assert_eq!(sales.len(), file.tickets.len());
    for sale in sales {
        for text in [&sale.order_id, &sale.card.token] {
            assert!(
                (1..=64).contains(&text.len()) && !holds_card_number(text),
                "{text}"
            );
        }
    }
}

#[test]
fn the_supermarkets_card_tickets_are_played_and_the_others_named() {
    let Some(file) = read("supermarket_pl_2019.csv.gz") else {
        return;
    };
    assert_eq!((file.rows, file.tickets.len()), (10_000, 4324));
    assert_eq!(count(&file, Skip::PaidCash), 5510);
    assert_eq!(count(&file, Skip::PaidMixed), 56);
    assert_eq!(count(&file, Skip::PaidOther), 110);
    assert_eq!(file.skipped.len(), 3);
    assert_playable(&file);
}

#[test]
fn the_vending_machines_cards_keep_their_tokens() {
    let Some(file) = read("coffee_vending_ua_2024_2025.csv.gz") else {
        return;
    };
    assert_eq!((file.rows, file.tickets.len()), (3898, 3729));
    assert_eq!(count(&file, Skip::PaidCash), 169);
    let tokens: std::collections::HashSet<_> = file.tickets.iter().filter_map(|t| t.card.as_ref()).collect();
    assert_eq!(tokens.len(), 1316);
    assert_playable(&file);
}
