//! A part of all tasks on the core that keeps it: its table, its log, and what is read back of
//! that.

use super::{
    asking::{Asker, Asking},
    backlog::{Backlog, recorded},
    ledger::{Ledger, Logged},
    reads::Reads,
    types::Types,
};
use crate::{
    consensus::{self, Foreign, Record, TaskLog, reader::CoreReader},
    registry::TypeIndex,
    task::{Failed, Key, Lease, Live, Place, Settled, Submission, Taken, TaskTable, Watcher},
    wire::{
        api::{Error, Priority},
        id::{CoreIndex, TOKENS_END, TOKENS_TOGETHER, TaskId},
        names::Crowd,
    },
};

/// Keys are remembered so long after they expired: submissions on their way when they did are theirs.
const EXPIRED_MARGIN_MS: u64 = 60_000;
/// Of what whoever leads says wrongly as much is written to the log of messages.
const COMPLAIN_EVERY_MS: u64 = 10_000;
/// When to come back while the log has no room, milliseconds.
const LOG_RETRY_MS: u64 = 20;
/// When to come back while a log is read that was replaced, milliseconds.
const READ_RETRY_MS: u64 = 200;
/// Of what somebody says that lives so many records, and bytes of them, are looked at in a turn: some tens of
/// microseconds.
const LOOK_TOGETHER: (usize, usize) = (64, 64 << 10);

/// What a partition begins with.
pub struct Beginning {
    /// Where it writes what must survive.
    pub log: TaskLog,
    /// Its tasks, as the log left them.
    pub table: TaskTable,
}

/// Whether a partition's tasks are run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// They are: the table is alive.
    Leading,
    /// They are not: the table follows the log, ready to come alive.
    Following,
}

/// Where nodes may lie: the table that a partition had before it was told its log anew.
enum Before {
    /// The table itself is whole.
    Nothing,
    /// This goes on, until the other one has read as much.
    Table(Box<TaskTable>),
    /// Its log was replaced, and what is between is not known.
    Lost,
}

impl Before {
    fn table(self) -> Option<Box<TaskTable>> {
        match self {
            Self::Table(table) => Some(table),
            Self::Nothing | Self::Lost => None,
        }
    }
}

/// A look at what somebody says that lives.
struct Look {
    claimed: consensus::Claimed,
    looked: consensus::Looked,
}

/// A partition.
pub(super) struct Partition {
    pub role: Role,
    /// Tokens are being reserved.
    reserving: bool,
    /// That keys are forgotten which expire up to this time is being written down, Unix time in
    /// milliseconds; 0 when it is not.
    pub expiring: u64,
    pub table: TaskTable,
    pub ledger: Ledger,
    /// What is read back of the log.
    pub backlog: Backlog,
    /// Questions that wait until this node is known to lead still.
    pub reads: Reads,
    /// Submissions of this node that were asked for and are not settled.
    pub asking: Asking,
    before: Before,
    look: Option<Look>,
    /// Until then nothing is said of entries that are needed, milliseconds.
    complains_at_ms: u64,
}

impl Partition {
    /// A partition of a node that started at that Unix time, milliseconds.
    pub(super) fn new(begin: Beginning, reader: Option<CoreReader>, unix_ms: u64) -> Self {
        let ledger = Ledger::new(begin.log, unix_ms);
        let role = if ledger.is_durable() { Role::Following } else { Role::Leading };
        Self {
            role,
            reserving: false,
            expiring: 0,
            table: begin.table,
            ledger,
            backlog: Backlog::new(reader),
            reads: Reads::default(),
            asking: Asking::default(),
            before: Before::Nothing,
            look: None,
            complains_at_ms: 0,
        }
    }

    /// Follows what somebody else wrote, on a node of so many cores; what became of what was asked for
    /// here.
    pub(super) fn follow(
        &mut self,
        foreign: &Foreign,
        types: &Types,
        cores: CoreIndex,
        now_ms: u64,
    ) -> Vec<(Asker, TaskId, Settled)> {
        let Self { table, asking, role, .. } = self;
        follow(table, asking, *role, foreign, types, cores, now_ms)
    }

