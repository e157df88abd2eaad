//! Which nodes the present walk has seen: a bit each, so that the marks of a hundred thousand nodes stay in the
//! nearest cache.

use std::ops::Range;

#[derive(Default)]
pub(super) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// Begins a walk that has seen none of the `nodes`.
    pub(super) fn begin(&mut self, nodes: usize) {
        if self.words.is_empty() {
            // Nothing of it is touched before it is used.
            self.words = vec![0; nodes.div_ceil(64)];
        } else {
            self.words.fill(0);
            self.grow(nodes);
        }
    }

    /// Makes room for nodes that came since the walk began.
    pub(super) fn grow(&mut self, nodes: usize) {
        let words = nodes.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Marks a node; true when this walk had not seen it.
    #[inline(always)]
    pub(super) fn first_visit(&mut self, slot: u32) -> bool {
        let word = &mut self.words[slot as usize / 64];
        let bit = 1 << (slot % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    /// Whether a node that there was room for is marked.
    #[inline(always)]
    pub(super) fn has(&self, slot: u32) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// The first node of a range that is marked here and not by others, which have room for as many.
    pub(super) fn next_beyond(&self, others: &Marks, nodes: Range<u32>) -> Option<u32> {
        let mut at = nodes.start;
        while at < nodes.end {
            let word = at as usize / 64;
            let rest = (self.words[word] & !others.words[word]) >> (at % 64);
            if rest != 0 {
                return Some(at + rest.trailing_zeros()).filter(|found| *found < nodes.end);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}
