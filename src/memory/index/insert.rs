//! A vector comes in.
//!
//! An insertion walks each layer once with `ef_construction` and then touches the links of at most 28
//! neighbours: its time is bounded by the options, not by the number of vectors, but for the walk's
//! length, which grows with its logarithm. Only where nearly all around are dead it looks at all nodes, and
//! where the partition is full of dead ones it sweeps them first.

use super::{
    error::Invalid,
    graph::{Descent, Graph, Index, Node, Row, State},
    options::{
        IndexOptions, LEVEL_MAX, LINKS_BASE, LINKS_NEAR_NEW, LINKS_NEW, LINKS_NEW_DOT, LINKS_UPPER,
    },
    prune::Choice,
    quantize::{Metric, Probe, Terms},
    rows::NONE,
    steps::{Budget, Open, Scratch},
};
use std::sync::Arc;

/// Candidates of the lowest layer, for one on a layer above it: there a node gets few links, and only descents follow
/// them.
const UPPER_PART: usize = 4;
/// Candidates by the dot product, for one by what is near: of those a node gets fewer links.
const NEAR_PART: usize = 3;

/// An insertion that goes on step by step. Others may be open beside it, and vectors may go in between. When
/// it is dropped before its end, its vector is not in the index, and its row is freed in time.
pub struct Insertion {
    /// Gone when the insertion has ended.
    scratch: Option<Box<Scratch>>,
    phase: Phase,
}

enum Phase {
    /// It has no row yet.
    Room,
    /// It is to have this row.
    At(Row),
    Linking {
        linking: Linking,
        row: Row,
        /// It was there before, and has another code now.
        is_recoded: bool,
        _open: Open,
    },
}

/// How far the linking of a node has come; layers come from above.
pub(super) enum Linking {
    Descend(Descent, usize),
    Walk(usize),
    /// Walks the lowest layer by the dot product, after links to near ones were made.
    WalkProducts,
    /// Looks for linkable nodes among all, from this one on, as a walk met none.
    Scan(Row),
    Choose(usize, Choice),
    /// The next of the chosen to be linked back, and how far the choice of its links has come.
    Back(usize, usize, Option<Choice>),
}

impl Index {
    /// Stores a vector. Returns its row, which is its name until it is removed.
    ///
    /// The row may be one that a removed vector had. A full partition that has dead vectors is swept at once.
    ///
    /// # Errors
    ///
    /// The vector has another length, is not finite, or is zero under the cosine; or all rows are taken.
    pub fn insert(&mut self, vector: &[f32]) -> Result<Row, Invalid> {
        let mut insertion = self.begin_insert(vector)?;
        insertion.go_on(self, &mut Budget::unlimited()).expect("it goes on to its end")
    }

    /// Stores a vector at a row that a loaded image left to be inserted again.
    ///
    /// # Errors
    ///
    /// Those of [`insert`](Self::insert); or the row is none of those.
    pub fn insert_at(&mut self, row: Row, vector: &[f32]) -> Result<(), Invalid> {
        let mut insertion = self.begin_insert_at(row, vector)?;
        let row = insertion.go_on(self, &mut Budget::unlimited()).expect("it goes on to its end");
        row.map(|_| ())
    }

    /// Gives up a row that a loaded image left to be inserted again: its vector is lost. False when it is none of
    /// those.
    pub fn forgo(&mut self, row: Row) -> bool {
        let nodes = &mut self.graph.nodes;
        let is_promised =
            (row as usize) < nodes.len() && nodes[row as usize].state == State::Promised;
        if is_promised {
            self.graph.nodes[row as usize].state = State::Free;
            self.promised -= 1;
            self.generations.rest(row);
        }
        is_promised
    }

    /// Begins what [`insert_at`](Self::insert_at) does at once. An insertion that is dropped after its first step
    /// gives up the row.
    ///
    /// # Errors
    ///
    /// Those of [`begin_insert`](Self::begin_insert). That the row is none of those, the first step says.
    pub fn begin_insert_at(&mut self, row: Row, vector: &[f32]) -> Result<Insertion, Invalid> {
        let insertion = self.begin_insert(vector)?;
        Ok(Insertion { phase: Phase::At(row), ..insertion })
    }

