//! What is found, against comparing with all.

use super::*;
use crate::memory::cases::cases;
use proptest::{
    prelude::{Just, any, prop_assert, prop_oneof, proptest},
    sample::select,
};
use std::collections::{BTreeMap, BTreeSet};

const K: usize = 10;

/// The part of the `K` nearest that is among the 2 `K` candidates which codes alone give: what is not there no ranking finds.
/// Those that are as near as the last of them may stand for it.
pub(super) fn recall(
    index: &mut Index,
    stored: &[(Row, Vec<f32>)],
    queries: &[Vec<f32>],
    metric: Metric,
    ef: usize,
) -> f64 {
    let by_row: BTreeMap<Row, &[f32]> = stored.iter().map(|(row, v)| (*row, &v[..])).collect();
    let k = K.min(stored.len());
    let mut found = 0;
    for query in queries {
        let mut truth: Vec<f64> =
            stored.iter().map(|(_, vector)| distance(metric, query, vector)).collect();
        truth.sort_unstable_by(f64::total_cmp);
        let mut hits = index.search(query, 2 * K, ef, |_| true).expect("the query is well");
        assert_eq!(hits.len(), (2 * K).min(stored.len()), "fewer hits than there are vectors");
        let rows: BTreeSet<_> = hits.iter().map(|hit| hit.row).collect();
        assert_eq!(rows.len(), hits.len(), "a row was found twice");
        let near = |hit: &&Hit| distance(metric, query, by_row[&hit.row]) <= truth[k - 1];
        found += hits.iter().filter(near).count().min(k);
        index
            .rerank(query, |row| by_row.get(&row).copied(), K, &mut hits)
            .expect("all rows are there");
        assert!(hits.len() == k && hits.is_sorted_by(|a, b| a.distance <= b.distance));
    }
    found as f64 / (k * queries.len()) as f64
}

pub(super) fn numbered(vectors: Vec<Vec<f32>>) -> Vec<(Row, Vec<f32>)> {
    (0..).zip(vectors).collect()
}

#[test]
fn nearly_all_true_neighbours_are_found_in_any_dimension() {
    for (seed, dimensions) in (0..).zip([2, 3, 17, 64, 65, 200, 512]) {
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let mut random = Rng::with_seed(seed);
            let mut all = vectors(&mut random, 2050, dimensions);
            let queries = all.split_off(2000);
            let mut index = filled(metric, &all, seed);
            let recall = recall(&mut index, &numbered(all), &queries, metric, 100);
            println!("{metric:?}, {dimensions} dimensions: {recall:.3}");
            assert!(recall >= 0.97, "{metric:?}, {dimensions} dimensions, seed {seed}: {recall}");
        }
    }
}

/// More vectors than a byte a component can tell apart where there are few components.
#[test]
fn few_dimensions_are_told_apart_among_many_vectors() {
    for dimensions in [2, 3, 8, 16, 17] {
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let mut random = Rng::with_seed(dimensions as u64);
            let mut all = vectors(&mut random, 20_050, dimensions);
            let queries = all.split_off(20_000);
            let mut index = filled(metric, &all, 7);
            let recall = recall(&mut index, &numbered(all), &queries, metric, 50);
            println!("{metric:?}, {dimensions} dimensions: {recall:.3}");
            assert!(recall >= 0.97, "{metric:?}, {dimensions} dimensions: {recall}");
        }
    }
}

#[test]
fn long_vectors_are_found() {
    for dimensions in [768, 1536, 4096] {
        for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
            let mut random = Rng::with_seed(dimensions as u64);
            let mut all = vectors(&mut random, 1020, dimensions);
            let queries = all.split_off(1000);
            let mut index = filled(metric, &all, 7);
            let recall = recall(&mut index, &numbered(all), &queries, metric, 100);
            println!("{metric:?}, {dimensions} dimensions: {recall:.3}");
            assert!(recall >= 0.95, "{metric:?}, {dimensions} dimensions: {recall}");
        }
    }
}

/// What all vectors have in common does not enter the euclidean distance, and must not take the bits of
/// their codes.
#[test]
fn vectors_far_from_the_origin_are_told_apart() {
    for dimensions in [2, 16, 17, 32, 384] {
        for offset in [10.0, 1000.0] {
            let mut random = Rng::with_seed(dimensions as u64);
            let place: Vec<f32> = (0..dimensions).map(|_| offset * (random.f32() - 0.5)).collect();
            let mut all = vectors(&mut random, 2050, dimensions);
            for vector in &mut all {
                vector.iter_mut().zip(&place).for_each(|(value, place)| *value += place);
            }
            let queries = all.split_off(2000);
            let mut index = filled(Metric::Euclidean, &all, 7);
            let recall = recall(&mut index, &numbered(all), &queries, Metric::Euclidean, 100);
            println!("{dimensions} dimensions around {offset}: {recall:.3}");
            assert!(recall >= 0.97, "{dimensions} dimensions around {offset}: {recall}");
        }
    }
}

