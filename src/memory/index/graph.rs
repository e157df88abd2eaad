//! The nodes with their links, and the walk through one layer that all else is made of.

use super::{
    centre::First,
    coarse::{Coarse, Mark},
    error::Invalid,
    kernels::{Line, prefetch_value},
    late::Late,
    live::Live,
    options::{IndexOptions, LEVEL_MAX, LINKS_BASE, LINKS_UPPER},
    quantize::{Coding, Metric, Probe, Terms, largest_component},
    reach::Reach,
    remove::Sweep,
    rows::{BaseLinks, Column, NONE, PagesAhead, Rows},
    spread::Lengths,
    steps::{Budget, Generations, Met, Scratch, Scratches, step_distances},
};
use fastrand::Rng;
use std::sync::Weak;

/// Places of a walk on the upper layers: with one alone, a query between far clusters may come down in the
/// wrong one and not get out again.
const DESCENT_WIDTH: usize = 4;

/// Codes that are compared, and as many that are fetched, before it is the other's turn.
const IN_TURN: usize = 4;

/// Keeping a node among so many takes about as long as computing its distance.
pub(super) const PLACES_OF_A_DISTANCE: usize = 2048;
/// Marks of so many nodes are wiped off in the time of a distance.
pub(super) const MARKS_OF_A_DISTANCE: usize = 1 << 14;

/// Whether a slot holds a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Free = 0,
    /// Free, and kept for an insertion at this very row.
    Promised,
    /// Its insertion is open: not found yet, but walked through and linked to.
    Coming,
    Live,
    /// As live, and not linked yet: searches compare it before they walk.
    Late,
    /// Removed: not found any more, but walked through until a sweep has taken all links to it.
    Dead,
    /// Dead, and the present sweep takes the links to it.
    Dying,
}

/// What a walk does not need of a node.
#[derive(Clone, Copy)]
pub(super) struct Node {
    /// Its place among the towers, when its level is above zero.
    pub(super) tower: u32,
    pub(super) level: u8,
    pub(super) state: State,
    /// The number of the centre that its code is around.
    pub(super) centre: u8,
    /// Whether its code was found to be coarse.
    pub(super) coarse: Mark,
}

impl Node {
    pub(super) const FREE: Node = Node::new(NONE, 0, State::Free);

    pub(super) const fn new(tower: u32, level: u8, state: State) -> Self {
        Self { tower, level, state, centre: 0, coarse: Mark::NONE }
    }
}

/// Links of a node on the layers from 1 upwards.
pub(super) type Tower = [[u32; LINKS_UPPER]; LEVEL_MAX];

/// Where a vector lies: rows are counted from zero, and one that was freed is taken again.
pub type Row = u32;

/// A partition of the vector index.
pub struct Index {
    pub(super) options: IndexOptions,
    pub(super) graph: Graph,
    pub(super) scratches: Scratches,
    pub(super) generations: Generations,
    /// Rows that can be found.
    pub(super) live: Live,
    /// Rows whose insertions are open, or were dropped when the second is gone.
    pub(super) coming: Vec<(Row, Weak<()>)>,
    /// Rows that are kept for insertions at them.
    pub(super) promised: usize,
    pub(super) levels: Rng,
    pub(super) sweep: Sweep,
    pub(super) late: Late,
    /// What will tell the centre, until that is chosen.
    pub(super) first: Option<First>,
    pub(super) coarse: Coarse,
    pub(super) reach: Reach,
}

/// Nodes and links.
pub(super) struct Graph {
    pub(super) coding: Coding,
    pub(super) codes: Rows<Line>,
    pub(super) terms: Column<Terms>,
    /// Terms by the metric of links, where that is another one.
    pub(super) link_terms: Column<Terms>,
    /// Under the dot product nodes link to near ones first: all, but where an image is of before they did.
    pub(super) has_near: bool,
    pub(super) lengths: Lengths,
    pub(super) base: Rows<BaseLinks>,
    pub(super) towers: Column<Tower>,
    pub(super) towers_free: Vec<u32>,
    pub(super) nodes: Column<Node>,
    /// A node whose level no live node exceeds.
    pub(super) entry: Option<u32>,
}

/// How far a way down the layers has come.
pub(super) struct Descent {
    layer: usize,
    /// Not walked any more.
    end: usize,
}

