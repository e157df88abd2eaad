//! What a primary owes the service.

use super::{
    super::{Batch, Message, keys::Signature, message::PrePrepare},
    world::World,
};
use crate::consensus::engine::Duty;
use bytes::Bytes;

fn duty(number: u64) -> Option<Duty> {
    Some(Duty { number, patience_ms: 500 })
}

/// All go on with requests for a time.
fn work(world: &mut World, ms: u64) {
    for _ in 0..ms / 50 {
        if let Some(leader) = world.leader() {
            let _ = world.group(leader).propose(Bytes::from_static(b"x"), 1);
        }
        world.run(50);
    }
}

fn views(world: &mut World) -> Vec<u64> {
    (1..=4).map(|id| world.group(id).view()).collect()
}

#[test]
fn a_primary_that_orders_all_and_owes_something_is_replaced() {
    let mut world = World::new(4, 1);
    for id in 2..=4 {
        world.group(id).owed(duty(7));
    }
    work(&mut world, 400);
    assert_eq!(views(&mut world), [0; 4], "it has its time");
    work(&mut world, 400);
    assert_eq!(views(&mut world), [1; 4]);
    // Node 2 leads now and is waited for twice as long.
    work(&mut world, 500);
    assert_eq!(views(&mut world), [1; 4]);
    work(&mut world, 500);
    assert_eq!(views(&mut world), [2; 4]);
    // Node 3 leads and has all that is owed done, but for what one alone waits for.
    for id in [2, 4] {
        world.group(id).owed(None);
    }
    world.group(1).owed(duty(8));
    work(&mut world, 2_000);
    assert_eq!(views(&mut world), [2; 4]);
}

#[test]
fn a_primary_that_does_one_thing_after_the_other_is_not_left() {
    let mut world = World::new(4, 2);
    for number in 0..10 {
        for id in 2..=4 {
            world.group(id).owed(duty(number));
        }
        work(&mut world, 300);
    }
    assert_eq!(views(&mut world), [0; 4]);
}

#[test]
fn a_replica_that_waits_for_what_nobody_can_do_is_followed_by_nobody() {
    let mut world = World::new(4, 3);
    world.group(4).owed(duty(7));
    work(&mut world, 3_000);
    assert_eq!(views(&mut world), [0; 4], "it goes on in the view");
    assert!(world.same_head().is_some_and(|head| head > 40));
    // Another one has a reason of its own later.
    world.group(2).owed(duty(9));
    work(&mut world, 700);
    assert_eq!(views(&mut world), [1; 4]);
}

#[test]
fn whoever_lies_beside_a_replica_that_is_owed_something_does_not_have_it_leave_alone() {
    let mut world = World::new(4, 4);
    world.group(4).owed(duty(7));
    for _ in 0..60 {
        work(&mut world, 50);
        // Node 2 says so to that one alone.
        let view = world.group(4).view();
        world.deliver(2, 4, Message::Owed(view));
    }
    assert_eq!(views(&mut world), [0; 4]);
    assert!(world.group(4).status().is_active, "it goes on in the view");
    assert!(world.same_head().is_some_and(|head| head > 40));
}

#[test]
fn what_was_owed_long_ago_has_nobody_leave() {
    let mut world = World::new(4, 5);
    // Each is owed something for a moment, of which node 4 alone hears.
    for from in [2, 3, 2] {
        world.deliver(from, 4, Message::Owed(0));
        work(&mut world, 1_000);
    }
    assert_eq!(views(&mut world), [0; 4]);
    assert!(world.group(4).status().is_active, "it goes on in the view");
}

#[test]
fn one_that_is_owed_nothing_says_what_one_correct_replica_says_and_all_leave() {
    let mut world = World::new(4, 6);
    // Two of four, and the third has no reason of its own.
    for id in [2, 3] {
        world.group(id).owed(duty(7));
    }
    work(&mut world, 800);
    assert_eq!(views(&mut world), [1; 4]);
}

/// What the primary of view 0 orders behind nothing, badly signed: all drop it.
fn botched(seq: u64) -> Message {
    let batch = Batch::own(0, 1, Bytes::from_static(b"x"));
    let signature = Signature::NONE;
    Message::PrePrepare(PrePrepare { view: 0, seq, parent: [0; 32], signature, batch })
}

/// Time passes in which nobody asks for anything; whether a node has said that something is owed.
fn wait(world: &mut World, id: u64, ms: u64, mut lose: impl FnMut(&mut World)) -> bool {
    let mut has_said = false;
    for _ in 0..ms / 10 {
        world.now += 10;
        world.tick();
        world.collect();
        let says = |it: &(u64, u64, Message)| it.0 == id && matches!(it.2, Message::Owed(_));
        has_said |= world.network.iter().any(says);
        lose(world);
        while world.happen() {
            world.collect();
            lose(world);
        }
    }
    has_said
}

