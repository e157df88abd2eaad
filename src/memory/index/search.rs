//! The nearest vectors to a query.
//!
//! A search walks the lowest layer with `ef` places. Nodes that are dead or that the caller's filter
//! refuses are walked through but not returned; when too few others were found the walk is repeated twice, each
//! time four times as wide, and after that all codes are compared. A caller that knows the few rows that it asks
//! about has only those compared ([`Index::begin_search_among`]). So k hits come back whenever the partition
//! has as many, and the cost is bounded by the walk with [`EF_MAX`] places and one pass over the codes.

use super::{
    error::Invalid,
    graph::{Descent, Graph, Index, Row},
    options::{EF_MAX, LINKS_BASE},
    steps::{Budget, Open, Scratch},
};

/// Walks before all codes are compared.
const WALKS_MAX: usize = 3;
/// How much wider each walk is than the one before.
const WIDER: usize = 4;

/// Hits that are looked at again in the time of a distance.
const HITS_OF_A_DISTANCE: usize = 8;
/// Hits that a step takes at least: with many, looking at those again that were taken before is as much as a step.
const TAKEN_AT_LEAST: usize = 128;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its row.
    pub row: Row,
    /// Its distance from the query, as the metric defines it; of the codes, until ordered again.
    pub distance: f32,
}

/// A search that goes on step by step. Vectors may come and go in between: one that was removed is not
/// among the hits, one that came may be.
pub struct Search {
    /// Gone when the search has ended.
    scratch: Option<Box<Scratch>>,
    k: usize,
    ef: usize,
    /// Walks that were begun.
    walks: usize,
    phase: Phase,
    hits: Vec<Hit>,
    _open: Open,
}

enum Phase {
    /// Compares those that are not linked yet, from this place on: before it walks, so that none is missed which is
    /// linked meanwhile, and apart, so that a walk begins and goes on as without them.
    Late(usize),
    Descend(Descent),
    Walk,
    /// Compares all codes, from this row on.
    Scan(Row),
    /// Compares the codes of these rows, from this position on.
    Among(Vec<Row>, usize),
    /// Takes hits from the pool, from this position on; `last` after a scan.
    Take {
        position: usize,
        last: bool,
    },
}

impl Index {
    /// The `k` nearest vectors whose row the filter accepts, nearest first; fewer when there are fewer.
    ///
    /// `ef` is how many candidates the search keeps, `k` at least; more find more of the true nearest
    /// ones, in proportionally more time.
    ///
    /// # Errors
    ///
    /// The query has another length, is not finite, or is zero under the cosine; `k` is zero, or `k` or `ef`
    /// is above [`EF_MAX`].
    pub fn search(
        &mut self,
        query: &[f32],
        k: usize,
        ef: usize,
        mut filter: impl FnMut(Row) -> bool,
    ) -> Result<Vec<Hit>, Invalid> {
        let mut search = self.begin_search(query, k, ef)?;
        Ok(search
            .go_on(self, &mut Budget::unlimited(), &mut filter)
            .expect("it goes on to its end"))
    }

    /// Begins what [`search`](Self::search) does at once.
    ///
    /// # Errors
    ///
    /// Those of [`search`](Self::search).
    pub fn begin_search(&mut self, query: &[f32], k: usize, ef: usize) -> Result<Search, Invalid> {
        self.check_search(query, k, ef)?;
        let mut scratch = self.begin_scratch(query)?;
        scratch.late.begin(ef.max(k));
        let phase = match self.late() {
            0 => Phase::Descend(self.graph.begin_descent(&mut scratch, 0)),
            _ => Phase::Late(0),
        };
        Ok(self.search_from(phase, scratch, k, ef))
    }

    /// Begins a search among some rows, which are all compared. Where few of the vectors are asked for, a walk
    /// would hardly meet them. Rows that are free are left out.
    ///
    /// # Errors
    ///
    /// Those of [`search`](Self::search).
    pub fn begin_search_among(
        &mut self,
        query: &[f32],
        k: usize,
        rows: &[Row],
    ) -> Result<Search, Invalid> {
        self.check_search(query, k, k)?;
        let mut scratch = self.begin_scratch(query)?;
        scratch.pool.begin(k);
        Ok(self.search_from(Phase::Among(rows.to_vec(), 0), scratch, k, k))
    }

