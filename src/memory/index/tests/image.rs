//! Images that are written while the index changes, and what is left of damaged ones.

use super::{
    super::{
        centre::FIRST,
        image::{BYTES_AROUND_CENTRE, CHUNK_ROWS, FLOATS},
    },
    graph::check,
    *,
};
use crate::memory::cases::cases;
use proptest::{
    collection::vec,
    prelude::{any, prop_assert, prop_assert_eq, proptest},
    sample::select,
};
use std::collections::{BTreeMap, BTreeSet};

const DIMENSIONS: usize = 20;

/// An index with what the caller of one keeps beside it.
struct Store {
    index: Index,
    vectors: BTreeMap<Row, Vec<f32>>,
    changed: BTreeSet<Row>,
}

impl Store {
    fn insert(&mut self, vector: Vec<f32>) {
        let row = self.index.insert(&vector).expect("the vector is well");
        self.vectors.insert(row, vector);
        self.changed.insert(row);
    }

    fn remove(&mut self, at: usize) {
        let row = *self.vectors.keys().nth(at % self.vectors.len()).expect("in range");
        assert!(self.index.remove(row));
        self.vectors.remove(&row);
        self.changed.insert(row);
    }

    fn wanted(&self, row: Row) -> Wanted {
        match (self.vectors.contains_key(&row), self.changed.contains(&row)) {
            (false, _) => Wanted::Nothing,
            (true, false) => Wanted::Same,
            (true, true) => Wanted::Changed,
        }
    }

    fn rows(&self) -> Row {
        self.vectors.keys().last().map_or(0, |row| row + 1)
    }
}

fn options(metric: Metric, seed: u64) -> IndexOptions {
    IndexOptions { seed, ef_construction: 32, ..IndexOptions::new(DIMENSIONS, metric) }
}

fn store(random: &mut Rng, metric: Metric, count: usize) -> Store {
    let index = Index::new(options(metric, random.u64(..))).expect("the options are well");
    let mut store = Store { index, vectors: BTreeMap::new(), changed: BTreeSet::new() };
    vectors(random, count, DIMENSIONS).into_iter().for_each(|vector| store.insert(vector));
    store.changed.clear();
    store
}

/// All chunks, with `between` done after each of them.
fn write(store: &mut Store, mut between: impl FnMut(&mut Store)) -> Vec<Vec<u8>> {
    let mut image = store.index.begin_image();
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::new();
        if image.chunk(&store.index, &mut chunk).is_none() {
            return chunks;
        }
        chunks.push(chunk);
        between(store);
    }
}

/// Loads what can be loaded, inserts the rest again, and checks that all is there and can be found.
fn load(store: &Store, metric: Metric, chunks: &[Vec<u8>]) -> (Index, usize) {
    let mut loader = Loader::new(options(metric, 1)).expect("the options are well");
    for chunk in chunks {
        let _ = loader.chunk(chunk);
    }
    let (mut index, again) = loader.finish(store.rows(), |row| store.wanted(row)).expect("well");
    check(&mut index);
    for &row in &again {
        assert!(!index.contains(row));
        index.insert_at(row, &store.vectors[&row]).expect("the row is kept for it");
    }
    check(&mut index);
    let live: BTreeSet<Row> =
        (0..index.stats().rows as Row).filter(|&r| index.contains(r)).collect();
    assert!(live.iter().eq(store.vectors.keys()), "other rows than the store has");
    (index, again.len())
}

/// The part of the stored vectors that a search for them finds first.
fn found(store: &Store, index: &mut Index) -> f64 {
    let mut found = 0;
    for vector in store.vectors.values() {
        let hits = index.search(vector, 1, 50, |_| true).expect("the query is well");
        found += usize::from(hits.first().is_some_and(|hit| store.vectors[&hit.row] == *vector));
    }
    found as f64 / store.vectors.len() as f64
}

#[test]
fn an_image_of_an_index_at_rest_is_the_index() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        let mut random = Rng::with_seed(43);
        let mut store = store(&mut random, metric, 2000);
        let chunks = write(&mut store, |_| ());
        assert!(chunks.len() > 1, "{} chunks", chunks.len());
        let (mut loaded, again) = load(&store, metric, &chunks);
        assert_eq!(again, 0);
        assert_eq!(loaded.stats().live, 2000);
        for row in 0..2000 {
            // What fills up the last line counts where a row is compared with others.
            assert_eq!(loaded.graph.codes.get(row), store.index.graph.codes.get(row));
            for layer in 0..=loaded.graph.level(row) {
                assert_eq!(loaded.graph.links(row, layer), store.index.graph.links(row, layer));
            }
        }
        let query = &store.vectors[&7];
        let before = store.index.search(query, 10, 50, |_| true);
        assert_eq!(loaded.search(query, 10, 50, |_| true), before);
    }
}

