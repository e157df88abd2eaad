//! What a core asks of all nodes: the cache in front, the world behind it, and changes of it.
//!
//! - `hit/CACHE`: one of 10,000 answers that are in the cache, asked for by name as Zipf's law with exponent
//!   0.99 says; names have 12 bytes.
//!   `lru` and `moka` are crates, the latter with its own time to live as it is used; `map` is a
//!   hash map, which has no bound and no age. The goal is 20 ns.
//! - `view/…`: the same through a core's view; `world/…`: what the view asks when its cache does
//!   not know, with 10 nodes of 10,000 agents each, all with names, and 5 types on each node.
//!
//! `cargo bench --bench registry`, or `cargo bench --bench registry -- --quick hit` for a first
//! look. `cargo bench --bench registry -- figures` prints instead how often caches have the answer on
//! traces, the memory of that world, and the fastest of many passes over the same questions: on a
//! machine that others use as well, that is what the code takes. There, an entry of gossip is taken
//! in, too, and a snapshot put up after so many changes and taken by a view; while a view has a
//! snapshot, what changes is copied.

use coreflow::{
    metrics::process::resident_bytes,
    registry::{
        board::Publisher,
        cache::{Cache, Equivalent},
        fact::{AgentFact, Capabilities, Fact, Load, TypeFact},
        view::{ANSWER_TTL_MS, ANSWERS_MAX, View},
        world::{Limits, Status, World},
    },
    wire::{
        api::AgentKind,
        id::{AgentAddress, AgentId, NodeId},
    },
};
use criterion::{Criterion, Throughput};
use fastrand::Rng;
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    hash::Hash,
    hint::black_box,
    time::{Duration, Instant},
};

const SEED: u64 = 0x5eed;
/// Questions that take turns.
const QUESTIONS: usize = 1 << 16;
const NODES: NodeId = 10;
const AGENTS: u32 = 10_000;
const TYPES: u16 = 5;
/// Keys of a trace, accesses, and those at its start that are not counted.
const TRACE_KEYS: usize = 100_000;
const TRACE: usize = 2_500_000;
const TRACE_WARM: usize = 500_000;

/// Numbers by Zipf's law: the number of rank `n` comes `n` to the power `-exponent` as often as the
/// first; ranks are in random order.
struct Zipf {
    shares: Vec<f64>,
    numbers: Vec<u32>,
}

impl Zipf {
    fn new(numbers: usize, exponent: f64, rng: &mut Rng) -> Self {
        let mut sum = 0.0;
        let weights = (1..=numbers).map(|rank| (rank as f64).powf(-exponent));
        let mut shares: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        let mut numbers: Vec<u32> = (0..numbers as u32).collect();
        rng.shuffle(&mut numbers);
        Self { shares, numbers }
    }

    fn rank(&self, rng: &mut Rng) -> usize {
        let share = rng.f64();
        self.shares.partition_point(|upto| *upto < share).min(self.shares.len() - 1)
    }

    fn next(&self, rng: &mut Rng) -> u32 {
        self.numbers[self.rank(rng)]
    }
}

/// What finds an answer by key.
trait Answers<K> {
    fn find<Q: Hash + Eq + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>;
    fn keep(&mut self, key: K, answer: u64);
}

impl<K: Hash + Eq> Answers<K> for Cache<K, u64> {
    fn find<Q: Hash + Eq + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key, black_box(1)).copied()
    }

    fn keep(&mut self, key: K, answer: u64) {
        self.insert(key, answer, 1);
    }
}

impl<K: Hash + Eq> Answers<K> for lru::LruCache<K, u64, RandomState> {
    fn find<Q: Hash + Eq + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key).copied()
    }

    fn keep(&mut self, key: K, answer: u64) {
        self.put(key, answer);
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Answers<K> for moka::sync::Cache<K, u64, RandomState> {
    fn find<Q: Hash + Eq + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key)
    }

    fn keep(&mut self, key: K, answer: u64) {
        self.insert(key, answer);
    }
}

