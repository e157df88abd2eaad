//! A core of a cluster with one partition, and this thread in the place of the log's.

use super::{
    core::{Partitions, Shard, Start},
    doors::{Outcomes, prepare},
    partition::Beginning,
    remote::Seat,
    types::{TypeSpec, Types},
};
use crate::{
    config::Config,
    consensus::{
        Claimed, Foreign, Place, Record, TaskLog,
        block::Block,
        cluster::{Cluster, Leaders},
        lane::{LaneEnd, LaneSettings, Signals, lane},
    },
    runtime::{doorbell::Doorbell, mesh::mesh},
    task::{Among, Origin, TableLimits, TaskTable},
    wire::{
        api::{AgentKind, Error, Priority, TaskSpec, TaskStatus, TaskView},
        id::TaskId,
        letter::{Request, Response},
        names::{Names, Naming},
    },
};
use futures_channel::oneshot::{Receiver, channel};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Instant,
};

pub(super) use crate::consensus::lane::Told;

/// When the node started, Unix milliseconds.
pub(super) const UNIX_MS: u64 = 1_700_000_000_000;
/// Names what nodes that may lie ask for.
pub(super) const LIFE: u128 = 1 << 100 | 7;
/// Turns after which a core has surely done what there was.
const TURNS: usize = 20;

pub(super) struct Core {
    pub shard: Shard,
    pub(super) end: LaneEnd,
    pub signals: Arc<Signals>,
    /// The reads that left with blocks, the last one.
    read: u64,
    /// Generations below this hold nothing that lives, as the shard said.
    pub moved_before: u64,
    /// Entries up to this one are not needed, as the shard said.
    pub cleared: u64,
    /// What was asked for and not taken out here, block by block.
    pub asked: Vec<Vec<u8>>,
    offset: u32,
}

impl Core {
    pub fn new(tune: impl FnOnce(&mut Config)) -> Self {
        Self::of(false, tune)
    }

    /// One of nodes that may lie.
    pub fn agreed(tune: impl FnOnce(&mut Config)) -> Self {
        Self::of(true, tune)
    }

    fn of(agreed: bool, tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        tune(&mut config);
        let bell = Doorbell::new().expect("there are descriptors");
        let signals =
            Arc::new(Signals { has_room: AtomicBool::new(true), move_before: AtomicU64::new(0) });
        let settings = LaneSettings {
            block_bytes: 4000,
            record_bytes_max: 60_000,
            bell: bell.clone(),
            signals: signals.clone(),
        };
        let naming = agreed.then(|| Naming { names: Names::new(LIFE), asker: 0, next: 1 });
        let (log, end) = lane(0, &settings, naming, bell.clone());
        let origin = Origin {
            partition: 0,
            first_token: 1,
            durable: true,
            zero_unix_ms: UNIX_MS,
            among: agreed.then(|| Among { names: Names::new(LIFE), me: 0, nodes: 4 }),
        };
        let table = TaskTable::new(origin, TableLimits::from(&config.tasks));
        let leaders = Leaders::new(1, 1);
        // What doors go by; the shard goes by what it is told.
        leaders.set(0, Some(1));
        let (cluster, _) = Cluster::new(leaders, bell);
        let start = Start {
            at: Instant::now(),
            unix_ms: UNIX_MS,
            partitions: Partitions { keyed: 1, all: 1, clustered: true, agreed },
            cluster: Some(cluster),
            tables: vec![Beginning { log: TaskLog::Durable(log), table }],
            reader: None,
            seed: 1,
        };
        let port = mesh(1, 8).expect("there are descriptors").remove(0);
        let shard = Shard::new(port, Arc::new(Types::new(vec![nobody()])), &config, start);
        let mut core = Self {
            shard,
            end,
            signals,
            read: 0,
            moved_before: 0,
            cleared: 0,
            asked: Vec::new(),
            offset: 0,
        };
        core.turn();
        core
    }

