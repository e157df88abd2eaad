//! The nearest nodes that a walk has found, in order, and which of them it has not expanded yet.
//!
//! A sorted array beats two heaps here: it is short, moves as one block, and candidates and results are
//! one thing (as in NSG; Fu and others, *Fast Approximate Nearest Neighbor Search With The Navigating
//! Spreading-out Graph*, 2017).

use super::options::LINKS_BASE;

/// A node that a walk has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// The bits of the rank, such that they are in order as signed numbers: those compare faster.
    order: i32,
    /// The slot shifted left by one, and whether the node's links were followed.
    tag: u32,
}

impl Found {
    /// The rank is never NaN.
    pub(super) fn new(rank: f32, slot: u32) -> Self {
        Self { order: in_order(rank.to_bits().cast_signed()), tag: slot << 1 }
    }

    /// Distance but for a term that depends on the query alone.
    pub(super) fn rank(self) -> f32 {
        f32::from_bits(in_order(self.order).cast_unsigned())
    }

    pub(super) fn slot(self) -> u32 {
        self.tag >> 1
    }

    fn is_expanded(self) -> bool {
        self.tag & 1 == 1
    }
}

/// Turns the bits of a float32 into a number in the same order, and back.
#[inline(always)]
fn in_order(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

/// At most `width` nodes, nearest first.
#[derive(Default)]
pub(super) struct Pool {
    found: Vec<Found>,
    width: usize,
    /// All before this position were expanded.
    next: usize,
}

impl Pool {
    pub(super) fn begin(&mut self, width: usize) {
        assert!(width > 0);
        self.found.clear();
        self.width = width;
        self.next = 0;
    }

    /// Takes what an upper layer found as the start on the next one.
    pub(super) fn widen(&mut self, width: usize) {
        self.width = width;
        self.found.truncate(width);
        for found in &mut self.found {
            found.tag &= !1;
        }
        self.next = 0;
    }

    /// Drops those that are not accepted.
    pub(super) fn retain(&mut self, mut accepts: impl FnMut(Found) -> bool) {
        self.found.retain(|found| accepts(*found));
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Whether a node is among the nearest.
    #[inline(always)]
    pub(super) fn has_place_for(&self, node: Found) -> bool {
        self.found.len() < self.width || node.order < self.found[self.width - 1].order
    }

    /// Keeps those of some nodes that are among the nearest; as many as a node has links, at most.
    ///
    /// The places of all are looked up before anything moves, so that the processor does it for several at a
    /// time, and each part of the pool moves once.
    #[inline(always)]
    pub(super) fn offer(&mut self, ranks: &[f32], slots: &[u32]) {
        let mut taken = [Found::default(); LINKS_BASE];
        let mut count = 0;
        let is_full = self.found.len() == self.width;
        let worst = if is_full { self.found[self.width - 1].order } else { i32::MAX };
        for (&rank, &slot) in ranks.iter().zip(slots) {
            // Written always, counted when near: no branch to guess wrong.
            taken[count] = Found::new(rank, slot);
            count += usize::from(taken[count].order < worst);
        }
        sort_few(&mut taken[..count]);
        let mut places = [0; LINKS_BASE];
        for (place, new) in places.iter_mut().zip(&taken[..count]) {
            *place = self.found.partition_point(|other| other.order <= new.order);
        }
        let mut kept = self.found.len();
        while kept + count > self.width {
            // The farthest goes: the last of the new ones, or of the old.
            if count > 0 && places[count - 1] == kept {
                count -= 1;
            } else {
                kept -= 1;
            }
        }
        self.found.resize(kept + count, Found::default());
        for (at, new) in taken[..count].iter().enumerate().rev() {
            self.found.copy_within(places[at]..kept, places[at] + at + 1);
            self.found[places[at] + at] = *new;
            kept = places[at];
        }
        if count > 0 {
            self.next = self.next.min(places[0]);
        }
    }

    /// The nearest node that was not expanded.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Found> {
        while self.found.get(self.next).is_some_and(|found| found.is_expanded()) {
            self.next += 1;
        }
        self.found.get(self.next).copied()
    }

    /// The nearest node that was not expanded, which now counts as expanded.
    #[inline(always)]
    pub(super) fn expand(&mut self) -> Option<u32> {
        while let Some(found) = self.found.get_mut(self.next) {
            self.next += 1;
            if !found.is_expanded() {
                found.tag |= 1;
                return Some(found.slot());
            }
        }
        None
    }

    /// Which node `expand` would return, found cheaply or not at all.
    #[inline(always)]
    pub(super) fn likely_next(&self) -> Option<u32> {
        self.found.get(self.next).filter(|found| !found.is_expanded()).map(|found| found.slot())
    }

    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }
}

/// Sorts by insertion, as there are a few most of the time.
#[inline(always)]
fn sort_few(few: &mut [Found]) {
    for end in 1..few.len() {
        let new = few[end];
        let mut at = end;
        while at > 0 && few[at - 1].order > new.order {
            few[at] = few[at - 1];
            at -= 1;
        }
        few[at] = new;
    }
}
