//! What searches with a filter find, and what they compute for it.

use super::{super::kernels::Line, *};
use std::cell::Cell;

const K: usize = 10;

thread_local! {
    static COMPUTED: Cell<usize> = const { Cell::new(0) };
}

/// The product of codes, counted.
fn counting(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    COMPUTED.set(COMPUTED.get() + rows.len());
    let portable = super::super::kernels::Kernels::available();
    (portable.last().expect("it is always there").dot_rows)(query, rows, products);
}

/// The hits of a filter that accepts about so many.
fn search(
    index: &mut Index,
    query: &[f32],
    (k, ef): (usize, usize),
    accepted: usize,
    accepts: impl Fn(Row) -> bool + Copy,
) -> Vec<Hit> {
    let mut search = index.begin_filtered_search(query, k, ef, accepted).expect("it is well");
    let hits = std::iter::from_fn(|| Some(search.step(index, usize::MAX, accepts)));
    let hits: Vec<_> = hits.flatten().next().expect("it comes to an end");
    assert!(hits.iter().all(|hit| accepts(hit.row)));
    hits
}

/// Half of the vectors lie near the queries, the others, with odd rows, on the other side of the origin.
fn two_sides(seed: u64, count: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut all = vectors(&mut Rng::with_seed(seed), count / 2 + 40, 200);
    all.iter_mut().flatten().for_each(|value| *value += 0.06);
    let queries = all.split_off(count / 2);
    let sides = (0..count).map(|row| {
        let sign = if row % 2 == 0 { 1.0 } else { -1.0 };
        all[row / 2].iter().map(|value| sign * value).collect()
    });
    (sides.collect(), queries)
}

/// The part of the true nearest among those with odd rows that is found.
fn recall_of_odd(index: &mut Index, all: &[Vec<f32>], queries: &[Vec<f32>], ef: usize) -> f64 {
    let mut found = 0;
    for query in queries {
        let to = |row: Row| distance(Metric::Cosine, query, &all[row as usize]);
        let odd = |row: Row| row % 2 == 1;
        let mut truth: Vec<f64> = (0..all.len() as Row).filter(|row| odd(*row)).map(to).collect();
        truth.sort_unstable_by(f64::total_cmp);
        let hits = search(index, query, (2 * K, ef), all.len() / 2, odd);
        found += hits.iter().filter(|hit| to(hit.row) <= truth[K - 1]).count();
    }
    found as f64 / (K * queries.len()) as f64
}

/// A filter that refuses all that is near the query.
#[test]
fn filters_against_the_query_find_no_less_when_searches_are_wider() {
    let (all, queries) = two_sides(181, 5000);
    let mut index = filled(Metric::Cosine, &all, 181);
    let mut narrower = 0.85;
    for ef in [16, 50, 100, 200, 400, 1000, 2000, EF_MAX] {
        let recall = recall_of_odd(&mut index, &all, &queries, ef);
        println!("ef {ef}: {recall:.4}");
        assert!(recall >= narrower - 0.01, "ef {ef}: {recall} after {narrower}");
        narrower = recall.max(narrower);
    }
    assert!(narrower >= 0.99, "{narrower}");
}

/// A search whose filter accepts what is near walks as any; one whose filter refuses that does not follow all of it
/// before all others are compared.
#[test]
fn filtered_searches_compute_no_more_than_they_must() {
    let (all, queries) = two_sides(182, 20_000);
    let mut index = filled(Metric::Cosine, &all, 182);
    index.graph.coding.kernels.dot_rows = counting;
    for (part, rest, accepted, most) in [(2, 0, 10_000, 3000), (40, 1, 500, 2000)] {
        for query in &queries {
            COMPUTED.set(0);
            search(&mut index, query, (2 * K, 50), accepted, |row| row % part == rest);
            let computed = COMPUTED.get();
            assert!(computed <= most && computed > 100, "1 of {part}: {computed} distances");
        }
    }
}

#[test]
fn a_filtered_search_in_steps_finds_what_it_finds_at_once() {
    let mut random = Rng::with_seed(183);
    let all = vectors(&mut random, 3000, 24);
    let mut index = filled(Metric::Cosine, &all, 183);
    for (part, query) in [1, 2, 3, 7, 40].into_iter().cycle().zip(all.iter().step_by(100)) {
        let accepts = |row: Row| row.is_multiple_of(part);
        let accepted = 3000 / part as usize;
        let at_once = search(&mut index, query, (K, 50), accepted, accepts);
        for distances in [1, 17, 64] {
            let mut open = index.begin_filtered_search(query, K, 50, accepted).expect("well");
            let mut steps = 0;
            let hits = loop {
                steps += 1;
                if let Some(hits) = open.step(&mut index, distances, accepts) {
                    break hits;
                }
            };
            assert!(hits == at_once && steps > 1, "1 of {part}, {distances}: {steps} steps");
        }
    }
}

/// A filter that refuses all near the query, down to one accepted vector.
#[test]
fn filtered_searches_find_what_the_filter_accepts() {
    let mut random = Rng::with_seed(17);
    let all = vectors(&mut random, 3000, 16);
    let mut index = filled(Metric::Euclidean, &all, 17);
    for part in [2, 50, 1000, 3000] {
        let mut found = 0;
        let mut wanted = 0;
        for query in all.iter().step_by(100) {
            let accepts = |row: Row| row % part == part - 1;
            let hits = search(&mut index, query, (K, 50), 3000 / part as usize, accepts);
            assert!(hits.iter().all(|hit| accepts(hit.row)));
            let accepted = (0..).zip(&all).filter(|(row, _)| accepts(*row));
            let mut truth: Vec<f64> =
                accepted.map(|(_, vector)| distance(Metric::Euclidean, query, vector)).collect();
            truth.sort_unstable_by(f64::total_cmp);
            let k = K.min(truth.len());
            assert_eq!(hits.len(), k);
            let limit = truth[k - 1] * 1.02 + 1e-6;
            found += hits.iter().filter(|hit| f64::from(hit.distance) <= limit).count();
            wanted += k;
        }
        assert!(found * 100 >= wanted * 95, "1 of {part}: {found} of {wanted}");
    }
}
