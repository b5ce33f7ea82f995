//! What a card with something at risk takes in memory: the growth of the
//! resident set, with everything that the allocator adds, from no card to so
//! many.
//!
//!     cargo bench -p hub-core --bench memory
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

mod shop;

use shop::Shop;

/// How many, unless told otherwise.
const CARDS: u64 = 100_000;

fn main() {
    let asked = std::env::args().find_map(|text| text.parse::<u64>().ok());
    let cards = asked.unwrap_or(CARDS);
    // One size a process: what another run has freed would hide what this one
    // takes. Payments are let go as they come; a first few thousand make the
    // room that those under way take.
    let mut shop = Shop::offline(usize::MAX);
    shop.sell(3_000);
    let before = (resident(), shop.approved);
    shop.sell(cards);
    let added = shop.approved - before.1;
    assert_eq!(added, cards, "every card has something at risk");
    println!("{cards} cards: {} bytes each", (resident() - before.0) / added);
}

/// Bytes of this process that are in memory (proc(5), statm).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}
