//! How long a message of a core waits for pattern memory, on a whole node: doors, records and searches.
//!
//! A node of one worker core is asked for much of one kind at a time by a client on another thread. An
//! agent of that core asks for each of its turns and looks at the processor time since the one before: no
//! message of the core waits longer than that. Processor time, so that the machine's other work does not
//! count; where another thread took the processor between two turns, that is counted apart.

use super::super::{Effort, inside, served::Scratch, swarm};
use crate::{
    client::{self, Receiver, Sender},
    config::{Config, CoreSet},
    metrics::Latency,
    node::AgentOptions,
    runtime::executor::thread_use,
    shard::{agent::Agent, context::Context},
    wire::msgpack::write,
};
use fastrand::Rng;
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long one kind is asked for, at full and at quick effort.
const EACH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the metadata of an item that says little, and of one that says much.
const SHORT: usize = 64;
const LONG: usize = 32 << 10;
/// Items that say much.
const LONG_ITEMS: usize = 200;
/// Items of a batch.
const BATCH: usize = 500;
/// Searches that an exhaustive comparison is made with.
const SAMPLE: u64 = 4;
const SEED: u64 = 12;

/// What is asked for, and how many at once.
const KINDS: [(Kind, &str, usize); 10] = [
    (Kind::Nothing, "nothing", 0),
    (Kind::Puts, "puts", 512),
    (Kind::Batches, "put_batch of 500", 2),
    (Kind::Searches, "searches", 64),
    (Kind::Wide, "searches for 1,000", 8),
    (Kind::Filters, "searches with a filter", 8),
    (Kind::Lists, "lists of 1,000", 4),
    (Kind::Stats, "statistics", 2),
    (Kind::LongPuts, "puts of 32 KiB", 32),
    (Kind::LongHits, "searches for 200 of 32 KiB", 2),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Puts,
    Batches,
    Searches,
    Wide,
    Filters,
    Lists,
    Stats,
    LongPuts,
    LongHits,
}

/// What messages waited for while one kind was asked for.
#[derive(Clone)]
pub(super) struct Waits {
    /// Of what is asked.
    pub(super) name: &'static str,
    /// Requests that were answered.
    pub(super) answered: u64,
    /// Between two turns of the agent, where no other thread had the processor.
    pub(super) times: Latency,
    /// Where one had.
    pub(super) interrupted: u64,
    /// The longest of those that count.
    pub(super) longest: Duration,
}

/// What the agent and the client share.
struct Board {
    /// The place of what is asked among [`KINDS`]; beyond them the agent only keeps its turns.
    asked: AtomicUsize,
    waits: Mutex<Vec<Waits>>,
}

/// Looks at the processor time in each of its turns.
struct Ticker {
    board: Arc<Board>,
    last: (Duration, u64),
}

impl Agent for Ticker {
    fn on_start(&mut self, context: &mut Context<'_>) {
        self.last = thread_use();
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let now = thread_use();
        let mut waits = self.board.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waits) = waits.get_mut(self.board.asked.load(Ordering::Relaxed)) {
            if now.1 > self.last.1 {
                waits.interrupted += 1;
            } else {
                let time = now.0.saturating_sub(self.last.0);
                waits.times.record(time.as_nanos() as u64);
                waits.longest = waits.longest.max(time);
            }
        }
        self.last = now;
        context.request_turn();
    }
}

