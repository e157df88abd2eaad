//! Which nodes the present walk has seen.
//!
//! A mark is the number of the walk that made it, so that a new walk forgets all marks by counting up. Only
//! when the byte runs over, every 255 walks, the marks are wiped.

#[derive(Default)]
pub(super) struct Marks {
    walk: u8,
    marks: Vec<u8>,
}

impl Marks {
    /// Begins a walk that has seen none of the `nodes`.
    pub(super) fn begin(&mut self, nodes: usize) {
        self.grow(nodes);
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Makes room for nodes that came since the walk began.
    pub(super) fn grow(&mut self, nodes: usize) {
        if self.marks.len() < nodes {
            self.marks.resize(nodes, 0);
        }
    }

    /// Marks a node; true when this walk had not seen it.
    #[inline(always)]
    pub(super) fn first_visit(&mut self, slot: u32) -> bool {
        let mark = &mut self.marks[slot as usize];
        let first = *mark != self.walk;
        *mark = self.walk;
        first
    }

    pub(super) fn bytes(&self) -> usize {
        self.marks.capacity()
    }
}
