//! A run: nodes, network, clients and faults, moved by one seed.
//!
//! First a phase in which things fail, then one in which nothing does any more: then all that was
//! accepted must end, and all replicas agree.

use crate::{
    check::Checker,
    clients::{Clients, Habits},
    faults::{Faults, crash},
    liar,
    log::{Protocol, survivable},
    network::{Network, Weather},
    node::{Common, Down, Node, Running, address, leader},
    operator::Operator,
    oracle::AGREED_SLACK_US,
    trace::{Trace, note},
    wear::Wear,
};
use coreflow::{
    config::Config,
    consensus::{
        assemble::Sizes,
        cluster::{Ask, PartitionStatus},
        engine::Status,
    },
};
use std::{cell::Cell, time::Instant};

thread_local! {
    /// Steps of the run on this thread, for whoever tells where it failed.
    pub static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// New tasks that must be accepted and end once nothing fails any more.
const LATE_TASKS: usize = 12;
/// Steps in which everything must have ended once nothing fails any more.
const LIVE_STEPS: u64 = 60_000;
/// Steps between two looks whether it has.
const LOOK_STEPS: u64 = 64;
/// Looks within which a node should lead what was handed over to it.
const TRANSFER_LOOKS: u32 = 6;
/// Fraction of a segment.
const PAGE: u64 = 4096;

/// What a run is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// How the nodes agree.
    pub protocol: Protocol,
    /// Steps of the phase in which things fail.
    pub steps: u64,
    pub prints: bool,
    /// Disks last, and what is sent comes once.
    pub sound: bool,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub hash: u64,
    pub events: u64,
    pub steps: u64,
    pub virtual_us: u64,
    pub tasks: u64,
    pub acknowledged: u64,
    pub uncertain: u64,
    pub refused: u64,
    pub ends: u64,
    pub reads: u64,
    pub messages: u64,
    pub elections: u64,
    pub entries: u64,
    pub boots: u64,
    /// Messages that came twice.
    pub repeated: u64,
    /// Nodes whose logs were damaged, those that it kept from starting, and those of which another
    /// one took the place.
    pub rotten: u64,
    pub out: u64,
    pub replaced: u64,
}

impl Summary {
    /// Adds another run's figures; the hash is mixed.
    pub fn add(&mut self, other: &Self) {
        self.hash = self.hash.wrapping_mul(31).wrapping_add(other.hash);
        self.events += other.events;
        self.steps += other.steps;
        self.virtual_us += other.virtual_us;
        self.tasks += other.tasks;
        self.acknowledged += other.acknowledged;
        self.uncertain += other.uncertain;
        self.refused += other.refused;
        self.ends += other.ends;
        self.reads += other.reads;
        self.messages += other.messages;
        self.elections += other.elections;
        self.entries += other.entries;
        self.boots += other.boots;
        self.repeated += other.repeated;
        self.rotten += other.rotten;
        self.out += other.out;
        self.replaced += other.replaced;
    }
}

