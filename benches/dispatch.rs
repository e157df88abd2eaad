//! Giving tasks to agents: the load index, the task table and the directory.
//!
//! - `assign/load_index/AGENTS`: the least loaded agent gets a task and the oldest of the tasks
//!   that run ends, with half of all places taken and latencies that differ. The goal is at most
//!   250 ns with 10,000 agents. `assign/scan/AGENTS` does the same by looking at every agent's
//!   score, one after the other in one array: the simple way that the index has to beat.
//! - `task/one_by_one`: the whole life of a task in a shard's table, from its submission until it
//!   is forgotten, its payload and its result 64 bytes each, while the table remembers as many
//!   ended tasks as in the default tuning. `task/in_hundreds`: a hundred tasks go through each step
//!   together, as they do when they arrive in one batch; an iteration is still counted as 100.
//! - `directory/id/AGENTS` and `directory/name/AGENTS`: one agent is looked up, in random order.
//!
//! `cargo bench --bench dispatch`, or `cargo bench --bench dispatch -- --quick assign` for a first
//! look.
//!
//! The middle one of the three times is the estimate for one iteration, and `thrpt` counts tasks or
//! lookups. What is looked up does not depend on what was found before, so the processor works on
//! several lookups at the same time: the figure is the cost in a busy loop, not one's latency.

use coreflow::{
    config::Config,
    registry::{Directory, Entry},
    task::{LoadIndex, Origin, Submission, Submitted, TableLimits, TaskTable, Watcher},
    wire::{
        api::Priority,
        id::{AgentId, CoreIndex},
    },
};
use criterion::{BenchmarkId, Criterion, Throughput};
use fastrand::Rng;
use std::{collections::VecDeque, time::Duration};

const SEED: u64 = 0x5eed;
/// Tasks that one agent may run at the same time.
const TASKS_PER_AGENT: u32 = 4;
/// Latencies that the ends of tasks take turns with.
const LATENCIES: usize = 4_096;
const LATENCY_MS_MAX: u64 = 200;

/// Chooses agents for tasks.
trait Pool: Default {
    fn insert(&mut self, slot: u32, max_tasks: u32);
    fn least_loaded(&self) -> Option<u32>;
    fn begin(&mut self, slot: u32);
    fn end(&mut self, slot: u32, latency_ms: u64);
}

impl Pool for LoadIndex {
    fn insert(&mut self, slot: u32, max_tasks: u32) {
        LoadIndex::insert(self, slot, max_tasks);
    }

    fn least_loaded(&self) -> Option<u32> {
        LoadIndex::least_loaded(self)
    }

    fn begin(&mut self, slot: u32) {
        LoadIndex::begin(self, slot);
    }

    fn end(&mut self, slot: u32, latency_ms: u64) {
        LoadIndex::end(self, slot, latency_ms);
    }
}

/// Looks at everybody: an array of scores, the least of which wins.
#[derive(Default)]
struct Scan {
    /// For each agent its score, above who has waited longest; the greatest for one that is full.
    keys: Vec<u64>,
    loads: Vec<Load>,
    turns: u32,
}

struct Load {
    tasks: u32,
    max_tasks: u32,
    latency_ms: f32,
    turn: u32,
}

impl Scan {
    fn update(&mut self, slot: u32) {
        let load = &self.loads[slot as usize];
        let busy = load.tasks as f32 / load.max_tasks as f32;
        let score = 0.7 * busy + 0.3 * (load.latency_ms / 1_000.0).min(1.0);
        // Floats that are not negative order as their bits do.
        let key = u64::from(score.to_bits()) << 32 | u64::from(load.turn);
        self.keys[slot as usize] = if load.tasks < load.max_tasks { key } else { u64::MAX };
    }
}

impl Pool for Scan {
    /// Slots must come in order, from 0.
    fn insert(&mut self, slot: u32, max_tasks: u32) {
        self.turns += 1;
        self.loads.push(Load { tasks: 0, max_tasks, latency_ms: 0.0, turn: self.turns });
        self.keys.push(0);
        self.update(slot);
    }

    fn least_loaded(&self) -> Option<u32> {
        let (slot, key) = self.keys.iter().enumerate().min_by_key(|(_, key)| **key)?;
        (*key != u64::MAX).then_some(slot as u32)
    }

    fn begin(&mut self, slot: u32) {
        self.turns += 1;
        let load = &mut self.loads[slot as usize];
        load.tasks += 1;
        load.turn = self.turns;
        self.update(slot);
    }

    fn end(&mut self, slot: u32, latency_ms: u64) {
        let load = &mut self.loads[slot as usize];
        load.tasks -= 1;
        load.latency_ms += 0.2 * (latency_ms as f32 - load.latency_ms);
        self.update(slot);
    }
}

/// Agents at work, half of their places taken.
struct Work<P> {
    pool: P,
    /// The agents of the tasks that run, the oldest task's first.
    running: VecDeque<u32>,
    latencies_ms: Vec<u64>,
    ends: usize,
}

