//! Who is dead is known soon, and who lives is not taken for dead.

use super::{agree, set, sum, unseen, value, world};
use crate::gossip::{
    Event, NodeId, Settings, Status,
    simulated::{World, address_of},
};
use std::time::Duration;

/// Milliseconds until a killed host is dead at all others.
fn time_to_death(world: &mut World, victim: NodeId) -> u64 {
    let (begun_ms, mut dead) = (world.now_ms(), 0);
    world.kill(victim);
    let others = world.running().count();
    while dead < others {
        world.step(&mut |_, _, event| {
            let is_death = Event::Status { node: victim, status: Status::Dead } == event;
            dead += usize::from(is_death);
        });
        assert!(world.now_ms() < begun_ms + 10_000, "dead at {dead} of {others} after 10 s");
    }
    world.now_ms() - begun_ms
}

#[test]
fn a_killed_node_is_dead_everywhere_within_two_seconds() {
    for count in [2, 3, 5, 60] {
        for seed in 0..8 {
            let mut world = world(count, seed);
            world.run(3_000);
            let victim = 1 + seed % count as u64;
            let time_ms = time_to_death(&mut world, victim);
            assert!(time_ms <= 2_000, "{count} nodes, seed {seed}: {time_ms} ms");
            assert!(time_ms >= 500, "{count} nodes, seed {seed}: {time_ms} ms");
        }
    }
}

#[test]
fn a_killed_node_that_starts_again_is_alive_with_a_new_map() {
    let mut world = world(10, 1);
    set(&mut world, 4, b"old", b"1");
    agree(&mut world, 2_000);
    time_to_death(&mut world, 4);
    assert_eq!(value(&world, 1, 4, b"old"), Some(b"1".to_vec()), "a dead node's map is kept");
    world.start(4);
    set(&mut world, 4, b"new", b"2");
    (1..=10).for_each(|node| world.gossip_mut(4).expect("it runs").learn(node, address_of(node)));
    agree(&mut world, 3_000);
    assert_eq!(value(&world, 1, 4, b"old"), None);
    assert_eq!(value(&world, 1, 4, b"new"), Some(b"2".to_vec()));
}

