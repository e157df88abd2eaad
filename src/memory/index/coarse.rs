//! Rows whose codes round off too much, and how they come to better ones.
//!
//! A code's step is a 127th of the largest difference to its centre. Where vectors lie far from every centre and near each
//! other, a step is large beside what is between them, and codes do not tell which of them are near. Linking a node meets
//! those that are nearest to it, so that is found out then, of the node and of those that it met. The index has no vectors, so it names such rows
//! to its caller ([`Index::take_coarse`]), who gives the vector again ([`Index::recode`]). Then another centre is near by
//! now, or one is born of this vector; the row has its new code at once and is linked anew. The first rows around
//! a new centre find the others that lie there, in the same way.
//!
//! Invariant: a row's step at least halves whenever the row is coded anew, and a row that found no centre is not named again
//! before there is another one. So however rows lie, that ends.

use super::{
    centre::FURTHER_MAX,
    error::Invalid,
    graph::{Graph, Index, Node, Row, State},
    insert::Insertion,
    options::LINKS_BASE,
    pool::Found,
    quantize::Metric,
    rerank::Exact,
    steps::{Budget, CODED_DISTANCES, Scratch},
};
use fastrand::Rng;
use std::collections::VecDeque;

/// So many of the nearest must be told apart: those that a search for a few hits has its candidates from.
const NEAR: usize = 16;
/// One in so many rows of an image is looked at, about.
const LOOKED_AT: Row = NEAR as Row;
/// A code is coarse when the squared distance of its near ones is less than so many squared steps: what both codes round off
/// is off by some three hundredths of that distance then.
const NEAR_STEPS: f32 = 512.0;
/// And a part of a squared step for each dimension: what roundings add to every distance.
const ROUNDED: f32 = 1.0 / 6.0;
/// Vectors that may be copies are kept, so many; each for about the square of that number of others.
const COPIED: usize = 8;
/// So many that were met are compared again at once.
const COMPARED_MAX: usize = 16;
/// Comparing one of them by both codes takes as long as so many distances.
const COMPARED_DISTANCES: usize = 16;
/// So many that are no longer coarse, or have gone, are passed at once.
const PASSED_MAX: usize = 256;
/// What looking at one row of an image may take: what many comparisons by both codes do.
const LOOK_DISTANCES: usize = 24 * COMPARED_DISTANCES;
/// Nodes that were met are looked at in the time of a distance.
const LOOKS_OF_A_DISTANCE: usize = 8;

/// What was found out of a row: nothing, that it waits to be coded anew, or how many centres there were when it found none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark(u8);

impl Mark {
    pub(super) const NONE: Mark = Mark(0);
    /// It waits, and what is near it may be copies of it.
    const WAITS_AS_COPY: Mark = Mark(u8::MAX - 1);
    const WAITS: Mark = Mark(u8::MAX);

    fn waits(self) -> bool {
        self.0 >= Self::WAITS_AS_COPY.0
    }
}

const _: () = assert!(FURTHER_MAX + 1 < Mark::WAITS_AS_COPY.0 as usize);

/// Rows that wait to be coded anew. Some have gone since, and may be others' by now, which wait only if they are marked.
pub(super) struct Coarse {
    rows: VecDeque<Row>,
    /// The next row of an image to be looked at.
    look: Option<Row>,
    /// Vectors of some that no centre was born of, as what is near them may be copies of them.
    copied: Vec<Box<[f32]>>,
    random: Rng,
}

impl Default for Coarse {
    fn default() -> Self {
        Self { rows: VecDeque::new(), look: None, copied: Vec::new(), random: Rng::with_seed(0) }
    }
}

