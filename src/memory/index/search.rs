//! The nearest vectors to a query.
//!
//! Where no more live than a walk keeps, or than [`FEW`], all of them are compared: that is exact, and less work than a walk.
//! Most of the time there are more:
//!
//! A search walks the lowest layer with `ef` places. Nodes that are dead or that the caller's filter refuses are walked
//! through but not returned. When too few others were found, or they are among the last ones, where a walk has met
//! some of what is as near, another walk has its places for those alone that are accepted
//! ([`filtered`](super::filtered)); where that would take too long, or finds too few, all codes that are accepted are
//! compared. A caller that knows the few rows that it asks
//! about has only those compared ([`Index::begin_search_among`]). So k hits come back whenever the partition
//! has as many, and the cost is bounded by a walk with [`EF_MAX`] places, one whose distances are bounded,
//! and one pass over the codes.

use super::{
    error::Invalid,
    filtered::{Spent, Walked},
    graph::{Descent, Graph, Index, Row},
    options::{EF_MAX, LINKS_BASE},
    steps::{Budget, Open, Scratch},
};

/// Hits that are looked at again in the time of a distance.
const HITS_OF_A_DISTANCE: usize = 8;
/// Hits that a step takes at least: with many, looking at those again that were taken before is as much as a step.
const TAKEN_AT_LEAST: usize = 128;

/// So many that live are compared by any search.
const FEW: usize = 64;
/// Rows of which a scan asks at a time whether they are accepted.
const ASKED_AT_ONCE: Row = 256;
/// Rows of which it is found out whether they are accepted in the time of a distance.
pub(super) const ASKED_OF_A_DISTANCE: usize = 16;

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
    /// How many the filter accepts, about; none when it accepts all that live.
    accepted: Option<usize>,
    /// Places for those that are accepted, once a walk for all was not enough.
    places: Option<usize>,
    phase: Phase,
    hits: Vec<Hit>,
    _open: Open,
}

enum Phase {
    /// Compares all that live, from this row on, as they are few.
    Few(Row),
    /// Compares those that are not linked yet, from this place on: before it walks, so that none is missed which is
    /// linked meanwhile, and apart, so that a walk begins and goes on as without them.
    Late(usize),
    Descend(Descent),
    /// Compares what some rows lead to, from this one of them on, before it walks.
    LookAround(u32),
    Walk,
    /// Walks for those that are accepted.
    WalkFiltered(Spent),
    /// Compares all codes, from this row on.
    Scan(Row),
    /// Compares the codes of these rows, from this position on.
    Among(Vec<Row>, usize),
    /// Takes hits from the pool, from this position on.
    Take(usize, Source),
}

/// What has filled the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Walk,
    FilteredWalk,
    /// All that are asked for were compared.
    All,
}

