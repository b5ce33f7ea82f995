//! `sim-devices`: the demo, real days, the load, and single parts by hand.
//!
//! Exit codes: 0 the books agree; 1 they do not, or it could not be run;
//! 2 wrong usage.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use sim_devices::progress::Progress;
use sim_devices::report::Report;
use sim_devices::scene::Scene;
use sim_devices::{day, demo, drain, flood, gateway, load, payments};

mod cli;
use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error")),
        )
        .try_init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(cli.command, Command::Load(_)) {
        // The devices' side is to take as little as it can of the processors
        // that it shares with the hub.
        runtime.worker_threads(1);
    }
    let done = runtime
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(code) => code,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "sim-devices: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    match cli.command {
        Command::Demo(args) => {
            let (report, scene) = demo::run(&args.options()?, &progress).await?;
            finish(&report, scene, args.run.json)
        }
        Command::Day(args) => {
            let (report, scene) = day::run(&args.options()?, &progress).await?;
            finish(&report, scene, args.run.json)
        }
        Command::Payments(args) => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            match payments::write(&args.options(), &mut out).and_then(|()| Ok(out.flush()?)) {
                // Whoever reads has seen enough.
                Err(error) if is_broken_pipe(&error) => {}
                done => done?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Sim(args) => Ok(match hub_sim::cli::main(&args)? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }),
        Command::Load(args) => {
            let report = load::run(&args.options(), &progress).await?;
            let mut out = std::io::stdout().lock();
            if args.run.json {
                writeln!(out, "{}", report.to_json())?;
            } else {
                report.print(&mut out)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Drain(args) => {
            let report = drain::run(&args.options(), &progress).await?;
            let mut out = std::io::stdout().lock();
            if args.run.json {
                writeln!(out, "{}", serde_json::to_string(&report)?)?;
            } else {
                report.print(&mut out)?;
            }
            Ok(if report.clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Flood(args) => {
            let report = flood::run(&args.options(), &progress).await?;
            let mut out = std::io::stdout().lock();
            if args.run.json {
                writeln!(out, "{}", report.to_json()?)?;
            } else {
                report.print(&mut out)?;
            }
            Ok(if report.clean() && report.is_within(args.at_most) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Gateway(args) => {
            gateway::run(args.options()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Attest(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Device(args) => {
            args.run().await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints the report. When the books do not agree, the evidence is kept, and
/// the report with it.
fn finish(report: &Report, scene: Scene, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        report.print(&mut out)?;
    }
    if report.clean() {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = scene.keep();
    writeln!(
        std::io::stderr(),
        "the evidence is kept in {}, the verdict in report.json",
        kept.display()
    )?;
    std::fs::write(kept.join("report.json"), format!("{}\n", report.to_json()))?;
    Ok(ExitCode::FAILURE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
