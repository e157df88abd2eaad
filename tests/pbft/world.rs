//! A run: replicas, villains, clients and the network, moved by one seed.

mod asking;
mod duties;
mod ends;
mod mishaps;
mod posting;
mod telling;

use crate::{
    clients::Asker,
    faults::Faults,
    network::{Network, Weather},
    node::{Effect, Group, Node, Scheme},
    oracle::Oracle,
    trace::{Trace, note},
    villain::{Trick, Villain},
};
use bytes::Bytes;
use coreflow::consensus::{
    engine::Limits,
    pbft::{Settings, Timing},
};
use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

thread_local! {
    /// What a run is about, for whoever tells that it failed.
    pub static STORY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Clients that are no replicas have numbers from here on.
const CLIENTS_FROM: u64 = 100;
/// Milliseconds within which all must have come along and ended once nothing fails any more.
const HEALED_MS_MAX: u64 = 90_000;
/// Microseconds between two looks whether all has ended.
const LOOK_US: u64 = 100_000;

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Simulated seconds in which things fail.
    pub seconds: u64,
    /// What the villains do, when the seed does not say.
    pub villain: Option<String>,
    /// What happens is printed.
    pub prints: bool,
    /// How everybody signs.
    pub scheme: Scheme,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations that were executed.
    pub executed: usize,
    /// Requests that tentative answers finished.
    pub fast: u64,
    /// Requests that committed answers finished.
    pub slow: u64,
    /// Proposals that were told as committed.
    pub proposals: u64,
    /// Proposals whose fate was not known.
    pub lost: u64,
    /// The highest view that began, of all partitions together.
    pub views: u64,
    /// Processes that ended and began again.
    pub crashes: u64,
    /// Logs that were replaced by a point.
    pub installed: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Messages of villains that were dropped.
    pub dropped: u64,
    /// Reads that were confirmed.
    pub reads: u64,
    /// Entries that were answered tentatively, and undone.
    pub undone: u64,
    /// Milliseconds from the end of all faults until all had ended, at most.
    pub healed_ms: u64,
    /// A hash of what happened.
    pub hash: u64,
}

impl Summary {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.executed += other.executed;
        self.fast += other.fast;
        self.slow += other.slow;
        self.proposals += other.proposals;
        self.lost += other.lost;
        self.views += other.views;
        self.crashes += other.crashes;
        self.installed += other.installed;
        self.messages += other.messages;
        self.dropped += other.dropped;
        self.reads += other.reads;
        self.undone += other.undone;
        self.healed_ms = self.healed_ms.max(other.healed_ms);
        self.hash ^= other.hash;
    }
}

/// Something that is due.
#[derive(Debug)]
enum Due {
    /// Bytes arrive somewhere.
    Arrive { from: u64, to: u64, partition: u16, bytes: Bytes, parts: Vec<Bytes> },
    /// A node has something to do: its place and run.
    Turn(usize, u32),
    /// A node's batch is on the disk: its place, run, batch and end.
    Synced(usize, u32, u64, u64),
    /// A node's shards ask for something.
    Shards(usize),
    /// A node's process ends: its place and run.
    End(usize, u32),
    /// All processes end.
    Blackout,
    /// A node's process begins.
    Start(usize),
    /// A node forgets what is old.
    Clean(usize),
    /// A client asks for something, or again.
    Client(usize),
    /// A villain does something.
    Villain(u64),
    /// A millisecond in which something may fail.
    Fault,
}

/// The world.
pub struct World {
    rng: fastrand::Rng,
    trace: Trace,
    now_us: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    due: BTreeMap<u64, Due>,
    network: Network,
    faults: Faults,
    group: Group,
    nodes: Vec<Node>,
    villains: BTreeMap<u64, Villain>,
    askers: Vec<Asker>,
    oracle: Oracle,
    seconds: u64,
    is_healed: bool,
    /// All lose their power when somebody is answered from then on, microseconds.
    snuffs_from_us: Option<u64>,
    /// Up to where all have to come then, by partition.
    marks: Vec<u64>,
    /// Nobody asks for anything any more.
    is_over: bool,
    /// Milliseconds between two things that somebody asks for, at most.
    pace_ms: u64,
    duties: duties::Duties,
    /// How slow disks are, microseconds at most.
    disk_us: u64,
    last_ticket: u64,
    last_number: u64,
    summary: Summary,
}

