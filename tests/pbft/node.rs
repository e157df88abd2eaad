//! A replica in the simulator: the real driver of all partitions, its disk, and what its shards ask for.

use crate::{
    disk::{Disk, Record},
    operation::Operation,
    seals,
};
use bytes::Bytes;
use coreflow::consensus::{
    engine::{Event, Fetch},
    pbft::{
        Answer, Batch, Company, Driver, Identity, Keys, Letter, Members, Message, Noted, Outputs,
        Restore, Ring, Settings, Terms, Write, keys::Digest, notes::Note,
    },
    place::Place,
};
use std::collections::{BTreeMap, VecDeque};

/// The cluster that all keys are of.
const CLUSTER: u128 = 0xC0FF_EE00_0000_0001;
/// Bytes of batches beside those for which there is room that a start keeps.
const RESTORED_BYTES: usize = 64 << 10;
/// Rounds of a driver in one turn at most.
const ROUNDS_MAX: usize = 100;

/// How replicas and clients of a run sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As those of a cluster.
    Ed25519,
    /// In less time.
    Seals,
}

/// What all replicas and clients of a run share.
pub struct Group {
    /// The replicas.
    pub nodes: Vec<u64>,
    /// The partitions.
    pub partitions: u16,
    /// What replicas are set to.
    pub settings: Settings,
    identities: BTreeMap<u64, Identity>,
    ring: Ring,
}

impl Group {
    /// Replicas and clients with keys of their own, of ed25519 or of seals.
    pub fn new(
        nodes: Vec<u64>,
        clients: &[u64],
        partitions: u16,
        settings: Settings,
        scheme: Scheme,
    ) -> Self {
        let secret = |who: u64| {
            let mut secret = [0x5A; 32];
            secret[..8].copy_from_slice(&who.to_le_bytes());
            (who, secret)
        };
        let all = nodes.iter().chain(clients).copied();
        let secrets: BTreeMap<_, _> = all.map(secret).collect();
        let identity = |secret| match scheme {
            Scheme::Ed25519 => Identity::from_secret(&secret),
            Scheme::Seals => seals::identity(secret),
        };
        let identities: BTreeMap<_, _> =
            secrets.iter().map(|(who, secret)| (*who, identity(*secret))).collect();
        let keys = identities.iter().map(|(who, identity)| (*who, identity.public()));
        let ring = match scheme {
            Scheme::Ed25519 => Ring::new(keys).expect("they are good keys"),
            Scheme::Seals => seals::ring(secrets),
        };
        Self { nodes, partitions, settings, identities, ring }
    }

    /// How many replicas may lie.
    pub fn faulty(&self) -> usize {
        (self.nodes.len() - 1) / 3
    }

    /// Somebody's keys in a partition.
    pub fn keys(&self, who: u64, partition: u16) -> Keys {
        self.company(who).keys(partition)
    }

    fn company(&self, me: u64) -> Company {
        Company {
            node: me,
            identity: self.identities[&me].clone(),
            ring: self.ring.clone(),
            cluster: CLUSTER,
            generation: 1,
            nodes: self.nodes.clone(),
            terms: Terms { key_ttl_ms: 60_000, payload_bytes_max: 1 << 20 },
        }
    }

    /// The members of a partition.
    pub fn members(&self, partition: u16) -> Members {
        Members::new(partition, &self.nodes).expect("they are 3f + 1")
    }

    /// The driver of a node that was never there before.
    pub fn fresh(&self, me: u64) -> Driver {
        self.driver(me, &Disk::default()).0
    }

