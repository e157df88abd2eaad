//! What a replica's log comes to when it is read back: committed entries, once and in order.

use super::*;
use crate::consensus::{
    damage::Damage,
    raft::{
        HardState, Members, Point, Restore,
        blocks::{encode_hard_state, point_bytes},
    },
    recovery::{self, Recover, Recovery},
    survey::survey,
};

/// What a recovery handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Task(u128),
    Anew,
}

/// A log that is written block by block.
struct Replica {
    disk: SimulatedDisk,
    log: Log,
}

impl Replica {
    fn new() -> Self {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        Self { disk, log }
    }

    fn put(&mut self, kind: BlockKind, term: u64, index: u64, body: &[u8]) {
        let head = BlockHead::new(kind, 0, term, index, body);
        let place = self.log.writer.offer(&head, body).expect("the disk works");
        assert!(place.is_some(), "there is room");
        self.log.writer.write().expect("the disk works");
        self.log.help();
    }

    /// An entry that ends a task.
    fn entry(&mut self, term: u64, index: u64, number: u128) {
        self.put(BlockKind::Records, term, index, &encoded(ended(number, b"x")));
    }

    fn commit(&mut self, term: u64, commit: u64) {
        let body = encode_hard_state(HardState { term, vote: 1, commit, ..HardState::default() });
        self.put(BlockKind::HardState, 0, 0, &body);
    }

    fn point(&mut self, kind: BlockKind, index: u64, voters: &[u64]) {
        let members = Members::of_voters(voters);
        self.put(kind, 0, 0, &point_bytes(&Point { index, term: 1, members }));
    }

    /// Reads it back as a member of these voters.
    fn read(&self, voters: &[u64]) -> (Vec<Told>, Result<Vec<Restore>, Damage>) {
        let mut told = Vec::new();
        let mut hand_on = |replayed: recovery::Replayed<'_>| {
            told.push(match replayed {
                recovery::Replayed::Record(_, 0, record, _) => Told::Task(record.id().random),
                recovery::Replayed::Record(_, partition, ..) => panic!("partition {partition}"),
                recovery::Replayed::Anew(_) => Told::Anew,
            });
        };
        let mut recovery = Recovery::new(1, voters, &mut hand_on);
        let mut broken = None;
        let found = survey(&mut self.disk.clone(), &mut |place, block| {
            if broken.is_none() {
                broken = recovery.take(place, block).err();
            }
        });
        assert_eq!(found.expect("the disk can be read").findings, []);
        let groups = broken.map_or_else(|| Ok(recovery.finish(1)), Err);
        (told, groups)
    }

    fn groups(&self, voters: &[u64]) -> (Vec<Told>, Restore) {
        let (told, groups) = self.read(voters);
        (told, groups.expect("nothing is damaged").remove(0))
    }
}

#[test]
fn what_one_replica_alone_wrote_is_committed() {
    let mut replica = Replica::new();
    for number in 2..6 {
        replica.entry(1, number, number.into());
    }
    let (told, group) = replica.groups(&[1]);
    assert_eq!(told, [2, 3, 4, 5].map(Told::Task));
    assert_eq!((group.last(), group.told_upto()), (5, 5));
}

#[test]
fn what_is_overwritten_before_it_is_committed_is_never_told() {
    let mut replica = Replica::new();
    replica.entry(1, 2, 20);
    replica.entry(1, 3, 30);
    replica.entry(1, 4, 40);
    replica.commit(1, 2);
    // Another leader has something else at 3.
    replica.entry(2, 3, 31);
    let (told, group) = replica.groups(&[1, 2, 3]);
    assert_eq!(told, [Told::Task(20)]);
    assert_eq!((group.last(), group.told_upto(), group.state().term), (3, 2, 1));
    replica.commit(2, 3);
    replica.entry(2, 4, 41);
    let (told, group) = replica.groups(&[1, 2, 3]);
    assert_eq!(told, [20, 31].map(Told::Task));
    assert_eq!((group.last(), group.told_upto()), (4, 3), "the last one may be overwritten yet");
}

