//! A vector goes, and its slot becomes free again.
//!
//! A removed node is only marked, so a removal costs the same however many link there. When a tenth of the
//! nodes are dead a *sweep* goes over all nodes, some with each removal, and replaces their links to the
//! nodes that were dead at its beginning by links to those nodes' own neighbours (as FreshDiskANN
//! consolidates; Singh and others, 2021). At its end nothing leads to them.

use super::{
    graph::{Graph, Index, Node, Row, State},
    options::{LEVEL_MAX, LINKS_NEAR_NEW},
    prune::{Work, links_max},
    rows::NONE,
    spread::Lengths,
    steps::{Budget, Generations, Scratch},
};
use std::sync::Weak;

/// Dead nodes that wait for a sweep in any case.
pub const DEAD_LEAST: usize = 32;
/// A sweep begins when this part of the nodes is dead.
const DEAD_PART: usize = 10;
/// Distances that a removal sweeps for: enough that a sweep ends before as many have died as it began with,
/// as a tenth of 24 links are replaced, each by the nearest of as many. Under the dot product there are more links.
const SWEPT_FOR_ONE: usize = 1024;
const SWEPT_FOR_ONE_DOT: usize = 1536;
/// Distances to sweep for each node that an insertion looked at.
const SWEPT_OF_A_NODE: usize = 4;
/// Dead nodes that a link is led through to a live one. Where links are few, as among vectors of two
/// components, many in a row may die.
const PASSED_MAX: usize = 32;
/// Links on that way that are looked at in the time of a distance: each node's state lies somewhere else.
const LOOKS_OF_A_DISTANCE: usize = 2;
/// What looking at a node's links takes, in distances.
const NODE_COST: usize = 4;

/// The state of the sweep.
#[derive(Default)]
pub(super) struct Sweep {
    /// Dead nodes that no sweep has in hand.
    waiting: Vec<u32>,
    /// Dead nodes that this sweep frees; none when there is no sweep.
    dying: Vec<u32>,
    phase: Phase,
    /// The node of the highest level that this sweep has passed, or that came during it.
    highest: Option<(usize, u32)>,
    /// Distances that are still to be swept for.
    owed: usize,
}

/// What a sweep does to the next of the nodes, or of the dying ones.
#[derive(Clone, Copy, Default)]
enum Phase {
    #[default]
    Idle,
    /// Tells the dying ones from those that die later.
    Mark(usize),
    /// Takes the links to them.
    Replace(usize),
    Free(usize),
}

impl Sweep {
    pub(super) fn dead(&self) -> usize {
        let freed = if let Phase::Free(next) = self.phase { next } else { 0 };
        self.waiting.len() + self.dying.len() - freed
    }

    /// Takes note of a node that will outlast the sweep.
    pub(super) fn passes(&mut self, slot: u32, level: usize) {
        if self.highest.is_none_or(|(highest, _)| highest < level) {
            self.highest = Some((level, slot));
        }
    }

    /// An insertion looks at all nodes because of the dead ones: as much sweeping is owed, so that few others have to.
    pub(super) fn owe(&mut self, graph: &Graph) {
        if self.dead() > 0 {
            self.owed += SWEPT_OF_A_NODE * graph.nodes.len();
        }
    }

    #[cfg(test)]
    pub(super) fn is_under_way(&self) -> bool {
        !self.dying.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        (self.waiting.capacity() + self.dying.capacity()) * size_of::<u32>()
    }
}

impl Index {
    /// Removes the vector of a row, and sweeps as far as a removal must. False when there is none.
    pub fn remove(&mut self, row: Row) -> bool {
        let was_there = self.begin_remove(row);
        while self.sweep_some(usize::MAX) {}
        was_there
    }

    /// Removes the vector of a row and leaves it owed to sweep, which [`sweep_some`](Self::sweep_some) does in
    /// steps, before the next removal begins. False when there is none.
    pub fn begin_remove(&mut self, row: Row) -> bool {
        if !self.contains(row) {
            return false;
        }
        self.live.leave(row);
        self.bury(row);
        if self.live.is_empty() && self.forget_dead() {
            return true;
        }
        if self.is_sweep_due() {
            let is_dot = self.graph.links_products(0);
            self.sweep.owed += if is_dot { SWEPT_FOR_ONE_DOT } else { SWEPT_FOR_ONE };
        }
        true
    }

