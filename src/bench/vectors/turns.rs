//! How long messages of a core wait for pattern memory: how long each turn that it takes, and each request
//! that it takes in, keeps the core while all that can be asked of it is asked at once.
//!
//! A turn in which another thread took the processor is counted apart.

use super::{super::served::Scratch, watch::Watch};
use crate::{
    memory::{
        store::{Store, StoreSettings},
        thread,
    },
    metrics::Latency,
    runtime::doorbell::Doorbell,
    shard::memory::Memory,
    wire::{
        api::Error,
        letter::{Request, Response},
        memory::{K_MAX, MemoryItem, MemoryQuery, Metric},
        msgpack::write,
    },
};
use fastrand::Rng;
use std::{io, path::Path, time::Duration};

/// Requests that wait for their answers.
const UNANSWERED: usize = 32;
/// Items of a request that stores.
const ITEMS: usize = 32;
/// Small files, so that they are freed and moved while this goes on.
const SEGMENT_BYTES: usize = 8 << 20;
/// Searches of stored vectors that a question for statistics makes.
const SAMPLE: u32 = 1;
const SEED: u64 = 11;

/// What messages waited for.
pub(super) struct Turns {
    /// Turns in which no other thread had the processor, and requests taken in.
    pub(super) times: Latency,
    /// Turns in which one had.
    pub(super) interrupted: u64,
    /// The longest of those that count, and what had been asked last.
    pub(super) longest: (Duration, &'static str),
    /// Requests that were answered.
    pub(super) answered: u64,
}

/// A memory in files of its own, and what is asked of it.
struct Driver<'a> {
    memory: Memory,
    rows: Vec<&'a [f32]>,
    random: Rng,
    unanswered: usize,
    failed: Option<Error>,
    turns: Turns,
    asked: &'static str,
    /// What the last turn answered.
    answers: Vec<Response>,
}

/// Stores `rows`, then asks for `requests` things of all kinds.
///
/// # Errors
/// The folder cannot be used, or a request failed.
pub(super) fn measure(rows: Vec<&[f32]>, folder: &Path, requests: usize) -> io::Result<Turns> {
    let scratch = Scratch::new(folder, "memory-turns")?;
    let settings = StoreSettings {
        folder: Some(scratch.path().to_owned()),
        dimension: rows[0].len(),
        metric: Metric::Cosine,
        partitions: 1,
        ef_construction: 200,
        items_max: 2 * rows.len(),
        segment_bytes: SEGMENT_BYTES,
        embedder: String::new(),
    };
    let store = Store::open(&settings).map_err(io::Error::other)?;
    let (threads, desks) = thread::start(&[Doorbell::new()?], None, Vec::new())?;
    let memory = Memory::new(0, 1, store.partitions, 50, desks.into_iter().next());
    let times = Latency::new();
    let turns = Turns { times, interrupted: 0, longest: (Duration::ZERO, ""), answered: 0 };
    let random = Rng::with_seed(SEED);
    let (failed, answers) = (None, Vec::new());
    let mut driver =
        Driver { memory, rows, random, unanswered: 0, failed, turns, asked: "", answers };
    for first in (0..driver.rows.len()).step_by(ITEMS) {
        let end = driver.rows.len().min(first + ITEMS);
        let items = (first..end).map(|row| driver.item(row, row)).collect();
        driver.ask("puts", Request::MemoryPut(0, items));
    }
    for _ in 0..requests {
        driver.ask_something();
    }
    driver.until(0);
    let Driver { memory, failed, turns, .. } = driver;
    drop(threads);
    memory.close()?;
    match failed {
        None => Ok(turns),
        Some(error) => Err(io::Error::other(format!("a request failed: {error}"))),
    }
}

