//! What a node is asked for while messages of its core wait: on one connection of each door.

use super::{
    beside::{Kind, WORKER},
    mcp::Mcp,
};
use crate::{
    client::{self, Receiver, Sender, View},
    server::listen::Addresses,
    wire::msgpack::write,
};
use fastrand::Rng;
use std::{
    io,
    time::{Duration, Instant},
};

/// How long an answer may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the metadata of an item that says little, and of one that says much.
const SHORT: usize = 64;
const LONG: usize = 32 << 10;
/// Items that say much, and of each kind that is the worst of a kind.
const LONG_ITEMS: usize = 200;
/// Items of a batch.
const BATCH: usize = 500;
/// Keys in the metadata of an item with many, and values of one byte in those of another.
const KEYS: usize = 1000;
const NUMBERS: usize = 64_000;
/// Items of a batch of such.
const NUMBERS_BATCH: usize = 60;
/// Values of one byte that are refused.
const TOO_LONG: usize = 4_000_000;
/// Signs of a text that all belong to its first letter, two bytes each.
const MARKS: usize = 32_000;
/// Bytes of a task's payload, nearly as many as it may have.
const PAYLOAD: usize = (1 << 20) - 16;
/// Fields of a filter, and values of one byte in another.
const FILTER_FIELDS: usize = 64;
const FILTER_NUMBERS: usize = 8000;
/// Searches that an exhaustive comparison is made with.
const SAMPLE: u64 = 4;
const SEED: u64 = 12;

/// A connection to the node, and what is asked on it.
pub(super) struct Asker<'a> {
    sender: Sender,
    receiver: Receiver,
    rows: &'a [&'a [f32]],
    random: Rng,
    under_way: usize,
    asked: u32,
    mcp: Mcp,
}

