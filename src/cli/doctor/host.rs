//! Facts about the machine, read from `/proc` and `/sys`.
//!
//! What cannot be read is `None`: a container or an old kernel hides much, and a check then says
//! so instead of guessing.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// The bit of CAP_IPC_LOCK in the effective capabilities.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// At most this many.
    At(u64),
    /// No limit.
    Unlimited,
}

/// A listener address of the configuration that cannot be bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    /// The key of the address.
    pub key: String,
    /// The address.
    pub address: SocketAddr,
    /// Why it cannot be bound.
    pub reason: String,
}

/// What the checks know about the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// The kernel's release, such as `6.1.0-25-amd64`.
    pub kernel: Option<String>,
    /// `/proc/sys/kernel/io_uring_disabled`: 0 allowed, 1 for a group only, 2 for nobody.
    pub io_uring_disabled: Option<u32>,
    /// Whether an io_uring could be made, else the error's number; `None` when nobody tried.
    pub io_uring: Option<Result<(), i32>>,
    /// RLIMIT_MEMLOCK, the soft limit in bytes.
    pub memlock: Option<Limit>,
    /// Whether the process may lock memory beyond that limit.
    pub locks_freely: bool,
    /// RLIMIT_NOFILE, the soft limit.
    pub open_files: Option<Limit>,
    /// Processors that this process may run on.
    pub cores: BTreeSet<usize>,
    /// Frequency governors in use; empty where the machine shows none.
    pub governors: BTreeSet<String>,
    /// The choice in force for transparent huge pages.
    pub huge_pages: Option<String>,
    /// How eagerly the kernel swaps, 0 to 200.
    pub swappiness: Option<u32>,
    /// Size of all swap, KiB.
    pub swap_kib: Option<u64>,
    /// Whether the processor says that it is virtual.
    pub hypervisor: bool,
    /// The preemption model: `none`, `voluntary`, `lazy` or `full`.
    pub preemption: Option<String>,
    /// Timer ticks in a second.
    pub tick_hz: Option<u32>,
    /// Share of processor time that the hypervisor gave to others, percent.
    pub steal_pct: Option<f64>,
    /// Share of the last ten seconds in which some thread waited for a processor, percent.
    pub pressure_pct: Option<f64>,
    /// Listener addresses that are taken.
    pub busy: Vec<Busy>,
    /// What is wrong with the configured files of secrets, a sentence each.
    pub unfit_secrets: Vec<String>,
}

impl Host {
    /// Reads what `/proc` and `/sys` below `root` tell; the probes are left to the caller.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| text(root, path);
        let kernel = text("proc/sys/kernel/osrelease");
        let status = text("proc/self/status").unwrap_or_default();
        let limits = text("proc/self/limits").unwrap_or_default();
        let built_with = kernel.as_ref().and_then(|kernel| text(&format!("boot/config-{kernel}")));
        let built_with = built_with.unwrap_or_default();
        Self {
            io_uring_disabled: number(text("proc/sys/kernel/io_uring_disabled")),
            io_uring: None,
            memlock: limit(&limits, "Max locked memory"),
            locks_freely: field(&status, "CapEff:")
                .and_then(|mask| u64::from_str_radix(mask, 16).ok())
                .is_some_and(|mask| mask & CAP_IPC_LOCK != 0),
            open_files: limit(&limits, "Max open files"),
            cores: core_list(field(&status, "Cpus_allowed_list:").unwrap_or_default()),
            governors: governors(root),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(chosen),
            swappiness: number(text("proc/sys/vm/swappiness")),
            swap_kib: text("proc/meminfo").and_then(|info| {
                field(&info, "SwapTotal:")?.split_whitespace().next()?.parse().ok()
            }),
            hypervisor: text("proc/cpuinfo").is_some_and(|info| {
                field(&info, "flags").is_some_and(|flags| flags.contains(" hypervisor"))
            }),
            preemption: text("sys/kernel/debug/sched/preempt")
                .and_then(chosen)
                .or_else(|| preemption(&built_with)),
            tick_hz: number(field(&built_with, "CONFIG_HZ=").map(str::to_owned)),
            steal_pct: None,
            pressure_pct: text("proc/pressure/cpu").and_then(|text| {
                let average = field(&text, "some avg10=")?;
                average.split_whitespace().next()?.parse().ok()
            }),
            busy: Vec::new(),
            unfit_secrets: Vec::new(),
            kernel,
        }
    }
}