    pub fn turn(&mut self) {
        for _ in 0..TURNS {
            self.shard.turn().expect("what it reads is there");
        }
    }

    pub fn tell(&mut self, told: Told) {
        self.end.tell(told);
        self.end.flush();
        assert!(!self.end.is_waiting(), "a shard that takes its turns takes what it is told");
        self.turn();
    }

    /// Somebody else's block is committed, in a generation.
    pub fn hear(&mut self, generation: u64, records: &[Record<'_>]) {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let place = Place { generation, offset: 4096 };
        self.tell(Told::Foreign(Foreign::new(bytes.into(), place)));
    }

    /// Whether the core finds true what somebody who leads says in a block of records.
    pub fn finds_true(&mut self, records: &[Record<'_>]) -> bool {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let number = self.end.answered().0 + 1;
        self.tell(Told::Claimed(Claimed::new(number, vec![bytes.into()])));
        let (answered, is_true) = self.end.answered();
        assert_eq!(answered, number);
        is_true
    }

    /// The records that were asked for since the last time; nothing may have been proposed.
    pub fn take_asked(&mut self) -> Vec<u8> {
        self.turn();
        assert!(self.take().is_none(), "who follows proposes nothing");
        std::mem::take(&mut self.asked).concat()
    }

    /// Comes to lead; the blocks of its beginning are committed.
    pub fn lead(&mut self, reign: u64) -> Vec<Vec<u8>> {
        self.tell(Told::Lead { reign });
        self.commit_all()
    }

    fn take(&mut self) -> Option<Block> {
        let mut block = self.end.incoming.pop()?;
        while block.is_request {
            self.cleared = self.cleared.max(block.cleared);
            self.asked.push(block.bytes().to_vec());
            self.tell(Told::Asked(block));
            block = self.end.incoming.pop()?;
        }
        self.read = self.read.max(block.read);
        self.moved_before = self.moved_before.max(block.moved_before);
        Some(block)
    }

    /// Commits what left, until nothing more does; the records of each block.
    pub fn commit_all(&mut self) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        self.turn();
        while let Some(mut block) = self.take() {
            blocks.extend((!block.is_empty()).then(|| block.bytes().to_vec()));
            self.offset += 4096;
            (block.generation, block.offset) = (9, self.offset);
            self.tell(Told::Committed(block));
        }
        blocks
    }

    /// This node is known to lead still: what was asked for up to now may be read.
    pub fn confirm(&mut self) {
        assert!(self.read > 0, "a read was asked for");
        self.tell(Told::Read(self.read));
    }

    pub fn ask(&mut self, request: &Request) -> Asked {
        let (answer, answered) = channel();
        self.shard.ask(0, request, 0, answer).expect("there is room");
        self.turn();
        Asked(answered)
    }

    pub fn status(&mut self, random: u128) -> Asked {
        self.ask(&Request::Task(id(random), 0, 0))
    }
}

/// A type whose agents are all elsewhere.
fn nobody() -> TypeSpec {
    TypeSpec {
        name: "nobody".to_owned(),
        kind: AgentKind::Remote,
        max_tasks: 1,
        min: 0,
        max: 1,
        warmup_delay_ms: 0,
        idle_timeout_ms: 0,
        capabilities: Default::default(),
        hosts: vec![0],
        factory: Arc::new(|| Box::new(Seat)),
    }
}

pub(super) struct Asked(Receiver<Result<Response, Error>>);

impl Asked {
    /// The answer; `None` while there is none.
    pub fn answer(&mut self) -> Option<Result<Response, Error>> {
        self.0.try_recv().expect("it is answered some time")
    }

    fn is_open(&mut self) -> bool {
        self.answer().is_none()
    }