    fn check_search(&self, query: &[f32], k: usize, ef: usize) -> Result<(), Invalid> {
        self.check_length(query)?;
        if k == 0 {
            return Err(Invalid::ZeroK);
        }
        for (name, given) in [("k", k), ("ef", ef)] {
            if given > EF_MAX {
                return Err(Invalid::TooWide { name, given, max: EF_MAX });
            }
        }
        Ok(())
    }

    fn search_from(&self, phase: Phase, scratch: Box<Scratch>, k: usize, ef: usize) -> Search {
        Search {
            scratch: Some(scratch),
            k,
            ef: ef.max(k),
            walks: 1,
            phase,
            hits: Vec::with_capacity(k),
            _open: self.generations.open(),
        }
    }
}

impl Search {
    /// Goes on for about as many distances; the hits when the search has ended with them. The filter
    /// must answer as it did before.
    ///
    /// # Panics
    ///
    /// The search has ended in an earlier step.
    pub fn step(
        &mut self,
        index: &mut Index,
        distances: usize,
        mut filter: impl FnMut(Row) -> bool,
    ) -> Option<Vec<Hit>> {
        self.go_on(index, &mut Budget::new(distances), &mut filter)
    }

    fn go_on(
        &mut self,
        index: &mut Index,
        budget: &mut Budget,
        filter: &mut impl FnMut(Row) -> bool,
    ) -> Option<Vec<Hit>> {
        let graph = &index.graph;
        let scratch = self.scratch.as_mut().expect("a search that has ended is not stepped");
        scratch.marks.grow(graph.nodes.len());
        if let Some(first) = &index.first {
            let hits = first.search(&scratch.vector, self.k, graph, filter);
            index.scratches.put(self.scratch.take().expect("it was there above"));
            return Some(hits);
        }
        if graph.has_moved(scratch) {
            self.hits.clear();
            self.phase = match std::mem::replace(&mut self.phase, Phase::Walk) {
                Phase::Among(rows, _) => {
                    scratch.pool.begin(self.k);
                    Phase::Among(rows, 0)
                }
                _ => Phase::Descend(graph.begin_descent(scratch, 0)),
            };
        }
        loop {
            match &mut self.phase {
                Phase::Descend(descent) => {
                    if !graph.descend(scratch, descent, budget) {
                        return None;
                    }
                    graph.begin_walk(scratch, self.ef, budget);
                    self.phase = Phase::Walk;
                }
                Phase::Late(next) => {
                    let mut accepts = |row| graph.is_live(row) && filter(row);
                    if !index.offer_late(scratch, next, &mut accepts, budget) {
                        return None;
                    }
                    self.phase = Phase::Descend(graph.begin_descent(scratch, 0));
                }
                Phase::Walk => {
                    if !graph.walk(scratch, 0, budget) {
                        return None;
                    }
                    scratch.join_late(budget);
                    self.hits.clear();
                    self.phase = Phase::Take { position: 0, last: false };
                }
                Phase::Scan(next) => {
                    let mut accepts = |row| graph.is_live(row) && filter(row);
                    if !graph.scan(scratch, next, &mut accepts, budget) {
                        return None;
                    }
                    self.hits.clear();
                    self.phase = Phase::Take { position: 0, last: true };
                }
                Phase::Among(rows, next) => {
                    let mut accepts = |row| graph.is_row_live(row) && filter(row);
                    if !graph.offer(scratch, rows, next, &mut accepts, budget) {
                        return None;
                    }
                    self.hits.clear();
                    self.phase = Phase::Take { position: 0, last: true };
                }
                Phase::Take { position, last } => {
                    if !take(graph, scratch, position, self.k, filter, &mut self.hits, budget) {
                        return None;
                    }
                    let is_enough = self.hits.len() == self.k || self.hits.len() >= index.live;
                    if is_enough || *last {
                        let scratch = self.scratch.take().expect("it was there above");
                        index.scratches.put(scratch);
                        return Some(std::mem::take(&mut self.hits));
                    }
                    if self.walks == WALKS_MAX || self.ef == EF_MAX {
                        scratch.pool.begin(self.k);
                        self.phase = Phase::Scan(0);
                    } else {
                        self.walks += 1;
                        self.ef = (self.ef * WIDER).min(EF_MAX);
                        self.phase = Phase::Descend(graph.begin_descent(scratch, 0));
                    }
                }
            }
        }
    }
}

