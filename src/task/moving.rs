//! What of the log is still needed, so that its oldest segments can be freed.
//!
//! The log's keeper walks over everything that is needed and lies in old segments
//! ([`TaskTable::live_before`]), appends it again, and says where it came to lie
//! ([`TaskTable::moved`]). Tasks go on meanwhile and may slip through a walk: the segments may be
//! freed when [`TaskTable::is_clear_before`] says so, otherwise another walk finds the rest.

use super::{
    entry::{BARE, Entry, LETTER, State},
    keys::Key,
    place::{Place, Spot},
    replay::Recorded,
    table::TaskTable,
};
use crate::wire::api::TaskStatus;

/// Slots that one part of a walk looks at.
const LOOK_TOGETHER: u32 = 16 * 1024;

/// Something that is needed of the log, as [`TaskTable::moved`] knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// A task, by its random bits.
    Task(u128),
    /// A key.
    Key {
        /// Its slot.
        slot: u32,
        /// The task that it stands for.
        random: u128,
    },
}

/// Something that is needed of the log, as it is to be appended again.
#[derive(Clone, Copy, Debug)]
pub enum Live<'a> {
    /// A task that is in memory: its submission, and its end when it has ended; without its payload
    /// then, unless it is a dead letter, which may run again.
    Task {
        /// Where the submission is, should it be read all the same.
        place: Place,
        /// The submission.
        task: Recorded<'a>,
        /// The end.
        end: Option<End<'a>>,
    },
    /// A task whose submission must be read from the log first, with its attempts in place of
    /// those of the record. When it has been read, ask [`TaskTable::live`] again before it is
    /// appended: the task may have ended meanwhile.
    Record {
        /// Where the submission is.
        place: Place,
        /// Attempts begun.
        attempts: u32,
        /// The end when it is a dead letter.
        end: Option<End<'a>>,
    },
    /// A key.
    Key {
        /// The key.
        key: Key<'a>,
        /// The task that it stands for.
        random: u128,
        /// When it expires.
        expires_unix_ms: u64,
    },
}

/// The end of a task that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// How it ended.
    pub status: TaskStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// When it ended.
    pub ended_unix_ms: u64,
    /// Its result, or what the last attempt of a dead one said.
    pub body: &'a [u8],
}

/// The parts of a walk, in their order: cold tasks come first, since they become hot while the
/// walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Cold,
    Hot,
    Keys,
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    part: Part,
    slot: u32,
}

impl Default for Cursor {
    /// The beginning.
    fn default() -> Self {
        Self { part: Part::Cold, slot: 0 }
    }
}

impl TaskTable {
    /// Shows what is needed of segments below a generation, about `max` things at a time; where
    /// to go on, `None` at the end. Things whose end waits for the log are left out.
    pub fn live_before(
        &self,
        generation: u64,
        cursor: Cursor,
        max: usize,
        mut visit: impl FnMut(Moving, Live<'_>),
    ) -> Option<Cursor> {
        let Cursor { part, slot } = cursor;
        let slots = match part {
            Part::Cold => self.cold.slab.slots(),
            Part::Hot => self.entries.len() as u32,
            Part::Keys => self.keys.slots(),
        };
        let is_old = |spot: Spot| spot.place().is_some_and(|place| place.generation < generation);
        let end = slots.min(slot.saturating_add(LOOK_TOGETHER));
        let mut seen = 0;
        for slot in slot..end {
            let found = match part {
                Part::Cold if is_old(self.cold.slab[slot].spot) => self.live_cold(slot),
                Part::Hot if is_old(self.entries[slot as usize].spot) => self.live_hot(slot),
                Part::Keys if is_old(self.keys.get(slot).spot()) => self.live_key(slot),
                _ => continue,
            };
            let Some((moving, live)) = found else { continue };
            visit(moving, live);
            seen += 1;
            if seen == max {
                return Some(Cursor { part, slot: slot + 1 });
            }
        }
        if end < slots {
            return Some(Cursor { part, slot: end });
        }
        match part {
            Part::Cold => Some(Cursor { part: Part::Hot, slot: 0 }),
            Part::Hot => Some(Cursor { part: Part::Keys, slot: 0 }),
            Part::Keys => None,
        }
    }

    /// One thing as it is now; `None` when it is no longer needed.
    pub fn live(&self, moving: Moving) -> Option<Live<'_>> {
        let found = match moving {
            Moving::Task(random) => match self.cold.find(random) {
                Some(slot) => self.live_cold(slot),
                None => self.live_hot(self.key(random)?),
            },
            Moving::Key { slot, .. } if slot >= self.keys.slots() => None,
            Moving::Key { slot, .. } => self.live_key(slot),
        };
        found.filter(|(is, _)| *is == moving).map(|(_, live)| live)
    }