    /// Begins what [`insert`](Self::insert) does at once. The vector is not found before the end.
    ///
    /// # Errors
    ///
    /// The vector has another length, is not finite, or is zero under the cosine.
    pub fn begin_insert(&mut self, vector: &[f32]) -> Result<Insertion, Invalid> {
        self.check_length(vector)?;
        self.bury_abandoned();
        if self.live.is_empty() {
            self.forget_dead();
        }
        let scratch = self.begin_scratch(vector, self.options.metric.of_links())?;
        Ok(Insertion { scratch: Some(scratch), phase: Phase::Room })
    }

    /// A row for a new node, if there is one.
    pub(super) fn take_row(&mut self) -> Option<Row> {
        let rows = self.graph.nodes.len() as Row;
        self.generations.take_rested().or((rows < self.options.vectors_max).then_some(rows))
    }

    /// A level for a new node, and room for its links there.
    pub(super) fn draw_level(&mut self) -> (usize, u32) {
        let mut level = 0;
        // Level `n` has a sixteenth of the nodes of the level below.
        while level < LEVEL_MAX && self.levels.usize(..LINKS_UPPER) == 0 {
            level += 1;
        }
        (level, if level == 0 { NONE } else { self.graph.take_tower() })
    }

    /// Gives the probe's code its row.
    fn place(&mut self, scratch: &Scratch, row: Row) {
        let (level, tower) = self.draw_level();
        let node = Node::new(tower, level as u8, State::Coming);
        self.graph.place(&scratch.probe, row, node);
        self.sweep.passes(row, level);
    }

    /// What an insertion's node is when the insertion has ended.
    pub(super) fn arrive(&mut self, row: Row) {
        self.reach.note_linked(row, &self.graph);
        self.coming.retain(|(coming, _)| *coming != row);
        let state = &mut self.graph.nodes[row as usize].state;
        let was_late = *state == State::Late;
        *state = State::Live;
        let level = self.graph.level(row);
        if was_late {
            // It has been there before it was linked, and could be no entry.
            self.sweep.passes(row, level);
        } else {
            self.live.enter(row);
        }
        if self.graph.entry.is_none_or(|entry| self.graph.level(entry) < level) {
            self.graph.entry = Some(row);
        }
    }
}

impl Insertion {
    /// Goes on for about as many distances; the row when the insertion has ended.
    ///
    /// # Errors
    ///
    /// All rows are taken. Rows of removed vectors count as taken while searches or other insertions are
    /// open that began before they were freed.
    ///
    /// # Panics
    ///
    /// The insertion has ended in an earlier step.
    pub fn step(&mut self, index: &mut Index, distances: usize) -> Option<Result<Row, Invalid>> {
        self.go_on(index, &mut Budget::new(distances))
    }

    fn go_on(&mut self, index: &mut Index, budget: &mut Budget) -> Option<Result<Row, Invalid>> {
        let mut scratch = self.scratch.take().expect("an insertion that has ended is not stepped");
        if let Phase::Linking { row, is_recoded: true, .. } = self.phase
            && !index.contains(row)
        {
            // It has gone meanwhile, which needs no links.
            index.scratches.put(scratch);
            return Some(Ok(row));
        }
        if index.graph.has_moved(&mut scratch, index.options.metric.of_links())
            && let Phase::Linking { linking, row, .. } = &mut self.phase
        {
            // Its row has its new code already; links that were made are as good as before.
            *linking = Linking::begin(&index.graph, &mut scratch, *row);
        }
        let result = match &mut self.phase {
            Phase::Room => self.find_room(index, &mut scratch, budget),
            Phase::At(row) => {
                let row = *row;
                Some(self.take_promised(index, &mut scratch, row))
            }
            Phase::Linking { .. } => Some(Ok(())),
        };
        let result = match (result, &mut self.phase) {
            (Some(Ok(())), Phase::Linking { linking, row, is_recoded, .. }) => {
                let row = *row;
                scratch.marks.grow(index.graph.nodes.len());
                linking.go_on(index, &mut scratch, row, budget).then(|| {
                    if !*is_recoded {
                        index.arrive(row);
                    }
                    Ok(row)
                })
            }
            (Some(Err(error)), _) => Some(Err(error)),
            _ => None,
        };
        match &result {
            Some(_) => index.scratches.put(scratch),
            None => self.scratch = Some(scratch),
        }
        result
    }

