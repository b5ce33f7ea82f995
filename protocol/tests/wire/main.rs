//! The contract of the wire, held byte by byte: golden vectors, damaged
//! input, properties, and the tables of `docs/protocol.md`.
//!
//! `UPDATE_VECTORS=1 cargo test -p hub-protocol` writes the vectors and the
//! generated tables anew. A change of committed bytes is a change of the
//! protocol: see "Versions" in `docs/protocol.md`.

// A helper of a test fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cddl;
mod document;
mod files;
mod fixtures;
mod frames;
mod judge;
mod ledger;
mod objects;
mod properties;
mod refusals;
mod roots;
mod sealed;
mod source;
mod strategies;
mod texts;
mod tree;
