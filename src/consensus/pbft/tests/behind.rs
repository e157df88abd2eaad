//! A replica that is behind, and those that help it.

use super::{
    super::{Batch, Dropped, Message, Write, message::Entries},
    world::{World, block},
};
use bytes::Bytes;

#[test]
fn entries_that_do_not_fold_into_what_a_quorum_signed_are_not_believed() {
    let mut world = World::new(4, 5);
    world.collect();
    world.kill(4);
    for ticket in 0..40 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(20);
    }
    world.start(4);
    // Whatever entries come to node 4, one is another, until the third answer.
    let mut lies = 0;
    let until = world.now + 10_000;
    while world.group(4).log().last() < 40 {
        assert!(world.now < until, "{}", world.describe());
        world.collect();
        for (_, to, message) in &mut world.network {
            if let (4, Message::Entries(Entries { batches, .. }), true) = (*to, message, lies < 3)
                && let Some(batch) = batches.last_mut().filter(|it| it.data() != "a lie")
            {
                *batch = Batch::own(batch.origin(), 1, Bytes::from_static(b"a lie"));
                lies += 1;
            }
        }
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
    }
    assert!(lies > 0);
    assert_eq!(world.group(4).status().diverged, None);
    assert!(
        world.node(4).disk.iter().all(|write| match write {
            Write::Entry { data, .. } => data != "a lie",
            Write::Note(_) => true,
        }),
        "what was not proven is not written"
    );
    // What node 4 is told is compared with what the others were.
    world.collect();
    assert_eq!(world.node(4).told.len(), 40);
}

#[test]
fn a_member_that_drips_does_not_keep_a_replica_waiting() {
    let mut world = World::new(4, 8);
    world.collect();
    world.kill(4);
    for ticket in 0..400 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(20);
    }
    world.start(4);
    // The first that is asked gives one entry after the other, each true and just in time.
    let (began, mut dripping, mut drips) = (world.now, None, 0);
    let mut late = Vec::new();
    while world.group(4).log().last() < 400 {
        assert!(world.now < began + 3_000, "{drips} drips, {}", world.describe());
        world.collect();
        for (from, to, message) in std::mem::take(&mut world.network) {
            match message {
                Message::Entries(mut entries)
                    if to == 4 && *dripping.get_or_insert(from) == from && entries.first < 390 =>
                {
                    entries.batches.truncate(1);
                    drips += 1;
                    late.push((world.now + 20, from, Message::Entries(entries)));
                }
                message => world.network.push((from, to, message)),
            }
        }
        let now = world.now;
        let (due, rest): (Vec<_>, _) = late.into_iter().partition(|(at, ..)| *at <= now);
        late = rest;
        due.into_iter().for_each(|(_, from, message)| world.network.push((from, 4, message)));
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
    }
    assert!((1..=6).contains(&drips), "{drips}");
}

#[test]
fn a_replica_goes_on_by_itself_while_it_waits_for_digests() {
    let mut world = World::new(4, 9);
    world.hanging = Some(4);
    for ticket in 0..10 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
    }
    world.run(10);
    assert_eq!(world.group(1).log().last(), 10);
    // The others have come to a checkpoint, and nobody tells node 4 what it asks for to follow.
    let is_asked = |world: &World| {
        world
            .network
            .iter()
            .any(|(from, _, it)| *from == 4 && matches!(it, Message::DigestsAsk(..)))
    };
    let (began, mut has_asked) = (world.now, false);
    while world.group(4).log().last() < 10 {
        assert!(world.now < began + 200, "asked: {has_asked}, {}", world.describe());
        world.collect();
        has_asked |= is_asked(&world);
        world.hanging = Some(4).filter(|_| !has_asked);
        world.network.retain(|(_, to, it)| *to != 4 || !matches!(it, Message::Digests(_)));
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
    }
    assert!(has_asked);
    assert_eq!(world.group(4).status().counters.transferred, 0);
}

#[test]
fn a_replica_that_was_away_installs_a_point_when_the_others_have_forgotten_what_was_before() {
    let mut world = World::new(4, 6);
    world.collect();
    world.kill(4);
    for ticket in 0..40 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(20);
    }
    // One alone is not believed.
    world.group(1).compact(20);
    world.start(4);
    world.run(200);
    assert!(world.node(4).installed.is_empty());
    world.kill(4);
    world.node(4).disk.clear();
    for id in 1..=3 {
        world.group(id).compact(20 + id);
    }
    world.start(4);
    world.until(5000, |world| world.same_head() == Some(40));
    let installed = world.node(4).installed.clone();
    assert_eq!(installed.len(), 1);
    assert!((21..=22).contains(&installed[0]), "{installed:?}");
    world.kill(4);
    world.start(4);
    assert_eq!(world.group(4).log().point().index, installed[0]);
    world.until(5000, |world| world.same_head() == Some(40));
}

#[test]
fn one_question_for_entries_is_answered_in_a_turn() {
    let mut world = World::new(4, 12);
    world.collect();
    world.group(1).propose(block(1), 1).expect("it leads");
    world.until(500, |world| world.same_head() == Some(1));
    let group = world.group(1);
    assert_eq!(group.step(4, Message::EntriesAsk(1, 1, 1)), Ok(()));
    assert_eq!(group.step(4, Message::EntriesAsk(2, 1, 1)), Err(Dropped::Full));
    assert_eq!(group.step(3, Message::EntriesAsk(1, 1, 1)), Ok(()));
    world.collect();
    assert_eq!(world.group(1).step(4, Message::EntriesAsk(3, 1, 1)), Ok(()));
}

#[test]
fn what_a_shard_is_told_again_is_kept_until_it_says_again_that_it_is_not_needed() {
    let mut world = World::new(4, 8);
    world.collect();
    for ticket in 0..3 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(20);
    }
    let last = world.group(1).log().last();
    assert!(last > world.group(1).stable.seq, "no checkpoint covers it yet");
    for id in [1, 2] {
        world.group(id).compact(last);
        assert_eq!(world.group(id).log().point().index, 0);
    }
    world.group(1).keep();
    for ticket in 3..60 {
        world.group(1).propose(block(ticket), ticket).expect("it leads");
        world.run(20);
    }
    let points = [1, 2].map(|id| {
        assert!(world.group(id).stable.seq >= last, "a checkpoint covers it");
        world.group(id).log().point().index
    });
    assert_eq!(points, [0, last], "it was to forget that, and only one of them still is");
}