    fn driver(&self, me: u64, disk: &Disk<Write>) -> (Driver, Vec<Kept>) {
        let Settings { checkpoint_every: every, accepted_bytes, .. } = self.settings;
        // As much as a replica keeps of what is not committed, and what comes next.
        let bytes_max = 2 * accepted_bytes + RESTORED_BYTES;
        let groups = (0..self.partitions)
            .map(|partition| Restore::new(partition, every).with_bytes(bytes_max));
        let mut groups: Vec<_> = groups.collect();
        let mut replays: Vec<_> = groups.iter().map(|_| Replay::default()).collect();
        for record in disk.records() {
            let partition = usize::from(record.partition);
            let (group, replay) = (&mut groups[partition], &mut replays[partition]);
            match &record.write {
                Write::Entry { index, heads, data, .. } => {
                    group
                        .entry(*index, heads.clone(), data.clone(), record.place)
                        .expect("a replica wrote it");
                    replay.last.insert(*index, data.clone());
                }
                Write::Note(note) => replay.take(group.note(note).expect("a replica wrote it")),
            }
        }
        assert!(groups.iter().all(|group| group.kept_bytes() <= bytes_max));
        let driver = Driver::new(self.settings, &self.company(me), groups);
        let driver = driver.unwrap_or_else(|error| {
            disk.records().for_each(|record| println!("  {}", describe(record)));
            panic!("what {me} wrote cannot be read back: {error}");
        });
        (driver, replays.into_iter().map(Replay::entries).collect())
    }
}

/// What a disk says, as whoever hands it on at a start understands it.
#[derive(Default)]
struct Replay {
    /// What was written last at each index.
    last: BTreeMap<u64, Bytes>,
    begins_behind: u64,
    committed: u64,
}

impl Replay {
    fn take(&mut self, noted: Noted) {
        match noted {
            Noted::Nothing => {}
            Noted::Committed(index) => self.committed = index,
            Noted::Compacted(index) => {
                // What was forgotten of a log that is being replaced may be written behind the new one's point.
                self.begins_behind = self.begins_behind.max(index);
                self.committed = self.committed.max(index);
            }
            Noted::Installed(index) => (self.begins_behind, self.committed) = (index, index),
        }
    }

    /// What is committed, in order, and behind which index it begins.
    fn entries(mut self) -> (u64, Vec<Bytes>) {
        let indexes = self.begins_behind + 1..=self.committed;
        let entry = |index| self.last.remove(&index).expect("what is committed is there");
        (self.begins_behind, indexes.map(entry).collect())
    }
}

/// What a partition's log has held since before a start: behind which entry, and what.
pub type Kept = (u64, Vec<Bytes>);

/// Something that a turn leads to.
pub enum Effect {
    /// A message leaves.
    Send(u16, u64, Message),
    /// Something was told.
    Told(u16, Event),
    /// A request of this node is finished.
    Answered(u16, Answer),
    /// Something is written: the batch, and the end of the disk.
    Written(u64, u64),
}

/// What a node's shard of a partition is doing.
#[derive(Debug, Default)]
pub struct Shard {
    /// The term that it leads in.
    pub leads: Option<u64>,
    /// Requests that were not answered.
    pub requests: BTreeMap<u64, Operation>,
    /// Reads that were not answered, and what was finished when they were asked for.
    pub reads: BTreeMap<u64, u64>,
    /// Up to where it was told.
    pub told: u64,
}

impl Shard {
    /// Whether it waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.reads.is_empty()
    }
}

/// A replica.
pub struct Node {
    /// Its number.
    pub id: u64,
    /// It, while its process runs.
    pub driver: Option<Driver>,
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Until when its disk takes long, microseconds.
    pub slow_until_us: u64,
    /// For how long it is to hear nobody once it leads and has nothing under way, microseconds.
    pub stranded_us: u64,
    /// Until when its shards ask for nothing but reads, microseconds.
    pub quiet_until_us: u64,
    /// Whether its process ends when it comes to lead.
    pub stumbles: bool,
    /// How often its process was begun.
    pub run: u32,
    /// When the last write is on the disk, microseconds.
    pub synced_us: u64,
    /// When it is to have its next turn, microseconds.
    pub wake_us: u64,
    /// What is freed when a batch is on the disk.
    frees: VecDeque<(u64, u64)>,
    disk: Disk<Write>,
    /// What is being read.
    fetches: Vec<Fetch>,
    outputs: Outputs,
}

