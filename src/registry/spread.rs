//! Which node gets the next of many things that one core sends to agents of a type.
//!
//! What nodes tell of their loads is a tenth of a second old, and all cores read the same. Who always
//! took the least loaded node would send all there until the next news. So a core counts what it sent
//! since, as if each were a task that waits there.
//!
//! Invariants worth naming:
//! - The node that is chosen has the least to do for what its agents can hold, by the news and by what was
//!   chosen since; a node without capacity is none.
//! - Equals are ordered by lot, another one with each news, so that cores which know the same do not all
//!   begin with the same node.

use super::fact::Load;
use crate::wire::id::NodeId;
use std::{cmp::Reverse, collections::BinaryHeap};

/// A node that may be next; the order of the fields is that of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    /// What its agents have to do, as part of what they can hold.
    share: u64,
    lot: u32,
    node: NodeId,
    tasks: u64,
    capacity: u32,
}

impl Next {
    fn new(node: NodeId, tasks: u64, capacity: u32, lot: u32) -> Self {
        let share = (tasks.min(u64::from(u32::MAX)) << 32) / u64::from(capacity);
        Self { share, lot, node, tasks, capacity }
    }
}

/// The nodes that have agents of a type, or of all types that can do something.
#[derive(Clone, Debug, Default)]
pub struct Spread(BinaryHeap<Reverse<Next>>);

impl Spread {
    /// By what the nodes that are there tell.
    pub fn of(loads: impl Iterator<Item = (NodeId, Load)>, seed: u64) -> Self {
        let mut lots = fastrand::Rng::with_seed(seed);
        let able = loads.filter(|(_, load)| load.capacity > 0);
        let next = able.map(|(node, load)| {
            Reverse(Next::new(node, load.tasks(), load.capacity, lots.u32(..)))
        });
        Self(next.collect())
    }

    /// The node that gets the next one, which counts as a task there from now on.
    #[inline]
    pub fn next(&mut self) -> Option<NodeId> {
        let mut first = self.0.peek_mut()?;
        let Reverse(Next { node, tasks, capacity, lot, .. }) = *first;
        *first = Reverse(Next::new(node, tasks + 1, capacity, lot));
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn load(capacity: u32, running: u32) -> Load {
        Load { agents: capacity, capacity, running, queued: 0 }
    }

    #[test]
    fn equals_get_as_much_each_and_are_begun_with_by_lot() {
        let mut begins = BTreeMap::new();
        for seed in 0..100 {
            let mut spread =
                Spread::of([1, 2, 3, 4].map(|node| (node, load(8, 0))).into_iter(), seed);
            let chosen: Vec<_> = std::iter::from_fn(|| spread.next()).take(400).collect();
            for node in 1..=4 {
                assert_eq!(chosen.iter().filter(|it| **it == node).count(), 100);
            }
            *begins.entry(chosen[0]).or_insert(0) += 1;
        }
        assert!(begins.len() == 4 && begins.values().all(|count| *count >= 10), "{begins:?}");
    }

    #[test]
    fn nobody_without_capacity_is_chosen() {
        assert_eq!(Spread::of([(1, load(0, 0))].into_iter(), 1).next(), None);
        assert_eq!(Spread::default().next(), None);
    }

    proptest! {
        #[test]
        fn each_choice_is_the_least_loaded_by_what_was_chosen_before(
            nodes in prop::collection::btree_map(1_u64..20, (0_u32..50, 0_u32..100), 0..12),
            choices in 0..200_usize,
            seed: u64,
        ) {
            let loads = nodes.iter().map(|(node, (capacity, tasks))| (*node, load(*capacity, *tasks)));
            let mut spread = Spread::of(loads, seed);
            let mut model: BTreeMap<NodeId, (u64, u64)> = nodes
                .iter()
                .filter(|(_, (capacity, _))| *capacity > 0)
                .map(|(node, (capacity, tasks))| (*node, (u64::from(*tasks), u64::from(*capacity))))
                .collect();
            for _ in 0..choices {
                let Some(node) = spread.next() else {
                    prop_assert!(model.is_empty());
                    break;
                };
                let (tasks, capacity) = model[&node];
                for (other, capacity_there) in model.values() {
                    // Shares are rounded to 32 bits below the point, which tells these apart.
                    prop_assert!(tasks * capacity_there <= other * capacity);
                }
                model.insert(node, (tasks + 1, capacity));
            }
        }
    }
}
