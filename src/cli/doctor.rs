//! `coreflow doctor`: tells before a start what the machine will refuse or slow down.
//!
//! `host.rs` reads facts, `checks.rs` judges them against a configuration without touching the
//! machine, `probe.rs` asks the kernel for an io_uring. `log.rs` and `memory.rs` read a log
//! and a folder of pattern memory instead of the machine.

mod checks;
mod host;
mod log;
mod memory;
mod probe;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::common::{Common, printed};
use crate::config::Config;
use checks::{Check, Status};
use host::Host;

/// How long the share of stolen time is measured.
const STEAL_SAMPLE: Duration = Duration::from_millis(250);

/// Check this machine against the tuning: kernel, limits, cores, ports, what costs latency
///
/// Exit codes: 0 all is well, 1 a check failed or something is damaged, 2 wrong usage or configuration, 3
/// the log or the memory could not be looked at: a node uses it, it is not there, or the disk refuses.
#[derive(Args, Debug, Default)]
pub struct DoctorArgs {
    /// Verify the durable log instead: every checksum, what is in it, what is damaged
    #[arg(long, group = "kept")]
    pub log: bool,
    /// Verify pattern memory instead: every record; without a folder, that of the tuning (memory.folder)
    #[arg(long, value_name = "DIR", num_args = 0..=1, group = "kept")]
    pub memory: Option<Option<PathBuf>>,
    /// With --memory: drop what is damaged, so that the rest is whole; what it was is printed, and what is
    /// lost by it. Exit code 0 then, 1 where nothing says how the records are to be read
    #[arg(long, requires = "memory")]
    pub repair: bool,
    /// The folder of the log or of the memory; without it, the one of the tuning (log.folder,
    /// memory.folder)
    #[arg(long, value_name = "DIR", requires = "kept")]
    pub folder: Option<PathBuf>,
}

/// Runs every check; the report goes to `out`, errors of the configuration to `err`.
///
/// The exit code is 1 when a check failed: a node would not start, or not as configured; or when what was
/// looked at is damaged. It is [`EXIT_NOT_LOOKED`](super::common::EXIT_NOT_LOOKED) when that cannot be read.
pub fn run(
    args: &DoctorArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let named = args.memory.clone().flatten().or_else(|| args.folder.clone());
    let config = match (&args.memory, &named) {
        // A folder says itself what is in it.
        (Some(_), Some(_)) => Config::default(),
        _ => match common.load_or_explain(err) {
            Ok(config) => config,
            Err(code) => return code,
        },
    };
    if args.log {
        let folder = args.folder.clone().unwrap_or_else(|| config.log.folder.into());
        return log::run(&folder, common.json, out, err);
    }
    if args.memory.is_some() {
        let folder = named.unwrap_or_else(|| config.memory_folder());
        return match args.repair {
            true => memory::mend(&folder, config.memory.ef_construction, common.json, out, err),
            false => memory::run(&folder, common.json, out, err),
        };
    }
    let report = Report::new(&config);
    let failed = report.status == Status::Fail;
    let code = if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let result = if common.json { report.json(out) } else { report.text(out) };
    printed(result, code)
}

/// All checks, and the worst of their states.
#[derive(Serialize)]
struct Report {
    status: Status,
    config_hash: String,
    checks: Vec<Check>,
}

impl Report {
    fn new(config: &Config) -> Self {
        let mut host = Host::read(Path::new("/"));
        host.steal_pct = host::steal_pct(Path::new("/"), STEAL_SAMPLE);
        host.io_uring = probe::io_uring();
        host.busy = probe::busy_listeners(config);
        host.unfit_secrets = probe::unfit_secrets(config);
        let checks = checks::all(&host, config);
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Self { status, config_hash: config.hash(), checks }
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", simd_json::to_string(self).map_err(io::Error::other)?)
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for check in &self.checks {
            writeln!(out, "{:<5} {:<16} {}", check.status.word(), check.name, check.found)?;
            if let Some(advice) = &check.advice {
                writeln!(out, "{:<5} {:<16} -> {advice}", "", "")?;
            }
        }
        let count = |status| self.checks.iter().filter(|check| check.status == status).count();
        let (failed, warned) = (count(Status::Fail), count(Status::Warn));
        writeln!(out, "{} checks: {failed} failed, {warned} warnings", self.checks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_ports(json: bool) -> Common {
        let addresses = ["server.rpc_address=127.0.0.1:0", "server.http_address=127.0.0.1:0"];
        Common { config: None, overrides: addresses.map(str::to_owned).into(), json }
    }

    #[test]
    fn the_report_is_json_whose_status_is_the_worst_of_its_checks() {
        let mut out = Vec::new();
        run(&DoctorArgs::default(), &free_ports(true), &mut out, &mut io::sink());
        let report = simd_json::to_owned_value(&mut out).expect("valid JSON");
        let statuses: Vec<_> = match &report["checks"] {
            simd_json::OwnedValue::Array(checks) => {
                checks.iter().map(|check| check["status"].to_string()).collect()
            }
            other => panic!("{other} is not a list"),
        };
        let worst =
            ["fail", "warn", "ok"].into_iter().find(|word| statuses.contains(&(*word).into()));
        assert_eq!(Some(report["status"].to_string().as_str()), worst, "{statuses:?}");
    }

    #[test]
    fn the_report_for_people_has_a_line_for_each_check_and_a_sum() {
        let mut out = Vec::new();
        run(&DoctorArgs::default(), &free_ports(false), &mut out, &mut io::sink());
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("io_uring"), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("14 checks: ")), "{text}");
    }

    #[test]
    fn a_configuration_that_is_refused_exits_two_without_a_report() {
        let mut common = free_ports(false);
        common.overrides.push("mesh.ring_batches=3".to_owned());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&DoctorArgs::default(), &common, &mut out, &mut err);
        assert_eq!(code, ExitCode::from(2));
        assert!(out.is_empty() && !err.is_empty());
    }
}
