//! How long a message of a core waits for pattern memory, on a whole node: doors, records and searches.
//!
//! A node of one worker core is asked for much of one kind at a time by a client on another thread. An
//! agent of that core asks for each of its turns and looks at how long the core was busy since the one
//! before: no message of the core waits longer than that. Where another thread took the processor between
//! two turns, that is counted apart. Before all, nothing is asked for, for longer: what the turns take then
//! is the machine's doing.

use super::{
    super::{Effort, inside, served::Scratch, swarm},
    asker::Asker,
    watch::Watch,
};
use crate::{
    config::{Config, CoreSet},
    metrics::Latency,
    node::AgentOptions,
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
    },
    wire::msgpack::write,
};
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
/// How often as long nothing is asked for.
const CONTROL_TIMES: u32 = 10;
/// What that is called.
pub(super) const CONTROL: &str = "nothing";
/// What the kinds are called that are none of pattern memory.
pub(super) const TASKS: [&str; 2] = ["tasks of 1 MiB", "tasks of 1 MiB with keys"];
/// The type of agents that run tasks.
pub(super) const WORKER: &str = "worker";
/// Items beside the rows, more than there are.
const ITEMS_MORE: usize = 10_000;

/// What is asked for, and how many at once.
const KINDS: [(Kind, &str, usize); 23] = [
    (Kind::Nothing, CONTROL, 0),
    (Kind::Puts, "puts", 512),
    (Kind::Batches, "put_batch of 500", 2),
    (Kind::Searches, "searches", 64),
    (Kind::Wide, "searches for 1,000", 8),
    (Kind::Filters, "searches with a filter", 8),
    (Kind::Lists, "lists of 1,000", 4),
    (Kind::Stats, "statistics", 2),
    (Kind::LongPuts, "puts of 32 KiB", 32),
    (Kind::LongHits, "searches for 200 of 32 KiB", 2),
    (Kind::Keys, "puts with 1,000 keys", 8),
    (Kind::Numbers, "puts of 64,000 numbers", 8),
    (Kind::NumberBatches, "put_batch of 60 of 64,000 numbers", 1),
    (Kind::TooLong, "puts of 4 million numbers, refused", 1),
    (Kind::Marks, "texts of 32,000 marks", 2),
    (Kind::KeyFilters, "filters of 64 keys among 1,000", 4),
    (Kind::NumberFilters, "filters of 8,000 numbers", 4),
    (Kind::McpTooLong, "MCP: puts of 4 MiB, refused", 1),
    (Kind::McpHits, "MCP: searches for 200 of 32 KiB", 1),
    (Kind::McpLists, "MCP: lists of 1,000", 1),
    (Kind::Deletes, "deletes and puts", 512),
    (Kind::Tasks, TASKS[0], 2),
    (Kind::KeyedTasks, TASKS[1], 2),
];

/// What is asked for; the worst that a request may ask among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    Keys,
    Numbers,
    NumberBatches,
    TooLong,
    Marks,
    KeyFilters,
    NumberFilters,
    McpTooLong,
    McpHits,
    McpLists,
    Deletes,
    Tasks,
    KeyedTasks,
}

/// What messages waited for while one kind was asked for.
#[derive(Clone)]
pub(super) struct Waits {
    /// Of what is asked.
    pub(super) name: &'static str,
    /// Requests that were answered.
    pub(super) answered: u64,
    /// How long it was asked for.
    pub(super) took: Duration,
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

/// Looks at its thread in each of its turns.
struct Ticker {
    board: Arc<Board>,
    watch: Watch,
}

impl Agent for Ticker {
    fn on_start(&mut self, context: &mut Context<'_>) {
        self.watch = Watch::new();
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let busy = self.watch.lap();
        let mut waits = self.board.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waits) = waits.get_mut(self.board.asked.load(Ordering::Relaxed)) {
            match busy {
                None => waits.interrupted += 1,
                Some(time) => {
                    waits.times.record(time.as_nanos() as u64);
                    waits.longest = waits.longest.max(time);
                }
            }
        }
        context.request_turn();
    }
}

/// Runs the tasks that are asked for.
struct Worker;

impl Agent for Worker {
    fn on_task(&mut self, _: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        write::nil(result);
        Outcome::Done
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
    config.memory.max_vectors = 4 * rows.len() + ITEMS_MORE;
    config.log.folder = scratch.path().join("log").display().to_string();
    config.memory.folder = Some(scratch.path().join("memory").display().to_string());
    let waits = KINDS.map(|(_, name, _)| Waits {
        name,
        answered: 0,
        took: Duration::ZERO,
        times: Latency::new(),
        interrupted: 0,
        longest: Duration::ZERO,
    });
    let board =
        Arc::new(Board { asked: AtomicUsize::new(KINDS.len()), waits: Mutex::new(waits.to_vec()) });
    let shown = board.clone();
    let (node, addresses) = inside::start(config, |builder| {
        let ticker = move || Ticker { board: shown.clone(), watch: Watch::new() };
        let worker = AgentOptions { min: 1, ..AgentOptions::default() };
        let builder = builder.agent("ticker", AgentOptions::default(), ticker);
        builder.agent(WORKER, worker, || Worker)
    })?;
    let mut asker = Asker::connect(addresses, rows)?;
    asker.fill()?;
    for (place, (kind, _, window)) in KINDS.into_iter().enumerate() {
        board.asked.store(place, Ordering::Relaxed);
        let began = Instant::now();
        let answered = match kind {
            Kind::Nothing => {
                thread::sleep(CONTROL_TIMES * effort.choose(EACH));
                0
            }
            _ => asker.ask_for(kind, window, effort.choose(EACH))?,
        };
        board.asked.store(KINDS.len(), Ordering::Relaxed);
        let mut waits = board.waits.lock().unwrap_or_else(PoisonError::into_inner);
        (waits[place].answered, waits[place].took) = (answered, began.elapsed());
    }
    drop(asker);
    node.shutdown()?;
    let waits = board.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(waits)
}
