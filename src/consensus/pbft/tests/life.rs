//! What a group does in the normal case, and when nodes stop and start.

use super::{
    super::{Message, Settings, Write, group::Head, notes::Note},
    world::{World, block, settings},
};

#[test]
fn proposals_are_committed_everywhere_in_their_order() {
    for seed in 0..10 {
        let mut world = World::new(4, seed);
        world.is_fifo = seed % 2 == 0;
        world.collect();
        assert_eq!(world.leader(), Some(1));
        for ticket in 0..20 {
            world.run(10);
            world.group(1).propose(block(ticket), ticket).expect("it leads");
        }
        world.until(3000, |world| world.same_head() == Some(20));
        let tickets: Vec<_> = (0..20).map(|ticket| (ticket, ticket + 1)).collect();
        assert_eq!(world.node(1).tickets, tickets);
        for node in &world.nodes {
            let data: Vec<_> = node.told.values().map(|(_, data)| data.clone()).collect();
            assert_eq!(data, (0..20).map(block).collect::<Vec<_>>());
        }
        assert_eq!(world.group(1).status().stable, 16);
    }
}

#[test]
fn one_node_alone_commits() {
    let mut world = World::new(1, 1);
    world.collect();
    for ticket in 0..20 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(10);
    }
    world.until(1000, |world| world.same_head() == Some(20));
    world.kill(1);
    world.start(1);
    world.until(1000, |world| world.leader() == Some(1));
    assert_eq!(world.node(1).told.len(), 20);
}

#[test]
fn requests_of_clients_are_done_once_and_fast() {
    let mut world = World::new(4, 3);
    for number in 0..30 {
        let client = 100 + number % 3;
        let timestamp = world.client(client).submit(block(number));
        assert_eq!(timestamp, Some(number / 3 + 1));
        world.run(10);
    }
    world.run(100);
    // Messages are in any order, so that committed answers may be there before enough tentative ones.
    let mut fast = 0;
    for client in 100..103 {
        let finished = world.client(client).take_finished();
        assert_eq!(finished.len(), 10);
        fast += finished.iter().filter(|finished| finished.is_fast).count();
    }
    assert!(fast > 20, "{fast} of 30");
    let mut data: Vec<_> = world.node(2).told.values().map(|it| it.1.clone()).collect();
    data.sort();
    let mut expected: Vec<_> = (0..30).map(block).collect();
    expected.sort();
    assert_eq!(data, expected);
}

#[test]
fn what_was_committed_is_there_after_all_lost_power() {
    for seed in 0..20 {
        let mut world = World::new(4, seed);
        world.collect();
        for ticket in 0..30 {
            let leader = world.leader().expect("somebody leads");
            let _ = world.group(leader).propose(block(ticket), ticket);
            world.run(10);
        }
        let truth = world.truth.clone();
        assert!(truth.len() >= 30);
        (1..=4).for_each(|id| world.kill(id));
        world.network.clear();
        (1..=4).for_each(|id| world.start(id));
        world.until(5000, |world| world.leader().is_some() && world.same_head().is_some());
        for (index, entry) in truth {
            assert_eq!(world.node(3).told.get(&index), Some(&entry), "seed {seed}");
        }
        let leader = world.leader().expect("somebody leads");
        world.group(leader).propose(block(1000), 1000).expect("it leads");
        world.until(2000, |world| world.node(leader).tickets.iter().any(|it| it.0 == 1000));
    }
}

#[test]
fn a_primary_that_is_gone_is_replaced() {
    for seed in 0..20 {
        let mut world = World::new(4, seed);
        world.collect();
        for ticket in 0..12 {
            world.group(1).propose(block(ticket), ticket).expect("it leads");
        }
        for _ in 0..world.rng.usize(..120) {
            world.happen();
        }
        world.kill(1);
        world.until(3000, |world| world.leader().is_some_and(|leader| leader != 1));
        let leader = world.leader().expect("somebody leads");
        world.group(leader).propose(block(100), 100).expect("it leads");
        world.until(3000, |world| world.node(leader).tickets.iter().any(|it| it.0 == 100));
        world.start(1);
        world.until(5000, |world| world.same_head().is_some_and(|head| head > 0));
        for node in 1..=4 {
            let order: Vec<_> = world.node(node).told.values().map(|it| it.1.clone()).collect();
            let own = order.len() - 1;
            assert_eq!(order[..own], (0..own as u64).map(block).collect::<Vec<_>>());
        }
    }
}

