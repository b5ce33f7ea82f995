//! The numbered enums as the source declares them: numbers, names and what
//! the comments say, for the tables of the document.

use hub_protocol::entry::{
    ClockQuality, Finding, ParkReason, StorageLevel, TraceRule, VoidEffect, WanReason, WanState,
};
use hub_protocol::*;

pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) variants: Vec<Variant>,
}

pub(crate) struct Variant {
    pub(crate) number: u16,
    pub(crate) text: String,
    pub(crate) doc: String,
}

impl Enum {
    /// The name in the document's grammar: `CardScheme` is `card-scheme`.
    pub(crate) fn rule(&self) -> String {
        let mut out = String::new();
        for letter in self.name.chars() {
            if letter.is_ascii_uppercase() && !out.is_empty() {
                out.push('-');
            }
            out.push(letter.to_ascii_lowercase());
        }
        out
    }
}

/// In the order of reading: what devices send, what hubs answer, the ledger.
const SOURCES: [&str; 12] = [
    include_str!("../../src/payment.rs"),
    include_str!("../../src/card_blob.rs"),
    include_str!("../../src/description.rs"),
    include_str!("../../src/receipt.rs"),
    include_str!("../../src/reason.rs"),
    include_str!("../../src/refusal.rs"),
    include_str!("../../src/entry.rs"),
    include_str!("../../src/closure.rs"),
    include_str!("../../src/anomaly.rs"),
    include_str!("../../src/score.rs"),
    include_str!("../../src/allowance.rs"),
    include_str!("../../src/root.rs"),
];

/// Every `codes!` enum of the crate.
pub(crate) fn enums() -> Vec<Enum> {
    let mut all = Vec::new();
    for block in SOURCES
        .iter()
        .flat_map(|source| source.split("\ncodes! {\n").skip(1))
    {
        let block = block.split("\n}\n").next().unwrap();
        let mut doc = String::new();
        let mut found: Option<Enum> = None;
        for line in block.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                doc = format!("{doc}{comment}");
            } else if let Some(rest) = line.strip_prefix("pub enum ") {
                let name = rest.trim_end_matches(" {").to_owned();
                found = Some(Enum {
                    name,
                    doc: plain(&core::mem::take(&mut doc)),
                    variants: Vec::new(),
                });
            } else if let Some((_, value)) = line.split_once(" = ") {
                let (number, text) = value.trim_end_matches(';').split_once(", ").unwrap();
                found.as_mut().unwrap().variants.push(Variant {
                    number: number.parse().unwrap(),
                    text: text.trim_matches('"').to_owned(),
                    doc: plain(&core::mem::take(&mut doc)),
                });
            }
        }
        all.push(found.unwrap());
    }
    all
}

/// A comment without its links.
fn plain(doc: &str) -> String {
    doc.trim().replace("[`", "`").replace("`]", "`")
}

#[test]
fn the_source_as_read_is_the_enums_as_compiled() {
    let read = enums();
    let mut left: Vec<&str> = read.iter().map(|one| one.name.as_str()).collect();
    macro_rules! compare {
        ($($name:ident)+) => { $(
            let one = read.iter().find(|one| one.name == stringify!($name)).unwrap();
            left.retain(|name| *name != stringify!($name));
            let compiled: Vec<_> = $name::ALL.iter().map(|v| (v.number(), v.name())).collect();
            let source: Vec<_> = one.variants.iter().map(|v| (v.number, v.text.as_str())).collect();
            assert_eq!(source, compiled);
            for variant in $name::ALL {
                assert_eq!($name::from_number(variant.number()), Some(*variant));
                assert_eq!(variant.name().parse(), Ok(*variant));
            }
            assert!(one.variants.iter().all(|v| v.doc.ends_with('.') && !v.doc.contains('|')));
        )+ };
    }
    compare!(DeviceClass CardScheme Funding EntryMode Verification Cryptogram Decision FallbackAction);
    compare!(Submission PaymentState Reason RefusalCode ClockQuality VoidEffect ParkReason WanState WanReason);
    compare!(Finding TraceRule Period);
    compare!(StorageLevel AnomalyKind Restriction RestrictionCause TransactionType Certification AttestationStatus ScoreFactor AllowanceMisuse SealScheme Delegated);
    assert!(left.is_empty(), "not compared: {left:?}");
}