    fn error(&mut self) -> &'static str {
        match self.answer() {
            Some(Err(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }
}

fn id(random: u128) -> TaskId {
    TaskId { partition: 0, random }
}

pub(super) fn submitted(random: u128, payload: &[u8]) -> Record<'_> {
    Record::Submitted {
        id: id(random),
        is_asked: false,
        agent_type: "nobody",
        priority: Priority::Normal,
        submitted_unix_ms: UNIX_MS - 1000,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: None,
        payload,
    }
}

pub(super) fn dead(random: u128) -> Record<'static> {
    let (attempts, ended_unix_ms, body) = (1, UNIX_MS - 500 + random as u64, &b"why"[..]);
    Record::Ended { id: id(random), status: TaskStatus::Dead, attempts, ended_unix_ms, body }
}

pub(super) fn done(random: u128) -> Record<'static> {
    let (attempts, ended_unix_ms, body) = (1, UNIX_MS - 500 + random as u64, &b"result"[..]);
    Record::Ended { id: id(random), status: TaskStatus::Done, attempts, ended_unix_ms, body }
}

pub(super) fn records_of(block: &[u8]) -> Vec<Record<'_>> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < block.len() {
        let (record, bytes) = Record::decode(&block[at..]).expect("it was encoded");
        records.push(record);
        at += bytes;
    }
    records
}

#[test]
fn a_question_waits_until_its_node_is_known_to_lead_and_is_refused_when_it_does_not() {
    let mut core = Core::new(|_| {});
    core.hear(1, &[submitted(1, b"x")]);
    assert_eq!(core.status(1).error(), "not_leader");
    core.lead(1);
    let mut first = core.status(1);
    core.commit_all();
    assert!(first.is_open());
    core.confirm();
    let is_queued = |view: &TaskView| view.status == TaskStatus::Queued;
    assert!(matches!(first.answer(), Some(Ok(Response::Task(view))) if is_queued(&view)));

    // One that waits when the reign ends is refused, and no confirmation of that reign counts for
    // a question of the next one.
    let mut second = core.status(1);
    core.commit_all();
    let late = core.read;
    core.tell(Told::Follow { is_replaced: false });
    assert_eq!(second.error(), "not_leader");
    core.hear(1, &[submitted(1, b"x")]);
    core.lead(2);
    let mut third = core.status(1);
    core.commit_all();
    core.tell(Told::Read(late));
    assert!(third.is_open());
    core.confirm();
    assert!(matches!(third.answer(), Some(Ok(Response::Task(_)))));
}

#[test]
fn a_leader_acts_only_after_its_reservation_of_fencing_tokens_is_committed() {
    let mut core = Core::new(|_| {});
    core.hear(1, &[submitted(1, b"x"), submitted(2, b"x"), dead(2)]);
    for reign in [1, 2] {
        core.tell(Told::Lead { reign });
        let requests = [
            Request::Task(id(1), 0, 0),
            Request::Cancel(id(1)),
            Request::Requeue(id(2)),
            Request::Reserve(0, 1, Priority::Low, Vec::new()),
        ];
        for request in requests {
            assert_eq!(core.ask(&request).error(), "not_leader", "{request:?}");
        }
        let (answer, mut answered) = channel();
        core.shard.submit_each(&[keyed(1)], answer).expect("there is room");
        core.turn();
        let outcomes = answered.try_recv().expect("it is answered").expect("it is answered");
        assert!(matches!(outcomes.expect("each by itself")[0], Err(Error::NotLeader(_))));
        // All that it writes before is the reservation.
        let block = core.take().expect("it reserves tokens");
        assert!(matches!(records_of(block.bytes())[..], [Record::Tokens { .. }]));
        assert!(core.take().is_none(), "nothing else leaves");
        match reign {
            // Another one leads meanwhile: it never acted.
            1 => {
                core.tell(Told::Lost(block));
                core.tell(Told::Follow { is_replaced: false });
                assert_eq!(core.status(1).error(), "not_leader");
                core.hear(1, &[submitted(1, b"x"), submitted(2, b"x"), dead(2)]);
            }
            _ => core.tell(Told::Committed(block)),
        }
    }
    assert!(core.status(1).is_open(), "it leads, and asks whether it does still");
}