impl<K: Hash + Eq> Answers<K> for HashMap<K, u64, RandomState> {
    fn find<Q: Hash + Eq + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<u64>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key).copied()
    }

    fn keep(&mut self, key: K, answer: u64) {
        self.insert(key, answer);
    }
}

fn lru<K: Hash + Eq>() -> lru::LruCache<K, u64, RandomState> {
    let capacity = ANSWERS_MAX.try_into().expect("not 0");
    lru::LruCache::with_hasher(capacity, RandomState::default())
}

fn moka<K: Hash + Eq + Send + Sync + 'static>(
    ttl: Option<Duration>,
) -> moka::sync::Cache<K, u64, RandomState> {
    let builder = moka::sync::Cache::builder().max_capacity(ANSWERS_MAX as u64);
    let builder = ttl.into_iter().fold(builder, |builder, ttl| builder.time_to_live(ttl));
    builder.build_with_hasher(RandomState::default())
}

fn address(number: u32) -> AgentAddress {
    let node = NodeId::from(number / AGENTS) + 1;
    let (core, slot) = ((number % 4) as u16, number % AGENTS / 4);
    AgentAddress { node, agent: AgentId::new(core, slot, 3) }
}

fn name_of(number: u32) -> String {
    format!("clerk-{number:06}")
}

fn hit(criterion: &mut Criterion, name: &str, mut by_name: impl Answers<Box<str>>) {
    let mut rng = Rng::with_seed(SEED);
    let zipf = Zipf::new(ANSWERS_MAX, 0.99, &mut rng);
    for number in 0..ANSWERS_MAX as u32 {
        by_name.keep(name_of(number).into(), u64::from(number));
    }
    let asked: Vec<u32> = (0..QUESTIONS).map(|_| zipf.next(&mut rng)).collect();
    let names: String = asked.iter().map(|number| name_of(*number)).collect();
    let mut group = criterion.benchmark_group("hit");
    group.throughput(Throughput::Elements(1));
    let bytes = name_of(0).len();
    let mut at = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            at = (at + 1) % QUESTIONS;
            by_name.find::<str>(&names[at * bytes..(at + 1) * bytes])
        });
    });
}

fn bench_hit(criterion: &mut Criterion) {
    let ttl = Duration::from_secs(3600);
    hit(criterion, "coreflow", Cache::<_, _>::new(ANSWERS_MAX, ANSWER_TTL_MS));
    hit(criterion, "lru", lru());
    hit(criterion, "moka", moka(Some(ttl)));
    hit(criterion, "map", HashMap::with_hasher(RandomState::default()));
}

fn set(world: &mut World, node: NodeId, fact: &Fact) {
    let (mut key, mut value) = (Vec::with_capacity(16), Vec::with_capacity(64));
    fact.key().encode(&mut key);
    fact.encode(&mut value).expect("short texts");
    world.set(node, &key, &value).expect("within the limits");
}

fn agent(number: u32, name: String) -> Fact {
    let fact = AgentFact {
        type_index: (number % u32::from(TYPES)) as u16,
        name: Some(name.into()),
        capabilities: Capabilities::default(),
    };
    Fact::Agent(address(number).agent, fact)
}

fn load(running: u32) -> Load {
    Load { agents: 2_000, capacity: 8_000, running, queued: 0 }
}

/// A world of ten nodes with ten thousand agents each.
fn world() -> World {
    let mut world = World::new(1, Limits::default());
    for node in 1..=NODES {
        world.set_status(node, Status::Alive);
        for index in 0..TYPES {
            let capabilities = Capabilities::new(["cpu", "web"]).expect("two short words");
            let name = format!("type-{index}").into();
            let fact = TypeFact { name, kind: AgentKind::Exec, max: 10, capabilities };
            set(&mut world, node, &Fact::Type(index, fact));
            set(&mut world, node, &Fact::Load(index, load(100 * node as u32 % 700)));
        }
        for place in 0..AGENTS {
            let number = (node as u32 - 1) * AGENTS + place;
            set(&mut world, node, &agent(number, name_of(number)));
        }
    }
    world
}