pub struct World {
    rng: fastrand::Rng,
    trace: Trace,
    now_us: u64,
    /// A step takes at most so long, microseconds.
    step_us: u64,
    /// A write takes at most so long, microseconds.
    write_us: u64,
    common: Common,
    nodes: Vec<Node>,
    /// When nodes that are down start.
    start_at_us: Vec<u64>,
    network: Network,
    clients: Clients,
    checker: Checker,
    faults: Faults,
    wear: Wear,
    operator: Operator,
    options: Options,
    steps: u64,
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let trace = Trace::new(options.prints);
        let agrees = options.protocol == Protocol::Pbft;
        let counts = if agrees { [4, 4, 4, 4, 7] } else { [1, 3, 3, 3, 5] };
        let count = counts[rng.usize(..5)];
        let partitions = rng.u16(1..=4);
        let segment_bytes = [16, 24, 40, 64][rng.usize(..4)] * PAGE;
        let sizes = Sizes {
            segment_bytes,
            keep_bytes: rng.u64(3..12) * segment_bytes,
            block_bytes: rng.usize(1..=8) * 1024,
            cache_bytes: [0, 8 << 10, 1 << 20][rng.usize(..3)],
        };
        let weather = Weather {
            delay_us_min: rng.u64(..500),
            delay_us_max: 500 + rng.u64(..20_000),
            lost: [0, 0, 5, 50][rng.usize(..4)],
            reconnect: [2, 8, 40][rng.usize(..3)],
        };
        let habits = Habits {
            tasks: rng.usize(40..400),
            keyed: rng.u32(..50),
            delayed: rng.u32(..30),
            failing: [0, 10, 40, 80][rng.usize(..4)],
            dying: [10, 50, 90][rng.usize(..3)],
            forgotten: rng.u32(..20),
            bytes: [16, 600, 6_000][rng.usize(..3)],
        };
        let key_ttl_ms = [86_400_000, 4_000][rng.usize(..2)];
        let dead_max = [100_000, 100_000, 6][rng.usize(..3)];
        // The nodes of some clusters change.
        let changes = count > 1 && rng.u32(..5) < 2 && !agrees;
        // Another node may take the place of one whose log is damaged.
        let has_spare = !options.sound && count > 1 && !changes && !agrees;
        let nodes = count + u64::from(has_spare);
        let founders = if changes { rng.u64(1..=count) } else { count };
        let common = Common {
            protocol: options.protocol,
            checkpoint_entries: [4, 16, 64][(options.seed % 3) as usize],
            voters: (1..=founders).collect(),
            nodes: (1..=nodes).map(|node| (node, address(node))).collect(),
            partitions,
            sizes,
            tick_ms: 10,
            balance: rng.bool(),
            config: config(key_ttl_ms, dead_max),
            zero: Instant::now(),
        };
        let network = Network::new(rng.u64(..), nodes, weather, trace.clone());
        let mut nodes: Vec<_> = (1..=nodes).map(|node| Node::new(node, rng.u64(..100))).collect();
        let spare = has_spare.then_some(count as usize);
        if let Some(spare) = spare {
            (nodes[spare].is_out, nodes[spare].lasts) = (true, true);
        }
        let liar = liar::choose(options.seed, options.protocol, count);
        if let Some((node, lies)) = liar {
            nodes[node as usize - 1].lies = Some(lies);
            note!(trace, "{node} lies: {lies}");
        }
        let operator = Operator::new(!options.seed, partitions, spare);
        let faults = Faults::random(&mut rng, changes);
        let protocol = options.protocol;
        note!(
            trace,
            "{protocol:?}, {count} nodes, {partitions} partitions, {sizes:?}, {weather:?}"
        );
        note!(trace, "{habits:?}, {faults:?}");
        // Of their own random numbers, so that a run without them is the same as ever.
        let survivable = if changes { 0 } else { survivable(options.protocol, count) };
        let survivable = survivable - usize::from(liar.is_some());
        let wear = match options.sound {
            true => Wear::none(),
            false => Wear::random(!options.seed, survivable),
        };
        if !options.sound {
            network.set_twice(!options.seed);
            note!(trace, "{wear:?}");
        }
        let mut clients = Clients::new(rng.u64(..), nodes.len(), habits, trace.clone());
        clients.oracle.key_ttl_us = key_ttl_ms * 1_000;
        if agrees {
            clients.oracle.key_slack_us = AGREED_SLACK_US;
        }
        clients.oracle.purges = dead_max < 1_000;
        Self {
            trace,
            now_us: 1_000,
            step_us: rng.u64(300..4_000),
            write_us: [50, 500, 5_000, 60_000][rng.usize(..4)],
            common,
            start_at_us: vec![0; nodes.len()],
            nodes,
            operator,
            network,
            clients,
            checker: Checker::new(partitions),
            faults,
            wear,
            options,
            steps: 0,
            rng,
        }
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(mut self) -> Summary {
        for _ in 0..self.options.steps {
            self.step(true);
        }
        self.heal();
        let deadline = self.steps + LIVE_STEPS;
        loop {
            for _ in 0..LOOK_STEPS {
                self.step(false);
            }
            if self.is_over() {
                break;
            }
            assert!(self.steps < deadline, "it does not come to an end: {}", self.left());
        }
        (0..self.nodes.len()).for_each(|at| self.let_lead(at));
        let (hash, events) = self.trace.hash();
        let Clients { oracle, acknowledged, uncertain, refused, .. } = &self.clients;
        Summary {
            hash,
            events,
            steps: self.steps,
            virtual_us: self.now_us,
            tasks: oracle.tasks.len() as u64,
            acknowledged: *acknowledged,
            uncertain: *uncertain,
            refused: *refused,
            ends: oracle.ends,
            reads: oracle.reads,
            messages: self.network.delivered(),
            elections: self.checker.elections,
            entries: self.checker.committed() as u64,
            boots: self.nodes.iter().map(|node| node.boots).sum(),
            repeated: self.network.repeated(),
            rotten: self.nodes.iter().filter(|node| node.is_rotten).count() as u64,
            out: self.nodes.iter().filter(|node| node.is_rotten && node.is_out).count() as u64,
            replaced: self.operator.replaced,
        }
    }

