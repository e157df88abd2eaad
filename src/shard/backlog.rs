//! Reads the log back: tasks whose payload the memory does not hold when their turn comes, and
//! whatever still lives in the oldest part of the log, which is written again so that its segments
//! can be freed.
//!
//! One read is under way at a time, as a future of the core that never holds up its loop. The log
//! is walked in parts, one a turn.

use super::{
    core::Shard,
    handle::Ask,
    ledger::{Ledger, Logged},
    partition::Partition,
    types::Types,
};
use crate::{
    consensus::{
        self, Record,
        reader::{CoreReader, ReadError},
    },
    registry::TypeIndex,
    task::{ColdKey, Cursor, End, Fingerprint, Key, Live, Moving, Place, Recorded},
    wire::id::TaskId,
};

/// Records that are read for one visit.
const READ_TOGETHER: usize = 256;
/// Records that a part of a walk writes again.
const MOVE_TOGETHER: usize = 256;
/// About how long a record is, bytes.
const RECORD_BYTES: usize = 1024;

/// An accepted task cannot be read: the node must not go on as if it were not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an accepted task cannot be read back from the log: {0}")]
pub struct TaskUnreadable(String);

/// What a record is read for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// The task's turn comes.
    Warm(ColdKey),
    /// Its segment is to be freed.
    Move(Moving),
}

/// Records that were read, and the reader, which comes back with them.
pub(super) struct ReadBack {
    /// The place of its partition on this core.
    partition: usize,
    /// The table that they were read for.
    table: u64,
    reader: CoreReader,
    records: Vec<Read>,
}

/// An encoded record and what it was read for, or why it could not be read.
type Read = (Purpose, Result<Vec<u8>, ReadError>);

/// A walk over what lives in the segments below a generation.
struct Walk {
    generation: u64,
    /// `None` when everything was seen and its copies are not committed yet.
    cursor: Option<Cursor>,
    /// Records to be read before the walk goes on.
    to_read: Vec<(Purpose, Place)>,
}

/// What a partition reads back of its log.
#[derive(Default)]
pub(super) struct Backlog {
    /// `None` while a read is under way, and in memory.
    reader: Option<CoreReader>,
    walk: Option<Walk>,
    /// Counts the tables that the partition had. What was read for one of before is of no use to
    /// this one: it may follow, and nothing may be appended then.
    table: u64,
}

impl Backlog {
    /// Reads with `reader`, when there is a log.
    pub(super) fn new(reader: Option<CoreReader>) -> Self {
        Self { reader, walk: None, table: 0 }
    }

    /// Forgets what was to be moved, and what is being read: another table begins.
    pub(super) fn forget(&mut self) {
        self.walk = None;
        self.table += 1;
    }
}

/// What a submission's record says; `None` for another record.
pub fn recorded<'a>(record: &Record<'a>, type_index: TypeIndex) -> Option<Recorded<'a>> {
    let Record::Submitted {
        id,
        is_asked,
        agent_type,
        priority,
        submitted_unix_ms,
        due_unix_ms,
        timeout_ms,
        max_attempts,
        attempts,
        key,
        payload,
    } = *record
    else {
        return None;
    };
    let key = key.map(|bytes| {
        let delay_ms = due_unix_ms.saturating_sub(submitted_unix_ms);
        let fingerprint =
            Fingerprint { agent_type, payload, priority, timeout_ms, max_attempts, delay_ms };
        let body_hash = if is_asked { fingerprint.digest() } else { fingerprint.hash() };
        Key { bytes, body_hash }
    });
    Some(Recorded {
        random: id.random,
        type_index,
        priority,
        submitted_unix_ms,
        due_unix_ms,
        timeout_ms,
        max_attempts,
        attempts,
        key,
        payload,
    })
}