/// In a narrow cone all vectors have nearly all in common, under any metric.
#[test]
fn vectors_that_point_nearly_the_same_way_are_told_apart() {
    const NARROW: f32 = 1.0 / 250.0;
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclidean] {
        for dimensions in [17, 64, 384] {
            let mut random = Rng::with_seed(dimensions as u64);
            let way: Vec<f32> = (0..dimensions).map(|_| random.f32() - 0.5).collect();
            let mut all = vectors(&mut random, 2050, dimensions);
            for vector in &mut all {
                // The cosine does not ask for lengths.
                let size = if metric == Metric::Cosine { 0.5 + random.f32() } else { 1.0 };
                let pairs = vector.iter_mut().zip(&way);
                pairs.for_each(|(value, way)| *value = size * (way + NARROW * *value));
            }
            let queries = all.split_off(2000);
            let mut index = filled(metric, &all, 7);
            let stored = numbered(all);
            let recall = recall(&mut index, &stored, &queries, metric, 100);
            println!("{metric:?}, {dimensions} dimensions: {recall:.3}");
            assert!(recall >= 0.95, "{metric:?}, {dimensions} dimensions: {recall}");
        }
    }
}

#[test]
fn the_dot_product_works_for_vectors_of_like_length() {
    let mut random = Rng::with_seed(3);
    let mut all = vectors(&mut random, 2050, 64);
    let queries = all.split_off(2000);
    let mut index = filled(Metric::Dot, &all, 3);
    let recall = recall(&mut index, &numbered(all), &queries, Metric::Dot, 100);
    println!("dot product: {recall:.3}");
    assert!(recall >= 0.9, "{recall}");
}

#[test]
fn tiny_sets_are_found_whole() {
    let mut random = Rng::with_seed(5);
    for count in 1..40 {
        let all = vectors(&mut random, count, 8);
        let mut index = filled(Metric::Euclidean, &all, 5);
        let recall = recall(&mut index, &numbered(all.clone()), &all, Metric::Euclidean, 50);
        assert_eq!(recall, 1.0, "{count} vectors");
    }
    let mut empty = Index::new(IndexOptions::new(8, Metric::Cosine)).expect("well");
    assert_eq!(empty.search(&[1.0; 8], 3, 10, |_| true), Ok(vec![]));
}

#[test]
fn equal_vectors_are_all_as_good() {
    let mut index = filled(Metric::Cosine, &vec![vec![0.3, -0.2, 0.9]; 500], 1);
    let hits = index.search(&[0.3, -0.2, 0.9], 400, 50, |_| true).expect("the query is well");
    assert_eq!(hits.len(), 400);
    assert!(hits.iter().all(|hit| hit.distance.abs() < 1e-6));
}

/// Copies hold together, and a search that meets them must come out again.
#[test]
fn many_copies_of_some_vectors_do_not_hide_the_others() {
    for ((metric, groups, copies), is_mixed) in [
        (Metric::Cosine, 20, 5),
        (Metric::Cosine, 20, 20),
        (Metric::Cosine, 20, 100),
        (Metric::Cosine, 1, 5000),
        (Metric::Euclidean, 1, 5000),
        (Metric::Dot, 20, 100),
        (Metric::Dot, 1, 5000),
    ]
    .into_iter()
    .flat_map(|it| [(it, true), (it, false)])
    {
        let mut random = Rng::with_seed(11);
        let mut single = vectors(&mut random, 1030, 32);
        for vector in &mut single {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|component| *component /= length);
        }
        let queries = single.split_off(1000);
        let mut all: Vec<_> = Vec::new();
        for vector in &single[..groups] {
            all.extend((0..copies).map(|_| vector.clone()));
        }
        all.extend(single);
        if is_mixed {
            random.shuffle(&mut all);
        }
        let mut index = filled(metric, &all, 11);
        let recall = recall(&mut index, &numbered(all), &queries, metric, 100);
        println!("{metric:?}, {copies} copies: {recall:.3}");
        assert!(recall >= 0.95, "{metric:?}, {copies} copies: {recall}");
    }
}

