//! What a primary owes the service.

use super::{super::Message, world::World};
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
