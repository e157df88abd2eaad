//! What any node may ask for where nodes may lie: all replicas decide alike what becomes of it, when its
//! record is committed.
//!
//! A record says which task is asked for, under a name that is no other's. It becomes one unless its key
//! stands for a task. Nothing else counts: no clock of a node, no room. Who asks has looked for room
//! before, of its own share and of what is for all (`census.rs`); what is committed beyond the limits
//! waits in the log as any cold task.
//!
//! Invariants worth naming
//! - What becomes of a record follows from the records before it, and from those alone that are left when
//!   the log was compacted: a key that lives is written again before what it follows from is forgotten.
//! - A key stands for a task until a record says that all replicas forget what expires up to a time.
//! - Whoever leads writes a key again that was asked for again. So a replica whose log begins between the
//!   two, to which the second one looks new, is told that it never was a task.

use super::{
    census::{Among, Quota},
    cold::{Cold, Kind},
    entry::{BARE, Entry, State, Watcher},
    keys::{EXPIRY_STEP_MS, Key, KeyEntry},
    limits::asked_for,
    moving::{Live, Moving},
    place::{Place, Spot},
    replay::Recorded,
    submit::{Submission, check_key},
    table::TaskTable,
};
use crate::{
    planted::{self, Bug},
    registry::TypeIndex,
    wire::{api::Error, names::Crowd},
};
use std::collections::BTreeSet;

/// When to come back when there are too many keys, milliseconds.
const KEYS_RETRY_MS: u64 = 1_000;

/// What was submitted longer before others that were asked for counts as submitted then, milliseconds.
const BEHIND_MS_MAX: u64 = 60 * 60 * 1000;

/// How far the clocks of two correct nodes may be from each other, milliseconds.
const CLOCKS_APART_MS: u64 = 10 * 60 * 1000;

/// What becomes of a submission that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is a task.
    New,
    /// It is the task that was submitted with its key before, by its random bits.
    Existing(u128),
    /// Its key stands for another task.
    Conflict,
}

/// What is taken up of an agreed table, and of that what this node has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    tasks: usize,
    own_tasks: usize,
    keys: usize,
    own_keys: usize,
}

/// What is known of the keys of an agreed table beside what they stand for.
#[derive(Default)]
pub(super) struct AgreedKeys {
    /// The time at which each expires, Unix time in steps, and its slot.
    expiries: BTreeSet<(u64, u32)>,
    /// Slots of keys that were asked for again and not written again since.
    again: BTreeSet<u32>,
    /// Those of them that this replica has appended.
    writing: BTreeSet<u32>,
    /// When what was asked for last was submitted, Unix time in milliseconds.
    latest_unix_ms: u64,
}

impl AgreedKeys {
    fn is_written(&mut self, slot: u32) {
        self.again.remove(&slot);
        self.writing.remove(&slot);
    }
}

impl TaskTable {
    /// Whether nodes that may lie agree on what it holds.
    #[inline]
    pub fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Whether a submission may be asked for, as far as this replica knows: the task that its key stands
    /// for already, if there is one and this replica knows its keys well enough to say. One with reserved
    /// room uses that up. So much is `taken`; `under_way` submissions were asked for and are not settled.
    ///
    /// # Errors
    /// As [`TaskTable::submit`].
    pub fn may_ask(
        &mut self,
        now_ms: u64,
        submission: &Submission<'_>,
        taken: Taken,
        under_way: usize,
        knows_keys: bool,
    ) -> Result<Option<u128>, Error> {
        if submission.reserved {
            self.release(1);
        }
        self.check_payload(submission.payload)?;
        if let Some(key) = submission.key {
            check_key(key)?;
            match self.standing(key).map(|(_, settled)| settled) {
                // The log will say.
                Some(_) if !knows_keys => {}
                Some(Settled::Existing(random)) => {
                    self.counters.repeated += 1;
                    return Ok(Some(random));
                }
                Some(_) => {
                    return Err(Error::Conflict(
                        "key: another task was submitted with it before".into(),
                    ));
                }
                None if self.room_for_keys(taken, under_way) == 0 => {
                    self.counters.refused += 1;
                    return Err(Error::Backpressure(KEYS_RETRY_MS));
                }
                None => {}
            }
        }
        if !submission.reserved && self.room_to_ask(taken, under_way) == 0 {
            self.counters.refused += 1;
            return Err(self.backpressure(now_ms));
        }
        Ok(None)
    }