impl Driver<'_> {
    fn item(&self, key: usize, row: usize) -> MemoryItem {
        let mut metadata = Vec::new();
        write::map(&mut metadata, 2);
        write::str(&mut metadata, "key");
        write::uint(&mut metadata, key as u64);
        write::str(&mut metadata, "hundredth");
        write::uint(&mut metadata, key as u64 % 100);
        MemoryItem {
            key: format!("key-{key}"),
            namespace: format!("space-{}", key % 1000),
            vector: self.rows[row].to_vec(),
            text: Some(format!("what the vector {row} stands for")),
            metadata,
        }
    }

    fn query(&mut self, k: u32, ef: u32) -> MemoryQuery {
        let row = self.random.usize(..self.rows.len());
        let vector = self.rows[row].to_vec();
        MemoryQuery { vector, k, ef: Some(ef), ..MemoryQuery::default() }
    }

    fn ask_something(&mut self) {
        let count = self.rows.len();
        let (key, row) = (self.random.usize(..count), self.random.usize(..count));
        let (name, request) = match self.random.u32(..1000) {
            0..300 => ("a put", Request::MemoryPut(0, vec![self.item(key, row)])),
            300..310 => {
                let keys = (0..10 * ITEMS).map(|at| (key + at) % count);
                let items = keys.map(|key| self.item(key, row)).collect();
                ("many puts", Request::MemoryPut(0, items))
            }
            310..410 => {
                let item = self.item(key, row);
                ("a delete", Request::MemoryDelete(0, item.namespace, item.key))
            }
            410..450 => ("a wide search", Request::MemorySearch(0, self.query(K_MAX, 1000))),
            450..460 => {
                ("a search of the widest", Request::MemorySearch(0, self.query(K_MAX, 4096)))
            }
            460..480 => {
                let mut filter = Vec::new();
                write::map(&mut filter, 1);
                write::str(&mut filter, "hundredth");
                write::uint(&mut filter, key as u64 % 100);
                let query = MemoryQuery { filter, ..self.query(100, 100) };
                ("a search with a filter", Request::MemorySearch(0, query))
            }
            480..500 => {
                let namespace = Some(format!("space-{}", key % 1000));
                let query = MemoryQuery { namespace, ..self.query(10, 50) };
                ("a search of a namespace", Request::MemorySearch(0, query))
            }
            500..510 => ("a list", Request::MemoryList(0, None, row as u32, 1000)),
            510..512 => ("statistics", Request::MemoryStats(0, SAMPLE)),
            512..600 => {
                let item = self.item(key, row);
                ("a get", Request::MemoryGet(0, item.namespace, item.key))
            }
            _ => ("a search", Request::MemorySearch(0, self.query(10, 50))),
        };
        self.ask(name, request);
    }

    /// Asks when few enough wait.
    fn ask(&mut self, name: &'static str, request: Request) {
        self.until(UNANSWERED - 1);
        self.asked = name;
        self.unanswered += 1;
        self.timed(|driver| driver.memory.ask(0, 0, request));
    }

    /// Gives memory turns until no more than so many requests wait.
    fn until(&mut self, unanswered: usize) {
        while self.unanswered > unanswered {
            let worked = self.timed(|driver| {
                let (waiting, failed) = (&mut driver.unanswered, &mut driver.failed);
                let answered = &mut driver.answers;
                driver.memory.turn(|_, _, response| {
                    *waiting -= 1;
                    if let Response::Failed(error) = &response
                        && !matches!(error, Error::NotFound(_))
                    {
                        failed.get_or_insert_with(|| error.clone());
                    }
                    // Whoever asked lets go of it.
                    answered.push(response);
                })
            });
            self.answers.clear();
            if !worked {
                // All that is left waits for the threads.
                std::thread::yield_now();
            }
        }
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let mut watch = Watch::new();
        let unanswered = self.unanswered;
        let result = work(self);
        let busy = watch.lap();
        self.turns.answered += unanswered.saturating_sub(self.unanswered) as u64;
        let Some(time) = busy else {
            self.turns.interrupted += 1;
            return result;
        };
        self.turns.times.record(time.as_nanos() as u64);
        if time > self.turns.longest.0 {
            self.turns.longest = (time, self.asked);
        }
        result
    }
}
