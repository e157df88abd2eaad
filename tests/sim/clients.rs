//! Clients and workers: what they ask of nodes; and what they make of the answers (`clients/answers.rs`).
//!
//! They talk to the doors of a node's shard, as connections do. A node that ends takes along what
//! it did not answer: whether that was done is not known then.

mod answers;

use crate::{
    node::{Node, TYPE},
    oracle::{FAR_MS, Number, Oracle, result},
    trace::{Trace, note},
};
use coreflow::{
    shard::doors::{Outcomes, Placed, parts},
    wire::{
        api::{Completion, Error, Failure, LeasedTask, Priority, TaskFilter, TaskSpec, Worker},
        id::TaskId,
        letter::{Request, Response},
    },
};
use futures_channel::oneshot::{Receiver, channel};
use std::collections::BTreeSet;

/// Questions that wait for an answer, at most.
const PENDING_MAX: usize = 64;
/// Tasks that a worker takes at the same time.
const CAPACITY: u32 = 8;
/// Bytes of a result, at most.
const RESULT_BYTES: u64 = 1 << 20;

/// What an answer is to.
#[derive(Debug)]
enum Asked {
    Submit(Vec<Number>),
    /// Room for a batch; the tasks follow.
    Reserve(Vec<(Number, TaskSpec)>, Vec<Placed>),
    Conflict,
    End(Vec<(Number, Ending)>),
    Seat,
    Fetch,
    Read(Number),
    List(u16),
    Cancel,
    Requeue,
    Extend,
    Ignored,
}

/// How a worker ends an attempt.
#[derive(Clone, Debug)]
enum Ending {
    Done(Vec<u8>),
    Retry,
    Dead,
}

enum Wait {
    Outcomes(Receiver<Outcomes>),
    Response(Receiver<Result<Response, Error>>),
}

struct Pending {
    node: usize,
    began_us: u64,
    asked: Asked,
    wait: Wait,
}

/// A task that a worker holds.
#[derive(Clone, Debug)]
struct Held {
    node: usize,
    boots: u64,
    number: Number,
    task: LeasedTask,
}

/// A node's worker.
#[derive(Clone, Default)]
struct Seated {
    boots: u64,
    worker: Option<Worker>,
    fetching: bool,
}

/// What clients do, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Tasks in all.
    pub tasks: usize,
    /// Of a hundred tasks, how many have a key.
    pub keyed: u32,
    /// Of a hundred tasks, how many wait before they run.
    pub delayed: u32,
    /// Of a hundred attempts, how many fail.
    pub failing: u32,
    /// Of a hundred attempts that fail, how many do so for good.
    pub dying: u32,
    /// Of a hundred attempts, how many are given up silently.
    pub forgotten: u32,
    /// Longest payload, bytes.
    pub bytes: usize,
}

/// All clients.
pub struct Clients {
    pub oracle: Oracle,
    pub habits: Habits,
    /// Nothing fails any more by what they do, and only so many more tasks are submitted.
    late_most: Option<usize>,
    /// Tasks that were accepted since.
    late: usize,
    trace: Trace,
    rng: fastrand::Rng,
    pending: Vec<Pending>,
    seats: Vec<Seated>,
    held: Vec<Held>,
    submitted: usize,
    /// Answers of each kind that came, for the summary.
    pub acknowledged: u64,
    pub uncertain: u64,
    pub refused: u64,
}

impl Clients {
    pub fn new(seed: u64, nodes: usize, habits: Habits, trace: Trace) -> Self {
        Self {
            oracle: Oracle::default(),
            habits,
            late_most: None,
            late: 0,
            trace,
            rng: fastrand::Rng::with_seed(seed),
            pending: Vec::new(),
            seats: vec![Seated::default(); nodes],
            held: Vec::new(),
            submitted: 0,
            acknowledged: 0,
            uncertain: 0,
            refused: 0,
        }
    }

    /// From now on they submit until some more tasks are accepted, and end all that there are.
    pub fn begin_to_end(&mut self, late: usize) {
        self.late_most = Some(late);
    }

    fn is_over(&self) -> bool {
        self.late_most.is_some()
    }

    /// Whether nothing is under way, and enough tasks were accepted late.
    pub fn is_idle(&self) -> bool {
        self.late_most.is_some_and(|most| self.late >= most)
            && self.held.is_empty()
            && self.pending.iter().all(|one| matches!(one.asked, Asked::Fetch))
    }

