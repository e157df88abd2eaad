//! Attempts of tasks that other nodes keep, run by this node's agents.
//!
//! A guest waits and runs in a partition of its own kind, one a core, that no log knows and no list
//! shows. To agents it looks as any task: it has the name and the attempt's number that it has at the
//! node that lends it. Its fencing token is of this node; the lender's stays with the lender.
//!
//! Invariants worth naming:
//! - The lender keeps the task: here it has one attempt, its end is told to the lender and forgotten,
//!   and it is never lent on.
//! - A guest that did not begin within [`WAIT_MS`] goes back, and so does each that waits when the
//!   node stops. The lender is told that it did not begin, so it need not count it.
//! - A token of a guest has [`GUEST`] set, which no other token has, and names the core. No log reserves
//!   it: each life of a node begins at a number by lot, of [`FIRST_MAX`].
//! - As many guests of a type wait on a core as its agents may run, [`WAITING_LEAST`] at least.

use super::{
    core::Shard,
    handle::{Failure, Lease},
    kernel::Timer,
    ledger::Logged,
    partition::{Beginning, Partition},
    tasks::Tasks,
    wheel::TimerKey,
};
use crate::{
    config::DropPolicy,
    consensus::{MemoryLog, TaskLog},
    registry::TypeIndex,
    task::{Origin, Submission, Submitted, TableLimits, TaskTable},
    wire::{
        api::{self, Error},
        id::{CoreIndex, PartitionIndex, TaskId},
        letter::Response,
        msgpack::is_one_value,
    },
};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// What tells the token of a guest from all others; JSON clients can carry it.
const GUEST: u64 = 1 << 52;
/// Where the core stands in a guest's token.
const CORE_SHIFT: u32 = 40;
/// Cores that tokens can name.
const CORES: u64 = GUEST >> CORE_SHIFT;

/// A node begins with a guest's token below this, behind the core: there is room for as many.
const FIRST_MAX: u64 = 1 << (CORE_SHIFT - 1);

/// How long a guest may wait for an agent, milliseconds.
pub const WAIT_MS: u64 = 500;
/// Guests of a type that may wait on a core however few its agents may run.
const WAITING_LEAST: usize = 16;
/// Guests of all types that may wait on a core.
const WAITING_MAX: usize = 4_096;
/// Payloads of the guests that may wait on a core, bytes, and one payload more.
const WAITING_BYTES: usize = 16 << 20;
/// What an agent that says nothing answers.
const NIL: [u8; 1] = [0xc0];
/// When to come back while too many wait, milliseconds.
const RETRY_MS: u64 = 10;

/// The core that gave a token, when it is that of a guest.
pub fn core_of(token: u64) -> Option<CoreIndex> {
    (token & GUEST != 0).then_some((token >> CORE_SHIFT & (CORES - 1)) as CoreIndex)
}

/// Where a guest is in its life.
enum Stage {
    /// It waits for an agent, until the timer.
    Waiting(TimerKey),
    Running(Lease),
    /// How it ended, or why it did not begin.
    Over(Result<Result<(), Failure>, Error>),
}

/// A guest.
struct Known {
    /// Who is told of its end: a core, and what the answer carries.
    asker: (CoreIndex, u64),
    /// The task's name where it is kept.
    id: TaskId,
    attempt: u32,
    /// The lender's token.
    lease: u64,
    payload_bytes: usize,
    stage: Stage,
}

/// A core's guests.
#[derive(Default)]
pub(super) struct Guests {
    /// The place of their partition on this core; none in a node that belongs to no cluster.
    pub place: Option<usize>,
    /// By their keys in its table.
    known: HashMap<u32, Known, RandomState>,
    /// Payloads of those that wait.
    waiting_bytes: usize,
    /// What happened to them so far, as a number.
    pub changes: u64,
}

impl Guests {
    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether a place is that of their partition.
    #[inline]
    fn are_at(&self, place: usize) -> bool {
        self.place == Some(place)
    }

    fn get(&mut self, key: u32) -> &mut Known {
        self.known.get_mut(&key).expect("a guest is known until its end is told")
    }

