//! Drives the shard's tasks: accepts them, gives them to agents, ends them, tells who waits.
//!
//! Everything that must survive goes through the log first: a submission is queued and an end is
//! told only after the log says that the record is committed.

use super::{
    agent::{Outcome, Task},
    backlog::Backlog,
    core::{Shard, call},
    handle::{Failure, Lease},
    kernel::{Timer, watcher_of},
    ledger::{Ledger, Logged},
    news::{refusal, tell},
    remote::Remote,
    types::Types,
    wheel::TimerKey,
};
use crate::{
    consensus::Record,
    registry::TypeIndex,
    task::{
        Failed, Fingerprint, Key, ListFilter, LoadIndex, Place, Submission, Submitted, TaskTable,
        Watcher,
    },
    wire::{
        api::{CoreStats, Error, Priority, TaskFilter, TaskStatus, TaskView},
        batch::Parcel,
        id::{AgentId, CoreIndex, TaskId},
        letter::{self, ArchivedSubmission, NewsKind, Response},
    },
};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// When to come back while the log has no room, milliseconds.
const LOG_RETRY_MS: u64 = 20;
/// Tasks in one part of a list, at most.
const LIST_TASKS_MAX: u32 = 1000;

/// An attempt that its agent will end later.
pub(super) struct Attempt {
    pub lease: Lease,
    pub agent: AgentId,
    pub type_index: TypeIndex,
    pub started_ms: u64,
    pub timer: TimerKey,
}

/// A shard's tasks and the agents' loads.
pub(super) struct Tasks {
    pub table: TaskTable,
    pub ledger: Ledger,
    /// One for each agent type.
    pub pools: Vec<LoadIndex>,
    /// Attempts that go on, by the lease's token: there are few of them, so that whoever ends one
    /// is found in the cache.
    pub attempts: HashMap<u64, Attempt, RandomState>,
    /// What is read back of the log.
    pub backlog: Backlog,
    /// Workers that fetch.
    pub remote: Remote,
    /// What ends waits for a task's end, by the core that asked and its correlation.
    pub watches: HashMap<(CoreIndex, u64), TimerKey>,
    /// Whether a task could perhaps be given to an agent.
    assignable: bool,
    /// The node ends: no attempt begins any more.
    winding_down: bool,
    /// The buffer that agents put results into.
    result: Vec<u8>,
    capacity: usize,
}

impl Tasks {
    pub(super) fn new(types: usize, table: TaskTable, ledger: Ledger, backlog: Backlog) -> Self {
        let limits = table.limits();
        let capacity = limits.queue_primary + limits.queue_overflow;
        Self {
            table,
            ledger,
            pools: (0..types).map(|_| LoadIndex::default()).collect(),
            attempts: HashMap::default(),
            backlog,
            remote: Remote::default(),
            watches: HashMap::new(),
            // What was recovered waits already.
            assignable: true,
            winding_down: false,
            result: Vec::new(),
            capacity,
        }
    }