/// Takes the first `k` of the pool that are live and accepted. False when the budget ended before.
fn take(
    graph: &Graph,
    scratch: &Scratch,
    position: &mut usize,
    k: usize,
    filter: &mut impl FnMut(Row) -> bool,
    hits: &mut Vec<Hit>,
    budget: &mut Budget,
) -> bool {
    let own_term = scratch.probe.terms.term;
    // What was taken in an earlier step may have died since.
    hits.retain(|hit| graph.is_live(hit.row));
    let mut looked_again = hits.len() / HITS_OF_A_DISTANCE;
    let end = *position + TAKEN_AT_LEAST;
    while let Some(found) = scratch.pool.found().get(*position).filter(|_| hits.len() < k) {
        if *position >= end && budget.is_spent() {
            return false;
        }
        budget.spend(1 + std::mem::take(&mut looked_again));
        *position += 1;
        let row = found.slot();
        if graph.is_live(row) && filter(row) {
            hits.push(Hit { row, distance: found.rank() + own_term });
        }
    }
    true
}

impl Graph {
    fn is_row_live(&self, row: Row) -> bool {
        (row as usize) < self.nodes.len() && self.is_live(row)
    }

    /// Offers the pool those of some rows that are accepted, from the one at `next` on. False when the budget ended
    /// before.
    fn offer(
        &self,
        scratch: &mut Scratch,
        rows: &[Row],
        next: &mut usize,
        accepts: &mut impl FnMut(Row) -> bool,
        budget: &mut Budget,
    ) -> bool {
        let mut slots = [0; LINKS_BASE];
        let mut ranks = [0.0; LINKS_BASE];
        while *next < rows.len() {
            if budget.is_spent() {
                return false;
            }
            let end = (*next + LINKS_BASE).min(rows.len());
            let mut count = 0;
            for &slot in rows[*next..end].iter().filter(|&&row| accepts(row)) {
                slots[count] = slot;
                count += 1;
                self.codes.prefetch(slot);
            }
            self.ranks(&mut scratch.probe, &slots[..count], &mut ranks);
            budget.spend_coded(&mut scratch.probe);
            scratch.pool.offer(&ranks[..count], &slots[..count]);
            budget.spend(end - *next);
            *next = end;
        }
        true
    }

    /// Offers the pool all nodes that are accepted, from `next` on. False when the budget ended before.
    pub(super) fn scan(
        &self,
        scratch: &mut Scratch,
        next: &mut Row,
        accepts: &mut impl FnMut(Row) -> bool,
        budget: &mut Budget,
    ) -> bool {
        let mut slots = [0; LINKS_BASE];
        let mut ranks = [0.0; LINKS_BASE];
        while (*next as usize) < self.nodes.len() {
            if budget.is_spent() {
                return false;
            }
            let end = (*next as usize + LINKS_BASE).min(self.nodes.len()) as Row;
            let mut count = 0;
            for slot in (*next..end).filter(|&slot| accepts(slot)) {
                slots[count] = slot;
                count += 1;
            }
            self.ranks(&mut scratch.probe, &slots[..count], &mut ranks);
            budget.spend_coded(&mut scratch.probe);
            scratch.pool.offer(&ranks[..count], &slots[..count]);
            budget.spend((end - *next) as usize);
            *next = end;
        }
        true
    }
}
