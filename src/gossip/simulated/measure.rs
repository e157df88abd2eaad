//! How soon news is everywhere, what silence costs, and how soon a death is known.
//!
//! Where worlds are large many changes are measured in one, some of them at the same time: of different
//! nodes, each from a moment of its own in the same round, and the next ones when nothing is news any
//! more. Changes are pushed each by its own count and to peers that the round draws once, so they spread
//! as one alone does; the test of this file looks at that.

use super::{Network, World};
use crate::gossip::{Event, NodeId, Settings, Status};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// The longest that anything measured here may take.
const LIMIT_MS: u64 = 60_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// The part of the datagrams that is lost.
    pub loss: f64,
    /// Milliseconds that a datagram is under way at most.
    pub delay_ms: u64,
    /// All nodes begin their rounds at the same moments.
    pub in_step: bool,
}

/// How often something is measured.
#[derive(Clone, Debug)]
pub struct Times {
    /// A world for each seed.
    pub seeds: Range<u64>,
    /// How often in each world,
    pub each: usize,
    /// of which so many at the same time.
    pub together: usize,
}

impl Times {
    /// Once in a world of its own for each seed.
    pub fn once(seeds: Range<u64>) -> Self {
        Self { seeds, each: 1, together: 1 }
    }
}

/// How one change spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The part of the nodes that knew it after one round, two, and so on.
    pub after: [f64; 6],
    /// Rounds until all knew it.
    pub rounds: u64,
    /// Milliseconds until all knew it.
    pub time_ms: u64,
}

/// How many changes spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spreads {
    /// Rounds until all knew it, ascending.
    pub rounds: Vec<u64>,
    /// Milliseconds until all knew it, ascending.
    pub times_ms: Vec<u64>,
    /// The part of the nodes that knew it after one round, two, and so on; medians.
    pub after: [f64; 6],
    /// Bytes that a node sent in a round from the change until nothing was news any more, on average.
    pub busy_bytes: f64,
}

/// How many deaths were noticed; all ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detections {
    /// Milliseconds until the killed node was suspect somewhere.
    pub suspect_ms: Vec<u64>,
    /// Milliseconds until it was dead everywhere.
    pub dead_ms: Vec<u64>,
    /// How many nodes that ran were suspect somewhere.
    pub suspected_falsely: u64,
}

/// The value that this part of all does not exceed.
pub fn quantile(ascending: &[u64], part: f64) -> u64 {
    let rank = (part * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Does the same for many seeds, on all processors; in the order of the seeds.
pub fn in_parallel<T: Send>(seeds: Range<u64>, what: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, all) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let one = what(seed);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push((seed, one));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, one)| one).collect()
}

impl Plan {
    /// Spreads changes.
    pub fn spreads(&self, times: &Times) -> Spreads {
        let worlds = in_parallel(times.seeds.clone(), |seed| self.spread(seed, times));
        let (waves, bytes): (Vec<_>, Vec<_>) = worlds.into_iter().unzip();
        let all: Vec<_> = waves.into_iter().flatten().collect();
        let ascending = |figure: fn(&Spread) -> u64| {
            let mut figures: Vec<_> = all.iter().map(figure).collect();
            figures.sort_unstable();
            figures
        };
        let median = |round: usize| {
            let mut parts: Vec<_> = all.iter().map(|spread| spread.after[round]).collect();
            parts.sort_by(f64::total_cmp);
            parts.get(parts.len() / 2).copied().unwrap_or_default()
        };
        Spreads {
            rounds: ascending(|spread| spread.rounds),
            times_ms: ascending(|spread| spread.time_ms),
            after: std::array::from_fn(median),
            busy_bytes: bytes.iter().sum::<f64>() / bytes.len().max(1) as f64,
        }
    }

    /// Kills nodes.
    pub fn detections(&self, times: &Times) -> Detections {
        let mut all = Detections::default();
        for mut one in in_parallel(times.seeds.clone(), |seed| self.detection(seed, times)) {
            all.suspect_ms.append(&mut one.suspect_ms);
            all.dead_ms.append(&mut one.dead_ms);
            all.suspected_falsely += one.suspected_falsely;
        }
        all.suspect_ms.sort_unstable();
        all.dead_ms.sort_unstable();
        all
    }

