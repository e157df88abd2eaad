//! The durable log over real files: kills, full and failing disks, a second instance, cleaning,
//! reading back, and what `coreflow doctor --log` says of it.

mod agreement;
mod child;
mod doctor;
mod process;
mod replication;
mod thread;

use coreflow::{
    consensus::{
        Committed, News,
        lane::LaneLog,
        open::{OpenError, OpenLog, Seat, Settings, open},
        place::{Place, Position},
        record::Record,
        recovery,
    },
    runtime::doorbell::Doorbell,
    wire::{api::TaskStatus, id::TaskId},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Beyond any wait of these tests.
const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A folder of a test that disappears with it.
struct Scratch(PathBuf);

impl Scratch {
    /// Under the build's own folder, whose file system is a real one more often than /tmp's.
    fn new(name: &str) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = parent.join(format!("log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the build's folder is writable");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(folder: &Path, segment_mib: u64, keep_mib: u64) -> Settings {
    Settings {
        folder: folder.to_owned(),
        segment_bytes: segment_mib * MIB,
        keep_bytes: keep_mib * MIB,
        block_bytes: 64 << 10,
        cpu: None,
        realtime: true,
    }
}

/// What was replayed: the body of each ended task by its number, and where it lies.
type Replayed = BTreeMap<u128, (Vec<u8>, Place)>;

/// An open log and the bell of its shards, which this thread plays all of.
struct Node {
    log: OpenLog,
    bell: Doorbell,
}

impl Node {
    fn open(settings: Settings) -> Result<(Self, Replayed), OpenError> {
        let bell = Doorbell::new().expect("there are descriptors");
        let mut replayed = Replayed::new();
        let log = open(settings, &Seat::alone(), &vec![bell.clone(); 2], &mut |recovered| {
            let recovery::Replayed::Record(place, shard, record, _) = recovered else {
                panic!("nobody replaced the log")
            };
            match record {
                Record::Ended { id, body, .. } => {
                    assert_eq!(id.partition, shard);
                    replayed.insert(id.random, (body.to_vec(), place));
                }
                Record::Compacted { .. } | Record::Order { .. } => {}
                record => panic!("{record:?} was written"),
            }
        })?;
        let mut node = Self { log, bell };
        for lane in 0..2 {
            node.wait_for(lane, "it leads", |lane| matches!(lane.next_news(), Some(News::Lead)));
        }
        Ok((node, replayed))
    }

    fn lane(&mut self, lane: usize) -> &mut LaneLog {
        &mut self.log.lanes[lane]
    }

    /// Sleeps until something may be committed.
    fn park(&mut self) {
        self.bell.parking().prepare();
        self.bell.wait(Some(Duration::from_millis(20))).expect("the bell works");
        self.bell.parking().awake();
    }

    /// Waits until a lane has committed a position; tells the place of each offset that is asked.
    fn commit(&mut self, lane: usize, upto: Position, offsets: &[(Position, u32)]) -> Vec<Place> {
        let mut places = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.lane(lane).flush();
            while let Some(committed) = next_committed(self.lane(lane)) {
                let waiting = offsets[places.len()..].iter();
                let told = waiting.take_while(|(position, _)| *position <= committed.upto);
                let told: Vec<_> = told.map(|(_, offset)| committed.place(*offset)).collect();
                places.extend(told);
                if committed.upto >= upto {
                    return places;
                }
            }
            assert!(Instant::now() < deadline, "lane {lane} does not commit {upto:?}");
            self.park();
        }
    }

    /// Waits for a condition of a lane.
    fn wait(&mut self, what: &str, holds: impl FnMut(&mut LaneLog) -> bool) {
        self.wait_for(0, what, holds);
    }

    fn wait_for(&mut self, lane: usize, what: &str, mut holds: impl FnMut(&mut LaneLog) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self.lane(lane)) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.park();
        }
    }
}

/// The next block of a lane that is committed.
fn next_committed(lane: &mut LaneLog) -> Option<Committed> {
    loop {
        match lane.next_news()? {
            News::Committed(committed) => return Some(committed),
            News::Lead => {}
            news => panic!("nobody else writes this log: {news:?}"),
        }
    }
}

/// The body that belongs to a number: of any length up to `bytes_max`, different for each.
fn body(number: u128, bytes_max: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64 ^ (number >> 64) as u64);
    let bytes = random.usize(..=bytes_max);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

fn ended(lane: usize, number: u128, body: &[u8]) -> Record<'_> {
    Record::Ended {
        id: TaskId { partition: lane as u16, random: number },
        status: TaskStatus::Done,
        attempts: 1,
        ended_unix_ms: 1,
        body,
    }
}
