//! First-in first-out lists whose links live in the entries of a table.
//!
//! An entry is in one list at most, so one pair of links an entry serves them all, and taking an
//! entry out of the middle costs what taking the first costs.

/// No entry.
const NONE: u32 = u32::MAX;

/// An entry's neighbours in the list that it is in.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    /// The link of an entry that is in no list.
    pub const NONE: Self = Self { previous: NONE, next: NONE };
}

/// An entry of a table that can be in a list.
pub trait Linked {
    /// Its neighbours.
    fn link(&mut self) -> &mut Link;
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

    /// Adds an entry, which must be in no list, at the end.
    #[inline]
    pub fn push<T: Linked>(&mut self, table: &mut [T], key: u32) {
        *table[key as usize].link() = Link { previous: self.last, next: NONE };
        match self.last {
            NONE => self.first = key,
            last => table[last as usize].link().next = key,
        }
        self.last = key;
    }

    /// Takes an entry, which must be in this list, out of it.
    #[inline]
    pub fn remove<T: Linked>(&mut self, table: &mut [T], key: u32) {
        let Link { previous, next } = *table[key as usize].link();
        match previous {
            NONE => self.first = next,
            previous => table[previous as usize].link().next = next,
        }
        match next {
            NONE => self.last = previous,
            next => table[next as usize].link().previous = previous,
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

    fn keys(list: &List, table: &[Link]) -> Vec<u32> {
        let next = |key: &u32| Some(table[*key as usize].next).filter(|next| *next != NONE);
        std::iter::successors(list.first(), next).collect()
    }

    proptest! {
        #[test]
        fn a_list_is_a_queue_from_whose_middle_one_can_take(
            steps in prop::collection::vec((any::<bool>(), 0_usize..32), 0..200),
        ) {
            let mut table = [Link::NONE; 32];
            let mut list = List::default();
            let mut model: Vec<u32> = Vec::new();
            for (push, pick) in steps {
                let key = pick as u32;
                match (push, model.iter().position(|there| *there == key)) {
                    (true, None) => {
                        list.push(&mut table, key);
                        model.push(key);
                    }
                    (false, Some(place)) => {
                        list.remove(&mut table, key);
                        model.remove(place);
                    }
                    _ => {}
                }
                prop_assert_eq!(keys(&list, &table), model.clone());
            }
        }
    }
}
