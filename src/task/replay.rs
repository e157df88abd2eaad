//! A table from its log: records come in the order in which they were written, then
//! [`TaskTable::replay_over`].
//!
//! Until then every unended task is cold and in no queue. Records of things that were moved
//! forward come twice; the second one says no more than where the thing lies now.

use super::{
    cold::{Cold, Kind},
    entry::{BARE, LETTER, State},
    keys::{Key, KeyEntry},
    place::{Place, Spot},
    table::TaskTable,
};
use crate::{
    planted::{self, Bug},
    registry::TypeIndex,
    wire::api::{Priority, TaskStatus},
};

/// What the log's record of a submission says.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// What tells it from every other.
    pub random: u128,
    /// The agent type that runs it.
    pub type_index: TypeIndex,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was submitted.
    pub submitted_unix_ms: u64,
    /// When it may run; 0 for at once.
    pub due_unix_ms: u64,
    /// How long one attempt may take, milliseconds; 0 for the table's limit.
    pub timeout_ms: u64,
    /// Attempts before it is dead; 0 for the table's limit.
    pub max_attempts: u32,
    /// Attempts begun.
    pub attempts: u32,
    /// What it was submitted with; of no interest where a task comes back into memory.
    pub key: Option<Key<'a>>,
    /// One MessagePack value.
    pub payload: &'a [u8],
}

impl TaskTable {
    /// A task was submitted.
    pub fn replay_submitted(&mut self, place: Place, task: &Recorded<'_>, now_ms: u64) {
        if let Some(key) = task.key {
            let expires_unix_ms = task.submitted_unix_ms.saturating_add(self.limits.key_ttl_ms);
            match self.is_agreed {
                true => self.keep_key(place, key, task.random, expires_unix_ms),
                false => {
                    let expires_ms = self.node_ms(expires_unix_ms);
                    self.replay_key_entry(place, key, task.random, expires_ms, now_ms);
                }
            }
        }
        let spot = Spot::from(place);
        if let Some(slot) = self.cold.find(task.random) {
            let cold = &mut self.cold.slab[slot];
            let before = std::mem::replace(&mut cold.spot, spot);
            cold.attempts = cold.attempts.max(brief(task.attempts));
            self.generations.remove(before);
            self.generations.add(spot);
            if self.is_agreed {
                self.refresh_cold(slot, task);
            }
            return;
        }
        if let Some(key) = self.key(task.random) {
            return self.lies_at(key, spot);
        }
        let (kind, mut since) = Kind::of_recorded(task);
        if self.is_agreed && kind == Kind::Waiting {
            since = self.since_unix_ms(since);
        }
        let mut cold = Cold::new(kind, task.random, spot, task.type_index, task.priority);
        cold.attempts = brief(task.attempts);
        cold.print = self.print(task);
        cold.set_since_unix_ms(since);
        self.cold.insert(cold);
        self.census.task_comes(task.random);
        self.generations.add(spot);
    }

    /// The record of a task that is not cold lies at another place now.
    pub(super) fn lies_at(&mut self, key: u32, spot: Spot) {
        let entry = &mut self.entries[key as usize];
        let before = std::mem::replace(&mut entry.spot, spot);
        // A letter that is to be queued again is in no list.
        let is_remembered =
            entry.state.is_ended() && !entry.is(LETTER) && entry.state != State::Reviving;
        self.generations.remove(before);
        self.generations.add(spot);
        if self.is_agreed && is_remembered {
            self.remembered.remove(before);
            self.remembered.add(spot);
        }
    }

    /// A task ended. Ends of tasks whose submission is no longer in the log are of no interest.
    pub fn replay_ended(
        &mut self,
        random: u128,
        status: TaskStatus,
        attempts: u32,
        ended_unix_ms: u64,
        body: &[u8],
    ) {
        if !status.is_ended() {
            // No node writes that, and what nodes that may lie agree on is checked; it is no end.
            return;
        }
        let is_dead = status == TaskStatus::Dead;
        let key = match self.cold.find(random) {
            Some(slot) => self.unfreeze_ended(slot, is_dead),
            None => match self.key(random) {
                // The second half of a pair that was moved forward; or, from one that lies, another end, behind
                // which nothing of it is to be queued again.
                Some(key) if self.entries[key as usize].is(LETTER) => {
                    self.unfile_letter(key);
                    key
                }
                // In a table that led, and follows until another one has taken its place.
                Some(key) if !self.entries[key as usize].state.is_ended() => {
                    if let Some(print) = self.print_of(key).filter(|_| is_dead) {
                        self.entries[key as usize].rare().print = print;
                    }
                    key
                }
                _ => return,
            },
        };
        let ended_ms = self.node_ms(ended_unix_ms);
        let entry = &mut self.entries[key as usize];
        entry.state = State::of_end(status);
        entry.when_ms = ended_ms;
        entry.attempts = attempts;
        if is_dead {
            entry.rare().error = Some(String::from_utf8_lossy(body).into());
            entry.set(BARE);
            return self.file_letter(key);
        }
        if status == TaskStatus::Done {
            entry.body.set(body);
        }
        self.retain_in_order(key);
        self.retain_ended_within_limits();
    }