    fn is_sweep_due(&self) -> bool {
        let enough = DEAD_LEAST.max(self.graph.nodes.len() / DEAD_PART);
        !self.sweep.dying.is_empty() || self.sweep.waiting.len() >= enough
    }

    /// Whether removals, or insertions among what is dead, owe a part of a sweep.
    pub fn owes_sweep(&self) -> bool {
        self.sweep.owed > 0
    }

    /// Sweeps for about as many distances, if any are owed; false when none are.
    pub fn sweep_some(&mut self, distances: usize) -> bool {
        let distances = distances.min(self.sweep.owed);
        if distances == 0 {
            return false;
        }
        self.sweep.owed -= distances;
        let mut scratch = self.scratches.take();
        let is_over = self.sweep_on(&mut scratch, &mut Budget::new(distances));
        self.scratches.put(scratch);
        if is_over && !self.is_sweep_due() {
            self.sweep.owed = 0;
        }
        true
    }

    pub(super) fn bury(&mut self, row: Row) {
        let node = &mut self.graph.nodes[row as usize];
        if node.state == State::Late {
            self.late.forget(row);
        }
        node.state = State::Dead;
        self.sweep.waiting.push(row);
        if let Some(first) = &mut self.first {
            first.forget(row);
        }
    }

    /// Buries nodes whose insertions were dropped.
    pub(super) fn bury_abandoned(&mut self) {
        let is_abandoned = |(_, open): &(Row, Weak<()>)| open.strong_count() == 0;
        while let Some(at) = self.coming.iter().position(is_abandoned) {
            let (row, _) = self.coming.swap_remove(at);
            self.bury(row);
        }
    }

    /// Begins anew when nothing lives and no operation can name a row. Memory is kept for what comes.
    pub(super) fn forget_dead(&mut self) -> bool {
        let is_settled = self.coming.is_empty() && self.promised == 0;
        let forgets = is_settled && !self.generations.is_anything_open();
        if forgets {
            self.graph.clear();
            self.forget_centre();
            self.sweep = Sweep::default();
            self.late = Default::default();
            self.coarse = Default::default();
            self.reach = Default::default();
            self.generations = Generations::default();
        }
        forgets
    }

    pub(super) fn has_dead(&self) -> bool {
        self.sweep.dead() > 0
    }

    /// Goes on with the sweep of nodes that are dead, or begins one. True when it has freed them all, false
    /// when the budget ended before.
    pub(super) fn sweep_on(&mut self, scratch: &mut Scratch, budget: &mut Budget) -> bool {
        let Self { graph, sweep, generations, reach, .. } = self;
        while !budget.is_spent() {
            match &mut sweep.phase {
                Phase::Idle => {
                    std::mem::swap(&mut sweep.waiting, &mut sweep.dying);
                    sweep.highest = None;
                    sweep.phase = Phase::Mark(0);
                }
                Phase::Mark(next) => {
                    let Some(&slot) = sweep.dying.get(*next) else {
                        sweep.phase = Phase::Replace(0);
                        continue;
                    };
                    *next += 1;
                    graph.nodes[slot as usize].state = State::Dying;
                    budget.spend(1);
                }
                Phase::Replace(next) => {
                    let Some(node) = graph.nodes.get(*next) else {
                        if graph.entry.is_some_and(|entry| graph.state(entry) == State::Dying) {
                            graph.entry = sweep.highest.map(|(_, slot)| slot);
                        }
                        sweep.phase = Phase::Free(0);
                        continue;
                    };
                    let (slot, level) = (*next as u32, usize::from(node.level));
                    let is_late = node.state == State::Late;
                    budget.spend(NODE_COST);
                    if !matches!(node.state, State::Free | State::Promised | State::Dying) {
                        let mut layers = 0..=level;
                        if !layers.all(|layer| graph.replace_dying(slot, layer, scratch, budget)) {
                            // What is left of this node is the next step's.
                            return false;
                        }
                        *next += 1;
                        if !is_late {
                            sweep.passes(slot, level);
                        }
                    } else {
                        *next += 1;
                    }
                }
                Phase::Free(next) => {
                    let Some(&slot) = sweep.dying.get(*next) else {
                        sweep.dying.clear();
                        sweep.phase = Phase::Idle;
                        reach.ask();
                        return true;
                    };
                    *next += 1;
                    graph.free(slot);
                    generations.rest(slot);
                    budget.spend(NODE_COST);
                }
            }
        }
        false
    }
}

