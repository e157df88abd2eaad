//! How soon news is everywhere, what silence costs, and how soon a death is known.

use super::{Network, World};
use crate::gossip::{Event, NodeId, Settings, Status};
use std::{
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
    /// All nodes begin their rounds at the same moments.
    pub in_step: bool,
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
    /// Bytes that a node sent until nothing was news any more.
    pub bytes_a_node: f64,
}

/// How many changes spread, each in a world of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spreads {
    /// Rounds until all knew it, ascending.
    pub rounds: Vec<u64>,
    /// Milliseconds until all knew it, ascending.
    pub times_ms: Vec<u64>,
    /// The part of the nodes that knew it after one round, two, and so on; medians.
    pub after: [f64; 6],
    /// Bytes that a node sent until nothing was news any more, on average.
    pub bytes_a_node: f64,
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
    /// Spreads a change for each seed.
    pub fn spreads(&self, seeds: Range<u64>) -> Spreads {
        let all = in_parallel(seeds, |seed| self.spread(seed));
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
        let bytes = all.iter().map(|spread| spread.bytes_a_node).sum::<f64>();
        Spreads {
            rounds: ascending(|spread| spread.rounds),
            times_ms: ascending(|spread| spread.time_ms),
            after: std::array::from_fn(median),
            bytes_a_node: bytes / all.len().max(1) as f64,
        }
    }

    /// Kills a node for each seed; milliseconds until it was suspect somewhere, and those until it was
    /// dead everywhere, each ascending.
    pub fn detections(&self, seeds: Range<u64>) -> (Vec<u64>, Vec<u64>) {
        let all = in_parallel(seeds, |seed| self.detection(seed));
        let (mut suspect_ms, mut dead_ms): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        suspect_ms.sort_unstable();
        dead_ms.sort_unstable();
        (suspect_ms, dead_ms)
    }

    /// Nodes that know each other.
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::informed(self.nodes, Settings::default(), seed, self.in_step);
        world.network = Network { loss: self.loss, ..Network::default() };
        world
    }

    /// Spreads one change among nodes that know each other, from a moment in their second round on.
    /// A round counts from the change.
    ///
    /// # Panics
    /// When the change is not everywhere in a minute.
    pub fn spread(&self, seed: u64) -> Spread {
        let mut world = self.world(seed);
        let interval_ms = world.settings.interval.as_millis() as u64;
        // In step, the change comes just before the round that pushes it.
        let wait_ms = match self.in_step {
            true => 2 * interval_ms - 1,
            false => interval_ms + world.rng.u64(..interval_ms),
        };
        world.run(wait_ms);
        let source = world.rng.u64(1..=self.nodes as NodeId);
        world.gossip_mut(source).expect("it runs").set(b"key", b"value").expect("an entry");
        let (begun_ms, bytes) = (world.now_ms(), world.bytes);
        let (mut knowing, mut spread) = (1, Spread::default());
        while knowing < self.nodes {
            world.step(&mut |_, _, event| {
                knowing += usize::from(matches!(event, Event::Set { .. }));
            });
            let time_ms = world.now_ms() - begun_ms;
            assert!(time_ms < LIMIT_MS, "seed {seed}: {knowing} of {} know it", self.nodes);
            let round = time_ms.saturating_sub(1) / interval_ms;
            if let Some(after) = spread.after.get_mut(round as usize) {
                *after = knowing as f64 / self.nodes as f64;
            }
            (spread.rounds, spread.time_ms) = (round + 1, time_ms);
        }
        let known = spread.rounds as usize;
        spread.after.iter_mut().skip(known.saturating_sub(1)).for_each(|after| *after = 1.0);
        while !world.running().all(|node| world.gossip(node).is_none_or(|of| of.is_quiet())) {
            world.step(&mut |_, _, _| ());
            assert!(world.now_ms() < begun_ms + LIMIT_MS, "seed {seed}: it never gets quiet");
        }
        spread.bytes_a_node = (world.bytes - bytes) as f64 / self.nodes as f64;
        spread
    }

    /// Bytes and datagrams that a node sends in a round in which nothing changes.
    pub fn quiet(&self, seed: u64, rounds: u64) -> (f64, f64) {
        let mut world = self.world(seed);
        let interval_ms = world.settings.interval.as_millis() as u64;
        world.run(interval_ms);
        let before = (world.bytes, world.datagrams);
        world.run(rounds * interval_ms);
        let rounds = rounds as f64 * self.nodes as f64;
        ((world.bytes - before.0) as f64 / rounds, (world.datagrams - before.1) as f64 / rounds)
    }

    /// Milliseconds until a killed node is suspect somewhere, and dead at every other.
    ///
    /// # Panics
    /// When it is not dead everywhere in a minute.
    pub fn detection(&self, seed: u64) -> (u64, u64) {
        let mut world = self.world(seed);
        world.run(2_000 + seed % 100);
        let victim = world.rng.u64(1..=self.nodes as NodeId);
        world.kill(victim);
        let (begun_ms, mut dead, mut suspected_ms) = (world.now_ms(), 0, 0);
        while dead < self.nodes - 1 {
            world.step(&mut |now_ms, _, event| match event {
                Event::Status { node, status: Status::Dead } if node == victim => dead += 1,
                Event::Status { node, .. } if node == victim && suspected_ms == 0 => {
                    suspected_ms = now_ms - begun_ms;
                }
                _ => {}
            });
            let time_ms = world.now_ms() - begun_ms;
            assert!(time_ms < LIMIT_MS, "seed {seed}: dead at {dead} of {}", self.nodes);
        }
        (suspected_ms, world.now_ms() - begun_ms)
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
        }
        let counters =
            world.running().filter_map(|node| world.gossip(node)).map(|of| *of.counters());
        counters.fold((0, 0), |(suspicions, deaths), of| {
            (suspicions + of.suspicions, deaths + of.deaths)
        })
    }
}
