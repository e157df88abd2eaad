//! Questions that wait for their answer: who asked, and until when.
//!
//! A question is answered once: by the answer, by a refusal or by its timeout. What comes after
//! that finds nobody, because its correlation names a generation that is past.

use super::wheel::TimerKey;

/// A question's place, as it travels in the correlation of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    index: u32,
    generation: u32,
}

impl CallKey {
    /// The key as one number.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that [`CallKey::to_bits`] gave.
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

struct Place<W> {
    generation: u32,
    waiting: Option<(W, Option<TimerKey>)>,
}

/// All questions of one core that wait.
pub struct Calls<W> {
    places: Vec<Place<W>>,
    free: Vec<u32>,
    limit: usize,
}

impl<W> Calls<W> {
    /// Room for `limit` questions at the same time.
    pub fn new(limit: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), limit }
    }

    /// Questions that wait.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether no more can wait.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Notes a question; the caller has looked at [`Calls::is_full`].
    pub fn insert(&mut self, waiter: W) -> CallKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, waiting: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.waiting = Some((waiter, None));
        CallKey { index, generation: place.generation }
    }

    /// Notes the timer that ends the question.
    pub fn set_timer(&mut self, key: CallKey, timer: TimerKey) {
        if let Some(Place { waiting: Some((_, slot)), .. }) = self.place(key) {
            *slot = Some(timer);
        }
    }

    /// The one who waits, to note part of an answer.
    pub fn get_mut(&mut self, key: CallKey) -> Option<&mut W> {
        self.place(key)?.waiting.as_mut().map(|(waiter, _)| waiter)
    }

    /// Ends a question: who waited, and the timer to cancel. `None` when it has ended before.
    pub fn remove(&mut self, key: CallKey) -> Option<(W, Option<TimerKey>)> {
        let place = self.place(key)?;
        let ended = place.waiting.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(ended)
    }

    fn place(&mut self, key: CallKey) -> Option<&mut Place<W>> {
        self.places.get_mut(key.index as usize).filter(|place| place.generation == key.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_once() {
        let mut calls = Calls::new(2);
        let first = calls.insert("first");
        assert_eq!(CallKey::from_bits(first.to_bits()), first);
        assert_eq!(calls.remove(first), Some(("first", None)));
        assert_eq!(calls.remove(first), None);
        let second = calls.insert("second");
        assert_ne!(first, second, "the place is used again, the key is not");
        assert_eq!(calls.get_mut(first), None);
        calls.insert("third");
        assert!(calls.is_full());
    }
}