    /// The same with the table before, while this one is told its log anew. Whoever has asked for something
    /// is told by that already.
    pub(super) fn follow_beside(
        &mut self,
        foreign: &Foreign,
        types: &Types,
        cores: CoreIndex,
        now_ms: u64,
    ) -> Vec<(Asker, TaskId, Settled)> {
        let Self { before, asking, .. } = self;
        let Before::Table(table) = before else { return Vec::new() };
        follow(table, asking, Role::Following, foreign, types, cores, now_ms)
    }

    /// This table has read as much as the one before, which is left.
    pub(super) fn caught_up(&mut self) -> Option<Box<TaskTable>> {
        std::mem::replace(&mut self.before, Before::Nothing).table()
    }

    /// The table that knows what lives.
    fn known(&self) -> &TaskTable {
        match &self.before {
            Before::Table(table) => table,
            Before::Nothing | Before::Lost => &self.table,
        }
    }

    /// What is taken up, as the table says that knows what lives; `None` where none does.
    fn taken(&self) -> Option<Taken> {
        match &self.before {
            Before::Table(table) => Some(table.taken_as_asked()),
            Before::Nothing => Some(self.table.taken()),
            Before::Lost => None,
        }
    }

    /// Whoever leads says that entries are not needed: they are not where this table needs none of them.
    pub(super) fn compacted(&mut self, compacted: consensus::Compacted, now_ms: u64) {
        let consensus::Compacted { upto, generation } = compacted;
        if self.table.lives_before(generation) {
            let partition = self.table.partition();
            if now_ms < self.complains_at_ms {
                return;
            }
            self.complains_at_ms = now_ms + COMPLAIN_EVERY_MS;
            tracing::error!(
                partition,
                upto,
                "whoever leads said that entries are not needed in which something lives: they are kept"
            );
            return;
        }
        self.ledger.cleared(upto);
    }

    /// Whoever leads says that tasks and keys live, so that they are written again: it is looked at in the turns
    /// from now on.
    pub(super) fn look_at(&mut self, claimed: consensus::Claimed) {
        self.look = Some(Look { claimed, looked: consensus::Looked::default() });
    }

    /// Whether there is something to look at.
    #[inline]
    pub(super) fn is_looking(&self) -> bool {
        self.look.is_some()
    }

    /// Looks at a part of that. It is true where the table that knows what lives says the same; what has ended
    /// here too may be written with its end, remembered here or not.
    #[cold]
    pub(super) fn look_on(&mut self, types: &Types, now_ms: u64) {
        let Some(mut look) = self.look.take() else { return };
        let table = self.known();
        let is_true = |record: &Record<'_>, behind: Option<&Record<'_>>| match record {
            // Its end was committed before: what lives here would be written with other contents.
            Record::Submitted { id, .. } if record.is_over(behind) => !table.lives(id.random),
            Record::Submitted { agent_type, .. } => {
                let is_type = |known: TypeIndex| {
                    known == types.unknown() || types.find(agent_type) == Some(known)
                };
                recorded(record, types.unknown())
                    .is_some_and(|copy| table.lives_as(&copy, now_ms, is_type))
            }
            Record::Key { key, id, body_hash, expires_unix_ms } => {
                let key = Key { bytes: key, body_hash: *body_hash };
                table.stands_for(key, id.random, *expires_unix_ms)
            }
            _ => true,
        };
        match look.claimed.look(&mut look.looked, LOOK_TOGETHER, is_true) {
            Some(is_true) => self.ledger.answer(look.claimed.number, is_true),
            None => self.look = Some(look),
        }
    }

    /// Writes down that fencing tokens will be given: whoever leads next gives higher ones.
    pub(super) fn reserve_tokens(&mut self) {
        let below = self.table.next_token() + TOKENS_TOGETHER;
        let partition = self.table.partition();
        if below >= TOKENS_END {
            // Reservations as they are made use them up in no lifetime: somebody who lies wrote one.
            tracing::error!(
                partition,
                "there are no fencing tokens any more: the partition stands still"
            );
            return;
        }
        self.reserving = true;
        self.ledger.append(Record::Tokens { partition, below }, Logged::Tokens { below });
    }