/// Asks a node for each kind in turn.
///
/// # Errors
/// The node does not start, or refuses something.
pub(super) fn measure(
    rows: &[&[f32]],
    config: &Config,
    effort: &Effort,
    folder: &Path,
) -> io::Result<Vec<Waits>> {
    let scratch = Scratch::new(folder, "memory-beside")?;
    let worker = swarm::topology(config)?.workers[0];
    let mut config = Config { node: Vec::new(), agent: Vec::new(), ..config.clone() };
    config.cluster.node = 0;
    config.cores.workers = CoreSet::List(vec![worker]);
    config.cores.raft = CoreSet::Auto;
    config.server.rpc_address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.http_address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.memory.dimension = rows[0].len();
    config.memory.max_vectors = 4 * rows.len() + BATCH + LONG_ITEMS;
    config.log.folder = scratch.path().join("log").display().to_string();
    config.memory.folder = Some(scratch.path().join("memory").display().to_string());
    let waits = KINDS.map(|(_, name, _)| Waits {
        name,
        answered: 0,
        times: Latency::new(),
        interrupted: 0,
        longest: Duration::ZERO,
    });
    let board =
        Arc::new(Board { asked: AtomicUsize::new(KINDS.len()), waits: Mutex::new(waits.to_vec()) });
    let shown = board.clone();
    let (node, rpc) = inside::start(config, |builder| {
        builder.agent("ticker", AgentOptions::default(), move || Ticker {
            board: shown.clone(),
            last: thread_use(),
        })
    })?;
    let mut asker = Asker::connect(rpc, rows)?;
    asker.fill()?;
    for (place, (kind, _, window)) in KINDS.into_iter().enumerate() {
        board.asked.store(place, Ordering::Relaxed);
        let answered = match kind {
            Kind::Nothing => {
                thread::sleep(effort.choose(EACH));
                0
            }
            _ => asker.ask_for(kind, window, effort.choose(EACH))?,
        };
        board.asked.store(KINDS.len(), Ordering::Relaxed);
        board.waits.lock().unwrap_or_else(PoisonError::into_inner)[place].answered = answered;
    }
    drop(asker);
    node.shutdown()?;
    let waits = board.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(waits)
}

/// A connection to the node, and what is asked on it.
struct Asker<'a> {
    sender: Sender,
    receiver: Receiver,
    rows: &'a [&'a [f32]],
    random: Rng,
    under_way: usize,
    asked: u32,
}

impl<'a> Asker<'a> {
    fn connect(rpc: SocketAddr, rows: &'a [&'a [f32]]) -> io::Result<Self> {
        let (sender, receiver) = client::connect(rpc, LIMIT).map_err(io::Error::other)?;
        let random = Rng::with_seed(SEED);
        Ok(Self { sender, receiver, rows, random, under_way: 0, asked: 0 })
    }

    /// Stores every row once, and the items that say much.
    fn fill(&mut self) -> io::Result<()> {
        for key in 0..self.rows.len() {
            self.put(key, SHORT, "short")?;
            self.until(511)?;
        }
        for key in 0..LONG_ITEMS {
            self.put(key, LONG, "long")?;
            self.until(31)?;
        }
        self.until(0)
    }

    /// Asks for one kind for a time; how many were answered.
    fn ask_for(&mut self, kind: Kind, window: usize, time: Duration) -> io::Result<u64> {
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

    fn put(&mut self, key: usize, said: usize, namespace: &str) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.put", |out| item(out, key, row, said, namespace))
    }

    fn search(
        &mut self,
        key: usize,
        k: u64,
        ef: u64,
        namespace: &str,
        filters: bool,
    ) -> io::Result<()> {
        let row = self.rows[key];
        self.call("memory.search", |out| {
            write::map(out, 4 + usize::from(filters));
            write::str(out, "vector");
            vector(out, row);
            for (name, value) in [("k", k), ("ef", ef)] {
                write::str(out, name);
                write::uint(out, value);
            }
            write::str(out, "namespace");
            write::str(out, namespace);
            if filters {
                write::str(out, "filter");
                write::map(out, 1);
                write::str(out, "hundredth");
                write::uint(out, key as u64 % 100);
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
                if let Err(error) = answer.outcome {
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
    write::map(out, 4);
    write::str(out, "key");
    write::str(out, &format!("key-{key}"));
    write::str(out, "namespace");
    write::str(out, namespace);
    write::str(out, "vector");
    vector(out, row);
    write::str(out, "metadata");
    write::map(out, 2);
    write::str(out, "hundredth");
    write::uint(out, key as u64 % 100);
    write::str(out, "said");
    write::str(out, &"s".repeat(said));
}

fn vector(out: &mut Vec<u8>, row: &[f32]) {
    let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
    write::bin(out, &bytes);
}
