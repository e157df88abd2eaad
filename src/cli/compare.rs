//! `coreflow compare A B`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::common::{Common, EXIT_WRONG_USAGE, printed};
use crate::metrics::compare::{Change, Comparison, Row, Unit, Verdict, compare};
use crate::metrics::{results, svg, unit};

/// Hold run B against run A: figures side by side, their change, and a verdict
///
/// A and B are two .hgrm files, or two folders that `coreflow bench` wrote. p50, p90, p99 and
/// throughput count for the verdict; p99.9 and max are shown and do not count, since a few records
/// make them. Warnings tell where the runs were not measured under the same conditions.
///
/// Exit codes: 0 no regression, 1 a figure that counts is worse by more than the threshold,
/// 2 wrong usage, such as a file that is missing or broken.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// The run to compare with: a .hgrm file or a bench folder
    a: PathBuf,
    /// The run to judge: of the same kind
    b: PathBuf,
    /// Draw both runs to a file: percentile curves, and throughput as bars
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Changes up to here are taken for noise, such as 10% or 2.5
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    threshold: f64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    a: String,
    b: String,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent),
        _ => Err("a percentage from 0 to 1000, such as 10% or 2.5".into()),
    }
}

/// Runs the subcommand; the comparison goes to `out`, warnings and errors to `err`.
pub fn run(
    args: &CompareArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let refuse = |problem: &str, err: &mut dyn Write| {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(err, "{problem}");
        ExitCode::from(EXIT_WRONG_USAGE)
    };
    let [a, b] = match results::read_pair(&args.a, &args.b) {
        Ok(pair) => pair,
        Err(error) => return refuse(&error.to_string(), err),
    };
    let comparison = compare(&a, &b, args.threshold);
    let [name_a, name_b] = [&args.a, &args.b].map(|path| path.display().to_string());
    if comparison.rows.is_empty() {
        let problem = format!(
            "{name_a} and {name_b} have no figure in common; name two runs of the same suite"
        );
        return refuse(&problem, err);
    }
    if let Some(file) = &args.svg {
        let drawing = svg::draw([&name_a, &name_b], [&a, &b], &comparison);
        if let Err(error) = write_file(file, &drawing) {
            let problem = format!(
                "{}: cannot be written: {error}; name a file in a folder that exists",
                file.display()
            );
            return refuse(&problem, err);
        }
    }
    let regressed = comparison.verdict == Verdict::Regressed;
    let code = if regressed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let result = if common.json {
        json(&Answer { a: name_a, b: name_b, comparison: &comparison }, out)
    } else {
        for warning in &comparison.warnings {
            let _ = writeln!(err, "warning: {warning}");
        }
        table([&name_a, &name_b], &comparison, out)
    };
    printed(result, code)
}

/// A reader sees the old picture or the new one, never a half.
fn write_file(file: &Path, text: &str) -> io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, file))
}

fn json(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", simd_json::to_string(answer).map_err(io::Error::other)?)
}

fn table(names: [&str; 2], comparison: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "A  {}\nB  {}\n", names[0], names[1])?;
    let width = |of: fn(&Row) -> &str, least: usize| {
        comparison.rows.iter().map(|row| of(row).chars().count()).fold(least, usize::max)
    };
    let components = width(|row| &row.component, "component".len());
    let figures = width(|row| &row.figure, "figure".len());
    writeln!(
        out,
        "{:components$}  {:figures$}  {:>12}  {:>12}  {:>9}",
        "component", "figure", "A", "B", "change"
    )?;
    let mut last = "";
    for row in &comparison.rows {
        let component = if row.component == last { "" } else { &row.component };
        last = &row.component;
        let [a, b] = [row.a, row.b].map(|value| match row.unit {
            Unit::Milliseconds => unit::latency(value),
            Unit::PerSecond => unit::per_second(value),
        });
        let change = match row.change_pct {
            Some(change) => format!("{change:+.1} %"),
            None => "from 0".into(),
        };
        let line = format!(
            "{component:components$}  {:figures$}  {a:>12}  {b:>12}  {change:>9}  {}",
            row.figure,
            remark(row)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    for (side, only) in [("A", &comparison.only_in_a), ("B", &comparison.only_in_b)] {
        if !only.is_empty() {
            writeln!(out, "only in {side}: {}", only.join(", "))?;
        }
    }
    let threshold = comparison.threshold_pct;
    match comparison.verdict {
        Verdict::Regressed => {
            let regressions = comparison.regressions.join(", ");
            writeln!(out, "verdict: regressed by more than {threshold} %: {regressions}")
        }
        Verdict::Improved => writeln!(out, "verdict: improved by more than {threshold} %"),
        Verdict::Unchanged => writeln!(out, "verdict: no change beyond {threshold} %"),
    }
}

fn remark(row: &Row) -> &'static str {
    match (row.change, row.judged) {
        (Change::Within, _) => "",
        (Change::Worse, true) => "worse",
        (Change::Worse, false) => "worse (does not count)",
        (Change::Better, true) => "better",
        (Change::Better, false) => "better (does not count)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_percentage_with_or_without_its_sign() {
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent("2.5"), Ok(2.5));
        assert_eq!(percent("0 %"), Ok(0.0));
        for wrong in ["", "%", "-1", "ten", "NaN", "inf", "1001", "10%%"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