impl Shard {
    /// Asks the log for what is needed of it, when no read is under way.
    #[inline]
    pub(super) fn read_back(&mut self, place: usize) {
        let partition = &mut self.tasks.partitions[place];
        if partition.ledger.move_before() > 0 && partition.check_leading().is_ok() {
            partition.walk_log(&self.kernel.types);
        }
        if partition.backlog.reader.is_none() {
            return;
        }
        let wanted = partition.table.cold_wanted(READ_TOGETHER);
        let mut to_read: Vec<(Purpose, Place)> =
            wanted.into_iter().map(|(key, place)| (Purpose::Warm(key), place)).collect();
        if let Some(walk) = &mut partition.backlog.walk {
            to_read.append(&mut walk.to_read);
        }
        if to_read.is_empty() {
            return;
        }
        let Some(reader) = partition.backlog.reader.take() else { return };
        let (inbox, table) = (self.kernel.inbox.clone(), partition.backlog.table);
        self.futures.push(Box::pin(async move {
            let (reader, records) = read_records(reader, to_read).await;
            let read = ReadBack { partition: place, table, reader, records };
            inbox.push(Ask::ReadBack(Box::new(read)));
        }));
    }

    /// Uses what was read.
    ///
    /// # Errors
    /// An accepted task could not be: nothing may be done after that.
    pub(super) fn was_read_back(&mut self, read: ReadBack) -> Result<(), TaskUnreadable> {
        let partition = &mut self.tasks.partitions[read.partition];
        partition.backlog.reader = Some(read.reader);
        if read.table != partition.backlog.table {
            return Ok(());
        }
        let mut again = Vec::new();
        for (purpose, record) in read.records {
            match (purpose, record) {
                (Purpose::Warm(key), Ok(bytes)) => {
                    partition.warm(key, &bytes, &self.kernel.types)?;
                }
                (Purpose::Move(moving), Ok(bytes)) => partition.move_record(moving, &bytes)?,
                // It was moved while it was read: it is somewhere else now.
                (Purpose::Warm(key), Err(ReadError::Gone(_))) => {
                    again.extend(partition.table.wanted_place(key).map(|place| (purpose, place)));
                }
                (Purpose::Move(_), Err(ReadError::Gone(_))) => {}
                (_, Err(error)) => return Err(TaskUnreadable(error.to_string())),
            }
        }
        if !again.is_empty() {
            let walk = partition.backlog.walk.get_or_insert(Walk {
                generation: 0,
                cursor: None,
                to_read: Vec::new(),
            });
            walk.to_read.append(&mut again);
        }
        self.tasks.look_again();
        Ok(())
    }
}

impl Partition {
    fn warm(&mut self, key: ColdKey, bytes: &[u8], types: &Types) -> Result<(), TaskUnreadable> {
        let record = decode(bytes);
        let agent_type = submission_of(&record, key.random())?;
        let type_index = types.find(agent_type);
        if let Some(task) = type_index.and_then(|type_index| recorded(&record, type_index)) {
            self.table.warm(key, &task);
        }
        Ok(())
    }

    /// Goes on with the walk that the log asks for.
    #[cold]
    fn walk_log(&mut self, types: &Types) {
        let generation = self.ledger.move_before();
        let walk = self.backlog.walk.get_or_insert_with(|| Walk {
            generation,
            cursor: Some(Cursor::default()),
            to_read: Vec::new(),
        });
        if walk.generation < generation {
            (walk.generation, walk.cursor) = (generation, Some(Cursor::default()));
        }
        // What is to be read is read before there is more of it.
        if !walk.to_read.is_empty() || self.backlog.reader.is_none() {
            return;
        }
        let Some(cursor) = walk.cursor else { return };
        if cursor == Cursor::default() {
            // What was reserved stays reserved.
            let (partition, below) = (self.table.partition(), self.table.tokens_below());
            self.ledger.append(Record::Tokens { partition, below }, Logged::Noted);
        }
        let (ledger, partition) = (&mut self.ledger, self.table.partition());
        // What is about to be forgotten would come back.
        let expiring_unix_ms = self.expiring;
        let to_read = &mut walk.to_read;
        walk.cursor = self.table.live_before(
            walk.generation,
            cursor,
            MOVE_TOGETHER,
            |moving, live| match live {
                // What the memory does not know the name of is written as the log has it.
                Live::Task { place, task, .. } if task.type_index == types.unknown() => {
                    to_read.push((Purpose::Move(moving), place));
                }
                Live::Task { task, end, .. } => {
                    let agent_type = &types.get(task.type_index).name;
                    let id = TaskId { partition, random: task.random };
                    append_task(ledger, moving, id, agent_type, &task, task.attempts, end);
                }
                Live::Record { place, .. } => to_read.push((Purpose::Move(moving), place)),
                Live::Key { expires_unix_ms, .. } if expires_unix_ms <= expiring_unix_ms => {}
                Live::Key { key, random, expires_unix_ms } => {
                    let id = TaskId { partition, random };
                    let (key, body_hash) = (key.bytes, key.body_hash);
                    let record = Record::Key { key, id, body_hash, expires_unix_ms };
                    ledger.append(record, Logged::Moved(moving));
                }
            },
        );
        if walk.cursor.is_none() && walk.to_read.is_empty() {
            self.ledger.after_all(Logged::Walked);
        }
    }

