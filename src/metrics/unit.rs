//! Figures for people: a number of three or four digits, and the unit that fits it.

/// A latency with two decimals: `0.99 µs`, `12.50 ms`.
pub fn latency(value_ms: f64) -> String {
    let (value, unit) = scaled(value_ms);
    format!("{value:.2} {unit}")
}

/// A latency that is a round number, as it stands at an axis: `1 µs`, `500 ns`, `0.1 ns`.
pub(super) fn tick(value_ms: f64) -> String {
    let (value, unit) = scaled(value_ms);
    // Three significant digits hide what the powers of ten leave behind the last one.
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

/// A throughput: `57.33 M/s`, `120.00 k/s`, `12.00 /s`.
pub fn per_second(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2} G/s", value / 1e9),
        size if size >= 1e6 => format!("{:.2} M/s", value / 1e6),
        size if size >= 1e3 => format!("{:.2} k/s", value / 1e3),
        _ => format!("{value:.2} /s"),
    }
}

/// The limits lie a little below the powers of ten, so that rounding does not miss them.
fn scaled(value_ms: f64) -> (f64, &'static str) {
    match value_ms {
        value if value >= 999.999 => (value / 1e3, "s"),
        value if value >= 0.999_999 => (value, "ms"),
        value if value >= 0.000_999_999 => (value * 1e3, "µs"),
        value => (value * 1e6, "ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_take_the_unit_that_leaves_few_digits() {
        assert_eq!(latency(0.000_993), "993.00 ns");
        assert_eq!(latency(0.080_959), "80.96 µs");
        assert_eq!(latency(3.043), "3.04 ms");
        assert_eq!(latency(61_000.0), "61.00 s");
        assert_eq!(latency(0.0), "0.00 ns");
        assert_eq!(per_second(57_334_875.0), "57.33 M/s");
        assert_eq!(per_second(120_000.0), "120.00 k/s");
        assert_eq!(per_second(12.0), "12.00 /s");
    }

    #[test]
    fn ticks_are_round() {
        let ticks: Vec<_> = (-6..=4).map(|power| tick(10_f64.powf(f64::from(power)))).collect();
        let expected = [
            "1 ns", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s",
            "10 s",
        ];
        assert_eq!(ticks, expected);
        assert_eq!(tick(5e-4), "500 ns");
        assert_eq!(tick(2e-3), "2 µs");
    }
}