    /// As [`TaskTable::reserve`], for submissions that are asked for.
    ///
    /// # Errors
    /// As that.
    pub fn reserve_to_ask(
        &mut self,
        now_ms: u64,
        count: usize,
        taken: Taken,
        under_way: usize,
    ) -> Result<(), Error> {
        self.check_count(count)?;
        let most = self.census.among().map_or(usize::MAX, |among| self.task_quota(among).door);
        if count > most {
            return Err(Error::TooLarge(format!(
                "{count} tasks at once: one node may have {most} in a partition's queue, of \
                 tasks.queue_primary + tasks.queue_overflow for all"
            )));
        }
        if self.room_to_ask(taken, under_way) < count {
            self.counters.refused += count as u64;
            return Err(self.backpressure(now_ms));
        }
        self.take_room(count);
        Ok(())
    }

    /// What is taken up. A table that follows knows no more than which tasks have not ended; in one that leads
    /// those that run take up no room.
    pub fn taken(&self) -> Taken {
        let waiting = (self.counters.queued + self.counters.delayed) as usize;
        Taken { tasks: waiting.max(self.cold.len()), ..self.taken_as_asked() }
    }

    /// The same by who asked for what has not ended: also where a table led, and has followed since.
    pub fn taken_as_asked(&self) -> Taken {
        let (own_tasks, own_keys) = self.census.own();
        Taken { tasks: self.census.all_tasks(), own_tasks, keys: self.keys.len(), own_keys }
    }

    /// Tasks for which there is room.
    fn room_to_ask(&self, taken: Taken, under_way: usize) -> usize {
        let used = self.reserved() + self.accepting + taken.tasks + under_way;
        let free = (self.limits.queue_primary + self.limits.queue_overflow).saturating_sub(used);
        let Some(among) = self.census.among() else { return free };
        let used = taken.own_tasks + self.reserved() + under_way;
        self.task_quota(among).room(used, free)
    }

    /// Keys for which there is room, when each of the submissions under way has one.
    fn room_for_keys(&self, taken: Taken, under_way: usize) -> usize {
        let free = self.limits.keys_max.saturating_sub(taken.keys);
        let Some(among) = self.census.among() else { return free };
        self.key_quota(among).room(taken.own_keys + under_way, free)
    }

    /// Whether a submission with that key would be refused as another task's.
    pub fn conflicts_with_agreed(&self, key: Key<'_>) -> bool {
        matches!(self.standing(key), Some((_, Settled::Conflict)))
    }

    /// What becomes of a submission with a key, if it does not become a task; and the key's slot.
    fn standing(&self, key: Key<'_>) -> Option<(u32, Settled)> {
        let slot = self.keys.lookup(key.bytes)?;
        let known = self.keys.get(slot);
        let settled = match known.key().body_hash == key.body_hash {
            true => Settled::Existing(known.random()),
            false => Settled::Conflict,
        };
        Some((slot, settled))
    }

    /// A submission that was asked for is committed at a place. In a table that is alive it waits for its
    /// time or an agent; `watcher` is told of its end there.
    pub fn settle(
        &mut self,
        place: Place,
        task: &Recorded<'_>,
        now_ms: u64,
        is_alive: bool,
        watcher: Option<Watcher>,
    ) -> Settled {
        if let Some(key) = task.key {
            if let Some((slot, settled)) = self.standing(key) {
                self.counters.repeated += 1;
                self.agreed_keys.again.insert(slot);
                return settled;
            }
            let expires = task.submitted_unix_ms.saturating_add(self.limits.key_ttl_ms);
            self.keep_key(place, key, task.random, expires);
        }
        self.hear_submitted(task.submitted_unix_ms);
        // A name is there before only when more nodes lie than may.
        if is_alive && !self.is_known(task.random) {
            self.begin_settled(place, task, now_ms, watcher);
        } else {
            self.replay_submitted(place, &Recorded { key: None, ..*task }, now_ms);
        }
        Settled::New
    }