    /// Nodes that know each other.
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::informed(self.nodes, Settings::default(), seed, self.in_step);
        let delay_ms = 1..=self.delay_ms.max(1);
        world.network = Network { loss: self.loss, delay_ms, ..Network::default() };
        world
    }

    /// Spreads changes among nodes that know each other, from a moment in their second round on; gives
    /// how each spread, and the bytes that a node sent in a round meanwhile.
    fn spread(&self, seed: u64, times: &Times) -> (Vec<Spread>, f64) {
        let mut world = self.world(seed);
        let interval_ms = interval_ms(&world);
        let (mut all, mut bytes, mut busy_ms) = (Vec::new(), 0, 0);
        while all.len() < times.each {
            // What the last changes left is gone by the end of another round.
            world.run(interval_ms);
            let count = times.together.clamp(1, times.each - all.len());
            let (begun_ms, before) = (world.now_ms(), world.bytes());
            all.extend(self.wave(&mut world, seed, count));
            while !world.running().all(|node| world.gossip(node).is_none_or(|of| of.is_quiet())) {
                world.step(&mut |_, _, _| ());
                let time_ms = world.now_ms() - begun_ms;
                assert!(time_ms < LIMIT_MS, "seed {seed}: it never gets quiet");
            }
            (bytes, busy_ms) =
                (bytes + world.bytes() - before, busy_ms + world.now_ms() - begun_ms);
            world.share();
        }
        let rounds = busy_ms as f64 / interval_ms as f64;
        (all, bytes as f64 / rounds / self.nodes as f64)
    }

    /// Spreads some changes that begin in the same round. A round counts from the change.
    ///
    /// # Panics
    /// When a change is not everywhere in a minute.
    fn wave(&self, world: &mut World, seed: u64, count: usize) -> Vec<Spread> {
        let interval_ms = interval_ms(world);
        let begun_ms = world.now_ms();
        let value = begun_ms.to_le_bytes();
        let mut starts: Vec<_> = (0..count)
            .map(|_| match self.in_step {
                // In step, the change comes just before the round that pushes it.
                true => (begun_ms + 1).next_multiple_of(interval_ms) - 1,
                false => begun_ms + world.rng.u64(..interval_ms),
            })
            .collect();
        starts.sort_unstable();
        let mut starts = starts.into_iter().peekable();
        let mut open: BTreeMap<NodeId, (u64, usize, Spread)> = BTreeMap::new();
        let mut done = Vec::new();
        while done.len() < count {
            let now_ms = world.now_ms();
            while starts.next_if(|start_ms| *start_ms <= now_ms).is_some() {
                let source = loop {
                    let node = world.rng.u64(1..=self.nodes as NodeId);
                    if !open.contains_key(&node) {
                        break node;
                    }
                };
                world.gossip_mut(source).expect("it runs").set(b"key", &value).expect("an entry");
                open.insert(source, (now_ms, 1, Spread::default()));
            }
            world.step(&mut |_, _, event| {
                if let Event::Set { node, .. } = event
                    && let Some((_, knowing, _)) = open.get_mut(&node)
                {
                    *knowing += 1;
                }
            });
            let now_ms = world.now_ms();
            for (begun_ms, knowing, spread) in open.values_mut() {
                let time_ms = now_ms - *begun_ms;
                assert!(time_ms < LIMIT_MS, "seed {seed}: {knowing} of {} know it", self.nodes);
                let round = time_ms.saturating_sub(1) / interval_ms;
                if let Some(after) = spread.after.get_mut(round as usize) {
                    *after = *knowing as f64 / self.nodes as f64;
                }
                (spread.rounds, spread.time_ms) = (round + 1, time_ms);
            }
            open.retain(|_, (_, knowing, spread)| {
                if *knowing < self.nodes {
                    return true;
                }
                let known = spread.rounds as usize;
                spread.after.iter_mut().skip(known.saturating_sub(1)).for_each(|of| *of = 1.0);
                done.push(*spread);
                false
            });
        }
        done
    }

    /// Bytes and datagrams that a node sends in a round in which nothing changes.
    pub fn quiet(&self, seed: u64, rounds: u64) -> (f64, f64) {
        let mut world = self.world(seed);
        let interval_ms = interval_ms(&world);
        world.run(interval_ms);
        let before = (world.bytes(), world.datagrams());
        world.run(rounds * interval_ms);
        let rounds = rounds as f64 * self.nodes as f64;
        ((world.bytes() - before.0) as f64 / rounds, (world.datagrams() - before.1) as f64 / rounds)
    }

    /// Kills nodes, some at moments of the same round and the next ones when these are dead at all
    /// others.
    ///
    /// # Panics
    /// When one is not dead everywhere in a minute.
    fn detection(&self, seed: u64, times: &Times) -> Detections {
        let mut world = self.world(seed);
        let interval_ms = interval_ms(&world);
        let mut detections = Detections::default();
        let mut victims: BTreeMap<NodeId, Death> = BTreeMap::new();
        let mut suspected_falsely = Vec::new();
        while victims.len() < times.each {
            world.run(2_000);
            for _ in 0..times.together.clamp(1, times.each - victims.len()) {
                let wait_ms = world.rng.u64(..=interval_ms / times.together.max(1) as u64);
                world.run(wait_ms);
                let running: Vec<_> = world.running().collect();
                let victim = running[world.rng.usize(..running.len())];
                world.kill(victim);
                victims.insert(victim, Death { killed_ms: world.now_ms(), ..Death::default() });
            }
            let others = world.running().count();
            while victims.values().any(|death| death.known < others && !death.is_over) {
                world.step(&mut |now_ms, _, event| {
                    let Event::Status { node, status } = event else { return };
                    match victims.get_mut(&node) {
                        Some(death) => death.note(status, now_ms),
                        None if status == Status::Suspect => suspected_falsely.push(node),
                        None => {}
                    }
                });
                let now_ms = world.now_ms();
                for death in victims.values_mut().filter(|death| !death.is_over) {
                    assert!(
                        now_ms < death.killed_ms + LIMIT_MS,
                        "seed {seed}: {death:?} of {others}"
                    );
                    if death.known >= others {
                        death.is_over = true;
                        detections.suspect_ms.push(death.suspect_ms);
                        detections.dead_ms.push(now_ms - death.killed_ms);
                    }
                }
            }
            world.share();
        }
        suspected_falsely.sort_unstable();
        suspected_falsely.dedup();
        detections.suspected_falsely = suspected_falsely.len() as u64;
        detections
    }

    /// Accusations and deaths of nodes that all run, in some time in which threads do not run for
    /// up to `pause`, again and again: each node, once a second.
    pub fn false_suspicions(&self, seed: u64, time: Duration, pause: Duration) -> (u64, u64) {
        let mut world = self.world(seed);
        for _ in 0..time.as_secs() {
            for node in 1..=self.nodes as NodeId {
                let paused_ms = world.rng.u64(..=pause.as_millis() as u64);
                world.pause(node, Duration::from_millis(paused_ms));
            }
            world.run(1_000);
            world.share();
        }
        let counters =
            world.running().filter_map(|node| world.gossip(node)).map(|of| *of.counters());
        counters.fold((0, 0), |(suspicions, deaths), of| {
            (suspicions + of.suspicions, deaths + of.deaths)
        })
    }
}

