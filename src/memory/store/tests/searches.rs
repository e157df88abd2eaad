//! What a search finds, with namespaces and filters.

use super::{super::recall::Recall, *};
use crate::wire::msgpack::write;

/// A partition of so many items on a line; every tenth in the namespace `tenth`, and each with its
/// place and its place modulo 100 in its metadata.
fn line(count: usize) -> (Partition, Store) {
    let mut settings = settings(None);
    settings.segment_bytes = 1 << 20;
    let (mut partition, store) = open(&settings);
    for place in 0..count {
        let mut metadata = Vec::new();
        write::map(&mut metadata, 2);
        write::str(&mut metadata, "place");
        write::uint(&mut metadata, place as u64);
        write::str(&mut metadata, "rest");
        write::uint(&mut metadata, place as u64 % 100);
        let namespace = if place % 10 == 0 { "tenth" } else { "space" };
        let item = MemoryItem {
            key: format!("key-{place}"),
            namespace: namespace.to_owned(),
            vector: vec![place as f32, 0.0, 0.0, 1.0],
            text: None,
            metadata,
        };
        partition.put(&item, 0).unwrap();
        partition.settle().unwrap();
    }
    (partition, store)
}

fn near(place: f32, k: u32) -> MemoryQuery {
    MemoryQuery { vector: vec![place, 0.0, 0.0, 1.0], k, ..MemoryQuery::default() }
}

fn filter(name: &str, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::map(&mut bytes, 1);
    write::str(&mut bytes, name);
    write::uint(&mut bytes, value);
    bytes
}

fn keys(hits: &[MemoryHit]) -> Vec<&str> {
    hits.iter().map(|hit| &*hit.key).collect()
}

#[test]
fn the_nearest_come_first_with_their_scores() {
    let (mut partition, _store) = line(500);
    let hits = search(&mut partition, near(100.2, 3)).unwrap();
    assert_eq!(keys(&hits), ["key-100", "key-101", "key-99"]);
    let scores: Vec<i32> = hits.iter().map(|hit| (hit.score * 10.0).round() as i32).collect();
    assert_eq!(scores, [-2, -8, -12]);
}

#[test]
fn a_namespace_is_searched_alone() {
    let (mut partition, _store) = line(500);
    let query = MemoryQuery { namespace: Some("tenth".into()), ..near(100.2, 3) };
    assert_eq!(keys(&search(&mut partition, query).unwrap()), ["key-100", "key-110", "key-90"]);
    let query = MemoryQuery { namespace: Some("no such".into()), ..near(100.2, 3) };
    assert!(search(&mut partition, query).unwrap().is_empty());
}

/// One knows its rows, the other has too many.
#[test]
fn small_and_large_namespaces_are_searched_alike() {
    let (mut partition, _store) = line(6_000);
    for (namespace, expected) in [
        ("tenth", ["key-3000", "key-3010", "key-2990"]),
        ("space", ["key-3001", "key-3002", "key-2999"]),
    ] {
        let number = partition.table.namespaces.find(namespace).unwrap();
        assert_eq!(partition.table.namespaces.rows(number).is_some(), namespace == "tenth");
        let within = |query| MemoryQuery { namespace: Some(namespace.into()), ..query };
        let hits = search(&mut partition, within(near(3_000.9, 3))).unwrap();
        assert_eq!(keys(&hits), expected);
        let count = search(&mut partition, within(near(0.0, 500))).unwrap().len();
        assert_eq!(count, 500, "{namespace}");
        assert!(partition.delete(namespace, expected[0], 1).is_ok());
        partition.settle().unwrap();
        let hits = search(&mut partition, within(near(3_000.9, 2))).unwrap();
        assert_eq!(keys(&hits), expected[1..], "{namespace}");
        let last = MemoryQuery { filter: filter("place", 5_990), ..within(near(0.0, 3)) };
        let found = search(&mut partition, last).unwrap();
        assert_eq!(found.len(), usize::from(namespace == "tenth"));
    }
}

#[test]
fn a_filter_that_lets_few_pass_finds_them_all_the_same() {
    let (mut partition, _store) = line(6_000);
    let query = MemoryQuery { filter: filter("rest", 7), ..near(100.2, 3) };
    assert_eq!(keys(&search(&mut partition, query).unwrap()), ["key-107", "key-7", "key-207"]);
    let query = MemoryQuery { filter: filter("place", 5_999), ..near(0.0, 3) };
    assert_eq!(keys(&search(&mut partition, query).unwrap()), ["key-5999"]);
    let query = MemoryQuery { filter: filter("no such", 1), ..near(0.0, 3) };
    assert!(search(&mut partition, query).unwrap().is_empty());
}

