//! What is committed takes a bounded number of bytes, and is read from the disk for whoever misses it.

use super::{
    super::{
        Batch, Dropped, Message, Restore, Settings,
        batch::{batch_bytes, link},
        group::Head,
        keys::Statement,
        notes::Note,
        slot::Proposal,
    },
    world::{World, keys, settings},
};
use crate::consensus::{engine::Limits, place::Place};
use bytes::Bytes;

/// Bytes of an operation.
const LARGE: usize = 10_000;

fn large(number: u64) -> Bytes {
    let mut data = number.to_le_bytes().to_vec();
    data.resize(LARGE, 7);
    data.into()
}

/// A world in which two batches have room in memory, and no checkpoint is made.
fn narrow() -> World {
    let cache_bytes = 2 * batch_bytes(1, LARGE);
    let limits = Limits { cache_bytes, ..settings().limits };
    World::with(4, 1, Settings { limits, checkpoint_every: 128, ..settings() })
}

#[test]
fn what_is_committed_above_the_stable_checkpoint_takes_no_more_memory_than_it_may() {
    let mut world = narrow();
    for ticket in 0..50 {
        world.group(1).propose(large(ticket), ticket).expect("it leads");
        world.run(10);
        for id in 1..=4 {
            let cached = world.group(id).status().cached_bytes;
            assert!(cached <= world.settings.limits.cache_bytes, "{cached}");
        }
    }
    let status = world.group(4).status();
    assert_eq!((status.stable, status.committed.seq), (0, 50));
}

#[test]
fn a_replica_that_misses_what_nobody_has_in_memory_is_shown_it() {
    let mut world = narrow();
    world.cut = vec![4];
    for ticket in 0..20 {
        world.group(1).propose(large(ticket), ticket).expect("it leads");
        world.run(10);
    }
    assert!(world.group(1).log().in_memory(1).is_none());
    world.cut = Vec::new();
    // It hears of nothing by other means than proofs.
    world.until(2_000, |world| {
        world.network.retain(|(_, to, it)| *to != 4 || matches!(it, Message::Proven(_)));
        world.group(4).log().last() == 20
    });
    assert_eq!(world.group(4).status().counters.transferred, 0);
}

#[test]
fn a_batch_is_read_for_a_member_once_at_a_time_and_only_when_it_is_the_committed_one() {
    let mut world = narrow();
    for ticket in 0..5 {
        world.group(1).propose(large(ticket), ticket).expect("it leads");
        world.run(10);
    }
    let digests = world.group(1).log().digests(1, 2, 2);
    let group = world.group(1);
    assert!(group.log().in_memory(2).is_none());
    assert_eq!(group.step(3, Message::BatchAsk(1, [9; 32])), Err(Dropped::Seq));
    assert_eq!(group.step(3, Message::BatchAsk(1, digests[0])), Ok(()));
    assert_eq!(group.step(3, Message::BatchAsk(2, digests[1])), Err(Dropped::Full));
    world.collect();
    let told = |(from, to, message): &(u64, u64, Message)| match message {
        Message::BatchTell(1, batch) => (*from, *to) == (1, 3) && batch.digest() == &digests[0],
        _ => false,
    };
    assert!(world.network.iter().any(told));
    assert_eq!(world.group(1).step(3, Message::BatchAsk(2, digests[1])), Ok(()));
}

#[test]
fn what_is_read_for_who_catches_up_is_bounded_in_a_tick_and_the_rest_waits_for_the_next() {
    let mut world = narrow();
    for ticket in 0..5 {
        world.group(1).propose(large(ticket), ticket).expect("it leads");
        world.run(10);
    }
    let told = |world: &World| {
        let is_told = |(from, to, message): &&(u64, u64, Message)| match message {
            Message::Entries(entries) => (*from, *to, entries.id) == (1, 3, 7),
            _ => false,
        };
        world.network.iter().filter(is_told).count()
    };
    let group = world.group(1);
    assert!(group.log().in_memory(1).is_none());
    // Others have used up what may be read.
    group.read_bytes = 0;
    assert_eq!(group.step(3, Message::EntriesAsk(7, 1, 3)), Ok(()));
    world.collect();
    assert_eq!(told(&world), 0);
    let now = world.now + 10;
    let group = world.group(1);
    let bytes = |seq| group.log().stored(seq).expect("it is there").bytes as usize;
    let read: usize = (1..=3).map(bytes).sum();
    group.read_bytes = 1 << 20;
    group.tick(now);
    assert_eq!(group.read_bytes, (1 << 20) - read);
    world.collect();
    assert_eq!(told(&world), 1);
}

#[test]
fn a_start_keeps_what_was_promised_before_what_only_came_and_nothing_that_is_committed() {
    let bytes_max = 4 * batch_bytes(1, LARGE);
    let mut restore = Restore::new(0, 128).with_bytes(bytes_max);
    let mut parent = [0; 32];
    let mut heads = Vec::new();
    let mut take = |restore: &mut Restore, seq, is_accepted| {
        let batch = Batch::own(0, 1, large(seq));
        let (place, bytes) = (Place { generation: 0, offset: seq as u32 }, batch.data().clone());
        restore.entry(seq, batch.heads().clone(), bytes, place).expect("it is one");
        let chain = link(&parent, seq, batch.digest());
        if is_accepted {
            let statement = Statement::PrePrepare { view: 0, seq, chain: &chain };
            let signature = keys(1, 4).sign(statement);
            let proposal = Proposal::new(0, seq, parent, *batch.digest(), signature);
            restore.note(&Note::Accepted(seq, proposal).encode()).expect("it is one");
        }
        parent = chain;
        heads.push(Head { seq, chain });
        assert!(restore.kept_bytes() <= bytes_max);
    };
    (1..=3).for_each(|seq| take(&mut restore, seq, true));
    // A transfer brought these.
    (4..=20).for_each(|seq| take(&mut restore, seq, false));
    let kept = |restore: Restore| {
        let slots = restore.finish(0).expect("it is whole").slots;
        let kept = slots.into_iter().filter(|(_, slot)| !slot.batches.is_empty());
        kept.map(|(seq, _)| seq).collect::<Vec<_>>()
    };
    assert_eq!(kept(restore.clone()), [1, 2, 3, 20]);
    restore.note(&Note::Committed(heads[1]).encode()).expect("it is one");
    assert_eq!(restore.kept_bytes(), 2 * batch_bytes(1, LARGE));
    assert_eq!(kept(restore), [3, 20]);
}

/// Power may be lost while entries are written again, of which the first ones are on the disk then. What lies before them is
/// freed later, so the others are not where they were any more.
#[test]
fn entries_whose_places_are_out_of_order_are_written_again() {
    let mut restore = Restore::new(0, 128);
    for (seq, offset) in [(1, 10), (2, 20), (3, 30), (1, 40), (2, 50)] {
        let batch = Batch::own(0, 1, large(seq));
        let (place, data) = (Place { generation: 0, offset }, batch.data().clone());
        restore.entry(seq, batch.heads().clone(), data, place).expect("it is one");
    }
    let slots = restore.finish(1 << 20).expect("it is whole").slots;
    let written = |seq| slots[&seq].written.map(|written| written.place.offset);
    assert_eq!([1, 2, 3].map(written), [Some(40), Some(50), None]);
    assert_eq!(slots[&3].batches.len(), 1, "it is there to be written");
}
