//! Hits in the order of their float32 vectors.

use super::{
    error::Invalid,
    graph::{Graph, Index, Row},
    kernels::prefetch,
    quantize::{Metric, length, sum_of_pairs},
    search::Hit,
};

/// Float32 vectors that are fetched ahead.
const VECTORS_AHEAD: usize = 3;

impl Index {
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
        for ahead in hits.iter().take(VECTORS_AHEAD) {
            prefetch(vector(ahead.row)?);
        }
        for at in 0..hits.len() {
            if let Some(ahead) = hits.get(at + VECTORS_AHEAD) {
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

/// A query as the one side of many exact distances.
pub(super) struct Exact<'a> {
    graph: &'a Graph,
    query: &'a [f32],
    squared: f32,
    /// Whether directions may be nearer to each other than float32 can tell by their cosine.
    is_close: bool,
    /// One by the query's length, where they may.
    part: f64,
}

impl<'a> Exact<'a> {
    pub(super) fn new(graph: &'a Graph, query: &'a [f32]) -> Self {
        let is_close = graph.coding.has_floats() || !graph.coding.centre.is_empty();
        let squared = (graph.coding.kernels.dot)(query, query);
        let part = if is_close { length(query).recip() } else { 0.0 };
        Self { graph, query, squared, is_close, part }
    }

    /// For vectors of which it is not known yet whether they are near each other.
    pub(super) fn of_any(graph: &'a Graph, query: &'a [f32]) -> Self {
        Self { is_close: true, part: length(query).recip(), ..Self::new(graph, query) }
    }

    /// Nothing where float32 cannot tell: the squares of the vectors are too small.
    pub(super) fn distance(&self, row: &[f32]) -> Option<f32> {
        let dot = self.graph.coding.kernels.dot;
        match self.graph.coding.metric {
            Metric::Cosine if self.is_close => Some(directions_apart(self.query, self.part, row)),
            Metric::Cosine => {
                let norms = self.squared.sqrt() * dot(row, row).sqrt();
                norms.is_normal().then(|| 1.0 - dot(self.query, row) / norms)
            }
            Metric::Euclidean => {
                Some((self.graph.coding.kernels.squared_distance)(self.query, row))
            }
            Metric::Dot => Some(-dot(self.query, row)),
        }
    }
}

/// Half the square of the distance of two directions, which is one minus their cosine; but neighbours among
/// many of few dimensions, or of which all point the same way, are nearer to each other than the cosine can tell.
fn directions_apart(a: &[f32], a_part: f64, b: &[f32]) -> f32 {
    let b_part = length(b).recip();
    let apart = sum_of_pairs(a, b, |a, b| {
        let apart = a * a_part - b * b_part;
        apart * apart
    });
    (apart / 2.0) as f32
}
