//! The comparison of two runs: figures side by side, their change, and a verdict.
//!
//! The verdict counts the figures that repeat from run to run: p50, p90, p99 and throughput. p99.9
//! and the maximum are a handful of records that one pause of the host decides, so they are shown
//! and never judged.
//!
//! A run measures a machine as much as a program: [`Comparison::warnings`] tells where the
//! conditions of the two runs differ, and a verdict is worth little when there are any.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::manifest::Manifest;
use super::results::{Component, Results};

/// Percentiles that are compared: name, quantile, name in a report, whether the verdict counts it.
const PERCENTILES: [(&str, f64, &str, bool); 5] = [
    ("p50", 0.5, "p50_ms", true),
    ("p90", 0.9, "p90_ms", true),
    ("p99", 0.99, "p99_ms", true),
    ("p99.9", 0.999, "p999_ms", false),
    ("max", 1.0, "max_ms", false),
];
/// Figures whose names begin so are throughputs.
const THROUGHPUT: &str = "throughput_";
/// Figures that say how much work a round was: with others, figures do not compare.
const WORK: [&str; 5] = ["agents", "messages", "payload_bytes", "rate_per_s", "total_tasks"];
/// Ring probes that differ by a larger factor are of machines of different speeds.
const PROBE_FACTOR_MAX: f64 = 1.5;
/// What the last digits of floating-point numbers may add to a change, percent.
const ROUNDING_PCT: f64 = 1e-9;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Milliseconds: less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Something in a second: more is better.
    #[serde(rename = "1/s")]
    PerSecond,
}

/// What became of a figure from the first run to the second, held against the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Better by more than the threshold.
    Better,
    /// Within the threshold.
    Within,
    /// Worse by more than the threshold.
    Worse,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The component.
    pub component: String,
    /// The figure: a percentile, or the name of a throughput.
    pub figure: String,
    /// The unit of both values.
    pub unit: Unit,
    /// The first run's.
    pub a: f64,
    /// The second run's.
    pub b: f64,
    /// From the first to the second, percent of the first; `None` when the first is 0 and the
    /// second is not.
    pub change_pct: Option<f64>,
    /// The change, held against the threshold.
    pub change: Change,
    /// Whether the verdict counts it.
    pub judged: bool,
}

/// The sum of the rows that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No row is worse, and one is better.
    Improved,
    /// Every row is within the threshold.
    Unchanged,
    /// A row is worse.
    Regressed,
}

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Changes up to here are taken for noise, percent.
    pub threshold_pct: f64,
    /// The sum of the rows that count.
    pub verdict: Verdict,
    /// The rows that make a regression, as `COMPONENT FIGURE`.
    pub regressions: Vec<String>,
    /// Every figure that both runs have.
    pub rows: Vec<Row>,
    /// Components, or figures as `COMPONENT FIGURE`, that only the first run has.
    pub only_in_a: Vec<String>,
    /// Those that only the second run has.
    pub only_in_b: Vec<String>,
    /// Why the two runs may not compare, a sentence each.
    pub warnings: Vec<String>,
}

/// Compares two runs; the first is the one to hold the second against.
///
/// A change up to `threshold_pct` percent, inclusive, is taken for noise.
pub fn compare(a: &Results, b: &Results, threshold_pct: f64) -> Comparison {
    let mut rows = Vec::new();
    let mut only = [Vec::new(), Vec::new()];
    for name in union(&a.components, &b.components) {
        match (a.components.get(name), b.components.get(name)) {
            (Some(one), Some(other)) => {
                add_rows(name, [one, other], threshold_pct, &mut rows, &mut only);
            }
            (one, _) => only[usize::from(one.is_none())].push(name.clone()),
        }
    }
    let of_verdict = |change| rows.iter().filter(move |row| row.judged && row.change == change);
    let regressions: Vec<_> = of_verdict(Change::Worse).map(Row::name).collect();
    let verdict = match (regressions.is_empty(), of_verdict(Change::Better).next()) {
        (false, _) => Verdict::Regressed,
        (true, Some(_)) => Verdict::Improved,
        (true, None) => Verdict::Unchanged,
    };
    let [only_in_a, only_in_b] = only;
    let warnings = warnings(a, b);
    Comparison { threshold_pct, verdict, regressions, rows, only_in_a, only_in_b, warnings }
}

