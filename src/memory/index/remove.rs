//! A vector goes, and its slot becomes free again.
//!
//! A removed node is only marked, so a removal costs the same however many link there. When a tenth of the
//! nodes are dead a *sweep* goes over all nodes, some with each removal, and replaces their links to the
//! nodes that were dead at its beginning by links to those nodes' own neighbours (as FreshDiskANN
//! consolidates; Singh and others, 2021). At its end nothing leads to them.

use super::{
    graph::{Graph, Index, Row, Scratch, State},
    options::LEVEL_MAX,
    prune::Work,
    rows::NONE,
};

/// Dead nodes that wait for a sweep in any case.
pub const DEAD_LEAST: usize = 32;
/// A sweep begins when this part of the nodes is dead.
const DEAD_PART: usize = 10;
/// Nodes that a removal sweeps: enough that a sweep ends before as many have died as it began with.
const SWEPT_AT_ONCE: usize = DEAD_PART + 2;

/// The state of the sweep, and what it has freed.
#[derive(Default)]
pub(super) struct Sweep {
    /// Dead nodes that no sweep has in hand.
    waiting: Vec<u32>,
    /// Dead nodes that this sweep frees at its end; none when there is no sweep.
    dying: Vec<u32>,
    /// The next node to be swept.
    cursor: usize,
    free: Vec<u32>,
}

impl Sweep {
    pub(super) fn dead(&self) -> usize {
        self.waiting.len() + self.dying.len()
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn take_free(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn bytes(&self) -> usize {
        let slots = self.waiting.capacity() + self.dying.capacity() + self.free.capacity();
        slots * size_of::<u32>()
    }
}

impl Index {
    /// Removes the vector of a row. False when there is none.
    pub fn remove(&mut self, row: Row) -> bool {
        if !self.contains(row) {
            return false;
        }
        self.graph.nodes[row as usize].state = State::Dead;
        self.live -= 1;
        self.sweep.waiting.push(row);
        self.sweep_some();
        true
    }

    /// Goes on with the sweep, or begins one when it is time.
    pub(super) fn sweep_some(&mut self) {
        if self.live == 0 {
            self.clear();
            return;
        }
        if self.sweep.dying.is_empty() {
            let enough = DEAD_LEAST.max(self.graph.nodes.len() / DEAD_PART);
            if self.sweep.waiting.len() < enough {
                return;
            }
            self.begin_sweep();
        }
        self.sweep_nodes(SWEPT_AT_ONCE);
    }

    /// Frees all dead nodes now. Takes as long as going over all nodes twice at worst.
    pub(super) fn sweep_all(&mut self) {
        self.sweep_nodes(usize::MAX);
        self.begin_sweep();
        self.sweep_nodes(usize::MAX);
    }

    fn begin_sweep(&mut self) {
        let sweep = &mut self.sweep;
        assert!(sweep.dying.is_empty());
        std::mem::swap(&mut sweep.waiting, &mut sweep.dying);
        sweep.cursor = 0;
        for &slot in &sweep.dying {
            self.graph.nodes[slot as usize].state = State::Dying;
        }
    }

    /// Sweeps the next nodes, to the sweep's end at most.
    fn sweep_nodes(&mut self, count: usize) {
        if self.sweep.dying.is_empty() {
            return;
        }
        for _ in 0..count {
            if self.sweep.cursor == self.graph.nodes.len() {
                self.free_dying();
                return;
            }
            let slot = self.sweep.cursor as u32;
            self.sweep.cursor += 1;
            if matches!(self.graph.nodes[slot as usize].state, State::Live | State::Dead) {
                for layer in 0..=self.graph.level(slot) {
                    self.graph.replace_dying(slot, layer, &mut self.scratch);
                }
            }
        }
    }

    /// Begins anew: there is no live node.
    fn clear(&mut self) {
        self.graph.clear();
        self.sweep = Sweep::default();
    }

    fn free_dying(&mut self) {
        let graph = &mut self.graph;
        for &slot in &self.sweep.dying {
            let node = &mut graph.nodes[slot as usize];
            node.state = State::Free;
            if node.tower != NONE {
                graph.towers_free.push(node.tower);
                node.tower = NONE;
            }
        }
        self.sweep.free.append(&mut self.sweep.dying);
        let entry_is_free = |entry| graph.nodes[entry as usize].state == State::Free;
        if graph.entry.is_some_and(entry_is_free) {
            graph.entry = graph.highest();
        }
    }
}

impl Graph {
    /// The node that is not free with the highest level; a live one where there are several.
    fn highest(&self) -> Option<u32> {
        let nodes = (0..).zip(&self.nodes).filter(|(_, node)| node.state != State::Free);
        let highest = nodes.max_by_key(|(_, node)| (node.level, node.state == State::Live));
        highest.map(|(slot, _)| slot)
    }

    /// Replaces each link to a dying node by the nearest of that node's live neighbours.
    fn replace_dying(&mut self, slot: u32, layer: usize, scratch: &mut Scratch) {
        debug_assert!(layer <= LEVEL_MAX);
        let Scratch { other, work, .. } = scratch;
        let Work { slots, found, chosen } = work;
        let is_dying = |link: u32| self.nodes[link as usize].state == State::Dying;
        let links = self.links(slot, layer);
        if !links.iter().any(|&link| is_dying(link)) {
            return;
        }
        chosen.clear();
        chosen.extend(links.iter().copied().filter(|&link| !is_dying(link)));
        let terms = self.terms[slot as usize];
        other.decode(self.codes.get(slot), terms, self.metric, self.kernels);
        for &dying in links.iter().filter(|&&link| is_dying(link)) {
            let next = self.links(dying, layer).iter().copied();
            slots.clear();
            slots.extend(
                next.filter(|next| self.is_live(*next) && *next != slot && !chosen.contains(next)),
            );
            self.rank_all(other, slots, found);
            chosen.extend(found.first().map(|found| found.slot()));
        }
        let chosen = std::mem::take(chosen);
        self.set_links(slot, layer, &chosen);
        scratch.work.chosen = chosen;
    }
}
