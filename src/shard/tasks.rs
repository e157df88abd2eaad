//! Drives the shard's tasks: accepts them, gives them to agents, ends them, tells who waits.
//!
//! Everything that must survive goes through the log first: a submission is queued and an end is
//! told only after the log says that the record is committed.

use super::{
    agent::{Outcome, Task, TaskEvent, TaskNews},
    calls::CallKey,
    core::{Shard, call},
    handle::{Failure, Lease},
    kernel::{Kernel, Timer, Waiter, door_of, watcher_of},
    types::Types,
    wheel::TimerKey,
};
use crate::{
    consensus::{MemoryLog, Pending, Record, TaskLog},
    registry::TypeIndex,
    task::{
        Failed, LoadIndex, Origin, RetryPolicy, Submission, Submitted, TableLimits, TaskTable,
        Watcher,
    },
    wire::{
        api::{CoreStats, Error, Priority, TaskStatus, TaskView},
        batch::{Header, Kind, Parcel, Value},
        id::{AgentId, CoreIndex, TaskId},
        letter::{self, ArchivedSubmission, ArchivedTaskNews, NewsKind},
    },
};
use std::collections::{HashMap, VecDeque};

/// What happens when the log has committed a record.
enum Logged {
    /// A submission is accepted: its submitter is told.
    Submitted { key: u32, submitter: Watcher },
    /// A task has ended: whoever waits is told.
    Ended { key: u32 },
}

/// An attempt that its agent will end later.
struct Attempt {
    lease: Lease,
    agent: AgentId,
    type_index: TypeIndex,
    started_ms: u64,
    timer: TimerKey,
}

/// A shard's tasks and the agents' loads.
pub(super) struct Tasks {
    table: TaskTable,
    log: MemoryLog,
    pending: Pending<Logged>,
    /// One for each agent type.
    pools: Vec<LoadIndex>,
    /// When agents of each type crashed, oldest first.
    crashes: Vec<VecDeque<u64>>,
    /// Attempts that go on, by the task's key.
    attempts: HashMap<u32, Attempt>,
    /// Whether a task could perhaps be given to an agent.
    assignable: bool,
    /// The buffer that agents put results into.
    result: Vec<u8>,
    capacity: usize,
}

impl Tasks {
    pub(super) fn new(shard: CoreIndex, types: usize, limits: &crate::config::Tasks) -> Self {
        let table_limits = TableLimits {
            queue_primary: limits.queue_primary,
            queue_overflow: limits.queue_overflow,
            hot_least: TableLimits::HOT_LEAST,
            retained: limits.retained,
            retained_bytes: limits.retained_bytes,
            max_payload_bytes: limits.max_payload_bytes,
            max_attempts: limits.max_attempts,
            timeout_ms: limits.timeout_ms,
            ageing_ms: limits.ageing_ms,
            retry: RetryPolicy { base_ms: limits.retry_base_ms, max_ms: limits.retry_max_ms },
            key_ttl_ms: limits.key_ttl_ms,
            keys_max: limits.keys_max,
            dead_max: limits.dead_max,
            drop_policy: limits.drop_policy,
        };
        let origin = Origin { shard, first_token: 1, durable: false, zero_unix_ms: 0 };
        Self {
            table: TaskTable::new(origin, table_limits),
            log: MemoryLog::default(),
            pending: Pending::default(),
            pools: (0..types).map(|_| LoadIndex::default()).collect(),
            crashes: vec![VecDeque::new(); types],
            attempts: HashMap::new(),
            assignable: false,
            result: Vec::new(),
            capacity: limits.queue_primary + limits.queue_overflow,
        }
    }

    pub(super) fn reserve(&mut self, now_ms: u64, count: usize) -> Result<(), Error> {
        self.table.reserve(now_ms, count, Priority::Low)
    }

    pub(super) fn release(&mut self, count: usize) {
        self.table.release(count);
    }

    /// How full the shard is, in thousandths.
    #[inline]
    pub(super) fn load(&self) -> u32 {
        let used = self.capacity - self.table.free_room().min(self.capacity);
        (used * 1000 / self.capacity) as u32
    }

