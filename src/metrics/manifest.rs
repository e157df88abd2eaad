//! Under which conditions a run was measured: what two runs must share to be compared.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::process::{self, StealTicks};

/// What stands where the machine does not tell.
const UNKNOWN: &str = "unknown";
/// Seconds in a day of Universal Time.
const DAY_S: u64 = 86_400;

/// How fast two cores exchanged messages over a ring, right before or after a run.
///
/// The same code has several speeds on a virtual machine, as the host moves its processors: runs
/// whose probes differ were not measured on the same machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Median of a round trip, nanoseconds.
    pub ring_p50_ns: f64,
    /// 99 % of the round trips are no longer, nanoseconds.
    pub ring_p99_ns: f64,
    /// Messages in a second, sent one by one.
    pub ring_msgs_per_s: f64,
}

/// The conditions of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// The commit that was built, with `-dirty` when files had changed, or `unknown`.
    pub git: String,
    /// When the run began, RFC 3339 in Universal Time.
    pub time: String,
    /// The command line.
    pub command: String,
    /// Model of the processor, or `unknown`.
    pub cpu: String,
    /// Release of the kernel, or `unknown`.
    pub kernel: String,
    /// Processors that the program may use.
    pub cores: usize,
    /// The hash of the tuning in force.
    pub config_hash: String,
    /// How the program was built: `release` or `debug`.
    pub profile: String,
    /// How long the run took, seconds.
    pub duration_s: f64,
    /// Share of processor time that the hypervisor gave to others during the run, percent;
    /// `None` where the kernel does not tell.
    pub steal_pct: Option<f64>,
    /// Share of the ten seconds before the run in which some thread waited for a processor,
    /// percent; `None` where the kernel does not tell.
    pub cpu_pressure_before_pct: Option<f64>,
    /// The same for the last ten seconds of the run.
    pub cpu_pressure_after_pct: Option<f64>,
    /// Speed of the machine before the run.
    pub probe_before: Probe,
    /// Speed of the machine after the run.
    pub probe_after: Probe,
}

/// A run that has begun: [`Run::finish`] makes its manifest.
#[derive(Debug)]
pub struct Run {
    manifest: Manifest,
    ticks: Option<StealTicks>,
    began: Instant,
}

