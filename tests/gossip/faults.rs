//! One world under faults that a seed chooses, and what has to hold whatever they are.
//!
//! - A map is shown with all the keys that its owner set before it spoke, or not at all.
//! - What events tell is what is there.
//! - Where nodes only stand still for moments and few datagrams are lost, nobody is taken for dead.
//! - Where nobody lies, no node finds false entries and has to begin its map again.
//! - A node that is gone is not taken for alive for long, whatever comes again.
//! - When the faults have been mended, all agree: on who lives, and on every entry.

use coreflow::gossip::{
    Event, NodeId, Settings, Status,
    simulated::{World, address_of},
};
use std::{collections::BTreeSet, time::Duration};

/// How long a life may be held that nobody confirms; rounds may be late.
const HELD_MAX: Duration = Duration::from_secs(4);
/// Milliseconds in which things fail.
const FAULTS_MS: u64 = 15_000;
/// Milliseconds in which all have to agree when nothing fails any more.
const AGREE_MS: u64 = 30_000;
/// Milliseconds after which a node that is gone may be alive to nobody it can reach.
const DEAD_MS: u64 = 4_000;
/// Milliseconds between two times that a dead node's last words come again.
const ECHO_MS: u64 = 200;

/// What happened in a seed, or in many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    steps: u64,
    changes: u64,
    kills: u64,
    pauses: u64,
    partitions: u64,
    forgeries: u64,
    deaths: u64,
    refutations: u64,
    rebirths: u64,
    resets: u64,
    gaps: u64,
    /// The longest that agreement took after everything was mended, in milliseconds.
    agreed_after_ms_max: u64,
    history: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.changes += other.changes;
        self.kills += other.kills;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.forgeries += other.forgeries;
        self.deaths += other.deaths;
        self.refutations += other.refutations;
        self.rebirths += other.rebirths;
        self.resets += other.resets;
        self.gaps += other.gaps;
        self.agreed_after_ms_max = self.agreed_after_ms_max.max(other.agreed_after_ms_max);
        self.history ^= other.history;
    }
}

/// What a seed's world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Moments of standing still, a tenth lost: nobody may die.
    Calm,
    /// Everything but lies.
    Rough,
    /// Kills, and what a dead node sent comes again and again.
    Echoes,
    /// Everything, and lies beside it.
    Lies,
}

struct Faults {
    world: World,
    rng: fastrand::Rng,
    weather: Weather,
    summary: Summary,
    /// What events told: at which host, of which node, which key.
    told: BTreeSet<(NodeId, NodeId, Vec<u8>)>,
    /// When a host's process ended.
    gone_ms: Vec<Option<u64>>,
    /// When it last started.
    started_ms: Vec<u64>,
    nodes: NodeId,
    prints: bool,
}

/// Runs a seed.
pub fn run(seed: u64, nodes: Option<usize>, prints: bool) -> Summary {
    let mut rng = fastrand::Rng::with_seed(seed);
    let nodes = nodes.unwrap_or_else(|| rng.usize(3..=16));
    let settings = Settings {
        tombstone: Duration::from_millis(rng.u64(300..5_000)),
        datagram: if rng.bool() { 1_280 } else { 1_400 },
        reconcile: Duration::from_millis(rng.u64(1_000..10_000)),
        ..Settings::default()
    };
    let weathers = [Weather::Calm, Weather::Rough, Weather::Rough, Weather::Echoes, Weather::Lies];
    let weather = weathers[rng.usize(..weathers.len())];
    let mut world = World::strangers(nodes, settings, rng.u64(..));
    if weather == Weather::Echoes {
        world.record();
    }
    let mut faults = Faults {
        world,
        weather,
        summary: Summary::default(),
        told: BTreeSet::new(),
        gone_ms: vec![None; nodes],
        started_ms: vec![0; nodes],
        nodes: nodes as NodeId,
        prints,
        rng,
    };
    faults.say(|| format!("{nodes} nodes, {weather:?}"));
    for node in 1..=nodes as NodeId {
        faults.first_keys(node);
    }
    faults.fail();
    faults.mend();
    faults.summary
}

/// A key that every node has before it speaks, and never deletes.
fn first_key(number: u8) -> [u8; 3] {
    [b'f', b'k', number]
}
/// How many of them.
const FIRST_KEYS: u8 = 24;