    /// Tokens below a number may be given. The first time the table comes alive: what is unended
    /// waits for agents.
    pub(super) fn may_give_tokens(&mut self, below: u64, now_ms: u64) {
        assert!(self.reserving, "only a reservation that this reign has committed is told");
        self.reserving = false;
        self.table.may_give_tokens(below);
        if self.role == Role::Following {
            self.role = Role::Leading;
            self.table.replay_over(now_ms);
            // There may be more than are kept: fewer are by now, or the log of the leader before
            // ended between a death and the purge that followed.
            self.log_purged();
        }
    }

    /// Writes down which dead letters were purged: without that they would come back when fewer
    /// are left.
    pub(super) fn log_purged(&mut self) {
        while let Some(random) = self.table.next_purged() {
            let id = TaskId { partition: self.table.partition(), random };
            tracing::warn!(%id, "a dead letter was forgotten: there were more than tasks.dead_max");
            self.ledger.append(Record::Forgotten { id }, Logged::Noted);
        }
    }

    /// Reserves further tokens in good time.
    #[inline]
    pub(super) fn renew_tokens(&mut self) {
        let is_low = self.table.tokens_left() < TOKENS_TOGETHER / 2;
        if is_low && !self.reserving && self.role == Role::Leading {
            self.reserve_tokens();
        }
    }

    /// Where nodes agree on keys: says who takes up all that one may, writes those keys again that were
    /// asked for again, and that those which expired long enough ago are forgotten.
    #[inline]
    pub(super) fn tend_keys(&mut self, now_ms: u64) {
        if !self.table.is_agreed() {
            return;
        }
        self.ledger.crowd(match self.before {
            Before::Lost => Crowd::UNKNOWN,
            Before::Table(_) | Before::Nothing => self.known().crowd(),
        });
        if self.role != Role::Leading {
            return;
        }
        let partition = self.table.partition();
        while let Some((moving, Live::Key { key, random, expires_unix_ms })) =
            self.table.next_asked_again()
        {
            let id = TaskId { partition, random };
            let (key, body_hash) = (key.bytes, key.body_hash);
            let record = Record::Key { key, id, body_hash, expires_unix_ms };
            self.ledger.append(record, Logged::Moved(moving));
        }
        let Some(first) = self.table.first_expiry_unix_ms() else { return };
        let upto_unix_ms = self.ledger.unix_ms(now_ms).saturating_sub(EXPIRED_MARGIN_MS);
        if first > upto_unix_ms || self.expiring > 0 {
            return;
        }
        self.expiring = upto_unix_ms;
        let record = Record::Expired { partition, upto_unix_ms };
        self.ledger.append(record, Logged::Expired { upto_unix_ms });
    }

    /// That is written down.
    pub(super) fn forget_expired(&mut self, upto_unix_ms: u64) {
        self.expiring = 0;
        self.table.forget_expired(upto_unix_ms);
    }

    /// Begins again with an empty table, as one that follows; the tables that are left. To let go of one takes as
    /// long as there are tasks in it.
    pub(super) fn step_down(&mut self, is_replaced: bool) -> [Option<Box<TaskTable>>; 2] {
        self.role = Role::Following;
        (self.reserving, self.expiring) = (false, 0);
        let anew = self.table.anew();
        let mut table = Some(Box::new(std::mem::replace(&mut self.table, anew)));
        let mut before = None;
        if self.table.is_agreed() {
            match self.before {
                _ if is_replaced => {
                    before = std::mem::replace(&mut self.before, Before::Lost).table();
                }
                Before::Nothing => {
                    if let Some(mut table) = table.take() {
                        table.take_back_requeues();
                        self.before = Before::Table(table);
                    }
                }
                // It is the one that has not read all.
                Before::Table(_) | Before::Lost => {}
            }
        }
        self.backlog.forget();
        [table, before]
    }

