//! Random changes, restarts and kills; what is there afterwards is what a map would have.
//!
//! The files of a partition hold its changes in order. So what is found after a kill must be the result
//! of all changes up to some one of them, and all that were acknowledged must be among these.

use super::{
    super::{
        checkpoint::Checkpoint,
        job::{Done, Job},
        partition::{Partition, Step},
        watermark::watermark_name,
    },
    *,
};
use crate::memory::cases::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a test does.
#[derive(Clone, Debug)]
pub enum Action {
    Put(u8, i8),
    Delete(u8),
    /// Gives what was recorded to the disk, and lets it do so many jobs.
    Work(u8),
    /// Applies what the disk has.
    Apply,
    /// Moves what lives out of the oldest segment.
    Move,
    /// Goes on with a checkpoint by so many steps, or begins one.
    Save(u8),
    /// Ends well, and starts.
    Restart,
    /// Dies: of the writes that wait a part may be there, the sectors that the bits name, and the
    /// watermark may be one of a while ago. Then starts.
    Kill(u64, prop::sample::Index),
}

pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0..24_u8, any::<i8>()).prop_map(|(key, value)| Action::Put(key, value)),
        4 => (0..24_u8).prop_map(Action::Delete),
        6 => (0..4_u8).prop_map(Action::Work),
        4 => Just(Action::Apply),
        2 => Just(Action::Move),
        3 => (1..6_u8).prop_map(Action::Save),
        1 => Just(Action::Restart),
        1 => (any::<u64>(), any::<prop::sample::Index>())
            .prop_map(|(sectors, mark)| Action::Kill(sectors, mark)),
    ]
}

/// What is there: the value of each key.
pub type Contents = BTreeMap<String, i8>;

pub struct World {
    settings: StoreSettings,
    pub partition: Option<(Partition, Store)>,
    jobs: Vec<Job>,
    /// Changes since the last start, each a key and what it becomes.
    pub changes: Vec<(String, Option<i8>)>,
    /// How many of them were acknowledged.
    pub acknowledged: usize,
    /// What was there at the last start.
    pub base: Contents,
    /// The token of the next delete; puts have the token 0.
    deletes: u64,
    /// Deletes that needed no record.
    unrecorded: Vec<u64>,
    checkpoint: Option<Checkpoint>,
    /// What the watermark's file had since the last start.
    marks: Vec<Vec<u8>>,
}

impl World {
    pub fn new(folder: &Folder) -> Self {
        let settings = settings(Some(folder));
        let partition = Some(open(&settings));
        let base = Contents::new();
        Self {
            settings,
            partition,
            jobs: Vec::new(),
            changes: Vec::new(),
            acknowledged: 0,
            base,
            deletes: 1,
            unrecorded: Vec::new(),
            checkpoint: None,
            marks: Vec::new(),
        }
    }

    /// The watermark's file.
    pub fn mark(&self) -> PathBuf {
        let folder = self.settings.folder.as_ref().expect("it is in a folder");
        folder.join(watermark_name(0))
    }