    /// Everything that a walk wrote again is committed: the segments can be freed, or another
    /// walk finds what slipped through.
    pub(super) fn walked(&mut self) {
        let Some(walk) = &mut self.backlog.walk else { return };
        if walk.cursor.is_some() {
            return;
        }
        if self.table.is_clear_before(walk.generation) {
            self.ledger.moved_before(walk.generation);
            self.backlog.walk = None;
        } else {
            walk.cursor = Some(Cursor::default());
        }
    }

    fn move_record(&mut self, moving: Moving, bytes: &[u8]) -> Result<(), TaskUnreadable> {
        let lives = match self.table.live(moving) {
            Some(Live::Record { attempts, end, .. }) => Some((attempts, end)),
            Some(Live::Task { task, end, .. }) => Some((task.attempts, end)),
            _ => None,
        };
        if let Some((attempts, end)) = lives {
            let record = decode(bytes);
            let (Moving::Task(random) | Moving::Key { random, .. }) = moving;
            let agent_type = submission_of(&record, random)?;
            // The type's place matters to nobody: the record carries its name.
            if let Some(task) = recorded(&record, 0) {
                let id = TaskId { partition: self.table.partition(), random };
                append_task(&mut self.ledger, moving, id, agent_type, &task, attempts, end);
            }
        }
        let Some(walk) = &self.backlog.walk else { return Ok(()) };
        if walk.cursor.is_none() && walk.to_read.is_empty() {
            self.ledger.after_all(Logged::Walked);
        }
        Ok(())
    }
}

/// Writes a task again, and its end when it has ended: a copy of the submission alone would bring
/// it back to life, once the segment with its end is freed.
fn append_task(
    ledger: &mut Ledger,
    moving: Moving,
    id: TaskId,
    agent_type: &str,
    task: &Recorded<'_>,
    attempts: u32,
    end: Option<End<'_>>,
) {
    let record = Record::Submitted {
        id,
        is_asked: false,
        agent_type,
        priority: task.priority,
        submitted_unix_ms: task.submitted_unix_ms,
        due_unix_ms: task.due_unix_ms,
        timeout_ms: task.timeout_ms,
        max_attempts: task.max_attempts,
        attempts,
        // Keys live by themselves.
        key: None,
        payload: task.payload,
    };
    let moved = Logged::Moved(moving);
    let Some(End { status, attempts, ended_unix_ms, body }) = end else {
        return ledger.append(record, moved);
    };
    let ended = Record::Ended { id, status, attempts, ended_unix_ms, body };
    ledger.append_both([(record, moved), (ended, Logged::Noted)]);
}

async fn read_records(
    mut reader: CoreReader,
    to_read: Vec<(Purpose, Place)>,
) -> (CoreReader, Vec<Read>) {
    let mut records = Vec::with_capacity(to_read.len());
    for (purpose, Place { generation, offset }) in to_read {
        let place = consensus::Place { generation, offset };
        let read = reader.record(place, RECORD_BYTES).await.map(|record| {
            let mut bytes = Vec::with_capacity(record.encoded_bytes());
            record.encode(&mut bytes);
            bytes
        });
        records.push((purpose, read));
    }
    (reader, records)
}

fn decode(bytes: &[u8]) -> Record<'_> {
    let (record, _) = Record::decode(bytes).expect("it was encoded just now");
    record
}