/// How large a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Vectors that can be found.
    pub live: usize,
    /// Vectors that were removed and whose rows are not free yet.
    pub dead: usize,
    /// Vectors that no way led to, or from, and that were linked again.
    pub mended: usize,
    /// Rows that were ever taken; each row is below this number.
    pub rows: usize,
    /// Bytes reserved for codes, links and all else here.
    pub bytes: usize,
    /// The instructions that distances are computed with.
    pub kernels: &'static str,
}

impl Index {
    /// An empty partition.
    ///
    /// # Errors
    ///
    /// An option is out of its range.
    pub fn new(options: IndexOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let coding = Coding::new(options.dimensions, options.metric);
        let lines = coding.lines();
        let graph = Graph {
            coding,
            codes: Rows::new(lines),
            terms: Column::new(),
            link_terms: Column::new(),
            has_near: true,
            lengths: Lengths::default(),
            base: Rows::new(1),
            towers: Column::new(),
            towers_free: Vec::new(),
            nodes: Column::new(),
            entry: None,
        };
        Ok(Self {
            scratches: Scratches::new(lines),
            generations: Generations::default(),
            live: Live::default(),
            coming: Vec::new(),
            promised: 0,
            levels: Rng::with_seed(options.seed),
            sweep: Sweep::default(),
            late: Late::default(),
            first: First::of(&graph.coding),
            coarse: Coarse::default(),
            reach: Reach::default(),
            graph,
            options,
        })
    }

    /// Distances of a step of a few microseconds: fewer where vectors are long.
    pub fn step_distances(&self) -> usize {
        step_distances(self.graph.coding.lines())
    }

    /// Has distances computed by something slower.
    #[cfg(test)]
    pub fn set_kernel(&mut self, dot_rows: super::kernels::DotRows) {
        self.graph.coding.kernels.dot_rows = dot_rows;
    }

    /// How large the partition is.
    pub fn stats(&self) -> Stats {
        let graph = &self.graph;
        Stats {
            live: self.live.len(),
            dead: self.sweep.dead(),
            mended: self.reach.mended(),
            rows: graph.nodes.len(),
            bytes: graph.bytes()
                + self.scratches.bytes()
                + self.generations.bytes()
                + self.sweep.bytes()
                + self.late.bytes()
                + self.live.bytes()
                + self.coarse.bytes()
                + self.reach.bytes()
                + self.first.as_ref().map_or(0, First::bytes),
            kernels: graph.coding.kernels.name,
        }
    }

    /// Memory that will be needed soon; nothing most of the time. Whoever steps the index should have it made by
    /// another thread, or the step that meets it waits for the system to make it.
    pub fn take_ahead(&mut self) -> Option<PagesAhead> {
        let graph = &mut self.graph;
        let of_rows = graph.codes.take_ahead().or_else(|| graph.base.take_ahead());
        of_rows.or_else(|| graph.towers.take_ahead())
    }

    /// Whether a vector can be found at this row.
    pub fn contains(&self, row: Row) -> bool {
        (row as usize) < self.graph.nodes.len() && self.graph.is_live(row)
    }

    /// Finds out whether a vector can be stored, but for the room that there is.
    ///
    /// # Errors
    ///
    /// The vector has another length, is not finite, or is zero under the cosine.
    pub fn check(&self, vector: &[f32]) -> Result<(), Invalid> {
        self.check_length(vector)?;
        largest_component(vector, self.options.metric).map(drop)
    }

    pub(super) fn check_length(&self, vector: &[f32]) -> Result<(), Invalid> {
        let (given, expected) = (vector.len(), self.options.dimensions);
        if given == expected { Ok(()) } else { Err(Invalid::Dimensions { given, expected }) }
    }
}

impl Graph {
    /// Links of a node, which end at the first `NONE`.
    #[inline(always)]
    pub(super) fn links(&self, slot: u32, layer: usize) -> &[u32] {
        let links = match layer {
            0 => &self.base.get(slot)[0].0[..],
            // A free node has none: an open operation may still name it.
            _ => match self.towers.get(self.nodes[slot as usize].tower as usize) {
                Some(tower) => &tower[layer - 1][..],
                None => &[],
            },
        };
        let length = links.iter().position(|&link| link == NONE).unwrap_or(links.len());
        &links[..length]
    }

    /// All places for links of a node.
    pub(super) fn links_mut(&mut self, slot: u32, layer: usize) -> &mut [u32] {
        match layer {
            0 => &mut self.base.get_mut(slot)[0].0,
            _ => &mut self.towers[self.nodes[slot as usize].tower as usize][layer - 1],
        }
    }