impl Graph {
    fn state(&self, slot: u32) -> State {
        self.nodes[slot as usize].state
    }

    fn free(&mut self, slot: u32) {
        let Node { tower, .. } = std::mem::replace(&mut self.nodes[slot as usize], Node::FREE);
        if tower != NONE {
            self.towers_free.push(tower);
        }
        self.set_links(slot, 0, &[]);
    }

    fn clear(&mut self) {
        self.terms.clear();
        self.link_terms.clear();
        self.towers.clear();
        self.towers_free.clear();
        self.nodes.clear();
        self.entry = None;
        self.has_near = true;
        self.lengths = Lengths::default();
    }

    /// Live neighbours of a dead node, other than `slot` and those that it has, or of the dead ones behind it: the
    /// first that there are. The number of links that were looked at.
    fn live_behind(
        &self,
        dead: u32,
        slot: u32,
        layer: usize,
        has: &[u32],
        passed: &mut Vec<u32>,
        live: &mut Vec<u32>,
    ) -> usize {
        live.clear();
        passed.clear();
        passed.push(dead);
        let (mut at, mut looked_at) = (0, 0);
        while live.is_empty() && at < passed.len() {
            let links = self.links(passed[at], layer);
            looked_at += links.len();
            for &next in links {
                if self.is_live(next) {
                    if next != slot && !has.contains(&next) {
                        live.push(next);
                    }
                } else if passed.len() < PASSED_MAX && !passed.contains(&next) {
                    passed.push(next);
                }
            }
            at += 1;
        }
        looked_at
    }

    /// Replaces each link to a dying node by the nearest of that node's live neighbours. False when the budget
    /// ended before the last of them.
    fn replace_dying(
        &mut self,
        slot: u32,
        layer: usize,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> bool {
        debug_assert!(layer <= LEVEL_MAX);
        let Scratch { other, work, .. } = scratch;
        let Work { slots, found, chosen, passed, .. } = work;
        let is_dying = |link: u32| self.nodes[link as usize].state == State::Dying;
        let links = self.links(slot, layer);
        if !links.iter().any(|&link| is_dying(link)) {
            return true;
        }
        chosen.clear();
        chosen.extend(links.iter().copied().filter(|&link| !is_dying(link)));
        // By the dot product the first links lead to near nodes, but for images of before they did.
        let near_max = match self.links_products(layer) {
            true if self.has_near => LINKS_NEAR_NEW,
            true => 0,
            false => links_max(layer),
        };
        let mut near = links.iter().take(near_max).filter(|&&link| !is_dying(link)).count();
        self.decode(slot, self.coding.metric.of_links(), other);
        let mut dying = links.iter().copied().enumerate().filter(|&(_, link)| is_dying(link));
        for (_, dying) in dying.by_ref() {
            let looked_at = self.live_behind(dying, slot, layer, chosen, passed, slots);
            budget.spend(slots.len() + looked_at / LOOKS_OF_A_DISTANCE);
            if near == near_max && other.metric != self.coding.metric {
                self.decode(slot, self.coding.metric, other);
            }
            self.rank_all(other, slots, found);
            budget.spend_coded(other);
            match found.first().map(|found| found.slot()) {
                Some(nearest) if near < near_max => {
                    chosen.insert(near, nearest);
                    near += 1;
                }
                other => chosen.extend(other),
            }
            if budget.is_spent() {
                break;
            }
        }
        let replaced = chosen.len();
        for (place, dying) in dying {
            // Each stays among its own, so that the next step knows what replaces it.
            if place < near_max && near < near_max {
                chosen.insert(near, dying);
                near += 1;
            } else {
                chosen.push(dying);
            }
        }
        let is_done = chosen.len() == replaced;
        let chosen = std::mem::take(chosen);
        self.set_links(slot, layer, &chosen);
        scratch.work.chosen = chosen;
        is_done
    }
}
