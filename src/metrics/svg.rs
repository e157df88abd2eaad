//! Two runs drawn: one picture in SVG that needs nothing beside it.
//!
//! Each component with latencies on both sides has the axes that percentile plots have: the
//! quantile across, on a logarithmic scale of `1 / (1 - quantile)`, the latency upwards, on a
//! logarithmic scale. Below them each throughput of both sides is a pair of bars.

use std::fmt::Write as _;

use super::compare::{Comparison, Unit};
use super::curve::{Curve, Point};
use super::results::Results;
use super::unit;

/// Width of the picture, pixels.
const WIDTH: f64 = 860.0;
/// Height of the two names above the panels, pixels.
const LEGEND_HEIGHT: f64 = 64.0;
/// Height of the panel of one component with latencies, pixels.
const CURVES_HEIGHT: f64 = 340.0;
/// Height of the panel of one throughput, pixels.
const BARS_HEIGHT: f64 = 96.0;
/// Left and right end of what is plotted, pixels.
const PLOT_X: (f64, f64) = (90.0, 830.0);
/// Top and bottom of the curves within their panel, pixels.
const PLOT_Y: (f64, f64) = (34.0, 290.0);
/// Height of a bar, pixels.
const BAR_HEIGHT: f64 = 22.0;
/// Right end of the longest bar, which leaves room for its value, pixels.
const BAR_X_MAX: f64 = 700.0;
/// Colours of the two runs: two that all kinds of colour vision tell apart.
const COLORS: [&str; 2] = ["#0072b2", "#d55e00"];
/// Dashes of the two runs, so that a print without colour tells them apart too.
const DASHES: [&str; 2] = ["none", "7 4"];
/// Quantiles at the axis: their `-log10(1 - quantile)` and what stands there.
const QUANTILE_LABELS: [(f64, &str); 8] = [
    (0.0, "0 %"),
    (std::f64::consts::LOG10_2, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
    (6.0, "99.9999 %"),
];
/// Least and most nines that the axis shows.
const NINES: (f64, f64) = (4.0, 6.5);
/// What a latency of 0 is drawn as, since a logarithmic axis has none: one nanosecond, in
/// milliseconds.
const VALUE_MS_MIN: f64 = 1e-6;
/// Characters of a name that are shown; of a longer one, the end.
const NAME_CHARS_MAX: usize = 90;

/// Draws what both runs have; `names` are those of the legend.
pub fn draw(names: [&str; 2], runs: [&Results; 2], comparison: &Comparison) -> String {
    let mut panels = String::new();
    let mut top = LEGEND_HEIGHT;
    let [one, other] = runs;
    for (component, measured) in &one.components {
        let other = other.components.get(component).and_then(|measured| measured.curve.as_ref());
        if let (Some(one), Some(other)) = (&measured.curve, other) {
            draw_curves(&mut panels, top, component, [one, other]);
            top += CURVES_HEIGHT;
        }
    }
    for row in comparison.rows.iter().filter(|row| row.unit == Unit::PerSecond) {
        draw_bars(&mut panels, top, &row.name(), [row.a, row.b]);
        top += BARS_HEIGHT;
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" \
         viewBox=\"0 0 {WIDTH} {top}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"#222\">\n<title>{} and {}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        escaped(names[0]),
        escaped(names[1])
    );
    draw_legend(&mut svg, names);
    svg + &panels + "</svg>\n"
}

fn draw_legend(svg: &mut String, names: [&str; 2]) {
    for (side, y) in [20.0, 42.0].into_iter().enumerate() {
        let (left, line_end, text_x) = (PLOT_X.0, PLOT_X.0 + 40.0, PLOT_X.0 + 50.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{y}\" x2=\"{line_end}\" y2=\"{y}\" {}/>",
            stroke(side)
        );
        let letter = ["A", "B"][side];
        let text = format!("{letter}  {}", shortened(names[side]));
        label(svg, (text_x, y + 4.0), "start", &text);
    }
}

fn draw_curves(svg: &mut String, top: f64, component: &str, curves: [&Curve; 2]) {
    let _ = writeln!(svg, "<g transform=\"translate(0 {top})\">");
    title(svg, &format!("{component}: latency by percentile"));
    let axes = Axes::around(curves);
    axes.draw(svg);
    for (side, curve) in curves.into_iter().enumerate() {
        let mut path = String::new();
        let mut last = String::new();
        for point in curve.points() {
            let (x, y) = axes.place(point, curve.count());
            let place = format!("{x:.1},{y:.1}");
            // A file of another tool may have thousands of points in one pixel.
            if place != last {
                let _ = write!(path, "{}{place}", if path.is_empty() { "" } else { " " });
                last = place;
            }
        }
        let _ = writeln!(svg, "<polyline points=\"{path}\" {}/>", stroke(side));
    }
    svg.push_str("</g>\n");
}

fn draw_bars(svg: &mut String, top: f64, name: &str, values: [f64; 2]) {
    let _ = writeln!(svg, "<g transform=\"translate(0 {top})\">");
    title(svg, name);
    let most = values[0].max(values[1]).max(f64::MIN_POSITIVE);
    for (side, value) in values.into_iter().enumerate() {
        let y = 30.0 + side as f64 * (BAR_HEIGHT + 4.0);
        let (left, width) = (PLOT_X.0, (value / most).max(0.0) * (BAR_X_MAX - PLOT_X.0));
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" \
             fill=\"{}\"/>",
            COLORS[side]
        );
        let middle = y + BAR_HEIGHT / 2.0 + 4.0;
        label(svg, (left - 8.0, middle), "end", ["A", "B"][side]);
        label(svg, (left + width + 8.0, middle), "start", &unit::per_second(value));
    }
    svg.push_str("</g>\n");
}