    fn begin_settled(
        &mut self,
        place: Place,
        task: &Recorded<'_>,
        now_ms: u64,
        watcher: Option<Watcher>,
    ) {
        let key = self.begin(
            &Submission {
                random: task.random,
                type_index: task.type_index,
                priority: task.priority,
                payload: task.payload,
                long: None,
                timeout_ms: task.timeout_ms,
                max_attempts: task.max_attempts,
                delay_ms: 0,
                key: None,
                transient: false,
                reserved: false,
                watcher,
            },
            now_ms,
        );
        let due_ms = self.node_ms(task.due_unix_ms);
        let since_unix_ms = self.since_unix_ms(task.submitted_unix_ms);
        let entry = &mut self.entries[key as usize];
        entry.submitted_ms = since_unix_ms;
        // Times before the node's start are negative.
        if task.due_unix_ms > 0 && due_ms as i64 > now_ms as i64 {
            entry.when_ms = due_ms;
        }
        self.accepting += 1;
        self.accepted(key, now_ms, Some(place));
    }

    /// Something was asked for that says when it was submitted: one that says that it will be does not move
    /// the others far. What a primary says of that in a copy moves nobody; the task was asked for before.
    fn hear_submitted(&mut self, submitted_unix_ms: u64) {
        let latest = &mut self.agreed_keys.latest_unix_ms;
        let most = match *latest {
            0 => submitted_unix_ms,
            known => known.saturating_add(BEHIND_MS_MAX),
        };
        *latest = submitted_unix_ms.min(most).max(*latest);
    }

    /// Since when a task waits that says when it was submitted: nobody goes before all others by saying
    /// that it was long ago.
    pub(super) fn since_unix_ms(&self, submitted_unix_ms: u64) -> u64 {
        submitted_unix_ms.max(self.agreed_keys.latest_unix_ms.saturating_sub(BEHIND_MS_MAX))
    }

    /// A key stands for a task until a time, whatever it stood for.
    pub(super) fn keep_key(
        &mut self,
        place: Place,
        key: Key<'_>,
        random: u128,
        expires_unix_ms: u64,
    ) {
        // In steps of Unix time, so that all nodes have the same.
        let step = expires_unix_ms.div_ceil(EXPIRY_STEP_MS);
        let expires_ms = self.node_ms(step.saturating_mul(EXPIRY_STEP_MS));
        let spot = Spot::from(place);
        self.generations.add(spot);
        if let Some(slot) = self.keys.lookup(key.bytes) {
            let expired_unix_ms = self.unix_ms(self.keys.get(slot).expires_ms());
            let before = expired_unix_ms.div_ceil(EXPIRY_STEP_MS);
            self.agreed_keys.expiries.remove(&(before, slot));
            self.agreed_keys.is_written(slot);
        }
        let (slot, replaced) = self.keys.insert(KeyEntry::exact(key, random, expires_ms, spot));
        self.census.key_comes(random);
        if let Some(replaced) = replaced {
            self.census.key_goes(replaced.random());
            self.generations.remove(replaced.spot());
        }
        self.agreed_keys.expiries.insert((step, slot));
    }

    /// A key that lives was written again. What was asked for with it between there and where the log
    /// begins never was a task.
    pub(super) fn replay_kept_key(
        &mut self,
        place: Place,
        key: Key<'_>,
        random: u128,
        expires_unix_ms: u64,
    ) {
        let Some(slot) = self.keys.lookup(key.bytes) else {
            return self.keep_key(place, key, random, expires_unix_ms);
        };
        let known = self.keys.get(slot).random();
        if known != random {
            self.forget_cold(known);
            return self.keep_key(place, key, random, expires_unix_ms);
        }
        self.agreed_keys.is_written(slot);
        let spot = Spot::from(place);
        if let Some(before) = self.keys.set_spot(slot, random, spot) {
            self.generations.remove(before);
            self.generations.add(spot);
        }
    }

    /// Whether a task has not ended, or is a dead letter.
    pub fn lives(&self, random: u128) -> bool {
        self.cold.find(random).is_some()
            || self.key(random).is_some_and(|key| self.entries[key as usize].lives())
    }

