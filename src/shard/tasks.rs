//! Drives the shard's tasks: accepts them, gives them to agents, ends them, tells who waits.
//!
//! Everything that must survive goes through the log first: a submission is queued and an end is
//! told only after the log says that the record is committed.

use super::{
    agent::{Outcome, Task},
    core::{Shard, call},
    guests::Guests,
    handle::{Failure, Lease},
    kernel::{Timer, borrower_of, watcher_of},
    ledger::{Logged, Next},
    lending::Lending,
    news::tell,
    partition::{Partition, key_conflict},
    reads::{Question, Read},
    remote::Remote,
    types::Types,
    wheel::TimerKey,
};
use crate::{
    consensus::Record,
    registry::TypeIndex,
    task::{Failed, ListFilter, LoadIndex, Place, TaskTable, Watcher},
    wire::{
        api::{CoreStats, Error, TaskFilter, TaskStatus, TaskView},
        id::{AgentId, CoreIndex, PartitionIndex, TaskId},
        letter::{self, NewsKind, Response},
    },
};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Tasks in one part of a list, at most.
const LIST_TASKS_MAX: u32 = 1000;

/// A task that waits for an agent.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    /// The place of its partition on this core.
    pub place: usize,
    /// Its place in the table.
    pub key: u32,
}

/// An attempt that its agent will end later.
pub(super) struct Attempt {
    pub lease: Lease,
    pub agent: AgentId,
    pub type_index: TypeIndex,
    pub started_ms: u64,
    pub timer: TimerKey,
}

/// A wait for a task's end.
pub(super) struct Watch {
    /// What ends it before.
    pub timer: TimerKey,
    pub id: TaskId,
    /// The longest result that is part of its answer, bytes.
    pub result_bytes: usize,
}

/// A core's tasks and the agents' loads.
pub(super) struct Tasks {
    /// The partitions that this core keeps: every one whose number leaves the core's own when it
    /// is divided by the number of cores; behind them, in a cluster, that of its guests.
    pub partitions: Vec<Partition>,
    cores: usize,
    /// One for each agent type.
    pub pools: Vec<LoadIndex>,
    /// Attempts that go on, by the lease's partition and token: there are few of them, so that
    /// whoever ends one is found in the cache.
    pub attempts: HashMap<(PartitionIndex, u64), Attempt, RandomState>,
    /// Workers that fetch.
    pub remote: Remote,
    /// Tasks that agents of other nodes run.
    pub lending: Lending,
    /// Tasks of other nodes that agents of this one run.
    pub guests: Guests,
    /// Waits for a task's end, by the core that asked and its correlation.
    pub watches: HashMap<(CoreIndex, u64), Watch>,
    /// Whether a task could perhaps be given to an agent.
    assignable: bool,
    /// The node ends: no attempt begins any more.
    winding_down: bool,
    /// The buffer that agents put results into.
    result: Vec<u8>,
    /// Tasks that may wait, all partitions together.
    capacity: usize,
}

impl Tasks {
    pub(super) fn new(types: usize, cores: usize, partitions: Vec<Partition>) -> Self {
        let limits = partitions.iter().map(|partition| partition.table.limits());
        let capacity = limits.map(|limits| limits.queue_primary + limits.queue_overflow).sum();
        Self {
            partitions,
            cores,
            pools: (0..types).map(|_| LoadIndex::default()).collect(),
            attempts: HashMap::default(),
            remote: Remote::default(),
            lending: Lending::default(),
            guests: Guests::default(),
            watches: HashMap::new(),
            // What was recovered waits already.
            assignable: true,
            winding_down: false,
            result: Vec::new(),
            capacity,
        }
    }

    /// Makes room for what further types have.
    pub(super) fn know(&mut self, types: &Types) {
        let count = types.len();
        self.pools.resize_with(count, LoadIndex::default);
        self.lending.know(count);
        self.assignable = true;
    }

    /// The partitions of this node's own tasks.
    #[inline]
    pub(super) fn own(&self) -> &[Partition] {
        &self.partitions[..self.guests.place.unwrap_or(self.partitions.len())]
    }

    /// A partition of this core.
    #[inline]
    pub(super) fn of(&mut self, partition: PartitionIndex) -> &mut Partition {
        &mut self.partitions[partition as usize / self.cores]
    }

