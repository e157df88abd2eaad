//! What the index promises, against comparing everything with everything.

mod bounds;
mod coarse;
mod few;
mod filtered;
mod graph;
mod image;
mod input;
mod kernels;
mod late;
mod marks;
mod product;
mod quantize;
mod reach;
mod recall;
mod sequences;
mod steps;

use super::*;
use fastrand::Rng;

/// Random vectors around a few centres, as stored texts are; row by row.
fn vectors(random: &mut Rng, count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    const CENTRES: usize = 8;
    let vector = |random: &mut Rng| -> Vec<f32> {
        (0..dimensions).map(|_| random.f32() - 0.5 + random.f32() - 0.5).collect()
    };
    let centres: Vec<_> = (0..CENTRES).map(|_| vector(random)).collect();
    let near = |random: &mut Rng| {
        let centre = &centres[random.usize(..CENTRES)];
        centre.iter().zip(vector(random)).map(|(centre, noise)| centre + noise).collect()
    };
    (0..count).map(|_| near(random)).collect()
}

/// The distance of two vectors in 64 bits.
fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    match metric {
        Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
        Metric::Euclidean => {
            a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        }
        Metric::Dot => -dot(a, b),
    }
}

/// An index with these vectors in the rows from zero.
fn filled(metric: Metric, vectors: &[Vec<f32>], seed: u64) -> Index {
    let options = IndexOptions { seed, ..IndexOptions::new(vectors[0].len(), metric) };
    let mut index = Index::new(options).expect("the options are well");
    for (row, vector) in (0..).zip(vectors) {
        assert_eq!(index.insert(vector), Ok(row));
    }
    index
}