    /// Takes a row, after a sweep if there is none.
    fn find_room(
        &mut self,
        index: &mut Index,
        scratch: &mut Scratch,
        budget: &mut Budget,
    ) -> Option<Result<(), Invalid>> {
        loop {
            if let Some(row) = index.take_row() {
                self.begin_linking(index, scratch, row);
                return Some(Ok(()));
            }
            if !index.has_dead() {
                return Some(Err(Invalid::Full { max: index.options.vectors_max }));
            }
            if !index.sweep_on(scratch, budget) {
                return None;
            }
        }
    }

    fn take_promised(
        &mut self,
        index: &mut Index,
        scratch: &mut Scratch,
        row: Row,
    ) -> Result<(), Invalid> {
        let node = index.graph.nodes.get(row as usize);
        if node.is_none_or(|node| node.state != State::Promised) {
            return Err(Invalid::NotPromised { row });
        }
        index.promised -= 1;
        self.begin_linking(index, scratch, row);
        Ok(())
    }

    fn begin_linking(&mut self, index: &mut Index, scratch: &mut Scratch, row: Row) {
        index.place(scratch, row);
        index.note_first(row, &scratch.vector);
        index.graph.has_moved(scratch, index.options.metric.of_links());
        let open = index.generations.open();
        index.coming.push((row, Arc::downgrade(&open)));
        let linking = Linking::begin(&index.graph, scratch, row);
        self.phase = Phase::Linking { linking, row, is_recoded: false, _open: open };
    }

    /// The linking of a row that was there before, with the scratch's code.
    pub(super) fn of_recoded(index: &mut Index, mut scratch: Box<Scratch>, row: Row) -> Self {
        let linking = Linking::begin(&index.graph, &mut scratch, row);
        let _open = index.generations.open();
        let phase = Phase::Linking { linking, row, is_recoded: true, _open };
        Self { scratch: Some(scratch), phase }
    }
}

impl Linking {
    pub(super) fn begin(graph: &Graph, scratch: &mut Scratch, row: Row) -> Self {
        let top = graph.entry.map_or(0, |entry| graph.level(entry));
        let layer = graph.level(row).min(top);
        Linking::Descend(graph.begin_descent(scratch, layer), layer)
    }

