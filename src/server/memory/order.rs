//! Changes of one item that come to one core take effect in the order in which they came.
//!
//! A text becomes a vector in steps, or in a child, so a later change of the same item that waits for
//! neither would overtake it. It waits here instead, until the change before it has ended.
//!
//! Invariants:
//! - A change waits only for changes that began before it, so no two wait for each other.
//! - Where no text waits for its vector nothing is kept and nobody waits.

use crate::memory::store::hash_of;
use futures_channel::oneshot;
use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
};

/// Those who wait for a change: they go on when this is dropped.
type Behind = Rc<RefCell<Vec<oneshot::Sender<()>>>>;

thread_local! {
    /// The last change of each item of which one waits for a vector, by the hashes of their names.
    static LAST: RefCell<HashMap<u64, Behind>> = RefCell::default();
}

/// The place of changes in the order. They take effect before it is dropped.
pub struct Turn {
    names: Vec<u64>,
    behind: Behind,
    before: Vec<oneshot::Receiver<()>>,
}

impl Turn {
    /// Takes the next place for changes of items, each with its namespace, its key, and whether it waits for
    /// a vector.
    pub fn take<'a>(changes: impl Iterator<Item = (&'a str, &'a str, bool)>) -> Self {
        let mut turn = Self { names: Vec::new(), behind: Behind::default(), before: Vec::new() };
        LAST.with_borrow_mut(|last| {
            for (namespace, key, waits) in changes {
                if waits || !last.is_empty() {
                    turn.enter(last, hash_of(namespace, key), waits);
                }
            }
        });
        turn
    }

    fn enter(&mut self, last: &mut HashMap<u64, Behind>, name: u64, waits: bool) {
        match last.entry(name) {
            Entry::Occupied(mut entry) if !Rc::ptr_eq(entry.get(), &self.behind) => {
                let (sender, receiver) = oneshot::channel();
                entry.insert(self.behind.clone()).borrow_mut().push(sender);
                self.before.push(receiver);
            }
            Entry::Vacant(entry) if waits => {
                entry.insert(self.behind.clone());
            }
            Entry::Occupied(_) | Entry::Vacant(_) => return,
        }
        self.names.push(name);
    }

    /// Waits until the changes before have ended.
    pub async fn come(&mut self) {
        for before in self.before.drain(..) {
            // Whoever was before says nothing and is gone.
            let _ = before.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        LAST.with_borrow_mut(|last| {
            for name in &self.names {
                if last.get(name).is_some_and(|behind| Rc::ptr_eq(behind, &self.behind)) {
                    last.remove(name);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn turn(changes: &[(&str, bool)]) -> Turn {
        Turn::take(changes.iter().map(|(key, waits)| ("space", *key, *waits)))
    }

    #[test]
    fn changes_of_one_item_come_one_after_the_other_and_others_at_once() {
        block_on(async {
            let mut first = turn(&[("a", true), ("b", true), ("a", true)]);
            let mut second = turn(&[("c", false), ("a", false)]);
            let mut third = turn(&[("a", true)]);
            let mut other = turn(&[("c", false)]);
            assert!(poll_once(first.come()).await.is_some());
            assert!(poll_once(other.come()).await.is_some());
            assert!(poll_once(second.come()).await.is_none());
            drop(first);
            assert!(poll_once(third.come()).await.is_none(), "one is before it still");
            second.come().await;
            drop(second);
            third.come().await;
            drop((third, other));
            LAST.with_borrow(|last| assert!(last.is_empty()));
        });
    }

    #[test]
    fn a_change_that_was_given_up_holds_up_nobody() {
        block_on(async {
            let first = turn(&[("a", true)]);
            let second = turn(&[("a", true)]);
            let mut third = turn(&[("a", false)]);
            drop(second);
            drop(first);
            third.come().await;
        });
    }
}