    fn partition(&mut self) -> &mut Partition {
        &mut self.partition.as_mut().expect("it is open").0
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Put(key, value) => {
                let key = format!("key-{key}");
                let change = (key.clone(), Some(value));
                if self.partition().put(&item(&key, value.into()), 0).is_ok() {
                    self.changes.push(change);
                }
            }
            Action::Delete(key) => {
                let key = format!("key-{key}");
                let sequence = self.partition().log.sequence();
                let token = self.deletes;
                self.deletes += 1;
                if self.partition().delete("space", &key, token).is_ok() {
                    // One that is known not to be there is answered without a record.
                    match self.partition().log.sequence() > sequence {
                        true => self.changes.push((key, None)),
                        false => self.unrecorded.push(token),
                    }
                }
            }
            Action::Work(count) => self.work(count.into()),
            Action::Apply => self.apply(),
            Action::Move => {
                if let Step::Wait(pieces) = self.partition().move_some() {
                    pieces
                        .iter()
                        .for_each(|(region, from, bytes)| region.load(*from, *bytes).unwrap());
                }
            }
            Action::Save(steps) => (0..steps).for_each(|_| self.save()),
            Action::Restart => {
                self.finish_jobs();
                self.partition().close().unwrap();
                self.count_outcomes();
                self.acknowledged = self.changes.len();
                self.start();
            }
            Action::Kill(sectors, mark) => {
                self.kill(sectors);
                if !self.marks.is_empty() {
                    fs::write(self.mark(), mark.get(&self.marks)).unwrap();
                }
                self.start();
            }
        }
    }

    fn save(&mut self) {
        let (partition, _) = self.partition.as_mut().expect("it is open");
        let checkpoint = self.checkpoint.get_or_insert_with(|| Checkpoint::begin(partition));
        if let Some(job) = checkpoint.step(partition) {
            assert!(matches!(job.perform(), Some(Done::Saved(Ok(_)))));
        }
        if checkpoint.is_ended() {
            partition.saved(checkpoint);
            self.checkpoint = None;
        }
    }

    fn work(&mut self, count: usize) {
        self.partition().flush();
        let jobs = self.partition().take_jobs();
        self.jobs.extend(jobs);
        for _ in 0..count.min(self.jobs.len()) {
            if let Some(done) = self.jobs.remove(0).perform() {
                self.partition().done(done);
                self.marks.extend(fs::read(self.mark()).ok());
            }
        }
    }

    fn finish_jobs(&mut self) {
        while !self.jobs.is_empty() {
            self.work(8);
        }
    }

    fn apply(&mut self) {
        loop {
            match self.partition().apply() {
                Step::Done(true) => {}
                Step::Done(false) => break,
                Step::Wait(pieces) => {
                    pieces
                        .iter()
                        .for_each(|(region, from, bytes)| region.load(*from, *bytes).unwrap());
                }
            }
        }
        self.count_outcomes();
    }

    fn count_outcomes(&mut self) {
        while let Some((token, outcome)) = self.partition().take_outcome() {
            outcome.unwrap();
            self.acknowledged += usize::from(!self.unrecorded.contains(&token));
        }
    }

    /// Leaves what a loss of power leaves: of writes that were not synced, any sectors.
    pub fn kill(&mut self, sectors: u64) {
        self.partition().flush();
        let jobs = self.partition().take_jobs();
        self.jobs.extend(jobs);
        let mut bit = 0;
        for job in self.jobs.drain(..) {
            let Job::Write(write) = job else { continue };
            for (place, sector) in write.bytes.chunks(512).enumerate() {
                if sectors >> (bit % 64) & 1 == 1 {
                    write.region.write_file(write.offset + place * 512, sector).unwrap();
                }
                bit += 1;
            }
        }
    }

    fn start(&mut self) {
        self.partition = None;
        self.checkpoint = None;
        self.jobs.clear();
        self.marks.clear();
        self.partition = Some(open(&self.settings));
        let found = contents(self.partition());
        let mut expected = self.base.clone();
        let mut may_be = Vec::new();
        for (place, (key, value)) in self.changes.iter().enumerate() {
            if place >= self.acknowledged {
                may_be.push(expected.clone());
            }
            match value {
                Some(value) => expected.insert(key.clone(), *value),
                None => expected.remove(key),
            };
        }
        may_be.push(expected);
        assert!(may_be.contains(&found), "{found:?} is none of {may_be:?}");
        assert_eq!(self.partition().damages().count, 0);
        self.changes.clear();
        self.acknowledged = 0;
        self.base = found;
    }
}

/// What a partition has, by name, by search and in its lists: all the same.
fn contents(partition: &mut Partition) -> Contents {
    let segments = partition.log.segments.iter();
    let counted = segments
        .map(|it| (it.records, it.live))
        .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert_eq!(partition.log.counts(), counted);
    let value = |item: &MemoryItem| item.vector[0] as i8;
    let mut contents = Contents::new();
    for key in (0..24).map(|key| format!("key-{key}")) {
        match get(partition, &key) {
            Ok(found) => {
                assert_eq!(found, item(&key, value(&found).into()));
                contents.insert(key, value(&found));
            }
            Err(error) => assert_eq!(error.code(), "not_found"),
        }
    }
    assert_eq!(partition.len(), contents.len());
    let query = MemoryQuery { vector: vec![0.0; DIMENSION], k: 100, ..MemoryQuery::default() };
    let hits = search(partition, query).unwrap();
    let mut keys: Vec<_> = hits.into_iter().map(|hit| hit.key).collect();
    keys.sort();
    let mut expected: Vec<_> = contents.keys().cloned().collect();
    expected.sort();
    assert_eq!(keys, expected, "a search finds what is there");
    let (mut listed, mut next) = (0, Some(0));
    while let Some(from) = next {
        let page = run(partition, |partition| match partition.list(None, from, 1000, 1 << 20) {
            Step::Wait(pieces) => Step::Wait(pieces),
            Step::Done(page) => Step::Done(Some(page)),
        });
        listed += page.0.len();
        next = page.1;
    }
    assert_eq!(listed, contents.len());
    contents
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn what_is_acknowledged_is_there_after_every_start(
        actions in prop::collection::vec(action(), 1..200)
    ) {
        let folder = Folder::new("model");
        let mut world = World::new(&folder);
        actions.into_iter().for_each(|action| world.act(action));
        world.kill(0);
        world.start();
        world.act(Action::Restart);
    }
}

