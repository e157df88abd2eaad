//! Workers that connect from outside and fetch their tasks.
//!
//! A worker has a seat, an agent without code, for each type that it serves, so that lists show it
//! and tasks go to its core. Nothing is pushed to it: a fetch leases what waits, or waits itself
//! for the next turn in which there is something. Whatever comes from outside names a task and a
//! fencing token; a token that is not the current one changes nothing.

use super::{
    agent::Agent,
    core::Shard,
    kernel::Timer,
    tasks::{self, Attempt},
    wheel::TimerKey,
};
use crate::{
    registry::TypeIndex,
    task::{Lease, Watcher},
    wire::{
        api::{AgentKind, Error, Leased, LeasedTask, Worker},
        batch::Parcel,
        id::{AgentId, CoreIndex, TaskId},
        letter::{ArchivedEnding, Response},
    },
};
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};

/// A fetch takes no further task when it has payloads of so many bytes.
const LEASED_BYTES: usize = 4 << 20;

/// The agent that stands for a worker: it is there to be listed and to be stopped.
pub struct Seat;

impl Agent for Seat {}

/// A worker's question for tasks.
pub(super) struct Fetch {
    /// The core that asks.
    pub asker: CoreIndex,
    /// What its answer carries.
    pub correlation: u64,
    /// Who wants them.
    pub worker: Worker,
    /// Tasks at most.
    pub max: u32,
}

/// A fetch that waits, and what ends that.
struct Waiting {
    fetch: Fetch,
    timer: TimerKey,
}

/// What a shard knows of workers.
#[derive(Default)]
pub(super) struct Remote {
    /// Fetches that wait, the oldest first.
    waiting: VecDeque<Waiting>,
    /// Tasks of this shard that each seat holds.
    held: HashMap<AgentId, u32, RandomState>,
}

impl Remote {
    /// A seat has one task less.
    pub(super) fn released(&mut self, seat: AgentId) {
        if let Some(held) = self.held.get_mut(&seat) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&seat);
            }
        }
    }

    fn held_by(&self, worker: &Worker) -> u32 {
        worker.seats.iter().filter_map(|(_, seat)| self.held.get(seat)).sum()
    }
}

impl Shard {
    /// Gives a worker a seat for each type.
    pub(super) fn seat_worker(
        &mut self,
        types: &[TypeIndex],
        capacity: u32,
    ) -> Result<Worker, Error> {
        let not_remote = types
            .iter()
            .find(|type_index| self.kernel.types.get(**type_index).kind != AgentKind::Remote);
        if let Some(type_index) = not_remote {
            let name = &self.kernel.types.get(*type_index).name;
            return Err(Error::Invalid(format!(
                "agents of type {name} are not workers: its kind is not \"remote\""
            )));
        }
        let is_full = |type_index: &&TypeIndex| {
            let workers = self.kernel.directory.agents_of(**type_index);
            workers >= self.kernel.types.get(**type_index).max
        };
        if let Some(type_index) = types.iter().find(is_full) {
            let name = &self.kernel.types.get(*type_index).name;
            return Err(Error::Conflict(format!(
                "the node has as many workers of type {name} as `max` allows"
            )));
        }
        let mut seats = Vec::new();
        for &type_index in types {
            match self.spawn_agent(type_index, None) {
                Ok(seat) => {
                    self.tasks.set_ready(seat, type_index, false);
                    let pool = &mut self.tasks.pools[usize::from(type_index)];
                    pool.set_max_tasks(seat.slot(), capacity.max(1));
                    seats.push((type_index, seat));
                }
                Err(error) => {
                    for (_, seat) in seats {
                        drop(self.stop_agent(seat));
                    }
                    return Err(error);
                }
            }
        }
        Ok(Worker { seats, capacity })
    }