    /// Takes a guest into another stage; gives the timer of its wait, if it waited.
    fn enter(&mut self, key: u32, stage: Stage) -> Option<TimerKey> {
        let waits = matches!(stage, Stage::Waiting(_));
        let guest = self.get(key);
        let bytes = guest.payload_bytes;
        let before = std::mem::replace(&mut guest.stage, stage);
        let timer = if let Stage::Waiting(timer) = before { Some(timer) } else { None };
        self.waiting_bytes -= if timer.is_some() { bytes } else { 0 };
        self.waiting_bytes += if waits { bytes } else { 0 };
        timer
    }
}

/// A partition for guests: nothing is remembered of those that ended.
fn partition(index: PartitionIndex, core: CoreIndex, first: u64, like: &TableLimits) -> Partition {
    assert!(first < FIRST_MAX, "tokens have room to count on");
    assert!(u64::from(core) < CORES, "tokens have room for as many cores");
    let origin = Origin {
        partition: index,
        first_token: GUEST | u64::from(core) << CORE_SHIFT | first,
        durable: false,
        zero_unix_ms: 0,
        among: None,
    };
    let limits = TableLimits {
        queue_primary: WAITING_MAX,
        queue_overflow: 0,
        retained: 0,
        retained_bytes: 0,
        drop_policy: DropPolicy::Reject,
        ..*like
    };
    let log = TaskLog::Memory(MemoryLog::default());
    Partition::new(Beginning { log, table: TaskTable::new(origin, limits) }, None, 0)
}

impl Tasks {
    /// Whether a partition is that of this core's guests.
    #[inline]
    fn is_guests(&self, partition: PartitionIndex) -> bool {
        self.guests.place.is_some_and(|at| self.partitions[at].table.partition() == partition)
    }

    /// An attempt has begun: the task's name and the attempt's number, as its agent is told, and
    /// what need not happen any more.
    #[inline]
    pub(super) fn begun(&mut self, place: usize, lease: Lease) -> (TaskId, u32, Option<TimerKey>) {
        if !self.guests.are_at(place) {
            let table = &self.partitions[place].table;
            return (table.id(lease.key), table.attempts(lease.key), None);
        }
        self.guests.changes += 1;
        let timer = self.guests.enter(lease.key, Stage::Running(lease));
        assert!(timer.is_some(), "only what waits begins");
        let guest = self.guests.get(lease.key);
        (guest.id, guest.attempt, timer)
    }

    /// The random part of the name of the task that an attempt is of, and the lender's token when it
    /// is lent.
    pub(super) fn whose(&self, lease: Lease) -> (u128, Option<u64>) {
        match self.guests.known.get(&lease.key).filter(|_| self.is_guests(lease.partition)) {
            Some(guest) => (guest.id.random, Some(guest.lease)),
            None => (self.table(lease.partition).id(lease.key).random, None),
        }
    }

    /// Ends the attempt of a guest; `None` when it is none. Tells whether it was the current one.
    pub(super) fn end_guest(
        &mut self,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) -> Option<bool> {
        if !self.is_guests(lease.partition) {
            return None;
        }
        // It becomes a part of what is sent to the lender, where any other bytes would make all that
        // follows unreadable.
        let result = match result {
            Ok([]) => Ok(&NIL[..]),
            Ok(bytes) if !is_one_value(bytes) => {
                Err(("its result is not one MessagePack value", false))
            }
            result => result,
        };
        let partition = self.of(lease.partition);
        let is_current = partition.table.complete(lease, result.unwrap_or_default()).is_ok();
        if is_current {
            partition.ledger.at_once(Logged::Ended { key: lease.key });
            let ended = result.map(drop);
            let ended = ended.map_err(|(error, retry)| Failure { error: error.into(), retry });
            self.guests.enter(lease.key, Stage::Over(Ok(ended)));
        }
        Some(is_current)
    }