/// An index around a centre, or whose codes are float32, goes on where it ended.
#[test]
fn an_image_keeps_what_codes_are() {
    for (dimensions, codes) in
        [(3, FLOATS), (200, BYTES_AROUND_CENTRE), (4096, BYTES_AROUND_CENTRE)]
    {
        let mut random = Rng::with_seed(79);
        let mut all = vectors(&mut random, 100, dimensions);
        all.iter_mut().flatten().for_each(|component| *component += 1000.0);
        let mut index = filled(Metric::Euclidean, &all, 3);
        let mut loader = Loader::new(index.options.clone()).expect("the options are well");
        let (mut image, mut chunk) = (index.begin_image(), Vec::new());
        while image.chunk(&index, &mut chunk).is_some() {
            assert_eq!(chunk[23], codes);
            loader.chunk(&chunk).expect("the chunk is well");
            chunk.clear();
        }
        let (mut loaded, again) = loader.finish(100, |_| Wanted::Same).expect("well");
        assert!(again.is_empty());
        let between: Vec<_> = all[0].iter().zip(&all[1]).map(|(a, b)| (a + b) / 2.0).collect();
        for index in [&mut loaded, &mut index] {
            assert_eq!(index.insert(&between), Ok(100));
        }
        for query in &all {
            let before = index.search(query, 10, 50, |_| true).expect("the query is well");
            assert_eq!(loaded.search(query, 10, 50, |_| true), Ok(before));
        }
    }
}

/// The centre is chosen after the image began, or after so few vectors that it is not in the image: all come
/// again, and it is chosen then.
#[test]
fn an_image_without_a_centre_or_with_two_is_made_anew() {
    for (before, between) in [(FIRST - 1, 0), (FIRST - 1, CHUNK_ROWS), (3 * FIRST, CHUNK_ROWS)] {
        let mut random = Rng::with_seed(83);
        let mut far = |count, place| {
            let mut all = vectors(&mut random, count, DIMENSIONS);
            all.iter_mut().flatten().for_each(|component| *component += place);
            all
        };
        let index = Index::new(options(Metric::Euclidean, 3)).expect("the options are well");
        let mut store = Store { index, vectors: BTreeMap::new(), changed: BTreeSet::new() };
        far(before, 1000.0).into_iter().for_each(|vector| store.insert(vector));
        store.changed.clear();
        let place = if before > FIRST { -1000.0 } else { 1000.0 };
        let mut later = far(between, place);
        let chunks = write(&mut store, |store| {
            if before > FIRST && !later.is_empty() {
                // It is empty in between, so that another centre is chosen.
                (0..before).for_each(|_| store.remove(0));
            }
            later.drain(..).for_each(|vector| store.insert(vector));
        });
        assert_eq!(chunks.len() > 1, between > 0);
        let (mut loaded, again) = load(&store, Metric::Euclidean, &chunks);
        assert_eq!(again, store.vectors.len());
        assert!(!loaded.graph.coding.centre.is_empty() || store.vectors.len() < FIRST);
        let found = found(&store, &mut loaded);
        assert!(found >= 0.98, "{found}");
    }
}

#[test]
fn what_changes_while_an_image_is_written_is_inserted_again() {
    let mut random = Rng::with_seed(47);
    let mut store = store(&mut random, Metric::Cosine, 4000);
    let mut fresh = vectors(&mut random, 4000, DIMENSIONS);
    let chunks = write(&mut store, |store| {
        for _ in 0..150 {
            store.remove(random.usize(..));
            store.insert(fresh.pop().expect("vectors enough"));
        }
    });
    let (mut loaded, again) = load(&store, Metric::Cosine, &chunks);
    let changed = store.vectors.keys().filter(|row| store.changed.contains(row)).count();
    assert_eq!(again, changed);
    let after = found(&store, &mut loaded);
    println!("{} chunks, {again} rows inserted again, {after:.4} found", chunks.len());
    assert!(after >= 0.99, "{after}");
}

/// Each bit of headers and some of the rows' is flipped: the chunk is refused, its rows come back, and
/// those that lost a third of their links with it.
#[test]
fn a_flipped_bit_costs_the_rows_of_its_chunk_and_those_that_hung_on_them() {
    let mut random = Rng::with_seed(53);
    let mut store = store(&mut random, Metric::Euclidean, 1500);
    let chunks = write(&mut store, |_| ());
    let rows_of = |chunk: &[u8]| u32::from_le_bytes(chunk[16..20].try_into().expect("four bytes"));
    let bits = (0..IMAGE_HEADER_BYTES * 8)
        .chain((IMAGE_HEADER_BYTES * 8..chunks[1].len() * 8).step_by(9973));
    for (turn, bit) in bits.enumerate() {
        let mut damaged = chunks.clone();
        damaged[1][bit / 8] ^= 1 << (bit % 8);
        let mut loader = Loader::new(options(Metric::Euclidean, 1)).expect("well");
        assert!(loader.chunk(&damaged[1]).is_err(), "bit {bit}");
        if turn % 64 == 0 {
            let (_, again) = load(&store, Metric::Euclidean, &damaged);
            assert!(again >= rows_of(&chunks[1]) as usize, "{again}");
        }
    }
}

