//! The daemon around [`hub_core`]: edges, and the one place that joins them.
//!
//! A payment's way: [`devices`] (QUIC session, signature checked) → the hub
//! (`hub.rs`: `core.handle`) → [`ledger`] (group commit) → the hub →
//! `devices` (receipt). Later [`upstream`] (replay to the gateway). The edges
//! never import each other; they speak to the hub through [`port`].

pub mod admin;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod data_key;
pub mod devices;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod hub;
pub mod init;
pub mod iso8583;
pub mod key_ring;
pub mod ledger;
pub mod port;
pub mod qr;
pub mod recovery_key;
pub mod rehearsal;
pub mod run;
pub mod seclude;
pub mod upstream;