    /// Replaces the links of a node.
    pub(super) fn set_links(&mut self, slot: u32, layer: usize, links: &[u32]) {
        debug_assert!(links.iter().all(|&link| link != slot));
        let (taken, rest) = self.links_mut(slot, layer).split_at_mut(links.len());
        taken.copy_from_slice(links);
        rest.fill(NONE);
    }

    #[inline]
    pub(super) fn is_live(&self, slot: u32) -> bool {
        matches!(self.nodes[slot as usize].state, State::Live | State::Late)
    }

    /// Whether a new link may lead to a node.
    pub(super) fn is_linkable(&self, slot: u32) -> bool {
        matches!(self.nodes[slot as usize].state, State::Live | State::Coming)
    }

    pub(super) fn level(&self, slot: u32) -> usize {
        usize::from(self.nodes[slot as usize].level)
    }

    /// The ranks of at most `N` nodes as a probe sees them.
    #[inline(always)]
    pub(super) fn ranks<const N: usize>(
        &self,
        probe: &mut Probe,
        slots: &[u32],
        ranks: &mut [f32; N],
    ) {
        if self.coding.has_several() {
            return self.ranks_of_several(probe, slots, ranks);
        }
        let mut rows: [&[Line]; N] = [&[]; N];
        for (row, &slot) in rows.iter_mut().zip(slots) {
            *row = self.codes.get(slot);
        }
        let rows = &rows[..slots.len()];
        // Written twice, so that what is not of the dot product chooses nothing for each row.
        if probe.metric == self.coding.metric {
            let terms = |position| self.terms[slots[position] as usize];
            self.coding.ranks(probe, rows, terms, ranks);
        } else {
            let terms = |position| self.link_terms[slots[position] as usize];
            self.coding.ranks(probe, rows, terms, ranks);
        }
    }

    /// The ranks of some nodes, while the codes of others are fetched, in turns: the processor has room for few lines that are on
    /// their way, and would wait where all were asked for at once.
    #[inline(always)]
    pub(super) fn ranks_and_fetch(
        &self,
        probe: &mut Probe,
        slots: &[u32],
        coming: &[u32],
        ranks: &mut [f32; LINKS_BASE],
    ) {
        let has_several = self.coding.has_several();
        let terms = self.terms_by(probe.metric);
        let fetch = |slots: &[u32]| {
            for &slot in slots {
                self.codes.prefetch(slot);
                prefetch_value(&terms[slot as usize]);
                if has_several {
                    prefetch_value(&self.nodes[slot as usize]);
                }
            }
        };
        let mut coming = coming.chunks(IN_TURN);
        for (slots, ranks) in slots.chunks(IN_TURN).zip(ranks.as_chunks_mut::<IN_TURN>().0) {
            fetch(coming.next().unwrap_or_default());
            self.ranks(probe, slots, ranks);
        }
        coming.for_each(fetch);
    }

    /// The same where rows are around several centres: those around one at a time.
    #[inline(never)]
    fn ranks_of_several<const N: usize>(
        &self,
        probe: &mut Probe,
        slots: &[u32],
        ranks: &mut [f32; N],
    ) {
        let centre = |position: usize| self.nodes[slots[position] as usize].centre;
        let (mut begun, mut rows) = (0, [&[][..]; N]);
        let all_terms = self.terms_by(probe.metric);
        // Most of the time all are around one: what lies there side by side is compared at once.
        while begun < slots.len() {
            let next = centre(begun);
            let mut end = begun;
            while end < slots.len() && centre(end) == next {
                rows[end - begun] = self.codes.get(slots[end]);
                end += 1;
            }
            let terms = |at: usize| all_terms[slots[begun + at] as usize];
            let (rows, ranks) = (&rows[..end - begun], &mut ranks[begun..end]);
            self.coding.ranks_around::<N>(probe, next, rows, terms, ranks);
            begun = end;
        }
    }

    /// What belongs to the rows' codes in the formula of a metric: the index's, or that of links.
    #[inline(always)]
    pub(super) fn terms_by(&self, metric: Metric) -> &Column<Terms> {
        if metric == self.coding.metric { &self.terms } else { &self.link_terms }
    }

    /// Whether nodes of a layer link to those of the largest products, behind near ones.
    pub(super) fn links_products(&self, layer: usize) -> bool {
        layer == 0 && self.coding.metric == Metric::Dot
    }

