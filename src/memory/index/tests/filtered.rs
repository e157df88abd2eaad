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

/// The part of the true nearest among the accepted that is found among twice as many candidates.
fn recall(
    index: &mut Index,
    all: &[Vec<f32>],
    queries: &[Vec<f32>],
    ef: usize,
    accepts: impl Fn(Row) -> bool + Copy,
) -> f64 {
    let accepted: Vec<Row> = (0..all.len() as Row).filter(|row| accepts(*row)).collect();
    let mut found = 0;
    for query in queries {
        let to = |row: Row| distance(Metric::Cosine, query, &all[row as usize]);
        let mut truth: Vec<f64> = accepted.iter().map(|row| to(*row)).collect();
        truth.sort_unstable_by(f64::total_cmp);
        let hits = search(index, query, (2 * K, ef), accepted.len(), accepts);
        assert_eq!(hits.len(), 2 * K);
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
        let recall = recall(&mut index, &all, &queries, ef, |row| row % 2 == 1);
        println!("ef {ef}: {recall:.4}");
        assert!(recall >= narrower - 0.01, "ef {ef}: {recall} after {narrower}");
        narrower = recall.max(narrower);
    }
    assert!(narrower >= 0.99, "{narrower}");
}

/// Filters that have nothing to do with the query: the first walk may be enough, or the second, or all are compared.
#[test]
fn filters_beside_the_query_find_no_less_when_searches_are_wider() {
    const COUNT: usize = 20_000;
    let mut random = Rng::with_seed(184);
    let mut all = vectors(&mut random, COUNT + 60, 48);
    let queries = all.split_off(COUNT);
    let mut index = filled(Metric::Cosine, &all, 184);
    let drawn: Vec<u32> = (0..COUNT).map(|_| random.u32(..100)).collect();
    for percent in [5, 10, 30] {
        let accepts = |row: Row| drawn[row as usize] < percent;
        let mut best = 0.0;
        for ef in [16, 32, 50, 100, 200, 400, 1000] {
            let recall = recall(&mut index, &all, &queries, ef, accepts);
            println!("{percent} %, ef {ef}: {recall:.4}");
            assert!(
                recall >= 0.95 && recall >= best - 0.015,
                "{percent} %, ef {ef}: {recall} after {best}"
            );
            best = recall.max(best);
        }
        assert!(best >= 0.99, "{percent} %: {best}");
    }
}

/// The nearest are refused, and all else is accepted: the first walk finds none, and the second one goes through what is
/// refused until it has met all that is as near as what fills its places.
#[test]
fn a_filtered_walk_goes_through_what_is_refused_and_comes_to_its_end() {
    const COUNT: usize = 20_000;
    let mut all = vectors(&mut Rng::with_seed(185), COUNT + 40, 48);
    let queries = all.split_off(COUNT);
    let mut index = filled(Metric::Cosine, &all, 185);
    index.graph.coding.kernels.dot_rows = counting;
    for refused in [60, 200, 400] {
        let (mut found, mut most) = (0.0, 0);
        for query in &queries {
            let far = all.iter().map(|vector| distance(Metric::Cosine, query, vector));
            let mut near: Vec<(f64, usize)> = far.zip(0..).collect();
            near.select_nth_unstable_by(refused, |a, b| a.0.total_cmp(&b.0));
            let mut is_refused = vec![false; COUNT];
            near[..refused].iter().for_each(|(_, row)| is_refused[*row] = true);
            COMPUTED.set(0);
            let accepts = |row: Row| !is_refused[row as usize];
            found += recall(&mut index, &all, std::slice::from_ref(query), 50, accepts);
            most = most.max(COMPUTED.get());
        }
        let recall = found / queries.len() as f64;
        println!("{refused} refused: {recall:.4}, at most {most} distances");
        // Comparing all that are accepted would take twice as many at least.
        assert!(most < COUNT / 2, "{refused} refused: {most} distances");
        assert!(recall >= 0.95, "{refused} refused: {recall}");
    }
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
