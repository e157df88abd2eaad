//! `coreflow config check FILE…` and `coreflow config print`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::common::{Common, EXIT_WRONG_USAGE, printed};
use crate::config::{Config, ConfigError};

/// Check tuning files, or print the tuning that a node would run with
#[derive(Args, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Say what is wrong with tuning files: every error with its line; exit 2 if there is one
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the values in effect, with the meaning, range and cost of every key
    Print,
}

/// Runs the subcommand; results go to `out`, errors to `err`.
pub fn run(
    args: &ConfigArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    match &args.action {
        Action::Check { files } => {
            let reports: Vec<_> = files.iter().map(|file| Report::new(file, common)).collect();
            let valid = reports.iter().all(|report| report.ok);
            let code = if valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_WRONG_USAGE) };
            printed(tell(&reports, common.json, out, err), code)
        }
        Action::Print => match common.load_or_explain(err) {
            Ok(config) if common.json => {
                printed(writeln!(out, "{}", config.print_json()), ExitCode::SUCCESS)
            }
            Ok(config) => printed(out.write_all(config.print_toml().as_bytes()), ExitCode::SUCCESS),
            Err(code) => code,
        },
    }
}

/// What `config check` found in one file.
#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    errors: Vec<ConfigError>,
}

impl Report {
    fn new(file: &Path, common: &Common) -> Self {
        let errors = Config::load(file, &common.overrides).err();
        let errors = errors.map(|errors| errors.0).unwrap_or_default();
        Self { file: file.display().to_string(), ok: errors.is_empty(), errors }
    }
}

fn tell(
    reports: &[Report],
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    if json {
        let text = simd_json::to_string(reports).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    for report in reports {
        if report.ok {
            writeln!(out, "{}: ok", report.file)?;
        }
        for error in &report.errors {
            writeln!(err, "{error}")?;
        }
    }
    Ok(())
}