    /// Ends a guest that does not run, or not any more, without a result.
    fn turn_away(&mut self, key: u32, why: Error) {
        let Some(place) = self.guests.place else { return };
        let Partition { table, ledger, .. } = &mut self.partitions[place];
        let cancelled = table.cancel(table.id(key).random);
        assert_eq!(cancelled, Ok(Some(key)), "a guest whose end is not told has not ended");
        ledger.at_once(Logged::Ended { key });
        self.guests.enter(key, Stage::Over(Err(why)));
    }
}

impl Shard {
    /// Lets attempts of other nodes' tasks wait and run here.
    pub(super) fn open_guests(&mut self) {
        let index = self.kernel.guests_of(self.kernel.index);
        let like = *self.tasks.partitions[0].table.limits();
        let first = self.kernel.random.u64(..FIRST_MAX);
        self.tasks.guests.place = Some(self.tasks.partitions.len());
        self.tasks.partitions.push(partition(index, self.kernel.index, first, &like));
        assert!(self.tasks.is_guests(index) && self.kernel.core_of(index) == self.kernel.index);
    }

    /// The core whose agents take the next guest of a type.
    ///
    /// # Errors
    /// [`Error::NotFound`] when this node has no agent of the type and starts none.
    pub fn home_of_guest(&mut self, agent_type: &str) -> Result<(CoreIndex, TypeIndex), Error> {
        let type_index = self.find_type(agent_type)?;
        let types = &self.kernel.types;
        let starts = types.is_configured(type_index) && types.get(type_index).starts_agents();
        match self.kernel.directory.homes_of(type_index).is_empty() && !starts {
            true => Err(no_agent(agent_type)),
            false => Ok((self.kernel.choose_home(type_index), type_index)),
        }
    }

    /// Whether this core has an agent of a type, or may start one for a task that waits.
    fn may_run(&self, type_index: TypeIndex) -> bool {
        let core = self.kernel.index;
        let spec = self.kernel.types.get(type_index);
        let starts = spec.starts_agents() && spec.share(core, spec.max) > 0;
        starts || self.kernel.directory.agents_on(type_index, core) > 0
    }

    /// Takes a guest in; it is answered when it has ended, or did not begin.
    pub(super) fn take_guest(
        &mut self,
        asker: CoreIndex,
        correlation: u64,
        type_index: TypeIndex,
        guest: &api::Guest,
    ) {
        if let Err(error) = self.try_take_guest((asker, correlation), type_index, guest) {
            self.kernel.answer(asker, correlation, &Response::Failed(error));
        }
    }

    fn try_take_guest(
        &mut self,
        asker: (CoreIndex, u64),
        type_index: TypeIndex,
        guest: &api::Guest,
    ) -> Result<(), Error> {
        let Some(place) = self.tasks.guests.place else {
            return Err(Error::Conflict("the node belongs to no cluster".into()));
        };
        if self.tasks.winding_down() {
            return Err(stopping());
        }
        if !self.may_run(type_index) {
            return Err(no_agent(&self.kernel.types.get(type_index).name));
        }
        let now_ms = self.kernel.now_ms();
        let capacity = self.tasks.pools[usize::from(type_index)].capacity() as usize;
        let table = &mut self.tasks.partitions[place].table;
        if table.queued_of(type_index) >= capacity.max(WAITING_LEAST)
            || self.tasks.guests.waiting_bytes >= WAITING_BYTES
        {
            return Err(Error::Backpressure(RETRY_MS));
        }
        let submission = Submission {
            // The same task may be here twice: an earlier attempt of it may not know yet that it is
            // over.
            random: self.kernel.random.u128(..),
            type_index,
            priority: guest.priority,
            payload: &guest.payload,
            long: None,
            timeout_ms: guest.timeout_ms,
            max_attempts: 1,
            delay_ms: 0,
            key: None,
            transient: true,
            reserved: false,
            watcher: None,
        };
        let Submitted::New(key) = table.submit(now_ms, submission)? else {
            unreachable!("a task without a key is a new one");
        };
        table.accepted(key, now_ms, None);
        let timer = self.kernel.wheel.insert(now_ms + WAIT_MS, Timer::Guest(key));
        let api::Guest { id, attempt, lease, .. } = *guest;
        let (payload_bytes, stage) = (guest.payload.len(), Stage::Waiting(timer));
        let known = Known { asker, id, attempt, lease, payload_bytes, stage };
        self.tasks.guests.waiting_bytes += payload_bytes;
        self.tasks.guests.known.insert(key, known);
        self.tasks.guests.changes += 1;
        self.tasks.look_again();
        self.kernel.stats.tasks_borrowed += 1;
        Ok(())
    }

