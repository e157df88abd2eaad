//! Judges the facts about a machine against a configuration; touches nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use super::host::{Host, Limit};
use crate::{
    config::{Config, CoreSet, Listen},
    runtime::topology::Topology,
};

/// The oldest kernel whose io_uring has every operation that the executors use.
const KERNEL_OLDEST: (u32, u32) = (5, 8);
/// Since this kernel, rings no longer count against RLIMIT_MEMLOCK.
const KERNEL_RINGS_UNLOCKED: (u32, u32) = (5, 12);
/// An executor does not start below this RLIMIT_MEMLOCK, bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Swappiness above which idle memory of a node may be swapped out.
const SWAPPINESS_MAX: u32 = 10;
/// Shares of time above which measurements are disturbed, percent.
const STEAL_PCT_MAX: f64 = 1.0;
const PRESSURE_PCT_MAX: f64 = 10.0;

/// How a check went; the order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// A node starts, but slower or less steady than it could be.
    Warn,
    /// A node does not start, or not as configured.
    Fail,
}

impl Status {
    /// The state as it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found, a sentence.
    pub found: String,
    /// What to do, when something should be done.
    pub advice: Option<String>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, found: found.into(), advice: None }
}

fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
}

fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name, status: Status::Fail, found: found.into(), advice: Some(advice.into()) }
}

/// Every check, in the order in which a start would meet them.
pub fn all(host: &Host, config: &Config) -> Vec<Check> {
    let plan = CorePlan::new(host, config);
    vec![
        kernel(host),
        io_uring(host),
        memlock(host, config, plan.executors()),
        open_files(host, config, plan.executors()),
        cores(host, &plan),
        ports(host, config),
        secrets(host, config),
        governor(host),
        huge_pages(host),
        swap(host),
        virtual_machine(host),
        preemption(host),
        steal(host),
        pressure(host),
    ]
}

/// Which cores the configuration takes on this machine.
struct CorePlan {
    workers: BTreeSet<usize>,
    raft: BTreeSet<usize>,
}

impl CorePlan {
    /// The cores that the node would take; of those that it would refuse, what the lists say.
    fn new(host: &Host, config: &Config) -> Self {
        let cores = &config.cores;
        match Topology::choose(cores, host.cores.iter().copied().collect()) {
            Ok(Topology { workers, raft }) => {
                Self { workers: workers.into_iter().collect(), raft: raft.into_iter().collect() }
            }
            Err(_) => {
                let listed = |set: &CoreSet| match set {
                    CoreSet::List(cores) => cores.iter().copied().collect(),
                    CoreSet::Auto => BTreeSet::new(),
                };
                Self { workers: listed(&cores.workers), raft: listed(&cores.raft) }
            }
        }
    }

    fn executors(&self) -> usize {
        self.workers.union(&self.raft).count().max(1)
    }
}

fn kernel(host: &Host) -> Check {
    const NAME: &str = "kernel";
    let oldest = KERNEL_OLDEST;
    let Some(release) = &host.kernel else {
        return warn(NAME, "the kernel's version cannot be read", "mount /proc");
    };
    let advice = "boot a kernel of 5.12 or later; Debian 12 and later have one";
    match version(release) {
        Some(found) if found < oldest => {
            fail(NAME, format!("{release} is older than {}.{}", oldest.0, oldest.1), advice)
        }
        Some(found) if found < KERNEL_RINGS_UNLOCKED => {
            warn(NAME, format!("{release} counts rings as locked memory"), advice)
        }
        Some(_) => ok(NAME, format!("{release} has every operation that is needed")),
        None => warn(NAME, format!("{release} is not a version that is known"), advice),
    }
}

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn io_uring(host: &Host) -> Check {
    const NAME: &str = "io_uring";
    match host.io_uring {
        Some(Ok(())) => ok(NAME, "a ring could be made"),
        Some(Err(libc::ENOSYS)) => fail(
            NAME,
            "this kernel is built without io_uring, or a sandbox hides it",
            "boot a kernel with CONFIG_IO_URING=y, or leave the sandbox",
        ),
        Some(Err(libc::EPERM | libc::EACCES)) if host.io_uring_disabled.unwrap_or(0) > 0 => fail(
            NAME,
            "io_uring is switched off by kernel.io_uring_disabled",
            "run `sysctl kernel.io_uring_disabled=0` as root",
        ),
        Some(Err(libc::EPERM | libc::EACCES)) => fail(
            NAME,
            "io_uring is forbidden to this process; containers often do so",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile",
        ),
        Some(Err(libc::ENOMEM)) => fail(
            NAME,
            "there is not enough lockable memory for a ring",
            "raise RLIMIT_MEMLOCK: `ulimit -l`, or LimitMEMLOCK= of the service",
        ),
        Some(Err(number)) => {
            let error = std::io::Error::from_raw_os_error(number);
            fail(NAME, format!("a ring cannot be made: {error}"), "see `man 2 io_uring_setup`")
        }
        None => warn(NAME, "could not be tried", "run `coreflow doctor` again"),
    }
}

