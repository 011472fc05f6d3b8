//! The program: arguments → plan → one match.

mod args;
mod bench;
mod bench_train;
mod device;
mod evaluate;
mod generate;
mod interrupt;
mod model;
mod progress;
mod scenes;
mod serve;
mod show;
mod train;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, ScenesCommand};

/// What the person asked for cannot be; clap exits with the same for options that it does not know.
const USAGE: u8 = 2;
/// Files, memory or the machine stood in the way.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => device::on(args.model.device, || generate::run(&args)),
        Command::Train(args) => device::on(args.device, || train::run(&args)),
        Command::Evaluate(command) => evaluate::run(&command),
        Command::Scenes(ScenesCommand::Render(args)) => scenes::render(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Serve(args) => device::on(args.model.device, || serve::run(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Our messages name their cause themselves.
            eprintln!("error: {error}");
            let usage = error
                .downcast_ref::<velatura::Error>()
                .is_some_and(velatura::Error::is_usage);
            ExitCode::from(if usage { USAGE } else { FAILURE })
        }
    }
}