#[test]
fn a_node_that_starts_again_before_it_is_missed_is_alive_with_a_new_map() {
    let mut world = world(10, 2);
    set(&mut world, 4, b"old", b"1");
    agree(&mut world, 2_000);
    world.kill(4);
    world.start(4);
    (1..=10).for_each(|node| world.gossip_mut(4).expect("it runs").learn(node, address_of(node)));
    // Nobody said that it was gone: so it is told that its process is another one, to each once.
    let mut told = Vec::new();
    let see = &mut |_, at, event| {
        if matches!(event, Event::BeganAgain { node: 4, .. }) {
            told.push(at);
        }
    };
    world.run_until(3_000, see, |_| false);
    agree(&mut world, 3_000);
    assert_eq!(value(&world, 1, 4, b"old"), None);
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_death_is_noticed_as_soon_when_every_round_is_late() {
    // All rounds begin at the same moments, each some time after it was due.
    for seed in 0..4 {
        let mut world = World::informed(10, Settings::default(), seed, true);
        world.run(3_000);
        let time_ms = time_to_death(&mut world, 3);
        assert!(time_ms <= 2_000, "seed {seed}: {time_ms} ms");
    }
}

#[test]
fn rounds_of_other_lengths_notice_deaths_and_take_nobody_that_lives_for_dead() {
    for (interval_ms, suspicion_ms, dead_ms) in [(20, 800, 2_000), (1_000, 8_000, 16_000)] {
        let settings = Settings {
            suspicion: Duration::from_millis(suspicion_ms),
            ..Settings::every(Duration::from_millis(interval_ms))
        };
        settings.validate().expect("they can be used");
        let mut world = World::informed(20, settings, 9, false);
        world.network.loss = 0.1;
        world.network.delay_ms = 1..=8;
        world.run(400 * interval_ms);
        assert_eq!(sum(&world, |of| of.counters().deaths), 0, "rounds of {interval_ms} ms");
        let begun_ms = world.now_ms();
        world.kill(7);
        let is_dead = |world: &World| {
            let status = |at| world.gossip(at).and_then(|of| of.node(7)).map(|view| view.status);
            world.running().all(|at| status(at) == Some(Status::Dead))
        };
        assert!(world.run_until(dead_ms, &mut unseen, is_dead), "rounds of {interval_ms} ms");
        println!("rounds of {interval_ms} ms: dead after {} ms", world.now_ms() - begun_ms);
    }
}

#[test]
fn nobody_dies_while_threads_do_not_run() {
    let mut world = world(5, 3);
    let mut rng = fastrand::Rng::with_seed(3);
    world.network.delay_ms = 1..=8;
    for _ in 0..600 {
        world.pause(rng.u64(1..=5), Duration::from_millis(rng.u64(20..=250)));
        world.run(100);
    }
    assert_eq!(sum(&world, |of| of.counters().deaths), 0);
    agree(&mut world, 2_000);
}

#[test]
fn a_death_is_found_in_time_whatever_stalls_were_before() {
    for seed in 0..6 {
        let mut world = world(8, seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        world.network.delay_ms = 1..=8;
        // Long enough to be accused, and to refute in time.
        for _ in 0..60 {
            let victim = rng.u64(1..=8);
            world.pause(victim, Duration::from_millis(rng.u64(700..=1_150)));
            world.run(2_000);
        }
        let suspicions = sum(&world, |of| of.counters().suspicions);
        assert!(suspicions > 20, "seed {seed}: {suspicions} suspicions: this shows nothing");
        assert_eq!(sum(&world, |of| of.counters().deaths), 0, "seed {seed}: a stall is no death");
        let time_ms = time_to_death(&mut world, 1 + seed);
        assert!(time_ms <= 2_000, "seed {seed}: {time_ms} ms");
    }
}

#[test]
fn a_node_that_did_not_run_for_long_is_dead_until_it_refutes_and_kills_nobody() {
    let mut world = world(10, 4);
    world.run(2_000);
    world.pause(4, Duration::from_secs(20));
    let is_dead = |world: &World, at| {
        world.gossip(at).and_then(|of| of.node(4)).is_some_and(|view| view.status == Status::Dead)
    };
    assert!(world.run_until(3_000, &mut unseen, |world| is_dead(world, 1) && is_dead(world, 9)));
    world.run(18_000);
    agree(&mut world, 3_000);
    assert_eq!(world.gossip(4).map(|of| of.counters().deaths), Some(0));
    assert!(world.gossip(4).is_some_and(|of| of.counters().refutations > 0));
}

#[test]
fn a_clock_that_jumps_kills_nobody() {
    let mut world = world(10, 5);
    world.run(2_000);
    world.turn_clock(3, Duration::from_secs(3_600));
    world.run(5_000);
    // And back, by half an hour: this node stands still until its clock has caught up.
    agree(&mut world, 1_000);
    assert_eq!(sum(&world, |of| of.counters().deaths + of.counters().suspicions), 0);
    assert_eq!(world.gossip(3).map(|of| of.counters().late_rounds), Some(1));
}

#[test]
fn a_partition_ends_in_agreement() {
    let mut world = world(20, 6);
    world.run(1_000);
    world.part(|node| u8::from(node > 12));
    for node in 1..=20 {
        set(&mut world, node, b"side", &node.to_le_bytes());
    }
    world.run(8_000);
    for at in 1..=20 {
        for view in world.gossip(at).expect("it runs").nodes() {
            let same_side = (view.node > 12) == (at > 12);
            let expected = if same_side { Status::Alive } else { Status::Dead };
            assert_eq!(view.status, expected, "{} at {at}", view.node);
        }
    }
    world.part(|_| 0);
    agree(&mut world, 6_000);
}

#[test]
fn a_goodbye_is_known_soon_and_is_no_death() {
    let mut world = world(20, 7);
    world.run(1_000);
    world.leave(4);
    let has_left = |world: &World| {
        let status = |at| world.gossip(at).and_then(|of| of.node(4)).map(|view| view.status);
        world.running().all(|at| status(at) == Some(Status::Left))
    };
    assert!(world.run_until(400, &mut unseen, has_left));
    world.run(5_000);
    assert!(has_left(&world));
    assert_eq!(sum(&world, |of| of.counters().deaths + of.counters().suspicions), 0);
}

#[test]
fn one_bad_path_costs_few_accusations_and_no_death() {
    // Nothing that node 2 sends reaches node 1: neither hears an answer of the other.
    let mut world = world(4, 8);
    world.run(1_000);
    world.cut(2, 1);
    world.run(60_000);
    assert_eq!(sum(&world, |of| of.counters().deaths), 0);
    let suspicions = sum(&world, |of| of.counters().suspicions);
    assert!((1..=20).contains(&suspicions), "{suspicions}");
}
