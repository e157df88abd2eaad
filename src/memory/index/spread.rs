//! Where a search for the largest products looks beside where it begins.
//!
//! Nodes are linked to near ones and to the largest products ([`prune`](super::prune)), and a walk keeps the largest products
//! that it has met. Where vectors differ in length, those of one cluster may take all its places before it follows a link to
//! another one, whose best are better. So such a search first looks at what some rows lead to that lie all over
//! the partition: wherever those are, what they lead to are the best around.

use super::{
    graph::{Graph, Index, Row},
    options::LINKS_BASE,
    quantize::Metric,
    steps::{Budget, Scratch},
};

/// Rows whose links are looked at.
const ROWS: u32 = 16;
/// Squared lengths that differ by less than this factor are as good as the same: then the largest products are the nearest
/// vectors.
const FACTOR: f32 = 1.002;

/// Rounding to a code changes its squared length by less than so many times that length times a step: seven standard deviations.
const ROUNDED: f32 = 4.0;

/// The shortest and the longest vector that was ever there, squared: under the dot product alone.
#[derive(Clone, Copy, Default)]
pub(super) struct Lengths(Option<(f32, f32)>);

impl Lengths {
    /// Notes a squared length that is off by so much at most.
    fn note(&mut self, squared: f32, off: f32) {
        let (least, most) = (squared - off, squared + off);
        let (shortest, longest) = self.0.unwrap_or((most, least));
        self.0 = Some((shortest.min(most), longest.max(least)));
    }

    /// Whether a search should look around.
    pub(super) fn differ(self) -> bool {
        self.0.is_some_and(|(shortest, longest)| longest > FACTOR * shortest)
    }
}

impl Graph {
    /// Notes the length of a row whose code and terms are there.
    pub(super) fn note_length(&mut self, row: Row) {
        if self.coding.metric != Metric::Dot {
            return;
        }
        if self.coding.has_floats() {
            let squared: f32 = self.codes.get(row)[0].floats().iter().map(|it| it * it).sum();
            return self.lengths.note(squared, 0.0);
        }
        // Of a code around a centre *c* the terms are ‖c‖² / 2 − c · v and ‖v − c‖², which is off by what was rounded off.
        let (term, of_links) = (self.terms[row as usize].term, self.link_terms[row as usize]);
        let squared = of_links.term - 2.0 * term;
        let off = ROUNDED * of_links.scale * of_links.term.sqrt();
        self.lengths.note(squared, off);
    }
}

impl Index {
    /// Offers the pool of a walk that begins what some rows lead to, from the one at `next` on. False when the budget ended
    /// before.
    pub(super) fn look_around(
        &self,
        scratch: &mut Scratch,
        next: &mut u32,
        budget: &mut Budget,
    ) -> bool {
        let rows = self.graph.nodes.len() as u64;
        while *next < ROWS {
            if budget.is_spent() {
                return false;
            }
            let from = u64::from(*next) * rows / u64::from(ROWS);
            *next += 1;
            let Some(row) = self.live.next(from as Row) else { continue };
            let (mut slots, mut count) = ([0; LINKS_BASE], 0);
            for &link in self.graph.links(row, 0) {
                slots[count] = link;
                count += usize::from(scratch.marks.first_visit(link));
            }
            let slots = &slots[..count];
            slots.iter().for_each(|&slot| self.graph.codes.prefetch(slot));
            self.graph.compare(scratch, slots, budget);
            budget.spend(1 + count);
        }
        true
    }
}