#[test]
fn backups_that_start_again_take_up_what_they_had_accepted() {
    let mut tried = 0;
    for seed in 0..40 {
        let mut world = World::new(4, seed);
        world.collect();
        let propose = |world: &mut World, numbers: std::ops::RangeInclusive<u64>| {
            for number in numbers {
                world.group(1).propose(block(number), number).expect("it leads");
            }
        };
        propose(&mut world, 1..=3);
        world.run(100);
        world.kill(4);
        propose(&mut world, 4..=6);
        let has_all = |world: &mut World, id| world.group(id).status().accepted == 6;
        while !(2..=3).all(|id| has_all(&mut world, id) && world.node(id).unsynced.is_empty()) {
            assert!(world.happen(), "orders arrive");
        }
        if (1..=3).any(|id| world.group(id).status().committed.seq > 3) {
            continue;
        }
        tried += 1;
        // What they have said, and all that is under way, is lost.
        (2..=3).for_each(|id| world.kill(id));
        world.network.clear();
        (2..=3).for_each(|id| world.start(id));
        world.until(250, |world| world.same_head() == Some(6));
        assert!((1..=3).all(|id| world.group(id).status().counters.view_changes == 0));
    }
    assert!(tried > 5, "{tried} of 40 seeds come to it");
}

#[test]
fn replicas_know_when_no_quorum_is_there() {
    let mut world = World::new(4, 9);
    let know = |world: &mut World, of: &[u64], is_so: bool| {
        of.iter().all(|id| world.group(*id).status().has_quorum == is_so)
    };
    assert!(know(&mut world, &[1, 2, 3, 4], false), "nobody has heard of anybody");
    world.until(1_000, |world| know(world, &[1, 2, 3, 4], true));
    world.kill(4);
    world.run(5_000);
    assert!(know(&mut world, &[1, 2, 3], true), "three are enough");
    world.kill(3);
    // Nothing is asked for, so no view is left: the reports that do not come say it.
    world.until(5_000, |world| know(world, &[1, 2], false));
    world.start(3);
    world.until(10_000, |world| know(world, &[1, 2, 3], true));
    // One that has left the view alone, as a primary that starts again does, hears of the others' quorum.
    world.start(4);
    world.until(10_000, |world| know(world, &[1, 2, 3, 4], true));
    let leader = world.leader().expect("somebody leads");
    world.kill(leader);
    world.start(leader);
    world.until(1_000, |world| know(world, &[1, 2, 3, 4], true));
}

/// All have prepared the only entry, and a client has their tentative answers; no commit has arrived.
fn answered_without_commits() -> World {
    let mut world = World::new(4, 3);
    world.client(100).submit(block(1));
    let is_lost = |_, _, message: &Message| matches!(message, Message::Commit(..));
    world.until_without(2_000, is_lost, |world| world.client(100).under_way() == 0);
    world
}

/// Whether a node tells a client at once how far the log is.
fn tells_a_head(world: &mut World, id: u64) -> bool {
    world.deliver(100, id, Message::HeadAsk(1));
    world.collect();
    world.network.iter().any(|(from, _, it)| *from == id && matches!(it, Message::HeadTell(..)))
}

