//! What a partition of pattern memory costs: storing, searching warm and from cold files, starting.
//!
//! `cargo run --release --example memory_store -- [ITEMS] [FOLDER]` stores so many made-up vectors of 384
//! numbers (20,000 without a word) in a folder, on the disk that it lies on, and removes it at the end.
//! One thread does everything, the waiting for the disk among it.

use coreflow::{
    memory::store::{Partition, Search, Step, Store, StoreSettings},
    wire::memory::{MemoryItem, MemoryQuery, Metric},
};
use std::{
    env,
    error::Error,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

const DIMENSION: usize = 384;
const CLUSTERS: usize = 200;
const QUERIES: usize = 300;
/// Items between two waits for the disk.
const TOGETHER: usize = 100;

/// Vectors around some centres, as those of texts are.
struct Maker {
    random: fastrand::Rng,
    centres: Vec<Vec<f32>>,
}

impl Maker {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut centre = |_| (0..DIMENSION).map(|_| random.f32() - 0.5).collect();
        let centres = (0..CLUSTERS).map(&mut centre).collect();
        Self { random, centres }
    }

    fn vector(&mut self) -> Vec<f32> {
        let centre = &self.centres[self.random.usize(..CLUSTERS)];
        let random = &mut self.random;
        centre.iter().map(|value| value + 0.6 * (random.f32() - 0.5)).collect()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let items: usize = words.next().map_or(Ok(20_000), |word| word.parse())?;
    let folder =
        words.next().map_or_else(|| env::temp_dir().join("coreflow-memory"), PathBuf::from);
    fs::remove_dir_all(&folder).ok();
    let settings = StoreSettings {
        folder: Some(folder.clone()),
        dimension: DIMENSION,
        metric: Metric::Cosine,
        partitions: 1,
        ef_construction: 200,
        items_max: 1_000_000,
        segment_bytes: 64 << 20,
        embedder: String::new(),
    };
    let mut maker = Maker::new();
    let mut store = Store::open(&settings)?;
    store.partitions[0].prepare();
    store.partitions[0].settle()?;
    fill(&mut store.partitions[0], &mut maker, items)?;
    let queries: Vec<_> = (0..QUERIES).map(|_| maker.vector()).collect();
    let partition = &mut store.partitions[0];
    let bytes = partition.bytes() as f64 / partition.len() as f64;
    println!(
        "{bytes:.0} bytes of memory for an item, {} MiB of files",
        partition.log().bytes() >> 20
    );
    search(partition, &queries, "warm")?;
    for region in partition.log().regions() {
        region.forget()?;
    }
    search(partition, &queries, "files cold at the begin")?;
    let begun = Instant::now();
    partition.close()?;
    println!("closed, a checkpoint among it, in {:.2} s", begun.elapsed().as_secs_f64());
    drop(store);
    start(&settings, "with a checkpoint")?;
    fs::remove_file(folder.join("0000.ckpt"))?;
    start(&settings, "from the records alone")?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn fill(partition: &mut Partition, maker: &mut Maker, items: usize) -> Result<(), Box<dyn Error>> {
    let mut time = Duration::ZERO;
    for place in 0..items {
        let item = MemoryItem {
            key: format!("key-{place}"),
            namespace: "default".into(),
            vector: maker.vector(),
            text: Some(format!("what the vector {place} stands for")),
            metadata: Vec::new(),
        };
        let begun = Instant::now();
        partition.put(&item, 0)?;
        if place % TOGETHER == TOGETHER - 1 || place + 1 == items {
            partition.settle()?;
            while partition.take_outcome().is_some() {}
        }
        time += begun.elapsed();
    }
    let rate = items as f64 / time.as_secs_f64();
    println!("{items} items stored, {TOGETHER} a sync: {rate:.0} a second");
    Ok(())
}

/// Searches one after the other; what is not in memory is loaded and waited for.
fn search(
    partition: &mut Partition,
    queries: &[Vec<f32>],
    how: &str,
) -> Result<(), Box<dyn Error>> {
    let (mut all, mut loads, mut pieces_loaded) = (Vec::new(), Vec::new(), 0);
    for vector in queries {
        let query = MemoryQuery { vector: vector.clone(), k: 10, ..MemoryQuery::default() };
        let begun = Instant::now();
        let mut search = Search::new(query, 50)?;
        let mut loading = Duration::ZERO;
        let hits = loop {
            match search.step(partition) {
                Step::Done(Some(hits)) => break hits?,
                Step::Done(None) => {}
                Step::Wait(pieces) => {
                    let begun = Instant::now();
                    pieces_loaded += pieces.len();
                    pieces.iter().for_each(|(region, at, length)| region.fetch(*at, *length));
                    for (region, at, length) in pieces {
                        region.load(at, length)?;
                    }
                    loading += begun.elapsed();
                }
            }
        };
        assert_eq!(hits.len(), 10);
        all.push(begun.elapsed());
        loads.push(loading);
    }
    all.sort();
    loads.sort();
    let at = |times: &[Duration], part: f64| {
        times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6
    };
    println!(
        "searches, {how}: p50 {:.0} µs, p99 {:.0} µs; of it waiting for {:.1} cold records each: p50 {:.0} µs, p99 {:.0} µs",
        at(&all, 0.5),
        at(&all, 0.99),
        pieces_loaded as f64 / queries.len() as f64,
        at(&loads, 0.5),
        at(&loads, 0.99),
    );
    Ok(())
}

fn start(settings: &StoreSettings, how: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let store = Store::open(settings)?;
    let items = store.partitions[0].len();
    println!("a start with {items} items {how}: {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}
