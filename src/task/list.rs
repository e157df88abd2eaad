//! First-in first-out lists whose links live in the entries of a table.
//!
//! An entry is in one list at most, so one pair of links an entry serves them all, and taking an
//! entry out of the middle costs what taking the first costs.

/// No entry.
const NONE: u32 = u32::MAX;

/// An entry's neighbours in the list that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    /// The link of an entry that is in no list.
    pub const NONE: Self = Self { previous: NONE, next: NONE };

    /// Two numbers that an entry keeps here while it is in no list.
    pub const fn pair(first: u32, second: u32) -> Self {
        Self { previous: first, next: second }
    }

    /// The first number of [`Link::pair`].
    pub const fn first(self) -> u32 {
        self.previous
    }

    /// The second number of [`Link::pair`].
    pub const fn second(self) -> u32 {
        self.next
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::NONE
    }
}

/// An entry of a table that can be in a list.
pub trait Linked {
    /// Its neighbours.
    fn link(&mut self) -> &mut Link;
}

/// Where the links of a list's entries lie.
pub trait Arena {
    /// The neighbours of an entry.
    fn link(&mut self, key: u32) -> &mut Link;
}

impl<T: Linked> Arena for Vec<T> {
    #[inline]
    fn link(&mut self, key: u32) -> &mut Link {
        self[key as usize].link()
    }
}

/// A list of entries of one table.
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    /// The entry that has been in the list longest.
    #[inline]
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// The entry that came to the list's end last.
    #[inline]
    pub fn last(&self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }

    /// The entry after one that is in this list.
    #[inline]
    pub fn after(&self, arena: &mut impl Arena, key: u32) -> Option<u32> {
        let Link { next, .. } = *arena.link(key);
        (next != NONE).then_some(next)
    }

    /// Adds an entry, which must be in no list, at the end.
    #[inline]
    pub fn push(&mut self, arena: &mut impl Arena, key: u32) {
        *arena.link(key) = Link { previous: self.last, next: NONE };
        match self.last {
            NONE => self.first = key,
            last => arena.link(last).next = key,
        }
        self.last = key;
    }

    /// Adds an entry, which must be in no list, at the beginning.
    pub fn push_first(&mut self, arena: &mut impl Arena, key: u32) {
        *arena.link(key) = Link { previous: NONE, next: self.first };
        match self.first {
            NONE => self.last = key,
            first => arena.link(first).previous = key,
        }
        self.first = key;
    }

    /// Takes an entry, which must be in this list, out of it.
    #[inline]
    pub fn remove(&mut self, arena: &mut impl Arena, key: u32) {
        let Link { previous, next } = *arena.link(key);
        match previous {
            NONE => self.first = next,
            previous => arena.link(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => arena.link(next).previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Linked for Link {
        fn link(&mut self) -> &mut Link {
            self
        }
    }

    fn keys(list: &List, table: &mut Vec<Link>) -> Vec<u32> {
        std::iter::successors(list.first(), |key| list.after(table, *key)).collect()
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        PushFirst,
        Remove,
    }

    proptest! {
        #[test]
        fn a_list_is_a_queue_with_two_ends_from_whose_middle_one_can_take(
            steps in prop::collection::vec((0_usize..3, 0_usize..32), 0..200),
        ) {
            let mut table = vec![Link::NONE; 32];
            let mut list = List::default();
            let mut model: Vec<u32> = Vec::new();
            for (step, pick) in steps {
                let key = pick as u32;
                let place = model.iter().position(|there| *there == key);
                match ([Step::Push, Step::PushFirst, Step::Remove][step], place) {
                    (Step::Push, None) => {
                        list.push(&mut table, key);
                        model.push(key);
                    }
                    (Step::PushFirst, None) => {
                        list.push_first(&mut table, key);
                        model.insert(0, key);
                    }
                    (Step::Remove, Some(place)) => {
                        list.remove(&mut table, key);
                        model.remove(place);
                    }
                    _ => {}
                }
                prop_assert_eq!(keys(&list, &mut table), model.clone());
            }
        }
    }
}