    /// False when the budget ended before.
    pub(super) fn go_on(
        &mut self,
        index: &mut Index,
        scratch: &mut Scratch,
        row: Row,
        budget: &mut Budget,
    ) -> bool {
        let Index { graph, options, coarse, first, sweep, .. } = index;
        loop {
            match self {
                Linking::Descend(descent, layer) => {
                    if !graph.descend(scratch, descent, budget) {
                        return false;
                    }
                    graph.begin_wide_walk(scratch, options, *layer, budget);
                    *self = Linking::Walk(*layer);
                }
                Linking::Walk(layer) => {
                    if !graph.walk(scratch, *layer, budget) {
                        return false;
                    }
                    graph.collect_linkable(scratch, row);
                    if *layer == 0 && first.is_none() {
                        graph.look_for_coarse(scratch, row, coarse, budget);
                    }
                    *self = if *layer == 0 && scratch.work.found.is_empty() {
                        sweep.owe(graph);
                        scratch.pool.begin(LINKS_UPPER);
                        Linking::Scan(0)
                    } else {
                        Linking::Choose(*layer, graph.begin_choice(scratch, row))
                    };
                }
                Linking::WalkProducts => {
                    if !graph.walk(scratch, 0, budget) {
                        return false;
                    }
                    graph.collect_linkable(scratch, row);
                    // What waits for a sweep may take nearly all places, as its products are the largest.
                    *self = if scratch.work.found.len() < LINKS_UPPER {
                        sweep.owe(graph);
                        scratch.pool.begin(LINKS_UPPER);
                        Linking::Scan(0)
                    } else {
                        Linking::Choose(0, graph.begin_choice(scratch, row))
                    };
                }
                Linking::Scan(next) => {
                    // All around are dead, and the sweep will take the links to them.
                    let mut accepts = |node| node != row && graph.is_linkable(node);
                    if !graph.scan(scratch, next, &mut accepts, budget) {
                        return false;
                    }
                    graph.collect_linkable(scratch, row);
                    if scratch.work.found.is_empty() {
                        let is_other = |entry: Row| entry != row && graph.is_linkable(entry);
                        if graph.entry.is_some_and(is_other) {
                            // One came to a row that was passed already.
                            scratch.pool.begin(LINKS_UPPER);
                            *self = Linking::Scan(0);
                            continue;
                        }
                        // Nothing leads anywhere any more, so whoever comes begins here.
                        graph.entry = Some(row);
                        return true;
                    }
                    *self = Linking::Choose(0, graph.begin_choice(scratch, row));
                }
                Linking::Choose(layer, choice) => {
                    let layer = *layer;
                    let is_near = graph.has_products_to_link(layer, &scratch.probe);
                    let links_max = match layer {
                        0 if is_near => LINKS_NEAR_NEW,
                        0 if graph.links_products(0) => LINKS_NEW_DOT,
                        0 => LINKS_NEW,
                        _ => LINKS_UPPER,
                    };
                    let Scratch { other, work, .. } = &mut *scratch;
                    if !graph.choose(work, choice, row, options.alpha, links_max, other, budget) {
                        return false;
                    }
                    let is_linkable = |chosen: &&u32| graph.is_linkable(**chosen);
                    let linked = work.chosen[..choice.kept()].iter().filter(is_linkable).count();
                    // Those that died since they were found are out.
                    work.chosen.retain(|&chosen| graph.is_linkable(chosen));
                    let own = work.chosen.len();
                    if graph.links_products(layer) {
                        // What it was linked to stays until all are chosen, and what others linked to it since.
                        let passed = if is_near { 0 } else { LINKS_NEAR_NEW };
                        for &link in graph.links(row, layer).iter().skip(passed) {
                            if work.chosen.len() < LINKS_BASE && !work.chosen.contains(&link) {
                                work.chosen.push(link);
                            }
                        }
                    }
                    graph.set_links(row, layer, &work.chosen);
                    work.chosen.truncate(own);
                    std::mem::swap(&mut work.chosen, &mut work.neighbours);
                    if layer == 0 {
                        work.neighbours.iter().for_each(|&slot| graph.base.prefetch(slot));
                    }
                    *self = Linking::Back(layer, linked, None);
                }
                Linking::Back(layer, next, choice) => {
                    let Scratch { other, work, .. } = &mut *scratch;
                    while let Some(&neighbour) = work.neighbours.get(*next) {
                        if budget.is_spent() {
                            return false;
                        }
                        let alpha = options.alpha;
                        let links = choice.is_some() || graph.is_linkable(neighbour);
                        if links
                            && !graph
                                .link(neighbour, row, *layer, alpha, other, work, choice, budget)
                        {
                            return false;
                        }
                        *next += 1;
                    }
                    if graph.has_products_to_link(*layer, &scratch.probe) {
                        graph.begin_walk_of_products(scratch, options, row, budget);
                        *self = Linking::WalkProducts;
                        continue;
                    }
                    let Some(below) = layer.checked_sub(1) else {
                        graph.note_coarse(row, std::mem::take(&mut scratch.work.coarse), coarse);
                        return true;
                    };
                    graph.begin_wide_walk(scratch, options, below, budget);
                    *self = Linking::Walk(below);
                }
            }
        }
    }
}