    /// A node never comes back: what its worker holds is given up.
    pub fn lose_worker(&mut self, node: usize) {
        self.held.retain(|held| held.node != node);
    }

    /// What is waited for, for whoever looks for a cause.
    pub fn waiting(&self) -> String {
        let asked: Vec<_> = self.pending.iter().map(|one| &one.asked).collect();
        format!("{} late, {} held, pending {asked:?}", self.late, self.held.len())
    }

    /// Something happens at a client.
    pub fn act(&mut self, nodes: &mut [Node], now_us: u64) {
        self.hear(nodes, now_us);
        let since_us = &mut self.oracle.nobody_requeues_since_us;
        let requeues = |one: &Pending| matches!(one.asked, Asked::Requeue);
        if *since_us == u64::MAX && self.late_most.is_some() && !self.pending.iter().any(requeues) {
            *since_us = now_us;
        }
        if self.pending.len() >= PENDING_MAX {
            return;
        }
        let node = self.rng.usize(..nodes.len());
        let Some(running) = &nodes[node].running else { return };
        // Clients ask who leads, mostly.
        let leaders = &running.cluster.leaders;
        let leads = (0..leaders.partitions()).any(|partition| leaders.is_here(partition));
        if !leads && self.rng.u32(..5) > 0 {
            return;
        }
        match self.rng.u32(..100) {
            0..20 => self.submit(nodes, node, now_us),
            20..24 => self.submit_batch(nodes, node, now_us),
            24..26 => self.contradict(nodes, node, now_us),
            26..45 => self.fetch(nodes, node, now_us),
            45..70 => self.end(nodes, node, now_us),
            70..73 => self.extend(nodes, now_us),
            73..92 => self.read_any(nodes, node, now_us),
            92..95 => self.list(nodes, node, now_us),
            95..98 => self.cancel(nodes, node, now_us),
            _ => self.requeue(nodes, node, now_us),
        }
    }

    fn spec(&mut self, number: Number) -> TaskSpec {
        let task = &self.oracle.tasks[number];
        TaskSpec {
            agent_type: TYPE.to_owned(),
            payload: task.payload.0.clone(),
            // What is submitted again with a key must be the same.
            priority: Priority::ALL[number % Priority::ALL.len()],
            timeout_ms: Some(400 + number as u64 % 7 * 200),
            max_attempts: Some(100_000),
            key: task.key.map(|key| format!("key-{key}")),
            delay_ms: task.delay_ms,
            ..TaskSpec::default()
        }
    }

    fn next_task(&mut self, now_us: u64) -> Option<(Number, TaskSpec)> {
        let has_enough = match self.late_most {
            Some(most) => self.late >= most,
            None => self.submitted >= self.habits.tasks,
        };
        if has_enough {
            return None;
        }
        self.submitted += 1;
        let chance = |rng: &mut fastrand::Rng, percent| rng.u32(..100) < percent;
        let key = chance(&mut self.rng, self.habits.keyed);
        let key = key.then(|| self.rng.usize(..1 + self.habits.tasks / 10));
        let delayed = chance(&mut self.rng, self.habits.delayed);
        let delay_ms = match delayed {
            false => 0,
            true if self.rng.u32(..4) == 0 => FAR_MS,
            true => self.rng.u64(1..1_500),
        };
        let more = self.rng.usize(..=self.habits.bytes);
        let number = self.oracle.submit(key, more, delay_ms, now_us)?;
        Some((number, self.spec(number)))
    }

    fn submit(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let count = if self.rng.u32(..4) == 0 { self.rng.usize(1..12) } else { 1 };
        let tasks: Vec<_> = std::iter::from_fn(|| self.next_task(now_us)).take(count).collect();
        if tasks.is_empty() {
            return;
        }
        let (numbers, specs): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
        let Some(shard) = nodes[node].shard_at(now_us) else { return };
        let (answer, wait) = channel();
        note!(self.trace, "client: submit {numbers:?} at {}", node + 1);
        if shard.submit_each(&specs, answer).is_ok() {
            self.wait(node, now_us, Asked::Submit(numbers), Wait::Outcomes(wait));
        }
    }

