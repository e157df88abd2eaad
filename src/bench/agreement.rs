//! `pbft_throughput` and `pbft_latency`: what the log threads of four nodes commit of which one may lie.
//!
//! The nodes are those of `consensus_log` with the other engine: log threads with synced logs, links on the
//! loopback, everything signed.
//!
//! Throughput: blocks of operations that the primaries' shards append, as many as fit; then as many as all
//! nodes ask for, as their doors do: in requests that each node signs and each replica verifies. Latency: two
//! clusters side by side, one that answers clients tentatively and one that answers what is committed. A
//! node that is not the primary asks for one operation after the other, in turn of one cluster and the
//! other, so the machine is as fast for both; then a node of the first is stopped, and it goes on. Four
//! nodes share this machine's processors, so there is a pause between two requests: without it each would
//! wait for what the one before left to do.

use super::{
    Effort, Measured, disk,
    replicated_log::{Nodes, PARTITIONS, Protocol, WINDOW, company, had_room},
    served::Scratch,
};
use crate::{
    consensus::{
        Record,
        agreement::Rules,
        cluster::{Answer, Ask},
        engine::Agreement,
    },
    metrics::Latency,
    wire::{
        api::Priority,
        id::{PartitionIndex, TaskId},
        msgpack::write,
        names::{Named, Naming},
    },
};
use async_io::Timer;
use futures_lite::future::{block_on, or};
use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Nodes: one may lie.
const NODES: u64 = 4;
/// Our goal for operations in a second.
const GOAL: f64 = 100_000.0;
/// The goal for the median of the fast path, beside that of the slow one.
const RATIO_GOAL: f64 = 0.7;
/// The partition that is asked, whose primary is the first node, and the node that asks.
const PARTITION: PartitionIndex = 0;
const ASKING: usize = 1;
/// The node that falls silent.
const SILENT: usize = 3;
/// Requests that do not count, and those that do, at full and at quick effort.
const WARM_UP: u32 = 20;
const REQUESTS: (u32, u32) = (1500, 50);
/// From one request to the next, so that nothing of the last one is still being done.
const BETWEEN: Duration = Duration::from_millis(4);
/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Operations that one node asks for before the next one does; about as many share a signature.
const TOGETHER: u32 = 512;

/// Measures how much four nodes commit.
///
/// # Errors
/// A log cannot be opened, nobody leads in time, or an operation is lost.
pub(super) fn throughput(effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let seconds = effort.seconds.min(effort.choose((5.0, 0.5)));
    let scratch = Scratch::new(folder, "pbft-throughput")?;
    let mut nodes = Nodes::start(NODES, Protocol::Pbft { is_tentative: true }, scratch.path())?;
    let before = nodes.agreement();
    let began = Instant::now();
    let rates = effort.rounds(|| nodes.keep_full(seconds))?;
    let (took, proposed) = (began.elapsed().as_secs_f64(), nodes.agreement());
    let verified = (proposed.verified - before.verified) as f64 / took;
    let mut doors = Doors::new(nodes);
    let began = Instant::now();
    let mut asked = effort.rounds(|| doors.keep_full(seconds))?;
    let (took, after) = (began.elapsed().as_secs_f64(), doors.nodes.agreement());
    let verified_asked = (after.verified - proposed.verified) as f64 / took;
    let requests = after.fast + after.slow - proposed.fast - proposed.slow;
    asked.sort_by(f64::total_cmp);
    let best = asked.last().copied().unwrap_or_default();
    Ok(Measured::throughput("pbft_throughput", "throughput_ops_per_s", rates)
        .with("nodes", NODES)
        .with_value("verified_per_s", verified.round())
        .with_value("requests_ops_per_s", best.round())
        .with_value("requests_median", asked[asked.len() / 2].round())
        .with_value("requests_verified_per_s", verified_asked.round())
        .with("requests_finished", requests)
        .with_value("operations_per_request", doors.asked() as f64 / requests.max(1) as f64)
        .with("view_changes", after.view_changes - before.view_changes)
        .goal_at_least(GOAL))
}

