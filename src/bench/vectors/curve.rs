//! `pattern_search`: searches a second against the part of the true neighbours that they find.

use super::{
    super::{Effort, Measured},
    Built, K,
};
use crate::metrics::Latency;
use serde::Serialize;
use std::{
    fmt::Write as _,
    hint::black_box,
    io,
    time::{Duration, Instant},
};

/// Widths of search.
const WIDTHS: [usize; 13] = [10, 16, 24, 32, 40, 45, 50, 75, 100, 130, 150, 200, 300];
/// Rounds of a point at least; the best one counts.
const ROUNDS_MIN: usize = 3;
/// Recall that a goal asks for, and searches a second with it.
const GOAL: (f64, f64) = (0.95, 25_000.0);
const GOAL_HIGH: (f64, f64) = (0.99, 10_000.0);
/// A search within 10 ms.
const TARGET: f64 = 100.0;

/// A width of search, and what it comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    ef: usize,
    recall: f64,
    throughput_searches_per_s: f64,
    p99_us: f64,
    #[serde(skip)]
    rates: Vec<f64>,
}

pub(super) fn pattern_search(built: &mut Built, effort: &Effort) -> io::Result<Measured> {
    let share = Duration::from_secs_f64(effort.seconds / (2 * WIDTHS.len()) as f64);
    let mut curves = [Vec::new(), Vec::new()];
    for (curve, reranks) in curves.iter_mut().zip([false, true]) {
        for ef in WIDTHS {
            curve.push(point(built, ef, reranks, share)?);
        }
    }
    let best = fastest(curves.iter().flatten(), GOAL.0);
    let best_high = fastest(curves.iter().flatten(), GOAL_HIGH.0);
    let rates = best.map_or(Vec::new(), |point| point.rates.clone());
    let high = best_high.map_or(0.0, |point| point.throughput_searches_per_s);
    let measured = Measured::throughput("pattern_search", "throughput_searches_per_s", rates)
        .target(TARGET, GOAL.1)
        .with_exact("recall", best.map_or(0.0, |point| point.recall))
        .with_exact("throughput_at_recall_99", high)
        .with_exact("goal_at_recall_99", GOAL_HIGH.1)
        .with_truth("goal_at_recall_99_met", high >= GOAL_HIGH.1)
        .with_picture(draw(&curves));
    let [codes, reranked] = curves;
    let measured = built.described(measured);
    Ok(measured.with_curve("curve", codes).with_curve("curve_reranked", reranked))
}

fn point(built: &mut Built, ef: usize, reranks: bool, share: Duration) -> io::Result<Point> {
    let recall = built.recall(ef, reranks)?;
    let queries = built.vectors.queries();
    let mut latency = Latency::new();
    let mut rates = Vec::new();
    let began = Instant::now();
    while rates.len() < ROUNDS_MIN || began.elapsed() < share {
        let round_began = Instant::now();
        let mut last = round_began;
        for query in 0..queries {
            black_box(built.search(query, ef, reranks)?);
            let now = Instant::now();
            latency.record((now - last).as_nanos() as u64);
            last = now;
        }
        rates.push(queries as f64 / round_began.elapsed().as_secs_f64());
    }
    let best = rates.iter().copied().fold(0.0, f64::max);
    let p99_us = latency.quantile_ms(0.99) * 1e3;
    Ok(Point { ef, recall, throughput_searches_per_s: best.round(), p99_us, rates })
}

/// The fastest point that finds so much.
fn fastest<'a>(points: impl Iterator<Item = &'a Point>, recall: f64) -> Option<&'a Point> {
    let enough = points.filter(|point| point.recall >= recall);
    enough.max_by(|a, b| a.throughput_searches_per_s.total_cmp(&b.throughput_searches_per_s))
}

