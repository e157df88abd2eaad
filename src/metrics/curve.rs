//! A percentile curve: what is left of a histogram when it was written down.

use super::histogram::Latency;

/// Steps between one halving of the distance to 100 % and the next, as other tools print them.
const STEPS_PER_HALVING: u32 = 5;
/// Percentiles that people ask for: each is a point of the curve, so that it is read exactly.
const ASKED_FOR: [f64; 9] = [0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999, 0.999999];
/// Quantiles are written with this many decimals; two that agree in them are one.
pub(super) const QUANTILE_DECIMALS: usize = 12;
/// Half of the last decimal of a quantile.
const QUANTILE_TOLERANCE: f64 = 0.5e-12;

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The latency, milliseconds.
    pub value_ms: f64,
    /// The share of the records that are no longer, 0 to 1.
    pub quantile: f64,
    /// How many records are no longer.
    pub total_count: u64,
}

/// A percentile curve; has at least one point, and neither column ever falls.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<Point>,
}

impl Curve {
    /// The curve through these points; `None` when there are none or a column falls.
    pub fn new(points: Vec<Point>) -> Option<Self> {
        let rises = |pair: &[Point]| pair[0].may_precede(&pair[1]);
        (!points.is_empty() && points.windows(2).all(rises)).then_some(Self { points })
    }

    /// The curve of a histogram; `None` when nothing was recorded.
    pub fn of(latency: &Latency) -> Option<Self> {
        let count = latency.count();
        let mut recorded = latency.cumulative();
        let (mut value_ms, mut total_count) = recorded.next()?;
        let mut points = Vec::new();
        for quantile in ladder() {
            let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
            while total_count < rank {
                let Some(next) = recorded.next() else { break };
                (value_ms, total_count) = next;
            }
            points.push(Point { value_ms, quantile, total_count });
            if rank == count {
                break;
            }
        }
        if points.last().is_some_and(|last| last.quantile < 1.0) {
            points.push(Point { value_ms, quantile: 1.0, total_count });
        }
        Some(Self { points })
    }

    /// The points, shortest latency first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Records behind the curve.
    pub fn count(&self) -> u64 {
        self.last().total_count
    }

    /// The longest latency, milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.last().value_ms
    }

    /// The latency at a quantile (0 to 1), milliseconds: exact at a point, on the straight line
    /// between two neighbours otherwise.
    pub fn value_ms(&self, quantile: f64) -> f64 {
        let above =
            self.points.partition_point(|point| point.quantile < quantile - QUANTILE_TOLERANCE);
        let Some(upper) = self.points.get(above) else { return self.max_ms() };
        if above == 0 || upper.quantile <= quantile + QUANTILE_TOLERANCE {
            return upper.value_ms;
        }
        let lower = &self.points[above - 1];
        let share = (quantile - lower.quantile) / (upper.quantile - lower.quantile);
        lower.value_ms + share * (upper.value_ms - lower.value_ms)
    }

    fn last(&self) -> &Point {
        self.points.last().expect("a curve has at least one point")
    }
}

impl Point {
    /// Whether `next` may follow this point on a curve.
    pub(super) fn may_precede(&self, next: &Self) -> bool {
        self.value_ms <= next.value_ms
            && self.quantile <= next.quantile
            && self.total_count <= next.total_count
    }
}

/// The quantiles that a curve has points at: from 0, each halving of the distance to 1 in equal
/// steps, and those that people ask for; ends with 1.
fn ladder() -> Vec<f64> {
    let rounded = |quantile: f64| (quantile * 1e12).round() / 1e12;
    let mut quantiles = ASKED_FOR.to_vec();
    let mut left = 1.0;
    while rounded(1.0 - left) < 1.0 {
        let steps = (0..STEPS_PER_HALVING).map(f64::from);
        quantiles.extend(
            steps.map(|step| {
                rounded(1.0 - left + step * left / (2.0 * f64::from(STEPS_PER_HALVING)))
            }),
        );
        left /= 2.0;
    }
    quantiles.push(1.0);
    quantiles.sort_by(f64::total_cmp);
    quantiles.dedup();
    quantiles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value_ms: f64, quantile: f64, total_count: u64) -> Point {
        Point { value_ms, quantile, total_count }
    }

    #[test]
    fn the_ladder_rises_from_zero_to_one_and_has_what_people_ask_for() {
        let quantiles = ladder();
        assert_eq!(quantiles[..4], [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(quantiles.last(), Some(&1.0));
        assert!(quantiles.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ASKED_FOR.iter().all(|asked| quantiles.contains(asked)));
        assert!(quantiles.len() < 250, "{}", quantiles.len());
    }

    #[test]
    fn between_two_points_the_curve_is_straight() {
        let curve = Curve::new(vec![point(1.0, 0.0, 1), point(2.0, 0.5, 5), point(4.0, 1.0, 10)]);
        let curve = curve.unwrap();
        assert_eq!(curve.value_ms(0.0), 1.0);
        assert_eq!(curve.value_ms(0.25), 1.5);
        assert_eq!(curve.value_ms(0.5), 2.0);
        assert_eq!(curve.value_ms(0.75), 3.0);
        assert_eq!(curve.value_ms(1.0), 4.0);
        assert_eq!((curve.max_ms(), curve.count()), (4.0, 10));
    }

    #[test]
    fn a_curve_never_falls_and_is_never_empty() {
        assert_eq!(Curve::new(vec![]), None);
        assert_eq!(Curve::new(vec![point(2.0, 0.0, 1), point(1.0, 1.0, 2)]), None);
        assert_eq!(Curve::new(vec![point(1.0, 0.5, 1), point(1.0, 0.4, 2)]), None);
        assert_eq!(Curve::of(&Latency::new()), None);
    }

    #[test]
    fn a_single_record_is_the_whole_curve() {
        let mut latency = Latency::new();
        latency.record(1000);
        let curve = Curve::of(&latency).unwrap();
        assert_eq!(curve.value_ms(0.5), curve.max_ms());
        assert_eq!(curve.count(), 1);
    }
}
