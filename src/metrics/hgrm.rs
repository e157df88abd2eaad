//! The four-column percentile text of the HdrHistogram family, as `hdr-plot` and the HdrHistogram
//! plotter read it.
//!
//! ```text
//!           Value     Percentile TotalCount 1/(1-Percentile)
//!
//!        0.000091 0.000000000000          1           1.00
//! …
//! #[Mean    =     0.000112, StdDeviation   =     0.000020]
//! #[Max     =     0.004271, Total count    =      1000000]
//! #[Buckets =           32, SubBuckets     =         2048]
//! ```
//!
//! Values are milliseconds with six decimals, so that nanoseconds survive; the programs that read
//! the text split at blanks and do not mind the width.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::curve::{Curve, Point, QUANTILE_DECIMALS};
use super::histogram::Latency;

/// Largest file that is read, bytes: a curve has some hundred lines, other tools write some
/// thousand.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Words of the line above the numbers.
const HEADER: [&str; 3] = ["Value", "Percentile", "TotalCount"];

/// A file that is no percentile text: nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct HgrmError {
    /// `FILE:LINE`, or `FILE` when the trouble is not one line's.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

/// The text of a histogram; header and footer alone when nothing was recorded.
pub fn to_text(latency: &Latency) -> String {
    let mut text = format!(
        "{:>15} {:>14} {:>10} {:>16}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let curve = Curve::of(latency);
    for point in curve.iter().flat_map(Curve::points) {
        let Point { value_ms, quantile, total_count } = point;
        let _ = write!(text, "{value_ms:15.6} {quantile:14.QUANTILE_DECIMALS$} {total_count:10}");
        // The last line has no fourth column: the quotient is infinite.
        let _ = match 1.0 - quantile {
            left if left > 0.0 => writeln!(text, " {:16.2}", 1.0 / left),
            _ => writeln!(text),
        };
    }
    let (mean, deviation) = latency.mean_and_deviation_ms();
    let max = curve.map_or(0.0, |curve| curve.max_ms());
    let (buckets, sub_buckets) = latency.buckets();
    let count = latency.count();
    let _ = writeln!(text, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]");
    let _ = writeln!(text, "#[Max     = {max:12.6}, Total count    = {count:12}]");
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    text
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is too large, or holds no curve; see [`parse`].
pub fn read(path: &Path) -> Result<Curve, HgrmError> {
    let place = path.display().to_string();
    match read_text(path) {
        Ok(text) => parse(&text, &place),
        Err(error) => Err(HgrmError { place, problem: format!("cannot be read: {error}") }),
    }
}

/// Parses a text; `file_name` is only for the errors.
///
/// What stands before the header line or after the footer is skipped, so the output of a load
/// generator that prints such a table is read too.
///
/// # Errors
/// With the line, when it is no point of a rising curve; without, when there is no header or no
/// point.
pub fn parse(text: &str, file_name: &str) -> Result<Curve, HgrmError> {
    let nowhere = |problem: &str| HgrmError { place: file_name.into(), problem: problem.into() };
    let mut lines = text.lines().enumerate();
    if !lines.any(|(_, line)| is_header(line)) {
        return Err(nowhere(
            "not a percentile file: the line \"Value Percentile TotalCount 1/(1-Percentile)\" is \
             missing",
        ));
    }
    let mut points: Vec<Point> = Vec::new();
    for (index, line) in lines {
        let here = |problem| HgrmError { place: format!("{file_name}:{}", index + 1), problem };
        if line.trim_start().starts_with('#') {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let point = parse_line(line).map_err(here)?;
        if points.last().is_some_and(|last| !last.may_precede(&point)) {
            return Err(here("a column is less than in the line before".into()));
        }
        points.push(point);
    }
    Curve::new(points).ok_or_else(|| nowhere("the percentile table is empty: nothing was recorded"))
}

fn is_header(line: &str) -> bool {
    let mut words = line.split_whitespace();
    HEADER.iter().all(|expected| words.next() == Some(expected))
}

/// Three or four columns; the fourth follows from the second and is not used.
fn parse_line(line: &str) -> Result<Point, String> {
    let columns: Vec<_> = line.split_whitespace().collect();
    if !(3..=4).contains(&columns.len()) {
        return Err(format!("{} columns where a line has three or four", columns.len()));
    }
    let number = |name: &str, column: &str| match column.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("{name} is {column:?}, not a number from 0")),
    };
    let value_ms = number("Value", columns[0])?;
    let quantile = number("Percentile", columns[1])?;
    if quantile > 1.0 {
        return Err(format!("Percentile is {quantile}, above 1"));
    }
    let total_count = columns[2].parse();
    let total_count =
        total_count.map_err(|_| format!("TotalCount is {:?}, not a whole number", columns[2]))?;
    Ok(Point { value_ms, quantile, total_count })
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if size as u64 > FILE_BYTES_MAX {
        let problem = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written by HdrHistogram's Python library 0.10.8: 2,000 values around 0.4 ms and ten outliers.
    const FIXTURE: &str = include_str!("fixtures/lognormal.hgrm");

    #[test]
    fn a_file_of_the_reference_implementation_is_read() {
        let curve = parse(FIXTURE, "lognormal.hgrm").unwrap();
        assert_eq!(curve.count(), 2010);
        assert_eq!(curve.value_ms(0.5), 0.397);
        assert_eq!(curve.value_ms(0.75), 0.556);
        assert_eq!(curve.max_ms(), 15.303);
        let p90 = curve.value_ms(0.9);
        assert!((0.711..0.888).contains(&p90), "{p90}");
    }

    #[test]
    fn a_table_inside_the_output_of_a_load_generator_is_read() {
        let text =
            format!("Running 1m test\n  4 threads\n\n{FIXTURE}----------\nRequests/sec: 9\n");
        assert_eq!(parse(&text, "output"), parse(FIXTURE, "fixture"));
        let infinite = FIXTURE.replace("1.000000000000       2010", "1.0 2010 inf");
        assert_eq!(parse(&infinite, "output"), parse(FIXTURE, "fixture"));
    }

    /// `hdr-plot` takes lines that begin with a blank and have four columns of digits and dots.
    #[test]
    fn every_line_but_the_last_is_one_that_plotters_take() {
        let mut latency = Latency::new();
        (1..=100).for_each(|index| latency.record(index * 36_000_000_000));
        let text = to_text(&latency);
        let rows: Vec<_> = text.lines().skip(2).filter(|line| !line.starts_with('#')).collect();
        let (last, rows) = rows.split_last().unwrap();
        for row in rows {
            let columns: Vec<_> = row.split_whitespace().collect();
            assert!(row.starts_with(' ') && columns.len() == 4, "{row}");
            assert!(columns.iter().all(|column| column.parse::<f64>().is_ok()), "{row}");
        }
        let last_but_one: Vec<_> = rows[rows.len() - 1].split_whitespace().collect();
        let last: Vec<_> = last.split_whitespace().collect();
        assert_eq!((last.len(), last[1]), (3, "1.000000000000"));
        assert_eq!(last[0], last_but_one[0], "the maximum is drawn too");
    }

    #[test]
    fn the_footer_tells_mean_maximum_and_sizes() {
        let mut latency = Latency::new();
        latency.record_n(1_000, 3);
        let text = to_text(&latency);
        let footer: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(footer[0], "#[Mean    =     0.001000, StdDeviation   =     0.000000]");
        assert_eq!(footer[1], "#[Max     =     0.001000, Total count    =            3]");
        assert_eq!(footer[2], "#[Buckets =           32, SubBuckets     =         2048]");
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        let refuse = |text: &str| parse(text, "a.hgrm").unwrap_err().to_string();
        let header = "Value Percentile TotalCount 1/(1-Percentile)\n\n";
        let with = |rows: &str| refuse(&format!("{header}{rows}"));
        assert!(refuse("{}").starts_with("a.hgrm: not a percentile file"));
        assert!(with("").starts_with("a.hgrm: the percentile table is empty"));
        assert!(with("1.0 0.5\n").starts_with("a.hgrm:3: 2 columns"));
        assert!(with("1.0 0.0 1 1.0\nfast 0.5 2 2\n").starts_with("a.hgrm:4: Value is \"fast\""));
        assert!(with("NaN 0.5 2 2\n").starts_with("a.hgrm:3: Value"));
        assert!(with("1.0 50.0 2 2\n").starts_with("a.hgrm:3: Percentile is 50, above 1"));
        assert!(with("1.0 0.5 2.5 2\n").starts_with("a.hgrm:3: TotalCount"));
        assert!(with("2 0.5 2 2\n1 0.6 3 2\n").starts_with("a.hgrm:4: a column is less"));
        let missing = read(Path::new("/nowhere/a.hgrm")).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/a.hgrm: cannot be read"), "{missing}");
    }

    proptest! {
        #[test]
        fn percentiles_survive_the_text(
            records in prop::collection::vec((1_u64..5_000_000_000, 1_u64..2_000), 1..200),
        ) {
            let mut latency = Latency::new();
            records.iter().for_each(|&(ns, count)| latency.record_n(ns, count));
            let curve = parse(&to_text(&latency), "proptest").unwrap();
            prop_assert_eq!(curve.count(), latency.count());
            for quantile in [0.0_f64, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0] {
                // At 0 the crate tells the lower end of the first bucket, the text the upper.
                let recorded = latency.quantile_ms(quantile.max(1e-12));
                let read = curve.value_ms(quantile);
                let distance = (read - recorded).abs();
                prop_assert!(distance <= recorded * 0.001, "{quantile}: {read}, not {recorded}");
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(rows in "([0-9. #a-z-]{0,12}[ \n]){0,20}") {
            let _ = parse(&format!("Value Percentile TotalCount\n{rows}"), "proptest");
        }
    }
}