/// The scales of one panel.
struct Axes {
    /// `-log10(1 - quantile)` at the right end.
    nines: f64,
    /// `log10` of the latency in milliseconds at the bottom and at the top.
    decades: (f64, f64),
}

impl Axes {
    fn around(curves: [&Curve; 2]) -> Self {
        let count = curves.map(Curve::count).into_iter().max().unwrap_or(1);
        let first_ms = |curve: &Curve| curve.points().first().map_or(0.0, |point| point.value_ms);
        let least = curves.map(first_ms).into_iter().fold(f64::INFINITY, f64::min);
        let most = curves.map(Curve::max_ms).into_iter().fold(0.0, f64::max);
        let log = |value_ms: f64| value_ms.max(VALUE_MS_MIN).log10();
        let bottom = log(least).floor();
        let nines = (count.max(1) as f64).log10().clamp(NINES.0, NINES.1);
        Self { nines, decades: (bottom, log(most).ceil().max(bottom + 1.0)) }
    }

    /// Where a point of a curve of `count` records is. The last record of a curve stands for
    /// `1 / count` of them: 100 % would be infinitely far to the right.
    fn place(&self, point: &Point, count: u64) -> (f64, f64) {
        let last = (count.max(1) as f64).log10();
        let nines = if point.quantile < 1.0 { -(1.0 - point.quantile).log10() } else { last };
        (self.x(nines.min(last)), self.y(point.value_ms.max(VALUE_MS_MIN).log10()))
    }

    fn x(&self, nines: f64) -> f64 {
        PLOT_X.0 + (nines / self.nines).clamp(0.0, 1.0) * (PLOT_X.1 - PLOT_X.0)
    }

    fn y(&self, decade: f64) -> f64 {
        let (bottom, top) = self.decades;
        PLOT_Y.1 - (decade - bottom) / (top - bottom) * (PLOT_Y.1 - PLOT_Y.0)
    }

    fn draw(&self, svg: &mut String) {
        let (left, right) = PLOT_X;
        let (top, bottom) = PLOT_Y;
        for (nines, text) in QUANTILE_LABELS {
            if nines <= self.nines {
                let x = self.x(nines);
                grid_line(svg, (x, top), (x, bottom));
                label(svg, (x, bottom + 18.0), "middle", text);
            }
        }
        let (lowest, highest) = self.decades;
        // Between few decades the steps within them are told as well.
        let steps: &[f64] = if highest - lowest <= 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut decade = lowest;
        while decade <= highest {
            for step in steps {
                let at = decade + step.log10();
                if at <= highest {
                    grid_line(svg, (left, self.y(at)), (right, self.y(at)));
                    let text = unit::tick(10_f64.powf(decade) * step);
                    label(svg, (left - 8.0, self.y(at) + 4.0), "end", &text);
                }
            }
            decade += 1.0;
        }
    }
}

fn stroke(side: usize) -> String {
    let (color, dashes) = (COLORS[side], DASHES[side]);
    format!(
        "fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" \
         stroke-linejoin=\"round\""
    )
}

fn grid_line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

