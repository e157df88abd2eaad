//! A world of any size in bad weather: datagrams are lost and late, values change, nodes are killed and
//! start again, and parts of the network are cut off for a while. Then all is mended and must agree.
//!
//! - A node that runs and can be reached is not taken for dead. When a part that was cut off has come back,
//!   others may still be told for a while that a node is dead which they could not reach; whoever says
//!   so of an incarnation that the node reached since then accused it anew, and is wrong.
//! - After a partition all that ran are alive to all again within a time that grows with their number.
//! - A node that is killed while the network is whole is dead everywhere before it starts again.
//! - When nothing fails any more, all agree: on who lives, and on every entry.

use crate::healing::Healing;
use coreflow::gossip::{
    Event, NodeId, Settings, Status,
    simulated::{World, measure::quantile},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Instant,
};

/// Milliseconds before anything fails.
const BEFORE_MS: u64 = 2_000;
/// Milliseconds after which a killed node starts again.
const DOWN_MS: u64 = 6_000;
/// Milliseconds after the network was whole again, or a node started, in which nothing that is said of
/// it is held against those that say it.
const SETTLED_MS: u64 = 6_000;
/// Milliseconds after a partition in which all that ran have to be alive to all again, and for each node on
/// top: all of them refute what was said of them, and what a node tells in a round has a bound.
const HEAL_MS: f64 = 2_000.0;
const HEAL_MS_PER_NODE: f64 = 1.5;
/// Milliseconds in which all have to agree when nothing fails any more.
const AGREE_MS: u64 = 120_000;
/// Milliseconds between two looks at what killed nodes are to others.
const LOOK_MS: u64 = 10;
/// Milliseconds between two times that the world's memory is put in order.
const SHARE_MS: u64 = 100;
/// Milliseconds of the world's time between two lines that say how far it is, where it takes long.
const SAY_MS: u64 = 2_000;
const SAY_NODES: usize = 1_000;
/// Rounds of which a quiet one is the average.
const QUIET_ROUNDS: u64 = 20;

/// What the weather is like.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub seed: u64,
    /// The part of the datagrams that is lost.
    pub loss: f64,
    /// Milliseconds that a datagram is under way at most.
    pub delay_ms: u64,
    /// Kills a second.
    pub churn: f64,
    /// Changed values a second.
    pub changes: f64,
    /// How often a part of the network is cut off.
    pub partitions: u64,
    /// The part of the nodes that is.
    pub share: f64,
    /// How long things fail.
    pub seconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    kills: u64,
    changes: u64,
    partitions: u64,
    /// Milliseconds until a killed node was suspect somewhere, and dead everywhere, ascending; of those that
    /// were killed while the network was whole.
    suspect_ms: Vec<u64>,
    dead_ms: Vec<u64>,
    /// Such that were not dead everywhere when they started again.
    missed: u64,
    /// Nodes that ran, could be reached, and were suspect or dead somewhere.
    suspected_falsely: u64,
    dead_falsely: u64,
    /// Of these, such that were accused after a partition, or after their start, while word of it was still
    /// under way.
    dead_while_healing: u64,
    /// Bytes that a node sends in a round: while things fail, and when all agree again.
    busy_bytes: f64,
    quiet_bytes: f64,
    /// What a node was told in all, on average: news, and what it knew already.
    news: f64,
    repeats: f64,
    /// Milliseconds from the end of a partition until those that ran all the time were alive to each
    /// other; ascending.
    healed_ms: Vec<u64>,
    /// The longest that this may take.
    heal_ms_max: u64,
    /// Milliseconds until all agreed, when nothing failed any more.
    agreed_ms: u64,
    history: u64,
}

impl Outcome {
    /// Whether anything happened that must not.
    pub fn is_bad(&self) -> bool {
        let is_healed = self.healed_ms.len() as u64 == self.partitions
            && self.healed_ms.iter().all(|ms| *ms <= self.heal_ms_max);
        self.dead_falsely > 0 || self.missed > 0 || !is_healed
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [suspect, dead] = [&self.suspect_ms, &self.dead_ms]
            .map(|of| [0.5, 0.99, 1.0].map(|part| quantile(of, part)));
        write!(
            to,
            "{} kills, {} changes, {} partitions, after which all were alive to all in {:?} ms (at most {}); {} killed nodes suspect after {suspect:?} ms and dead \
             everywhere after {dead:?} ms (p50, p99, most), {} not before they started again; suspect \
             though they ran: {}, dead though they ran: {} ({} while word of what was true was under way); {:.0} bytes a node a round meanwhile; all \
             agree {} ms after the end; then {:.0} bytes; a node was told {:.0} news and {:.0} repeats",
            self.kills,
            self.changes,
            self.partitions,
            self.healed_ms,
            self.heal_ms_max,
            self.dead_ms.len(),
            self.missed,
            self.suspected_falsely,
            self.dead_falsely,
            self.dead_while_healing,
            self.busy_bytes,
            self.agreed_ms,
            self.quiet_bytes,
            self.news,
            self.repeats,
        )
    }
}