#[test]
fn a_primary_whose_order_all_drop_is_left_though_nobody_asks_for_anything() {
    let mut world = World::new(4, 7);
    // Two heard of it: one of them is correct.
    (2..=3).for_each(|to| world.deliver(1, to, botched(1)));
    wait(&mut world, 2, 1_000, |_| {});
    assert_eq!(views(&mut world), [0; 4], "it has its time");
    wait(&mut world, 2, 500, |_| {});
    assert_eq!(views(&mut world), [1; 4]);
    // Who is next is waited for by what it orders itself.
    wait(&mut world, 2, 5_000, |_| {});
    assert_eq!(views(&mut world), [1; 4]);
}

#[test]
fn an_order_that_one_replica_alone_has_heard_of_has_nobody_leave() {
    let mut world = World::new(4, 8);
    world.deliver(1, 4, botched(1));
    assert!(wait(&mut world, 4, 3_000, |_| {}), "it says so");
    assert_eq!(views(&mut world), [0; 4]);
    assert!(world.group(4).status().is_active, "it goes on in the view");
    // Another order is settled there, and a word of others is none about that.
    work(&mut world, 1_000);
    (2..=3).for_each(|from| world.deliver(from, 4, botched(99)));
    assert!(!wait(&mut world, 4, 3_000, |_| {}));
}

#[test]
fn who_drops_what_others_commit_accuses_nobody_of_it() {
    let mut world = World::new(4, 9);
    // Node 4 hears what is ordered and takes part in nothing; nor does it learn what was committed.
    let lose = |world: &mut World| {
        for (from, to, message) in std::mem::take(&mut world.network) {
            match message {
                Message::PrePrepare(order) if to == 4 => {
                    world.group(4).hear_order(from, order.view, order.seq);
                }
                Message::Status(_) | Message::Owed(_) => world.network.push((from, to, message)),
                _ if to == 4 => {}
                message => world.network.push((from, to, message)),
            }
        }
    };
    for _ in 0..300 {
        let _ = world.group(1).propose(Bytes::from_static(b"x"), 1);
        assert!(!wait(&mut world, 4, 10, lose));
    }
    assert_eq!(world.group(4).log().last(), 0);
    assert!(world.group(2).log().last() > 100);
    assert_eq!(views(&mut world), [0; 4]);
}

#[test]
fn a_primary_that_orders_what_is_slowly_settled_is_not_left() {
    let mut world = World::new(4, 10);
    // All three drop each order, and take part in it when the next one is given.
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for number in 0..8 {
        if number < 6 {
            let _ = world.group(1).propose(Bytes::from_static(b"x"), 1);
        }
        wait(&mut world, 2, 500, |world| {
            for (from, to, message) in std::mem::take(&mut world.network) {
                match message {
                    Message::PrePrepare(order) => {
                        world.group(to).hear_order(from, order.view, order.seq);
                        late.push((from, to, Message::PrePrepare(order)));
                    }
                    message => world.network.push((from, to, message)),
                }
            }
        });
        early.drain(..).for_each(|(from, to, order)| world.deliver(from, to, order));
        std::mem::swap(&mut early, &mut late);
    }
    world.run(100);
    assert_eq!(views(&mut world), [0; 4]);
    assert_eq!(world.same_head(), Some(6));
}

#[test]
fn whoever_lies_beside_a_replica_that_hears_of_no_commit_has_all_leave_ever_less_often() {
    let mut world = World::new(4, 11);
    let mut left = Vec::new();
    // Node 4 hears of an order in each view, and nothing of what becomes of it; node 2 says what it says.
    while left.len() < 5 {
        let (view, primary) = (world.group(4).view(), world.group(4).primary());
        if primary != 4 {
            world.group(4).hear_order(primary, view, 99);
        }
        [1, 3, 4].into_iter().for_each(|to| world.deliver(2, to, Message::Owed(view)));
        wait(&mut world, 4, 10, |_| {});
        if world.group(4).view() > view {
            left.push(world.now);
        }
        assert!(world.now < 300_000, "{left:?}");
        // Where it leads itself another one is to lead.
        if world.group(4).primary() == 4 {
            world.group(4).abdicate();
            wait(&mut world, 4, 100, |_| {});
        }
    }
    let lasted: Vec<_> = left.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(lasted.windows(2).all(|pair| pair[1] > pair[0] + pair[0] / 2), "{lasted:?}");
    assert!(lasted.last() > Some(&5_000), "{lasted:?}");
}