    fn step(&mut self, may_fail: bool) {
        self.steps += 1;
        STEPS.set(self.steps);
        self.now_us += 1 + self.rng.u64(..self.step_us);
        self.trace.set_time(self.now_us);
        self.network.advance(self.now_us);
        if may_fail {
            let Self { faults, wear, nodes, network, rng, trace, now_us, .. } = self;
            faults.strike(nodes, network, rng, trace, *now_us);
            wear.strike(nodes, network, trace);
        }
        self.operator.act(&mut self.nodes, &self.trace);
        let at = self.rng.usize(..self.nodes.len());
        if self.nodes[at].running.is_none() && !self.nodes[at].is_out {
            self.start(at, may_fail);
        }
        self.turn(at);
        let Self { clients, nodes, now_us, .. } = self;
        clients.act(nodes, *now_us);
    }

    /// A node that is down starts when its time has come.
    fn start(&mut self, at: usize, may_fail: bool) {
        let start_at_us = &mut self.start_at_us[at];
        if *start_at_us == 0 && self.steps > 1 && self.nodes[at].boots > 0 {
            let most = if may_fail && self.rng.u32(..3) == 0 { 600_000 } else { 20_000 };
            *start_at_us = self.now_us + self.rng.u64(..most);
        }
        if self.now_us < *start_at_us {
            return;
        }
        *start_at_us = 0;
        let seed = self.rng.u64(..);
        let node = &mut self.nodes[at];
        let started = node.start(&self.common, &self.network, seed, self.now_us);
        note!(self.trace, "{} starts", node.id);
        match started {
            Ok(()) => self.network.set_up(node.id, true),
            Err(Down::Damaged(why)) => {
                assert!(node.is_rotten, "the log of node {} is damaged: {why}", node.id);
                note!(self.trace, "{} stays out: {why}", node.id);
                node.is_out = true;
                self.clients.lose_worker(at);
            }
            Err(down) => note!(self.trace, "{} cannot: {down}", node.id),
        }
    }

    fn turn(&mut self, at: usize) {
        let (shard_first, shard, keeper) = (self.rng.bool(), self.rng.u32(..4), self.rng.u32(..4));
        let turned = self.turn_parts(at, shard_first, shard > 0, keeper > 0);
        let node = &mut self.nodes[at];
        match turned {
            Ok(true) => {}
            Ok(false) => {
                note!(self.trace, "{} has ended", node.id);
                crash(node, &self.network);
            }
            Err(down) => {
                note!(self.trace, "{} is down: {down}", node.id);
                // One that is to end while it waits for a segment does not wait longer.
                let has_reason = node.is_rotten || node.disk.has_failed() || node.is_leaving;
                assert!(has_reason, "node {} ends though its disk is well: {down}", node.id);
                crash(node, &self.network);
            }
        }
        node.do_io(&self.trace, &mut self.rng);
    }

    /// Turns of a node's core and of its log thread, in this order or the other one; whether it
    /// goes on.
    fn turn_parts(
        &mut self,
        at: usize,
        shard_first: bool,
        shard: bool,
        keeper: bool,
    ) -> Result<bool, Down> {
        let (node, now_us) = (&mut self.nodes[at], self.now_us);
        let shard = shard && node.shard_busy_us <= now_us;
        if shard_first && shard {
            node.turn_shard(now_us)?;
        }
        if keeper && node.keeper_busy_us <= now_us {
            let write_us = self.rng.u64(..self.write_us);
            if !node.turn_keeper(&self.common, now_us, || write_us)? {
                return Ok(false);
            }
            self.checker.look(node);
        }
        if !shard_first && shard {
            node.turn_shard(now_us)?;
        }
        Ok(true)
    }

    /// Nothing fails any more.
    fn heal(&mut self) {
        note!(self.trace, "nothing fails any more");
        self.clients.begin_to_end(LATE_TASKS);
        self.network.heal();
        self.network.end_twice();
        let (delay_us_min, delay_us_max, lost, reconnect) = (100, 1_000, 0, 8);
        self.network.set_weather(Weather { delay_us_min, delay_us_max, lost, reconnect });
        self.write_us = 500;
        for node in &mut self.nodes {
            node.disk.set_capacity(None);
            (node.keeper_busy_us, node.shard_busy_us) = (0, 0);
            node.at_start = None;
            // A node that runs with a damaged log may go on to the end, or find out.
            if node.is_rotten && node.running.is_some() && node.boots % 2 == 0 {
                crash(node, &self.network);
            }
        }
    }

