//! What one component's measurement came to, and how hard to try.

use super::vectors::Point;
use crate::metrics::Latency;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// A small run, to see that everything works.
    pub quick: bool,
    /// How long each component is measured, seconds.
    pub seconds: f64,
    /// Open loop: messages in a second; `None` for the suite's own.
    pub rate: Option<u64>,
    /// Only this component; `None` for all of a suite.
    pub only: Option<&'static str>,
    /// Tasks that live through the kills of their node; `None` for the suite's own.
    pub tasks: Option<u32>,
    /// What all that is random comes from; `None` for a new one.
    pub seed: Option<u64>,
}

impl Effort {
    /// The first of two at full effort, the second at quick effort.
    pub(super) fn choose<T>(&self, (full, quick): (T, T)) -> T {
        if self.quick { quick } else { full }
    }

    /// Whether a component is to be measured.
    pub(super) fn wants(&self, component: &str) -> bool {
        self.only.is_none_or(|only| only == component)
    }

    /// Repeats a round until the time is over, at least three times, after one that does not
    /// count.
    ///
    /// # Errors
    /// Those of a round.
    pub(super) fn rounds<T>(&self, mut round: impl FnMut() -> io::Result<T>) -> io::Result<Vec<T>> {
        round()?;
        let began = Instant::now();
        let mut rounds = Vec::new();
        while rounds.len() < 3 || began.elapsed() < Duration::from_secs_f64(self.seconds) {
            rounds.push(round()?);
        }
        Ok(rounds)
    }
}

/// A figure, as it stands in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// A count.
    Count(u64),
    /// A measurement.
    Value(f64),
    /// Whether something holds.
    Holds(bool),
    /// A word.
    Text(String),
    /// A figure for each width of search.
    Curve(Vec<Point>),
}

/// One component's measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The component.
    pub component: &'static str,
    /// Its figures by name.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, Figure>,
    /// Latencies, where they were measured.
    #[serde(skip)]
    pub latency: Option<Latency>,
    /// A picture of the figures in SVG.
    #[serde(skip)]
    pub picture: Option<String>,
    #[serde(skip)]
    main: &'static str,
}

impl Measured {
    /// A throughput: the best round stands under `name`, the median beside it.
    pub(super) fn throughput(
        component: &'static str,
        name: &'static str,
        mut rates: Vec<f64>,
    ) -> Self {
        rates.sort_by(f64::total_cmp);
        let best = rates.last().copied().unwrap_or_default();
        let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
        let figures = BTreeMap::from([
            (name, Figure::Value(best.round())),
            ("throughput_median", Figure::Value(median.round())),
            ("rounds", Figure::Count(rates.len() as u64)),
        ]);
        Self { component, figures, latency: None, picture: None, main: name }
    }

    /// A distribution of latencies.
    pub(super) fn latency(component: &'static str, latency: Latency) -> Self {
        let ms = |quantile| Figure::Value(latency.quantile_ms(quantile));
        let figures = BTreeMap::from([
            ("avg_latency_us", Figure::Value(latency.figures().avg_latency_us)),
            ("p50_ms", ms(0.5)),
            ("p90_ms", ms(0.9)),
            ("p95_ms", ms(0.95)),
            ("p99_ms", ms(0.99)),
            ("p999_ms", ms(0.999)),
            ("max_ms", ms(1.0)),
            ("count", Figure::Count(latency.count())),
        ]);
        Self { component, figures, latency: Some(latency), picture: None, main: "p99_ms" }
    }

    /// Figures of which the counts matter.
    pub(super) fn counts(component: &'static str) -> Self {
        Self { component, figures: BTreeMap::new(), latency: None, picture: None, main: "" }
    }

    /// Adds latencies beside the figures.
    pub(super) fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    /// Adds a measurement as it is: rounded, the loss of one task in a million would be none.
    pub(super) fn with_exact(mut self, name: &'static str, value: f64) -> Self {
        self.figures.insert(name, Figure::Value(value));
        self
    }

    /// Adds whether something holds.
    pub(super) fn with_truth(mut self, name: &'static str, holds: bool) -> Self {
        self.figures.insert(name, Figure::Holds(holds));
        self
    }