fn memlock(host: &Host, config: &Config, executors: usize) -> Check {
    const NAME: &str = "memlock";
    let needed = config.locked_memory_bytes(executors);
    let need = format!("{executors} executors lock {} KiB", needed / 1024);
    let advice = format!(
        "raise RLIMIT_MEMLOCK to {} KiB (`ulimit -l`, or LimitMEMLOCK= of the service), or lower \
         runtime.io_memory_kib",
        needed.max(MEMLOCK_BYTES_MIN).div_ceil(1024)
    );
    match host.memlock {
        None => warn(NAME, format!("{need}; the limit cannot be read"), "mount /proc"),
        Some(Limit::At(limit)) if limit < MEMLOCK_BYTES_MIN => {
            let limit = limit / 1024;
            fail(NAME, format!("the limit of {limit} KiB is too low for an executor"), advice)
        }
        Some(_) if host.locks_freely => {
            ok(NAME, format!("{need}; this process may lock without limit"))
        }
        Some(Limit::At(limit)) if limit < needed => {
            let found = format!(
                "{need} and the limit is {} KiB; beyond it file I/O copies once more",
                limit / 1024
            );
            warn(NAME, found, advice)
        }
        Some(Limit::At(limit)) => ok(NAME, format!("{need}; the limit is {} KiB", limit / 1024)),
        Some(Limit::Unlimited) => ok(NAME, format!("{need}; there is no limit")),
    }
}

fn open_files(host: &Host, config: &Config, executors: usize) -> Check {
    const NAME: &str = "open files";
    let needed = config.open_files(executors);
    match host.open_files {
        None => warn(NAME, "the limit cannot be read", "mount /proc"),
        Some(Limit::At(limit)) if limit < needed => warn(
            NAME,
            format!(
                "{executors} cores with {} connections each and their agents may open {needed} \
                 files, and the limit is {limit}; connections beyond it are refused",
                config.server.max_connections
            ),
            format!(
                "raise RLIMIT_NOFILE to {needed} (`ulimit -n`, or LimitNOFILE= of the service), \
                 or lower server.max_connections"
            ),
        ),
        Some(_) => ok(NAME, format!("up to {needed} files may be opened")),
    }
}

fn cores(host: &Host, plan: &CorePlan) -> Check {
    const NAME: &str = "cores";
    if host.cores.is_empty() {
        return warn(NAME, "the cores of this process cannot be read", "mount /proc");
    }
    let missing: BTreeSet<_> =
        plan.workers.union(&plan.raft).filter(|core| !host.cores.contains(core)).copied().collect();
    if !missing.is_empty() {
        return fail(
            NAME,
            format!(
                "core {} is configured, and this process may run on {}",
                list(&missing),
                list(&host.cores)
            ),
            "change cores.workers and cores.raft, or what restricts the process (taskset, cpuset)",
        );
    }
    let workers = list(&plan.workers);
    let raft = list(&plan.raft);
    if plan.workers.is_disjoint(&plan.raft) {
        return ok(NAME, format!("agents run on core {workers}, the log on core {raft}"));
    }
    warn(
        NAME,
        format!("agents run on core {workers} and share core {raft} with the log"),
        "a busy agent can delay the log; three or more cores keep them apart",
    )
}

/// Core numbers as people write them.
fn list(cores: &BTreeSet<usize>) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

fn ports(host: &Host, config: &Config) -> Check {
    const NAME: &str = "ports";
    let Listen { rpc, http, peers } = config.listen();
    if host.busy.is_empty() {
        return ok(
            NAME,
            match peers {
                Some(peers) => format!("{rpc}, {http} and {peers} are free"),
                None => format!("{rpc} and {http} are free"),
            },
        );
    }
    let taken: Vec<_> = host
        .busy
        .iter()
        .map(|busy| format!("{} ({}) cannot be bound: {}", busy.address, busy.key, busy.reason))
        .collect();
    fail(
        NAME,
        taken.join("; "),
        "stop what listens there (`ss -ltnp` names it; perhaps a node already runs), or change \
         the address",
    )
}

