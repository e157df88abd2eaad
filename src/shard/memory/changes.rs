//! Puts and deletes that wait until they are on the disk and in the index.

use super::{Asker, Memory, RETRY_MS};
use crate::wire::{api::Error, letter::Response};

/// Puts and deletes of one core that wait for their acknowledgement.
const CHANGES_MAX: usize = 16 << 10;

/// Changes that one request asked for.
pub(super) struct Changes {
    asker: Asker,
    is_delete: bool,
    remaining: usize,
    outcomes: Vec<Result<bool, Error>>,
}

impl Memory {
    /// Begins changes that one request asks for; an answer when none of them was begun.
    pub(super) fn begin_changes(
        &mut self,
        asker: Asker,
        is_delete: bool,
        count: usize,
        mut begin: impl FnMut(&mut Self, usize, u64) -> Result<(), Error>,
    ) -> Option<Response> {
        let key = self.next_change;
        self.next_change = self.next_change.wrapping_add(1);
        let mut outcomes = Vec::with_capacity(count);
        for place in 0..count {
            let token = u64::from(key) << 32 | place as u64;
            outcomes.push(begin(self, place, token).map(|()| false));
        }
        let remaining = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let changes = Changes { asker, is_delete, remaining, outcomes };
        if remaining == 0 {
            return Some(changes.response());
        }
        self.changes.insert(key, changes);
        None
    }

    /// Notes what became of changes: the requests that are answered with it.
    pub(super) fn take_outcomes(&mut self) -> Vec<(Asker, Response)> {
        let mut answers = Vec::new();
        for kept in &mut self.kept {
            while let Some((token, outcome)) = kept.partition.take_outcome() {
                let key = (token >> 32) as u32;
                let Some(changes) = self.changes.get_mut(&key) else { continue };
                changes.outcomes[token as u32 as usize] = outcome;
                changes.remaining -= 1;
                if changes.remaining == 0
                    && let Some(changes) = self.changes.remove(&key)
                {
                    answers.push((changes.asker, changes.response()));
                }
            }
        }
        answers
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
