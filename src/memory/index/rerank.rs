//! Hits in the order of their float32 vectors.

use super::{
    error::Invalid,
    graph::{Graph, Index, Row},
    kernels::prefetch,
    quantize::Metric,
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
            hit.distance = exact.distance(vector(hit.row)?);
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
    /// The query's product with itself, where the cosine asks for it.
    squared: f64,
}

impl<'a> Exact<'a> {
    pub(super) fn new(graph: &'a Graph, query: &'a [f32]) -> Self {
        let squared = match graph.coding.metric {
            Metric::Cosine => (graph.coding.kernels.products)(query, query).1,
            Metric::Euclidean | Metric::Dot => 0.0,
        };
        Self { graph, query, squared }
    }

    pub(super) fn distance(&self, row: &[f32]) -> f32 {
        let kernels = &self.graph.coding.kernels;
        match self.graph.coding.metric {
            // In 64 bits: directions may be nearer to each other than float32 can tell by their cosine, and squares
            // may be smaller or larger than it has.
            Metric::Cosine => {
                let (product, squared) = (kernels.products)(self.query, row);
                let distance = 1.0 - product / (self.squared * squared).sqrt();
                // What points nowhere is near to nothing.
                if distance.is_nan() { f32::INFINITY } else { distance.max(0.0) as f32 }
            }
            Metric::Euclidean => (kernels.squared_distance)(self.query, row),
            Metric::Dot => -(kernels.dot)(self.query, row),
        }
    }
}