/// What is known of a node that was killed while the network was whole.
#[derive(Clone, Copy, Debug)]
struct Death {
    killed_ms: u64,
    suspect_ms: Option<u64>,
    /// How often somebody said that it is dead.
    told: usize,
}

struct Storm<'a> {
    plan: &'a Plan,
    world: World,
    rng: fastrand::Rng,
    outcome: Outcome,
    /// When each node is to start again that was killed.
    down: BTreeMap<NodeId, u64>,
    /// When a node started again.
    started_ms: Vec<Option<u64>>,
    deaths: BTreeMap<NodeId, Death>,
    /// Which nodes are cut off.
    cut_off: Option<BTreeSet<NodeId>>,
    healing: Healing,
    /// Until then the network is not whole, or was not lately.
    unsettled_until_ms: u64,
    /// For each node the highest incarnation of which it could be true that it is gone: when it could not
    /// be reached last, or before it started.
    gone_until: Vec<u64>,
    /// When it began, and what goes on.
    begun: Instant,
    phase: &'static str,
    suspected_falsely: BTreeSet<(NodeId, u64)>,
    dead_falsely: BTreeSet<NodeId>,
    dead_while_healing: BTreeSet<NodeId>,
}

/// Lets it storm.
///
/// # Panics
/// When there is no agreement in the end.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::informed(plan.nodes, Settings::default(), plan.seed, false);
    world.network.delay_ms = 1..=plan.delay_ms.max(1);
    let mut storm = Storm {
        plan,
        world,
        rng: fastrand::Rng::with_seed(plan.seed ^ 0x5_7021),
        outcome: Outcome::default(),
        down: BTreeMap::new(),
        started_ms: vec![None; plan.nodes],
        deaths: BTreeMap::new(),
        cut_off: None,
        healing: Healing::default(),
        unsettled_until_ms: 0,
        gone_until: vec![0; plan.nodes],
        begun: Instant::now(),
        phase: "before the storm",
        suspected_falsely: BTreeSet::new(),
        dead_falsely: BTreeSet::new(),
        dead_while_healing: BTreeSet::new(),
    };
    storm.outcome.heal_ms_max = (HEAL_MS + HEAL_MS_PER_NODE * plan.nodes as f64) as u64;
    storm.go_on(BEFORE_MS);
    storm.rage();
    storm.mend();
    storm.outcome
}