    /// A batch that is accepted whole or not at all: room for it first.
    fn submit_batch(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let count = self.rng.usize(2..10);
        let mut batch = Vec::new();
        let mut placed = Vec::new();
        for _ in 0..count {
            let Some((number, spec)) = self.next_task(now_us) else { break };
            let Some(shard) = nodes[node].shard_at(now_us) else { return };
            let Ok(Ok(place)) = shard.place(&spec).map(|destination| destination.here()) else {
                return;
            };
            batch.push((number, spec));
            placed.push(place);
        }
        let specs: Vec<_> = batch.iter().map(|(_, spec)| spec.clone()).collect();
        let Some(shard) = nodes[node].shard_at(now_us) else { return };
        let Ok(parts) = parts(&specs, &placed, shard.is_agreed()) else { return };
        // One partition keeps all of it, so that one answer tells.
        let [part] = &parts[..] else { return };
        let request =
            Request::Reserve(part.partition, part.count, Priority::Low, part.keys.clone());
        self.ask(nodes, node, now_us, &request, Asked::Reserve(batch, placed));
    }

    /// Another task with a key that stands for one.
    fn contradict(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let keyed = |number: &Number| {
            let task = &self.oracle.tasks[*number];
            task.key.is_some()
                && task.accepted_us.is_some()
                && self.oracle.is_fresh(*number, now_us)
        };
        let keyed: Vec<_> = (0..self.oracle.tasks.len()).filter(keyed).collect();
        if keyed.is_empty() || self.is_over() {
            return;
        }
        let number = keyed[self.rng.usize(..keyed.len())];
        let spec = TaskSpec { payload: vec![0xc0], ..self.spec(number) };
        let Some(shard) = nodes[node].shard_at(now_us) else { return };
        let (answer, wait) = channel();
        if shard.submit_each(&[spec], answer).is_ok() {
            self.wait(node, now_us, Asked::Conflict, Wait::Outcomes(wait));
        }
    }

    fn fetch(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let boots = nodes[node].boots;
        let seat = &mut self.seats[node];
        if seat.boots != boots {
            *seat = Seated { boots, worker: None, fetching: true };
            let request = Request::Seat(vec![0], CAPACITY);
            return self.ask(nodes, node, now_us, &request, Asked::Seat);
        }
        let Some(worker) = seat.worker.clone().filter(|_| !seat.fetching) else { return };
        seat.fetching = true;
        let wait_ms = [0, 20, 200][self.rng.usize(..3)];
        let request = Request::Fetch(worker, self.rng.u32(1..=CAPACITY), wait_ms);
        self.ask(nodes, node, now_us, &request, Asked::Fetch);
    }

    fn end(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let mine = |held: &Held| held.node == node;
        let places: Vec<_> = (0..self.held.len()).filter(|at| mine(&self.held[*at])).collect();
        if places.is_empty() {
            return;
        }
        let count = self.rng.usize(1..=places.len());
        let mut completions = Vec::new();
        let mut endings = Vec::new();
        for place in places.into_iter().rev().take(count) {
            let Held { number, task, boots, .. } = self.held.swap_remove(place);
            if !self.is_over() && self.rng.u32(..100) < self.habits.forgotten {
                continue;
            }
            // One that went on with another start of the node is late.
            if boots != nodes[node].boots && self.rng.bool() {
                continue;
            }
            let fails = !self.is_over() && self.rng.u32(..100) < self.habits.failing;
            let ending = match fails {
                false => Ending::Done(result(number, task.lease)),
                true if self.rng.u32(..100) < self.habits.dying => Ending::Dead,
                true => Ending::Retry,
            };
            let known = &mut self.oracle.tasks[number];
            let outcome = match &ending {
                Ending::Done(result) => {
                    known.results.push(result.clone());
                    Ok(result.clone())
                }
                Ending::Dead => {
                    known.may_be_dead = true;
                    Err(Failure { error: "it fails".into(), retry: false })
                }
                Ending::Retry => Err(Failure { error: "it fails for now".into(), retry: true }),
            };
            completions.push(Completion { id: task.id, lease: task.lease, outcome });
            endings.push((number, ending));
        }
        if completions.is_empty() {
            return;
        }
        let Some(shard) = nodes[node].shard_at(now_us) else { return };
        let (answer, wait) = channel();
        note!(self.trace, "client: end {:?} at {}", numbers(&endings), node + 1);
        if shard.end_attempts(&completions, answer).is_ok() {
            self.wait(node, now_us, Asked::End(endings), Wait::Outcomes(wait));
        }
    }