/// The doors of all nodes, which ask for operations whoever leads.
struct Doors {
    nodes: Nodes,
    /// Operations that were asked for, by partition.
    asked: Vec<u64>,
}

impl Doors {
    fn new(nodes: Nodes) -> Self {
        Self { nodes, asked: vec![0; usize::from(PARTITIONS)] }
    }

    fn asked(&self) -> u64 {
        self.asked.iter().sum()
    }

    /// Operations that every node has committed: whichever asked for one has answered by then.
    fn committed(&self) -> u64 {
        let partitions = 0..usize::from(PARTITIONS);
        let of_all = |at: usize| self.nodes.told_asked.iter().map(move |told| told[at]).min();
        partitions.filter_map(of_all).sum()
    }

    /// A node asks for an operation, when not too many of the partition are under way; whether it did.
    fn ask(&mut self, node: usize, partition: usize) -> bool {
        let told = self.nodes.told_asked[node][partition];
        let under_way = self.asked[partition].saturating_sub(told);
        let lane = self.nodes.lane(node, partition);
        if under_way >= WINDOW || !lane.has_room() {
            return false;
        }
        let mut payload = Vec::new();
        write::bin(&mut payload, &fastrand::u128(..).to_le_bytes());
        // It has the name that the lane gives it.
        let id = TaskId { partition: partition as PartitionIndex, random: 0 };
        lane.ask(operation(id, &payload));
        self.asked[partition] += 1;
        true
    }

    /// Keeps as many under way as may be; operations committed in a second.
    fn keep_full(&mut self, seconds: f64) -> io::Result<f64> {
        let (before, before_asked, began) = (self.committed(), self.asked(), Instant::now());
        while began.elapsed().as_secs_f64() < seconds {
            for partition in 0..usize::from(PARTITIONS) {
                for node in 0..NODES as usize {
                    let _ = (0..TOGETHER).take_while(|_| self.ask(node, partition)).count();
                }
            }
            self.nodes.turn()?;
        }
        let rate = (self.committed() - before) as f64 / began.elapsed().as_secs_f64();
        had_room(self.asked() > before_asked)?;
        let asked = self.asked.clone();
        let is_there = |told: &Vec<u64>| *told == asked;
        self.nodes.until("every node has every operation that was asked for", |nodes| {
            nodes.told_asked.iter().all(is_there)
        })?;
        Ok(rate)
    }
}

/// An operation that somebody asks for.
fn operation(id: TaskId, payload: &[u8]) -> Record<'_> {
    Record::Submitted {
        id,
        is_asked: true,
        agent_type: "",
        priority: Priority::Normal,
        submitted_unix_ms: 1,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: None,
        payload,
    }
}