    /// Adds a count.
    pub(super) fn with(mut self, name: &'static str, count: u64) -> Self {
        self.figures.insert(name, Figure::Count(count));
        self
    }

    /// Adds a measurement.
    pub(super) fn with_value(mut self, name: &'static str, value: f64) -> Self {
        self.figures.insert(name, Figure::Value(value));
        self
    }

    /// Adds a curve.
    pub(super) fn with_curve(mut self, name: &'static str, points: Vec<Point>) -> Self {
        self.figures.insert(name, Figure::Curve(points));
        self
    }

    /// Adds a picture.
    pub(super) fn with_picture(mut self, svg: String) -> Self {
        self.picture = Some(svg);
        self
    }

    /// Adds a word.
    pub(super) fn with_text(mut self, name: &'static str, text: &str) -> Self {
        self.figures.insert(name, Figure::Text(text.into()));
        self
    }

    /// Holds the throughput against what was asked for at least: a target, and our own goal.
    pub(super) fn target(self, target: f64, goal: f64) -> Self {
        let value = self.main_value();
        self.judge((target, value >= target), (goal, value >= goal))
    }

    /// Holds a figure against what it may be at most.
    pub(super) fn at_most(mut self, name: &'static str, target: f64, goal: f64) -> Self {
        self.main = name;
        let value = self.main_value();
        self.judge((target, value <= target), (goal, value <= goal))
    }

    /// Holds the throughput against our own goal, where nothing else was asked for.
    pub(super) fn goal_at_least(self, goal: f64) -> Self {
        let met = self.main_value() >= goal;
        self.with_exact("goal", goal).with_truth("goal_met", met)
    }

    /// Holds a figure against our own goal, where nothing else was asked for.
    pub(super) fn goal_at_most(mut self, name: &'static str, goal: f64) -> Self {
        self.main = name;
        let met = self.main_value() <= goal;
        self.with_exact("goal", goal).with_truth("goal_met", met)
    }

    fn judge(mut self, target: (f64, bool), goal: (f64, bool)) -> Self {
        self.figures.extend([
            ("target", Figure::Value(target.0)),
            ("target_met", Figure::Holds(target.1)),
            ("goal", Figure::Value(goal.0)),
            ("goal_met", Figure::Holds(goal.1)),
        ]);
        self
    }

    /// The name of the figure that matters.
    pub fn main(&self) -> &'static str {
        self.main
    }

    /// The figure that matters.
    pub fn main_value(&self) -> f64 {
        match self.figures.get(self.main) {
            Some(Figure::Value(value)) => *value,
            Some(Figure::Count(count)) => *count as f64,
            _ => f64::NAN,
        }
    }

    /// Whether our own goal was met.
    pub fn goal_met(&self) -> bool {
        self.figures.get("goal_met") == Some(&Figure::Holds(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throughput_is_the_best_round_beside_the_median() {
        let measured = Measured::throughput("c", "throughput_msg_per_s", vec![5.0, 9.0, 7.0]);
        let judged = measured.target(6.0, 10.0);
        assert_eq!(judged.main_value(), 9.0);
        assert_eq!(judged.figures["throughput_median"], Figure::Value(7.0));
        assert_eq!(judged.figures["target_met"], Figure::Holds(true));
        assert!(!judged.goal_met());
    }

    #[test]
    fn a_latency_has_the_names_that_users_know() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|us| latency.record(us * 1000));
        let measured = Measured::latency("c", latency).at_most("p99_ms", 50.0, 0.5);
        assert!((measured.main_value() - 0.99).abs() < 0.01);
        assert_eq!(measured.figures["goal_met"], Figure::Holds(false));
    }

    #[test]
    fn rounds_go_on_for_their_time_and_at_least_three() {
        let effort =
            Effort { quick: true, seconds: 0.0, rate: None, only: None, tasks: None, seed: None };
        let mut count = 0;
        let rounds = effort.rounds(|| {
            count += 1;
            Ok(count)
        });
        assert_eq!(rounds.unwrap(), [2, 3, 4], "the first one warms up");
    }
}
