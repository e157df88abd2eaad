//! A sorted map whose copies share what did not change.
//!
//! Invariants worth naming:
//! - Pages are in order, none is empty, and none holds more than [`PAGE_MAX`] entries.
//! - A change copies at most the pages that it touches, and those only when a copy of the map has
//!   them too.

use std::sync::Arc;

/// Most entries of a page: a copy of one takes about a microsecond.
const PAGE_MAX: usize = 128;
/// Two neighbours become one page when they have no more entries than this together.
const JOINED_MAX: usize = PAGE_MAX / 2;

/// A sorted map; a clone of it takes a reference count for each page.
#[derive(Clone, Debug)]
pub(super) struct Pages<K, V> {
    pages: Vec<Arc<Vec<(K, V)>>>,
    /// The first key of each page, together, so that a search reads few cache lines.
    firsts: Vec<K>,
    len: usize,
}

impl<K, V> Default for Pages<K, V> {
    fn default() -> Self {
        Self { pages: Vec::new(), firsts: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V: Clone> Pages<K, V> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The page that holds a key, if any does.
    fn page_of(&self, key: &K) -> usize {
        self.firsts.partition_point(|first| first <= key).saturating_sub(1)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let page = self.pages.get(self.page_of(key))?;
        let place = page.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        Some(&page[place].1)
    }

    /// Gives a key a value, and gives back the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.page_of(&key);
        let Some(page) = self.pages.get_mut(at) else {
            self.add(0, vec![(key, value)]);
            self.len += 1;
            return None;
        };
        match page.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(place) => {
                let old = &mut Arc::make_mut(page)[place].1;
                return Some(std::mem::replace(old, value));
            }
            // Keys that come in order fill their pages.
            Err(PAGE_MAX) => self.add(at + 1, vec![(key, value)]),
            Err(place) => {
                let entries = Arc::make_mut(page);
                let upper = (entries.len() == PAGE_MAX).then(|| entries.split_off(PAGE_MAX / 2));
                match upper {
                    Some(mut upper) if place >= PAGE_MAX / 2 => {
                        upper.insert(place - PAGE_MAX / 2, (key, value));
                        self.add(at + 1, upper);
                    }
                    upper => {
                        entries.insert(place, (key, value));
                        self.firsts[at] = entries[0].0;
                        if let Some(upper) = upper {
                            self.add(at + 1, upper);
                        }
                    }
                }
            }
        }
        self.len += 1;
        None
    }

    fn add(&mut self, at: usize, entries: Vec<(K, V)>) {
        self.firsts.insert(at, entries[0].0);
        self.pages.insert(at, Arc::new(entries));
    }

    /// Takes a key out, and gives back its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.page_of(key);
        let page = self.pages.get_mut(at)?;
        let place = page.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        let entries = Arc::make_mut(page);
        let (_, value) = entries.remove(place);
        self.len -= 1;
        match entries.first() {
            Some((first, _)) => self.firsts[at] = *first,
            None => {
                self.pages.remove(at);
                self.firsts.remove(at);
                return Some(value);
            }
        }
        self.join(at);
        self.join(at.wrapping_sub(1));
        Some(value)
    }

    /// Makes a page and the next one a single page when both are small.
    fn join(&mut self, at: usize) {
        let Some(next) = self.pages.get(at.wrapping_add(1)) else { return };
        let Some(page) = self.pages.get(at) else { return };
        if page.len() + next.len() <= JOINED_MAX {
            let next = self.pages.remove(at + 1);
            self.firsts.remove(at + 1);
            Arc::make_mut(&mut self.pages[at]).extend_from_slice(&next);
        }
    }

    /// All entries in order, from the first one behind `after`, or from the first.
    pub fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = &(K, V)> {
        let at = after.map_or(0, |after| self.page_of(&after));
        let pages = self.pages.get(at..).unwrap_or_default();
        let skipped = match (pages.first(), after) {
            (Some(page), Some(after)) => page.partition_point(|(key, _)| *key <= after),
            _ => 0,
        };
        pages.iter().flat_map(|page| page.iter()).skip(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(pages: &Pages<u16, u32>) {
        assert_eq!(pages.pages.len(), pages.firsts.len());
        for (page, first) in pages.pages.iter().zip(&pages.firsts) {
            assert!((1..=PAGE_MAX).contains(&page.len()));
            assert_eq!(page[0].0, *first);
        }
    }

    proptest! {
        #[test]
        fn pages_are_a_sorted_map_and_copies_keep_what_they_had(
            changes in prop::collection::vec((0..700_u16, prop::option::weighted(0.7, any::<u32>())), 1..1500),
            copied in any::<prop::sample::Index>(),
            after in 0..700_u16,
        ) {
            let copied = copied.index(changes.len());
            let (mut pages, mut model) = (Pages::default(), BTreeMap::new());
            let mut copy = None;
            for (number, (key, value)) in changes.into_iter().enumerate() {
                match value {
                    Some(value) => prop_assert_eq!(pages.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(pages.remove(&key), model.remove(&key)),
                }
                if number == copied {
                    copy = Some((pages.clone(), model.clone()));
                }
            }
            let (old, old_model) = copy.expect("one was taken");
            for (pages, model) in [(pages, model), (old, old_model)] {
                check(&pages);
                prop_assert_eq!(pages.len(), model.len());
                prop_assert!(pages.iter_after(None).map(|(key, value)| (key, value)).eq(&model));
                let behind = pages.iter_after(Some(after)).map(|(key, value)| (key, value));
                prop_assert!(behind.eq(model.range(after + 1..)));
                for key in 0..700 {
                    prop_assert_eq!(pages.get(&key), model.get(&key));
                }
            }
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_their_pages() {
        let mut pages = Pages::default();
        for key in 0..1280_u16 {
            pages.insert(key, u32::from(key));
        }
        check(&pages);
        assert_eq!(pages.pages.len(), 10);
        for key in 0..1280 {
            assert_eq!(pages.remove(&key), Some(u32::from(key)));
            check(&pages);
        }
        assert_eq!((pages.len(), pages.pages.len()), (0, 0));
    }
}
