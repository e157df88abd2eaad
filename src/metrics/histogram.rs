//! Latencies as they are recorded: cheap to add to, cheap to merge, three digits exact.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Shortest latency that is told from a shorter one, nanoseconds.
const NS_MIN: u64 = 1;
/// Longest latency that is told from a longer one, nanoseconds: one hour.
const NS_MAX: u64 = 3_600_000_000_000;
/// Decimal digits that a recorded value keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Nanoseconds in a millisecond.
const NS_PER_MS: f64 = 1e6;
/// Nanoseconds in a microsecond.
const NS_PER_US: f64 = 1e3;

/// A histogram of latencies.
///
/// Recording is one index computation and one addition, without allocation. Values outside
/// 1 ns to 1 h count as the nearest of the two, so that no record is ever lost.
/// One takes about 270 KiB: give each core one, and merge them when the run is over.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// An empty histogram.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(NS_MIN, NS_MAX, SIGNIFICANT_DIGITS);
        Self { histogram: histogram.expect("the bounds are constants that the crate accepts") }
    }

    /// Records one latency.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Records the same latency `count` times.
    #[inline]
    pub fn record_n(&mut self, ns: u64, count: u64) {
        self.histogram.saturating_record_n(ns.clamp(NS_MIN, NS_MAX), count);
    }

    /// Adds everything that `other` recorded.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all latencies have the same bounds");
    }

    /// Latencies recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that this share (0 to 1) of the records does not exceed, milliseconds; 0 when
    /// nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / NS_PER_MS
    }

    /// How many took longer than so many nanoseconds, as exact as the records are.
    pub fn count_above(&self, ns: u64) -> u64 {
        let highest = self.histogram.highest_equivalent(ns);
        let longer = self.histogram.iter_recorded().filter(|it| it.value_iterated_to() > highest);
        longer.map(|it| it.count_at_value()).sum()
    }

    /// The figures that results carry; all 0 when nothing was recorded.
    pub fn figures(&self) -> LatencyFigures {
        LatencyFigures {
            count: self.count(),
            avg_latency_us: self.histogram.mean() / NS_PER_US,
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: self.histogram.max() as f64 / NS_PER_MS,
        }
    }

    /// Mean and standard deviation, milliseconds.
    pub(super) fn mean_and_deviation_ms(&self) -> (f64, f64) {
        (self.histogram.mean() / NS_PER_MS, self.histogram.stdev() / NS_PER_MS)
    }

    /// The two sizes of the table of counts, as the text format tells them.
    pub(super) fn buckets(&self) -> (u64, u64) {
        let sub_buckets = (2 * 10_u64.pow(SIGNIFICANT_DIGITS.into())).next_power_of_two();
        (self.histogram.buckets().into(), sub_buckets)
    }

    /// Each recorded value, shortest first: milliseconds, and how many records are no longer.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut total = 0;
        self.histogram.iter_recorded().map(move |step| {
            total += step.count_at_value();
            let value = self.histogram.highest_equivalent(step.value_iterated_to());
            (value as f64 / NS_PER_MS, total)
        })
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// What a result says of a histogram; the names end with the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyFigures {
    /// Latencies recorded.
    pub count: u64,
    /// Mean, microseconds.
    pub avg_latency_us: f64,
    /// Half are no longer, milliseconds.
    pub p50_ms: f64,
    /// 90 % are no longer, milliseconds.
    pub p90_ms: f64,
    /// 95 % are no longer, milliseconds.
    pub p95_ms: f64,
    /// 99 % are no longer, milliseconds.
    pub p99_ms: f64,
    /// 99.9 % are no longer, milliseconds.
    pub p999_ms: f64,
    /// The longest, milliseconds.
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_took_longer_are_counted() {
        let mut latency = Latency::new();
        for (ns, times) in [(100_u64, 3_u64), (200_000, 5), (200_900, 2), (5_000_000, 1)] {
            latency.record_n(ns, times);
        }
        assert_eq!((latency.count_above(200_000), latency.count_above(99)), (3, 11));
        assert_eq!(latency.count_above(5_000_000), 0);
    }

    fn assert_near(actual: f64, expected: f64) {
        let distance = (actual - expected).abs();
        assert!(distance <= expected * 0.001, "{actual} is not within 0.1 % of {expected}");
    }

    #[test]
    fn figures_of_a_known_distribution_are_right_to_three_digits() {
        let mut latency = Latency::new();
        for us in 1..=10_000 {
            latency.record(us * 1000);
        }
        let figures = latency.figures();
        assert_eq!(figures.count, 10_000);
        assert_near(figures.avg_latency_us, 5000.5);
        assert_near(figures.p50_ms, 5.0);
        assert_near(figures.p90_ms, 9.0);
        assert_near(figures.p95_ms, 9.5);
        assert_near(figures.p99_ms, 9.9);
        assert_near(figures.p999_ms, 9.99);
        assert_near(figures.max_ms, 10.0);
    }

    #[test]
    fn values_outside_the_range_count_as_its_ends() {
        let mut latency = Latency::new();
        latency.record(0);
        latency.record(u64::MAX);
        assert_eq!(latency.count(), 2);
        assert_eq!(latency.quantile_ms(0.5), 1e-6);
        assert_near(latency.figures().max_ms, 3_600_000.0);
    }

    #[test]
    fn nothing_recorded_gives_zeros() {
        assert_eq!(Latency::new().figures(), LatencyFigures::default());
    }

    #[test]
    fn merging_is_recording_into_one() {
        let (mut one, mut two, mut both) = (Latency::new(), Latency::new(), Latency::new());
        for index in 0..1000 {
            let half = if index % 2 == 0 { &mut one } else { &mut two };
            half.record(index * 37);
            both.record(index * 37);
        }
        one.record_n(5_000_000, 12);
        both.record_n(5_000_000, 12);
        one.merge(&two);
        assert_eq!(one.figures(), both.figures());
    }
}