    /// A guest waits again: its attempt did not take place.
    pub(super) fn guest_waits_again(&mut self, lease: Lease) {
        if self.tasks.is_guests(lease.partition) {
            let due_ms = self.kernel.now_ms() + WAIT_MS;
            let timer = self.kernel.wheel.insert(due_ms, Timer::Guest(lease.key));
            self.tasks.guests.enter(lease.key, Stage::Waiting(timer));
        }
    }

    /// A guest has waited long enough.
    pub(super) fn guest_waited(&mut self, key: u32) {
        self.tasks.turn_away(key, Error::Backpressure(RETRY_MS));
    }

    /// Sends the guests back that wait: the node stops.
    pub(super) fn turn_guests_away(&mut self) {
        let known = self.tasks.guests.known.iter();
        let waiting = known.filter_map(|(key, guest)| match guest.stage {
            Stage::Waiting(timer) => Some((*key, timer)),
            _ => None,
        });
        for (key, timer) in waiting.collect::<Vec<_>>() {
            self.kernel.wheel.cancel(timer);
            self.tasks.turn_away(key, stopping());
        }
    }

    /// The lender has given an attempt up: by the random part of its task's name and the lender's
    /// lease.
    pub(super) fn stop_guest(&mut self, random: u128, lease: u64) {
        let is_it = |guest: &Known| guest.id.random == random && guest.lease == lease;
        let found = self.tasks.guests.known.iter().find(|(_, guest)| is_it(guest));
        let Some((&key, guest)) = found else { return };
        match guest.stage {
            Stage::Waiting(timer) => drop(self.kernel.wheel.cancel(timer)),
            Stage::Running(lease) => {
                if let Some(attempt) = self.take_attempt(lease) {
                    self.with_agent(attempt.agent, |agent, context| {
                        agent.on_abandoned(lease, context);
                    });
                }
            }
            Stage::Over(_) => return,
        }
        self.tasks.turn_away(key, Error::Uncertain("the lender gave the attempt up".into()));
    }

    /// Tells the lender how a guest ended and forgets it; false for any other task.
    pub(super) fn guest_ended(&mut self, place: usize, key: u32) -> bool {
        if !self.tasks.guests.are_at(place) {
            return false;
        }
        let table = &mut self.tasks.partitions[place].table;
        table.ended(key);
        let (_, _, result) = table.end_of(key);
        self.tasks.guests.changes += 1;
        let guest = self.tasks.guests.known.remove(&key);
        let Some(Known { asker: (asker, correlation), stage: Stage::Over(ended), .. }) = guest
        else {
            unreachable!("a guest's end is told once, when it is decided");
        };
        let response = match ended {
            Ok(ran) => Response::Ran(ran.map(|()| result.to_vec())),
            Err(error) => Response::Failed(error),
        };
        self.kernel.answer_beside(asker, correlation, response);
        table.retain_within_limits();
        true
    }
}

fn no_agent(agent_type: &str) -> Error {
    Error::NotFound(format!("the node has no agent of type {agent_type} now"))
}

fn stopping() -> Error {
    Error::Unavailable("the node is shutting down; the attempt did not begin".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_guest_names_its_core_and_no_other_token_does() {
        let limits = TableLimits::from(&crate::config::Config::default().tasks);
        for core in [0, 1, 7, 4_095] {
            let first = |first| partition(13, core, first, &limits).table.next_token();
            assert_eq!(core_of(first(0)), Some(core));
            assert_eq!(core_of(first(FIRST_MAX - 1) + FIRST_MAX), Some(core));
            let first = first(FIRST_MAX - 1);
            assert!(first < 1 << 53, "JSON can carry it");
        }
        assert_eq!(core_of(0), None);
        assert_eq!(core_of(GUEST - 1), None);
    }
}