    /// The table of a partition of this core.
    #[inline]
    pub(super) fn table(&self, partition: PartitionIndex) -> &TaskTable {
        &self.partitions[partition as usize / self.cores].table
    }

    /// The task of a type that should run next: of the first of each partition the most urgent
    /// one.
    #[inline]
    pub(super) fn next(&self, type_index: TypeIndex) -> Option<Waiting> {
        let ([only], true) = (self.own(), self.guests.is_empty()) else {
            return self.next_of(&self.partitions, type_index);
        };
        let key = only.table.next(type_index)?;
        Some(Waiting { place: 0, key })
    }

    /// The same among some of the partitions.
    pub(super) fn next_of(
        &self,
        partitions: &[Partition],
        type_index: TypeIndex,
    ) -> Option<Waiting> {
        let tables = partitions.iter().map(|partition| &partition.table).enumerate();
        let heads = tables.filter_map(|(place, table)| {
            let key = table.next(type_index)?;
            Some((table.urgency(key), Waiting { place, key }))
        });
        heads.min_by_key(|(urgency, _)| *urgency).map(|(_, waiting)| waiting)
    }

    /// How full the shard is, in thousandths.
    #[inline]
    pub(super) fn load(&self) -> u32 {
        let free = self.own().iter().map(|partition| partition.table.free_room());
        let used = self.capacity - free.sum::<usize>().min(self.capacity);
        (used * 1000 / self.capacity.max(1)) as u32
    }

    /// Whether no attempt begins any more.
    #[inline]
    pub(super) fn winding_down(&self) -> bool {
        self.winding_down
    }

    /// As [`Shard::wind_down`].
    pub(super) fn wind_down(&mut self) -> u64 {
        let is_durable = |partition: &Partition| partition.ledger.is_durable();
        self.winding_down |= self.partitions.iter().any(is_durable);
        self.partitions.iter().map(Partition::unfinished).sum()
    }

    pub(super) fn count(&self, stats: &mut CoreStats) {
        for partition in self.own() {
            let counts = partition.table.counters();
            stats.tasks_accepted += counts.accepted;
            stats.tasks_refused += counts.refused;
            stats.tasks_repeated += counts.repeated;
            stats.tasks_recovered += counts.recovered;
            stats.tasks_queued += counts.queued;
            stats.tasks_delayed += counts.delayed;
            stats.tasks_cold += counts.cold;
            stats.tasks_running += counts.running;
            stats.tasks_done += counts.done;
            stats.tasks_dead += counts.dead;
            stats.tasks_cancelled += counts.cancelled;
            stats.tasks_evicted += counts.evicted;
            stats.attempts_failed += counts.attempts_failed;
            stats.dead_letters += counts.dead_letters;
            stats.dead_letters_requeued += counts.requeued;
            stats.dead_letters_purged += counts.purged;
            stats.keys += counts.keys;
        }
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
        self.pools[type_index as usize].least_loaded().is_none() && self.next(type_index).is_some()
    }

    /// Makes the next turn look whether tasks can be given to agents.
    pub(super) fn look_again(&mut self) {
        self.assignable = true;
    }

    /// What is known of a task; a longer result is left out.
    pub(super) fn view(&self, id: TaskId, result_bytes: usize, types: &Types) -> Option<TaskView> {
        let name = |type_index| types.get(type_index).name.clone();
        let view = self.table(id.partition).view(id.random, result_bytes, name)?;
        Some(self.placed(view))
    }

    /// The view of a task with the node that was lent its attempt.
    fn placed(&self, mut view: TaskView) -> TaskView {
        if view.status == TaskStatus::Running && !self.lending.is_empty() {
            let table = self.table(view.id.partition);
            let lease = table.key(view.id.random).and_then(|key| table.last_lease(key));
            view.node = lease.and_then(|lease| self.lending.node_of(lease));
        }
        view
    }

    pub(super) fn watch(&mut self, id: TaskId, watcher: Watcher) -> bool {
        self.of(id.partition).table.watch(id.random, watcher)
    }