    /// Whether a task has not ended, or is a dead letter, and is as its copy says: what its contents are, how
    /// urgent it is, when it may run. Attempts that were begun, and pauses after those, are known to whoever
    /// leads.
    pub fn lives_as(
        &self,
        copy: &Recorded<'_>,
        now_ms: u64,
        is_type: impl Fn(TypeIndex) -> bool,
    ) -> bool {
        let known = match self.cold.find(copy.random) {
            Some(slot) => {
                let cold = &self.cold.slab[slot];
                let due_ms = self.delays.due_ms_of_cold(cold.place_of_delay(), slot);
                let due = due_ms.map_or_else(|| cold.since_unix_ms(), |ms| self.unix_ms(ms));
                let due = if cold.kind() == Kind::Delayed { due } else { 0 };
                Some((cold.type_index, cold.priority(), cold.print, due))
            }
            None => self.key(copy.random).and_then(|key| {
                let entry = &self.entries[key as usize];
                let is_delayed = entry.state == State::Delayed;
                let due = if is_delayed { self.unix_ms(entry.when_ms) } else { 0 };
                let print = self.print_of(key).filter(|_| entry.lives())?;
                Some((entry.type_index, entry.priority(), print, due))
            }),
        };
        known.is_some_and(|(type_index, priority, print, due)| {
            is_type(type_index)
                && priority == copy.priority
                && (print == self.print(copy) || planted::has(Bug::UncheckedContents))
                && self.may_be_due(due, copy, now_ms)
        })
    }

    /// Whether a copy may say when a task is due that is due at a time, as is known here: the same, or that it
    /// has come, or a pause after an attempt.
    fn may_be_due(&self, known_unix_ms: u64, copy: &Recorded<'_>, now_ms: u64) -> bool {
        let (due, now) = (copy.due_unix_ms, self.unix_ms(now_ms));
        let has_come = |due: u64| due <= now.saturating_add(CLOCKS_APART_MS);
        let pause_ms = self.limits.retry.max_ms;
        let is_pause = copy.attempts > 0 && has_come(due.saturating_sub(pause_ms));
        due == known_unix_ms || has_come(known_unix_ms) && (has_come(due) || is_pause)
    }

    /// What tells the contents of a task from others, for this table alone: who does not know what it is made
    /// with finds no others that have the same. Who asked for no limit has this node's, and is as one who asked
    /// for that: releases before there were prints write it out in copies of what they have in memory.
    pub(super) fn print(&self, task: &Recorded<'_>) -> u32 {
        self.print_of_contents(task.payload, asked_for(task.timeout_ms), task.max_attempts)
    }

    fn print_of_contents(&self, payload: &[u8], timeout_ms: u32, max_attempts: u32) -> u32 {
        let limits = (self.limits.timeout_of(timeout_ms), self.limits.attempts_of(max_attempts));
        match self.is_agreed {
            true => self.printer.print(payload, limits),
            false => 0,
        }
    }

    /// The same of a task that is in memory, where nodes agree on the table; `None` when its contents have
    /// given way to a result.
    pub(super) fn print_of(&self, key: u32) -> Option<u32> {
        let entry = &self.entries[key as usize];
        if !self.is_agreed {
            return None;
        }
        if entry.is(BARE) {
            return entry.rare.as_ref().map(|rare| rare.print);
        }
        match entry.state {
            State::Done | State::Cancelled => None,
            // That end may be lost with this node's reign, and the task goes on.
            State::EndingDone | State::EndingCancelled => Some(entry.link.first()),
            _ => {
                let Entry { body, timeout_ms, max_attempts, .. } = entry;
                Some(self.print_of_contents(body.as_bytes(), *timeout_ms, *max_attempts))
            }
        }
    }

    /// The place of who asked for a task among the nodes, and how many there are.
    pub fn asker_of(&self, random: u128) -> Option<(usize, usize)> {
        let nodes = self.census.among()?.nodes;
        Some((self.census.asker(random)?, nodes.into()))
    }

