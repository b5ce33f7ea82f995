//! What `hubctl` asks of a running hub, over a Unix socket.
//!
//! One JSON object a line each way, a line for a line ([`protocol`]). The
//! socket is 0600, and the kernel says who connects: only root and the
//! daemon's own user are served. The server knows nothing of the hub; the
//! composition gives it a [`Backend`].

mod backend;
pub mod protocol;
mod server;

pub use backend::{Backend, EnrolOrder, Operator, Refused};
pub use server::{AdminError, AdminServer, Settings};
