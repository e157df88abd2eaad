//! `coreflow bench SUITE`.

use super::common::{Common, failed, printed};
use crate::bench::{self, Effort, Figure, Measured, Report, Suite, VectorFiles};
use clap::Args;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Seconds that a component is measured at full and at quick effort.
const SECONDS: (f64, f64) = (5.0, 0.5);

/// Measure this machine on nodes that are pinned as the tuning says
///
/// The nodes of durable_tasks, of consensus, consensus_finality and of the suite reliability are
/// processes of their own, with their logs in a folder inside DIR that is removed afterwards: DIR's
/// disk is the one that is measured.
///
/// Writes DIR/SUITE.json and DIR/COMPONENT.hgrm, to be compared with `coreflow compare`. The exit
/// code tells whether the measurement went well, not whether goals were met.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    suite: Suite,
    /// Where the report and the histograms go
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    out: PathBuf,
    /// A small run, to see that everything works
    #[arg(long)]
    quick: bool,
    /// How long each component is measured [default: 5, with --quick 0.5]
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<f64>,
    /// Open loop: messages in a second [default: 1000000], submissions of consensus_finality
    /// [default: 100000]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<u64>,
    /// Measure only this component
    #[arg(long, value_name = "COMPONENT", value_parser = component)]
    only: Option<&'static str>,
    /// Reliability: tasks that live through the kills of their node [default: 1000000, with
    /// --quick 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..=5_000_000))]
    tasks: Option<u32>,
    /// Vectors to store and search instead of made ones: .npy, float16 or float32
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Vectors to search for [default: a thousand of --vectors]
    #[arg(long, value_name = "FILE", requires = "vectors")]
    queries: Option<PathBuf>,
    /// Rows of the nearest of --vectors by cosine, a row of integers for each query [default: computed]
    #[arg(long, value_name = "FILE", requires = "queries")]
    truth: Option<PathBuf>,
    /// Reliability: kill at the same times as the run that told this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, 0 to 3600".into()),
    }
}

fn component(name: &str) -> Result<&'static str, String> {
    let mut found = bench::COMPONENTS.into_iter().filter(|component| *component == name);
    found.next().ok_or_else(|| format!("one of {}", bench::COMPONENTS.join(", ")))
}

fn rate(text: &str) -> Result<u64, String> {
    bench::check_rate(text.parse().map_err(|_| "a whole number".to_owned())?)
}

/// Runs the subcommand; figures go to `out`, progress to `err`.
pub fn run(
    args: &BenchArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let config = match common.load_or_explain(err) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let default = if args.quick { SECONDS.1 } else { SECONDS.0 };
    let effort = Effort {
        quick: args.quick,
        seconds: args.seconds.unwrap_or(default),
        rate: args.rate,
        only: args.only,
        tasks: args.tasks,
        seed: args.seed,
    };
    let files = VectorFiles {
        vectors: args.vectors.clone(),
        queries: args.queries.clone(),
        truth: args.truth.clone(),
    };
    let mut reports = BTreeMap::new();
    for &suite in args.suite.parts() {
        let told = bench::run(suite, &config, &effort, &files, &args.out, |component| {
            // Progress is worth nothing to whoever closed standard error.
            let _ = writeln!(err, "measuring {component} …");
        });
        let report = told.and_then(|report| report.write(&args.out, suite).map(|()| report));
        let report = match report {
            Ok(report) => report,
            Err(error) => return failed(&error),
        };
        let shown = if common.json { Ok(()) } else { show(&report, out) };
        let code = printed(shown, ExitCode::SUCCESS);
        if code != ExitCode::SUCCESS {
            return code;
        }
        reports.insert(suite.name(), report);
    }
    match common.json {
        true => printed(json(args.suite, &reports, out), ExitCode::SUCCESS),
        false => ExitCode::SUCCESS,
    }
}

/// One document: the report of a suite as in its file, and of several suites each under its name.
fn json(
    suite: Suite,
    reports: &BTreeMap<&'static str, Report>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let text = match reports.get(suite.name()) {
        Some(report) => report.to_json()?,
        None => simd_json::to_string_pretty(reports).map_err(io::Error::other)?,
    };
    writeln!(out, "{text}")
}

fn show(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let manifest = &report.manifest;
    for (when, probe) in [("before", manifest.probe_before), ("after", manifest.probe_after)] {
        if probe.ring_msgs_per_s == 0.0 {
            writeln!(out, "ring probe {when}: not measured: it takes two processors")?;
            continue;
        }
        writeln!(
            out,
            "ring probe {when}: round trip p50 {:.0} ns, p99 {:.0} ns, {:.1} M messages/s",
            probe.ring_p50_ns,
            probe.ring_p99_ns,
            probe.ring_msgs_per_s / 1e6
        )?;
    }
    for measured in &report.results {
        let goal = if measured.goal_met() { "goal met" } else { "goal missed" };
        writeln!(out, "{:24} {}, {goal}", measured.component, figure(measured))?;
        for (name, figure) in &measured.figures {
            if let Figure::Curve(points) = figure {
                write!(out, "{name}:\n{}", bench::table(points))?;
            }
        }
    }
    Ok(())
}

fn figure(measured: &Measured) -> String {
    let (name, value) = (measured.main(), measured.main_value());
    match &measured.latency {
        _ if name == "throughput_searches_per_s" => format!("{:.1} K/s ({name})", value / 1e3),
        _ if name.ends_with("_per_s") => format!("{:.2} M/s ({name})", value / 1e6),
        Some(latency) => format!(
            "p50 {:.2} µs, p99 {:.2} µs, p99.9 {:.2} µs",
            latency.quantile_ms(0.5) * 1e3,
            latency.quantile_ms(0.99) * 1e3,
            latency.quantile_ms(0.999) * 1e3
        ),
        None => format!("{value} {}", name.replace('_', " ")),
    }
}
