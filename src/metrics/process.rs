//! What the kernel tells of this process and of the machine while it runs.
//!
//! Every answer is read afresh from `/proc`; what cannot be read is `None`, or 0 where the kernel
//! always tells.

use std::fs;

/// Bytes in the kibibytes that `/proc/self/status` counts.
const BYTES_PER_KIB: u64 = 1024;

/// Processor time of all processors since the machine started, in ticks of the kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StealTicks {
    /// Time that the hypervisor gave to others while a thread was ready to run.
    pub stolen: u64,
    /// All time: used, idle and stolen.
    pub total: u64,
}

impl StealTicks {
    /// The share of the time since `before` that was stolen, percent; `None` when no tick passed.
    pub fn stolen_pct_since(self, before: Self) -> Option<f64> {
        let total = self.total.saturating_sub(before.total);
        let stolen = self.stolen.saturating_sub(before.stolen);
        (total > 0).then(|| stolen as f64 * 100.0 / total as f64)
    }
}

/// Memory of this process that is in RAM, bytes; 0 where `/proc` is not mounted.
pub fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| parse_resident(&text)).unwrap_or(0)
}

/// Processor time up to now.
pub fn steal_ticks() -> Option<StealTicks> {
    parse_ticks(&fs::read_to_string("/proc/stat").ok()?)
}

/// The share of the last ten seconds in which some thread waited for a processor, percent;
/// `None` where the kernel does not measure pressure.
pub fn cpu_pressure_pct() -> Option<f64> {
    parse_pressure(&fs::read_to_string("/proc/pressure/cpu").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let kib: u64 = field(status, "VmRSS:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * BYTES_PER_KIB)
}

fn parse_ticks(stat: &str) -> Option<StealTicks> {
    // user nice system idle iowait irq softirq steal; guest time is already part of user time.
    let ticks = field(stat, "cpu ")?.split_whitespace().take(8).map(str::parse);
    let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
    Some(StealTicks { stolen: *ticks.get(7)?, total: ticks.iter().sum() })
}

fn parse_pressure(pressure: &str) -> Option<f64> {
    field(pressure, "some avg10=")?.split_whitespace().next()?.parse().ok()
}

/// What follows `name` in the first line that starts with it.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_told_in_bytes() {
        let status = "Name:\tcoreflow\nVmHWM:\t  9000 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(parse_resident(status), Some(2 << 20));
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
        assert!(resident_bytes() > 1 << 20, "a test program has more than 1 MiB");
    }

    #[test]
    fn stolen_time_is_the_eighth_column_and_guest_time_counts_once() {
        let stat = "cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1";
        assert_eq!(parse_ticks(stat), Some(StealTicks { stolen: 10, total: 100 }));
        assert_eq!(parse_ticks("cpu  1 2 3"), None);
    }

    #[test]
    fn the_stolen_share_is_that_of_the_time_between() {
        let before = StealTicks { stolen: 10, total: 100 };
        let after = StealTicks { stolen: 15, total: 300 };
        assert_eq!(after.stolen_pct_since(before), Some(2.5));
        assert_eq!(after.stolen_pct_since(after), None);
        // Idle and stolen time of a virtual processor may be corrected downwards.
        assert_eq!(StealTicks { stolen: 8, total: 200 }.stolen_pct_since(before), Some(0.0));
    }

    #[test]
    fn pressure_is_the_ten_second_average_of_some() {
        let pressure = "some avg10=1.25 avg60=0.57 avg300=0.16 total=140337098\n\
                        full avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse_pressure(pressure), Some(1.25));
        assert_eq!(parse_pressure(""), None);
    }
}