/// The type's name in a task's submission, which is what was read where that should be.
fn submission_of<'a>(record: &Record<'a>, random: u128) -> Result<&'a str, TaskUnreadable> {
    let why = match *record {
        Record::Submitted { id, agent_type, .. } if id.random == random => return Ok(agent_type),
        Record::Submitted { .. } => "the record of another task lies in its place",
        _ => "a record that is no submission lies where one should be",
    };
    Err(TaskUnreadable(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::{
        consensus::{simulated::SimulatedDisk, writer::Directory},
        task::Moving,
    };

    fn reader() -> CoreReader {
        let disk = SimulatedDisk::default();
        consensus::reader::SegmentReader::simulated(disk, Directory::default()).on_core()
    }

    #[test]
    fn a_dead_letter_and_its_end_move_in_one_block() {
        let mut core = Core::new(|_| {});
        let payload = |random: u128| vec![0xc0; 37 * random as usize];
        for random in 1..40 {
            core.hear(random as u64, &[submitted(random, &payload(random)), dead(random)]);
        }
        core.lead(1);
        let partition = &mut core.shard.tasks.partitions[0];
        for random in 1..40 {
            let mut bytes = Vec::new();
            submitted(random, &payload(random)).encode(&mut bytes);
            partition.move_record(Moving::Task(random), &bytes).expect("it is that record");
        }
        let blocks = core.commit_all();
        let mut moved = 0;
        for block in &blocks {
            let records: Vec<_> = records_of(block);
            for (at, record) in records.iter().enumerate() {
                if let Record::Submitted { id, .. } = record {
                    moved += 1;
                    let end = records.get(at + 1);
                    let is_end = matches!(end, Some(Record::Ended { id: of, .. }) if of == id);
                    assert!(is_end, "{id} and its end are in two blocks");
                }
            }
        }
        assert_eq!(moved, 39);
        assert!(blocks.len() > 5, "{} blocks", blocks.len());
    }

    #[test]
    fn a_walk_takes_along_the_ended_tasks_that_are_remembered() {
        let mut core = Core::new(|_| {});
        for random in 1..=30 {
            core.hear(1, &[submitted(random, b"payload"), done(random)]);
        }
        core.lead(1);
        core.shard.tasks.partitions[0].backlog.reader = Some(reader());
        core.signals.move_before.store(2, std::sync::atomic::Ordering::Release);
        let blocks = core.commit_all();
        let (mut moved, mut bytes) = (0, 0);
        for block in &blocks {
            let records = records_of(block);
            for pair in records.windows(2) {
                if let (Record::Submitted { id, .. }, Record::Ended { id: of, body, .. }) =
                    (pair[0], pair[1])
                {
                    assert_eq!((id, body), (of, &b"result"[..]));
                    moved += 1;
                    bytes += pair[0].encoded_bytes() + pair[1].encoded_bytes();
                }
            }
        }
        assert_eq!(moved, 30);
        println!(
            "{} bytes for each ended task, {} of them its result",
            bytes / 30,
            b"result".len()
        );
        assert_eq!(core.moved_before, 2, "their segment may be freed");
        assert!(core.shard.tasks.partitions[0].table.is_clear_before(2));
    }

    #[test]
    fn what_was_read_for_a_table_is_of_no_use_to_the_next_one() {
        let mut core = Core::new(|_| {});
        core.hear(1, &[submitted(1, b"payload")]);
        core.lead(1);
        let mut bytes = Vec::new();
        submitted(1, b"payload").encode(&mut bytes);
        let read = |table| {
            let records = vec![(Purpose::Move(Moving::Task(1)), Ok(bytes.clone()))];
            ReadBack { partition: 0, table, reader: reader(), records }
        };
        let table = core.shard.tasks.partitions[0].backlog.table;
        // The partition leads no more, and its new table has heard of the task already.
        core.tell(Told::Follow { is_replaced: false });
        core.hear(1, &[submitted(1, b"payload")]);
        core.shard.was_read_back(read(table)).expect("it is that record");
        let partition = &mut core.shard.tasks.partitions[0];
        assert_eq!(partition.ledger.pending(), 0, "nothing is appended by who follows");
        assert!(!partition.ledger.has_departures());
        assert!(partition.backlog.reader.take().is_some(), "the reader is there for what follows");
        // What is read for the table that there is counts.
        core.lead(2);
        let table = core.shard.tasks.partitions[0].backlog.table;
        core.shard.was_read_back(read(table)).expect("it is that record");
        let partition = &mut core.shard.tasks.partitions[0];
        assert_eq!(partition.ledger.pending(), 1);
        partition.backlog.reader = None;
    }
}
