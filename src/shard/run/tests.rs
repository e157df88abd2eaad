//! In which order a core does what takes long.

use super::*;
use crate::{
    config::Config,
    memory::store::{Store, StoreSettings},
    runtime::{executor::Settings, mesh::mesh, rounds::BREATH},
    shard::{
        agent::Agent,
        context::Context,
        core::{Partitions, Start},
        memory::Memory,
        types::{TypeSpec, Types},
    },
    wire::{
        api::AgentKind,
        letter::Request,
        memory::{EF_MAX, K_MAX, MemoryItem, MemoryQuery, Metric},
    },
};

const ITEMS: u16 = 1000;
/// Enough that they go on for all rounds that are looked at.
const SEARCHES: usize = 200;
const ROUNDS: usize = 100;
const LIMIT_MS: u64 = 60_000;

thread_local! {
    /// Turns of the agent of this core.
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

/// Asks for each turn.
struct Ticker;

impl Agent for Ticker {
    fn on_start(&mut self, context: &mut Context<'_>) {
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        TURNS.set(TURNS.get() + 1);
        context.request_turn();
    }
}

fn ticker() -> TypeSpec {
    TypeSpec {
        name: "ticker".to_owned(),
        kind: AgentKind::Builtin,
        max_tasks: 1,
        min: 1,
        max: 1,
        warmup_delay_ms: 0,
        idle_timeout_ms: 0,
        capabilities: Default::default(),
        hosts: vec![0],
        factory: Arc::new(|| Box::new(Ticker)),
    }
}

fn vector(number: u16) -> Vec<f32> {
    (0..16).map(|at| f32::from(number) + at as f32).collect()
}

/// A core with a partition that lies in memory alone, and an agent.
fn core() -> Rc<Core> {
    let settings = StoreSettings {
        folder: None,
        dimension: 16,
        metric: Metric::Euclidean,
        partitions: 1,
        ef_construction: 32,
        items_max: ITEMS.into(),
        segment_bytes: 1 << 20,
        embedder: String::new(),
    };
    let mut store = Store::open(&settings).unwrap();
    let partition = &mut store.partitions[0];
    partition.prepare();
    for number in 0..ITEMS {
        let item = MemoryItem {
            key: format!("key-{number}"),
            namespace: "space".to_owned(),
            vector: vector(number),
            text: None,
            metadata: vec![0x80],
        };
        partition.put(&item, number.into()).unwrap();
    }
    partition.settle().unwrap();
    let start = Start {
        at: Instant::now(),
        unix_ms: 0,
        partitions: Partitions { keyed: 1, all: 1, clustered: false, agreed: false },
        cluster: None,
        tables: Vec::new(),
        reader: None,
        seed: 1,
    };
    let port = mesh(1, 8).unwrap().remove(0);
    let bell = port.bells[0].clone();
    let mut shard =
        Shard::new(port, Arc::new(Types::new(vec![ticker()])), &Config::default(), start);
    shard.spawn_agent(0, None).unwrap();
    shard.keep_memory(Memory::new(0, 1, store.partitions, 50, None));
    let jobs = Injector::new(8, bell.clone());
    Core::new(shard, jobs, bell, Arc::default())
}

/// The fewest turns that the agent had from one round of the core's futures to the next, of all rounds in which searches
/// went on; and how many those were.
async fn fewest_turns(core: Rc<Core>) -> (u64, usize) {
    // It runs at once when it is spawned.
    while TURNS.get() == 0 {
        executor::yield_now().await;
    }
    let search =
        MemoryQuery { vector: vector(7), k: K_MAX, ef: Some(EF_MAX), ..MemoryQuery::default() };
    let ask = || {
        let (answer, answered) = oneshot::channel();
        let request = Request::MemorySearch(0, search.clone());
        let asked = core.with_shard(|shard| shard.ask_beside(0, request, LIMIT_MS, answer));
        asked.unwrap();
        answered
    };
    let answered: Vec<_> = (0..SEARCHES).map(|_| ask()).collect();
    let next_round = async || {
        executor::spin_until(BREATH, || false);
        executor::breathe().await;
    };
    // The questions arrive.
    next_round().await;
    next_round().await;
    let goes_on = || core.with_shard(|shard| shard.memory.as_ref().is_some_and(|it| it.has_work()));
    let (mut fewest, mut rounds) = (u64::MAX, 0);
    while rounds < ROUNDS && goes_on() {
        let before = TURNS.get();
        next_round().await;
        (fewest, rounds) = (fewest.min(TURNS.get() - before), rounds + 1);
    }
    drop(answered);
    core.stop();
    (fewest, rounds)
}

#[test]
fn messages_have_their_turn_between_memory_and_what_else_takes_long() {
    let settings = Settings { cpu: 0, ring_depth: 64, io_memory: 64 << 10 };
    let thread = executor::spawn_pinned("core", &settings, || async {
        let core = core();
        let (tell, told) = oneshot::channel();
        let looked_at = core.clone();
        executor::spawn(async move {
            tell.send(fewest_turns(looked_at).await).expect("the test waits");
        });
        let settings = Runtime { spin: Spin::Forever, ..Config::default().runtime };
        core.run(&settings).await;
        told.await.expect("it was looked at")
    });
    let (fewest, rounds) = thread.unwrap().join().unwrap();
    assert_eq!(rounds, ROUNDS, "the searches ended too soon");
    // One after the futures, before memory's turn, and one behind it.
    assert!(fewest >= 2, "messages had {fewest} turns from one round to the next");
}