/// Half of the items lie near the queries, those of the namespace `far` on the other side of the origin, and their
/// metadata say so as well. What is true, by place.
fn two_sides() -> (Partition, Store, Vec<Vec<f32>>, Vec<Vec<f32>>) {
    const NUMBERS: usize = 100;
    let mut settings = settings(None);
    settings.dimension = NUMBERS;
    settings.metric = Metric::Cosine;
    settings.segment_bytes = 1 << 20;
    settings.ef_construction = 100;
    let (mut partition, store) = open(&settings);
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = || random.f32() - 0.5 + random.f32() - 0.5;
    let centres: Vec<f32> = (0..8 * NUMBERS).map(|_| noise()).collect();
    let mut near = |at: usize| -> Vec<f32> {
        let centre = &centres[at % 8 * NUMBERS..][..NUMBERS];
        centre.iter().map(|value| value + noise() + 0.08).collect()
    };
    let near_and_queries: Vec<_> = (0..4_500 + 40).map(&mut near).collect();
    let (near, queries) = near_and_queries.split_at(4_500);
    let mut all = Vec::new();
    for (place, vector) in near.iter().flat_map(|vector| [vector; 2]).enumerate() {
        let (namespace, sign) = if place % 2 == 0 { ("near", 1.0) } else { ("far", -1.0) };
        all.push(vector.iter().map(|value| sign * value).collect::<Vec<f32>>());
        let item = MemoryItem {
            key: place.to_string(),
            namespace: namespace.to_owned(),
            vector: all[place].clone(),
            text: None,
            metadata: filter("side", place as u64 % 2),
        };
        partition.put(&item, 0).unwrap();
        partition.settle().unwrap();
    }
    (partition, store, all, queries.to_vec())
}

/// What is asked for is nowhere near the query.
#[test]
fn what_goes_against_the_query_is_found_by_wide_searches_too() {
    let (mut partition, _store, all, queries) = two_sides();
    let number = partition.table.namespaces.find("far").unwrap();
    assert!(partition.table.namespaces.rows(number).is_none());
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for (namespace, filter) in [(Some("far"), vec![]), (None, filter("side", 1))] {
        for ef in [100, 200, 400, 1000] {
            let mut found = 0;
            for query in &queries {
                let mut truth: Vec<f32> =
                    all.iter().skip(1).step_by(2).map(|it| cosine(query, it)).collect();
                truth.sort_unstable_by(|a, b| b.total_cmp(a));
                let query = MemoryQuery {
                    vector: query.clone(),
                    k: 10,
                    ef: Some(ef),
                    namespace: namespace.map(str::to_owned),
                    filter: filter.clone(),
                };
                let hits = search(&mut partition, query).unwrap();
                found += hits.iter().filter(|hit| hit.score >= truth[9] - 1e-5).count();
            }
            println!("{namespace:?}, ef {ef}: {found} of 400");
            assert!(found >= 392, "{namespace:?}, ef {ef}: {found} of 400");
        }
    }
}

/// Fewer items than the widest walk takes, of which those at its end pass.
#[test]
fn a_search_ends_whose_filter_lets_the_farthest_pass() {
    let (mut partition, _store) = line(3_000);
    for place in (99..2_600).step_by(100) {
        partition.delete("space", &format!("key-{place}"), 1).unwrap();
        partition.settle().unwrap();
    }
    for (k, expected) in [(1, 1), (2, 2), (4, 4), (10, 4)] {
        let query = MemoryQuery { filter: filter("rest", 99), ..near(0.0, k) };
        let hits = steps(&mut partition, query);
        assert_eq!(keys(&hits), ["key-2699", "key-2799", "key-2899", "key-2999"][..expected]);
    }
}

/// The hits of a search that ends.
fn steps(partition: &mut Partition, query: MemoryQuery) -> Vec<MemoryHit> {
    let mut search = Search::new(query, 50).unwrap();
    for _ in 0..100_000 {
        if let Step::Done(Some(hits)) = search.step(partition) {
            return hits.unwrap();
        }
    }
    panic!("the search does not end");
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    let (mut partition, _store) = line(10);
    let mut refused = |query| search(&mut partition, query).unwrap_err().to_string();
    assert!(refused(near(0.0, 0)).contains("k:"));
    assert!(refused(MemoryQuery { ef: Some(0), ..near(0.0, 1) }).contains("ef:"));
    assert!(refused(MemoryQuery { filter: vec![1], ..near(0.0, 1) }).contains("filter:"));
    let short = MemoryQuery { vector: vec![1.0], ..near(0.0, 1) };
    assert!(refused(short).contains("vector:"));
}

#[test]
fn recall_is_measured_against_all_rows() {
    let (mut partition, _store) = line(2_000);
    let mut recall = Recall::new(20, 50, 3);
    let tally = run(&mut partition, |partition| recall.step(partition));
    assert_eq!((tally.queries, tally.wanted), (20, 200));
    assert!(tally.found >= 195, "{} of {} were found", tally.found, tally.wanted);
}
