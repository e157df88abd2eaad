//! The nodes with their links, and the walk through one layer that all else is made of.

use super::{
    error::Invalid,
    kernels::{Kernels, Line, prefetch},
    marks::Marks,
    options::{IndexOptions, LEVEL_MAX, LINKS_BASE, LINKS_UPPER},
    pool::Pool,
    prune::Work,
    quantize::{Metric, Probe, Terms},
    remove::Sweep,
    rows::{BaseLinks, NONE, Rows},
};
use fastrand::Rng;

/// Places of a walk on the upper layers: with one alone, a query between far clusters may come down in the
/// wrong one and not get out again.
const DESCENT_WIDTH: usize = 4;

/// Whether a slot holds a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Live,
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
}

/// Links of a node on the layers from 1 upwards.
pub(super) type Tower = [[u32; LINKS_UPPER]; LEVEL_MAX];

/// Where a vector lies: rows are counted from zero, and one that was freed is taken again.
pub type Row = u32;

/// A partition of the vector index.
pub struct Index {
    pub(super) options: IndexOptions,
    pub(super) graph: Graph,
    pub(super) scratch: Scratch,
    pub(super) live: usize,
    pub(super) levels: Rng,
    pub(super) sweep: Sweep,
}

/// Nodes and links.
pub(super) struct Graph {
    pub(super) metric: Metric,
    pub(super) kernels: Kernels,
    pub(super) codes: Rows<Line>,
    pub(super) terms: Vec<Terms>,
    pub(super) base: Rows<BaseLinks>,
    pub(super) towers: Vec<Tower>,
    pub(super) towers_free: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    /// A node of the highest level.
    pub(super) entry: Option<u32>,
}

/// What one operation needs and the next one uses again.
pub(super) struct Scratch {
    pub(super) probe: Probe,
    /// Another code, while links are chosen.
    pub(super) other: Probe,
    pub(super) pool: Pool,
    pub(super) marks: Marks,
    pub(super) work: Work,
}

/// How large a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Vectors that can be found.
    pub live: usize,
    /// Vectors that were removed and whose rows are not free yet.
    pub dead: usize,
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
        let lines = options.dimensions.div_ceil(Line::BYTES);
        let graph = Graph {
            metric: options.metric,
            kernels: Kernels::detect(),
            codes: Rows::new(lines, Line::ZERO),
            terms: Vec::new(),
            base: Rows::new(1, BaseLinks::EMPTY),
            towers: Vec::new(),
            towers_free: Vec::new(),
            nodes: Vec::new(),
            entry: None,
        };
        let scratch = Scratch {
            probe: Probe::new(lines),
            other: Probe::new(lines),
            pool: Pool::default(),
            marks: Marks::default(),
            work: Work::default(),
        };
        Ok(Self {
            graph,
            scratch,
            live: 0,
            levels: Rng::with_seed(options.seed),
            sweep: Sweep::default(),
            options,
        })
    }

    /// How large the partition is.
    pub fn stats(&self) -> Stats {
        let graph = &self.graph;
        Stats {
            live: self.live,
            dead: self.sweep.dead(),
            rows: graph.nodes.len(),
            bytes: graph.bytes() + self.scratch.marks.bytes() + self.sweep.bytes(),
            kernels: graph.kernels.name,
        }
    }

    /// Whether a vector can be found at this row.
    pub fn contains(&self, row: Row) -> bool {
        self.graph.nodes.get(row as usize).is_some_and(|node| node.state == State::Live)
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
            _ => &self.towers[self.nodes[slot as usize].tower as usize][layer - 1],
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

    pub(super) fn is_live(&self, slot: u32) -> bool {
        self.nodes[slot as usize].state == State::Live
    }

    pub(super) fn level(&self, slot: u32) -> usize {
        usize::from(self.nodes[slot as usize].level)
    }

    /// The ranks of nodes as a probe sees them.
    #[inline(always)]
    pub(super) fn ranks(&self, probe: &Probe, slots: &[u32], ranks: &mut [f32; LINKS_BASE]) {
        let mut rows: [&[Line]; LINKS_BASE] = [&[]; LINKS_BASE];
        let mut products = [0; LINKS_BASE];
        for (row, &slot) in rows.iter_mut().zip(slots) {
            *row = self.codes.get(slot);
        }
        let count = slots.len();
        (self.kernels.dot_rows)(&probe.code, &rows[..count], &mut products[..count]);
        for (position, &slot) in slots.iter().enumerate() {
            ranks[position] = probe.rank(products[position], self.terms[slot as usize]);
        }
    }

    pub(super) fn rank(&self, probe: &Probe, slot: u32) -> f32 {
        let mut ranks = [0.0; LINKS_BASE];
        self.ranks(probe, &[slot], &mut ranks);
        ranks[0]
    }

    /// Fills the pool with the nodes of a layer nearest to the probe, from what the pool has to begin with.
    ///
    /// Follows the links of the nearest node that it has not followed yet, until all in the pool were.
    pub(super) fn walk(&self, scratch: &mut Scratch, layer: usize) {
        let Scratch { probe, pool, marks, .. } = scratch;
        marks.begin(self.nodes.len());
        for found in pool.found() {
            marks.first_visit(found.slot());
        }
        let mut ranks = [0.0; LINKS_BASE];
        let mut fresh = [0; LINKS_BASE];
        while let Some(slot) = pool.expand() {
            let mut count = 0;
            for &link in self.links(slot, layer) {
                // Written always, counted when new: no branch to guess wrong.
                fresh[count] = link;
                count += usize::from(marks.first_visit(link));
            }
            if let Some(next) = pool.likely_next().filter(|_| layer == 0) {
                self.base.prefetch(next);
            }
            for &slot in &fresh[..count] {
                self.codes.prefetch(slot);
                prefetch(std::slice::from_ref(&self.terms[slot as usize]));
            }
            self.ranks(probe, &fresh[..count], &mut ranks);
            for (&slot, &rank) in fresh[..count].iter().zip(&ranks) {
                if pool.offer(rank, slot) && layer == 0 {
                    self.base.prefetch(slot);
                }
            }
        }
    }

    /// Goes from the entry down to the layer above `layer`, always to the nearest nodes; leaves them in the pool.
    pub(super) fn descend(&self, scratch: &mut Scratch, layer: usize) {
        scratch.pool.begin(1);
        let Some(entry) = self.entry else { return };
        let rank = self.rank(&scratch.probe, entry);
        scratch.pool.offer(rank, entry);
        for above in (layer + 1..=self.level(entry)).rev() {
            scratch.pool.widen(DESCENT_WIDTH);
            self.walk(scratch, above);
        }
    }

    pub(super) fn clear(&mut self) {
        self.codes.clear();
        self.base.clear();
        self.terms.clear();
        self.towers.clear();
        self.towers_free.clear();
        self.nodes.clear();
        self.entry = None;
    }

    fn bytes(&self) -> usize {
        self.codes.bytes()
            + self.base.bytes()
            + self.terms.capacity() * size_of::<Terms>()
            + self.towers.capacity() * size_of::<Tower>()
            + self.towers_free.capacity() * size_of::<u32>()
            + self.nodes.capacity() * size_of::<Node>()
    }
}
