//! Dead letters: tasks whose last attempt failed, kept until somebody queues them again.

use super::{
    cold::{Cold, Kind},
    entry::{BARE, LETTER, State},
    table::TaskTable,
};
use crate::wire::api::{Error, Priority};

impl TaskTable {
    /// Adds a task that died.
    pub(super) fn file_letter(&mut self, key: u32) {
        self.entries[key as usize].set(LETTER);
        self.letters.push(&mut self.entries, key);
        self.counters.dead_letters += 1;
        self.census.task_goes(self.entries[key as usize].random);
    }

    pub(super) fn unfile_letter(&mut self, key: u32) {
        self.letters.remove(&mut self.entries, key);
        self.entries[key as usize].unset(LETTER);
        self.counters.dead_letters -= 1;
        self.census.task_comes(self.entries[key as usize].random);
    }

    /// Forgets the oldest dead letter.
    pub(super) fn purge_letter(&mut self) {
        let key = self.letters.first().expect("dead letters are counted");
        self.unfile_letter(key);
        self.counters.purged += 1;
        let entry = &self.entries[key as usize];
        if entry.place().is_some() {
            self.purged.push_back(entry.random);
        }
        self.release_place(key);
        self.vacate(key);
    }

    /// A dead letter that was purged since the last question; the log should hear of it.
    pub fn next_purged(&mut self) -> Option<u128> {
        self.purged.pop_front()
    }

    /// Takes a dead letter out, to be queued again when the log has that ([`TaskTable::requeued`]);
    /// its key. Until then it is dead to everybody, and its room is kept.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the task is no dead letter; `Backpressure`.
    pub fn requeue(&mut self, random: u128, now_ms: u64) -> Result<u32, Error> {
        let known = self.key(random);
        let Some(key) = known.filter(|key| self.entries[*key as usize].is(LETTER)) else {
            return Err(match self.is_known(random) {
                true => Error::Conflict("the task is no dead letter".into()),
                false => Error::NotFound("no such task".into()),
            });
        };
        // What is reserved has its room; whoever asks for this can ask again.
        if self.free_room() == 0 && !self.evict(now_ms, 1, Priority::Low) {
            return Err(self.backpressure(now_ms));
        }
        self.unfile_letter(key);
        self.entries[key as usize].state = State::Reviving;
        self.reviving.set(key);
        self.accepting += 1;
        Ok(key)
    }

    /// What was taken out to be queued again is a dead letter again: this table leads no more, and follows what
    /// the log has of that.
    pub fn take_back_requeues(&mut self) {
        for key in self.reviving.take() {
            if self.entries[key as usize].state == State::Reviving {
                self.accepting -= 1;
                self.entries[key as usize].state = State::Dead;
                self.file_letter(key);
            }
        }
    }

    /// The log has it that a dead letter is queued again: with no attempt counted.
    pub fn requeued(&mut self, key: u32, now_ms: u64) {
        self.accepting -= 1;
        self.reviving.unset(key);
        self.counters.requeued += 1;
        let entry = &mut self.entries[key as usize];
        assert_eq!(entry.state, State::Reviving, "it was taken out for that");
        entry.attempts = 0;
        if !entry.is(BARE) {
            self.begin_to_wait(key);
            return self.enqueue(key, now_ms);
        }
        let slot = self.cold_from(key, Kind::Waiting);
        self.enqueue_cold(slot);
    }

    /// Makes a cold task of an entry that is in no list, and gives the entry up.
    pub(super) fn cold_from(&mut self, key: u32, kind: Kind) -> u32 {
        let print = self.print_of(key);
        let entry = &self.entries[key as usize];
        let (random, spot) = (entry.random, entry.spot);
        let mut cold = Cold::new(kind, random, spot, entry.type_index, entry.priority());
        cold.attempts = entry.attempts as u8;
        cold.print = print.unwrap_or_default();
        self.vacate(key);
        self.census.task_comes(random);
        self.cold.insert(cold)
    }
}
