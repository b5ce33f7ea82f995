//! ISO 8583 messages, without the line they go over: pure, no clock, no I/O.
//!
//! Every acquirer has its own idea of the standard, so what a message looks
//! like is no code but a dialect file ([`Dialect`], `docs/iso8583.md`): field
//! formats, bitmaps, encodings, length header, which field carries what, and
//! what a response code means. `config` reads it, `upstream` speaks it.
//!
//! What holds here:
//! - Reading never panics and never allocates more than the bytes it was
//!   given, whatever they are.
//! - A message is read whole or not at all: unknown fields, bytes left over
//!   and content outside its format are faults.
//! - What is written is read back as the same message.

pub mod bitmap;
mod currency;
pub mod dialect;
pub mod encoding;
pub mod field;
pub mod frame;
pub mod identity;
pub mod message;
pub mod trace;

pub use dialect::Dialect;
pub use field::Value;
pub use identity::Identity;
pub use message::{Message, MessageFault, Mti};