    /// Lets a node lead what it can, so that clients look at what its tables make of the log.
    fn let_lead(&mut self, at: usize) {
        if self.nodes[at].is_out {
            return;
        }
        let to = self.nodes[at].id;
        note!(self.trace, "{to} is to lead");
        for _ in 0..TRANSFER_LOOKS {
            for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
                let leaders = &running.cluster.leaders;
                let led =
                    (0..self.common.partitions).filter(|partition| leaders.is_here(*partition));
                for partition in led.filter(|_| leaders.me() != to) {
                    drop(running.cluster.ask(Ask::Transfer { partition, to }));
                }
            }
            for _ in 0..LOOK_STEPS {
                self.step(false);
            }
        }
        let Self { clients, nodes, now_us, .. } = self;
        clients.read_all(nodes, at, *now_us);
        let deadline = self.steps + LIVE_STEPS;
        while !self.clients.is_idle() {
            self.step(false);
            assert!(self.steps < deadline, "reads are not answered: {}", self.left());
        }
    }

    /// Whether everything has ended and everybody knows.
    fn is_over(&mut self) -> bool {
        let is_down = |node: &Node| node.running.is_none() && !node.is_out;
        if !self.clients.is_idle() || self.nodes.iter().any(is_down) {
            return false;
        }
        let unended: Vec<_> = (0..self.clients.oracle.tasks.len())
            .filter(|number| {
                let task = &self.clients.oracle.tasks[*number];
                task.must_end() && !task.is_over()
            })
            .collect();
        if unended.is_empty() {
            return self.operator.rests() && self.agree() && self.logs_are_short();
        }
        let Self { clients, nodes, now_us, .. } = self;
        for number in unended.into_iter().take(8) {
            for node in 0..nodes.len() {
                clients.read(nodes, node, *now_us, number, 0);
            }
        }
        false
    }

    /// Whether the logs of nodes that tell the truth are as short as they are to be, whatever a liar does: one
    /// of f nodes may be longer than those of the others, who then owe it nothing.
    fn logs_are_short(&self) -> bool {
        let honest = self.nodes.iter().filter(|node| node.lies.is_none());
        let running = honest.filter_map(|node| node.running.as_ref());
        let long = running.filter(|running| running.log.is_long()).count();
        let faulty = survivable(Protocol::Pbft, self.nodes.len() as u64);
        self.common.protocol == Protocol::Raft || long <= faulty
    }

    /// Whether all members of each partition have the same log.
    fn agree(&self) -> bool {
        (0..self.common.partitions).all(|partition| {
            let Some((_, log, members)) = leader(&self.nodes, partition) else { return false };
            let running =
                self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
            let mut members_only = running.filter(|(id, _)| members.is_member(*id));
            log.last == log.commit
                && !members.is_joint()
                && members_only.all(|(_, running)| {
                    let status = running.log.status(partition);
                    let chain = |status: &Status| status.agreement.map(|it| it.chain);
                    (status.last, status.commit) == (log.last, log.commit)
                        && chain(&status) == chain(&log)
                })
        })
    }

    fn left(&self) -> String {
        let tasks = self.clients.oracle.tasks.iter().enumerate();
        let unended: Vec<_> = tasks
            .filter(|(_, task)| task.must_end() && !task.is_over())
            .map(|(number, task)| (number, task.id))
            .take(5)
            .collect();
        let running = self.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        let logs: Vec<_> = running
            .map(|(id, running)| {
                let status = running.cluster.status();
                let log = |it: &PartitionStatus| (it.leader, it.term, it.last, it.committed);
                (id, status.partitions.iter().map(log).collect::<Vec<_>>())
            })
            .collect();
        let waiting = self.clients.waiting();
        let is_long = |running: &&Running| running.log.is_long();
        let long =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).filter(is_long).count();
        format!(
            "{waiting}; {long} long logs; not ended: {unended:?}; nodes (leader, term, last, commit): \
             {logs:?}"
        )
    }
}

fn config(key_ttl_ms: u64, dead_max: usize) -> Config {
    let overrides = [
        "tasks.queue_primary=1000".to_owned(),
        "tasks.retry_base_ms=20".to_owned(),
        "tasks.retry_max_ms=200".to_owned(),
        format!("tasks.key_ttl_ms={key_ttl_ms}"),
        format!("tasks.dead_max={dead_max}"),
    ];
    Config::parse("", "sim", &overrides).expect("the tuning is right")
}
