//! The flags that every subcommand shares.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Config, ConfigErrors};

/// The exit code of wrong usage or configuration.
pub const EXIT_WRONG_USAGE: u8 = 2;

/// The exit code of a check that could not be made: nothing is known of what was to be looked at.
pub const EXIT_NOT_LOOKED: u8 = 3;

/// Where a subcommand's tuning comes from, and how it prints.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// Tuning file; without one, every key has its default
    #[arg(long, global = true, value_name = "FILE", env = "COREFLOW_CONFIG")]
    pub config: Option<PathBuf>,
    /// Override one key, such as mesh.batch_messages=10 or agent.echo.max=8; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Common {
    /// The configuration that the flags name.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the overrides.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        match &self.config {
            Some(path) => Config::load(path, &self.overrides),
            None => Config::parse("", "the defaults", &self.overrides),
        }
    }

    /// The configuration, or the exit code after its errors went to `err`.
    ///
    /// # Errors
    /// [`EXIT_WRONG_USAGE`] as an exit code.
    pub fn load_or_explain(&self, err: &mut dyn Write) -> Result<Config, ExitCode> {
        self.load().map_err(|errors| {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "{errors}");
            ExitCode::from(EXIT_WRONG_USAGE)
        })
    }
}

/// The exit code after an error that ended the subcommand and goes to the log: a configuration that
/// the host does not allow is wrong usage, as one that nothing allows.
pub fn failed(error: &io::Error) -> ExitCode {
    tracing::error!("{error}");
    match error.kind() {
        io::ErrorKind::InvalidInput => ExitCode::from(EXIT_WRONG_USAGE),
        _ => ExitCode::FAILURE,
    }
}

/// The exit code after printing: a reader that closed the pipe early is no failure.
pub fn printed(result: io::Result<()>, code: ExitCode) -> ExitCode {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => code,
    }
}