impl Manifest {
    /// Notes the conditions at the begin of a run; call it right before the work.
    ///
    /// Asks `git` for the commit of the sources unless `COREFLOW_GIT` named it at build time.
    pub fn begin(
        command: impl Into<String>,
        config_hash: impl Into<String>,
        probe_before: Probe,
    ) -> Run {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let manifest = Self {
            version: env!("CARGO_PKG_VERSION").into(),
            git: git(),
            time: rfc3339(SystemTime::now()),
            command: command.into(),
            cpu: cpu_model(&text("/proc/cpuinfo")),
            kernel: known(text("/proc/sys/kernel/osrelease").trim()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            config_hash: config_hash.into(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            duration_s: 0.0,
            steal_pct: None,
            cpu_pressure_before_pct: process::cpu_pressure_pct(),
            cpu_pressure_after_pct: None,
            probe_before,
            probe_after: Probe::default(),
        };
        Run { manifest, ticks: process::steal_ticks(), began: Instant::now() }
    }
}

impl Run {
    /// Notes the conditions at the end; `probe_after` was taken right after the work and counts
    /// as part of the run.
    pub fn finish(self, probe_after: Probe) -> Manifest {
        let stolen = self.ticks.zip(process::steal_ticks());
        Manifest {
            duration_s: self.began.elapsed().as_secs_f64(),
            steal_pct: stolen.and_then(|(before, now)| now.stolen_pct_since(before)),
            cpu_pressure_after_pct: process::cpu_pressure_pct(),
            probe_after,
            ..self.manifest
        }
    }
}

/// The commit of this build: named at build time, or asked of the sources if they are still
/// there. A checkout around the sources is not theirs, so `git` does not look above them. Where the sources
/// have a later commit than this program was built from, it is only known that it is of one before.
fn git() -> String {
    if let Some(commit) = option_env!("COREFLOW_GIT") {
        return known(commit);
    }
    let sources = env!("CARGO_MANIFEST_DIR");
    let above = sources.rsplit_once('/').map_or("", |(above, _)| above);
    let ask = |words: &[&str]| {
        let asked = Command::new("git")
            .args(["-C", sources])
            .args(words)
            .env("GIT_CEILING_DIRECTORIES", above)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .output();
        let answered = asked.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&answered.stdout).trim().to_owned())
    };
    let Some(commit) = ask(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    else {
        return UNKNOWN.into();
    };
    let committed_s = ask(&["log", "-1", "--format=%ct"]).and_then(|text| text.parse().ok());
    known(&commit_of(&commit, committed_s, built_s()))
}

/// When this program was built, seconds of Unix time.
fn built_s() -> Option<u64> {
    let built = fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()?;
    Some(built.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

/// The commit of a program that was built at a time, when the sources are at this one.
fn commit_of(sources: &str, committed_s: Option<u64>, built_s: Option<u64>) -> String {
    match committed_s.zip(built_s) {
        Some((committed, built)) if built < committed => format!("before-{sources}"),
        _ => sources.to_owned(),
    }
}

fn known(text: &str) -> String {
    if text.is_empty() { UNKNOWN } else { text }.into()
}

fn cpu_model(cpuinfo: &str) -> String {
    let model = process::field(cpuinfo, "model name");
    known(model.map_or("", |text| text.trim_start_matches([':', ' ', '\t'])))
}

/// RFC 3339 to the second; times before 1970 are its begin.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(seconds / DAY_S);
    let (hour, minute, second) = (seconds % DAY_S / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin
/// in March, so that the leap day is the last of its year.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month =
        if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    pub fn probe() -> Probe {
        Probe { ring_p50_ns: 90.0, ring_p99_ns: 160.0, ring_msgs_per_s: 1.12e8 }
    }

    /// A manifest that is the same on every machine.
    pub fn manifest() -> Manifest {
        Manifest {
            version: "0.1.0".into(),
            git: "0123456789ab".into(),
            time: "2026-01-02T03:04:05Z".into(),
            command: "coreflow bench latency".into(),
            cpu: "A processor".into(),
            kernel: "6.18.0".into(),
            cores: 2,
            config_hash: "00ff00ff00ff00ff".into(),
            profile: "release".into(),
            duration_s: 12.5,
            steal_pct: Some(0.25),
            cpu_pressure_before_pct: None,
            cpu_pressure_after_pct: Some(3.0),
            probe_before: probe(),
            probe_after: probe(),
        }
    }

    #[test]
    fn times_are_rfc_3339_in_universal_time() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn the_processor_is_named_by_its_model() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC 9R45\n";
        assert_eq!(cpu_model(cpuinfo), "AMD EPYC 9R45");
        assert_eq!(cpu_model("processor\t: 0\n"), "unknown");
    }

    #[test]
    fn a_run_notes_this_machine_and_both_probes() {
        let after = Probe { ring_p50_ns: 620.0, ..probe() };
        let run = Manifest::begin("coreflow bench all", "abc", probe());
        let manifest = run.finish(after);
        assert_eq!((manifest.probe_before, manifest.probe_after), (probe(), after));
        assert_eq!((&*manifest.command, &*manifest.config_hash), ("coreflow bench all", "abc"));
        assert_ne!(manifest.kernel, UNKNOWN);
        assert!(manifest.cores >= 1 && manifest.duration_s >= 0.0);
        assert!(!manifest.git.is_empty() && !manifest.git.contains(char::is_whitespace));
        for (committed_s, built_s, told) in
            [(None, Some(7), "abc"), (Some(7), Some(7), "abc"), (Some(8), Some(7), "before-abc")]
        {
            assert_eq!(commit_of("abc", committed_s, built_s), told);
        }
    }

    #[test]
    fn a_manifest_survives_json() {
        let mut text = simd_json::to_vec(&manifest()).expect("plain fields");
        assert_eq!(simd_json::from_slice::<Manifest>(&mut text).expect("as written"), manifest());
    }
}