impl Coarse {
    /// How many wait, with those that have gone since.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let copied = self.copied.iter().map(|copied| size_of_val(&copied[..]));
        self.rows.capacity() * size_of::<Row>() + copied.sum::<usize>()
    }

    /// Whether a vector is no copy of one before it whose code was that of all around it, and so near that it may have the same
    /// code. Of those before it some are kept, some time long, so that those of many clusters in turns meet.
    fn tells_from_copies(&mut self, vector: &[f32], graph: &Graph, step: f32) -> bool {
        let below = graph.coarse_below(step);
        let is_other = self.copied.iter().any(|copied| {
            let distance = match graph.coding.metric {
                Metric::Cosine => 2.0 * Exact::new(graph, vector).distance(copied),
                _ => (graph.coding.kernels.squared_distance)(copied, vector),
            };
            **copied != *vector && distance < below
        });
        if !is_other {
            let place = self.random.usize(..COPIED * COPIED);
            if self.copied.len() < COPIED {
                self.copied.push(vector.into());
            } else if let Some(copied) = self.copied.get_mut(place) {
                *copied = vector.into();
            }
        }
        is_other
    }
}

impl Index {
    /// Whether there are rows whose codes are coarse, or those of an image are still to be looked at.
    pub fn has_coarse(&self) -> bool {
        !self.coarse.rows.is_empty() || self.coarse.look.is_some()
    }

    /// A row whose code is coarse, to be coded anew ([`recode`](Self::recode)); it is not named again before that. There
    /// may be more when there is none, if [`has_coarse`](Self::has_coarse) says so: a call looks at only so many rows of an
    /// image, and passes only so many that have gone.
    pub fn take_coarse(&mut self) -> Option<Row> {
        if self.coarse.rows.is_empty() {
            self.look_on();
        }
        for _ in 0..PASSED_MAX {
            let row = self.coarse.rows.pop_front()?;
            if self.contains(row) && self.graph.nodes[row as usize].coarse.waits() {
                return Some(row);
            }
        }
        None
    }

    /// Gives a row a finer code, if there is one, and links it anew; whether there was.
    ///
    /// # Errors
    ///
    /// The vector has another length, is not finite, or is zero under the cosine.
    pub fn recode(&mut self, row: Row, vector: &[f32]) -> Result<bool, Invalid> {
        let Some(mut recoding) = self.begin_recode(row, vector)? else { return Ok(false) };
        recoding.step(self, usize::MAX).expect("it goes on to its end").map(|_| true)
    }

    /// Has the rows of an image looked at, in steps of those who ask for coarse ones.
    pub(super) fn look_for_coarse_rows(&mut self) {
        let has_rows = self.graph.nodes.len() > 0 && self.first.is_none();
        self.coarse.look = (self.graph.coding.has_choice() && has_rows).then_some(0);
    }

    /// Looks at some of the rows of an image: those that are coarse find the others.
    fn look_on(&mut self) {
        let Some(mut row) = self.coarse.look else { return };
        let mut budget = Budget::new(self.step_distances() / 2);
        // Images of before nodes of the dot product linked to near ones: rows do not find all others there.
        let every = if self.graph.coding.metric == Metric::Dot { 1 } else { LOOKED_AT };
        let mut scratch = self.scratches.take();
        while (row as usize) < self.graph.nodes.len() && !budget.is_spent() {
            if self.graph.nodes[row as usize].state == State::Live {
                let spent = self.graph.look_at(&mut scratch, row, &mut self.coarse);
                budget.spend(spent);
            }
            budget.spend(1);
            // Vectors may come in turns.
            row += self.coarse.random.u32(1..2 * every.max(1));
        }
        self.coarse.look = ((row as usize) < self.graph.nodes.len()).then_some(row);
        self.scratches.put(scratch);
    }

