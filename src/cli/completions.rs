//! `coreflow completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use std::{io::Write, process::ExitCode};

/// Print the completion script of a shell, to be sourced or installed there
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs the subcommand for the command line `C`.
pub fn run<C: CommandFactory>(args: &CompletionsArgs, out: &mut dyn Write) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut C::command(), "coreflow", &mut script);
    super::common::printed(out.write_all(&script), ExitCode::SUCCESS)
}
