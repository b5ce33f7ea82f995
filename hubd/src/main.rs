//! The hub: parse, validate, run.

mod cli;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    match cli::parse() {
        Command::Init(args) => cli::init(&args),
        Command::Validate(args) => cli::validate(&args),
        Command::Run(args) => match cli::load(&args.dir) {
            Ok(config) => hubd::run::run(config),
            Err(code) => code,
        },
    }
}
