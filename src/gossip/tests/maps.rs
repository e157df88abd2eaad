//! Maps arrive whole, and what was deleted stays deleted.

use super::{agree, set, sum, unseen, value, world};
use crate::gossip::{
    ENTRIES_MAX, Event, SetError, Settings,
    simulated::{World, address_of},
};
use std::time::Duration;

#[test]
fn a_map_of_many_entries_reaches_a_newcomer_whole_or_not_at_all() {
    let mut world = world(5, 1);
    for number in 0..3_000_u32 {
        set(&mut world, 1, &number.to_le_bytes(), &[number as u8; 200]);
        if number % 100 == 0 {
            world.run(20);
        }
    }
    agree(&mut world, 30_000);
    world.kill(5);
    world.start(5);
    (1..=5).for_each(|node| world.gossip_mut(5).expect("it runs").learn(node, address_of(node)));
    let mut shown = 0;
    let whole = world.run_until(20_000, &mut unseen, |world| {
        shown = world.gossip(5).expect("it runs").entries(1).count();
        assert!(shown == 0 || shown == 3_000, "a part of a map is shown: {shown}");
        shown == 3_000
    });
    assert!(whole, "{shown}");
    println!("{} ms", world.now_ms());
    agree(&mut world, 5_000);
}

#[test]
fn who_missed_deletions_is_reset_when_their_tombstones_are_gone() {
    let settings = Settings { tombstone: Duration::from_secs(2), ..Settings::default() };
    let mut world = World::informed(6, settings, 2, false);
    for number in 0..2_000_u32 {
        set(&mut world, 1, &number.to_le_bytes(), &[1; 50]);
    }
    agree(&mut world, 20_000);
    world.part(|node| u8::from(node == 6));
    world.run(500);
    for number in 0..1_000_u32 {
        assert!(world.gossip_mut(1).expect("it runs").remove(&number.to_le_bytes()));
    }
    world.run(4_000);
    set(&mut world, 1, b"later", b"1");
    world.run(1_000);
    assert_eq!(world.gossip(6).expect("it runs").entries(1).count(), 2_000);
    world.part(|_| 0);
    let mut shown = Vec::new();
    let mut removed = 0;
    world.run_until(
        10_000,
        &mut |_, at, event| {
            removed += u32::from(at == 6 && matches!(event, Event::Removed { node: 1, .. }));
        },
        |world| {
            let entries = world.gossip(6).expect("it runs").entries(1).count();
            if shown.last() != Some(&entries) {
                shown.push(entries);
            }
            entries == 1_001
        },
    );
    assert_eq!(shown, [2_000, 1_001], "the old map is shown until the new one is whole");
    assert_eq!(removed, 1_000);
    assert_eq!(world.gossip(6).expect("it runs").counters().resets, 1);
    agree(&mut world, 5_000);
    assert_eq!(value(&world, 6, 1, &3_u32.to_le_bytes()), None);
}

#[test]
fn a_map_has_bounds_and_says_which() {
    let mut world = world(1, 3);
    let gossip = world.gossip_mut(1).expect("it runs");
    assert_eq!(gossip.set(b"", b""), Err(SetError::Key));
    assert_eq!(gossip.set(&[0; 65], b""), Err(SetError::Key));
    assert_eq!(gossip.set(b"a", &[0; 1_025]), Err(SetError::Value));
    for number in 0..ENTRIES_MAX as u32 {
        assert_eq!(gossip.set(&number.to_le_bytes(), b"1"), Ok(true));
    }
    assert_eq!(gossip.set(b"one more", b"1"), Err(SetError::Full));
    assert_eq!(gossip.set(&7_u32.to_le_bytes(), b"2"), Ok(true), "a known key may change");
    assert_eq!(gossip.set(&7_u32.to_le_bytes(), b"2"), Ok(false));
    assert!(gossip.remove(&9_u32.to_le_bytes()) && !gossip.remove(&9_u32.to_le_bytes()));
    assert_eq!(gossip.set(b"one more", b"1"), Ok(true));
}

#[test]
fn keys_that_change_all_the_time_are_the_owners_in_the_end() {
    let settings = Settings { tombstone: Duration::from_millis(700), ..Settings::default() };
    let mut world = World::informed(12, settings, 4, false);
    world.network.loss = 0.2;
    world.network.repeated = 0.1;
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..3_000 {
        let node = rng.u64(1..=12);
        let key = [rng.u8(..20)];
        let gossip = world.gossip_mut(node).expect("it runs");
        match rng.bool() {
            true => drop(gossip.set(&key, &rng.u64(..).to_le_bytes()).expect("an allowed entry")),
            false => drop(gossip.remove(&key)),
        }
        world.run(rng.u64(1..=20));
    }
    world.network.loss = 0.0;
    agree(&mut world, 15_000);
    assert_eq!(sum(&world, |of| of.counters().deaths), 0);
}