/// The share of stolen processor time while `sample` passes, percent.
pub fn steal_pct(root: &Path, sample: Duration) -> Option<f64> {
    let before = text(root, "proc/stat").and_then(|stat| processor_time(&stat))?;
    std::thread::sleep(sample);
    let after = text(root, "proc/stat").and_then(|stat| processor_time(&stat))?;
    let (stolen, total) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    (total > 0).then(|| stolen as f64 * 100.0 / total as f64)
}

/// Stolen and total ticks of all processors since the start.
fn processor_time(stat: &str) -> Option<(u64, u64)> {
    // user nice system idle iowait irq softirq steal; guest time is already part of user time.
    let ticks: Vec<u64> = field(stat, "cpu ")?
        .split_whitespace()
        .take(8)
        .filter_map(|tick| tick.parse().ok())
        .collect();
    Some((*ticks.get(7)?, ticks.iter().sum()))
}

fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim_end().to_owned())
}

fn number<T: FromStr>(text: Option<String>) -> Option<T> {
    text?.trim().parse().ok()
}

/// What follows `name` in the first line that starts with it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The soft limit in a line of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<Limit> {
    match field(limits, name)?.split_whitespace().next()? {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::At),
    }
}

/// The word in brackets, as the kernel marks the choice in force: `always [madvise] never`.
fn chosen(text: String) -> Option<String> {
    let word = text.split_whitespace().find(|word| word.starts_with(['[', '(']))?;
    Some(word.trim_matches(['[', ']', '(', ')']).to_owned())
}

fn preemption(built_with: &str) -> Option<String> {
    let models = [
        ("CONFIG_PREEMPT_NONE=y", "none"),
        ("CONFIG_PREEMPT_VOLUNTARY=y", "voluntary"),
        ("CONFIG_PREEMPT_LAZY=y", "lazy"),
        ("CONFIG_PREEMPT=y", "full"),
    ];
    let set = |line: &str| built_with.lines().any(|built| built == line);
    models.iter().find(|(line, _)| set(line)).map(|(_, model)| (*model).to_owned())
}

/// Processors of a list such as `0-2,5`.
fn core_list(text: &str) -> BTreeSet<usize> {
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

fn governors(root: &Path) -> BTreeSet<String> {
    let Ok(cores) = fs::read_dir(root.join("sys/devices/system/cpu")) else {
        return BTreeSet::new();
    };
    let governor = |core: fs::DirEntry| text(&core.path(), "cpufreq/scaling_governor");
    cores.flatten().filter_map(governor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_is_read_with_its_ranges() {
        assert_eq!(core_list("0-2,5"), BTreeSet::from([0, 1, 2, 5]));
        assert_eq!(core_list("7"), BTreeSet::from([7]));
        assert_eq!(core_list(""), BTreeSet::new());
    }

    #[test]
    fn the_choice_in_force_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never".to_owned()).as_deref(), Some("madvise"));
        assert_eq!(chosen("none voluntary (full)".to_owned()).as_deref(), Some("full"));
        assert_eq!(chosen("none".to_owned()), None);
    }

    #[test]
    fn soft_limits_are_read() {
        let limits = "Limit            Soft Limit  Hard Limit  Units\n\
                      Max open files   1024        4096        files\n\
                      Max locked memory unlimited  unlimited   bytes";
        assert_eq!(limit(limits, "Max open files"), Some(Limit::At(1024)));
        assert_eq!(limit(limits, "Max locked memory"), Some(Limit::Unlimited));
        assert_eq!(limit(limits, "Max processes"), None);
    }

    #[test]
    fn stolen_time_is_the_eighth_column_and_guest_time_counts_once() {
        let stat = "cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1";
        assert_eq!(processor_time(stat), Some((10, 100)));
        assert_eq!(processor_time("cpu  1 2 3"), None);
    }

    #[test]
    fn a_machine_that_shows_nothing_is_read_as_unknown() {
        let host = Host::read(Path::new("/nowhere"));
        assert_eq!(host, Host::default());
        assert_eq!(steal_pct(Path::new("/nowhere"), Duration::ZERO), None);
    }

    #[test]
    fn this_machine_shows_its_kernel_limits_and_cores() {
        let host = Host::read(Path::new("/"));
        assert!(host.kernel.is_some());
        assert!(host.memlock.is_some() && host.open_files.is_some());
        assert!(!host.cores.is_empty());
    }
}
