//! The nearest nodes that a walk has found, in order, and which of them it has not expanded yet.
//!
//! A sorted array beats two heaps here: it is short, moves as one block, and candidates and results are
//! one thing (as in NSG; Fu and others, *Fast Approximate Nearest Neighbor Search With The Navigating
//! Spreading-out Graph*, 2017).

/// A node that a walk has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Distance but for a term that depends on the query alone; never NaN.
    pub(super) rank: f32,
    /// The slot shifted left by one, and whether the node's links were followed.
    tag: u32,
}

impl Found {
    pub(super) fn new(rank: f32, slot: u32) -> Self {
        Self { rank, tag: slot << 1 }
    }

    pub(super) fn slot(self) -> u32 {
        self.tag >> 1
    }

    fn is_expanded(self) -> bool {
        self.tag & 1 == 1
    }
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

    /// Keeps a node if it is among the nearest; true when it is the next to be expanded, so far.
    #[inline(always)]
    pub(super) fn offer(&mut self, rank: f32, slot: u32) -> bool {
        if self.found.len() == self.width {
            if rank >= self.found[self.width - 1].rank {
                return false;
            }
            self.found.pop();
        }
        let at = self.found.partition_point(|other| other.rank <= rank);
        self.found.insert(at, Found::new(rank, slot));
        let is_next = at <= self.next;
        self.next = self.next.min(at);
        is_next
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