    /// Ends a wait; `None` when it has ended before.
    pub(super) fn stop_watching(
        &mut self,
        id: TaskId,
        core: CoreIndex,
        correlation: u64,
    ) -> Option<()> {
        let watcher = Watcher { target: watcher_of(core).to_bits(), correlation };
        self.of(id.partition).table.unwatch(id.random, watcher).then_some(())
    }

    /// Ends an attempt; whether it was the task's current one.
    fn end_attempt(
        &mut self,
        now_ms: u64,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) -> bool {
        if let Some(ended) = self.end_guest(lease, result) {
            return ended;
        }
        let ended = self.of(lease.partition).end_attempt(now_ms, lease, result);
        self.assignable |= matches!(ended, Some(Failed::Again { .. }));
        ended.is_some()
    }
}

impl Shard {
    /// Acts on what the log has committed and gives tasks to agents.
    pub(super) fn run_tasks(&mut self) -> bool {
        let mut worked = self.wake_tasks();
        loop {
            let mut went_on = false;
            for place in 0..self.tasks.partitions.len() {
                while let Some(next) = self.tasks.partitions[place].ledger.next() {
                    went_on = true;
                    match next {
                        Next::Logged(logged, at) => self.committed(place, logged, at),
                        next => self.follow_log(place, next),
                    }
                }
            }
            // The log may have named types that were not known.
            self.know_types();
            if std::mem::take(&mut self.tasks.assignable) && !self.tasks.winding_down {
                for type_index in 0..self.tasks.pools.len() as TypeIndex {
                    went_on |= self.assign(type_index);
                }
                went_on |= self.serve_waiting();
            }
            if !went_on {
                for place in 0..self.tasks.partitions.len() {
                    self.tasks.partitions[place].renew_tokens();
                    self.tasks.partitions[place].tend_keys(self.kernel.now_ms());
                    self.tasks.partitions[place].look_on(&self.kernel.types, self.kernel.now_ms());
                    self.read_back(place);
                }
                return worked;
            }
            worked = true;
        }
    }

