//! `coreflow bench-agent FILE`, which the nodes of `coreflow bench reliability` run as agents.

use crate::bench::child;
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

/// Work on the tasks of a benchmark as the child of an exec agent
#[derive(Args, Debug)]
#[command(hide = true)]
pub struct BenchAgentArgs {
    /// Where a line goes for each task
    effects: PathBuf,
    /// Never answer the first attempt of a task
    #[arg(long)]
    hang_first: bool,
}

/// Runs the subcommand.
pub fn run(args: &BenchAgentArgs) -> ExitCode {
    match child::run(&args.effects, args.hang_first) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
