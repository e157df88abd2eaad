//! Random lives of a log: two shards that submit, end and move tasks, a disk that loses power in
//! the middle of writes, restarts. What was acknowledged must be there after each, and nothing
//! that ended may live again.

use super::*;
use crate::consensus::simulated::Tear;
use std::collections::{BTreeMap, BTreeSet};

/// What a shard knows: its living tasks with their places, and what it waits for.
#[derive(Default)]
struct Shard {
    living: BTreeMap<u128, Place>,
}

/// What the outside world was told, which must hold after any crash.
#[derive(Default)]
struct Told {
    submitted: BTreeSet<u128>,
    ended: BTreeSet<u128>,
    /// Told to the log; nobody knows whether it counts until the log has answered.
    unknown: BTreeSet<u128>,
}

struct World {
    disk: SimulatedDisk,
    log: Log,
    shards: [Shard; 2],
    told: Told,
    random: fastrand::Rng,
    next: u128,
}

fn submitted(number: u128, payload: &[u8]) -> Record<'_> {
    Record::Submitted {
        id: id(number),
        is_asked: false,
        agent_type: "echo",
        priority: Default::default(),
        submitted_unix_ms: 1,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: None,
        payload,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        let random = fastrand::Rng::with_seed(seed);
        let (shards, told) = (Default::default(), Told::default());
        Self { disk, log, shards, told, random, next: 0 }
    }

    /// A turn of both shards and a write; the power may go.
    fn turn(&mut self) -> Result<(), Fatal> {
        let mut blocks = Vec::new();
        for lane in 0..2 {
            let target = self.log.writer.move_before();
            let block = self.block(lane, target);
            blocks.push((lane, block));
        }
        for (lane, block) in self.log.write(blocks)? {
            self.hear(lane, &block);
        }
        match self.random.u8(..8) {
            0 => self.log.writer.seal()?,
            _ if self.log.writer.needs_announcement() => self.log.writer.announce()?,
            _ => {}
        }
        self.log.help();
        Ok(())
    }

    /// What a shard writes in a turn: new tasks, ends, and copies of what must move.
    fn block(&mut self, lane: usize, target: u64) -> Block {
        let payload = vec![7; self.random.usize(..3000)];
        let mut records = Vec::new();
        for _ in 0..self.random.usize(..4) {
            self.told.unknown.insert(self.next);
            records.push(submitted(self.next, &payload));
            self.next += 1;
        }
        let living: Vec<_> = self.shards[lane].living.iter().map(|(n, p)| (*n, *p)).collect();
        for (number, place) in living {
            let many_live = self.shards[lane].living.len() > 30;
            if self.random.u8(..if many_live { 4 } else { 20 }) == 0 {
                self.shards[lane].living.remove(&number);
                self.told.unknown.insert(number);
                records.push(ended(number, b"done"));
            } else if place.generation < target {
                records.push(submitted(number, &payload));
            }
        }
        let mut block = self.log.block(lane, &records);
        block.moved_before = target;
        block
    }

    /// A shard hears what is committed, and tells the world.
    fn hear(&mut self, lane: usize, block: &Block) {
        let mut at = 0;
        while at < block.bytes().len() {
            let (record, bytes) = Record::decode(&block.bytes()[at..]).expect("intact");
            let number = record.id().random;
            let offset = block.offset + (BLOCK_HEAD_BYTES + at) as u32;
            let place = Place { generation: block.generation, offset };
            self.told.unknown.remove(&number);
            match record {
                Record::Submitted { .. } => {
                    self.shards[lane].living.insert(number, place);
                    self.told.submitted.insert(number);
                }
                _ => {
                    self.told.ended.insert(number);
                }
            }
            at += bytes;
        }
    }

    /// Comes back with what is on the disk, and checks it against what was told.
    fn restart(&mut self, seed: u64) {
        // Whatever the log handed back before the power was lost was told to the world.
        for (lane, block) in std::mem::take(&mut self.log.written) {
            self.hear(lane, &block);
        }
        self.disk = self.disk.restarted();
        let (log, replayed) = Log::open(&self.disk);
        self.log = log;
        self.log.help();
        let mut living: [BTreeMap<u128, Place>; 2] = Default::default();
        let mut ended = BTreeSet::new();
        for entry in &replayed {
            let (record, _) = Record::decode(&entry.bytes).expect("intact");
            let number = record.id().random;
            let shard = &mut living[usize::from(entry.shard)];
            match record {
                Record::Submitted { .. } => {
                    assert!(!ended.contains(&number), "seed {seed}: task {number} lives again");
                    shard.insert(number, entry.place);
                }
                _ => {
                    shard.remove(&number);
                    ended.insert(number);
                }
            }
        }
        let alive: BTreeSet<u128> = living.iter().flat_map(|shard| shard.keys().copied()).collect();
        let expected = self.told.submitted.difference(&self.told.ended);
        let lost: Vec<_> =
            expected.filter(|n| !alive.contains(n) && !self.told.unknown.contains(n)).collect();
        assert!(lost.is_empty(), "seed {seed}: acknowledged tasks {lost:?} are lost");
        let risen: Vec<_> = alive.intersection(&self.told.ended).collect();
        assert!(risen.is_empty(), "seed {seed}: tasks {risen:?} had ended");
        for number in std::mem::take(&mut self.told.unknown) {
            if alive.contains(&number) {
                self.told.submitted.insert(number);
            } else {
                self.told.submitted.remove(&number);
                self.told.ended.insert(number);
            }
        }
        self.shards = living.map(|living| Shard { living });
    }
}

#[test]
fn no_acknowledged_task_is_lost_and_no_ended_one_lives_again_through_losses_of_power() {
    // A single seed replays with: COREFLOW_SEED=N cargo test no_acknowledged_task
    let seeds = match std::env::var("COREFLOW_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (0..60).collect::<Vec<u64>>(),
    };
    let mut cleaned = 0;
    for seed in &seeds {
        let seed = *seed;
        let mut world = World::new(seed);
        for _ in 0..8 {
            let turns = world.random.usize(1..60);
            for _ in 0..turns {
                world.turn().unwrap_or_else(|fatal| panic!("seed {seed}: {fatal}"));
            }
            let tear = match world.random.bool() {
                true => Tear::Prefix(world.random.usize(..20)),
                false => Tear::Scattered(world.random.u64(..)),
            };
            world.disk.tear_next_write(tear);
            while world.turn().is_ok() {}
            world.restart(seed);
        }
        assert!(world.told.ended.len() > 50, "seed {seed}: tasks ended");
        let end = read(&world.disk).0.end.expect("the log was used");
        cleaned += u64::from(end.first_generation > 1);
    }
    assert!(cleaned * 2 > seeds.len() as u64, "most lives see segments cleaned: {cleaned}");
}
