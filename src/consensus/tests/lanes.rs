//! A shard's end of the log, with this thread in the place of the log's.

use super::*;
use crate::{
    consensus::{
        Committed, Foreign, News,
        lane::{BLOCKS_UNDER_WAY, LaneEnd, LaneLog, LaneSettings, Signals, Told, lane},
    },
    runtime::doorbell::Doorbell,
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const BLOCK_BYTES: usize = 1000;

fn ends() -> (LaneLog, LaneEnd, Arc<Signals>) {
    let signals =
        Arc::new(Signals { has_room: AtomicBool::new(true), move_before: AtomicU64::new(0) });
    let settings = LaneSettings {
        block_bytes: BLOCK_BYTES,
        record_bytes_max: 5000,
        bell: Doorbell::new().expect("there are descriptors"),
        signals: signals.clone(),
    };
    let (log, end) = lane(3, &settings, None, Doorbell::new().expect("there are descriptors"));
    (log, end, signals)
}

/// Hands a block back as written at `offset` of generation 1.
fn give_back(end: &mut LaneEnd, mut block: Block, offset: u32) {
    (block.generation, block.offset) = (1, offset);
    end.tell(Told::Committed(block));
    end.flush();
    assert!(!end.is_waiting(), "the ring has room for all blocks");
}

fn next_committed(log: &mut LaneLog) -> Option<Committed> {
    match log.next_news()? {
        News::Committed(committed) => Some(committed),
        news => panic!("{news:?}"),
    }
}

#[test]
fn what_is_appended_leaves_at_the_end_of_a_turn_and_comes_back_with_its_place() {
    let (mut log, mut end, _) = ends();
    let (first, first_offset) = log.append(ended(1, b"one"));
    let (second, second_offset) = log.append(ended(2, b"two"));
    assert!(end.incoming.is_empty() && log.has_departures());
    log.flush();
    assert!(!log.has_departures());
    let block = end.incoming.pop().expect("it was sent");
    let bytes = [&[0; BLOCK_HEAD_BYTES], block.bytes()].concat();
    assert!(bytes[first_offset as usize..].starts_with(&encoded(ended(1, b"one"))));
    assert!(bytes[second_offset as usize..].starts_with(&encoded(ended(2, b"two"))));
    assert_eq!(next_committed(&mut log), None, "nobody has written it");
    give_back(&mut end, block, 8192);
    let committed = next_committed(&mut log).expect("it is committed");
    assert_eq!((first, committed.upto), (Position(1), second));
    let place = committed.place(second_offset);
    assert_eq!(place, Place { generation: 1, offset: 8192 + second_offset });
    assert_eq!(next_committed(&mut log), None);
}

#[test]
fn two_records_that_belong_together_share_a_block_wherever_the_first_one_falls() {
    let (first_body, second_body) = ([1; 300], [2; 400]);
    let pair_bytes = ended(1, &first_body).encoded_bytes() + ended(2, &second_body).encoded_bytes();
    for before in (0..BLOCK_BYTES).step_by(50) {
        let (mut log, mut end, _) = ends();
        let filler = vec![0; before];
        log.append(ended(9, &filler));
        let both = log.append_both([ended(1, &first_body), ended(2, &second_body)]);
        assert_eq!(both.map(|(position, _)| position), [Position(2), Position(3)]);
        log.flush();
        let mut blocks = std::iter::from_fn(|| end.incoming.pop());
        let block = blocks.find(|block| block.last() == Position(3)).expect("they were sent");
        let bytes = [&[0; BLOCK_HEAD_BYTES], block.bytes()].concat();
        for ((_, offset), record) in
            both.into_iter().zip([ended(1, &first_body), ended(2, &second_body)])
        {
            assert!(bytes[offset as usize..].starts_with(&encoded(record)), "after {before}");
        }
        assert!(block.bytes().len() >= pair_bytes);
    }
}

#[test]
fn a_lane_whose_blocks_do_not_come_back_refuses_submissions_and_takes_ends() {
    let (mut log, mut end, signals) = ends();
    let body = [1; 300];
    for turn in 0..BLOCKS_UNDER_WAY as u64 {
        assert!(log.has_room() && !log.has_departures(), "turn {turn}");
        log.append(ended(1, &body));
        log.flush();
    }
    let mut appended = log.append(ended(2, &body)).0;
    log.flush();
    assert!(log.has_room() && log.has_departures(), "the next block is filled meanwhile");
    for _ in 0..20 {
        appended = log.append(ended(3, &body)).0;
    }
    assert!(!log.has_room());

    let (mut committed, mut largest, mut offset) = (Position(0), 0, 0);
    while log.has_departures() || committed < appended {
        while let Some(block) = end.incoming.pop() {
            largest = largest.max(block.bytes().len());
            give_back(&mut end, block, offset);
            offset += 4096;
        }
        while let Some(news) = next_committed(&mut log) {
            assert!(news.upto > committed, "in the order in which they were appended");
            committed = news.upto;
        }
        log.flush();
    }
    assert_eq!(committed, appended);
    assert!(largest <= BLOCK_BYTES, "{largest}");
    assert!(log.has_room());
    signals.has_room.store(false, Ordering::Relaxed);
    assert!(!log.has_room(), "the log thread says so");
}

#[test]
fn a_record_larger_than_a_block_has_one_of_its_own_and_blocks_are_used_again() {
    let (mut log, mut end, _) = ends();
    let large = vec![1; 4000];
    let mut buffers = HashSet::new();
    for round in 0..1000 {
        log.append(ended(1, b"before"));
        log.append(ended(2, if round == 500 { &large } else { b"between" }));
        log.append(ended(3, b"after"));
        log.flush();
        let mut records = 0;
        while let Some(block) = end.incoming.pop() {
            records += (block.last().0 - 3 * round) - records;
            buffers.insert(block.bytes().as_ptr());
            give_back(&mut end, block, 0);
        }
        assert_eq!(records, 3);
        while next_committed(&mut log).is_some() {}
    }
    assert!(buffers.len() < 30, "{} buffers for 1002 blocks", buffers.len());
}

#[test]
fn a_shard_is_asked_once_to_move_and_its_answer_travels_behind_what_it_moved() {
    let (mut log, mut end, signals) = ends();
    assert_eq!(log.move_before(), 0);
    signals.move_before.store(5, Ordering::Release);
    assert_eq!(log.move_before(), 5);
    log.append(ended(1, b"moved"));
    log.moved_before(5);
    assert_eq!(log.move_before(), 0, "it has answered");
    log.flush();
    let block = end.incoming.pop().expect("it was sent");
    assert_eq!((block.last(), block.moved_before), (Position(1), 5));
    give_back(&mut end, block, 0);
    assert!(next_committed(&mut log).is_some());

    // With nothing to move the answer travels alone, and is no news to the shard.
    signals.move_before.store(6, Ordering::Release);
    log.moved_before(6);
    assert!(log.has_departures());
    log.flush();
    let block = end.incoming.pop().expect("it was sent");
    assert!(block.is_empty() && block.moved_before == 6);
    give_back(&mut end, block, 0);
    assert_eq!(next_committed(&mut log), None);
    log.append(ended(2, b"later"));
    log.flush();
    assert_eq!(end.incoming.pop().expect("it was sent").moved_before, 0);
}

#[test]
fn a_reign_that_is_over_loses_its_blocks_and_forgets_what_did_not_leave() {
    let (mut log, mut end, signals) = ends();
    signals.move_before.store(5, Ordering::Release);
    log.moved_before(5);
    assert_eq!(log.move_before(), 0);
    end.tell(Told::Lead { reign: 7 });
    end.flush();
    assert!(matches!(log.next_news(), Some(News::Lead)));
    let sent = log.append(ended(1, b"sent")).0;
    log.flush();
    log.append(ended(2, b"not sent"));
    let block = end.incoming.pop().expect("it was sent");
    assert_eq!((block.reign, block.last()), (7, sent));
    end.tell(Told::Lost(block));
    end.tell(Told::Follow { is_replaced: false });
    let foreign = {
        let mut block = Block::new(0);
        block.push(Position(1), ended(3, b"foreign"));
        Foreign::new(block.bytes().to_vec().into(), Place { generation: 2, offset: 4096 })
    };
    end.tell(Told::Foreign(foreign));
    end.tell(Told::Lead { reign: 9 });
    end.flush();
    assert!(matches!(log.next_news(), Some(News::Follow { .. })));
    assert!(!log.has_departures(), "what did not leave is forgotten");
    assert_eq!(log.move_before(), 5, "a table that begins again has moved out of nothing");
    let Some(News::Foreign(foreign)) = log.next_news() else { panic!("a foreign block comes") };
    let mut seen = Vec::new();
    foreign.records(|place, record| seen.push((place, record.id().random))).unwrap();
    assert_eq!(seen, [(Place { generation: 2, offset: 4096 + 32 }, 3)]);
    assert!(matches!(log.next_news(), Some(News::Lead)));
    let again = log.append(ended(4, b"again")).0;
    assert!(again > sent, "positions go on");
    log.flush();
    let block = end.incoming.pop().expect("it was sent");
    assert_eq!(block.reign, 9);
    give_back(&mut end, block, 8192);
    assert_eq!(next_committed(&mut log).map(|committed| committed.upto), Some(again));
    assert!(log.next_news().is_none());
}

#[test]
fn what_the_ring_has_no_room_for_waits_in_its_order() {
    let (mut log, mut end, _) = ends();
    let foreign =
        |offset| Told::Foreign(Foreign::new(Vec::new().into(), Place { generation: 1, offset }));
    for offset in 0..1000 {
        end.tell(foreign(offset));
        end.flush();
    }
    assert!(end.is_waiting());
    for offset in 0..1000 {
        let Some(News::Foreign(foreign)) = log.next_news() else { panic!("{offset} is lost") };
        assert_eq!(foreign.block().offset, offset);
        end.flush();
    }
    assert!(log.next_news().is_none() && !end.is_waiting());
}