/// A table of a curve.
pub fn table(points: &[Point]) -> String {
    let mut text = format!("{:>8} {:>9} {:>12} {:>9}\n", "ef", "recall", "searches/s", "p99 µs");
    for Point { ef, recall, throughput_searches_per_s, p99_us, .. } in points {
        let _ =
            writeln!(text, "{ef:>8} {recall:>9.4} {throughput_searches_per_s:>12.0} {p99_us:>9.1}");
    }
    text
}

/// The picture's size, and where its plot begins and ends, pixels.
const SIZE: (f64, f64) = (720.0, 440.0);
const PLOT: ((f64, f64), (f64, f64)) = ((80.0, 700.0), (50.0, 390.0));
/// Colours and dashes that all kinds of colour vision and prints tell apart.
const STROKES: [(&str, &str, &str); 2] =
    [("#0072b2", "none", "codes alone"), ("#d55e00", "7 4", "20 ordered again by float32")];

/// Recall to the right, searches a second upwards.
fn draw(curves: &[Vec<Point>; 2]) -> String {
    let points = || curves.iter().flatten();
    let least = points().map(|point| point.recall).fold(1.0, f64::min);
    let left = ((least * 20.0).floor() / 20.0).min(0.95);
    let most = points().map(|point| point.throughput_searches_per_s).fold(1.0, f64::max);
    let step = 10_f64.powf(most.log10().floor());
    let top = (most / step).ceil() * step;
    let x = |recall: f64| PLOT.0.0 + (recall - left) / (1.0 - left) * (PLOT.0.1 - PLOT.0.0);
    let y = |rate: f64| PLOT.1.1 - rate / top * (PLOT.1.1 - PLOT.1.0);
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <title>pattern_search: searches a second by recall@{K}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut label = |x: f64, y: f64, anchor: &str, text: &str| {
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    for at in 0..=4 {
        let (recall, rate) = (left + (1.0 - left) * f64::from(at) / 4.0, top * f64::from(at) / 4.0);
        label(x(recall), PLOT.1.1 + 18.0, "middle", &format!("{recall:.3}"));
        label(PLOT.0.0 - 8.0, y(rate) + 4.0, "end", &format!("{rate:.0}"));
    }
    label(PLOT.0.1, PLOT.1.1 + 38.0, "end", &format!("recall@{K}"));
    label(12.0, 20.0, "start", "searches a second on one core");
    let (start, end) = PLOT.0;
    for at in 0..=4 {
        let y = y(top * f64::from(at) / 4.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{start}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
        );
    }
    for (at, (points, (color, dash, name))) in curves.iter().zip(STROKES).enumerate() {
        let stroke = format!(
            "fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\""
        );
        let places: Vec<_> = points
            .iter()
            .map(|point| {
                format!("{:.1},{:.1}", x(point.recall), y(point.throughput_searches_per_s))
            })
            .collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" {stroke}/>", places.join(" "));
        let line = 20.0 + 18.0 * at as f64;
        let _ = writeln!(svg, "<path d=\"M 440 {line} h 40\" {stroke}/>");
        let _ = writeln!(svg, "<text x=\"490\" y=\"{:.1}\">{name}</text>", line + 4.0);
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ef: usize, recall: f64, throughput_searches_per_s: f64) -> Point {
        Point { ef, recall, throughput_searches_per_s, p99_us: 1.0, rates: Vec::new() }
    }

    #[test]
    fn the_fastest_point_is_one_that_finds_enough() {
        let points = [point(10, 0.8, 900.0), point(20, 0.96, 700.0), point(30, 0.97, 750.0)];
        assert_eq!(fastest(points.iter(), 0.95), Some(&points[2]));
        assert_eq!(fastest(points.iter(), 0.98), None);
    }

    #[test]
    fn the_picture_has_both_curves_inside_its_plot() {
        let curve = vec![point(10, 0.8, 90_000.0), point(300, 1.0, 5000.0)];
        let svg = draw(&[curve.clone(), curve]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        // The lowest recall at the left end, all found at the right one, 90,000 at the top.
        assert_eq!(svg.matches("80.0,50.0 700.0,371.1").count(), 2, "{svg}");
    }
}
