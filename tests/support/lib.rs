//! What the whole-system tests share: programs, processes, namespaces.

pub mod hub;
pub mod image;
pub mod namespaces;
pub mod process;
pub mod served;