/// Measures how long a request takes on the fast path and on the slow one.
///
/// # Errors
/// As [`throughput`].
pub(super) fn latency(effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let scratch = Scratch::new(folder, "pbft-latency")?;
    let disk = disk::synced_writes(scratch.path())?;
    let start = |name, is_tentative| {
        let scratch = Scratch::new(scratch.path(), name)?;
        let nodes = Nodes::start(NODES, Protocol::Pbft { is_tentative }, scratch.path())?;
        Ok::<_, io::Error>((Asked::new(nodes)?, scratch))
    };
    let (mut fast, _fast_folder) = start("fast", true)?;
    let (mut slow, _slow_folder) = start("slow", false)?;
    let count = effort.choose(REQUESTS);
    let mut pace = Pace(Instant::now());
    for _ in 0..WARM_UP {
        pace.ask(&mut fast)?;
        pace.ask(&mut slow)?;
    }
    let (mut fast_times, mut slow_times) = (Latency::new(), Latency::new());
    let (mut finished_fast, mut finished_slow) = (0, 0);
    for _ in 0..count {
        let (time, is_fast) = pace.ask(&mut fast)?;
        fast_times.record(time);
        finished_fast += u64::from(is_fast);
        let (time, is_fast) = pace.ask(&mut slow)?;
        slow_times.record(time);
        finished_slow += u64::from(!is_fast);
    }
    fast.nodes.silence(SILENT);
    let (mut silent_times, mut silent_fast) = (Latency::new(), 0);
    for _ in 0..count {
        let (time, is_fast) = pace.ask(&mut fast)?;
        silent_times.record(time);
        silent_fast += u64::from(is_fast);
    }
    let (fast_ms, slow_ms) = (fast_times.quantile_ms(0.5), slow_times.quantile_ms(0.5));
    let percent = |part: u64| part as f64 * 100.0 / f64::from(count);
    Ok(Measured::latency("pbft_latency", fast_times)
        .with("nodes", NODES)
        .with_exact("slow_p50_ms", slow_ms)
        .with_exact("slow_p99_ms", slow_times.quantile_ms(0.99))
        .with_exact("fast_to_slow_p50", fast_ms / slow_ms)
        .with_exact("finished_fast_pct", percent(finished_fast))
        .with_exact("finished_slow_pct", percent(finished_slow))
        .with_exact("one_silent_p50_ms", silent_times.quantile_ms(0.5))
        .with_exact("one_silent_fast_pct", percent(silent_fast))
        .with_exact("disk_p50_ms", disk.quantile_ms(0.5))
        .goal_at_most("fast_to_slow_p50", RATIO_GOAL))
}

/// A cluster, and what its next request is named by.
struct Asked {
    nodes: Nodes,
    naming: Naming,
}

impl Asked {
    fn new(nodes: Nodes) -> io::Result<Self> {
        let all: Vec<u64> = (1..=NODES).collect();
        let (asking, first) = (all[ASKING], 1);
        let naming = Rules::new(&company(asking, &all)?).naming(asking, first);
        Ok(Self { nodes, naming: naming.ok_or_else(|| io::Error::other("no node asks"))? })
    }

    /// The name of the only task of the next request.
    fn next_name(&mut self) -> u128 {
        let Naming { names, asker, next } = self.naming;
        self.naming.next += 1;
        names.name(Named { asker, partition: PARTITION, request: next, place: 0 })
    }
}

/// When the next request is due.
struct Pace(Instant);

impl Pace {
    /// Asks for one operation when it is due; nanoseconds from then on until it was finished, and whether
    /// tentative answers did that.
    fn ask(&mut self, asked: &mut Asked) -> io::Result<(u64, bool)> {
        let (random, body) = (asked.next_name(), fastrand::u128(..).to_le_bytes());
        let id = TaskId { partition: PARTITION, random };
        let mut payload = Vec::new();
        write::bin(&mut payload, &body);
        let mut block = Vec::new();
        operation(id, &payload).encode(&mut block);
        thread::sleep(self.0.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        let ask = Ask::Request { partition: PARTITION, block: block.into() };
        let nodes = &mut asked.nodes;
        let asked = nodes.logs[ASKING].cluster.ask(ask);
        let asked = asked.ok_or_else(|| io::Error::other("the log thread is gone"))?;
        let answer = block_on(or(async { asked.await.ok() }, async {
            Timer::after(LIMIT).await;
            None
        }));
        let took = began.elapsed();
        self.0 = began + BETWEEN.max(took);
        nodes.turn()?;
        match answer {
            Some(Answer::Requested { is_fast, .. }) => Ok((took.as_nanos() as u64, is_fast)),
            Some(other) => Err(io::Error::other(format!("a request was answered with {other:?}"))),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "a request has no answer")),
        }
    }
}

impl Nodes {
    /// What all replicas have counted together.
    fn agreement(&self) -> Agreement {
        let mut all = Agreement::default();
        for log in &self.logs {
            for partition in &log.cluster.status().partitions {
                let of = partition.agreement.unwrap_or_default();
                all.fast += of.fast;
                all.slow += of.slow;
                all.verified += of.verified;
                all.view_changes += of.view_changes;
            }
        }
        all
    }
}