impl Faults {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.prints {
            println!("{:>8} ms  {}", self.world.now_ms(), what());
        }
    }

    fn first_keys(&mut self, node: NodeId) {
        let bytes = if self.rng.u8(..4) == 0 { 900 } else { 60 };
        let gossip = self.world.gossip_mut(node).expect("it runs");
        for number in 0..FIRST_KEYS {
            let value = vec![node as u8; bytes];
            gossip.set(&first_key(number), &value).expect("an allowed entry");
        }
    }

    fn fail(&mut self) {
        self.world.network.delay_ms = 1..=self.rng.u64(1..60);
        if self.weather != Weather::Calm {
            self.world.network.repeated = 0.05;
            self.world.network.repeated_ms = 4_000;
        }
        while self.world.now_ms() < FAULTS_MS {
            self.fault();
            let time_ms = self.rng.u64(1..120);
            self.go_on(time_ms);
        }
    }

    fn fault(&mut self) {
        let node = self.rng.u64(1..=self.nodes);
        let is_running = self.world.gossip(node).is_some();
        match (self.rng.u8(..24), self.weather) {
            (0..=11, _) if is_running => self.change(node),
            (12..=13, Weather::Calm | Weather::Echoes) => self.pause(node, 250),
            (12, _) => self.pause(node, 5_000),
            (13, _) => self.world.network.loss = [0.0, 0.1, 0.4][self.rng.usize(..3)],
            (14, Weather::Calm | Weather::Echoes) => {
                self.world.network.loss = [0.0, 0.05, 0.1][self.rng.usize(..3)]
            }
            (15, Weather::Rough | Weather::Echoes | Weather::Lies) if is_running => self.kill(node),
            (16..=17, Weather::Rough | Weather::Lies) | (16, Weather::Echoes) if !is_running => {
                self.start(node);
            }
            (18, Weather::Rough | Weather::Lies) => self.part(),
            (19, Weather::Rough | Weather::Lies) => {
                let other = self.rng.u64(1..=self.nodes);
                self.say(|| format!("nothing from {node} reaches {other}"));
                self.world.cut(node, other);
            }
            (20, Weather::Rough | Weather::Lies) => {
                self.say(|| "all ways are mended".to_owned());
                self.world.mend();
            }
            (21, _) => {
                let mut ahead = Duration::from_millis(self.rng.u64(..10_000));
                // Each jump ahead looks like a long time between answers: with many a death is noticed late.
                if self.weather == Weather::Echoes {
                    ahead = ahead.max(self.world.ahead(node));
                }
                self.say(|| format!("the clock of {node} jumps to {ahead:?}"));
                self.world.turn_clock(node, ahead);
            }
            (22.., Weather::Lies) => self.forge(node),
            _ => {}
        }
    }

    fn change(&mut self, node: NodeId) {
        let (key, value) = ([self.rng.u8(..12)], self.rng.u64(..).to_le_bytes());
        let deletes = self.rng.u8(..3) == 0;
        let gossip = self.world.gossip_mut(node).expect("it runs");
        let changed = match deletes {
            true => gossip.remove(&key),
            false => gossip.set(&key, &value).expect("an allowed entry"),
        };
        self.summary.changes += u64::from(changed);
        self.say(|| format!("{node} changes {key:?}, deletes: {deletes}"));
    }

    fn pause(&mut self, node: NodeId, time_ms_max: u64) {
        let time = Duration::from_millis(self.rng.u64(10..=time_ms_max));
        self.say(|| format!("{node} stands still for {time:?}"));
        self.world.pause(node, time);
        self.summary.pauses += 1;
    }

    fn kill(&mut self, node: NodeId) {
        self.say(|| format!("{node} is killed"));
        match self.rng.u8(..4) {
            0 => self.world.leave(node),
            _ => self.world.kill(node),
        }
        self.gone_ms[node as usize - 1] = Some(self.world.now_ms());
        self.told.retain(|(at, _, _)| *at != node);
        self.summary.kills += 1;
    }

    fn start(&mut self, node: NodeId) {
        self.say(|| format!("{node} starts"));
        self.world.start(node);
        self.gone_ms[node as usize - 1] = None;
        self.started_ms[node as usize - 1] = self.world.now_ms();
        let nodes = self.nodes;
        let gossip = self.world.gossip_mut(node).expect("it runs");
        (1..=nodes).for_each(|other| gossip.learn(other, address_of(other)));
        self.first_keys(node);
    }

    fn part(&mut self) {
        let border = self.rng.u64(1..=self.nodes);
        self.say(|| format!("up to {border} and above are parted"));
        self.world.part(|node| u8::from(node > border));
        self.summary.partitions += 1;
    }

    /// Sends what a node that lies would: bytes of a real datagram, changed, or a claim of another.
    fn forge(&mut self, liar: NodeId) {
        let (to, victim) = (self.rng.u64(1..=self.nodes), self.rng.u64(1..=self.nodes));
        self.summary.forgeries += 1;
        self.say(|| format!("{liar} lies to {to} of {victim}"));
        let kind = self.rng.u8(..12);
        self.world.lie(liar, to, victim, kind);
    }

    /// Lets time go on, and looks at everything now and then.
    fn go_on(&mut self, time_ms: u64) {
        for _ in 0..time_ms {
            let (told, rng_ms) = (&mut self.told, self.world.now_ms());
            let mut seen = Vec::new();
            self.world.step(&mut |_, at, event| seen.push((at, event)));
            for (at, event) in seen {
                match event {
                    Event::Set { node, key } => drop(told.insert((at, node, key.to_vec()))),
                    Event::Removed { node, key } => {
                        let had = told.remove(&(at, node, key.to_vec()));
                        assert!(had, "{at} tells that {node} removed {key:?}, which it never told");
                    }
                    Event::Reset { node } => told.retain(|(a, of, _)| (*a, *of) != (at, node)),
                    Event::Status { node, status } => {
                        if self.prints && status != Status::Alive {
                            println!("{rng_ms:>8} ms    {node} is {status:?} to {at}");
                        }
                        let may_die = self.weather != Weather::Calm;
                        assert!(may_die || status != Status::Dead, "{node} is dead to {at}");
                    }
                    Event::BeganAgain { node, ago } => {
                        assert_ne!(at, node, "a node knows when it began");
                        assert!(
                            ago <= HELD_MAX,
                            "{at} tells late that {node} began again: {ago:?}"
                        );
                    }
                    Event::Missed => panic!("events are fetched after every step"),
                }
            }
            self.summary.steps += 1;
            if self.weather == Weather::Echoes && self.world.now_ms().is_multiple_of(ECHO_MS) {
                self.echo();
            }
            if self.world.now_ms().is_multiple_of(50) {
                self.look();
            }
        }
    }

    /// What the dead sent comes again.
    fn echo(&mut self) {
        for node in 1..=self.nodes {
            if self.gone_ms[node as usize - 1].is_some() {
                self.world.replay(node);
            }
        }
    }

    fn look(&self) {
        let now_ms = self.world.now_ms();
        assert!(self.world.bytes_max() <= 1_400, "a datagram of {} bytes", self.world.bytes_max());
        for at in self.world.running() {
            let gossip = self.world.gossip(at).expect("it runs");
            for view in gossip.nodes().filter(|view| view.entries > 0) {
                let has = |number| gossip.value(view.node, &first_key(number)).is_some();
                let is_whole = (0..FIRST_KEYS).all(has);
                // A liar's entries are shown until the node that they are of has refuted them.
                let is_forged = self.weather == Weather::Lies;
                assert!(is_whole || is_forged, "{at} shows a part of the map of {}", view.node);
            }
            for (node, gone_ms) in (1..).zip(&self.gone_ms) {
                let alive = gossip.node(node).is_some_and(|view| view.status == Status::Alive);
                // Whoever starts has to find out first.
                let begun_ms = gone_ms.map(|ms| ms.max(self.started_ms[at as usize - 1]));
                let late = begun_ms.is_some_and(|begun_ms| begun_ms + DEAD_MS < now_ms);
                let must_know = self.weather == Weather::Echoes;
                assert!(!(alive && late && must_know), "{node} is gone and alive to {at}");
            }
        }
    }

    fn mend(&mut self) {
        self.say(|| "nothing fails any more".to_owned());
        self.world.mend();
        self.world.network.loss = 0.0;
        self.world.network.repeated = 0.0;
        for node in 1..=self.nodes {
            self.world.pause(node, Duration::ZERO);
        }
        let begun_ms = self.world.now_ms();
        while let Some(why) = self.world.disagreement() {
            let time_ms = self.world.now_ms() - begun_ms;
            assert!(time_ms < AGREE_MS, "no agreement after {AGREE_MS} ms: {why}");
            self.go_on(100);
        }
        let summary = &mut self.summary;
        summary.agreed_after_ms_max = self.world.now_ms() - begun_ms;
        summary.history = self.world.history;
        for at in self.world.running() {
            let gossip = self.world.gossip(at).expect("it runs");
            let counters = gossip.counters();
            summary.deaths += counters.deaths;
            summary.refutations += counters.refutations;
            summary.rebirths += counters.rebirths;
            let may_begin_again = self.weather == Weather::Lies || counters.rebirths == 0;
            assert!(may_begin_again, "others had false entries of {at}");
            summary.resets += counters.resets;
            summary.gaps += counters.refused(coreflow::gossip::Refused::Gap);
            let there: BTreeSet<_> = gossip
                .nodes()
                .filter(|view| view.node != at)
                .flat_map(|view| {
                    let node = view.node;
                    gossip.entries(node).map(move |(key, _)| (at, node, key.to_vec()))
                })
                .collect();
            let told: BTreeSet<_> =
                self.told.iter().filter(|(of, ..)| *of == at).cloned().collect();
            assert!(there == told, "what {at} told is not what it has");
        }
    }
}