fn title(svg: &mut String, text: &str) {
    let (left, text) = (PLOT_X.0, escaped(text));
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"20\" font-weight=\"bold\">{text}</text>");
}

fn label(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn shortened(name: &str) -> String {
    let beyond = name.chars().count().saturating_sub(NAME_CHARS_MAX);
    match beyond {
        0 => name.into(),
        _ => format!("…{}", name.chars().skip(beyond + 1).collect::<String>()),
    }
}

/// Text for an element: XML has characters that stand for markup, and others that it never takes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            _ if character.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::super::histogram::Latency;
    use super::super::results::Component;
    use super::*;

    fn run(scale: u64) -> Results {
        let mut latency = Latency::new();
        (1..=20_000).for_each(|index| latency.record(index * scale));
        let curve = Curve::of(&latency).expect("it has records");
        let mut results = Results::of_curve("message_latency", curve);
        let figures = [("throughput_msg_per_s".to_owned(), 5e7 / scale as f64)].into();
        let passing = Component { curve: None, figures };
        results.components.insert("message_passing".into(), passing);
        results
    }

    fn drawn(names: [&str; 2], a: &Results, b: &Results) -> String {
        let svg = draw(names, [a, b], &compare(a, b, 10.0));
        assert_well_formed(&svg);
        svg
    }

    /// Every tag is closed in turn, attributes are quoted, and `&` only begins an entity.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(begin) = rest.find('<') {
            assert!(!rest[..begin].contains('>'), "a bare > in {:?}", &rest[..begin]);
            let end = begin + rest[begin..].find('>').expect("every < has its >");
            let tag = &rest[begin + 1..end];
            assert!(!tag.contains('<'), "{tag}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "closed in turn"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().expect("a tag has a name")),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?}, {rest:?}");
        for (at, _) in svg.match_indices('&') {
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
            assert!(entities.iter().any(|entity| svg[at..].starts_with(entity)));
        }
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "a place that is no number");
    }

    #[test]
    fn a_picture_has_both_curves_their_axes_and_the_bars() {
        let svg = drawn(["before", "after"], &run(100), &run(130));
        assert_eq!(svg.matches("<polyline").count(), 2);
        for text in ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "1 µs", "1 ms"] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text} is at an axis");
        }
        for text in ["A  before", "B  after", "500.00 k/s", "384.62 k/s"] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text} is told");
        }
        assert!(svg.contains("message_latency: latency") && svg.contains("message_passing thr"));
    }

    #[test]
    fn names_cannot_break_the_markup() {
        let long = "x".repeat(500) + "</text><script>alert(1)</script>";
        let svg = drawn(["a&b \"<c>\" \u{1}", &long], &run(1), &run(1));
        assert!(!svg.contains("<script>") && !svg.contains('\u{1}'));
        assert!(svg.contains("a&amp;b &quot;&lt;c&gt;&quot;"));
        assert!(svg.contains("B  …x"), "the end of a long name is shown");
    }

    #[test]
    fn slower_is_higher_and_rarer_is_further_to_the_right() {
        let axes = Axes { nines: 4.0, decades: (-3.0, 0.0) };
        let point = |value_ms, quantile| Point { value_ms, quantile, total_count: 1 };
        let count = 1000;
        assert_eq!(axes.place(&point(0.001, 0.0), count), (PLOT_X.0, PLOT_Y.1));
        let (x, y) = axes.place(&point(1.0, 0.99), count);
        assert!((x - (PLOT_X.0 + PLOT_X.1) / 2.0).abs() < 1e-6 && (y - PLOT_Y.0).abs() < 1e-6);
        assert_eq!(axes.place(&point(1.0, 1.0), count).0, axes.x(3.0), "the last of a thousand");
    }

    #[test]
    fn odd_curves_are_drawn_within_the_panel() {
        let flat = |value_ms, total_count| {
            let curve = Curve::new(vec![Point { value_ms, quantile: 1.0, total_count }]);
            Results::of_curve("c", curve.expect("one point"))
        };
        for (a, b) in [((0.0, 0), (0.0, 1)), ((1.0, 1), (1.0, u64::MAX)), ((0.0, 5), (1e300, 5))] {
            drawn(["a", "b"], &flat(a.0, a.1), &flat(b.0, b.1));
        }
        let nothing_shared = drawn(["a", "b"], &run(1), &flat(1.0, 1));
        assert!(!nothing_shared.contains("<polyline"));
    }
}
