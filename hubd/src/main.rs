//! The hub: parse, validate, run.

mod cli;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    // Before the first key is read, or made.
    let secluded = hubd::seclude::seclude();
    match cli::parse() {
        Command::Init(args) => {
            cli::tell(&secluded);
            cli::init(&args)
        }
        Command::Validate(args) => {
            cli::tell(&secluded);
            cli::validate(&args)
        }
        Command::Run(args) => match cli::load(&args.dir) {
            Ok(config) => {
                secluded.log();
                hubd::run::run(config)
            }
            Err(code) => code,
        },
    }
}
