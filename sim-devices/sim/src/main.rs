//! `hub-sim`: the simulator by itself. `sim-devices sim` is the same.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hub_sim::cli::{self, SimArgs};

/// A shop in virtual time around the real core, with every fault that is
/// known, and the rules held to all that comes out.
#[derive(Parser)]
#[command(name = "hub-sim", version)]
struct Cli {
    #[command(flatten)]
    sim: SimArgs,
}

fn main() -> ExitCode {
    match cli::main(&Cli::parse().sim) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hub-sim: {error}");
            ExitCode::from(74)
        }
    }
}
