//! Rule 6, over real processes: what of card data lies on the disk, in the log
//! and in answers, and for how long.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod at_rest;
mod erased;
mod every_field;
mod raw;
mod secrets;
mod tree;
