//! A vector comes in.
//!
//! An insertion walks each layer once with `ef_construction` and then touches the links of at most 32
//! neighbours: its time is bounded by the options, not by the number of vectors, but for the walk's
//! length, which grows with its logarithm.

use super::{
    error::Invalid,
    graph::{Graph, Index, Node, Row, Scratch, State},
    options::{LEVEL_MAX, LINKS_NEW, LINKS_UPPER},
    pool::Found,
    prune::Work,
    rows::NONE,
};

impl Index {
    /// Stores a vector. Returns its row, which is its name until it is removed.
    ///
    /// The row may be one that a removed vector had. A full partition that has dead vectors is swept at once.
    ///
    /// # Errors
    ///
    /// The vector has another length, is not finite, or is zero under the cosine; or all rows are taken.
    pub fn insert(&mut self, vector: &[f32]) -> Result<Row, Invalid> {
        self.check_length(vector)?;
        self.scratch.probe.encode(vector, self.options.metric)?;
        if !self.has_room() {
            self.sweep_all();
        }
        if !self.has_room() {
            return Err(Invalid::Full { max: self.options.vectors_max });
        }
        let slot = self.place();
        self.connect(slot);
        Ok(slot)
    }

    fn has_room(&self) -> bool {
        self.sweep.has_free() || self.graph.nodes.len() < self.options.vectors_max as usize
    }

    /// Gives the probe's code a slot.
    fn place(&mut self) -> u32 {
        let level = self.random_level();
        let graph = &mut self.graph;
        let slot = self.sweep.take_free().unwrap_or(graph.nodes.len() as u32);
        let tower = if level == 0 { NONE } else { graph.take_tower() };
        let node = Node { tower, level: level as u8, state: State::Live };
        let probe = &self.scratch.probe;
        if slot as usize == graph.nodes.len() {
            graph.codes.reserve(slot);
            graph.base.reserve(slot);
            graph.nodes.push(node);
            graph.terms.push(probe.terms);
        } else {
            assert_eq!(graph.nodes[slot as usize].state, State::Free);
            graph.nodes[slot as usize] = node;
            graph.terms[slot as usize] = probe.terms;
        }
        probe.store(graph.codes.get_mut(slot));
        graph.set_links(slot, 0, &[]);
        self.live += 1;
        slot
    }

    /// Level `n` has a sixteenth of the nodes of the level below.
    fn random_level(&mut self) -> usize {
        let mut level = 0;
        while level < LEVEL_MAX && self.levels.usize(..LINKS_UPPER) == 0 {
            level += 1;
        }
        level
    }

    /// Links a node, whose code the probe is, with its neighbours on each of its layers.
    fn connect(&mut self, slot: u32) {
        let Self { graph, scratch, options, .. } = self;
        let level = graph.level(slot);
        let Some(entry) = graph.entry else {
            graph.entry = Some(slot);
            return;
        };
        let top = graph.level(entry);
        graph.descend(scratch, level.min(top));
        for layer in (0..=level.min(top)).rev() {
            scratch.pool.widen(options.ef_construction);
            graph.walk(scratch, layer);
            graph.link_both_ways(slot, layer, options.alpha, scratch);
        }
        if level > top {
            graph.entry = Some(slot);
        }
    }
}

impl Graph {
    fn take_tower(&mut self) -> u32 {
        let empty = [[NONE; LINKS_UPPER]; LEVEL_MAX];
        match self.towers_free.pop() {
            Some(tower) => {
                self.towers[tower as usize] = empty;
                tower
            }
            None => {
                self.towers.push(empty);
                self.towers.len() as u32 - 1
            }
        }
    }

    /// Links a node to the best live ones in the pool, and them to the node.
    fn link_both_ways(&mut self, slot: u32, layer: usize, alpha: f32, scratch: &mut Scratch) {
        let is_live = |found: &&Found| self.is_live(found.slot());
        if layer == 0 && !scratch.pool.found().iter().any(|found| is_live(&found)) {
            // All around are dead, and the sweep will take the links to them.
            self.scan(scratch, LINKS_UPPER, |node| node != slot);
        }
        let Scratch { other, pool, work, .. } = scratch;
        let Work { found, chosen, .. } = &mut *work;
        found.clear();
        found.extend(pool.found().iter().filter(is_live));
        let terms = self.terms[slot as usize];
        let links_max = if layer == 0 { LINKS_NEW } else { LINKS_UPPER };
        self.choose(found, terms, alpha, links_max, other, chosen);
        self.set_links(slot, layer, chosen);
        let chosen = std::mem::take(&mut work.chosen);
        for &neighbour in &chosen {
            self.link(neighbour, slot, layer, alpha, other, work);
        }
        work.chosen = chosen;
    }
}