    fn unfreeze_ended(&mut self, slot: u32, is_dead: bool) -> u32 {
        self.cold.forget(slot);
        let cold = self.cold.slab.remove(slot);
        self.census.task_goes(cold.random());
        let since_unix_ms = cold.since_unix_ms();
        let key = self.entry_of_cold(cold.random(), cold.spot, cold.type_index, cold.priority());
        let entry = &mut self.entries[key as usize];
        entry.submitted_ms = since_unix_ms;
        if self.is_agreed && is_dead {
            entry.rare().print = cold.print;
        }
        key
    }

    /// Fencing tokens below a number were reserved.
    pub fn replay_tokens(&mut self, below: u64) {
        if !planted::has(Bug::ForgottenTokens) {
            self.next_token = self.next_token.max(below);
        }
    }

    /// A dead letter was queued again.
    pub fn replay_requeued(&mut self, random: u128) {
        let Some(key) = self.letter(random) else { return };
        self.unfile_letter(key);
        let entry = &mut self.entries[key as usize];
        entry.attempts = 0;
        let since_unix_ms = entry.submitted_ms;
        let slot = self.cold_from(key, Kind::Waiting);
        self.cold.slab[slot].set_since_unix_ms(since_unix_ms);
    }

    /// A dead letter was purged.
    pub fn replay_forgotten(&mut self, random: u128) {
        if let Some(key) = self.letter(random) {
            self.unfile_letter(key);
            self.release_place(key);
            self.vacate(key);
        }
    }

    fn letter(&self, random: u128) -> Option<u32> {
        self.key(random).filter(|key| self.entries[*key as usize].is(LETTER))
    }

    /// A key was moved forward.
    pub fn replay_key(
        &mut self,
        place: Place,
        key: Key<'_>,
        random: u128,
        expires_unix_ms: u64,
        now_ms: u64,
    ) {
        if self.is_agreed {
            return self.replay_kept_key(place, key, random, expires_unix_ms);
        }
        let expires_ms = self.node_ms(expires_unix_ms);
        self.replay_key_entry(place, key, random, expires_ms, now_ms);
    }

    fn replay_key_entry(
        &mut self,
        place: Place,
        key: Key<'_>,
        random: u128,
        expires_ms: u64,
        now_ms: u64,
    ) {
        // Times before the node's start are negative.
        if expires_ms as i64 <= now_ms as i64 {
            return;
        }
        let spot = Spot::from(place);
        self.generations.add(spot);
        let (_, replaced) = self.keys.insert(KeyEntry::new(key, random, expires_ms, spot));
        if let Some(replaced) = replaced {
            self.generations.remove(replaced.spot());
        }
    }

    /// The log has no more: unended tasks are queued or delayed again, in the order in which they
    /// were submitted, and ended ones are kept within the limits.
    pub fn replay_over(&mut self, now_ms: u64) {
        let slab = &self.cold.slab;
        let mut slots: Vec<u32> = (0..slab.slots()).filter(|slot| slab[*slot].is_task()).collect();
        slots.sort_by_key(|slot| (slab[*slot].since_unix_ms(), slab[*slot].spot.place()));
        self.counters.recovered = slots.len() as u64;
        for slot in slots {
            let due_ms = self.node_ms(self.cold.slab[slot].since_unix_ms());
            let is_delayed = self.cold.slab[slot].kind() == Kind::Delayed;
            match is_delayed && due_ms as i64 > now_ms as i64 {
                true => self.delay_cold(slot, due_ms),
                false => self.enqueue_cold(slot),
            }
        }
        self.sort_letters();
        self.keys.sort();
        self.retain_within_limits();
    }

    /// Brings the dead letters into the order in which they died: those that were moved forward
    /// came last.
    fn sort_letters(&mut self) {
        let mut keys = Vec::with_capacity(self.counters.dead_letters as usize);
        while let Some(key) = self.letters.first() {
            self.letters.remove(&mut self.entries, key);
            keys.push(key);
        }
        keys.sort_by_key(|key| self.entries[*key as usize].when_ms as i64);
        for key in keys {
            self.letters.push(&mut self.entries, key);
        }
    }
}

/// Attempts, as a cold task counts them: the most that it can stands for more.
fn brief(attempts: u32) -> u8 {
    attempts.min(u8::MAX.into()) as u8
}