#[test]
fn recall_stays_when_most_vectors_are_replaced_or_removed() {
    let mut random = Rng::with_seed(13);
    let mut pool = vectors(&mut random, 5050, 48);
    let queries = pool.split_off(5000);
    let fresh = pool.split_off(2000);
    let mut index = filled(Metric::Cosine, &pool, 13);
    let mut stored = numbered(pool);
    for vector in fresh {
        let at = random.usize(..stored.len());
        assert!(index.remove(stored[at].0));
        stored[at] = (index.insert(&vector).expect("the vector is well"), vector);
    }
    let after_churn = recall(&mut index, &stored, &queries, Metric::Cosine, 100);
    while stored.len() > 300 {
        let at = random.usize(..stored.len());
        assert!(index.remove(stored.swap_remove(at).0));
    }
    let after_removals = recall(&mut index, &stored, &queries, Metric::Cosine, 100);
    println!("after churn {after_churn:.3}, after removals {after_removals:.3}");
    assert!(after_churn >= 0.97, "{after_churn}");
    assert!(after_removals >= 0.97, "{after_removals}");
}

#[test]
fn vectors_whose_squares_float32_cannot_hold_are_ordered_by_their_codes() {
    for size in [1e-30_f32, 1e17] {
        let all = [[1.0, 0.0, 0.2], [0.6, 0.8, 0.1], [0.0, 1.0, 0.3]];
        let all: Vec<Vec<f32>> = all.iter().map(|v| v.iter().map(|x| x * size).collect()).collect();
        let mut index = filled(Metric::Cosine, &all, 1);
        let mut hits = index.search(&all[0], 3, 10, |_| true).expect("the query is well");
        index
            .rerank(&all[0], |row| Some(&all[row as usize][..]), 3, &mut hits)
            .expect("all rows are there");
        assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0, 1, 2], "{size}");
        assert!(hits[0].distance.abs() < 1e-6 && hits[2].distance > 0.5, "{hits:?}");
    }
}

/// A set with copies, from which many were removed.
#[derive(Clone, Copy, Debug)]
struct Left {
    seed: u64,
    dimensions: usize,
    count: usize,
    copied: f64,
    removed: f64,
    offset: f32,
    metric: Metric,
}

impl Left {
    /// How many are left, and the recall of searches among them.
    fn recall(self) -> (usize, f64) {
        let Self { seed, dimensions, count, metric, .. } = self;
        let mut random = Rng::with_seed(seed);
        let mut all = vectors(&mut random, count + 10, dimensions);
        all.iter_mut().flatten().for_each(|component| *component += self.offset);
        let queries = all.split_off(count);
        for at in 0..count {
            if random.f64() < self.copied {
                all[at] = all[random.usize(..count)].clone();
            }
        }
        let mut index = filled(metric, &all, seed);
        let mut stored = numbered(all);
        stored.retain(|(row, _)| {
            let stays = random.f64() >= self.removed;
            assert!(stays || index.remove(*row));
            stays
        });
        let has_any = !stored.is_empty();
        let recall = if has_any { recall(&mut index, &stored, &queries, metric, 100) } else { 1.0 };
        (stored.len(), recall)
    }
}

/// In two dimensions a node has few neighbours, and whole runs of them are removed at a time.
#[test]
fn a_graph_of_few_dimensions_holds_together_when_most_are_removed() {
    let directions = Left {
        seed: 17901126722224450470,
        dimensions: 2,
        count: 861,
        copied: 0.698,
        removed: 0.907,
        offset: 0.0,
        metric: Metric::Cosine,
    };
    for seed in (0..20).chain([directions.seed]) {
        let (left, recall) = Left { seed, ..directions }.recall();
        assert!(recall >= 0.9, "seed {seed}: {recall} of {left}");
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Any dimensions, copies, and removals, from another seed in each run.
    #[test]
    fn what_is_left_of_any_set_is_found(
        seed in any::<u64>(),
        dimensions in prop_oneof![2..20_usize, 20..800_usize],
        count in prop_oneof![1..60_usize, 60..1200_usize],
        copied in 0.0..0.9_f64,
        removed in 0.0..0.95_f64,
        offset in prop_oneof![Just(0.0_f32), -1000.0..1000.0_f32],
        metric in select(vec![Metric::Cosine, Metric::Euclidean, Metric::Dot]),
    ) {
        let offset = if metric == Metric::Cosine { 0.0 } else { offset };
        let (left, recall) =
            Left { seed, dimensions, count, copied, removed, offset, metric }.recall();
        let least = if left <= 20 { 1.0 } else { 0.9 };
        prop_assert!(recall >= least, "{} of {} vectors", recall, left);
    }
}