    /// Something that was appended again is committed there.
    pub fn moved(&mut self, moving: Moving, place: Place) {
        let spot = Spot::from(place);
        let before = match moving {
            Moving::Key { slot, random } => {
                let before = self.keys.set_spot(slot, random, spot);
                if self.is_agreed && before.is_some() {
                    self.wrote_key(slot);
                }
                before
            }
            Moving::Task(random) => match (self.cold.find(random), self.key(random)) {
                (Some(slot), _) => Some(std::mem::replace(&mut self.cold.slab[slot].spot, spot)),
                // What was forgotten meanwhile is no longer needed.
                (None, Some(key)) if self.entries[key as usize].place().is_some() => {
                    return self.lies_at(key, spot);
                }
                _ => None,
            },
        };
        if let Some(before) = before {
            self.generations.remove(before);
            self.generations.add(spot);
        }
    }

    /// Whether nothing is needed of the segments below a generation.
    pub fn is_clear_before(&self, generation: u64) -> bool {
        self.generations.is_clear_before(generation)
    }

    fn live_cold(&self, slot: u32) -> Option<(Moving, Live<'_>)> {
        let cold = &self.cold.slab[slot];
        let place = cold.spot.place().filter(|_| cold.is_task())?;
        let live = Live::Record { place, attempts: cold.attempts.into(), end: None };
        Some((Moving::Task(cold.random()), live))
    }

    fn live_hot(&self, key: u32) -> Option<(Moving, Live<'_>)> {
        let entry = &self.entries[key as usize];
        let end = entry.state.is_ended().then(|| {
            let (_, status, body) = self.end_of(key);
            let ended_unix_ms = self.unix_ms(entry.when_ms);
            End { status, attempts: entry.attempts, ended_unix_ms, body }
        });
        let is_needed = match entry.state {
            State::Queued | State::Delayed | State::Running | State::Done | State::Cancelled => {
                true
            }
            // One that is purged is gone.
            State::Dead => entry.is(LETTER),
            _ => false,
        };
        let place = entry.place().filter(|_| is_needed)?;
        let live = match entry.is(BARE) {
            true => Live::Record { place, attempts: entry.attempts, end },
            false => Live::Task { place, task: self.recorded(entry), end },
        };
        Some((Moving::Task(entry.random), live))
    }

    /// An entry as its submission would be written now.
    fn recorded<'a>(&self, entry: &'a Entry) -> Recorded<'a> {
        Recorded {
            random: entry.random,
            type_index: entry.type_index,
            priority: entry.priority(),
            submitted_unix_ms: entry.submitted_ms,
            due_unix_ms: match entry.state {
                State::Delayed => self.unix_ms(entry.when_ms),
                _ => 0,
            },
            timeout_ms: entry.timeout_ms.into(),
            max_attempts: entry.max_attempts,
            attempts: entry.attempts,
            // Keys live by themselves.
            key: None,
            payload: if entry.state == State::Done { &[] } else { entry.body.as_bytes() },
        }
    }

    pub(super) fn live_key(&self, slot: u32) -> Option<(Moving, Live<'_>)> {
        let entry = self.keys.get(slot);
        entry.spot().place().filter(|_| entry.is_there())?;
        let (key, random) = (entry.key(), entry.random());
        let expires_unix_ms = self.unix_ms(entry.expires_ms());
        Some((Moving::Key { slot, random }, Live::Key { key, random, expires_unix_ms }))
    }
}