#[test]
fn a_log_that_was_replaced_begins_anew_behind_its_point() {
    let mut replica = Replica::new();
    replica.entry(1, 2, 20);
    replica.commit(1, 2);
    replica.point(BlockKind::Installed, 50, &[1, 2, 3]);
    replica.entry(1, 51, 510);
    replica.commit(1, 51);
    let (told, group) = replica.groups(&[1, 2, 3]);
    assert_eq!(told, [Told::Task(20), Told::Anew, Told::Task(510)]);
    assert_eq!((group.last(), group.told_upto()), (51, 51));
}

#[test]
fn a_compaction_keeps_what_is_behind_it_and_tells_nothing() {
    let mut replica = Replica::new();
    for number in 2..6 {
        replica.entry(1, number, number.into());
    }
    replica.commit(1, 5);
    replica.point(BlockKind::Compacted, 4, &[1, 2, 3]);
    let (told, group) = replica.groups(&[1, 2, 3]);
    assert_eq!(told, [2, 3, 4, 5].map(Told::Task));
    assert_eq!((group.last(), group.told_upto()), (5, 5));
}

/// The entry that gives node 2 a vote.
const PROMOTION: [u8; 6] = [0x12, 4, 0x08, 0, 0x10, 2];

#[test]
fn behind_a_change_of_the_membership_nothing_is_committed_by_being_written() {
    let mut replica = Replica::new();
    replica.entry(1, 2, 20);
    replica.entry(1, 3, 30);
    replica.put(BlockKind::Change, 1, 4, &PROMOTION);
    replica.entry(1, 5, 50);
    let (told, group) = replica.groups(&[1]);
    assert_eq!(told, [20, 30].map(Told::Task), "two votes are needed for what follows");
    assert_eq!((group.last(), group.told_upto()), (5, 3));
    // The point is told again, of a time when there was one voter.
    replica.point(BlockKind::Compacted, 2, &[1]);
    replica.entry(1, 6, 60);
    assert_eq!(replica.groups(&[1]).0, [20, 30].map(Told::Task));
    // Another leader overwrites what was never committed.
    replica.commit(2, 4);
    replica.entry(2, 5, 51);
    replica.commit(2, 5);
    let (told, group) = replica.groups(&[1]);
    assert_eq!(told, [20, 30, 51].map(Told::Task));
    assert_eq!((group.last(), group.told_upto()), (5, 5));
    // A point behind the change tells that it holds.
    replica.point(BlockKind::Compacted, 5, &[1, 2]);
    replica.entry(2, 6, 61);
    assert_eq!(replica.groups(&[1]).0, [20, 30, 51].map(Told::Task));
}

#[test]
fn one_voter_of_two_who_remains_goes_on_alone_behind_the_next_point() {
    let mut replica = Replica::new();
    replica.entry(1, 2, 20);
    let removal = [0x12, 4, 0x08, 1, 0x10, 2];
    replica.put(BlockKind::Change, 1, 3, &removal);
    replica.commit(1, 3);
    replica.entry(1, 4, 40);
    assert_eq!(replica.groups(&[1, 2]).0, [Told::Task(20)], "the group commits it when it leads");
    replica.commit(1, 4);
    replica.point(BlockKind::Compacted, 3, &[1]);
    replica.entry(1, 5, 50);
    let (told, group) = replica.groups(&[1, 2]);
    assert_eq!(told, [20, 40, 50].map(Told::Task));
    assert_eq!(group.told_upto(), 5);
    // Whom the group went on without commits nothing by writing it.
    let mut replica = Replica::new();
    replica.point(BlockKind::Installed, 9, &[2]);
    replica.entry(1, 10, 100);
    assert_eq!(replica.groups(&[1, 2]).0, [Told::Anew]);
}

#[test]
fn what_cannot_be_is_named() {
    let mut replica = Replica::new();
    replica.entry(1, 2, 20);
    replica.entry(1, 4, 40);
    let (_, groups) = replica.read(&[1]);
    assert!(matches!(groups, Err(Damage::Entries { partition: 0, .. })), "an entry is missing");

    let mut replica = Replica::new();
    replica.put(BlockKind::HardState, 0, 0, b"short");
    assert_eq!(replica.read(&[1]).1.err(), Some(Damage::BlockBody));
    let mut replica = Replica::new();
    replica.put(BlockKind::Compacted, 0, 0, b"no point");
    assert_eq!(replica.read(&[1]).1.err(), Some(Damage::BlockBody));
}
