//! What the whole-system tests share: programs, processes, namespaces,
//! and what the machine must have for them.

pub mod defences;
pub mod hub;
pub mod image;
pub mod machine;
pub mod namespaces;
pub mod peer;
pub mod process;
pub mod served;
pub mod shop;
pub mod year;
