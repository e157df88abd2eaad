//! What lets operations stay open between their steps.
//!
//! A search or an insertion that is open names rows. A row that was freed in the meantime *rests* until
//! every operation that was open at that moment has ended, so a name never means a later vector.
//! Operations hold the generation in which they began; dropping one half-way is as good as ending it.

use super::{
    filtered::Refused, graph::Row, marks::Marks, options::LINKS_BASE, pool::Pool, prune::Work,
    quantize::Probe,
};
use std::sync::Arc;

/// A budget for a step of a few microseconds, where a code has as many lines of the cache as [`STEP_LINES`] or
/// fewer. How long that is depends on the processor: whoever is to stop in time looks at a clock between steps.
const STEP_DISTANCES: usize = 64;
const STEP_LINES: usize = 6;

/// Making a probe's code around another centre takes as long as so many distances.
pub(super) const CODED_DISTANCES: usize = 16;

/// The budget for a step with codes of so many lines.
pub(super) fn step_distances(lines: usize) -> usize {
    STEP_DISTANCES * STEP_LINES / lines.max(STEP_LINES)
}

/// Scratch of operations that have ended is kept for so many to come.
const SCRATCH_MAX: usize = 8;

/// What is left of a step, counted in distances computed; other work is counted as what takes as long.
pub(super) struct Budget(usize);

impl Budget {
    /// For an operation that is to reach its end at once.
    pub(super) fn unlimited() -> Self {
        Self(usize::MAX)
    }

    /// At least one, so that every step gets on.
    pub(super) fn new(distances: usize) -> Self {
        Self(distances.max(1))
    }

    #[inline(always)]
    pub(super) fn spend(&mut self, distances: usize) {
        self.0 = self.0.saturating_sub(distances);
    }

    /// Spends for codes around other centres that a probe was given.
    #[inline(always)]
    pub(super) fn spend_coded(&mut self, probe: &mut Probe) {
        self.spend(probe.take_made() * CODED_DISTANCES);
    }

    /// What was spent of one without end.
    pub(super) fn spent(&self) -> usize {
        usize::MAX - self.0
    }

    #[inline(always)]
    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// What one operation needs and the next one uses again.
pub(super) struct Scratch {
    pub(super) probe: Probe,
    /// The centre of the probe's code.
    pub(super) edition: u32,
    /// The vector itself, where its centre may change.
    pub(super) vector: Vec<f32>,
    /// Another code, while links are chosen.
    pub(super) other: Probe,
    pub(super) pool: Pool,
    /// The best of those that are not linked yet.
    pub(super) late: Pool,
    /// What a filtered walk is to follow beside the pool.
    pub(super) refused: Refused,
    pub(super) marks: Marks,
    pub(super) met: Met,
    pub(super) work: Work,
}

/// Nodes that a walk has met and not compared yet: those that one node leads to, and those that the node before led
/// to. They stay where they were written: a copy would have to wait for that.
#[derive(Default)]
pub(super) struct Met {
    parts: [Fresh; 2],
    at: usize,
}

/// Nodes that one node leads to.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) slots: [Row; LINKS_BASE],
    pub(super) count: usize,
}

impl Met {
    #[inline(always)]
    pub(super) fn fresh(&mut self) -> &mut Fresh {
        &mut self.parts[self.at]
    }

    /// What is fresh, and what waits.
    #[inline(always)]
    pub(super) fn both(&self) -> (&[Row], &[Row]) {
        (self.parts[self.at].slots(), self.parts[self.at ^ 1].slots())
    }

    /// What is fresh now waits, and what waited is next.
    #[inline(always)]
    pub(super) fn turn(&mut self) {
        self.at ^= 1;
    }
}

impl Fresh {
    #[inline(always)]
    pub(super) fn slots(&self) -> &[Row] {
        &self.slots[..self.count]
    }
}

impl Scratch {
    pub(super) fn new(lines: usize) -> Box<Self> {
        Box::new(Self {
            probe: Probe::new(lines),
            edition: 0,
            vector: Vec::new(),
            other: Probe::new(lines),
            pool: Pool::default(),
            late: Pool::default(),
            refused: Refused::default(),
            marks: Marks::default(),
            met: Met::default(),
            work: Work::default(),
        })
    }
}

/// Scratch that no operation has at present.
pub(super) struct Scratches {
    lines: usize,
    #[expect(clippy::vec_box, reason = "an operation takes the box, not what is in it")]
    unused: Vec<Box<Scratch>>,
}

impl Scratches {
    pub(super) fn new(lines: usize) -> Self {
        Self { lines, unused: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Box<Scratch> {
        self.unused.pop().unwrap_or_else(|| Scratch::new(self.lines))
    }

    pub(super) fn put(&mut self, scratch: Box<Scratch>) {
        if self.unused.len() < SCRATCH_MAX {
            self.unused.push(scratch);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let of_one = |scratch: &Scratch| {
            scratch.marks.bytes()
                + scratch.probe.bytes()
                + scratch.other.bytes()
                + scratch.refused.bytes()
        };
        self.unused.iter().map(|scratch| of_one(scratch)).sum()
    }
}

/// Held by an operation while it may name rows.
pub(super) type Open = Arc<()>;

/// Which operations are open, and rows that rest on their account.
#[derive(Default)]
pub(super) struct Generations {
    /// Held by operations that began since the last turn.
    present: Open,
    /// Held by those that began before.
    former: Open,
    /// Freed before the last turn: only operations of the former generation may name them.
    resting: Vec<Row>,
    /// Freed since.
    freed: Vec<Row>,
}

impl Generations {
    pub(super) fn open(&self) -> Open {
        self.present.clone()
    }

    pub(super) fn is_anything_open(&self) -> bool {
        [&self.present, &self.former].into_iter().any(|open| Arc::strong_count(open) > 1)
    }

    /// Takes a row that nothing in the graph leads to any more.
    pub(super) fn rest(&mut self, row: Row) {
        self.freed.push(row);
    }

    /// A row that no open operation can name.
    pub(super) fn take_rested(&mut self) -> Option<Row> {
        if Arc::strong_count(&self.former) == 1 {
            if self.resting.is_empty() && !self.freed.is_empty() {
                std::mem::swap(&mut self.resting, &mut self.freed);
                std::mem::swap(&mut self.present, &mut self.former);
            }
            // Without an operation in the former generation they have rested.
            if Arc::strong_count(&self.former) == 1 {
                return self.resting.pop();
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> usize {
        (self.resting.capacity() + self.freed.capacity()) * size_of::<Row>()
    }
}