    /// Leases tasks to a worker and answers; without any, answers at the first chance or when
    /// `wait_ms` has passed.
    pub(super) fn fetch(&mut self, fetch: Fetch, wait_ms: u64) {
        let leased = self.lease(&fetch);
        if !leased.tasks.is_empty() || wait_ms == 0 {
            return self.kernel.answer(fetch.asker, fetch.correlation, &Response::Leased(leased));
        }
        let timer = Timer::Fetch(fetch.asker, fetch.correlation);
        let timer = self.kernel.wheel.insert(self.kernel.now_ms() + wait_ms, timer);
        self.tasks.remote.waiting.push_back(Waiting { fetch, timer });
    }

    /// Serves fetches that wait; false when there was nothing for any of them.
    pub(super) fn serve_waiting(&mut self) -> bool {
        let mut served = false;
        for _ in 0..self.tasks.remote.waiting.len() {
            let Some(waiting) = self.tasks.remote.waiting.pop_front() else { break };
            let leased = self.lease(&waiting.fetch);
            if leased.tasks.is_empty() {
                self.tasks.remote.waiting.push_back(waiting);
                continue;
            }
            served = true;
            self.answer_fetch(waiting, leased);
        }
        served
    }

    fn answer_fetch(&mut self, Waiting { fetch, timer }: Waiting, leased: Leased) {
        self.kernel.wheel.cancel(timer);
        self.kernel.answer(fetch.asker, fetch.correlation, &Response::Leased(leased));
    }

    /// A fetch has waited long enough.
    pub(super) fn fetch_timed_out(&mut self, asker: CoreIndex, correlation: u64) {
        self.answer_waiting(|fetch| fetch.asker == asker && fetch.correlation == correlation);
    }

    /// Ends a worker's wait.
    pub(super) fn stop_fetch(&mut self, worker: &Worker) {
        self.answer_waiting(|fetch| fetch.worker == *worker);
    }

    /// Ends the waits of all workers.
    pub(super) fn stop_fetches(&mut self) {
        self.answer_waiting(|_| true);
    }

    /// Answers the waits that fit with no tasks.
    fn answer_waiting(&mut self, fits: impl Fn(&Fetch) -> bool) {
        let waiting = std::mem::take(&mut self.tasks.remote.waiting);
        let (over, waiting): (VecDeque<_>, _) =
            waiting.into_iter().partition(|waiting| fits(&waiting.fetch));
        self.tasks.remote.waiting = waiting;
        for waiting in over {
            self.answer_fetch(waiting, Leased::default());
        }
    }

    fn lease(&mut self, fetch: &Fetch) -> Leased {
        let free = fetch.worker.capacity.saturating_sub(self.tasks.remote.held_by(&fetch.worker));
        let max = if self.tasks.winding_down() { 0 } else { fetch.max.min(free) as usize };
        let now_ms = self.kernel.now_ms();
        let mut leased = Leased::default();
        for (type_place, &(type_index, seat)) in (0..).zip(&fetch.worker.seats) {
            while leased.tasks.len() < max
                && leased.payloads.len() < LEASED_BYTES
                && let Some(tasks::Waiting { place, key }) = self.tasks.next(type_index)
            {
                let lease = self.tasks.partitions[place].table.start(key, now_ms);
                let (id, attempt, waited) = self.tasks.begun(place, lease);
                if let Some(timer) = waited {
                    self.kernel.wheel.cancel(timer);
                }
                let table = &self.tasks.partitions[place].table;
                let deadline_ms = table.deadline_ms(key);
                let task = LeasedTask {
                    id,
                    lease: lease.token,
                    type_place,
                    attempt,
                    deadline_ms: deadline_ms - now_ms,
                    payload_bytes: 0,
                };
                leased.push(task, table.payload(key));
                if seat.core() == self.kernel.index {
                    self.tasks.pools[type_index as usize].begin(seat.slot());
                }
                *self.tasks.remote.held.entry(seat).or_default() += 1;
                let timer = self.kernel.wheel.insert(deadline_ms, Timer::Attempt(lease));
                let attempt = Attempt { lease, agent: seat, type_index, started_ms: now_ms, timer };
                self.tasks.attempts.insert((lease.partition, lease.token), attempt);
            }
        }
        leased
    }