    fn extend(&mut self, nodes: &mut [Node], now_us: u64) {
        if self.held.is_empty() {
            return;
        }
        let place = self.rng.usize(..self.held.len());
        let Held { node, task, .. } = self.held[place];
        match self.rng.u32(..3) {
            0 => {
                let request = Request::GiveBack(task.id, task.lease);
                self.held.swap_remove(place);
                self.ask(nodes, node, now_us, &request, Asked::Ignored);
            }
            _ => {
                let request = Request::Extend(task.id, task.lease, self.rng.u64(1..500));
                self.ask(nodes, node, now_us, &request, Asked::Extend);
            }
        }
    }

    /// A task whose name is known.
    fn known(&mut self) -> Option<(Number, TaskId)> {
        let count = self.oracle.tasks.len();
        if count == 0 {
            return None;
        }
        let number = self.rng.usize(..count);
        self.oracle.tasks[number].id.map(|id| (number, id))
    }

    fn read_any(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let Some((number, _)) = self.known() else { return };
        let wait_ms = if self.rng.u32(..4) == 0 { self.rng.u64(1..300) } else { 0 };
        self.read(nodes, node, now_us, number, wait_ms);
    }

    /// Reads a task whose name is known.
    pub fn read(
        &mut self,
        nodes: &mut [Node],
        node: usize,
        now_us: u64,
        number: Number,
        wait_ms: u64,
    ) {
        let Some(id) = self.oracle.tasks[number].id else { return };
        let request = Request::Task(id, wait_ms, RESULT_BYTES);
        self.ask(nodes, node, now_us, &request, Asked::Read(number));
    }

    /// Reads all tasks whose names are known, and lists them.
    pub fn read_all(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let mut partitions = BTreeSet::new();
        for number in 0..self.oracle.tasks.len() {
            if let Some(id) = self.oracle.tasks[number].id {
                partitions.insert(id.partition);
                self.read(nodes, node, now_us, number, 0);
            }
        }
        for partition in partitions {
            let request = Request::Tasks(partition, TaskFilter::default(), 0, 1_000);
            self.ask(nodes, node, now_us, &request, Asked::List(partition));
        }
    }

    fn list(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let Some((_, id)) = self.known() else { return };
        let request = Request::Tasks(id.partition, TaskFilter::default(), 0, 1_000);
        self.ask(nodes, node, now_us, &request, Asked::List(id.partition));
    }

    fn cancel(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let Some((number, id)) = self.known().filter(|_| !self.is_over()) else { return };
        if self.rng.u32(..3) > 0 {
            return;
        }
        self.oracle.tasks[number].may_be_cancelled = true;
        self.ask(nodes, node, now_us, &Request::Cancel(id), Asked::Cancel);
    }

    fn requeue(&mut self, nodes: &mut [Node], node: usize, now_us: u64) {
        let Some((number, id)) = self.known().filter(|_| !self.is_over()) else { return };
        if !self.oracle.tasks[number].may_be_dead {
            return;
        }
        self.oracle.tasks[number].may_be_requeued = true;
        self.ask(nodes, node, now_us, &Request::Requeue(id), Asked::Requeue);
    }

    fn ask(
        &mut self,
        nodes: &mut [Node],
        node: usize,
        now_us: u64,
        request: &Request,
        asked: Asked,
    ) {
        let Some(shard) = nodes[node].shard_at(now_us) else { return };
        let (answer, wait) = channel();
        note!(self.trace, "client: ask {request:?} at {}", node + 1);
        if shard.ask(0, request, 3_600_000, answer).is_ok() {
            self.wait(node, now_us, asked, Wait::Response(wait));
        }
    }

    fn wait(&mut self, node: usize, began_us: u64, asked: Asked, wait: Wait) {
        self.pending.push(Pending { node, began_us, asked, wait });
    }
}

fn numbers(endings: &[(Number, Ending)]) -> Vec<(Number, &Ending)> {
    endings.iter().map(|(number, ending)| (*number, ending)).collect()
}