impl<'a> Asker<'a> {
    pub(super) fn connect(at: Addresses, rows: &'a [&'a [f32]]) -> io::Result<Self> {
        let (sender, receiver) = client::connect(at.rpc, LIMIT).map_err(io::Error::other)?;
        let random = Rng::with_seed(SEED);
        let mcp = Mcp::connect(at.http)?;
        Ok(Self { sender, receiver, rows, random, under_way: 0, asked: 0, mcp })
    }

    /// Stores every row once, and the items that say much.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        for key in 0..self.rows.len() {
            self.put(key, SHORT, "short")?;
            self.until(511)?;
        }
        for key in 0..LONG_ITEMS {
            self.put(key, LONG, "long")?;
            self.put_keys(key)?;
            self.put_numbers(key)?;
            self.until(31)?;
        }
        self.until(0)
    }

    /// Asks for one kind for a time; how many were answered.
    pub(super) fn ask_for(&mut self, kind: Kind, window: usize, time: Duration) -> io::Result<u64> {
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < time {
            self.ask(kind)?;
            count += 1;
            self.until(window - 1)?;
        }
        self.until(0)?;
        Ok(count)
    }

    fn ask(&mut self, kind: Kind) -> io::Result<()> {
        let key = self.random.usize(..self.rows.len());
        match kind {
            Kind::Nothing => Ok(()),
            Kind::Puts => self.put(key, SHORT, "short"),
            Kind::LongPuts => self.put(key % LONG_ITEMS, LONG, "long"),
            Kind::Batches => {
                let keys: Vec<usize> = (0..BATCH).map(|at| (key + at) % self.rows.len()).collect();
                let rows = self.rows;
                self.call("memory.put_batch", |out| {
                    write::map(out, 1);
                    write::str(out, "items");
                    write::array(out, keys.len());
                    keys.iter().for_each(|key| item(out, *key, rows[*key], SHORT, "short"));
                })
            }
            Kind::Searches => self.search(key, 10, 50, "short", false),
            Kind::Wide => self.search(key, 1000, 1000, "short", false),
            Kind::Filters => self.search(key, 10, 50, "short", true),
            Kind::LongHits => self.search(key, 200, 200, "long", false),
            Kind::Keys => self.put_keys(key % LONG_ITEMS),
            Kind::Numbers => self.put_numbers(key % LONG_ITEMS),
            Kind::NumberBatches => {
                let (rows, first) = (self.rows, key % LONG_ITEMS);
                self.call("memory.put_batch", |out| {
                    write::map(out, 1);
                    write::str(out, "items");
                    write::array(out, NUMBERS_BATCH);
                    (first..first + NUMBERS_BATCH).for_each(|key| {
                        item_of(out, key, rows[key % rows.len()], "numbers", numbers(NUMBERS));
                    });
                })
            }
            Kind::TooLong => {
                let row = self.rows[key];
                self.call("memory.put", |out| item_of(out, key, row, "long", numbers(TOO_LONG)))
            }
            Kind::Marks => self.call("memory.put", |out| {
                write::map(out, 3);
                write::str(out, "key");
                write::str(out, &format!("key-{}", key % LONG_ITEMS));
                write::str(out, "namespace");
                write::str(out, "marks");
                write::str(out, "text");
                write::str(out, &marks());
            }),
            Kind::KeyFilters => self.search_with(key, (10, 50), "keys", Some(&keys(FILTER_FIELDS))),
            Kind::NumberFilters => {
                self.search_with(key, (10, 50), "numbers", Some(&numbers(FILTER_NUMBERS)))
            }
            Kind::Tasks => self.task(None),
            Kind::KeyedTasks => {
                let key = format!("{:x}", self.random.u64(..));
                self.task(Some(&key))
            }
            Kind::Deletes => {
                self.call("memory.delete", |out| {
                    write::map(out, 2);
                    write::str(out, "key");
                    write::str(out, &format!("key-{key}"));
                    write::str(out, "namespace");
                    write::str(out, "short");
                })?;
                self.put(key, SHORT, "short")
            }
            Kind::McpTooLong => self.mcp.put_too_long(),
            Kind::McpHits => self.mcp.search(self.rows[key], LONG_ITEMS, "long"),
            Kind::McpLists => self.mcp.list(1000),
            Kind::Lists => self.call("memory.list", |out| {
                write::map(out, 1);
                write::str(out, "limit");
                write::uint(out, 1000);
            }),
            Kind::Stats => self.call("memory.stats", |out| {
                write::map(out, 1);
                write::str(out, "sample");
                write::uint(out, SAMPLE);
            }),
        }
    }

    fn task(&mut self, key: Option<&str>) -> io::Result<()> {
        let payload = vec![0; PAYLOAD];
        self.call("task.submit", |out| {
            write::map(out, 2 + usize::from(key.is_some()));
            write::str(out, "type");
            write::str(out, WORKER);
            write::str(out, "payload");
            write::bin(out, &payload);
            if let Some(key) = key {
                write::str(out, "key");
                write::str(out, key);
            }
        })
    }

    fn put(&mut self, key: usize, said: usize, namespace: &str) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.put", |out| item(out, key, row, said, namespace))
    }

    fn put_keys(&mut self, key: usize) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.put", |out| item_of(out, key, row, "keys", keys(KEYS)))
    }

    fn put_numbers(&mut self, key: usize) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.put", |out| item_of(out, key, row, "numbers", numbers(NUMBERS)))
    }

    fn search(
        &mut self,
        key: usize,
        k: u64,
        ef: u64,
        namespace: &str,
        filters: bool,
    ) -> io::Result<()> {
        let mut filter = Vec::new();
        write::map(&mut filter, 1);
        write::str(&mut filter, "hundredth");
        write::uint(&mut filter, key as u64 % 100);
        self.search_with(key, (k, ef), namespace, filters.then_some(&*filter))
    }

    fn search_with(
        &mut self,
        key: usize,
        (k, ef): (u64, u64),
        namespace: &str,
        filter: Option<&[u8]>,
    ) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.search", |out| {
            write::map(out, 4 + usize::from(filter.is_some()));
            write::str(out, "vector");
            vector(out, row);
            for (name, value) in [("k", k), ("ef", ef)] {
                write::str(out, name);
                write::uint(out, value);
            }
            write::str(out, "namespace");
            write::str(out, namespace);
            if let Some(filter) = filter {
                write::str(out, "filter");
                write::raw(out, filter);
            }
        })
    }

    fn call(&mut self, method: &str, params: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.asked = self.asked.wrapping_add(1);
        self.sender.push(self.asked, method, params);
        self.under_way += 1;
        self.sender.flush().map_err(io::Error::other)
    }

    /// Takes answers until no more than so many are missing.
    fn until(&mut self, under_way: usize) -> io::Result<()> {
        while self.under_way > under_way {
            while let Some(answer) = self.receiver.buffered().map_err(io::Error::other)? {
                self.under_way -= 1;
                let is_refusal =
                    |error: &View<'_>| error.get("code").and_then(View::str) == Some("too_large");
                if let Err(error) = answer.outcome
                    && !is_refusal(&error)
                {
                    let text = error.get("message").and_then(|it| it.str().map(str::to_owned));
                    return Err(io::Error::other(format!("a request failed: {text:?}")));
                }
            }
            if self.under_way > under_way && !self.receiver.fill(LIMIT).map_err(io::Error::other)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

fn item(out: &mut Vec<u8>, key: usize, row: &[f32], said: usize, namespace: &str) {
    let mut metadata = Vec::new();
    write::map(&mut metadata, 2);
    write::str(&mut metadata, "hundredth");
    write::uint(&mut metadata, key as u64 % 100);
    write::str(&mut metadata, "said");
    write::str(&mut metadata, &"s".repeat(said));
    item_of(out, key, row, namespace, metadata);
}

fn item_of(out: &mut Vec<u8>, key: usize, row: &[f32], namespace: &str, metadata: Vec<u8>) {
    write::map(out, 4);
    write::str(out, "key");
    write::str(out, &format!("key-{key}"));
    write::str(out, "namespace");
    write::str(out, namespace);
    write::str(out, "vector");
    vector(out, row);
    write::str(out, "metadata");
    write::raw(out, &metadata);
}

/// A map with so many keys, in no order, of equal lengths.
fn keys(count: usize) -> Vec<u8> {
    let mut map = Vec::new();
    write::map(&mut map, count);
    for at in 0..count {
        write::str(&mut map, &format!("k{:05}", at * 7919 % 99_991));
        write::uint(&mut map, at as u64 % 100);
    }
    map
}

/// A map with an array of so many values of one byte.
fn numbers(count: usize) -> Vec<u8> {
    let mut map = Vec::new();
    write::map(&mut map, 1);
    write::str(&mut map, "numbers");
    write::array(&mut map, count);
    (0..count).for_each(|at| write::uint(&mut map, at as u64 % 100));
    map
}

/// A letter with very many signs above and below it, which come in the least of all orders.
fn marks() -> String {
    let signs = ['\u{301}', '\u{323}'];
    std::iter::once('a').chain((0..MARKS).map(|at| signs[at % 2])).collect()
}

fn vector(out: &mut Vec<u8>, row: &[f32]) {
    let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
    write::bin(out, &bytes);
}