    /// Ends an attempt for a worker and tells it when the end is committed.
    pub(super) fn accept_ending(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedEnding<'_>>();
        let asker =
            Watcher { target: parcel.header.source, correlation: parcel.header.correlation };
        let place = letter.place.to_native();
        let (partition, random) = (letter.partition.to_native(), letter.random.to_native());
        let id = TaskId { partition, random };
        match self.end_leased(id, letter) {
            Ok(lease) => self.tasks.of(partition).told_when_committed(lease, asker, place),
            Err(error) => self.refuse(asker, id, place, &error),
        }
    }

    fn end_leased(&mut self, id: TaskId, letter: &ArchivedEnding<'_>) -> Result<Lease, Error> {
        let lease = self.leased(id, letter.lease.to_native())?;
        self.ended_by_borrower(lease);
        let Some(attempt) = self.take_attempt(lease) else { return Err(stale()) };
        if letter.failed {
            let error = String::from_utf8_lossy(&letter.body);
            self.end_and_count(attempt.agent, lease, Err((&error, letter.retry)));
        } else {
            self.end_and_count(attempt.agent, lease, Ok(&letter.body));
        }
        Ok(lease)
    }

    /// The lease with that token, if it is the task's current one.
    fn leased(&self, id: TaskId, token: u64) -> Result<Lease, Error> {
        let attempt = self.tasks.attempts.get(&(id.partition, token)).ok_or_else(stale)?;
        let (random, _) = self.tasks.whose(attempt.lease);
        let is_it = random == id.random;
        is_it.then_some(attempt.lease).ok_or_else(stale)
    }

    /// Lets a lease last so long from now; the lender's lease of a guest, which has to last as well.
    pub(super) fn extend_lease(
        &mut self,
        id: TaskId,
        token: u64,
        extend_ms: u64,
    ) -> Result<Option<u64>, Error> {
        let lease = self.leased(id, token)?;
        let now_ms = self.kernel.now_ms();
        let table = &mut self.tasks.of(id.partition).table;
        let deadline_ms = table.extend(lease, now_ms, extend_ms).map_err(|_| stale())?;
        if let Some(attempt) = self.tasks.attempts.get_mut(&(id.partition, token)) {
            self.kernel.wheel.cancel(attempt.timer);
            attempt.timer = self.kernel.wheel.insert(deadline_ms, Timer::Attempt(lease));
        }
        Ok(self.tasks.whose(lease).1)
    }

    /// The lender's lease of a guest that a worker holds.
    pub(super) fn lender_of(&self, id: TaskId, token: u64) -> Result<u64, Error> {
        self.tasks.whose(self.leased(id, token)?).1.ok_or_else(stale)
    }

    /// Takes a lease back as if it had not been given.
    pub(super) fn give_back(&mut self, id: TaskId, token: u64) {
        let Ok(lease) = self.leased(id, token) else { return };
        if self.take_attempt(lease).is_some() {
            let given_back = self.tasks.of(id.partition).table.give_back(lease);
            assert_eq!(given_back, Ok(()), "the lease was seen to be the current one");
            self.guest_waits_again(lease);
        }
    }

    /// A worker is gone, of this core or another: what it holds here goes to others.
    pub(super) fn worker_gone(&mut self, seat: AgentId) {
        let fits = |fetch: &Fetch| fetch.worker.seats.iter().any(|(_, of)| *of == seat);
        if self.tasks.remote.waiting.iter().any(|waiting| fits(&waiting.fetch)) {
            self.answer_waiting(fits);
        }
        if self.tasks.remote.held.contains_key(&seat) {
            self.fail_attempts_of(seat, "its worker is gone");
        }
    }
}

fn stale() -> Error {
    Error::StaleLease("the task has gone on without this attempt; nothing was changed".into())
}
