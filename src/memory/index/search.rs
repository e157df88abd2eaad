//! The nearest vectors to a query.
//!
//! A search walks the lowest layer with `ef` places. Nodes that are dead or that the caller's filter
//! refuses are walked through but not returned; when too few others were found the walk is repeated twice, each
//! time four times as wide, and after that all codes are compared. So k hits come back whenever the partition
//! has as many, and the cost is bounded by the walk with [`EF_MAX`] places and one pass over the codes.

use super::{
    error::Invalid,
    graph::{Graph, Index, Row, Scratch},
    kernels::prefetch,
    options::{EF_MAX, LINKS_BASE},
    quantize::Metric,
};

/// Walks before all codes are compared.
const WALKS_MAX: usize = 3;
/// How much wider each walk is than the one before.
const WIDER: usize = 4;

/// Float32 rows that are fetched ahead.
const ROWS_AHEAD: usize = 3;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its row.
    pub row: Row,
    /// Its distance from the query, as the metric defines it; of the codes, until ordered again.
    pub distance: f32,
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
        self.check_length(query)?;
        if k == 0 {
            return Err(Invalid::ZeroK);
        }
        for (name, given) in [("k", k), ("ef", ef)] {
            if given > EF_MAX {
                return Err(Invalid::TooWide { name, given, max: EF_MAX });
            }
        }
        self.scratch.probe.encode(query, self.options.metric)?;
        let mut hits = Vec::with_capacity(k);
        let mut ef = ef.max(k);
        for _ in 0..WALKS_MAX {
            self.graph.descend(&mut self.scratch, 0);
            self.scratch.pool.widen(ef);
            self.graph.walk(&mut self.scratch, 0);
            self.take_hits(k, &mut filter, &mut hits);
            let has_seen_all = !self.scratch.pool.is_full() && hits.len() == self.live;
            if hits.len() == k || has_seen_all {
                return Ok(hits);
            }
            if ef == EF_MAX {
                break;
            }
            ef = (ef * WIDER).min(EF_MAX);
        }
        self.graph.scan(&mut self.scratch, k, &mut filter);
        self.take_hits(k, |_| true, &mut hits);
        Ok(hits)
    }

    /// The first `k` of the pool that are live and accepted.
    fn take_hits(&self, k: usize, mut filter: impl FnMut(Row) -> bool, hits: &mut Vec<Hit>) {
        hits.clear();
        let own_term = match self.options.metric {
            Metric::Cosine | Metric::Euclidean => self.scratch.probe.terms.term,
            Metric::Dot => 0.0,
        };
        for found in self.scratch.pool.found() {
            let row = found.slot();
            if self.contains(row) && filter(row) {
                hits.push(Hit { row, distance: found.rank + own_term });
                if hits.len() == k {
                    return;
                }
            }
        }
    }

    /// Orders hits by the distance of float32 vectors and keeps the `k` nearest.
    ///
    /// `vectors` has the vector of each row, as it was given to [`insert`](Self::insert). The codes keep nearly all of the true nearest ones among twice as many hits, not
    /// always in their order: ask [`search`](Self::search) for one and a half or two times `k`.
    ///
    /// # Errors
    ///
    /// The query has another length, `k` is zero, or a hit's vector is not there. The hits are then in
    /// no order.
    pub fn rerank<'a>(
        &self,
        query: &[f32],
        vectors: impl Fn(Row) -> Option<&'a [f32]>,
        k: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), Invalid> {
        self.check_length(query)?;
        if k == 0 {
            return Err(Invalid::ZeroK);
        }
        let expected = self.options.dimensions;
        let vector = |row: Row| match vectors(row) {
            Some(vector) if vector.len() == expected => Ok(vector),
            Some(vector) => Err(Invalid::Dimensions { given: vector.len(), expected }),
            None => Err(Invalid::Missing { row }),
        };
        let exact = Exact::new(&self.graph, query);
        // Vectors lie far from each other: the next ones travel while one is compared.
        for ahead in hits.iter().take(ROWS_AHEAD) {
            prefetch(vector(ahead.row)?);
        }
        for at in 0..hits.len() {
            if let Some(ahead) = hits.get(at + ROWS_AHEAD) {
                prefetch(vector(ahead.row)?);
            }
            let hit = &mut hits[at];
            hit.distance = exact.distance(vector(hit.row)?).unwrap_or(hit.distance);
        }
        hits.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
        hits.truncate(k);
        Ok(())
    }
}

impl Graph {
    /// Fills the pool with the `k` nearest that are live and accepted, by comparing all.
    pub(super) fn scan(
        &self,
        scratch: &mut Scratch,
        k: usize,
        mut accepts: impl FnMut(u32) -> bool,
    ) {
        scratch.pool.begin(k);
        let mut slots = Vec::with_capacity(LINKS_BASE);
        let mut ranks = [0.0; LINKS_BASE];
        let mut accepted =
            (0..self.nodes.len() as u32).filter(|&slot| self.is_live(slot) && accepts(slot));
        loop {
            slots.clear();
            slots.extend(accepted.by_ref().take(LINKS_BASE));
            if slots.is_empty() {
                return;
            }
            self.ranks(&scratch.probe, &slots, &mut ranks);
            for (&slot, &rank) in slots.iter().zip(&ranks) {
                scratch.pool.offer(rank, slot);
            }
        }
    }
}

/// A query as the one side of many exact distances.
struct Exact<'a> {
    graph: &'a Graph,
    query: &'a [f32],
    squared: f32,
}

impl<'a> Exact<'a> {
    fn new(graph: &'a Graph, query: &'a [f32]) -> Self {
        Self { graph, query, squared: (graph.kernels.dot)(query, query) }
    }

    /// Nothing where float32 cannot tell: the squares of the vectors are too small.
    fn distance(&self, row: &[f32]) -> Option<f32> {
        let dot = self.graph.kernels.dot;
        match self.graph.metric {
            Metric::Cosine => {
                let norms = self.squared.sqrt() * dot(row, row).sqrt();
                norms.is_normal().then(|| 1.0 - dot(self.query, row) / norms)
            }
            Metric::Euclidean => Some((self.graph.kernels.squared_distance)(self.query, row)),
            Metric::Dot => Some(-dot(self.query, row)),
        }
    }
}