    pub(super) fn reserve(
        &mut self,
        now_ms: u64,
        count: u32,
        priority: Priority,
        keys: &[(String, u64)],
    ) -> Result<(), Error> {
        let is_agreed = self.table.is_agreed();
        if !is_agreed {
            self.check_leading()?;
        }
        if !self.ledger.has_room() {
            self.table.count_refused(count as usize);
            return Err(Error::Backpressure(LOG_RETRY_MS));
        }
        for (key, body_hash) in keys {
            let key = Key { bytes: key.as_bytes(), body_hash: *body_hash };
            let conflicts = match is_agreed {
                true => self.table.conflicts_with_agreed(key),
                false => self.table.conflicts(now_ms, key),
            };
            if conflicts {
                return Err(key_conflict());
            }
        }
        if !is_agreed {
            return self.table.reserve(now_ms, count as usize, priority);
        }
        let Some(taken) = self.taken() else {
            self.table.count_refused(count as usize);
            return Err(Error::Backpressure(READ_RETRY_MS));
        };
        self.table.reserve_to_ask(now_ms, count as usize, taken, self.asking.len())
    }

    /// Whether tasks may be changed here.
    #[inline]
    pub(super) fn check_leading(&self) -> Result<(), Error> {
        match self.role {
            Role::Leading => Ok(()),
            Role::Following => Err(Error::NotLeader(None)),
        }
    }

    /// Whether a submission may be asked for: the task that its key stands for already, if there is one.
    pub(super) fn may_ask(
        &mut self,
        now_ms: u64,
        submission: &Submission<'_>,
    ) -> Result<Option<u128>, Error> {
        // By the table of a log that was replaced and is not read there would be room for all.
        let taken = self.taken();
        let Some(taken) = taken.filter(|_| self.ledger.has_room()) else {
            if submission.reserved {
                self.table.release(1);
            }
            self.table.count_refused(1);
            let retry_ms = if taken.is_some() { LOG_RETRY_MS } else { READ_RETRY_MS };
            return Err(Error::Backpressure(retry_ms));
        };
        // Who follows may be told its log anew, and know of keys that were forgotten, or that never stood.
        let knows_keys = self.role == Role::Leading;
        self.table.may_ask(now_ms, submission, taken, self.asking.len(), knows_keys)
    }

    /// Whether the log takes what must go there.
    #[inline]
    pub(super) fn has_room_for(&mut self, transient: bool, reserved: bool) -> Result<(), Error> {
        if let Err(error) = self.check_leading() {
            if reserved {
                self.table.release(1);
            }
            return Err(error);
        }
        if transient || self.ledger.has_room() {
            return Ok(());
        }
        if reserved {
            self.table.release(1);
        }
        self.table.count_refused(1);
        Err(Error::Backpressure(LOG_RETRY_MS))
    }

    /// Tasks that the node waits for before it ends; with a durable log those that run or wait for
    /// the log.
    pub(super) fn unfinished(&self) -> u64 {
        match self.ledger.is_durable() {
            true => {
                let waiting = self.ledger.pending() + self.asking.waiting();
                self.table.counters().running + waiting as u64
            }
            false => self.table.unended() as u64,
        }
    }

    /// Writes a task's end to the log; it is told when the log has committed it.
    pub(super) fn log_end(&mut self, key: u32, now_ms: u64) {
        if self.table.is_transient(key) {
            return self.ledger.at_once(Logged::Ended { key });
        }
        self.table.ends_at(key, now_ms);
        let (id, status, body) = self.table.end_of(key);
        let attempts = self.table.attempts(key);
        let ended_unix_ms = self.ledger.unix_ms(now_ms);
        let record = Record::Ended { id, status, attempts, ended_unix_ms, body };
        self.ledger.append(record, Logged::Ended { key });
    }

    /// Tells who ended an attempt when what came of it is committed.
    pub(super) fn told_when_committed(&mut self, lease: Lease, asker: Watcher, place: u32) {
        let random = self.table.id(lease.key).random;
        self.ledger.after_all(Logged::Told { random, asker, place });
    }