    /// When a task's time has come, milliseconds since the node started.
    #[inline]
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.table.next_due_ms()
    }

    /// Tasks that have not ended.
    pub(super) fn unended(&self) -> usize {
        self.table.unended()
    }

    pub(super) fn count(&self, stats: &mut CoreStats) {
        let counts = self.table.counters();
        stats.tasks_accepted = counts.accepted;
        stats.tasks_refused = counts.refused;
        stats.tasks_queued = counts.queued;
        stats.tasks_running = counts.running;
        stats.tasks_done = counts.done;
        stats.tasks_dead = counts.dead;
        stats.tasks_cancelled = counts.cancelled;
        stats.attempts_failed = counts.attempts_failed;
    }

    pub(super) fn agent_started(&mut self, id: AgentId, type_index: TypeIndex, max_tasks: u32) {
        self.pools[type_index as usize].insert(id.slot(), max_tasks);
        self.assignable = true;
    }

    pub(super) fn set_ready(&mut self, id: AgentId, type_index: TypeIndex, ready: bool) {
        self.pools[type_index as usize].set_ready(id.slot(), ready);
        self.assignable |= ready;
    }

    pub(super) fn running_on(&self, id: AgentId, type_index: TypeIndex) -> u32 {
        self.pools[type_index as usize].tasks(id.slot())
    }

    pub(super) fn crashes_of(&mut self, type_index: TypeIndex) -> &mut VecDeque<u64> {
        &mut self.crashes[type_index as usize]
    }

    pub(super) fn view(&self, random: u128, types: &Types) -> Option<TaskView> {
        self.table.view(random, |type_index| types.get(type_index).name.clone())
    }

    pub(super) fn watch(&mut self, random: u128, watcher: Watcher) -> bool {
        self.table.watch(random, watcher)
    }

    /// Ends a wait; `None` when it has ended before.
    pub(super) fn stop_watching(
        &mut self,
        random: u128,
        core: CoreIndex,
        correlation: u64,
    ) -> Option<()> {
        let watcher = Watcher { target: watcher_of(core).to_bits(), correlation };
        self.table.unwatch(random, watcher).then_some(())
    }

    /// Writes a task's end to the log; it is told when the log has committed it.
    fn log_end(&mut self, key: u32) {
        let (id, status, body) = self.table.end_of(key);
        let position = self.log.append(Record::Ended { id, status, body });
        self.pending.push(position, Logged::Ended { key });
    }

    /// Ends an attempt and says what became of the task.
    fn end_attempt(
        &mut self,
        now_ms: u64,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) -> bool {
        let ended = match result {
            Ok(result) => match self.table.complete(lease, result) {
                Ok(()) => Ok(Failed::Last),
                Err(stale) => Err(stale),
            },
            Err((error, retry)) => self.table.fail(lease, now_ms, error, retry),
        };
        match ended {
            Ok(Failed::Last) => self.log_end(lease.key),
            Ok(Failed::Again { .. }) => self.assignable = true,
            // Late or repeated: the task has gone on without this attempt.
            Err(_) => return false,
        }
        true
    }
}

impl Shard {
    /// Takes a submission in, or tells why not.
    pub(super) fn accept_submission(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedSubmission<'_>>();
        let submitter =
            Watcher { target: parcel.header.source, correlation: parcel.header.correlation };
        let priority = Priority::ALL[letter.priority as usize];
        let submission = Submission {
            random: letter.random.to_native(),
            type_index: letter.type_index.to_native(),
            priority,
            payload: &letter.payload,
            timeout_ms: letter.timeout_ms.to_native(),
            max_attempts: letter.max_attempts.to_native(),
            delay_ms: 0,
            key: None,
            transient: false,
            reserved: letter.reserved,
            watcher: letter.watched.then_some(submitter),
        };
        match self.tasks.table.submit(self.kernel.now_us / 1000, submission) {
            Ok(Submitted::Existing(_)) => unreachable!("no submission has a key yet"),
            Ok(Submitted::New(key)) => {
                let position = self.tasks.log.append(Record::Submitted {
                    id: TaskId { shard: self.kernel.index, random: submission.random },
                    type_index: submission.type_index,
                    priority,
                    timeout_ms: submission.timeout_ms,
                    max_attempts: submission.max_attempts,
                    payload: submission.payload,
                });
                self.tasks.pending.push(position, Logged::Submitted { key, submitter });
            }
            Err(error) => {
                let text = error.to_string();
                let (what, retry_after_ms) = match error {
                    Error::Backpressure(retry_after_ms) => (NewsKind::Backpressure, retry_after_ms),
                    Error::TooLarge(_) => (NewsKind::TooLarge, 0),
                    _ => (NewsKind::Invalid, 0),
                };
                let body = text.as_bytes();
                let random = submission.random;
                let news = letter::TaskNews { random, what, attempts: 0, retry_after_ms, body };
                tell(&mut self.kernel, submitter, &news);
            }
        }
    }

