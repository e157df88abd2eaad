//! Puts and deletes that wait until they are on the disk and in the index.

use super::{Asker, Memory, RETRY_MS};
use crate::wire::{api::Error, letter::Response, memory::MemoryItem};
use std::time::{Duration, Instant};

/// Puts and deletes of one core that wait for their acknowledgement.
const CHANGES_MAX: usize = 16 << 10;

/// Bytes of items that one step records, and how long it does at most; the last one may go beyond.
const RECORDED_BYTES: usize = 32 << 10;
const RECORD_TIME: Duration = Duration::from_micros(15);
/// What an item costs beside what is in it, in bytes.
const RECORD_BYTES: usize = 512;

/// Changes that one request asked for.
pub(super) struct Changes {
    asker: Asker,
    is_delete: bool,
    remaining: usize,
    outcomes: Vec<Result<bool, Error>>,
}

/// A request for changes that are not all recorded yet.
pub(super) struct Arrival {
    /// Its key among the changes.
    key: u32,
    /// The place of its partition.
    partition: u16,
    /// Items that were recorded.
    recorded: usize,
    pub(super) what: Arriving,
}

pub(super) enum Arriving {
    Put(std::vec::IntoIter<MemoryItem>),
    /// A namespace and a key.
    Delete(String, String),
}

impl Memory {
    /// Takes in changes that one request asks for. They are recorded in steps, in the order in which they
    /// came.
    pub(super) fn begin_changes(&mut self, asker: Asker, partition: u16, what: Arriving) {
        let key = self.next_change;
        self.next_change = self.next_change.wrapping_add(1);
        let (is_delete, count) = match &what {
            Arriving::Put(items) => (false, items.len()),
            Arriving::Delete(..) => (true, 1),
        };
        let changes =
            Changes { asker, is_delete, remaining: count, outcomes: vec![Ok(false); count] };
        if count == 0 {
            return self.answers.push((asker, changes.response()));
        }
        self.changes.insert(key, changes);
        self.arrivals.push_back(Arrival { key, partition, recorded: 0, what });
    }

    /// Records some of what arrived; false when nothing did.
    pub(super) fn record_some(&mut self) -> bool {
        let Some(mut arrival) = self.arrivals.pop_front() else { return false };
        let (mut bytes, began) = (0, Instant::now());
        while bytes < RECORDED_BYTES && (bytes == 0 || began.elapsed() < RECORD_TIME) {
            let partition = &mut self.kept[usize::from(arrival.partition)].partition;
            let token = u64::from(arrival.key) << 32 | arrival.recorded as u64;
            let begun = match &mut arrival.what {
                Arriving::Put(items) => {
                    let Some(item) = items.next() else { return true };
                    let text = item.text.as_ref().map_or(0, String::len);
                    bytes +=
                        size_of_val(&item.vector[..]) + text + item.metadata.len() + RECORD_BYTES;
                    partition.put(&item, token)
                }
                Arriving::Delete(namespace, key) => partition.delete(namespace, key, token),
            };
            arrival.recorded += 1;
            if let Err(error) = begun {
                self.note_outcome(token, Err(error));
            }
            if matches!(arrival.what, Arriving::Delete(..)) {
                return true;
            }
        }
        if !matches!(&arrival.what, Arriving::Put(items) if items.len() == 0) {
            self.arrivals.push_front(arrival);
        }
        true
    }

    /// Notes what became of a change; the request is answered with the last one.
    fn note_outcome(&mut self, token: u64, outcome: Result<bool, Error>) {
        let key = (token >> 32) as u32;
        let Some(changes) = self.changes.get_mut(&key) else { return };
        changes.outcomes[token as u32 as usize] = outcome;
        changes.remaining -= 1;
        if changes.remaining == 0
            && let Some(changes) = self.changes.remove(&key)
        {
            self.answers.push((changes.asker, changes.response()));
        }
    }

    /// Notes what became of a partition's changes.
    pub(super) fn take_outcomes(&mut self, place: u16) {
        while let Some((token, outcome)) = self.kept[usize::from(place)].partition.take_outcome() {
            self.note_outcome(token, outcome);
        }
    }

    /// Whether further changes may be begun.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn check_changes(&self) -> Result<(), Error> {
        match self.changes.len() + self.early.len() < CHANGES_MAX {
            true => Ok(()),
            false => Err(Error::Backpressure(RETRY_MS)),
        }
    }
}

impl Changes {
    fn response(mut self) -> Response {
        if !self.is_delete {
            return Response::MemoryPut(self.outcomes);
        }
        match self.outcomes.pop() {
            Some(Ok(was_there)) => Response::MemoryDeleted(was_there),
            Some(Err(error)) => Response::Failed(error),
            None => unreachable!("a delete has one outcome"),
        }
    }
}
