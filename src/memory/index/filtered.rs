//! The walk of a search that is asked for some of the vectors alone.
//!
//! Its places are for those that are accepted; what the filter refuses leads on and takes none. It goes on until they are
//! filled and all are followed that are nearer than the last of them, so it does not end because what is refused lies
//! nearer to the query.
//!
//! Where what is refused is nearer the walk may have to follow all of that. It is given up when it will hardly have
//! its places filled in the time that comparing all that are accepted takes, which is done then.

use super::{
    graph::{Graph, PLACES_OF_A_DISTANCE, Row},
    kernels::prefetch_value,
    options::LINKS_BASE,
    pool::Found,
    search::ASKED_OF_A_DISTANCE,
    steps::{Budget, Scratch},
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Distances of a walk, but for a quarter more ([`BEHIND`]): what was refused takes eight bytes until it is followed.
const DISTANCES_MAX: usize = 50_000;
/// Distances of a walk for each node that it follows, at least.
const OF_A_NODE: usize = 10;
/// A scan's distances that take as long as one of a walk, whose codes lie anywhere.
const SCANNED_OF_A_DISTANCE: usize = 4;
/// A walk may be behind with filling its places by this part of its distances.
const BEHIND: usize = 4;

/// How a step of the walk has ended.
pub(super) enum Walked {
    /// The budget has.
    InPart,
    /// All that is as near as what was found was met.
    Whole,
    /// Comparing all that are accepted takes less.
    GivenUp,
}

/// What such a walk was refused and has not followed yet, nearest first.
#[derive(Default)]
pub(super) struct Refused(BinaryHeap<Reverse<Found>>);

impl Refused {
    fn nearest(&self) -> Option<Found> {
        self.0.peek().map(|Reverse(found)| *found)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Found>()
    }
}

/// How many distances a walk has computed, and how many it may.
pub(super) struct Spent {
    distances: usize,
    max: usize,
}

impl Spent {
    /// That of a walk with so many places which begins, where so many of the rows are accepted. None when comparing all
    /// of those will take less, also if the filter has nothing to do with the query.
    pub(super) fn new(places: usize, accepted: usize, rows: usize) -> Option<Self> {
        let scan = accepted / SCANNED_OF_A_DISTANCE + rows / ASKED_OF_A_DISTANCE;
        let max = scan.min(DISTANCES_MAX);
        let follows = places * rows / accepted.max(1);
        (follows * OF_A_NODE <= max).then_some(Self { distances: 0, max })
    }

    /// Whether a walk is to be given up that has filled so many of its places: it has spent a larger part of what it
    /// may than it has filled of them, and a further part.
    fn is_too_much(&self, filled: usize, places: usize) -> bool {
        self.distances * places > self.max * filled + self.max * places / BEHIND
    }
}

impl Graph {
    /// Begins such a walk of the lowest layer from what the pool has.
    pub(super) fn begin_filtered(
        &self,
        scratch: &mut Scratch,
        places: usize,
        accepts: &mut impl FnMut(Row) -> bool,
        budget: &mut Budget,
    ) {
        self.begin_walk(scratch, places, budget);
        let Scratch { pool, refused, .. } = scratch;
        refused.0.clear();
        pool.retain(|found| {
            let is_accepted = accepts(found.slot());
            if !is_accepted {
                refused.0.push(Reverse(found));
            }
            is_accepted
        });
    }

    /// Fills the pool with those of the lowest layer nearest to the probe that are accepted, as
    /// [`walk`](Self::walk) does with all.
    pub(super) fn walk_filtered(
        &self,
        scratch: &mut Scratch,
        accepts: &mut impl FnMut(Row) -> bool,
        spent: &mut Spent,
        budget: &mut Budget,
    ) -> Walked {
        let Scratch { probe, pool, refused, marks, met, .. } = scratch;
        let mut ranks = [0.0; LINKS_BASE];
        loop {
            let nearest = refused.nearest().filter(|refused| pool.has_place_for(*refused));
            let next = match (pool.next(), nearest) {
                (Some(accepted), Some(refused)) if accepted <= refused => pool.expand(),
                (_, Some(nearest)) => {
                    refused.0.pop();
                    Some(nearest.slot())
                }
                (_, None) => pool.expand(),
            };
            let fresh = met.fresh();
            if let Some(slot) = next {
                for &link in self.links(slot, 0) {
                    // Written always, counted when new: no branch to guess wrong.
                    fresh.slots[fresh.count] = link;
                    fresh.count += usize::from(marks.first_visit(link));
                }
                for &slot in fresh.slots() {
                    prefetch_value(&self.nodes[slot as usize]);
                }
            }
            met.turn();
            for next in [pool.next(), refused.nearest()].into_iter().flatten() {
                self.base.prefetch(next.slot());
            }
            let (slots, coming) = met.both();
            self.ranks_and_fetch(probe, slots, coming, &mut ranks);
            let fresh = met.fresh();
            let count = fresh.count;
            let mut accepted = 0;
            for at in 0..count {
                let found = Found::new(ranks[at], fresh.slots[at]);
                if !pool.has_place_for(found) {
                    continue;
                }
                if accepts(found.slot()) {
                    (ranks[accepted], fresh.slots[accepted]) = (ranks[at], found.slot());
                    accepted += 1;
                } else {
                    refused.0.push(Reverse(found));
                }
            }
            pool.offer(&ranks[..accepted], &fresh.slots[..accepted]);
            fresh.count = 0;
            if next.is_none() && count == 0 {
                return Walked::Whole;
            }
            spent.distances += count;
            if spent.is_too_much(pool.found().len(), pool.width()) {
                return Walked::GivenUp;
            }
            budget.spend(1 + count + count * pool.found().len() / PLACES_OF_A_DISTANCE);
            budget.spend_coded(probe);
            if budget.is_spent() {
                return Walked::InPart;
            }
        }
    }
}