impl Row {
    /// `COMPONENT FIGURE`.
    pub fn name(&self) -> String {
        format!("{} {}", self.component, self.figure)
    }

    fn new(
        component: &str,
        figure: &str,
        unit: Unit,
        values: [f64; 2],
        threshold_pct: f64,
    ) -> Self {
        let [a, b] = values;
        let change_pct = match (a, b) {
            _ if a == b => Some(0.0),
            (0.0, _) => None,
            _ => Some((b - a) / a * 100.0),
        };
        let rise = change_pct.unwrap_or(f64::INFINITY);
        let gain = if unit == Unit::PerSecond { rise } else { -rise };
        let change = match threshold_pct + ROUNDING_PCT {
            beyond if gain > beyond => Change::Better,
            beyond if gain < -beyond => Change::Worse,
            _ => Change::Within,
        };
        let (component, figure) = (component.into(), figure.into());
        Self { component, figure, unit, a, b, change_pct, change, judged: true }
    }
}

fn add_rows(
    name: &str,
    components: [&Component; 2],
    threshold_pct: f64,
    rows: &mut Vec<Row>,
    only: &mut [Vec<String>; 2],
) {
    let mut add = |figure: &str, unit, judged, values: [Option<f64>; 2]| match values {
        [Some(a), Some(b)] => {
            rows.push(Row { judged, ..Row::new(name, figure, unit, [a, b], threshold_pct) });
        }
        [None, None] => {}
        [one, _] => only[usize::from(one.is_none())].push(format!("{name} {figure}")),
    };
    for (figure, quantile, reported, judged) in PERCENTILES {
        let of = |component: &Component| match &component.curve {
            Some(curve) => Some(curve.value_ms(quantile)),
            None => component.figures.get(reported).copied(),
        };
        add(figure, Unit::Milliseconds, judged, components.map(of));
    }
    let [one, other] = components;
    for figure in union(&one.figures, &other.figures) {
        if figure.starts_with(THROUGHPUT) {
            let values = components.map(|component| component.figures.get(figure).copied());
            add(figure, Unit::PerSecond, true, values);
        }
    }
}

fn warnings(a: &Results, b: &Results) -> Vec<String> {
    let mut warnings = Vec::new();
    for (side, results) in [("A", a), ("B", b)] {
        if results.manifests.is_empty() {
            warnings.push(format!(
                "{side} has no manifest: under which conditions it was measured is not known"
            ));
        }
    }
    let mut differing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (suite, one) in &a.manifests {
        let Some(other) = b.manifests.get(suite) else { continue };
        for difference in differences(one, other) {
            differing.entry(difference).or_default().push(suite);
        }
        warnings.extend(probe_warnings(suite, one, other));
    }
    let differing = differing.iter();
    warnings.extend(differing.map(|(what, suites)| format!("{}: {what}", suites.join(", "))));
    for (name, one) in &a.components {
        let Some(other) = b.components.get(name) else { continue };
        for figure in WORK {
            match (one.figures.get(figure), other.figures.get(figure)) {
                (Some(one), Some(other)) if one != other => warnings.push(format!(
                    "{name}: {figure} differs, A {one}, B {other}: not the same work"
                )),
                _ => {}
            }
        }
    }
    warnings
}

/// The conditions that two runs of a suite do not share.
fn differences(a: &Manifest, b: &Manifest) -> Vec<String> {
    let cores = [a, b].map(|manifest| manifest.cores.to_string());
    let conditions = [
        ("cpu", [&a.cpu, &b.cpu]),
        ("kernel", [&a.kernel, &b.kernel]),
        ("cores", cores.each_ref()),
        ("config_hash", [&a.config_hash, &b.config_hash]),
        ("profile", [&a.profile, &b.profile]),
        ("git", [&a.git, &b.git]),
    ];
    let differ = conditions.into_iter().filter(|(_, [one, other])| one != other);
    differ
        .map(|(name, [one, other])| format!("{name} differs, A \"{one}\", B \"{other}\""))
        .collect()
}