impl<P: Pool> Work<P> {
    fn new(agents: u32) -> Self {
        let mut random = Rng::with_seed(SEED);
        let latencies_ms = (0..LATENCIES).map(|_| random.u64(0..LATENCY_MS_MAX)).collect();
        let mut pool = P::default();
        (0..agents).for_each(|slot| pool.insert(slot, TASKS_PER_AGENT));
        let mut work = Self { pool, running: VecDeque::new(), latencies_ms, ends: 0 };
        (0..agents * TASKS_PER_AGENT / 2).for_each(|_| work.assign());
        // Every agent ends a task before the first is measured, so that latencies differ.
        (0..agents).for_each(|_| work.assign_and_end());
        work
    }

    fn assign(&mut self) {
        let slot = self.pool.least_loaded().expect("half of the places are free");
        self.pool.begin(slot);
        self.running.push_back(slot);
    }

    fn assign_and_end(&mut self) {
        self.assign();
        let slot = self.running.pop_front().expect("a task was just assigned");
        self.ends += 1;
        self.pool.end(slot, self.latencies_ms[self.ends % LATENCIES]);
    }
}

fn bench_assign(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("assign");
    group.throughput(Throughput::Elements(1));
    for agents in [60, 1_000, 10_000] {
        let mut work = Work::<LoadIndex>::new(agents);
        group.bench_function(BenchmarkId::new("load_index", agents), |bencher| {
            bencher.iter(|| work.assign_and_end());
        });
        let mut work = Work::<Scan>::new(agents);
        group.bench_function(BenchmarkId::new("scan", agents), |bencher| {
            bencher.iter(|| work.assign_and_end());
        });
    }
}

/// A shard's table in the default tuning, and tasks for it.
struct Life {
    table: TaskTable,
    random: Rng,
    /// Tasks that go through the present step together.
    keys: Vec<u32>,
}

impl Life {
    fn new() -> Self {
        let limits = Config::default().tasks;
        let origin =
            Origin { partition: 0, first_token: 1, durable: false, zero_unix_ms: 0, among: None };
        let table = TaskTable::new(origin, TableLimits::from(&limits));
        let mut life = Self { table, random: Rng::with_seed(SEED), keys: Vec::new() };
        // From here on each task that ends makes the table forget one.
        (0..limits.retained).for_each(|_| life.live(1));
        life
    }

    fn submit(&mut self) -> u32 {
        let submission = Submission {
            random: self.random.u128(..),
            type_index: 0,
            priority: Priority::Normal,
            payload: &[7; 64],
            long: None,
            timeout_ms: 0,
            max_attempts: 0,
            delay_ms: 0,
            key: None,
            transient: false,
            reserved: false,
            watcher: Some(Watcher { target: 1, correlation: 2 }),
        };
        match self.table.submit(0, submission).expect("the queue has room") {
            Submitted::New(key) => key,
            Submitted::Existing(_) => unreachable!("no task has a key"),
        }
    }

    /// The whole life of so many tasks.
    fn live(&mut self, tasks: usize) {
        for _ in 0..tasks {
            let key = self.submit();
            self.keys.push(key);
        }
        self.keys.drain(..).for_each(|key| self.table.accepted(key, 0, None));
        while let Some(key) = self.table.next(0) {
            let lease = self.table.start(key, 0);
            let mut result = [0; 64];
            result.copy_from_slice(self.table.payload(key));
            self.table.complete(lease, &result).expect("the lease is the current one");
            self.keys.push(key);
        }
        for key in self.keys.drain(..) {
            self.table.ended(key);
            assert_eq!(self.table.take_watchers(key).count(), 1);
            self.table.retain_within_limits();
        }
    }
}

fn bench_task(criterion: &mut Criterion) {
    let mut life = Life::new();
    let mut group = criterion.benchmark_group("task");
    for (name, tasks) in [("one_by_one", 1), ("in_hundreds", 100)] {
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_function(name, |bencher| bencher.iter(|| life.live(tasks)));
    }
}

fn name_of(id: AgentId) -> String {
    format!("clerk-{id}")
}

/// A directory of agents on two cores, and their ids in random order.
fn directory(agents: u32) -> (Directory, Vec<AgentId>) {
    let id = |number| AgentId::new((number % 2) as CoreIndex, number / 2, 1);
    let mut ids: Vec<_> = (0..agents).map(id).collect();
    let mut directory = Directory::default();
    for id in &ids {
        directory.insert(*id, Entry { type_index: 0, name: Some(name_of(*id)) });
    }
    Rng::with_seed(SEED).shuffle(&mut ids);
    (directory, ids)
}

fn bench_directory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("directory");
    group.throughput(Throughput::Elements(1));
    for agents in [60, 10_000] {
        let (directory, ids) = directory(agents);
        let mut next = ids.iter().cycle();
        group.bench_function(BenchmarkId::new("id", agents), |bencher| {
            bencher.iter(|| directory.get(*next.next()?));
        });
        let names: Vec<_> = ids.iter().map(|id| name_of(*id)).collect();
        let mut next = names.iter().cycle();
        group.bench_function(BenchmarkId::new("name", agents), |bencher| {
            bencher.iter(|| directory.find(next.next()?));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    bench_assign(&mut criterion);
    bench_task(&mut criterion);
    bench_directory(&mut criterion);
    criterion.final_summary();
}