    /// Queues the tasks whose time has come.
    #[inline]
    fn wake_tasks(&mut self) -> bool {
        let now_ms = self.kernel.now_ms();
        let mut woke = false;
        for Partition { table, .. } in &mut self.tasks.partitions {
            if table.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                woke |= table.wake(now_ms);
            }
        }
        self.tasks.assignable |= woke;
        woke
    }

    /// Acts on what a partition's log has committed.
    fn committed(&mut self, partition: usize, logged: Logged, at: Place) {
        let table = &mut self.tasks.partitions[partition].table;
        match logged {
            Logged::Submitted { key, submitter, place } => {
                self.accepted(partition, key, submitter, place, at);
            }
            Logged::Existing { id, submitter, place, watched } => {
                // An ended task has its end told at once.
                let is_over = watched && !table.watch(id.random, submitter);
                let key = table.key(id.random);
                self.tell_briefly(submitter, id, NewsKind::Accepted, place);
                match key {
                    Some(key) if is_over => self.tell_end(partition, key, submitter),
                    None if is_over => {
                        let gone = Error::NotFound("the task of that key is forgotten".into());
                        self.refuse(submitter, id, place, &gone);
                    }
                    _ => {}
                }
            }
            Logged::Conflict { id, submitter, place } => {
                self.refuse(submitter, id, place, &key_conflict());
            }
            Logged::ConflictInBatch { asker, correlation } => {
                self.kernel.answer(asker, correlation, &Response::Failed(key_conflict()));
            }
            Logged::Ended { key } => self.ended(partition, key),
            Logged::Told { random, asker, place } => {
                let id = TaskId { partition: table.partition(), random };
                self.tell_briefly(asker, id, NewsKind::Ended, place);
            }
            Logged::Requeued { key, asker, correlation } => {
                table.requeued(key, self.kernel.now_ms());
                self.tasks.assignable = true;
                self.kernel.answer(asker, correlation, &Response::Done);
            }
            Logged::Cancelled { asker, correlation, cancelled } => {
                self.kernel.answer(asker, correlation, &Response::Cancelled(cancelled));
            }
            Logged::Moved(what) => table.moved(what, at),
            Logged::Walked => self.tasks.partitions[partition].walked(),
            Logged::Tokens { below } => {
                self.tasks.partitions[partition].may_give_tokens(below, self.kernel.now_ms());
                self.tasks.assignable = true;
            }
            Logged::Expired { upto_unix_ms } => {
                self.tasks.partitions[partition].forget_expired(upto_unix_ms);
            }
            Logged::Noted => {}
        }
    }

    fn accepted(&mut self, partition: usize, key: u32, submitter: Watcher, place: u32, at: Place) {
        let Partition { table, ledger, .. } = &mut self.tasks.partitions[partition];
        let id = table.id(key);
        let logged = ledger.is_durable() && !table.is_transient(key);
        table.accepted(key, self.kernel.now_ms(), logged.then_some(at));
        self.tasks.assignable = true;
        // An agent hears of refusals and ends alone.
        if Self::is_door(AgentId::from_bits(submitter.target)) {
            self.tell_briefly(submitter, id, NewsKind::Accepted, place);
        }
    }

    /// Tells a door what became of a member of its request, where there is nothing more to say.
    pub(super) fn tell_briefly(&mut self, door: Watcher, id: TaskId, what: NewsKind, place: u32) {
        let TaskId { partition, random } = id;
        let news = letter::TaskNews {
            random,
            partition,
            place,
            what,
            attempts: 0,
            retry_after_ms: 0,
            body: &[],
        };
        tell(&mut self.kernel, door, &news);
    }

    fn ended(&mut self, partition: usize, key: u32) {
        if self.guest_ended(partition, key) {
            return;
        }
        let table = &mut self.tasks.partitions[partition].table;
        table.ended(key);
        let id = table.id(key);
        let watchers = table.take_watchers(key);
        for watcher in watchers {
            let target = AgentId::from_bits(watcher.target);
            if target == watcher_of(target.core()) {
                let watch = (target.core(), watcher.correlation);
                if let Some(Watch { timer, result_bytes, .. }) = self.tasks.watches.remove(&watch) {
                    self.kernel.wheel.cancel(timer);
                    let response = self.view_task(id, result_bytes);
                    self.kernel.answer(target.core(), watcher.correlation, &response);
                }
                continue;
            }
            self.tell_end(partition, key, watcher);
        }
        let partition = &mut self.tasks.partitions[partition];
        partition.table.retain_within_limits();
        partition.log_purged();
    }

    /// Tells somebody how a task ended.
    fn tell_end(&mut self, partition: usize, key: u32, watcher: Watcher) {
        let table = &self.tasks.partitions[partition].table;
        let (TaskId { partition, random }, status, body) = table.end_of(key);
        let what = match status {
            TaskStatus::Done => NewsKind::Done,
            TaskStatus::Cancelled => NewsKind::Cancelled,
            _ => NewsKind::Dead,
        };
        let attempts = table.attempts(key);
        let retry_after_ms = 0;
        let news =
            letter::TaskNews { random, partition, place: 0, what, attempts, retry_after_ms, body };
        tell(&mut self.kernel, watcher, &news);
    }

    /// Gives queued tasks of a type to its least loaded agents; false when there was nothing to
    /// give or nobody to give it to.
    fn assign(&mut self, type_index: TypeIndex) -> bool {
        let mut assigned = false;
        while let Some(slot) = self.tasks.pools[type_index as usize].least_loaded() {
            let Some(waiting) = self.tasks.next(type_index) else { break };
            assigned = true;
            self.run_attempt(type_index, slot, waiting);
        }
        if self.tasks.is_starved(type_index) {
            assigned |= self.grow_pool(type_index);
            assigned |= self.lend(type_index);
        }
        assigned
    }

    fn run_attempt(&mut self, type_index: TypeIndex, slot: u32, waiting: Waiting) {
        let now_ms = self.kernel.now_ms();
        let Some(agent) = self.agents.in_slot(slot).map(|resident| resident.id) else {
            unreachable!("the pool holds agents of this core only");
        };
        let tasks = &mut self.tasks;
        let Waiting { place, key } = waiting;
        let lease = tasks.partitions[place].table.start(key, now_ms);
        let (id, attempt, waited) = tasks.begun(place, lease);
        if let Some(timer) = waited {
            self.kernel.wheel.cancel(timer);
        }
        tasks.pools[type_index as usize].begin(slot);
        let mut result = std::mem::take(&mut tasks.result);
        result.clear();
        let table = &tasks.partitions[place].table;
        let task = Task {
            id,
            attempt,
            payload: table.payload(key),
            deadline_ms: table.deadline_ms(key),
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
                self.tasks.attempts.insert((lease.partition, lease.token), attempt);
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
        let limit = self.tasks.table(lease.partition).limits().max_payload_bytes;
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
        let attempt = self.tasks.attempts.remove(&(lease.partition, lease.token))?;
        assert_eq!(attempt.lease, lease, "a token is given once");
        self.kernel.wheel.cancel(attempt.timer);
        let took_ms = self.kernel.now_ms() - attempt.started_ms;
        self.tasks.remote.released(attempt.agent);
        if attempt.agent == borrower_of(self.kernel.index) {
            self.tasks.lending.over(lease);
        }
        // A worker's seat may be on another core.
        if attempt.agent.core() == self.kernel.index {
            self.tasks.pools[attempt.type_index as usize].end(attempt.agent.slot(), took_ms);
        }
        self.tasks.assignable = true;
        Some(attempt)
    }

    pub(super) fn attempt_timed_out(&mut self, lease: Lease) {
        self.unanswered(lease);
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

    /// A part of a partition's tasks.
    pub(super) fn list_tasks(
        &mut self,
        partition: PartitionIndex,
        filter: &TaskFilter,
        cursor: u64,
        max: u32,
    ) -> Response {
        if let Err(error) = self.tasks.of(partition).check_leading() {
            return Response::Failed(error);
        }
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
        let (tasks, next) = self.tasks.of(partition).table.list(filter, cursor, max, name);
        let tasks = tasks.into_iter().map(|view| self.tasks.placed(view)).collect();
        Response::Tasks(tasks, next)
    }

    /// Queues a dead task again; answers when the log has it. That there is no such dead letter is
    /// only said when this node is known to lead still: another one may have it by now.
    pub(super) fn requeue_task(&mut self, asker: CoreIndex, correlation: u64, id: TaskId) {
        if let Err(error) = self.try_requeue(asker, correlation, id) {
            match error {
                Error::NotFound(_) | Error::Conflict(_) => {
                    self.read(Read { asker, correlation, question: Question::Requeue(id) });
                }
                error => self.kernel.answer(asker, correlation, &Response::Failed(error)),
            }
        }
    }

    /// Queues a dead task again that this table has; the error is still to be answered.
    pub(super) fn try_requeue(
        &mut self,
        asker: CoreIndex,
        correlation: u64,
        id: TaskId,
    ) -> Result<(), Error> {
        let now_ms = self.kernel.now_ms();
        let partition = self.tasks.of(id.partition);
        partition.check_leading()?;
        let key = partition.table.requeue(id.random, now_ms)?;
        let then = Logged::Requeued { key, asker, correlation };
        match partition.table.is_transient(key) {
            true => partition.ledger.at_once(then),
            false => partition.ledger.append(Record::Requeued { id }, then),
        }
        partition.end_evicted();
        Ok(())
    }

    /// Cancels a task; answers when the log has its end. That there is none, or that it had ended
    /// before, is only said when this node is known to lead still.
    pub(super) fn cancel_task(&mut self, asker: CoreIndex, correlation: u64, id: TaskId) {
        if !matches!(self.try_cancel(asker, correlation, id), Ok(true)) {
            self.read(Read { asker, correlation, question: Question::Cancel(id) });
        }
    }

    /// Cancels a task that this table has; false when it had ended before, and that or the error is
    /// still to be answered.
    pub(super) fn try_cancel(
        &mut self,
        asker: CoreIndex,
        correlation: u64,
        id: TaskId,
    ) -> Result<bool, Error> {
        let now_ms = self.kernel.now_ms();
        let partition = self.tasks.of(id.partition);
        partition.check_leading()?;
        let Some(key) = partition.table.cancel(id.random)? else { return Ok(false) };
        partition.log_end(key, now_ms);
        partition.ledger.after_all(Logged::Cancelled { asker, correlation, cancelled: true });
        if let Some(lease) = partition.table.last_lease(key)
            && let Some(attempt) = self.take_attempt(lease)
        {
            self.with_agent(attempt.agent, |agent, context| agent.on_abandoned(lease, context));
        }
        Ok(true)
    }
}