    /// Acts on what the log has committed and gives tasks to agents.
    pub(super) fn run_tasks(&mut self) -> bool {
        let mut worked = false;
        let now_ms = self.kernel.now_ms();
        if self.tasks.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.tasks.assignable |= self.tasks.table.wake(now_ms);
        }
        loop {
            let mut went_on = false;
            while let Some(logged) = self.tasks.pending.pop(self.tasks.log.committed()) {
                went_on = true;
                match logged {
                    Logged::Submitted { key, submitter } => self.accepted(key, submitter),
                    Logged::Ended { key } => self.ended(key),
                }
            }
            if std::mem::take(&mut self.tasks.assignable) {
                for type_index in 0..self.tasks.pools.len() as TypeIndex {
                    went_on |= self.assign(type_index);
                }
            }
            if !went_on {
                return worked;
            }
            worked = true;
        }
    }

    fn accepted(&mut self, key: u32, submitter: Watcher) {
        let random = self.tasks.table.id(key).random;
        self.tasks.table.accepted(key, self.kernel.now_ms(), None);
        self.tasks.assignable = true;
        // An agent hears of refusals and ends alone.
        if Self::is_door(AgentId::from_bits(submitter.target)) {
            let what = NewsKind::Accepted;
            let news = letter::TaskNews { random, what, attempts: 0, retry_after_ms: 0, body: &[] };
            tell(&mut self.kernel, submitter, &news);
        }
    }

    fn ended(&mut self, key: u32) {
        let table = &mut self.tasks.table;
        table.ended(key);
        let random = table.id(key).random;
        let watchers = table.take_watchers(key);
        for watcher in watchers {
            let target = AgentId::from_bits(watcher.target);
            if target == watcher_of(target.core()) {
                let response = self.view_task(random);
                self.kernel.answer(target.core(), watcher.correlation, &response);
                continue;
            }
            let (_, status, body) = self.tasks.table.end_of(key);
            let what = match status {
                TaskStatus::Done => NewsKind::Done,
                TaskStatus::Cancelled => NewsKind::Cancelled,
                _ => NewsKind::Dead,
            };
            let attempts = self.tasks.table.attempts(key);
            let news = letter::TaskNews { random, what, attempts, retry_after_ms: 0, body };
            tell(&mut self.kernel, watcher, &news);
        }
        self.tasks.table.retain_within_limits();
    }

    /// Gives queued tasks of a type to its least loaded agents; false when there was nothing to
    /// give or nobody to give it to.
    fn assign(&mut self, type_index: TypeIndex) -> bool {
        let mut assigned = false;
        while let Some(slot) = self.tasks.pools[type_index as usize].least_loaded() {
            let Some(key) = self.tasks.table.next(type_index) else { break };
            assigned = true;
            self.run_attempt(type_index, slot, key);
        }
        assigned
    }

    fn run_attempt(&mut self, type_index: TypeIndex, slot: u32, key: u32) {
        let now_ms = self.kernel.now_ms();
        let Some(agent) = self.agents.in_slot(slot).map(|resident| resident.id) else {
            unreachable!("the pool holds agents of this core only");
        };
        let tasks = &mut self.tasks;
        let lease = tasks.table.start(key, now_ms);
        tasks.pools[type_index as usize].begin(slot);
        let mut result = std::mem::take(&mut tasks.result);
        result.clear();
        let task = Task {
            id: tasks.table.id(key),
            attempt: tasks.table.attempts(key),
            payload: tasks.table.payload(key),
            deadline_ms: tasks.table.deadline_ms(key),
            lease,
        };
        let mut outcome = None;
        let called = call(&mut self.agents, &mut self.kernel, agent, |agent, context| {
            outcome = Some(agent.on_task(&task, &mut result, context));
        });
        let deadline_ms = task.deadline_ms;
        match (called, outcome) {
            (Err(panic), _) => {
                self.tasks.end_attempt(now_ms, lease, Err(("its agent panicked", true)));
                self.agent_panicked(agent, panic.as_ref());
            }
            (Ok(()), Some(Outcome::Later)) => {
                let timer = self.kernel.wheel.insert(deadline_ms, Timer::Attempt(lease));
                let attempt = Attempt { lease, agent, type_index, started_ms: now_ms, timer };
                self.tasks.attempts.insert(key, attempt);
            }
            (Ok(()), Some(Outcome::Done)) => {
                self.tasks.pools[type_index as usize].end(slot, 0);
                self.end_and_count(agent, lease, Ok(&result));
            }
            (Ok(()), Some(Outcome::Failed { error, retry })) => {
                self.tasks.pools[type_index as usize].end(slot, 0);
                self.end_and_count(agent, lease, Err((&error, retry)));
            }
            (Ok(()), None) => unreachable!("the agent was there"),
        }
        self.tasks.result = result;
        self.run_commands();
    }

    fn end_and_count(&mut self, agent: AgentId, lease: Lease, result: Result<&[u8], (&str, bool)>) {
        let limit = self.tasks.table.limits().max_payload_bytes;
        let result = match result {
            Ok(result) if result.len() > limit => Err(("its result is too large", false)),
            result => result,
        };
        let done = result.is_ok();
        if self.tasks.end_attempt(self.kernel.now_ms(), lease, result)
            && let Some(resident) = self.agents.get_mut(agent)
        {
            resident.done += u64::from(done);
            resident.failed += u64::from(!done);
        }
    }

    /// Ends an attempt that its agent was to end later.
    pub(super) fn finish(&mut self, lease: Lease, result: Result<Vec<u8>, Failure>) {
        let Some(attempt) = self.take_attempt(lease) else { return };
        match &result {
            Ok(result) => self.end_and_count(attempt.agent, lease, Ok(result)),
            Err(failure) => {
                let failed = (failure.error.as_str(), failure.retry);
                self.end_and_count(attempt.agent, lease, Err(failed));
            }
        }
    }

    /// Takes an attempt that goes on out of the books; `None` when it ended before.
    fn take_attempt(&mut self, lease: Lease) -> Option<Attempt> {
        let current = self.tasks.attempts.get(&lease.key)?;
        if current.lease != lease {
            return None;
        }
        let attempt = self.tasks.attempts.remove(&lease.key)?;
        self.kernel.wheel.cancel(attempt.timer);
        let took_ms = self.kernel.now_ms() - attempt.started_ms;
        self.tasks.pools[attempt.type_index as usize].end(attempt.agent.slot(), took_ms);
        self.tasks.assignable = true;
        Some(attempt)
    }

    pub(super) fn attempt_timed_out(&mut self, lease: Lease) {
        let Some(attempt) = self.take_attempt(lease) else { return };
        self.end_and_count(attempt.agent, lease, Err(("it took longer than its timeout", true)));
        self.with_agent(attempt.agent, |agent, context| agent.on_abandoned(lease, context));
    }

    /// An agent is gone: what it was working on counts as failed and goes to others.
    pub(super) fn agent_gone(&mut self, id: AgentId, type_index: TypeIndex, why: &str) {
        let of_agent = self.tasks.attempts.values().filter(|attempt| attempt.agent == id);
        let leases: Vec<Lease> = of_agent.map(|attempt| attempt.lease).collect();
        for lease in leases {
            if self.take_attempt(lease).is_some() {
                self.tasks.end_attempt(self.kernel.now_ms(), lease, Err((why, true)));
            }
        }
        self.tasks.pools[type_index as usize].remove(id.slot());
    }

    /// Cancels a task; `Ok(false)` when it had ended before.
    pub(super) fn cancel_task(&mut self, random: u128) -> Result<bool, Error> {
        let Some(key) = self.tasks.table.cancel(random)? else { return Ok(false) };
        self.tasks.log_end(key);
        if let Some(lease) = self.tasks.attempts.get(&key).map(|attempt| attempt.lease)
            && let Some(attempt) = self.take_attempt(lease)
        {
            self.with_agent(attempt.agent, |agent, context| agent.on_abandoned(lease, context));
        }
        Ok(true)
    }

    /// Tells a submitter what became of its task.
    pub(super) fn deliver_news(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedTaskNews<'_>>();
        let what = NewsKind::from(letter.what);
        let target = AgentId::from_bits(parcel.header.target);
        let refused = |text: &[u8]| {
            let text = || String::from_utf8_lossy(text).into_owned();
            match what {
                NewsKind::Backpressure => Error::Backpressure(letter.retry_after_ms.to_native()),
                NewsKind::TooLarge => Error::TooLarge(text()),
                _ => Error::Invalid(text()),
            }
        };
        if Self::is_door(target) {
            let refusal = match what.ended() {
                None if what != NewsKind::Accepted => Some(refused(&letter.body)),
                _ => None,
            };
            return self.news_for_door(parcel.header.correlation, what, letter, refusal);
        }
        let shard = AgentId::from_bits(parcel.header.source).core();
        let id = TaskId { shard, random: letter.random.to_native() };
        let error;
        let event = match what.ended() {
            Some(status) => {
                let attempts = letter.attempts.to_native();
                TaskEvent::Ended { status, attempts, body: &letter.body }
            }
            None => {
                error = refused(&letter.body);
                TaskEvent::Refused(&error)
            }
        };
        let news = TaskNews { id, event };
        self.with_agent(target, |agent, context| agent.on_task_news(&news, context));
    }

    fn news_for_door(
        &mut self,
        correlation: u64,
        what: NewsKind,
        letter: &ArchivedTaskNews<'_>,
        refusal: Option<Error>,
    ) {
        let key = CallKey::from_bits(correlation);
        let over = match self.kernel.calls.get_mut(key) {
            Some(Waiter::DoorSubmit { remaining, refused, .. }) => {
                *remaining -= 1;
                *refused = refused.take().or(refusal.clone());
                *remaining == 0
            }
            Some(Waiter::DoorExecute { .. }) => what != NewsKind::Accepted,
            _ => false,
        };
        if !over {
            return;
        }
        self.woke_futures = true;
        // A door that went away no longer wants to know; the task goes on.
        match self.kernel.close_call(key) {
            Some(Waiter::DoorSubmit { refused, answer, .. }) => {
                let _ = answer.send(refused.map_or(Ok(()), Err));
            }
            Some(Waiter::DoorExecute { mut view, answer }) => {
                let ended = match (what.ended(), refusal) {
                    (Some(status), _) => {
                        view.status = status;
                        view.attempts = letter.attempts.to_native();
                        match status {
                            TaskStatus::Done => view.result = Some(letter.body.to_vec()),
                            _ => view.error = Some(String::from_utf8_lossy(&letter.body).into()),
                        }
                        Ok(*view)
                    }
                    (None, Some(error)) => Err(error),
                    (None, None) => unreachable!("accepted is not the end"),
                };
                let _ = answer.send(ended);
            }
            _ => unreachable!("it was looked at just now"),
        }
    }
}

/// Puts news of a task on their way to who waits for them.
fn tell(kernel: &mut Kernel, waiting: Watcher, news: &letter::TaskNews<'_>) {
    let header = Header {
        target: waiting.target,
        source: door_of(kernel.index).to_bits(),
        correlation: waiting.correlation,
        kind: Kind::TaskEvent,
    };
    let core = AgentId::from_bits(waiting.target).core();
    kernel.push_owed(core, header, Value(news));
}
