//! The log in memory, and how it is built again from what was written.

use super::*;
use crate::consensus::{
    place::Place,
    raft::{entries::Entries, restore::Broken},
};
use raft::eraftpb::Entry;

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry { index, term, data: block(index, bytes), ..Entry::default() }
}

fn log(voters: &[u64]) -> Entries {
    let point = Point { index: 1, term: 1, members: Members::of_voters(voters) };
    Entries::new(point, HardState { term: 1, vote: 0, commit: 1, ..HardState::default() }, 1000)
}

fn stored() -> Stored {
    Stored { place: Place { generation: 1 << 40, offset: 7 }, bytes: 100 }
}

#[test]
fn entries_that_conflict_are_cut_off() {
    let mut log = log(&[1, 2, 3]);
    log.append(&[entry(2, 1, 10), entry(3, 1, 10), entry(4, 2, 10)]);
    log.append(&[entry(3, 3, 10)]);
    assert_eq!(
        (log.last(), log.term_at(2), log.term_at(3), log.term_at(4)),
        (3, Some(1), Some(3), None)
    );
    // Where the old one was written does not count any more.
    log.placed(3, 1, stored().place);
    assert_eq!(log.stored(3).expect("it is held").1.place, Place::default());
    log.placed(3, 3, stored().place);
    assert_eq!(log.stored(3).expect("it is held").1.place, stored().place);
}

#[test]
fn what_was_not_told_stays_in_memory_and_the_rest_is_bounded() {
    let mut log = log(&[1, 2, 3]);
    for index in 2..102 {
        log.append(&[entry(index, 1, 100)]);
    }
    assert_eq!(log.cached_bytes(), 100 * 164);
    log.told(90);
    assert_eq!(log.cached_bytes(), 11 * 164, "those that were not told");
    log.told(101);
    assert_eq!(log.cached_bytes(), 6 * 164, "a thousand bytes");
    assert!(log.compact(100));
    assert_eq!((log.cached_bytes(), log.first(), log.term_at(100)), (164, 101, Some(1)));
    assert!(!log.compact(100), "it was done");
}

#[test]
fn a_log_is_built_again_as_it_was_written() {
    let mut restore = Restore::with_voters(0, &[1, 2, 3]);
    for (index, term) in [(2, 1), (3, 1), (4, 1), (3, 2), (4, 2)] {
        restore.entry(index, term, stored(), None).expect("it fits");
    }
    restore.hard_state(HardState { term: 2, vote: 3, commit: 4, ..HardState::default() });
    let (log, _) = restore.finish(0).expect("it is whole");
    assert_eq!((log.last(), log.term_at(2), log.term_at(4)), (4, Some(1), Some(2)));
    assert_eq!(log.stored(4), Some((Kind::Normal, stored())));
}

#[test]
fn a_log_whose_oldest_segments_were_freed_begins_where_its_compaction_says() {
    let members = Members::of_voters(&[1, 2]);
    let mut restore = Restore::with_voters(0, &[1, 2, 3]);
    for (index, term) in [(10, 3), (11, 3), (9, 4), (10, 4)] {
        restore.entry(index, term, stored(), None).expect("it fits");
    }
    restore.compacted(Point { index: 9, term: 4, members: members.clone() }).expect("it is held");
    // It is told again.
    restore.compacted(Point { index: 9, term: 4, members: members.clone() }).expect("it is known");
    restore.entry(11, 5, stored(), None).expect("it fits");
    let (log, _) = restore.finish(0).expect("it is whole");
    assert_eq!((log.first(), log.last(), log.members()), (10, 11, &members));
    assert_eq!(log.hard_state().commit, 9, "what is compacted was committed");
}

#[test]
fn what_cannot_be_a_log_is_refused_with_the_reason() {
    let fresh = || Restore::with_voters(0, &[1]);
    let mut gap = fresh();
    gap.entry(2, 1, stored(), None).expect("it fits");
    assert_eq!(gap.entry(4, 1, stored(), None), Err(Broken::Gap { expected: 3, found: 4 }));
    assert_eq!(gap.entry(1, 1, stored(), None), Err(Broken::Compacted(1)));
    assert_eq!(gap.entry(3, 1, stored(), Some(&[0xff])), Err(Broken::Change(3)));
    gap.hard_state(HardState { term: 1, vote: 0, commit: 9, ..HardState::default() });
    assert_eq!(gap.finish(0).err(), Some(Broken::Short { commit: 9, last: 2 }));
    let mut floating = fresh();
    floating.entry(50, 1, stored(), None).expect("what was before may follow");
    floating.compacted(point(40)).expect("it was told when there were entries behind it");
    assert_eq!(floating.finish(0).err(), Some(Broken::NoPoint(50)));
}

fn point(index: u64) -> Point {
    Point { index, term: 1, members: Members::of_voters(&[1]) }
}

#[test]
fn a_log_whose_oldest_segments_were_freed_may_begin_with_points_that_are_older_than_its_entries() {
    let mut restore = Restore::with_voters(0, &[1]);
    restore.compacted(point(40)).expect("it may be the first that is left");
    restore.entry(50, 1, stored(), None).expect("those between were freed");
    restore.compacted(point(45)).expect("it was told when there were entries behind it");
    restore.entry(51, 1, stored(), None).expect("it follows");
    restore.compacted(point(49)).expect("this one is right before the first");
    let (log, _) = restore.finish(0).expect("it is whole");
    assert_eq!((log.first(), log.last()), (50, 51));

    let mut gap = Restore::with_voters(0, &[1]);
    gap.compacted(point(40)).expect("it may be the first that is left");
    gap.entry(41, 1, stored(), None).expect("it follows");
    assert_eq!(gap.entry(43, 1, stored(), None), Err(Broken::Gap { expected: 42, found: 43 }));
}

#[test]
fn partitions_that_are_not_all_there_are_refused() {
    let of = |partition| Restore::with_voters(partition, &[1]);
    assert!(Driver::new(settings(1, 0), vec![of(0), of(2)]).is_err());
    assert!(Driver::new(settings(1, 0), vec![]).is_err());
    assert!(Driver::new(settings(0, 0), vec![of(0)]).is_err());
    // A machine with many cores has many partitions.
    assert!(Driver::new(settings(1, 0), (0..200).map(of).collect()).is_ok());
}