impl Node {
    /// A node whose process does not run.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            driver: None,
            shards: Vec::new(),
            slow_until_us: 0,
            stranded_us: 0,
            quiet_until_us: 0,
            stumbles: false,
            run: 0,
            synced_us: 0,
            wake_us: 0,
            frees: VecDeque::new(),
            disk: Disk::default(),
            fetches: Vec::new(),
            outputs: Outputs::default(),
        }
    }

    /// Its process begins; what it has kept of each partition.
    pub fn start(&mut self, group: &Group) -> Vec<Kept> {
        let (driver, kept) = group.driver(self.id, &self.disk);
        self.driver = Some(driver);
        let told = |(behind, entries): &Kept| behind + entries.len() as u64;
        let shard = |kept| Shard { told: told(kept), ..Shard::default() };
        self.shards = kept.iter().map(shard).collect();
        self.run += 1;
        self.wake_us = 0;
        self.fetches.clear();
        self.frees.clear();
        kept
    }

    /// Its process ends, and what it had not synced is lost in part.
    pub fn crash(&mut self, rng: &mut fastrand::Rng) {
        self.driver = None;
        self.disk.crash(rng);
    }

    /// A batch of writes is on the disk.
    pub fn synced(&mut self, batch: u64, end: u64) {
        self.disk.sync(end);
        while let Some((_, freed)) = self.frees.front().filter(|(of, _)| *of <= batch) {
            self.disk.free(*freed);
            self.frees.pop_front();
        }
        if let Some(driver) = &mut self.driver {
            driver.persisted(batch);
        }
    }

    /// Does whatever is to be done.
    pub fn turn(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        let Some(driver) = &mut self.driver else { return };
        driver.advance(now_us / 1_000);
        // Whatever was asked for in an earlier turn is read by now, unless it was freed meanwhile.
        for fetch in self.fetches.drain(..) {
            let batches = fetch.entries.iter().map(|stored| batch(&self.disk, stored.place));
            driver.fetched(fetch.partition, fetch.id, batches.collect());
        }
        for _ in 0..ROUNDS_MAX {
            if !driver.has_ready() {
                return;
            }
            driver.take_ready(&mut self.outputs);
            let outputs = &mut self.outputs;
            let has_written = !outputs.writes.is_empty();
            for (partition, write) in outputs.writes.drain(..) {
                let entry = match &write {
                    Write::Entry { term, index, .. } => Some((*index, *term)),
                    Write::Note(_) => None,
                };
                let place = self.disk.write(partition, write);
                if let Some((index, term)) = entry {
                    driver.placed(partition, index, term, place);
                }
            }
            for (partition, Letter { to, message }) in outputs.messages.drain(..) {
                effects.extend(to.iter().map(|to| Effect::Send(partition, *to, message.clone())));
            }
            if has_written {
                effects.push(Effect::Written(outputs.batch, self.disk.end()));
            }
            let events = outputs.events.drain(..);
            effects.extend(events.map(|(partition, event)| Effect::Told(partition, event)));
            self.fetches.append(&mut outputs.fetches);
            let answers = driver.take_answers().into_iter();
            effects.extend(answers.map(|(partition, answer)| Effect::Answered(partition, answer)));
        }
        panic!("node {} finds no end", self.id);
    }

    /// Whether it leads a partition in which everything that was ordered is committed.
    pub fn leads_idly(&self) -> bool {
        let Some(driver) = &self.driver else { return false };
        (0..).zip(&self.shards).filter(|(_, shard)| shard.leads.is_some()).any(|(partition, _)| {
            let status = driver.status(partition).expect("it exists");
            status.accepted == status.committed.seq
        })
    }

    /// The partition in which it has seen what cannot be with f liars, if there is one.
    pub fn diverged(&self) -> Option<u16> {
        let driver = self.driver.as_ref()?;
        let mut partitions = 0..self.shards.len() as u16;
        partitions.find(|partition| {
            driver.group(*partition).is_some_and(|group| group.status().diverged.is_some())
        })
    }

    /// What it keeps in each partition, bytes: of committed entries, and of entries behind the one that is to
    /// be committed next.
    pub fn kept_bytes(&self) -> impl Iterator<Item = (usize, usize)> {
        let groups = (0..self.shards.len() as u16)
            .filter_map(|partition| self.driver.as_ref()?.group(partition));
        let status = groups.map(|group| group.status());
        status.map(|status| (status.cached_bytes, status.accepted_bytes))
    }

    /// The chain behind an entry of its log.
    pub fn chain_at(&self, partition: u16, index: u64) -> Option<Digest> {
        self.driver.as_ref()?.group(partition)?.log().chain_at(index)
    }

    /// The data of an entry, from the disk.
    pub fn read(&self, place: Place) -> Option<Bytes> {
        match &self.disk.read(place)?.write {
            Write::Entry { data, .. } => Some(data.clone()),
            Write::Note(_) => None,
        }
    }

    /// Forgets old entries, and frees what lies before them; by the rules of the log thread.
    pub fn clean(&mut self, rng: &mut fastrand::Rng, effects: &mut Vec<Effect>, now_us: u64) {
        let (first, end) = self.disk.range();
        let Some(driver) = &mut self.driver else { return };
        let target = rng.u64(first..=end);
        let lies_before = |driver: &Driver, partition: u16, index: u64| {
            let stored = driver.group(partition).and_then(|group| group.log().stored(index));
            stored.is_some_and(|stored| stored.place.generation < target)
        };
        let begin = |driver: &Driver, partition: u16| {
            driver.group(partition).map_or(0, |group| group.log().point().index) + 1
        };
        for (partition, shard) in (0..).zip(&self.shards) {
            let begin = begin(driver, partition);
            let old =
                (begin..=shard.told).take_while(|index| lies_before(driver, partition, *index));
            if let Some(last) = old.last() {
                driver.compact(partition, last);
            }
        }
        self.turn(now_us, effects);
        let Some(driver) = &mut self.driver else { return };
        let mut partitions = 0..self.shards.len() as u16;
        if partitions.all(|partition| !lies_before(driver, partition, begin(driver, partition))) {
            driver.restate();
            self.turn(now_us, effects);
            self.frees.push_back((self.outputs.batch, target));
        }
    }
}

/// The batch of an entry, from the disk.
fn batch(disk: &Disk<Write>, place: Place) -> Option<Batch> {
    match &disk.read(place)?.write {
        Write::Entry { heads, data, .. } => Batch::new(heads.clone(), data.clone()).ok(),
        Write::Note(_) => None,
    }
}

/// What was written, in a line.
fn describe(record: &Record<Write>) -> String {
    let (place, partition) = (record.place.generation, record.partition);
    let what = match &record.write {
        Write::Entry { term, index, .. } => format!("entry {index} of term {term}"),
        Write::Note(note) => match Note::decode(note).expect("a replica wrote it") {
            Note::Certificate(it) => format!("certificate of {} in {}", it.seq, it.view),
            Note::View(it) => format!("view {} {} above {}", it.view, it.is_active, it.floor.seq),
            Note::Stable(it) => format!("stable {}", it.seq),
            Note::Committed(it) => format!("committed {}", it.seq),
            Note::Compacted(it) => format!("compacted {}", it.index),
            Note::Installed(it) => format!("installed {}", it.index),
            Note::Numbers(below) => format!("numbers below {below}"),
            Note::Accepted(index, it) => format!("accepted {index} in {}", it.view),
        },
    };
    format!("{place} in {partition}: {what}")
}