    pub(super) fn reserve(
        &mut self,
        now_ms: u64,
        count: u32,
        priority: Priority,
        keys: &[(String, u64)],
    ) -> Result<(), Error> {
        if !self.ledger.has_room() {
            return Err(Error::Backpressure(LOG_RETRY_MS));
        }
        for (key, body_hash) in keys {
            let key = Key { bytes: key.as_bytes(), body_hash: *body_hash };
            if self.table.conflicts(now_ms, key) {
                return Err(key_conflict());
            }
        }
        self.table.reserve(now_ms, count as usize, priority)
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

    /// Whether no attempt begins any more.
    #[inline]
    pub(super) fn winding_down(&self) -> bool {
        self.winding_down
    }

    /// As [`Shard::wind_down`].
    pub(super) fn wind_down(&mut self) -> u64 {
        if !self.ledger.is_durable() {
            return self.table.unended() as u64;
        }
        self.winding_down = true;
        self.table.counters().running + self.ledger.pending() as u64
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

    /// Whether a task of a type waits that no agent of this core can take now.
    #[inline]
    pub(super) fn is_starved(&self, type_index: TypeIndex) -> bool {
        self.pools[type_index as usize].least_loaded().is_none()
            && self.table.next(type_index).is_some()
    }

    /// Makes the next turn look whether tasks can be given to agents.
    pub(super) fn look_again(&mut self) {
        self.assignable = true;
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
    fn log_end(&mut self, key: u32, now_ms: u64) {
        if self.table.is_transient(key) {
            return self.ledger.at_once(Logged::Ended { key });
        }
        let (id, status, body) = self.table.end_of(key);
        let attempts = self.table.attempts(key);
        let ended_unix_ms = self.ledger.unix_ms(now_ms);
        let record = Record::Ended { id, status, attempts, ended_unix_ms, body };
        self.ledger.append(record, Logged::Ended { key });
    }

    /// Tells who ended an attempt when what came of it is committed.
    pub(super) fn told_when_committed(&mut self, lease: Lease, asker: Watcher, place: u32) {
        let random = self.table.id(lease.key).random;
        self.ledger.after_all(Logged::Told { random, asker, place });
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
            Ok(Failed::Last) => self.log_end(lease.key, now_ms),
            Ok(Failed::Again { .. }) => self.assignable = true,
            // Late or repeated: the task has gone on without this attempt.
            Err(_) => return false,
        }
        true
    }
}

/// A key stands for another task.
pub(super) fn key_conflict() -> Error {
    Error::Conflict("key: another task was submitted with it before".into())
}

impl Shard {
    /// Takes a submission in, or tells why not.
    pub(super) fn accept_submission(&mut self, parcel: Parcel<'_>) {
        let letter = parcel.open::<ArchivedSubmission<'_>>();
        let submitter =
            Watcher { target: parcel.header.source, correlation: parcel.header.correlation };
        let priority = Priority::ALL[letter.priority as usize];
        let type_index = letter.type_index.to_native();
        let (timeout_ms, delay_ms) = (letter.timeout_ms.to_native(), letter.delay_ms.to_native());
        let max_attempts = letter.max_attempts.to_native();
        let key = (!letter.key.is_empty()).then(|| {
            let agent_type = &self.kernel.types.get(type_index).name;
            let payload = &letter.payload;
            let fingerprint =
                Fingerprint { agent_type, payload, priority, timeout_ms, max_attempts, delay_ms };
            Key { bytes: &letter.key, body_hash: fingerprint.hash() }
        });
        let submission = Submission {
            random: letter.random.to_native(),
            type_index,
            priority,
            payload: &letter.payload,
            timeout_ms,
            max_attempts,
            delay_ms,
            key,
            transient: letter.transient,
            reserved: letter.reserved,
            watcher: letter.watched.then_some(submitter),
        };
        let place = letter.place.to_native();
        let submitted = match self.has_room_for(&submission) {
            Ok(()) => self.tasks.table.submit(self.kernel.now_ms(), submission),
            Err(error) => Err(error),
        };
        match submitted {
            Ok(Submitted::New(key)) => self.log_submission(key, &submission, submitter, place),
            Ok(Submitted::Existing(id)) => {
                let watched = submission.watcher.is_some();
                let then = Logged::Existing { id, submitter, place, watched };
                self.tasks.ledger.after_all(then);
            }
            Err(error) => self.refuse(submitter, submission.random, place, &error),
        }
        self.end_evicted();
    }

    /// Whether the log takes what must go there.
    #[inline]
    fn has_room_for(&mut self, submission: &Submission<'_>) -> Result<(), Error> {
        if submission.transient || self.tasks.ledger.has_room() {
            return Ok(());
        }
        if submission.reserved {
            self.tasks.table.release(1);
        }
        Err(Error::Backpressure(LOG_RETRY_MS))
    }

    /// Writes a new task to the log; it is accepted when that is committed.
    #[inline]
    fn log_submission(
        &mut self,
        key: u32,
        submission: &Submission<'_>,
        submitter: Watcher,
        place: u32,
    ) {
        let then = Logged::Submitted { key, submitter, place };
        if submission.transient {
            return self.tasks.ledger.at_once(then);
        }
        let submitted_unix_ms = self.tasks.ledger.unix_ms(self.kernel.now_ms());
        let record = Record::Submitted {
            id: TaskId { shard: self.kernel.index, random: submission.random },
            agent_type: &self.kernel.types.get(submission.type_index).name,
            priority: submission.priority,
            submitted_unix_ms,
            due_unix_ms: match submission.delay_ms {
                0 => 0,
                delay_ms => submitted_unix_ms.saturating_add(delay_ms),
            },
            timeout_ms: submission.timeout_ms,
            max_attempts: submission.max_attempts,
            attempts: 0,
            key: submission.key.map(|key| key.bytes),
            payload: submission.payload,
        };
        self.tasks.ledger.append(record, then);
    }

    /// Tells who asked for something that it was refused.
    #[cold]
    pub(super) fn refuse(&mut self, asker: Watcher, random: u128, place: u32, error: &Error) {
        let text = error.to_string();
        let (what, retry_after_ms) = refusal(error);
        let news = letter::TaskNews {
            random,
            shard: self.kernel.index,
            place,
            what,
            attempts: 0,
            retry_after_ms,
            body: text.as_bytes(),
        };
        tell(&mut self.kernel, asker, &news);
    }

    /// Tells of the tasks that had to make room.
    #[inline]
    pub(super) fn end_evicted(&mut self) {
        while let Some(key) = self.tasks.table.next_evicted() {
            self.tasks.ledger.at_once(Logged::Ended { key });
        }
    }

    /// Acts on what the log has committed and gives tasks to agents.
    pub(super) fn run_tasks(&mut self) -> bool {
        let mut worked = self.wake_tasks();
        loop {
            let mut went_on = false;
            while let Some((logged, at)) = self.tasks.ledger.next() {
                went_on = true;
                self.committed(logged, at);
            }
            if std::mem::take(&mut self.tasks.assignable) && !self.tasks.winding_down {
                for type_index in 0..self.tasks.pools.len() as TypeIndex {
                    went_on |= self.assign(type_index);
                }
                went_on |= self.serve_waiting();
            }
            if !went_on {
                self.read_back();
                return worked;
            }
            worked = true;
        }
    }

    /// Queues the tasks whose time has come.
    #[inline]
    fn wake_tasks(&mut self) -> bool {
        let now_ms = self.kernel.now_ms();
        if self.tasks.table.next_due_ms().is_none_or(|due_ms| due_ms > now_ms) {
            return false;
        }
        let woke = self.tasks.table.wake(now_ms);
        self.tasks.assignable |= woke;
        woke
    }

    fn committed(&mut self, logged: Logged, at: Place) {
        match logged {
            Logged::Submitted { key, submitter, place } => {
                self.accepted(key, submitter, place, at);
            }
            Logged::Existing { id, submitter, place, watched } => {
                self.tell_briefly(submitter, id, NewsKind::Accepted, place);
                // An ended task has its end told at once.
                if watched && !self.tasks.table.watch(id.random, submitter) {
                    match self.tasks.table.key(id.random) {
                        Some(key) => self.tell_end(key, submitter),
                        None => {
                            let gone = Error::NotFound("the task of that key is forgotten".into());
                            self.refuse(submitter, id.random, place, &gone);
                        }
                    }
                }
            }
            Logged::Ended { key } => self.ended(key),
            Logged::Told { random, asker, place } => {
                let id = TaskId { shard: self.kernel.index, random };
                self.tell_briefly(asker, id, NewsKind::Ended, place);
            }
            Logged::Requeued { asker, correlation } => {
                self.kernel.answer(asker, correlation, &Response::Done);
            }
            Logged::Moved(what) => self.tasks.table.moved(what, at),
            Logged::Walked => self.walked(),
            Logged::Noted => {}
        }
    }

    fn accepted(&mut self, key: u32, submitter: Watcher, place: u32, at: Place) {
        let table = &mut self.tasks.table;
        let id = table.id(key);
        let logged = self.tasks.ledger.is_durable() && !table.is_transient(key);
        table.accepted(key, self.kernel.now_ms(), logged.then_some(at));
        self.tasks.assignable = true;
        // An agent hears of refusals and ends alone.
        if Self::is_door(AgentId::from_bits(submitter.target)) {
            self.tell_briefly(submitter, id, NewsKind::Accepted, place);
        }
    }

    /// Tells a door what became of a member of its request, where there is nothing more to say.
    fn tell_briefly(&mut self, door: Watcher, id: TaskId, what: NewsKind, place: u32) {
        let TaskId { shard, random } = id;
        let news = letter::TaskNews {
            random,
            shard,
            place,
            what,
            attempts: 0,
            retry_after_ms: 0,
            body: &[],
        };
        tell(&mut self.kernel, door, &news);
    }

    fn ended(&mut self, key: u32) {
        let table = &mut self.tasks.table;
        table.ended(key);
        let random = table.id(key).random;
        let watchers = table.take_watchers(key);
        for watcher in watchers {
            let target = AgentId::from_bits(watcher.target);
            if target == watcher_of(target.core()) {
                let watch = (target.core(), watcher.correlation);
                if let Some(timer) = self.tasks.watches.remove(&watch) {
                    self.kernel.wheel.cancel(timer);
                }
                let response = self.view_task(random);
                self.kernel.answer(target.core(), watcher.correlation, &response);
                continue;
            }
            self.tell_end(key, watcher);
        }
        self.tasks.table.retain_within_limits();
        while let Some(random) = self.tasks.table.next_purged() {
            let id = TaskId { shard: self.kernel.index, random };
            tracing::warn!(%id, "a dead letter was forgotten: there were more than tasks.dead_max");
            self.tasks.ledger.append(Record::Forgotten { id }, Logged::Noted);
        }
    }

    /// Tells somebody how a task ended.
    fn tell_end(&mut self, key: u32, watcher: Watcher) {
        let table = &self.tasks.table;
        let (TaskId { shard, random }, status, body) = table.end_of(key);
        let what = match status {
            TaskStatus::Done => NewsKind::Done,
            TaskStatus::Cancelled => NewsKind::Cancelled,
            _ => NewsKind::Dead,
        };
        let attempts = table.attempts(key);
        let news =
            letter::TaskNews { random, shard, place: 0, what, attempts, retry_after_ms: 0, body };
        tell(&mut self.kernel, watcher, &news);
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
        if self.tasks.is_starved(type_index) {
            assigned |= self.grow_pool(type_index);
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
                self.tasks.attempts.insert(lease.token, attempt);
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

    pub(super) fn end_and_count(
        &mut self,
        agent: AgentId,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) {
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
    pub(super) fn take_attempt(&mut self, lease: Lease) -> Option<Attempt> {
        let attempt = self.tasks.attempts.remove(&lease.token)?;
        assert_eq!(attempt.lease, lease, "a token is given once");
        self.kernel.wheel.cancel(attempt.timer);
        let took_ms = self.kernel.now_ms() - attempt.started_ms;
        self.tasks.remote.released(attempt.agent);
        // A worker's seat may be on another core.
        if attempt.agent.core() == self.kernel.index {
            self.tasks.pools[attempt.type_index as usize].end(attempt.agent.slot(), took_ms);
        }
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
        self.fail_attempts_of(id, why);
        self.tasks.pools[type_index as usize].remove(id.slot());
    }

    /// What an agent was working on counts as failed.
    pub(super) fn fail_attempts_of(&mut self, id: AgentId, why: &str) {
        let of_agent = self.tasks.attempts.values().filter(|attempt| attempt.agent == id);
        let leases: Vec<Lease> = of_agent.map(|attempt| attempt.lease).collect();
        for lease in leases {
            if self.take_attempt(lease).is_some() {
                self.tasks.end_attempt(self.kernel.now_ms(), lease, Err((why, true)));
            }
        }
    }

    /// A part of this shard's tasks.
    pub(super) fn list_tasks(&mut self, filter: &TaskFilter, cursor: u64, max: u32) -> Response {
        let types = &self.kernel.types;
        let type_index = match &filter.agent_type {
            None => None,
            Some(name) => match types.find(name) {
                Some(type_index) => Some(type_index),
                None => return Response::Tasks(Vec::new(), None),
            },
        };
        let filter = ListFilter { status: filter.status, type_index, letters: false };
        let name = |type_index| types.get(type_index).name.clone();
        let max = max.min(LIST_TASKS_MAX) as usize;
        let (tasks, next) = self.tasks.table.list(filter, cursor, max, name);
        Response::Tasks(tasks, next)
    }

    /// Queues a dead task again; answers when the log has it.
    pub(super) fn requeue_task(&mut self, asker: CoreIndex, correlation: u64, random: u128) {
        let now_ms = self.kernel.now_ms();
        if let Err(error) = self.tasks.table.requeue(random, now_ms) {
            return self.kernel.answer(asker, correlation, &Response::Failed(error));
        }
        self.tasks.assignable = true;
        let id = TaskId { shard: self.kernel.index, random };
        let then = Logged::Requeued { asker, correlation };
        self.tasks.ledger.append(Record::Requeued { id }, then);
        self.end_evicted();
    }

    /// Cancels a task; `Ok(false)` when it had ended before.
    pub(super) fn cancel_task(&mut self, random: u128) -> Result<bool, Error> {
        let Some(key) = self.tasks.table.cancel(random)? else { return Ok(false) };
        self.tasks.log_end(key, self.kernel.now_ms());
        if let Some(lease) = self.tasks.table.last_lease(key)
            && let Some(attempt) = self.take_attempt(lease)
        {
            self.with_agent(attempt.agent, |agent, context| agent.on_abandoned(lease, context));
        }
        Ok(true)
    }
}
