//! Which nodes the present walk has seen: a bit each, so that the marks of a hundred thousand nodes stay in the
//! nearest cache.

#[derive(Default)]
pub(super) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// Begins a walk that has seen none of the `nodes`.
    pub(super) fn begin(&mut self, nodes: usize) {
        self.words.fill(0);
        self.grow(nodes);
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

    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}