/// A task with a key.
fn keyed(payload: u8) -> TaskSpec {
    let (agent_type, key) = ("nobody".to_owned(), Some("key".to_owned()));
    TaskSpec { agent_type, key, payload: vec![payload], ..TaskSpec::default() }
}

#[test]
fn that_a_key_stands_for_another_task_is_said_when_that_task_is_committed() {
    let mut core = Core::new(|_| {});
    core.lead(1);
    let submit = |core: &mut Core, payload| {
        let (answer, answered) = channel();
        core.shard.submit_each(&[keyed(payload)], answer).expect("there is room");
        core.turn();
        answered
    };
    let batch = |core: &mut Core| {
        let keys = vec![("nobody\0key".to_owned(), 7)];
        core.ask(&Request::Reserve(0, 1, Priority::Low, keys))
    };
    let outcome = |mut answered: Receiver<Outcomes>| -> Result<TaskId, Error> {
        let outcomes = answered.try_recv().expect("it is answered some time");
        outcomes.expect("it is answered").expect("each by itself").remove(0)
    };
    // The other task is lost with the reign: it never was one.
    let (first, second, mut third) = (submit(&mut core, 1), submit(&mut core, 2), batch(&mut core));
    assert!(third.is_open());
    let lost = core.take().expect("it is to be committed");
    core.tell(Told::Lost(lost));
    core.tell(Told::Follow { is_replaced: false });
    assert!(matches!(outcome(first), Err(Error::Uncertain(_))));
    assert!(matches!(outcome(second), Err(Error::NotLeader(_))));
    assert_eq!(third.error(), "not_leader");

    core.lead(2);
    let (first, second, mut third) = (submit(&mut core, 1), submit(&mut core, 2), batch(&mut core));
    core.commit_all();
    assert!(outcome(first).is_ok());
    assert!(matches!(outcome(second), Err(Error::Conflict(_))));
    assert_eq!(third.error(), "conflict");
}

#[test]
fn a_long_task_is_the_same_whether_it_was_prepared_or_not() {
    const BYTES: usize = 20_000;
    for is_prepared in [[true, false], [false, true], [true, true]] {
        let mut core = Core::new(|_| {});
        core.lead(1);
        let mut submit = |byte, is_prepared| {
            let mut spec = TaskSpec { payload: vec![byte; BYTES], ..keyed(0) };
            if is_prepared {
                prepare(&mut spec);
                assert!(spec.prepared.payload.is_some() && spec.prepared.body_hash.is_some());
            }
            let (answer, mut answered) = channel();
            core.shard.submit_each(&[spec], answer).expect("there is room");
            let blocks = core.commit_all();
            let payload = |record| match record {
                Record::Submitted { payload, .. } => Some(payload.to_vec()),
                _ => None,
            };
            let records = blocks.iter().flat_map(|block| records_of(block));
            let payloads: Vec<Vec<u8>> = records.filter_map(payload).collect();
            let outcomes = answered.try_recv().expect("it is answered some time");
            let outcomes = outcomes.expect("it is answered").expect("each by itself");
            (payloads, outcomes.into_iter().next().expect("one"))
        };
        let (payloads, first) = submit(1, is_prepared[0]);
        assert_eq!(payloads, [vec![1; BYTES]], "the log has all of it");
        assert_eq!(submit(1, is_prepared[1]), (Vec::new(), first), "it is not written again");
        assert!(matches!(submit(2, is_prepared[1]).1, Err(Error::Conflict(_))));
    }
}

#[test]
fn a_cancellation_is_told_when_the_log_has_it() {
    let mut core = Core::new(|_| {});
    core.hear(1, &[submitted(1, b"x"), submitted(2, b"x")]);
    core.lead(1);
    let mut cancelled = core.ask(&Request::Cancel(id(1)));
    assert!(cancelled.is_open(), "its record is not committed");
    core.commit_all();
    assert!(matches!(cancelled.answer(), Some(Ok(Response::Cancelled(true)))));
    let mut again = core.ask(&Request::Cancel(id(1)));
    core.commit_all();
    assert!(again.is_open(), "another leader may know better");
    core.confirm();
    assert!(matches!(again.answer(), Some(Ok(Response::Cancelled(false)))));

    let mut uncertain = core.ask(&Request::Cancel(id(2)));
    core.tell(Told::Follow { is_replaced: false });
    assert!(matches!(uncertain.answer(), Some(Err(Error::Uncertain(_)))));
}