impl Graph {
    /// Begins the walk that finds what a new node may link to.
    fn begin_wide_walk(
        &self,
        scratch: &mut Scratch,
        options: &IndexOptions,
        layer: usize,
        budget: &mut Budget,
    ) {
        let width = match layer {
            0 if self.links_products(0) => LINKS_UPPER.max(options.ef_construction / NEAR_PART),
            0 => options.ef_construction,
            _ => LINKS_UPPER.max(options.ef_construction / UPPER_PART),
        };
        self.begin_walk(scratch, width, budget);
    }

    /// Begins to choose among what was found for a node: by products behind its links to near ones.
    fn begin_choice(&self, scratch: &mut Scratch, row: Row) -> Choice {
        let Scratch { work, probe, .. } = scratch;
        if probe.metric != Metric::Dot {
            return Choice::begin(work, probe.metric);
        }
        let links = self.links(row, 0);
        let near = &links[..links.len().min(LINKS_NEAR_NEW)];
        let is_twin = |&&link: &&u32| self.are_twins(Metric::Dot, 0.0, row, link);
        let twins = near.iter().filter(is_twin).count();
        Choice::behind(work, Metric::Dot, near, twins)
    }

    /// Whether a node that is being linked on a layer by a probe has its links to near ones, and those of products are next.
    fn has_products_to_link(&self, layer: usize, probe: &Probe) -> bool {
        self.links_products(layer) && probe.metric != self.coding.metric
    }

    /// Begins the walk that finds the largest products of a new node, from what is near it.
    fn begin_walk_of_products(
        &self,
        scratch: &mut Scratch,
        options: &IndexOptions,
        row: Row,
        budget: &mut Budget,
    ) {
        let Scratch { probe, pool, .. } = scratch;
        self.coding.turn(probe, options.metric, self.terms[row as usize]);
        let (mut near, mut count, mut ranks) = ([0; LINKS_UPPER], 0, [0.0; LINKS_UPPER]);
        let found = pool.found().iter().map(|found| found.slot()).filter(|&slot| slot != row);
        near.iter_mut().zip(found).for_each(|(near, found)| (*near, count) = (found, count + 1));
        self.ranks(probe, &near[..count], &mut ranks);
        pool.begin(options.ef_construction);
        pool.offer(&ranks[..count], &near[..count]);
        budget.spend(count);
        self.begin_walk(scratch, options.ef_construction, budget);
    }

    /// Gives a code its row.
    pub(super) fn place(&mut self, probe: &Probe, row: Row, node: Node) {
        if row as usize == self.nodes.len() {
            self.codes.reserve(row);
            self.base.reserve(row);
            self.nodes.push(node);
            self.push_terms();
        } else {
            assert!(matches!(self.nodes[row as usize].state, State::Free | State::Promised));
            self.nodes[row as usize] = node;
        }
        self.set_code(probe, row);
        self.set_links(row, 0, &[]);
    }

    /// Makes room for the terms of one row more.
    pub(super) fn push_terms(&mut self) {
        self.terms.push(Terms::default());
        if self.coding.metric == Metric::Dot {
            self.link_terms.push(Terms::default());
        }
    }

    /// Gives a row the probe's code.
    pub(super) fn set_code(&mut self, probe: &Probe, row: Row) {
        self.coding.store(probe, self.codes.get_mut(row));
        self.terms[row as usize] = Terms { term: probe.row_term, ..probe.terms };
        if self.coding.metric == Metric::Dot {
            self.link_terms[row as usize] = probe.terms;
        }
        self.nodes[row as usize].centre = probe.centre;
        self.note_length(row);
    }

    pub(super) fn take_tower(&mut self) -> u32 {
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

    /// Those of the pool that a node may link to, in the order of their rank.
    fn collect_linkable(&self, scratch: &mut Scratch, row: Row) {
        let Scratch { pool, work, .. } = scratch;
        work.found.clear();
        let found = pool.found().iter().copied();
        let linkable = |slot| slot != row && self.is_linkable(slot);
        work.found.extend(found.filter(|found| linkable(found.slot())));
    }
}