/// Says so when the machine did not have one speed in all four probes of two runs.
fn probe_warnings(suite: &str, a: &Manifest, b: &Manifest) -> Vec<String> {
    let probes = [a.probe_before, a.probe_after, b.probe_before, b.probe_after];
    let kinds = [
        ("round trip p50", "ns", probes.map(|probe| probe.ring_p50_ns)),
        ("rate", "M messages/s", probes.map(|probe| probe.ring_msgs_per_s / 1e6)),
    ];
    let differ = |(_, _, values): &(_, _, [f64; 4])| {
        let (least, most) = bounds(values);
        least > 0.0 && most / least > PROBE_FACTOR_MAX
    };
    let tell = |(what, unit, [a_before, a_after, b_before, b_after]): (_, _, [f64; 4])| {
        format!(
            "{suite}: the machine changed its speed: ring {what} in {unit} before and after, \
             A {a_before:.0} and {a_after:.0}, B {b_before:.0} and {b_after:.0}"
        )
    };
    kinds.into_iter().filter(differ).map(tell).collect()
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(0.0, f64::max))
}

/// The keys of both maps, in their order.
fn union<'a, T>(
    a: &'a BTreeMap<String, T>,
    b: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a String> {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::curve::{Curve, Point};
    use super::super::manifest::tests::manifest;
    use super::*;

    /// A percentile curve that rises in all the places that are compared.
    fn curve(scale: [f64; 5]) -> Curve {
        let points = PERCENTILES.iter().zip(scale).zip(1..).map(|((percentile, scale), value)| {
            let value_ms = f64::from(value) * scale;
            Point { value_ms, quantile: percentile.1, total_count: 1000 }
        });
        Curve::new(points.collect()).expect("it rises")
    }

    fn run(scale: [f64; 5], throughput: f64) -> Results {
        let mut results = Results::of_curve("message_latency", curve(scale));
        let figures = [("throughput_msg_per_s", throughput), ("target", 5.0), ("agents", 60.0)];
        let figures = figures.map(|(name, value)| (name.to_owned(), value)).into();
        let passing = Component { curve: None, figures };
        results.components.insert("message_passing".into(), passing);
        results.manifests.insert("latency".into(), manifest());
        results
    }

    #[test]
    fn identical_runs_have_no_change_and_no_warning() {
        let comparison = compare(&run([1.0; 5], 1e6), &run([1.0; 5], 1e6), 0.0);
        assert_eq!(comparison.verdict, Verdict::Unchanged);
        let figures: Vec<_> = comparison.rows.iter().map(|row| &*row.figure).collect();
        assert_eq!(figures, ["p50", "p90", "p99", "p99.9", "max", "throughput_msg_per_s"]);
        let unchanged = |row: &Row| row.change_pct == Some(0.0) && row.change == Change::Within;
        assert!(comparison.rows.iter().all(unchanged), "{comparison:?}");
        let told = [comparison.regressions, comparison.only_in_a, comparison.only_in_b].concat();
        assert!(told.is_empty() && comparison.warnings.is_empty());
    }

    #[test]
    fn a_planted_regression_is_named() {
        let base = run([1.0; 5], 1e6);
        let slower = compare(&base, &run([1.0, 1.0, 1.2, 1.0, 1.0], 1e6), 10.0);
        assert_eq!(slower.verdict, Verdict::Regressed);
        assert_eq!(slower.regressions, ["message_latency p99"]);
        assert!((slower.rows[2].change_pct.expect("from 3 ms") - 20.0).abs() < 1e-6);
        let fewer = compare(&base, &run([1.0; 5], 0.8e6), 10.0);
        assert_eq!(fewer.regressions, ["message_passing throughput_msg_per_s"]);
        let allowed = compare(&base, &run([1.0, 1.0, 1.2, 1.0, 1.0], 0.8e6), 20.0);
        assert_eq!(allowed.verdict, Verdict::Unchanged, "the threshold itself is allowed");
    }

    #[test]
    fn the_tail_is_shown_and_not_judged() {
        let comparison = compare(&run([1.0; 5], 1e6), &run([1.0, 1.0, 1.0, 3.0, 9.0], 1e6), 10.0);
        assert_eq!(comparison.verdict, Verdict::Unchanged);
        let worse = comparison.rows.iter().filter(|row| row.change == Change::Worse);
        assert_eq!(worse.map(|row| &*row.figure).collect::<Vec<_>>(), ["p99.9", "max"]);
    }

    #[test]
    fn better_counts_only_without_worse() {
        let base = run([1.0; 5], 1e6);
        assert_eq!(compare(&base, &run([0.5; 5], 1e6), 10.0).verdict, Verdict::Improved);
        assert_eq!(compare(&base, &run([1.0; 5], 2e6), 10.0).verdict, Verdict::Improved);
        assert_eq!(compare(&base, &run([0.5; 5], 1e5), 10.0).verdict, Verdict::Regressed);
    }

    #[test]
    fn a_change_from_zero_has_no_percentage_and_is_beyond_every_threshold() {
        let row = |a, b, unit| Row::new("c", "f", unit, [a, b], 1000.0);
        let slower = row(0.0, 1.0, Unit::Milliseconds);
        assert_eq!((slower.change_pct, slower.change), (None, Change::Worse));
        assert_eq!(row(0.0, 1.0, Unit::PerSecond).change, Change::Better);
        let still = row(0.0, 0.0, Unit::PerSecond);
        assert_eq!((still.change_pct, still.change), (Some(0.0), Change::Within));
    }

    #[test]
    fn what_only_one_side_has_is_listed_and_not_compared() {
        let (a, mut b) = (run([1.0; 5], 1e6), run([1.0; 5], 1e6));
        let passing = b.components.get_mut("message_passing").expect("it is in every run");
        passing.figures.insert("throughput_median".into(), 1.0);
        let latency = b.components.remove("message_latency").expect("it is in every run");
        b.components.insert("search_latency".into(), latency);
        let comparison = compare(&a, &b, 10.0);
        assert_eq!(comparison.only_in_a, ["message_latency"]);
        assert_eq!(comparison.only_in_b, ["message_passing throughput_median", "search_latency"]);
        assert_eq!(comparison.rows.len(), 1);
    }

    #[test]
    fn percentiles_of_a_report_stand_in_for_a_curve() {
        let mut a = run([1.0; 5], 1e6);
        let latency = a.components.get_mut("message_latency").expect("it is in every run");
        *latency = Component { curve: None, figures: [("p99_ms".to_owned(), 2.0)].into() };
        let comparison = compare(&a, &run([1.0; 5], 1e6), 10.0);
        assert_eq!(comparison.regressions, ["message_latency p99"]);
        assert_eq!(comparison.only_in_b.len(), 4, "{:?}", comparison.only_in_b);
    }

    #[test]
    fn other_conditions_are_told_once_for_all_suites() {
        let (mut a, mut b) = (run([1.0; 5], 1e6), run([1.0; 5], 1e6));
        a.manifests.insert("throughput".into(), manifest());
        let other = Manifest {
            cores: 4,
            profile: "debug".into(),
            time: "2026-02-02T03:04:05Z".into(),
            ..manifest()
        };
        b.manifests = ["latency", "throughput"].map(|name| (name.to_owned(), other.clone())).into();
        let warnings = compare(&a, &b, 10.0).warnings;
        let expected = [
            "latency, throughput: cores differs, A \"2\", B \"4\"",
            "latency, throughput: profile differs, A \"release\", B \"debug\"",
        ];
        assert_eq!(warnings, expected);
    }

    #[test]
    fn a_machine_that_changed_its_speed_is_told() {
        let (a, mut b) = (run([1.0; 5], 1e6), run([1.0; 5], 1e6));
        let probes = b.manifests.get_mut("latency").expect("it is in every run");
        probes.probe_after.ring_p50_ns *= 1.4;
        assert_eq!(compare(&a, &b, 10.0).warnings.len(), 0);
        let probes = b.manifests.get_mut("latency").expect("it is in every run");
        probes.probe_after.ring_p50_ns *= 1.2;
        let warnings = compare(&a, &b, 10.0).warnings;
        let expected = "latency: the machine changed its speed: ring round trip p50 in ns before \
                        and after, A 90 and 90, B 90 and 151";
        assert_eq!(warnings, [expected]);
    }

    #[test]
    fn curves_without_a_manifest_and_other_work_are_told() {
        let (a, mut b) = (run([1.0; 5], 1e6), run([1.0; 5], 1e6));
        b.manifests.clear();
        let passing = b.components.get_mut("message_passing").expect("it is in every run");
        passing.figures.insert("agents".into(), 30.0);
        let warnings = compare(&a, &b, 10.0).warnings;
        assert!(warnings[0].starts_with("B has no manifest: "), "{warnings:?}");
        let expected = "message_passing: agents differs, A 60, B 30: not the same work";
        assert_eq!(warnings[1..], [expected]);
    }
}
