//! Tasks that wait for a time, the earliest first: a heap whose places the tasks know, so that one
//! that is cancelled leaves nothing behind.

use super::{
    cold::Cold,
    entry::Entry,
    list::{Link, Linked},
    slab::Slab,
};

/// Children of a place.
const CHILDREN: usize = 4;
/// Marks a cold task's slot among the keys.
const COLD: u32 = 1 << 31;

/// A task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleeper {
    /// The key of its entry.
    Hot(u32),
    /// The slot of a cold task.
    Cold(u32),
}

#[derive(Clone, Copy)]
struct Delay {
    due_ms: u64,
    /// Grows, and wraps: of those that are due together the one that came first goes first.
    turn: u32,
    who: u32,
}

impl Delay {
    fn is_before(self, other: Self) -> bool {
        let earlier = (self.turn.wrapping_sub(other.turn) as i32) < 0;
        self.due_ms < other.due_ms || (self.due_ms == other.due_ms && earlier)
    }

    fn sleeper(self) -> Sleeper {
        match self.who & COLD {
            0 => Sleeper::Hot(self.who),
            _ => Sleeper::Cold(self.who & !COLD),
        }
    }
}

/// Where the tasks lie that are told their place.
pub(super) struct Beds<'a> {
    pub(super) entries: &'a mut [Entry],
    pub(super) cold: &'a mut Slab<Cold>,
}

impl Beds<'_> {
    fn link(&mut self, sleeper: Sleeper) -> &mut Link {
        match sleeper {
            Sleeper::Hot(key) => &mut self.entries[key as usize].link,
            Sleeper::Cold(slot) => self.cold[slot].link(),
        }
    }
}

/// Tasks that wait for a time.
#[derive(Default)]
pub(super) struct Delays {
    heap: Vec<Delay>,
    turns: u32,
}

impl Delays {
    /// When a cold task is due that has its place here, milliseconds.
    pub(super) fn due_ms_of_cold(&self, link: Link, slot: u32) -> Option<u64> {
        let delay = self.heap.get(link.first() as usize)?;
        (delay.sleeper() == Sleeper::Cold(slot)).then_some(delay.due_ms)
    }

    /// When the first one is due, milliseconds.
    #[inline]
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.heap.first().map(|delay| delay.due_ms)
    }

    pub(super) fn push(&mut self, beds: &mut Beds<'_>, sleeper: Sleeper, due_ms: u64) {
        let who = match sleeper {
            Sleeper::Hot(key) => key,
            Sleeper::Cold(slot) => slot | COLD,
        };
        self.turns = self.turns.wrapping_add(1);
        self.heap.push(Delay { due_ms, turn: self.turns, who });
        self.rise(beds, self.heap.len() - 1);
    }

    /// Takes the first one that is due.
    pub(super) fn pop(&mut self, beds: &mut Beds<'_>, now_ms: u64) -> Option<Sleeper> {
        let first = *self.heap.first().filter(|delay| delay.due_ms <= now_ms)?;
        self.take(beds, 0);
        Some(first.sleeper())
    }

    /// Takes one that waits.
    pub(super) fn remove(&mut self, beds: &mut Beds<'_>, sleeper: Sleeper) {
        let place = beds.link(sleeper).first() as usize;
        assert!(self.heap[place].sleeper() == sleeper, "a delayed task knows its place");
        self.take(beds, place);
    }

    fn take(&mut self, beds: &mut Beds<'_>, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.sink(beds, place);
            self.rise(beds, place);
        }
    }

    fn put(&mut self, beds: &mut Beds<'_>, place: usize, delay: Delay) {
        self.heap[place] = delay;
        *beds.link(delay.sleeper()) = Link::pair(place as u32, 0);
    }

    fn rise(&mut self, beds: &mut Beds<'_>, mut place: usize) {
        let delay = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if !delay.is_before(self.heap[parent]) {
                break;
            }
            self.put(beds, place, self.heap[parent]);
            place = parent;
        }
        self.put(beds, place, delay);
    }

    fn sink(&mut self, beds: &mut Beds<'_>, mut place: usize) {
        let delay = self.heap[place];
        loop {
            let first = place * CHILDREN + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let earlier =
                |one: usize, other: usize| match self.heap[other].is_before(self.heap[one]) {
                    true => other,
                    false => one,
                };
            let Some(least) = children.reduce(earlier) else { break };
            if !self.heap[least].is_before(delay) {
                break;
            }
            self.put(beds, place, self.heap[least]);
            place = least;
        }
        self.put(beds, place, delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_earliest_comes_first_and_any_can_be_taken(
            steps in prop::collection::vec((0_u8..4, 0_u32..40, 0_u64..50), 0..300),
        ) {
            let mut entries: Vec<Entry> = (0..40).map(|_| Entry::VACANT).collect();
            let mut cold = Slab::default();
            for _ in 0..40 {
                cold.insert(Cold::default());
            }
            let mut delays = Delays::default();
            // When it is due, when it came, who it is.
            let mut model: BTreeSet<(u64, usize, u32)> = BTreeSet::new();
            for (turn, (step, who, due_ms)) in steps.into_iter().enumerate() {
                let sleeper = match who % 2 {
                    0 => Sleeper::Hot(who),
                    _ => Sleeper::Cold(who),
                };
                let beds = &mut Beds { entries: &mut entries, cold: &mut cold };
                let there = model.iter().find(|there| there.2 == who).copied();
                match (step, there) {
                    (0 | 1, None) => {
                        delays.push(beds, sleeper, due_ms);
                        model.insert((due_ms, turn, who));
                    }
                    (2, Some(there)) => {
                        delays.remove(beds, sleeper);
                        model.remove(&there);
                    }
                    (3, _) => {
                        let first = model.first().filter(|first| first.0 <= due_ms).copied();
                        let expected = first.map(|(_, _, who)| match who % 2 {
                            0 => Sleeper::Hot(who),
                            _ => Sleeper::Cold(who),
                        });
                        prop_assert_eq!(delays.pop(beds, due_ms), expected);
                        first.map(|first| model.remove(&first));
                    }
                    _ => {}
                }
                prop_assert_eq!(delays.next_due_ms(), model.first().map(|first| first.0));
            }
        }
    }
}
