//! The command line: one file a subcommand, no logic of its own.

pub mod common;
pub mod config;
pub mod doctor;

use std::process::ExitCode;

/// Parses the command line, runs the subcommand and tells the exit code.
///
/// Exit codes: 0 went well, 1 failed or regressed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
