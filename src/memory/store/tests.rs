//! The store against a model, with restarts, kills, torn writes, flipped bits and moved segments.

mod damage;
mod folder;
mod losses;
mod model;
mod room;
mod searches;
mod slow;
mod starts;
mod tail;

use super::{
    open::{Store, StoreSettings},
    partition::{Partition, Step},
    search::Search,
};
use crate::wire::{
    api::Error,
    memory::{MemoryHit, MemoryItem, MemoryQuery, Metric},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

pub const DIMENSION: usize = 4;

/// A folder of the test's own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("coreflow-memory-{}-{name}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The record files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|it| it == "rec")).collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub fn settings(folder: Option<&Folder>) -> StoreSettings {
    StoreSettings {
        folder: folder.map(|folder| folder.path().to_owned()),
        dimension: DIMENSION,
        metric: Metric::Euclidean,
        partitions: 1,
        ef_construction: 32,
        items_max: 100_000,
        segment_bytes: 4 << 10,
        embedder: String::new(),
    }
}

/// A store of one partition; its lock goes with it.
pub fn open(settings: &StoreSettings) -> (Partition, Store) {
    let mut store = Store::open(settings).expect("the store opens");
    (store.partitions.remove(0), store)
}

pub fn item(key: &str, value: f32) -> MemoryItem {
    MemoryItem {
        key: key.to_owned(),
        namespace: "space".to_owned(),
        vector: vec![value, 1.0, -value, 2.0],
        text: Some(format!("text of {key} is {value}")),
        metadata: vec![0x81, 0xa1, b'v', 0xca, 0, 0, 0, 0],
    }
}

/// Runs what waits, and loads what it waits for.
pub fn run<T>(
    partition: &mut Partition,
    mut step: impl FnMut(&mut Partition) -> Step<Option<T>>,
) -> T {
    loop {
        match step(partition) {
            Step::Done(Some(done)) => return done,
            Step::Done(None) => {}
            Step::Wait(pieces) => {
                for (region, offset, length) in pieces {
                    region.load(offset, length).unwrap();
                }
            }
        }
    }
}

pub fn get(partition: &mut Partition, key: &str) -> Result<MemoryItem, Error> {
    run(partition, |partition| match partition.get("space", key) {
        Step::Wait(pieces) => Step::Wait(pieces),
        Step::Done(result) => Step::Done(Some(result)),
    })
}

pub fn search(partition: &mut Partition, query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
    let mut search = Search::new(query, 50)?;
    run(partition, |partition| search.step(partition))
}

/// Puts an item and waits until it is acknowledged.
pub fn put(partition: &mut Partition, item: &MemoryItem) -> Result<bool, Error> {
    while let Err(error) = partition.put(item, 7) {
        assert!(matches!(error, Error::Backpressure(_)), "{error}");
        partition.settle().unwrap();
    }
    partition.settle().unwrap();
    let (token, outcome) = partition.take_outcome().expect("the put is acknowledged");
    assert_eq!(token, 7);
    outcome
}

pub fn delete(partition: &mut Partition, key: &str) -> Result<bool, Error> {
    while let Err(error) = partition.delete("space", key, 8) {
        assert!(matches!(error, Error::Backpressure(_)), "{error}");
        partition.settle().unwrap();
    }
    partition.settle().unwrap();
    let (token, outcome) = partition.take_outcome().expect("the delete is acknowledged");
    assert_eq!(token, 8);
    outcome
}