impl World {
    /// The world of a seed.
    pub fn new(options: &Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed ^ 0x5bf7);
        let faulty = if rng.u32(..5) == 0 { 2 } else { 1 };
        let nodes: Vec<_> = (1..=3 * faulty + 1).collect();
        let clients: Vec<_> = (0..rng.u64(1..4)).map(|client| CLIENTS_FROM + client).collect();
        let partitions = rng.u16(1..=2);
        let timing = Timing {
            tick_ms: 20,
            status_ms: 100,
            patience_ms: rng.u64(200..800),
            patience_max_ms: 5_000,
        };
        let limits = Settings::default().limits;
        let settings = Settings {
            timing,
            checkpoint_every: [2, 4, 8, 16][rng.usize(..4)],
            is_tentative: rng.u32(..8) > 0,
            pipeline: rng.u64(1..=4),
            early_bytes: [1 << 9, 1 << 12, 1 << 23][rng.usize(..3)],
            accepted_bytes: [1 << 9, 1 << 12, 1 << 24][rng.usize(..3)],
            limits: Limits { cache_bytes: [0, 1 << 12, 1 << 20][rng.usize(..3)], ..limits },
        };
        let group = Group::new(nodes.clone(), &clients, partitions, settings, options.scheme);
        let weather = Weather::random(&mut rng);
        let faults = Faults::random(&mut rng);
        let mut world = Self {
            trace: Trace::new(options.prints),
            now_us: 0,
            order: 0,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            network: Network::new(rng.u64(..), weather),
            faults,
            nodes: Vec::new(),
            villains: BTreeMap::new(),
            askers: Vec::new(),
            oracle: Oracle::default(),
            seconds: options.seconds,
            is_healed: false,
            snuffs_from_us: None,
            marks: Vec::new(),
            is_over: false,
            pace_ms: [20, 60, 200][rng.usize(..3)],
            duties: duties::Duties::default(),
            disk_us: [100, 2_000, 20_000][rng.usize(..3)],
            last_ticket: 0,
            last_number: 0,
            summary: Summary::default(),
            group,
            rng,
        };
        world.choose_villains(options);
        world.oracle = Oracle::new(world.villains.keys().copied());
        for id in nodes {
            let twins = match world.villains.get(&id) {
                Some(villain) if villain.has(Trick::Twin) => 2,
                _ => 1,
            };
            (0..twins).for_each(|_| world.nodes.push(Node::new(id)));
        }
        for id in clients {
            let partition = world.rng.u16(..partitions);
            world.askers.push(Asker::new(&world.group, id, partition));
        }
        let correct = world.nodes.iter().map(|node| node.id);
        let correct: Vec<_> = correct.filter(|id| !world.villains.contains_key(id)).collect();
        let lone = (world.rng.u32(..8) == 0).then(|| correct[world.rng.usize(..correct.len())]);
        world.duties = duties::Duties::new(partitions, lone);
        let villains: Vec<_> =
            world.villains.values().map(|villain| (villain.me, villain.tricks())).collect();
        let World { group, faults, .. } = &world;
        let story = format!(
            "{} replicas, {partitions} partitions, a checkpoint every {}, {weather:?}, {faults:?}, \
             villains {villains:?}",
            group.nodes.len(),
            settings.checkpoint_every
        );
        note!(world.trace, "{story}");
        STORY.set(story);
        world.begin();
        world
    }

    fn choose_villains(&mut self, options: &Options) {
        let nodes = self.group.nodes.clone();
        let faulty = self.group.faulty();
        let count = if self.rng.u32(..8) == 0 { 0 } else { self.rng.usize(1..=faulty) };
        let named = options.villain.as_deref().map(|name| {
            let tricks = name.split('+').map(|name| Trick::named(name).expect("a trick's name"));
            tricks.collect::<Vec<_>>()
        });
        let side: BTreeSet<_> = nodes.iter().copied().filter(|_| self.rng.bool()).collect();
        let mut order = nodes.clone();
        self.rng.shuffle(&mut order);
        order.truncate(count);
        let comrades: BTreeSet<_> = order.iter().copied().collect();
        for me in order {
            let partitions = 0..self.group.partitions;
            let keys = partitions.map(|partition| self.group.keys(me, partition)).collect();
            let tricks = named.clone().unwrap_or_else(|| Trick::random(&mut self.rng));
            let seed = self.rng.u64(..);
            let (side, comrades) = (side.clone(), comrades.clone());
            let villain = Villain::new(seed, me, &nodes, keys, tricks, side, comrades);
            self.villains.insert(me, villain);
        }
    }

    fn begin(&mut self) {
        for at in 0..self.nodes.len() {
            self.start(at);
            self.later(1_000, Due::Shards(at));
            self.later(50_000, Due::Clean(at));
        }
        for at in 0..self.askers.len() {
            self.later(1_000, Due::Client(at));
        }
        for id in self.villains.keys().copied().collect::<Vec<_>>() {
            self.later(10_000, Due::Villain(id));
        }
        self.later(1_000, Due::Fault);
    }

    /// Something is due after some time.
    fn later(&mut self, us: u64, due: Due) {
        self.order += 1;
        self.queue.push(Reverse((self.now_us + us, self.order)));
        self.due.insert(self.order, due);
    }

    /// Runs to its end.
    pub fn run(mut self) -> Summary {
        let until_us = self.seconds * 1_000_000;
        while self.now_us < until_us {
            self.next();
        }
        self.heal();
        self.go_on(until_us, "not all come along", Self::are_all_there);
        self.is_over = true;
        self.go_on(until_us, "not all ends", Self::has_ended);
        for node in self.nodes.iter().filter(|node| !self.villains.contains_key(&node.id)) {
            let driver = node.driver.as_ref().expect("all run");
            for partition in 0..self.group.partitions {
                let status = driver.group(partition).expect("it exists").status();
                self.summary.views += status.view;
            }
        }
        self.summary.healed_ms = (self.now_us - until_us) / 1_000;
        self.summary.executed = self.oracle.executed();
        self.summary.undone = self.oracle.undone();
        self.summary.hash = self.trace.hash().0;
        self.summary
    }

    /// Goes on until something is so.
    fn go_on(&mut self, since_us: u64, why_not: &str, is_so: fn(&Self) -> bool) {
        let mut look_us = self.now_us;
        loop {
            if self.now_us >= look_us {
                if is_so(self) {
                    return;
                }
                look_us = self.now_us + LOOK_US;
            }
            let healed_ms = (self.now_us - since_us) / 1_000;
            assert!(healed_ms < HEALED_MS_MAX, "{why_not}: {}", self.what_is_open());
            self.next();
        }
    }

    /// Nothing fails from now on, but villains stay villains. Clients go on for a while.
    fn heal(&mut self) {
        note!(self.trace, "all is mended");
        self.is_healed = true;
        for partition in 0..self.group.partitions {
            let beyond = 2 * self.group.settings.checkpoint_every;
            self.marks.push(self.oracle.head(partition) + beyond);
        }
        self.mark_duties();
        self.network.heal();
        self.disk_us = 500;
        for at in 0..self.nodes.len() {
            (self.nodes[at].slow_until_us, self.nodes[at].quiet_until_us) = (0, 0);
            if self.nodes[at].driver.is_none() {
                self.start(at);
            }
        }
    }

    fn correct(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !self.villains.contains_key(&node.id))
    }

    fn next(&mut self) {
        let Reverse((at_us, order)) = self.queue.pop().expect("faults never end");
        self.now_us = at_us;
        self.trace.set_time(at_us);
        match self.due.remove(&order).expect("it is due once") {
            Due::Arrive { from, to, partition, bytes, parts } => {
                self.arrive(from, to, partition, &bytes, &parts);
            }
            Due::Turn(at, run) if self.runs(at, run) => self.turn(at),
            Due::Synced(at, run, batch, end) if self.runs(at, run) => {
                self.nodes[at].synced(batch, end);
                self.turn(at);
            }
            Due::End(at, run) if self.runs(at, run) => {
                let for_us = self.rng.u64(1_000..500_000);
                self.crash(at, for_us);
            }
            Due::Turn(..) | Due::Synced(..) | Due::End(..) => {}
            Due::Shards(at) => self.ask(at),
            Due::Blackout => self.black_out(),
            Due::Start(at) => {
                if self.nodes[at].driver.is_none() {
                    self.start(at);
                }
            }
            Due::Clean(at) => self.clean(at),
            Due::Client(at) => self.client(at),
            Due::Villain(id) => {
                let villain = self.villains.get_mut(&id).expect("it exists");
                let parcels = villain.act();
                self.post(id, parcels);
                let us = self.rng.u64(1_000..200_000);
                self.later(us, Due::Villain(id));
            }
            Due::Fault => self.fail(),
        }
    }

    fn runs(&self, at: usize, run: u32) -> bool {
        self.nodes[at].driver.is_some() && self.nodes[at].run == run
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        note!(self.trace, "{} starts", node.id);
        let (id, kept) = (node.id, node.start(&self.group));
        if !self.villains.contains_key(&id) {
            for (partition, (behind, entries)) in (0..).zip(kept) {
                self.oracle.begin(id, partition);
                self.oracle.install(id, partition, behind);
                for (index, data) in (behind + 1..).zip(entries) {
                    self.oracle.commit(id, partition, index, None, None, data);
                }
            }
        }
        self.turn(at);
    }

    fn turn(&mut self, at: usize) {
        let mut effects = Vec::new();
        self.nodes[at].turn(self.now_us, &mut effects);
        self.handle(at, effects);
        if !self.villains.contains_key(&self.nodes[at].id) {
            self.judge_duties(at);
            let node = &self.nodes[at];
            assert_eq!(node.diverged(), None, "{} finds that the others have diverged", node.id);
            let Settings { accepted_bytes, limits, .. } = self.group.settings;
            let cache_bytes = limits.cache_bytes / usize::from(self.group.partitions);
            for (cached, accepted) in node.kept_bytes() {
                // What lies on a disk is kept until it is committed again.
                let is_over = cached > cache_bytes || accepted > accepted_bytes && node.run == 1;
                assert!(
                    !is_over,
                    "{} keeps more than it has room for: {cached} {accepted}",
                    node.id
                );
            }
        }
        let node = &self.nodes[at];
        let next_ms = node.driver.as_ref().and_then(|driver| driver.next_tick_ms());
        if let Some(next_ms) = next_ms.filter(|next_ms| next_ms * 1_000 > node.wake_us) {
            let (run, wake_us) = (node.run, next_ms * 1_000);
            self.nodes[at].wake_us = wake_us;
            self.later(wake_us.saturating_sub(self.now_us), Due::Turn(at, run));
        }
    }

    fn handle(&mut self, at: usize, effects: Vec<Effect>) {
        let id = self.nodes[at].id;
        let is_villain = self.villains.contains_key(&id);
        for effect in effects {
            match effect {
                Effect::Send(partition, to, message) => self.send(at, partition, to, message),
                Effect::Written(batch, end) => {
                    let node = &mut self.nodes[at];
                    let slow = if node.slow_until_us > self.now_us { 100 } else { 1 };
                    let us = self.rng.u64(50..=self.disk_us.max(51)) * slow;
                    node.synced_us = node.synced_us.max(self.now_us + us);
                    let (run, due_us) = (node.run, node.synced_us - self.now_us);
                    self.later(due_us, Due::Synced(at, run, batch, end));
                }
                Effect::Told(partition, event) => self.told(at, is_villain, partition, event),
                Effect::Answered(partition, answer) if !is_villain => {
                    self.answered(at, partition, answer);
                }
                Effect::Answered(..) => {}
            }
        }
    }

    fn clean(&mut self, at: usize) {
        let us = self.rng.u64(100_000..2_000_000);
        self.later(us, Due::Clean(at));
        let mut effects = Vec::new();
        self.nodes[at].clean(&mut self.rng, &mut effects, self.now_us);
        self.handle(at, effects);
    }
}