impl Storm<'_> {
    /// Says how far it is, where that takes long.
    fn say(&self) {
        if self.plan.nodes >= SAY_NODES {
            eprintln!(
                "{} nodes, seed {}: {} after {:.1} s of theirs and {:.0} s of ours; {} run, {} partitions, \
                 {} kills, {} suspect and {} dead though they ran",
                self.plan.nodes,
                self.plan.seed,
                self.phase,
                self.world.now_ms() as f64 / 1_000.0,
                self.begun.elapsed().as_secs_f64(),
                self.world.running().count(),
                self.outcome.partitions,
                self.outcome.kills,
                self.suspected_falsely.len(),
                self.dead_falsely.len(),
            );
        }
    }

    fn rage(&mut self) {
        self.phase = "it storms";
        self.world.network.loss = self.plan.loss;
        let (begun_ms, bytes) = (self.world.now_ms(), self.world.bytes());
        let end_ms = begun_ms + 1_000 * self.plan.seconds;
        let slot_ms = 1_000 * self.plan.seconds / self.plan.partitions.max(1);
        while self.world.now_ms() < end_ms {
            let part_ms = (self.world.now_ms() - begun_ms) % slot_ms;
            // A quarter of its time whole, then parted, then whole for half of it.
            let is_parted = (slot_ms / 4..slot_ms / 2).contains(&part_ms);
            match (is_parted && self.plan.partitions > 0, self.cut_off.is_some()) {
                (true, false) => self.part(),
                (false, true) => self.join(),
                _ => {}
            }
            if self.happens(self.plan.churn) {
                self.kill();
            }
            if self.happens(self.plan.changes) {
                self.change();
            }
            self.go_on(1);
        }
        let rounds = self.plan.seconds as f64 * 10.0 * self.plan.nodes as f64;
        self.outcome.busy_bytes = (self.world.bytes() - bytes) as f64 / rounds;
    }

    /// Whether something happens in this millisecond that happens so often in a second.
    fn happens(&mut self, per_second: f64) -> bool {
        self.rng.f64() < per_second / 1_000.0
    }

    fn running(&mut self) -> NodeId {
        loop {
            let node = self.rng.u64(1..=self.plan.nodes as NodeId);
            if self.world.gossip(node).is_some() {
                return node;
            }
        }
    }

    fn change(&mut self) {
        let (node, value) = (self.running(), self.rng.u64(..).to_le_bytes());
        let gossip = self.world.gossip_mut(node).expect("it runs");
        self.outcome.changes += u64::from(gossip.set(b"key", &value).expect("an allowed entry"));
    }

    fn kill(&mut self) {
        // Most stay, so that there is somebody to agree.
        if 4 * self.down.len() > self.plan.nodes {
            return;
        }
        let (node, now_ms) = (self.running(), self.world.now_ms());
        self.world.kill(node);
        self.healing.drop(node);
        self.outcome.kills += 1;
        self.down.insert(node, now_ms + DOWN_MS);
        if self.cut_off.is_none() && now_ms >= self.unsettled_until_ms {
            self.deaths.insert(node, Death { killed_ms: now_ms, suspect_ms: None, told: 0 });
        }
    }

    fn start(&mut self, node: NodeId) {
        self.outcome.missed += u64::from(self.deaths.remove(&node).is_some());
        self.world.start(node);
        self.world.introduce(node);
        self.started_ms[node as usize - 1] = Some(self.world.now_ms());
        self.gone_until[node as usize - 1] = self.incarnation(node).map_or(0, |of| of - 1);
    }

    /// What a node that runs says of itself.
    fn incarnation(&self, node: NodeId) -> Option<u64> {
        Some(self.world.gossip(node)?.node(node)?.incarnation)
    }

    fn part(&mut self) {
        let (nodes, share) = (self.plan.nodes as NodeId, self.plan.share);
        let cut_off: BTreeSet<_> = (1..=nodes).filter(|_| self.rng.f64() < share).collect();
        self.world.part(|node| u8::from(cut_off.contains(&node)));
        self.cut_off = Some(cut_off);
        self.healing = Healing::begin(self.plan.nodes, self.world.running());
        self.outcome.partitions += 1;
        // Who of these is dead to whom is another question.
        self.deaths.clear();
    }

    fn join(&mut self) {
        self.world.mend();
        if self.cut_off.take().is_some() {
            self.healing.join(self.world.now_ms());
            for node in 1..=self.plan.nodes as NodeId {
                if let Some(incarnation) = self.incarnation(node) {
                    self.gone_until[node as usize - 1] = incarnation;
                }
            }
        }
        self.unsettled_until_ms = self.world.now_ms() + SETTLED_MS;
    }

    fn go_on(&mut self, time_ms: u64) {
        for _ in 0..time_ms {
            let mut said = Vec::new();
            self.world.step(&mut |_, at, event| match event {
                Event::Status { node, status } => said.push((at, node, status)),
                Event::Missed => panic!("events are fetched after every step"),
                _ => {}
            });
            for (at, node, status) in said {
                self.healing.hear(at, node, status);
                if matches!(status, Status::Suspect | Status::Dead) {
                    self.hear(at, node, status);
                }
            }
            let now_ms = self.world.now_ms();
            self.outcome.healed_ms.extend(self.healing.healed(now_ms));
            if now_ms.is_multiple_of(LOOK_MS) {
                self.look();
            }
            if now_ms.is_multiple_of(SHARE_MS) {
                self.world.share();
            }
            if now_ms.is_multiple_of(SAY_MS) {
                self.say();
            }
            let due = self.down.iter().filter(|(_, at_ms)| **at_ms <= now_ms);
            for node in due.map(|(node, _)| *node).collect::<Vec<_>>() {
                self.down.remove(&node);
                self.start(node);
            }
        }
    }

    fn hear(&mut self, at: NodeId, node: NodeId, status: Status) {
        let now_ms = self.world.now_ms();
        if let Some(death) = self.deaths.get_mut(&node) {
            death.suspect_ms.get_or_insert(now_ms - death.killed_ms);
            death.told += usize::from(status == Status::Dead);
            return;
        }
        let Some(incarnation) = self.incarnation(node) else { return };
        let is_held = self.is_held(at, node, now_ms);
        if is_held {
            self.suspected_falsely.insert((node, incarnation));
        }
        if status != Status::Dead {
            return;
        }
        let said = self.world.gossip(at).and_then(|of| of.node(node));
        let is_anew = self.cut_off.is_none()
            && said.is_some_and(|view| {
                view.status == status && view.incarnation > self.gone_until[node as usize - 1]
            });
        if is_held || is_anew {
            self.dead_falsely.insert(node);
        }
        if is_anew && !is_held {
            self.dead_while_healing.insert(node);
        }
    }

    /// Whether whatever a node says of one that runs is held against it: nothing failed lately of which
    /// word may still be under way.
    fn is_held(&self, at: NodeId, node: NodeId, now_ms: u64) -> bool {
        let is_settled = |node: NodeId| {
            self.started_ms[node as usize - 1].is_none_or(|ms| ms + SETTLED_MS <= now_ms)
        };
        let can_reach = match &self.cut_off {
            Some(of) => of.contains(&at) == of.contains(&node),
            // What was true on one side of a partition is told on the other for a while.
            None => now_ms >= self.unsettled_until_ms && !self.healing.is_under_way(),
        };
        can_reach && is_settled(at) && is_settled(node)
    }

    /// Notes which killed nodes are dead everywhere by now.
    fn look(&mut self) {
        let (now_ms, world) = (self.world.now_ms(), &self.world);
        let running = world.running().count();
        let started_ms = &self.started_ms;
        let outcome = &mut self.outcome;
        self.deaths.retain(|node, death| {
            if death.told * 10 < running * 9 {
                return true;
            }
            let knows = |at: &NodeId| {
                let view = world.gossip(*at).and_then(|gossip| gossip.node(*node));
                // Whoever started since then has to find out first.
                started_ms[*at as usize - 1].is_some_and(|ms| ms > death.killed_ms)
                    || view.is_some_and(|view| !view.status.is_present())
            };
            let is_known = world.running().all(|at| knows(&at));
            if is_known {
                outcome.suspect_ms.extend(death.suspect_ms);
                outcome.dead_ms.push(now_ms - death.killed_ms);
            }
            !is_known
        });
    }

    fn mend(&mut self) {
        self.phase = "all is mended";
        self.join();
        self.world.network.loss = 0.0;
        let begun_ms = self.world.now_ms();
        // Whoever is still down starts now.
        self.down.values_mut().for_each(|at_ms| *at_ms = begun_ms);
        self.deaths.clear();
        self.go_on(100);
        while let Some(why) = self.world.disagreement() {
            let time_ms = self.world.now_ms() - begun_ms;
            assert!(time_ms < AGREE_MS, "no agreement after {AGREE_MS} ms: {why}");
            self.go_on(100);
        }
        self.outcome.agreed_ms = self.world.now_ms() - begun_ms;
        let is_quiet = |world: &World| {
            world.running().all(|node| world.gossip(node).is_none_or(|of| of.is_quiet()))
        };
        let quiet = self.world.run_until(AGREE_MS, &mut |_, _, _| (), is_quiet);
        assert!(quiet, "it never gets quiet");
        let bytes = self.world.bytes();
        self.go_on(QUIET_ROUNDS * Settings::default().interval.as_millis() as u64);
        let rounds = (QUIET_ROUNDS * self.plan.nodes as u64) as f64;
        let counters = self.world.running().filter_map(|node| self.world.gossip(node));
        let (news, repeats) = counters.fold((0, 0), |(news, repeats), gossip| {
            let counters = gossip.counters();
            (news + counters.claims + counters.deltas, repeats + counters.repeats)
        });
        let outcome = &mut self.outcome;
        outcome.news = news as f64 / self.plan.nodes as f64;
        outcome.repeats = repeats as f64 / self.plan.nodes as f64;
        outcome.quiet_bytes = (self.world.bytes() - bytes) as f64 / rounds;
        outcome.suspected_falsely = self.suspected_falsely.len() as u64;
        outcome.dead_falsely = self.dead_falsely.len() as u64;
        outcome.dead_while_healing = self.dead_while_healing.len() as u64;
        outcome.healed_ms.sort_unstable();
        outcome.suspect_ms.sort_unstable();
        outcome.dead_ms.sort_unstable();
        outcome.history = self.world.history;
    }
}