/// What is known of a killed node.
#[derive(Clone, Copy, Debug, Default)]
struct Death {
    killed_ms: u64,
    /// Milliseconds until it was suspect somewhere.
    suspect_ms: u64,
    /// Nodes at which it is dead.
    known: usize,
    is_over: bool,
}

impl Death {
    fn note(&mut self, status: Status, now_ms: u64) {
        self.known += usize::from(status == Status::Dead);
        if self.suspect_ms == 0 {
            self.suspect_ms = now_ms - self.killed_ms;
        }
    }
}

fn interval_ms(world: &World) -> u64 {
    world.settings.interval.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_begin_together_spread_as_one_alone() {
        let plan = Plan { nodes: 200, loss: 0.1, delay_ms: 3, in_step: false };
        let alone = plan.spreads(&Times { seeds: 0..2, each: 30, together: 1 });
        let together = plan.spreads(&Times { seeds: 2..4, each: 30, together: 10 });
        assert_eq!((alone.rounds.len(), together.rounds.len()), (60, 60));
        let mean_ms = |of: &Spreads| of.times_ms.iter().sum::<u64>() as f64 / 60.0;
        let ratio = mean_ms(&together) / mean_ms(&alone);
        println!("{} and {} ms", mean_ms(&alone), mean_ms(&together));
        assert!((0.9..1.1).contains(&ratio), "{ratio}: {alone:?}, {together:?}");
        assert_eq!(quantile(&alone.rounds, 0.5), quantile(&together.rounds, 0.5));
    }
}