fn bench_world(criterion: &mut Criterion) {
    let mut view =
        View::new(Publisher::new(&mut world()).board().latest(), ANSWERS_MAX, ANSWER_TTL_MS);
    let mut rng = Rng::with_seed(SEED);
    let zipf = Zipf::new(ANSWERS_MAX, 0.99, &mut rng);
    // What is asked often is anywhere in the world; what the world is asked is all of it.
    let near = |rng: &mut Rng| zipf.next(rng) * 10;
    let names: Vec<_> = (0..QUESTIONS).map(|_| name_of(near(&mut rng))).collect();
    let far_ids: Vec<_> =
        (0..QUESTIONS).map(|_| address(rng.u32(..AGENTS * NODES as u32))).collect();
    let far_names: Vec<_> =
        (0..QUESTIONS).map(|_| name_of(rng.u32(..AGENTS * NODES as u32))).collect();
    let types: Vec<_> = (0..TYPES).map(|index| format!("type-{index}")).collect();
    for number in 0..ANSWERS_MAX as u32 {
        view.named(&name_of(number * 10), 1);
    }
    let mut group = criterion.benchmark_group("view");
    group.throughput(Throughput::Elements(1));
    let mut next = names.iter().cycle();
    group.bench_function("named", |bencher| {
        bencher.iter(|| view.named(next.next().expect("a cycle"), black_box(1)));
    });
    let mut next = types.iter().cycle();
    group.bench_function("least_loaded", |bencher| {
        bencher.iter(|| view.least_loaded(next.next().expect("a cycle"), black_box(1), 7));
    });
    group.finish();
    let mut group = criterion.benchmark_group("world");
    group.throughput(Throughput::Elements(1));
    let mut next = far_names.iter().cycle();
    group.bench_function("named", |bencher| {
        bencher.iter(|| view.world().named(next.next().expect("a cycle")));
    });
    let mut next = far_ids.iter().cycle();
    group.bench_function("agent", |bencher| {
        bencher.iter(|| view.world().agent(*next.next().expect("a cycle")));
    });
    let mut next = types.iter().cycle();
    group.bench_function("least_loaded", |bencher| {
        bencher.iter(|| view.world().least_loaded(next.next().expect("a cycle")));
    });
    group.bench_function("of_type_100", |bencher| {
        bencher.iter(|| view.world().of_type("type-3", None).take(100).last());
    });
}

/// The traces: each with its name.
fn traces() -> Vec<(&'static str, Vec<u32>)> {
    let mut rng = Rng::with_seed(SEED);
    let mut traces = Vec::new();
    for (name, exponent) in [("Zipf 0.7", 0.7), ("Zipf 0.99", 0.99), ("Zipf 1.1", 1.1)] {
        let zipf = Zipf::new(TRACE_KEYS, exponent, &mut rng);
        traces.push((name, (0..TRACE).map(|_| zipf.next(&mut rng)).collect()));
    }
    // A fifth of it passes over keys that never come again, 10,000 at a time.
    let zipf = Zipf::new(TRACE_KEYS, 0.99, &mut rng);
    let mut fresh = TRACE_KEYS as u32;
    let scanned = (0..TRACE).map(|at| match at % 50_000 {
        0..40_000 => zipf.next(&mut rng),
        _ => {
            fresh += 1;
            fresh
        }
    });
    traces.push(("with scans", scanned.collect()));
    // Every 100,000 accesses, 500 keys that are asked for least become the ones most asked for.
    let mut zipf = Zipf::new(TRACE_KEYS, 0.99, &mut rng);
    let mut shifting = Vec::with_capacity(TRACE);
    for at in 0..TRACE {
        if at % 100_000 == 0 {
            zipf.numbers.rotate_right(500);
        }
        shifting.push(zipf.next(&mut rng));
    }
    traces.push(("shifting", shifting));
    // The newest keys are asked for most, and every eighth access brings a new one.
    let zipf = Zipf::new(20_000, 0.8, &mut rng);
    let recent = (0..TRACE).map(|at| (TRACE + at / 8 - zipf.rank(&mut rng)) as u32);
    traces.push(("recent", recent.collect()));
    traces
}