    /// Begins what [`recode`](Self::recode) does at once: the row has its new code, and what goes on are its links. It
    /// may be dropped: the row then has links that it had, and some of the new ones.
    ///
    /// # Errors
    ///
    /// Those of [`recode`](Self::recode).
    pub fn begin_recode(&mut self, row: Row, vector: &[f32]) -> Result<Option<Insertion>, Invalid> {
        self.check_length(vector)?;
        let waits = |node: &Node| node.coarse.waits();
        if !self.graph.nodes.get(row as usize).is_some_and(waits) {
            return Ok(None);
        }
        let node = &mut self.graph.nodes[row as usize];
        if node.state != State::Live || self.first.is_some() || !self.graph.coding.has_choice() {
            // Whoever meets it finds it out again.
            node.coarse = Mark::NONE;
            return Ok(None);
        }
        let mut scratch = self.begin_scratch(vector, self.options.metric.of_links())?;
        let graph = &mut self.graph;
        let step = graph.terms[row as usize].scale;
        let is_finer = |scratch: &Scratch| 2.0 * scratch.probe.terms.scale <= step;
        let may_be_copy = graph.nodes[row as usize].coarse == Mark::WAITS_AS_COPY;
        if !is_finer(&scratch)
            && (!may_be_copy || self.coarse.tells_from_copies(vector, graph, step))
            && graph.coding.bear_centre(vector)
        {
            graph.coding.encode(vector, scratch.probe.metric, &mut scratch.probe)?;
        }
        if !is_finer(&scratch) {
            let node = &mut graph.nodes[row as usize];
            node.coarse = Mark(graph.coding.centres());
            self.scratches.put(scratch);
            return Ok(None);
        }
        let node = &mut graph.nodes[row as usize];
        node.coarse = Mark::NONE;
        let former = node.centre;
        graph.set_code(&scratch.probe, row);
        // What it was linked to by its former code has such a code, too, and what it meets now need not lead there.
        let Scratch { probe, work, .. } = &mut *scratch;
        let mut found = std::mem::take(&mut work.found);
        work.slots.clear();
        let links = graph.links(row, 0).iter().copied();
        // Around one centre, so that the probe needs one code for them.
        work.slots.extend(links.filter(|&link| graph.nodes[link as usize].centre == former));
        graph.rank_all(probe, &work.slots, &mut found);
        graph.note_near(&scratch, row, &found, &mut self.coarse);
        scratch.work.found = found;
        self.reach.note_recoded();
        Ok(Some(Insertion::of_recoded(self, scratch, row)))
    }
}

impl Graph {
    /// Finds out whether a row is coarse from those that near ones lead to: of those with the same code, a node has few
    /// links. The distances that took, hardly more than [`LOOK_DISTANCES`].
    fn look_at(&mut self, scratch: &mut Scratch, row: Row, coarse: &mut Coarse) -> usize {
        self.decode(row, self.coding.metric.of_links(), &mut scratch.probe);
        let mut near = std::mem::take(&mut scratch.work.found);
        let own = &self.terms[row as usize];
        let (below, centre) = (self.coarse_below(own.scale), scratch.probe.centre);
        near.clear();
        let (mut at, mut passed, mut spent) = (row, 0, 0);
        let mut ranks = [0.0; LINKS_BASE];
        while spent < LOOK_DISTANCES {
            let links = self.links(at, 0);
            self.ranks(&mut scratch.probe, links, &mut ranks);
            spent += links.len() + scratch.probe.take_made() * CODED_DISTANCES;
            for (&link, &rank) in links.iter().zip(&ranks) {
                let is_new = link != row && near.iter().all(|near| near.slot() != link);
                if near.len() == NEAR || spent >= LOOK_DISTANCES {
                    break;
                }
                let is_foreign = self.nodes[link as usize].centre != centre;
                if is_new && is_foreign {
                    spent += COMPARED_DISTANCES;
                }
                let found = Found::new(rank, link);
                if is_new && self.squared_distance(scratch, &found) < below {
                    near.push(found);
                }
            }
            match near.get(passed) {
                Some(next) if near.len() < NEAR => at = next.slot(),
                _ => break,
            }
            passed += 1;
        }
        near.sort_unstable_by(|a, b| a.rank().total_cmp(&b.rank()));
        let mark = self.is_coarse(scratch, row, &near);
        self.note_coarse(row, mark, coarse);
        scratch.work.found = near;
        spent + 2 * COMPARED_DISTANCES
    }