    /// Whether a key stands for a task, until that time and no longer.
    pub fn stands_for(&self, key: Key<'_>, random: u128, expires_unix_ms: u64) -> bool {
        let step = |unix_ms: u64| unix_ms.div_ceil(EXPIRY_STEP_MS);
        self.keys.lookup(key.bytes).is_some_and(|slot| {
            let known = self.keys.get(slot);
            known.random() == random
                && known.key().body_hash == key.body_hash
                && step(self.unix_ms(known.expires_ms())) == step(expires_unix_ms)
        })
    }

    /// A key that was asked for again is to be written again, and no more is known of others.
    pub fn next_asked_again(&mut self) -> Option<(Moving, Live<'_>)> {
        let AgreedKeys { again, writing, .. } = &mut self.agreed_keys;
        let slot = *again.difference(writing).next()?;
        writing.insert(slot);
        self.live_key(slot)
    }

    /// A key that was appended again is committed: what was asked for before that is told by it.
    pub(super) fn wrote_key(&mut self, slot: u32) {
        self.agreed_keys.is_written(slot);
    }

    /// Whether something that lives lies in a segment below a generation: a task that has not ended, a
    /// dead letter, or a key.
    pub fn lives_before(&self, generation: u64) -> bool {
        self.generations.has_more_than(&self.remembered, generation)
    }

    /// Nodes that take up much of it.
    pub fn crowd(&self) -> Crowd {
        let Some(among) = self.census.among() else { return Crowd::default() };
        self.census.crowd(self.task_quota(among), self.key_quota(among))
    }

    fn task_quota(&self, among: Among) -> Quota {
        Quota::of(self.limits.queue_primary + self.limits.queue_overflow, among.nodes)
    }

    fn key_quota(&self, among: Among) -> Quota {
        Quota::of(self.limits.keys_max, among.nodes)
    }

    fn forget_cold(&mut self, random: u128) {
        let Some(slot) = self.cold.find(random) else { return };
        self.cold.forget(slot);
        self.census.task_goes(random);
        let Cold { spot, .. } = self.cold.slab.remove(slot);
        self.generations.remove(spot);
    }

    /// What lies at another place now is as the record there says; since when it waits is known better here.
    pub(super) fn refresh_cold(&mut self, slot: u32, task: &Recorded<'_>) {
        let print = self.print(task);
        let (kind, mut since) = Kind::of_recorded(task);
        if kind == Kind::Waiting {
            since = self.since_unix_ms(since);
        }
        let cold = &mut self.cold.slab[slot];
        if kind == Kind::Waiting && cold.kind() == kind {
            since = cold.since_unix_ms();
        }
        let attempts = cold.attempts;
        *cold = Cold::new(kind, task.random, cold.spot, task.type_index, task.priority);
        (cold.attempts, cold.print) = (attempts, print);
        cold.set_since_unix_ms(since);
    }

    /// Since when a cold task of a table that follows waits, Unix time in milliseconds.
    #[cfg(test)]
    pub(super) fn since_of_cold(&self, random: u128) -> u64 {
        self.cold.slab[self.cold.find(random).expect("it is cold")].since_unix_ms()
    }

    /// Times at which keys expire.
    #[cfg(test)]
    pub(super) fn agreed_expiries(&self) -> usize {
        self.agreed_keys.expiries.len()
    }

    /// When the first key expires, Unix time in milliseconds.
    #[inline]
    pub fn first_expiry_unix_ms(&self) -> Option<u64> {
        let (step, _) = self.agreed_keys.expiries.first()?;
        Some(step.saturating_mul(EXPIRY_STEP_MS))
    }

    /// All replicas forget the keys that expire up to a time; those that were asked for again not before
    /// they are written again.
    pub fn forget_expired(&mut self, upto_unix_ms: u64) {
        let mut kept = Vec::new();
        while let Some((step, slot)) = self.agreed_keys.expiries.first().copied()
            && step.saturating_mul(EXPIRY_STEP_MS) <= upto_unix_ms
        {
            self.agreed_keys.expiries.pop_first();
            let AgreedKeys { again, writing, .. } = &self.agreed_keys;
            if again.contains(&slot) || writing.contains(&slot) {
                kept.push((step, slot));
                continue;
            }
            let removed = self.keys.remove(slot);
            self.census.key_goes(removed.random());
            self.generations.remove(removed.spot());
        }
        self.agreed_keys.expiries.extend(kept);
    }
}