    /// Makes the probe the code of a node, to be compared by a metric: the index's, or that of links.
    pub(super) fn decode(&self, slot: u32, metric: Metric, probe: &mut Probe) {
        let (row, terms) = (self.codes.get(slot), self.terms_by(metric)[slot as usize]);
        self.coding.decode(row, terms, self.nodes[slot as usize].centre, metric, probe);
    }

    pub(super) fn rank(&self, probe: &mut Probe, slot: u32) -> f32 {
        let mut ranks = [0.0];
        self.ranks(probe, &[slot], &mut ranks);
        ranks[0]
    }

    /// Begins a walk from what the pool has.
    pub(super) fn begin_walk(&self, scratch: &mut Scratch, width: usize, budget: &mut Budget) {
        let Scratch { pool, marks, met, .. } = scratch;
        *met = Met::default();
        budget.spend(self.nodes.len() / MARKS_OF_A_DISTANCE);
        pool.widen(width);
        marks.begin(self.nodes.len());
        for found in pool.found() {
            marks.first_visit(found.slot());
        }
    }

    /// Fills the pool with the nodes of a layer nearest to the probe. False when the budget ended before.
    ///
    /// Follows the links of the nearest node that it has not followed yet, until all in the pool were. On the lowest
    /// layer, while codes that one node led to are on their way from memory, those of the node before are compared; so
    /// which node is followed next does not know of the latest ones yet. The marks are large enough for all nodes.
    pub(super) fn walk(&self, scratch: &mut Scratch, layer: usize, budget: &mut Budget) -> bool {
        let Scratch { probe, pool, marks, met, .. } = scratch;
        let mut ranks = [0.0; LINKS_BASE];
        loop {
            let next = pool.expand();
            let fresh = met.fresh();
            if let Some(slot) = next {
                for &link in self.links(slot, layer) {
                    // Written always, counted when new: no branch to guess wrong.
                    fresh.slots[fresh.count] = link;
                    fresh.count += usize::from(marks.first_visit(link));
                }
            }
            if layer == 0 {
                met.turn();
            }
            if let Some(next) = pool.likely_next().filter(|_| layer == 0) {
                self.base.prefetch(next);
            }
            let (slots, coming) = met.both();
            let coming = if layer == 0 { coming } else { slots };
            let count = slots.len();
            self.ranks_and_fetch(probe, slots, coming, &mut ranks);
            pool.offer(&ranks[..count], slots);
            met.fresh().count = 0;
            if let Some(next) = pool.likely_next().filter(|_| layer == 0) {
                self.base.prefetch(next);
            }
            if next.is_none() && count == 0 {
                return true;
            }
            budget.spend(1 + count + count * pool.found().len() / PLACES_OF_A_DISTANCE);
            budget.spend_coded(probe);
            if budget.is_spent() {
                return false;
            }
        }
    }

    /// Begins at the entry; the descent ends above `layer`.
    pub(super) fn begin_descent(&self, scratch: &mut Scratch, layer: usize) -> Descent {
        scratch.pool.begin(1);
        let top = self.entry.map(|entry| {
            let rank = self.rank(&mut scratch.probe, entry);
            scratch.pool.offer(&[rank], &[entry]);
            self.level(entry)
        });
        let descent = Descent { layer: top.unwrap_or(0).max(layer), end: layer };
        if descent.layer > layer {
            self.begin_walk(scratch, DESCENT_WIDTH, &mut Budget::unlimited());
        }
        descent
    }

    /// Goes down layer by layer, always to the nearest nodes, and leaves them in the pool. False when the
    /// budget ended before.
    pub(super) fn descend(
        &self,
        scratch: &mut Scratch,
        descent: &mut Descent,
        budget: &mut Budget,
    ) -> bool {
        while descent.layer > descent.end {
            if !self.walk(scratch, descent.layer, budget) {
                return false;
            }
            descent.layer -= 1;
            if descent.layer > descent.end {
                self.begin_walk(scratch, DESCENT_WIDTH, budget);
            }
        }
        true
    }

    fn bytes(&self) -> usize {
        self.codes.bytes()
            + self.coding.centres_bytes()
            + self.base.bytes()
            + self.terms.bytes()
            + self.link_terms.bytes()
            + self.towers.bytes()
            + self.towers_free.capacity() * size_of::<u32>()
            + self.nodes.bytes()
    }
}