#[test]
fn chunks_of_other_indexes_are_refused() {
    let mut random = Rng::with_seed(59);
    let mut store = store(&mut random, Metric::Cosine, 100);
    let chunks = write(&mut store, |_| ());
    let refused = |options: IndexOptions| {
        Loader::new(options).expect("the options are well").chunk(&chunks[0])
    };
    let well = || options(Metric::Cosine, 1);
    let error = refused(IndexOptions { dimensions: 13, ..well() });
    assert_eq!(error, Err(Damaged::Other("number of dimensions")));
    assert_eq!(refused(options(Metric::Dot, 1)), Err(Damaged::Other("metric")));
    let error = refused(IndexOptions { vectors_max: 99, ..well() });
    assert_eq!(error, Err(Damaged::Other("number of rows")));
    let mut loader = Loader::new(well()).expect("the options are well");
    assert_eq!(loader.chunk(&chunks[0]), Ok(0..100));
    assert_eq!(loader.chunk(&chunks[0]), Err(Damaged::Rows(0..100)));
    assert_eq!(loader.chunk(&chunks[0][..chunks[0].len() - 1]), Err(Damaged::Cut));
}

#[test]
fn only_rows_that_an_image_left_are_inserted_at() {
    let mut random = Rng::with_seed(61);
    let store = store(&mut random, Metric::Cosine, 50);
    let loader = Loader::new(options(Metric::Cosine, 1)).expect("the options are well");
    let wanted = |row: Row| if row < 10 { Wanted::Nothing } else { Wanted::Same };
    let (mut index, again) = loader.finish(50, wanted).expect("the rows fit");
    assert!(again.iter().copied().eq(10..50));
    let vector = &store.vectors[&20];
    assert_eq!(index.insert_at(3, vector), Err(Invalid::NotPromised { row: 3 }));
    assert_eq!(index.insert_at(50, vector), Err(Invalid::NotPromised { row: 50 }));
    assert_eq!(index.insert_at(20, vector), Ok(()));
    assert_eq!(index.insert_at(20, vector), Err(Invalid::NotPromised { row: 20 }));
    // Others take free rows, never one that is kept.
    let taken: BTreeSet<_> = (0..12).map(|_| index.insert(vector).expect("room")).collect();
    assert!(taken.into_iter().eq((0..10).chain(50..52)));
    // Until it is given up.
    assert!(index.forgo(30) && !index.forgo(30) && !index.forgo(20) && !index.forgo(99));
    assert_eq!(index.insert(vector), Ok(30));
    check(&mut index);
}

/// However many chunks are lost: those whose rows stay are found as well as those that are inserted again.
#[test]
fn what_is_left_of_a_torn_image_is_found() {
    for (seed, lost) in (71..).zip([3, 2, 2, 4]) {
        let mut random = Rng::with_seed(seed);
        let mut store = store(&mut random, Metric::Cosine, 1200);
        let mut chunks = write(&mut store, |store| {
            for _ in 0..20 {
                store.remove(random.usize(..));
                store.insert(vectors(&mut random, 1, DIMENSIONS).remove(0));
            }
        });
        let all = chunks.len();
        let mut at = 0;
        chunks.retain(|_| {
            at += 1;
            at % lost != 0
        });
        let (mut loaded, again) = load(&store, Metric::Cosine, &chunks);
        let found = found(&store, &mut loaded);
        println!("{} of {all} chunks, {again} rows inserted again, {found:.4} found", chunks.len());
        assert!(found >= 0.98, "{found}");
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Chunks that are lost or come twice, while vectors come and go as they like.
    #[test]
    fn any_chunks_of_a_fuzzy_image_make_a_graph(
        seed in any::<u64>(),
        count in 1..1500_usize,
        churn in 0..200_usize,
        lost in vec(any::<bool>(), 12),
        metric in select(vec![Metric::Cosine, Metric::Euclidean]),
    ) {
        let mut random = Rng::with_seed(seed);
        let mut store = store(&mut random, metric, count);
        let mut chunks = write(&mut store, |store| {
            for _ in 0..churn {
                if random.bool() && !store.vectors.is_empty() {
                    store.remove(random.usize(..));
                } else {
                    store.insert(vectors(&mut random, 1, DIMENSIONS).remove(0));
                }
            }
        });
        let mut at = 0;
        chunks.retain(|_| { at += 1; !lost[at % lost.len()] });
        let (mut loaded, _) = load(&store, metric, &chunks);
        if !store.vectors.is_empty() {
            let found = found(&store, &mut loaded);
            // One of few is a large part of them.
            let missed = ((1.0 - found) * store.vectors.len() as f64).round();
            prop_assert!(missed <= 1.0 + 0.03 * store.vectors.len() as f64, "{}", found);
        }
        // It goes on like any other index.
        let mut live: Vec<Row> = store.vectors.keys().copied().collect();
        for vector in vectors(&mut random, 100, DIMENSIONS) {
            if random.bool() && !live.is_empty() {
                prop_assert!(loaded.remove(live.swap_remove(random.usize(..live.len()))));
            } else {
                live.push(loaded.insert(&vector).expect("there is room"));
            }
        }
        check(&mut loaded);
        prop_assert_eq!(loaded.stats().live, live.len());
    }
}