fn hit_rate(trace: &[u32], mut cache: impl Answers<u32>, mut pause: impl FnMut(usize)) -> f64 {
    let mut hits = 0;
    for (at, key) in trace.iter().enumerate() {
        pause(at);
        match cache.find(key) {
            Some(_) => hits += usize::from(at >= TRACE_WARM),
            None => cache.keep(*key, 0),
        }
    }
    hits as f64 * 100.0 / (trace.len() - TRACE_WARM) as f64
}

/// Keeps the processor from leaving out what nobody looks at.
fn sink<T>(answer: T) {
    black_box(answer);
}

/// The fastest and the middle one of so many passes, nanoseconds for each of `items`.
fn print_passes(name: &str, passes: usize, items: usize, mut pass: impl FnMut()) {
    let mut times: Vec<f64> = (0..passes)
        .map(|_| {
            let begin = Instant::now();
            pass();
            begin.elapsed().as_nanos() as f64 / items as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:32} {:9.1} {:9.1}", times[0], times[passes / 2]);
}

fn print_hits(cache: &str, mut by_name: impl Answers<Box<str>>) {
    let mut rng = Rng::with_seed(SEED);
    let zipf = Zipf::new(ANSWERS_MAX, 0.99, &mut rng);
    for number in 0..ANSWERS_MAX as u32 {
        by_name.keep(name_of(number).into(), u64::from(number));
    }
    let asked: Vec<u32> = (0..QUESTIONS).map(|_| zipf.next(&mut rng)).collect();
    let names: Vec<String> = asked.iter().map(|number| name_of(*number)).collect();
    print_passes(&format!("hit, {cache}"), 60, QUESTIONS, || {
        names.iter().for_each(|name| sink(by_name.find::<str>(name)));
    });
}

fn print_times() {
    println!("nanoseconds: the fastest pass, the middle one");
    let ttl = Some(Duration::from_secs(3600));
    for _ in 0..2 {
        print_hits("coreflow", Cache::<_, _>::new(ANSWERS_MAX, ANSWER_TTL_MS));
        print_hits("lru", lru());
        print_hits("moka", moka(ttl));
        print_hits("map", HashMap::with_hasher(RandomState::default()));
    }
    let mut world = world();
    let mut publisher = Publisher::new(&mut world);
    let board = publisher.board();
    let new_view = || View::new(board.latest(), ANSWERS_MAX, ANSWER_TTL_MS);
    let mut rng = Rng::with_seed(SEED);
    let (agents, answers) = (AGENTS * NODES as u32, ANSWERS_MAX as u32);
    let near: Vec<u32> = (0..QUESTIONS).map(|_| rng.u32(..answers) * (agents / answers)).collect();
    let far: Vec<u32> = (0..QUESTIONS).map(|_| rng.u32(..agents)).collect();
    let names = |numbers: &[u32]| numbers.iter().map(|it| name_of(*it)).collect::<Vec<_>>();
    let ids = |numbers: &[u32]| numbers.iter().map(|it| address(*it)).collect::<Vec<_>>();
    let types: Vec<String> =
        (0..QUESTIONS).map(|at| format!("type-{}", at % usize::from(TYPES))).collect();
    let near_names = names(&near);
    let mut view = new_view();
    print_passes("view, name", 60, QUESTIONS, || {
        near_names.iter().for_each(|name| sink(view.named(name, black_box(1))));
    });
    print_passes("view, least loaded", 60, QUESTIONS, || {
        types.iter().for_each(|name| sink(view.least_loaded(name, black_box(1), 7)));
    });
    let (far_names, far_ids) = (names(&far), ids(&far));
    print_passes("world, name", 40, QUESTIONS, || {
        far_names.iter().for_each(|name| sink(world.named(name)));
    });
    print_passes("world, id", 40, QUESTIONS, || {
        far_ids.iter().for_each(|id| sink(world.agent(*id)));
    });
    print_passes("world, least loaded", 40, QUESTIONS, || {
        types.iter().for_each(|name| sink(world.least_loaded(name)));
    });
    print_passes("world, 100 of a type", 200, 1, || {
        black_box(world.of_type("type-3", None).take(100).last());
    });
    print_passes("world, all of a type", 200, 1, || {
        black_box(world.of_type("type-3", None).last());
    });
    print_passes("world, nobody that can do it", 200, 1, || {
        black_box(world.capable("nothing", None).last());
    });
    print_passes("world, all that can do it", 200, 1, || {
        black_box(world.capable("web", None).last());
    });
    print_passes("a load, told and seen", 500, 1, || {
        set(&mut world, 3, &Fact::Load(0, load(rng.u32(..8_000))));
        publisher.publish(&mut world);
        board.refresh(&mut view, 1);
    });
    for changes in [1, 100, 1_000] {
        let name = format!("an agent, told and seen, of {changes}");
        print_passes(&name, 100, changes, || {
            for _ in 0..changes {
                let number = rng.u32(..agents);
                let fact = agent(number, format!("cook-{:08}", rng.u32(..100_000_000)));
                set(&mut world, address(number).node, &fact);
            }
            publisher.publish(&mut world);
            board.refresh(&mut view, 1);
        });
    }
    print_passes("nothing new is seen", 100, 1_000, || {
        (0..1_000).for_each(|_| sink(board.refresh(&mut view, 1)));
    });
    print_passes("a node dies and comes back", 50, 1, || {
        for status in [Status::Dead, Status::Alive] {
            world.set_status(4, status);
            publisher.publish(&mut world);
            board.refresh(&mut view, 1);
        }
    });
}

fn print_figures() {
    println!("hits of {ANSWERS_MAX} answers, percent: trace, coreflow, lru, moka");
    for (name, trace) in traces() {
        let ours = hit_rate(&trace, Cache::new(ANSWERS_MAX, ANSWER_TTL_MS), |_| {});
        let least_recent = hit_rate(&trace, lru(), |_| {});
        let moka = moka(None);
        let tended = moka.clone();
        // It learns what was asked for when it tidies up, which it would do by itself less often.
        let moka = hit_rate(&trace, moka, |at| {
            if at % 64 == 0 {
                tended.run_pending_tasks();
            }
        });
        println!("{name:12} {ours:6.2} {least_recent:6.2} {moka:6.2}");
    }
    let before = resident_bytes();
    let mut world = world();
    let filled = resident_bytes() - before;
    let agents = AGENTS * NODES as u32;
    println!(
        "{agents} agents with names: {:.1} MiB, {} B each",
        filled as f64 / 1048576.0,
        filled / u64::from(agents)
    );
    let mut publisher = Publisher::new(&mut world);
    let mut view = View::new(publisher.board().latest(), ANSWERS_MAX, ANSWER_TTL_MS);
    let before = resident_bytes();
    for number in 0..ANSWERS_MAX as u32 {
        view.named(&name_of(number), 1);
    }
    let filled = resident_bytes() - before;
    println!("a core's {ANSWERS_MAX} answers: {} KiB", filled / 1024);
    let before = resident_bytes();
    for number in (0..agents).step_by(97) {
        set(&mut world, address(number).node, &agent(number, format!("cook-{number}")));
    }
    publisher.publish(&mut world);
    let copied = (resident_bytes() - before) as f64 / 1048576.0;
    println!(
        "copied for {} changes while a core has the snapshot before: {copied:.1} MiB",
        agents / 97 + 1
    );
    drop(view);
    drop(world);
    print_times();
}

fn main() {
    if std::env::args().any(|argument| argument == "figures") {
        return print_figures();
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    bench_hit(&mut criterion);
    bench_world(&mut criterion);
    criterion.final_summary();
}
