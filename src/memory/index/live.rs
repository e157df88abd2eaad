//! Which rows live: a bit for each, a bit for each word of those bits that has any, and so on, so that a few among
//! many are found in as many looks as there are levels.

use super::{
    graph::{Index, Row},
    options::{LINKS_BASE, VECTORS_MAX},
    steps::{Budget, Scratch},
};

/// Each has a bit for each word of the one before.
const LEVELS: usize = 5;

const _: () = assert!(VECTORS_MAX as u64 <= 64_u64.pow(LEVELS as u32));

#[derive(Default)]
pub(super) struct Live {
    levels: [Vec<u64>; LEVELS],
    count: usize,
}

impl Live {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A row lives that did not.
    pub(super) fn enter(&mut self, row: Row) {
        debug_assert_ne!(self.next(row), Some(row));
        self.count += 1;
        let mut at = row as usize;
        for words in &mut self.levels {
            let word = at / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (at % 64);
            at = word;
        }
    }

    /// A row that lives does not any more.
    pub(super) fn leave(&mut self, row: Row) {
        debug_assert_eq!(self.next(row), Some(row));
        self.count -= 1;
        let mut at = row as usize;
        for words in &mut self.levels {
            let word = at / 64;
            words[word] &= !(1 << (at % 64));
            if words[word] != 0 {
                break;
            }
            at = word;
        }
    }

    /// The first that lives, from a row on.
    pub(super) fn next(&self, from: Row) -> Option<Row> {
        let mut at = from as usize;
        for (level, words) in self.levels.iter().enumerate() {
            let word = at / 64;
            let rest = words.get(word)? >> (at % 64);
            if rest != 0 {
                at += rest.trailing_zeros() as usize;
                for words in self.levels[..level].iter().rev() {
                    at = 64 * at + words[at].trailing_zeros() as usize;
                }
                return Some(at as Row);
            }
            at = word + 1;
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().map(|words| words.capacity() * size_of::<u64>()).sum()
    }
}

impl Index {
    /// Offers the pool those that live and are accepted, from the row `next` on. False when the budget ended before.
    pub(super) fn offer_live(
        &self,
        scratch: &mut Scratch,
        next: &mut Row,
        accepts: &mut impl FnMut(Row) -> bool,
        budget: &mut Budget,
    ) -> bool {
        let mut slots = [0; LINKS_BASE];
        loop {
            if budget.is_spent() {
                return false;
            }
            let (mut asked, mut count) = (0, 0);
            while asked < LINKS_BASE {
                let Some(row) = self.live.next(*next) else { break };
                (*next, asked) = (row + 1, asked + 1);
                if accepts(row) {
                    slots[count] = row;
                    count += 1;
                    self.graph.codes.prefetch(row);
                }
            }
            self.graph.compare(scratch, &slots[..count], budget);
            budget.spend(asked);
            if asked < LINKS_BASE {
                return true;
            }
        }
    }
}