    /// Ends an attempt; `None`, and nothing is changed, when the task has gone on without it.
    pub(super) fn end_attempt(
        &mut self,
        now_ms: u64,
        lease: Lease,
        result: Result<&[u8], (&str, bool)>,
    ) -> Option<Failed> {
        let ended = match result {
            Ok(result) => self.table.complete(lease, result).map(|()| Failed::Last),
            Err((error, retry)) => self.table.fail(lease, now_ms, error, retry),
        };
        let ended = ended.ok()?;
        if ended == Failed::Last {
            self.log_end(lease.key, now_ms);
        }
        Some(ended)
    }

    /// Tells of the tasks that had to make room.
    #[inline]
    pub(super) fn end_evicted(&mut self) {
        while let Some(key) = self.table.next_evicted() {
            self.ledger.at_once(Logged::Ended { key });
        }
    }
}

/// Brings a table further by what somebody else wrote; what became of what was asked for here.
fn follow(
    table: &mut TaskTable,
    asking: &mut Asking,
    role: Role,
    foreign: &Foreign,
    types: &Types,
    cores: CoreIndex,
    now_ms: u64,
) -> Vec<(Asker, TaskId, Settled)> {
    let mut settled = Vec::new();
    let followed = foreign.records_and_next(|place, record, next| {
        let (is_agreed, asker) = (table.is_agreed(), asker_of(table, &record));
        let is_over = record.is_over(next);
        let type_of = |name: &str| match is_agreed {
            true => types.learn_agreed(asker, is_over, name, cores),
            false => types.learn(name, cores).unwrap_or(types.unknown()),
        };
        match record {
            Record::Submitted { id, is_asked: true, agent_type, .. } => {
                let Some(task) = recorded(&record, type_of(agent_type)) else { return };
                let asker = asking.take(id);
                let watcher = asker.as_ref().and_then(Asker::watcher);
                let is_alive = role == Role::Leading;
                let became = table.settle(local(place), &task, now_ms, is_alive, watcher);
                settled.extend(asker.map(|asker| (asker, id, became)));
            }
            // Who asked stands behind what is read from the disk.
            Record::Order { .. } => {}
            record => {
                assert!(role == Role::Following, "who leads hears of no others' {record:?}");
                replay(table, type_of, place, &record, now_ms);
            }
        }
    });
    followed.expect("a block that is committed was checked when it arrived");
    settled
}

/// The place of who asked for a record's task among the nodes, and how many there are.
pub(super) fn asker_of(table: &TaskTable, record: &Record<'_>) -> Option<(usize, usize)> {
    match record {
        Record::Submitted { id, .. } => table.asker_of(id.random),
        _ => None,
    }
}

fn local(place: consensus::Place) -> Place {
    Place { generation: place.generation, offset: place.offset }
}

/// Brings a table that follows its log further by one record.
pub fn replay(
    table: &mut TaskTable,
    mut type_of: impl FnMut(&str) -> TypeIndex,
    place: consensus::Place,
    record: &Record<'_>,
    now_ms: u64,
) {
    let place = local(place);
    match *record {
        Record::Submitted { agent_type, is_asked, .. } => {
            let type_index = type_of(agent_type);
            match recorded(record, type_index) {
                Some(task) if is_asked => drop(table.settle(place, &task, now_ms, false, None)),
                Some(task) => table.replay_submitted(place, &task, now_ms),
                None => {}
            }
        }
        Record::Ended { id, status, attempts, ended_unix_ms, body } => {
            table.replay_ended(id.random, status, attempts, ended_unix_ms, body);
        }
        Record::Requeued { id } => table.replay_requeued(id.random),
        Record::Key { key, id, body_hash, expires_unix_ms } => {
            let key = Key { bytes: key, body_hash };
            table.replay_key(place, key, id.random, expires_unix_ms, now_ms);
        }
        Record::Forgotten { id } => table.replay_forgotten(id.random),
        Record::Tokens { below, .. } => table.replay_tokens(below),
        Record::Expired { upto_unix_ms, .. } => table.forget_expired(upto_unix_ms),
        Record::Compacted { .. } | Record::Order { .. } => {}
    }
}

/// A key stands for another task.
pub(super) fn key_conflict() -> Error {
    Error::Conflict("key: another task was submitted with it before".into())
}