#[test]
fn a_replica_that_was_started_again_tells_no_head_before_what_it_answered_as_committed() {
    let settings = Settings { is_tentative: false, ..settings() };
    let mut world = World::with(4, 3, settings);
    world.client(100).submit(block(1));
    let is_there = |world: &mut World| world.group(2).log().last() == 1;
    world.until_without(2_000, |_, _, _| false, is_there);
    // Its answer is on the way, and that the entry is committed is not on its disk.
    world.node(2).unsynced.clear();
    world.kill(2);
    world.start(2);
    assert_eq!((world.group(2).log().last(), world.group(2).status().is_active), (0, true));
    assert!(!tells_a_head(&mut world, 2), "it waits for what it has prepared");
    world.client(100).ask_head();
    world.run(500);
    assert_eq!(world.client(100).head().map(|(seq, _)| seq), Some(1));
}

#[test]
fn a_replica_that_was_started_again_tells_no_head_before_what_it_answered_tentatively() {
    let mut world = answered_without_commits();
    world.kill(2);
    world.start(2);
    assert_eq!((world.group(2).log().last(), world.group(2).status().is_active), (0, true));
    assert!(!tells_a_head(&mut world, 2), "it waits for what it has prepared");
    world.client(100).ask_head();
    world.run(500);
    assert_eq!(world.client(100).head().map(|(seq, _)| seq), Some(1));
}

#[test]
fn a_replica_that_learns_of_a_later_view_tells_no_head_before_what_it_answered_tentatively() {
    let mut world = answered_without_commits();
    // The others commit it in the next view, and node 3 hears of the commit alone.
    world.cut = vec![3];
    world.network.clear();
    [1, 2, 4].into_iter().for_each(|id| world.group(id).leave(1));
    world.until(2_000, |world| world.group(2).log().last() == 1);
    let group = world.group(2);
    let proof = group.slots[&1].proof(1, 3).expect("it is committed");
    let batch = group.log().in_memory(1).cloned().expect("it is kept");
    assert_eq!(world.group(3).view(), 0);
    world.group(3).step(2, Message::Proven(vec![(proof, batch)])).expect("it is true");
    world.cut.clear();
    world.network.clear();
    assert!(!tells_a_head(&mut world, 3), "its disk does not have it yet");
    world.run(100);
    assert_eq!(world.group(3).log().last(), 1);
}

/// How far a log is committed comes to the disk late, and a checkpoint may be there before it. What such a replica has prepared
/// it shows when it leaves a view, or what was answered could be undone.
#[test]
fn a_replica_whose_log_ends_before_its_checkpoint_keeps_what_it_has_prepared() {
    let settings = Settings { checkpoint_every: 2, ..settings() };
    let mut world = World::with(4, 3, settings);
    let mut heads = Vec::new();
    for number in 1..=3 {
        world.client(100).submit(block(number));
        world.until(2_000, |world| world.group(2).log().last() == number);
        heads.push(world.group(2).log().chain());
    }
    world.until(2_000, |world| world.group(2).status().stable == 2);
    world.run(500);
    world.kill(2);
    let disk = &mut world.node(2).disk;
    let note = |write: &Write| match write {
        Write::Note(bytes) => Note::decode(bytes).ok(),
        Write::Entry { .. } => None,
    };
    disk.retain(|write| !matches!(note(write), Some(Note::Committed(_))));
    // What lies before the first entry was freed, the checkpoint that everybody begins with among it.
    let first = disk.iter().position(|write| matches!(write, Write::Entry { .. }));
    disk.drain(..first.expect("entries are on the disk"));
    let is_checkpoint = |write: &Write| matches!(note(write), Some(Note::Stable(_)));
    let at = disk.iter().position(is_checkpoint).expect("it is on the disk");
    let committed = Note::Committed(Head { seq: 1, chain: heads[0] });
    disk.insert(at, Write::Note(committed.encode()));
    world.start(2);
    let group = world.group(2);
    assert_eq!((group.log().last(), group.status().stable), (1, 0));
    let is_shown = |seq: &u64| group.slots.get(seq).is_some_and(|it| it.certificate.is_some());
    assert_eq!((1..).take_while(is_shown).count(), 3, "it has prepared them all");
    world.until(5_000, |world| world.group(2).log().last() == 3);
}