impl Index {
    /// The `k` nearest vectors whose row the filter accepts, nearest first; fewer when there are fewer.
    ///
    /// `ef` is how many candidates the search keeps, `k` at least; more find more of the true nearest
    /// ones, in proportionally more time. The filter accepts all, or all but a few: one that refuses more is asked in
    /// [`begin_filtered_search`](Self::begin_filtered_search), as of what this finds those that are left may not
    /// be the nearest.
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
        self.begin(query, k, ef, None)
    }

    /// Begins a search whose filter accepts about so many. `ef` counts those.
    ///
    /// # Errors
    ///
    /// Those of [`search`](Self::search).
    pub fn begin_filtered_search(
        &mut self,
        query: &[f32],
        k: usize,
        ef: usize,
        accepted: usize,
    ) -> Result<Search, Invalid> {
        self.begin(query, k, ef, Some(accepted))
    }

    fn begin(
        &mut self,
        query: &[f32],
        k: usize,
        ef: usize,
        accepted: Option<usize>,
    ) -> Result<Search, Invalid> {
        self.check_search(query, k, ef)?;
        let mut scratch = self.begin_scratch(query, self.options.metric)?;
        let phase = self.first_phase(&mut scratch, ef.max(k));
        Ok(self.search_from(phase, scratch, k, ef, accepted))
    }

    /// What a search with so many places begins with.
    fn first_phase(&self, scratch: &mut Scratch, ef: usize) -> Phase {
        if self.live.len() <= ef.max(FEW) {
            // More than `k`, as some may go meanwhile.
            scratch.pool.begin(ef);
            return Phase::Few(0);
        }
        scratch.late.begin(ef);
        match self.late() {
            0 => Phase::Descend(self.graph.begin_descent(scratch, 0)),
            _ => Phase::Late(0),
        }
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
        let mut scratch = self.begin_scratch(query, self.options.metric)?;
        scratch.pool.begin(k);
        Ok(self.search_from(Phase::Among(rows.to_vec(), 0), scratch, k, k, None))
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

    fn search_from(
        &self,
        phase: Phase,
        scratch: Box<Scratch>,
        k: usize,
        ef: usize,
        accepted: Option<usize>,
    ) -> Search {
        Search {
            scratch: Some(scratch),
            k,
            ef: ef.max(k),
            accepted,
            places: None,
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
        if graph.has_moved(scratch, index.options.metric) {
            self.hits.clear();
            self.phase = match std::mem::replace(&mut self.phase, Phase::Walk) {
                Phase::Among(rows, _) => {
                    scratch.pool.begin(self.k);
                    Phase::Among(rows, 0)
                }
                _ => index.first_phase(scratch, self.ef),
            };
        }
        loop {
            match &mut self.phase {
                Phase::Few(next) => {
                    if !index.offer_live(scratch, next, filter, budget) {
                        return None;
                    }
                    self.hits.clear();
                    self.phase = Phase::Take(0, Source::All);
                }
                Phase::Descend(descent) => {
                    if !graph.descend(scratch, descent, budget) {
                        return None;
                    }
                    self.phase = if let Some(places) = self.places {
                        let accepted = self.accepted.unwrap_or(index.live.len());
                        match Spent::new(places, accepted, graph.nodes.len()) {
                            Some(spent) => {
                                let mut accepts = |row| graph.is_live(row) && filter(row);
                                graph.begin_filtered(scratch, places, &mut accepts, budget);
                                Phase::WalkFiltered(spent)
                            }
                            None => {
                                scratch.pool.begin(self.k);
                                Phase::Scan(0)
                            }
                        }
                    } else {
                        graph.begin_walk(scratch, self.ef, budget);
                        if graph.lengths.differ() { Phase::LookAround(0) } else { Phase::Walk }
                    };
                }
                Phase::LookAround(next) => {
                    if !index.look_around(scratch, next, budget) {
                        return None;
                    }
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
                    self.phase = Phase::Take(0, Source::Walk);
                }
                Phase::WalkFiltered(spent) => {
                    let mut accepts = |row| graph.is_live(row) && filter(row);
                    match graph.walk_filtered(scratch, &mut accepts, spent, budget) {
                        Walked::InPart => return None,
                        Walked::Whole => {
                            scratch.join_late(budget);
                            self.hits.clear();
                            self.phase = Phase::Take(0, Source::FilteredWalk);
                        }
                        Walked::GivenUp => {
                            scratch.pool.begin(self.k);
                            self.phase = Phase::Scan(0);
                        }
                    }
                }
                Phase::Scan(next) => {
                    let mut accepts = |row| graph.is_live(row) && filter(row);
                    if !graph.scan(scratch, next, &mut accepts, budget) {
                        return None;
                    }
                    self.hits.clear();
                    self.phase = Phase::Take(0, Source::All);
                }
                Phase::Among(rows, next) => {
                    let mut accepts = |row| graph.is_row_live(row) && filter(row);
                    if !graph.offer(scratch, rows, next, &mut accepts, budget) {
                        return None;
                    }
                    self.hits.clear();
                    self.phase = Phase::Take(0, Source::All);
                }
                Phase::Take(position, source) => {
                    if !take(graph, scratch, position, self.k, filter, &mut self.hits, budget) {
                        return None;
                    }
                    // What was removed is refused as well.
                    let refuses = self.accepted.is_some() || index.has_dead();
                    let is_enough = match source {
                        Source::Walk if refuses && !are_even(scratch, &self.hits, self.ef) => false,
                        Source::Walk | Source::FilteredWalk => self.hits.len() == self.k,
                        Source::All => true,
                    };
                    if is_enough || self.hits.len() >= index.live.len() {
                        let scratch = self.scratch.take().expect("it was there above");
                        index.scratches.put(scratch);
                        return Some(std::mem::take(&mut self.hits));
                    }
                    if self.places.is_some() {
                        scratch.pool.begin(self.k);
                        self.phase = Phase::Scan(0);
                    } else {
                        self.places = Some(self.ef);
                        self.phase = Phase::Descend(graph.begin_descent(scratch, 0));
                    }
                }
            }
        }
    }
}

/// Whether the nearer half of the hits is in the nearer half of a walk's places. If so they are spread about evenly, and
/// a walk has met nearly all that is as near; if not, the filter refuses what is near the query.
fn are_even(scratch: &Scratch, hits: &[Hit], ef: usize) -> bool {
    let middle = hits.get(hits.len().div_ceil(2).wrapping_sub(1)).map(|hit| hit.row);
    scratch.pool.found().iter().take(ef.div_ceil(2)).any(|found| Some(found.slot()) == middle)
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
            self.compare(scratch, &slots[..count], budget);
            budget.spend(end - *next);
            *next = end;
        }
        true
    }

    /// Offers the pool at most [`LINKS_BASE`] nodes.
    pub(super) fn compare(&self, scratch: &mut Scratch, slots: &[Row], budget: &mut Budget) {
        let mut ranks = [0.0; LINKS_BASE];
        self.ranks(&mut scratch.probe, slots, &mut ranks);
        budget.spend_coded(&mut scratch.probe);
        scratch.pool.offer(&ranks[..slots.len()], slots);
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
        let all = self.nodes.len() as Row;
        while *next < all {
            if budget.is_spent() {
                return false;
            }
            let (begin, mut count) = (*next, 0);
            while count < LINKS_BASE && *next < all && *next - begin < ASKED_AT_ONCE {
                if accepts(*next) {
                    slots[count] = *next;
                    count += 1;
                    self.codes.prefetch(*next);
                }
                *next += 1;
            }
            self.compare(scratch, &slots[..count], budget);
            budget.spend(1 + count + (*next - begin) as usize / ASKED_OF_A_DISTANCE);
        }
        true
    }
}