    /// Finds out whether a node that has met what is near it has a coarse code, which `work` keeps until it is linked, and
    /// notes those that it has met which have.
    pub(super) fn look_for_coarse(
        &mut self,
        scratch: &mut Scratch,
        row: Row,
        coarse: &mut Coarse,
        budget: &mut Budget,
    ) {
        scratch.work.coarse = Mark::NONE;
        if !self.coding.has_choice() {
            return;
        }
        let found = std::mem::take(&mut scratch.work.found);
        scratch.work.coarse = self.is_coarse(scratch, row, &found);
        let compared = self.note_near(scratch, row, &found, coarse);
        budget.spend(found.len() / LOOKS_OF_A_DISTANCE + compared * COMPARED_DISTANCES);
        scratch.work.found = found;
    }

    /// Notes those that are near a node, the scratch's probe, and have coarser codes than it; how many were compared again.
    fn note_near(
        &mut self,
        scratch: &Scratch,
        row: Row,
        found: &[Found],
        coarse: &mut Coarse,
    ) -> usize {
        let step = self.terms[row as usize].scale;
        let mut compared = 0;
        // The others are found by those that these are near to.
        for near in found.iter().take(if self.coding.has_several() { found.len() } else { 0 }) {
            let others = self.terms[near.slot() as usize].scale;
            // One that is coming will find it out of itself.
            let is_linked = self.nodes[near.slot() as usize].state == State::Live;
            if others <= 2.0 * step || !is_linked || self.is_known(near.slot()) {
                continue;
            }
            if compared == COMPARED_MAX {
                break;
            }
            compared += 1;
            if self.squared_distance(scratch, near) < self.coarse_below(others) {
                self.note_coarse(near.slot(), Mark::WAITS, coarse);
            }
        }
        compared
    }

    /// Whether a node that is the scratch's probe has so many others near it that its code tells them apart badly; they are
    /// in the order of their rank.
    fn is_coarse(&self, scratch: &Scratch, row: Row, found: &[Found]) -> Mark {
        let below = self.coarse_below(self.terms[row as usize].scale);
        match found.get(NEAR - 1) {
            Some(near) if self.squared_distance(scratch, near) < below => {}
            _ => return Mark::NONE,
        }
        // Copies need no telling apart, but from what else is near.
        let (metric, own_term) = (scratch.probe.metric, scratch.probe.terms.term);
        let is_other =
            |found: &&Found| !self.are_twins(metric, found.rank() + own_term, row, found.slot());
        match found.iter().find(is_other) {
            Some(other) if self.squared_distance(scratch, other) < below => Mark::WAITS,
            _ => Mark::WAITS_AS_COPY,
        }
    }

    /// Notes that a row's code is coarse, if it is, unless that is known.
    pub(super) fn note_coarse(&mut self, row: Row, mark: Mark, coarse: &mut Coarse) {
        // Those that have gone wait there, too: there is room for them, but not for any number.
        let has_room = coarse.rows.len() < 2 * self.nodes.len();
        if mark != Mark::NONE && has_room && !self.is_known(row) {
            self.nodes[row as usize].coarse = mark;
            coarse.rows.push_back(row);
        }
    }

    /// Whether a row waits already, or found no better code among the centres that there are.
    fn is_known(&self, row: Row) -> bool {
        self.nodes[row as usize].coarse.0 >= self.coding.centres()
    }

    /// The squared distance under which near ones are told apart badly by codes with that step.
    fn coarse_below(&self, step: f32) -> f32 {
        (NEAR_STEPS + ROUNDED * self.coding.dimensions as f32) * step * step
    }

    /// The squared distance of the scratch's probe from a node that it has found.
    fn squared_distance(&self, scratch: &Scratch, found: &Found) -> f32 {
        let (probe, node) = (&scratch.probe, &self.nodes[found.slot() as usize]);
        let distance = found.rank() + probe.terms.term;
        match probe.metric {
            Metric::Euclidean if probe.centre == node.centre => distance,
            Metric::Cosine if probe.centre == node.centre => 2.0 * distance,
            // What a code around a centre far away rounds off would count.
            _ => {
                let terms = self.terms[found.slot() as usize];
                let row = self.codes.get(found.slot());
                self.coding.squared_apart(probe, row, terms, node.centre)
            }
        }
    }
}