fn secrets(host: &Host, config: &Config) -> Check {
    const NAME: &str = "secrets";
    if !host.unfit_secrets.is_empty() {
        return fail(
            NAME,
            host.unfit_secrets.join("; "),
            "write one with `openssl rand -hex 32 > FILE` and keep it from others with `chmod o= FILE`",
        );
    }
    let asked = |file: &Option<String>, of: &str| match file {
        Some(_) => format!("asked of {of}"),
        None => format!("not asked of {of}, which must be on this machine"),
    };
    let clients = asked(&config.server.token_file, "clients");
    match config.cluster.node {
        0 => ok(NAME, format!("a token is {clients}")),
        _ => {
            let nodes = asked(&config.cluster.secret_file, "other nodes");
            ok(NAME, format!("a token is {clients}; a secret is {nodes}"))
        }
    }
}

fn governor(host: &Host) -> Check {
    const NAME: &str = "governor";
    let found = host.governors.iter().cloned().collect::<Vec<_>>().join(", ");
    match found.as_str() {
        "" => ok(NAME, "this machine shows no frequency control"),
        "performance" => ok(NAME, "performance"),
        _ => warn(
            NAME,
            format!("{found}: a core that wakes starts at a low frequency"),
            "run `scripts/pin.sh apply` as root",
        ),
    }
}

fn huge_pages(host: &Host) -> Check {
    const NAME: &str = "huge pages";
    match host.huge_pages.as_deref() {
        Some("always") => warn(
            NAME,
            "always: the kernel may stop a core to gather a huge page",
            "run `scripts/pin.sh apply` as root; it sets madvise",
        ),
        Some(choice) => ok(NAME, choice),
        None => ok(NAME, "this kernel shows no transparent huge pages"),
    }
}

fn swap(host: &Host) -> Check {
    const NAME: &str = "swap";
    match (host.swap_kib, host.swappiness) {
        (Some(0), _) => ok(NAME, "there is no swap"),
        (_, Some(swappiness)) if swappiness > SWAPPINESS_MAX => warn(
            NAME,
            format!("swappiness is {swappiness}: idle agents may be swapped out"),
            "run `scripts/pin.sh apply` as root; it sets 1",
        ),
        (_, Some(swappiness)) => ok(NAME, format!("swappiness is {swappiness}")),
        (_, None) => ok(NAME, "this kernel shows no swappiness"),
    }
}

fn virtual_machine(host: &Host) -> Check {
    const NAME: &str = "virtual machine";
    if host.hypervisor {
        return warn(
            NAME,
            "this is a virtual machine: its host moves and stops the cores",
            "compare only measurements whose probes agree; bare metal gives steadier ones",
        );
    }
    ok(NAME, "no hypervisor is seen")
}

fn preemption(host: &Host) -> Check {
    const NAME: &str = "preemption";
    let tick = host.tick_hz.map(|hz| format!(", {hz} ticks a second")).unwrap_or_default();
    match host.preemption.as_deref() {
        Some(model @ ("none" | "voluntary")) => warn(
            NAME,
            format!("{model}{tick}: beside other work, a core that sleeps is woken a tick late"),
            "keep other work off these cores, or boot with preempt=full",
        ),
        Some(model) => ok(NAME, format!("{model}{tick}")),
        None => ok(NAME, format!("the model cannot be read; that may need root{tick}")),
    }
}

fn steal(host: &Host) -> Check {
    const NAME: &str = "steal";
    match host.steal_pct {
        Some(share) if share > STEAL_PCT_MAX => warn(
            NAME,
            format!("the host gave {share:.1}% of the processor time to others"),
            "measure at another time, or on a machine of its own",
        ),
        Some(share) => ok(NAME, format!("{share:.1}% of the processor time")),
        None => ok(NAME, "cannot be read"),
    }
}

fn pressure(host: &Host) -> Check {
    const NAME: &str = "pressure";
    match host.pressure_pct {
        Some(share) if share > PRESSURE_PCT_MAX => warn(
            NAME,
            format!("in {share:.1}% of the last ten seconds a thread waited for a processor"),
            "stop other work on this machine before measuring",
        ),
        Some(share) => ok(NAME, format!("threads waited {share:.1}% of the last ten seconds")),
        None => ok(NAME, "this kernel does not tell"),
    }
}

#[cfg(test)]
mod tests;
