//! The hub: parse, validate, run.

mod cli;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    match cli::parse() {
        Command::Init(args) => cli::init(&args),
        Command::Validate(args) => cli::validate(&args),
        Command::Run(args) => {
            // Before the first key is read.
            let secluded = hubd::seclude::seclude();
            match cli::load(&args.dir) {
                Ok(config) => {
                    secluded.log();
                    hubd::run::run(config)
                }
                Err(code) => code,
            }
        }
    }
}
