//! What waits until the log has committed a record.

use super::place::Position;
use std::collections::VecDeque;

/// What is to be done once the log has committed the record that stands for it.
#[derive(Debug)]
pub struct Pending<E> {
    events: VecDeque<(Position, E)>,
}

impl<E> Default for Pending<E> {
    fn default() -> Self {
        Self { events: VecDeque::new() }
    }
}

impl<E> Pending<E> {
    /// Adds what waits for a record; records come in the order of their positions.
    #[inline]
    pub fn push(&mut self, position: Position, event: E) {
        debug_assert!(self.events.back().is_none_or(|(last, _)| *last <= position));
        self.events.push_back((position, event));
    }

    /// All events that wait.
    pub fn into_events(self) -> impl Iterator<Item = (Position, E)> {
        self.events.into_iter()
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The next event whose record is committed.
    #[inline]
    pub fn pop(&mut self, committed: Position) -> Option<E> {
        match self.events.front() {
            Some((position, _)) if *position <= committed => {
                self.events.pop_front().map(|(_, event)| event)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_for_their_record_and_keep_their_order() {
        let mut pending = Pending::default();
        for position in [1, 2, 5] {
            pending.push(Position(position), position);
        }
        assert_eq!(pending.pop(Position(0)), None);
        assert_eq!(pending.pop(Position(2)), Some(1));
        assert_eq!(pending.pop(Position(2)), Some(2));
        assert_eq!(pending.pop(Position(4)), None);
        assert_eq!(pending.pop(Position(9)), Some(5));
    }
}