#[test]
fn a_cancellation_of_what_is_about_to_end_waits_for_that_end() {
    let mut core = Core::new(|_| {});
    core.hear(1, &[submitted(1, b"x")]);
    core.lead(1);
    let mut first = core.ask(&Request::Cancel(id(1)));
    let mut second = core.ask(&Request::Cancel(id(1)));
    // The read is confirmed before the end is committed.
    let blocks: Vec<_> = std::iter::from_fn(|| core.take()).collect();
    core.confirm();
    assert!(first.is_open() && second.is_open(), "the end may still be lost");
    for block in blocks {
        core.tell(Told::Committed(block));
    }
    assert!(matches!(first.answer(), Some(Ok(Response::Cancelled(true)))));
    assert!(matches!(second.answer(), Some(Ok(Response::Cancelled(false)))));
}

#[test]
fn that_there_is_no_such_task_is_said_by_a_leader_that_leads_still() {
    for request in [Request::Cancel(id(9)), Request::Requeue(id(9))] {
        let mut core = Core::new(|_| {});
        core.lead(1);
        let mut asked = core.ask(&request);
        core.commit_all();
        assert!(asked.is_open(), "another leader may have it");
        core.confirm();
        assert_eq!(asked.error(), "not_found");
        let mut asked = core.ask(&request);
        core.commit_all();
        core.tell(Told::Follow { is_replaced: false });
        assert_eq!(asked.error(), "not_leader", "nothing was done");
    }
}

#[test]
fn a_dead_letter_is_queued_again_when_the_log_has_it_and_another_task_is_not() {
    let mut core = Core::new(|_| {});
    core.hear(1, &[submitted(1, b"x"), dead(1), submitted(2, b"x")]);
    core.lead(1);
    let mut asked = core.ask(&Request::Requeue(id(1)));
    assert!(asked.is_open());
    // What may still be lost is seen by nobody.
    let mut seen = core.status(1);
    let blocks: Vec<_> = std::iter::from_fn(|| core.take()).collect();
    core.confirm();
    let is = |status| move |view: &TaskView| view.status == status;
    let is_dead = is(TaskStatus::Dead);
    assert!(matches!(seen.answer(), Some(Ok(Response::Task(view))) if is_dead(&view)));
    for block in blocks {
        core.tell(Told::Committed(block));
    }
    assert!(matches!(asked.answer(), Some(Ok(Response::Done))));
    let mut seen = core.status(1);
    core.commit_all();
    core.confirm();
    let is_queued = is(TaskStatus::Queued);
    assert!(matches!(seen.answer(), Some(Ok(Response::Task(view))) if is_queued(&view)));
    let mut asked = core.ask(&Request::Requeue(id(2)));
    core.commit_all();
    assert!(asked.is_open(), "it may be a dead letter of another leader");
    core.confirm();
    assert_eq!(asked.error(), "conflict");
}

#[test]
fn dead_letters_that_a_new_leader_purges_are_purged_in_the_log() {
    let mut core = Core::new(|config| config.tasks.dead_max = 2);
    for random in [3, 1, 4, 2] {
        core.hear(1, &[submitted(random, b"x"), dead(random)]);
    }
    let blocks = core.lead(1);
    let mut forgotten = Vec::new();
    for record in blocks.iter().flat_map(|block| records_of(block)) {
        if let Record::Forgotten { id } = record {
            forgotten.push(id.random);
        }
    }
    assert_eq!(forgotten, [1, 2], "the ones that died first");
}
