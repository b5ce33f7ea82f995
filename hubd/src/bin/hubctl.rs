//! Speaks to a running hub, and checks its ledger and policies.

use std::process::ExitCode;

fn main() -> ExitCode {
    hubd::ctl::main()
}