#[test]
fn segments_are_freed_when_little_lives_in_them() {
    let folder = Folder::new("move");
    let (mut partition, store) = open(&settings(Some(&folder)));
    for round in 0..400 {
        put(&mut partition, &item(&format!("key-{}", round % 10), (round % 100) as f32)).unwrap();
        run(&mut partition, |partition| match partition.move_some() {
            Step::Wait(pieces) => Step::Wait(pieces),
            Step::Done(moved) => Step::Done(Some(moved)),
        });
    }
    let (records, live) = partition.log().counts();
    assert!(live == 10 && records < 200, "{records} records for {live} items");
    partition.close().unwrap();
    assert!(folder.files().len() <= 5, "{:?}", folder.files());
    drop((partition, store));
    let (mut partition, _store) = open(&settings(Some(&folder)));
    for key in 0..10 {
        assert_eq!(
            get(&mut partition, &format!("key-{key}")).unwrap().vector[0],
            (90 + key) as f32
        );
    }
}

#[test]
fn a_segment_whose_records_wait_to_be_applied_is_not_freed() {
    let folder = Folder::new("waits");
    let (mut partition, _store) = open(&settings(Some(&folder)));
    // Nothing is applied while the rows of a checkpoint are copied.
    partition.is_frozen = true;
    partition.prepare();
    partition.settle().unwrap();
    for number in 0..40 {
        let item = item(&format!("key-{number}"), number as f32);
        while partition.put(&item, number).is_err() {
            partition.settle().unwrap();
        }
    }
    partition.settle().unwrap();
    assert!(partition.log.segments.len() > 1 && partition.log.counts() == (40, 0));
    partition.move_some();
    partition.is_frozen = false;
    partition.settle().unwrap();
    for number in 0..40 {
        assert_eq!(partition.take_outcome(), Some((number, Ok(false))));
        let key = format!("key-{number}");
        assert_eq!(get(&mut partition, &key), Ok(item(&key, number as f32)));
    }
}

#[test]
fn a_write_that_fails_ends_all_writes_and_nothing_else() {
    let folder = Folder::new("failed");
    let (mut partition, _store) = open(&settings(Some(&folder)));
    put(&mut partition, &item("before", 1.0)).unwrap();
    partition.put(&item("during", 2.0), 3).unwrap();
    partition.flush();
    for job in partition.take_jobs() {
        if let Job::Write(_) = job {
            partition.done(Done::Written(Err(std::io::Error::other("the disk is gone"))));
        }
    }
    let (token, outcome) = partition.take_outcome().unwrap();
    assert_eq!(token, 3);
    assert!(matches!(outcome, Err(Error::Uncertain(_))), "{outcome:?}");
    let refused = partition.put(&item("after", 3.0), 4).unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert_eq!(get(&mut partition, "before").unwrap(), item("before", 1.0));
    assert_eq!(get(&mut partition, "during").unwrap_err().code(), "not_found");
}

#[test]
fn memory_alone_is_the_same_without_files() {
    let (mut partition, store) = open(&settings(None));
    assert!(store.lock.is_none() && !partition.log().is_durable());
    for round in 0..300 {
        let key = format!("key-{}", round % 7);
        assert_eq!(put(&mut partition, &item(&key, round as f32)), Ok(round >= 7));
    }
    assert_eq!(get(&mut partition, "key-3").unwrap(), item("key-3", 297.0));
    assert_eq!(delete(&mut partition, "key-3"), Ok(true));
    assert_eq!(delete(&mut partition, "key-3"), Ok(false));
    assert_eq!(partition.len(), 6);
}
