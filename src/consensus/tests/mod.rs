//! What the log promises, each promise a test, over a disk that fails when it is told to.

mod keeper;
mod lanes;
mod life;
mod records;
mod recovery;
mod replicas;
mod space;

use super::{
    block::Block,
    disk::Disk,
    format::{BLOCK_HEAD_BYTES, BlockHead, BlockKind},
    group::StoredBlock,
    place::{Place, Position},
    record::Record,
    simulated::SimulatedDisk,
    survey::{Survey, survey},
    writer::{Fatal, Geometry, Writer},
};
use crate::wire::{api::TaskStatus, id::TaskId};

/// Small enough that a few groups fill a segment.
const SEGMENT_BYTES: u64 = 64 << 10;
const GEOMETRY: Geometry =
    Geometry { segment_bytes: SEGMENT_BYTES, keep_bytes: 4 * SEGMENT_BYTES, partitions: 2 };

/// A record that was read back: where, from which shard, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replayed {
    place: Place,
    shard: u16,
    bytes: Vec<u8>,
}

fn id(number: u128) -> TaskId {
    TaskId { partition: 0, random: number }
}

/// A record that tells its number and is as long as a result of `body_bytes`.
fn ended(number: u128, body: &[u8]) -> Record<'_> {
    Record::Ended {
        id: id(number),
        status: TaskStatus::Done,
        attempts: 1,
        ended_unix_ms: 1_700_000_000_000,
        body,
    }
}

fn encoded(record: Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// Reads a log block by block.
fn read(disk: &SimulatedDisk) -> (Survey, Vec<Replayed>) {
    let mut replayed = Vec::new();
    let mut visit = |place: Place, block: &StoredBlock<'_>| {
        let (shard, body) = (block.head.partition, block.body());
        let mut at = 0;
        while at < body.len() {
            let (record, bytes) = Record::decode(&body[at..]).expect("it was checked");
            let offset = place.offset + (BLOCK_HEAD_BYTES + at) as u32;
            let place = Place { offset, ..place };
            replayed.push(Replayed { place, shard, bytes: encoded(record) });
            at += bytes;
        }
    };
    let survey = survey(&mut disk.clone(), &mut visit).expect("the disk can be read");
    (survey, replayed)
}

/// A writer over a simulated disk, with the positions of its lanes.
struct Log {
    disk: SimulatedDisk,
    writer: Writer<SimulatedDisk>,
    positions: [u64; 2],
    /// What is written next, by lane.
    gathered: Vec<(usize, Block)>,
    /// What is on the disk and was not taken.
    written: Vec<(usize, Block)>,
    /// What each lane has moved out of.
    moved: [u64; 2],
}

impl Log {
    /// Opens what is on the disk, which must be undamaged, and tells what was replayed.
    fn open(disk: &SimulatedDisk) -> (Self, Vec<Replayed>) {
        let (survey, replayed) = read(disk);
        assert_eq!(survey.findings, [], "nothing is damaged");
        let writer = Writer::resume(disk.clone(), GEOMETRY, &survey, 7).expect("the disk works");
        let log = Self {
            disk: disk.clone(),
            writer,
            positions: [0; 2],
            gathered: Vec::new(),
            written: Vec::new(),
            moved: [0; 2],
        };
        (log, replayed)
    }

    /// Does the helper's work.
    fn help(&mut self) {
        while let Some(job) = self.writer.next_job() {
            let result = job.run(&mut self.disk, SEGMENT_BYTES);
            let failed = result.is_err();
            self.writer.job_done(&result);
            if failed {
                return;
            }
        }
    }

    fn block(&mut self, lane: usize, records: &[Record<'_>]) -> Block {
        let mut block = Block::new(0);
        for record in records {
            self.positions[lane] += 1;
            block.push(Position(self.positions[lane]), *record);
        }
        block
    }

    /// Takes a block into the next group, or hands it back.
    fn offer(&mut self, lane: usize, mut block: Block) -> Result<Option<Block>, Fatal> {
        if !block.is_empty() {
            let head = BlockHead::new(BlockKind::Records, lane as u16, 1, 1, block.bytes());
            let Some(place) = self.writer.offer(&head, block.bytes())? else {
                return Ok(Some(block));
            };
            (block.generation, block.offset) = (place.generation, place.offset);
        }
        self.gathered.push((lane, block));
        Ok(None)
    }

    /// Writes blocks as one group, or as several when they do not fit; hands back what is written.
    fn write(&mut self, blocks: Vec<(usize, Block)>) -> Result<Vec<(usize, Block)>, Fatal> {
        for (lane, block) in blocks {
            let mut block = Some(block);
            while let Some(waiting) = block.take() {
                block = self.offer(lane, waiting)?;
                if block.is_some() {
                    assert!(self.writer.has_gathered(), "there is room for a block");
                    self.commit()?;
                }
            }
        }
        self.commit()?;
        Ok(std::mem::take(&mut self.written))
    }

    fn commit(&mut self) -> Result<(), Fatal> {
        self.writer.write()?;
        for (lane, block) in self.gathered.drain(..) {
            self.moved[lane] = self.moved[lane].max(block.moved_before);
            self.written.push((lane, block));
        }
        let target = self.writer.move_before();
        if target > 0 && self.moved.iter().all(|moved| *moved >= target) {
            self.writer.release(target);
        }
        self.help();
        Ok(())
    }

    /// One group with one record of `body_bytes`.
    fn write_one(&mut self, number: u128, body_bytes: usize) {
        let body = vec![number as u8; body_bytes];
        let block = self.block(0, &[ended(number, &body)]);
        assert_eq!(self.write(vec![(0, block)]).expect("the disk works").len(), 1);
    }
}

/// The numbers of the tasks that were replayed.
fn numbers(replayed: &[Replayed]) -> Vec<u128> {
    let number =
        |entry: &Replayed| Record::decode(&entry.bytes).expect("it was intact").0.id().random;
    replayed.iter().map(number).collect()
}
