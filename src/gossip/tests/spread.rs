//! News reaches everybody, soon and for few bytes.

use super::{agree, set, sum, unseen, value, world};
use crate::gossip::{NodeId, Settings, simulated::World};

/// Rounds after a change until these parts of the hosts knew it.
fn rounds_to(world: &mut World, source: NodeId, parts: &[f64]) -> Vec<u64> {
    let (begun_ms, mut knowing, mut rounds) = (world.now_ms(), 1, Vec::new());
    let count = world.len();
    set(world, source, b"key", &begun_ms.to_le_bytes());
    while rounds.len() < parts.len() {
        world.step(&mut |_, _, event| {
            knowing += usize::from(matches!(event, crate::gossip::Event::Set { .. }));
        });
        while rounds.len() < parts.len() && knowing as f64 >= parts[rounds.len()] * count as f64 {
            rounds.push((world.now_ms() - begun_ms).div_ceil(100));
        }
        assert!(world.now_ms() < begun_ms + 5_000, "{knowing} of {count} know it after 5 s");
    }
    rounds
}

#[test]
fn a_change_is_known_by_nearly_all_of_sixty_nodes_after_two_rounds_and_by_all_after_three() {
    for (loss, seeds) in [(0.0, 0..20), (0.1, 20..40)] {
        let mut slowest = Vec::new();
        for seed in seeds {
            let mut world = world(60, seed);
            world.network.loss = loss;
            world.run(500);
            slowest.push(rounds_to(&mut world, 1 + seed % 60, &[0.98, 1.0]));
            agree(&mut world, 5_000);
        }
        let median = |place: usize| {
            let mut of: Vec<_> = slowest.iter().map(|rounds| rounds[place]).collect();
            of.sort_unstable();
            of[of.len() / 2]
        };
        println!("loss {loss}: rounds to 98 % and to all: {slowest:?}");
        assert!(median(0) <= 2, "loss {loss}: 98 % after so many rounds: {slowest:?}");
        assert!(median(1) <= if loss > 0.0 { 4 } else { 3 }, "loss {loss}: {slowest:?}");
    }
}

#[test]
fn a_change_is_known_by_all_of_a_thousand_nodes_after_four_rounds_and_one_more_where_a_tenth_is_lost()
 {
    for (loss, limit, seeds) in [(0.0, 4, 0..3), (0.1, 5, 3..6)] {
        let mut rounds = Vec::new();
        for seed in seeds {
            let mut world = world(1_000, seed);
            world.network.loss = loss;
            world.run(500);
            rounds.extend(rounds_to(&mut world, 1 + seed * 150, &[1.0]));
        }
        println!("loss {loss}: rounds to all of 1,000: {rounds:?}");
        rounds.sort_unstable();
        assert!(rounds[rounds.len() / 2] <= limit, "loss {loss}: {rounds:?}");
    }
}

#[test]
fn a_quiet_cluster_sends_little_and_the_same_however_much_it_knows() {
    let per_round = |entries: u32| {
        let mut world = world(60, 1);
        for number in 0..entries {
            set(&mut world, 1 + u64::from(number % 60), &number.to_le_bytes(), &[7; 100]);
        }
        agree(&mut world, 20_000);
        // Until nothing is news.
        assert!(
            world.run_until(5_000, &mut unseen, |world| sum(world, |of| u64::from(!of.is_quiet()))
                == 0)
        );
        assert_eq!(
            sum(&world, |of| of.counters().bytes_out_of.iter().sum()),
            sum(&world, |of| of.counters().bytes_out),
            "every byte is for something"
        );
        let (bytes, rounds) = (world.bytes(), sum(&world, |of| of.counters().rounds));
        world.run(20_000);
        (world.bytes() - bytes) as f64 / (sum(&world, |of| of.counters().rounds) - rounds) as f64
    };
    let (few, many) = (per_round(60), per_round(6_000));
    println!("{few:.0} and {many:.0} bytes a node a round");
    assert!(few < 150.0 && many < few * 1.2, "{few}, {many}");
}

#[test]
fn nodes_that_know_a_seed_find_each_other_in_an_open_cluster() {
    let settings = Settings { closed: false, ..Settings::default() };
    let mut world = World::new(40, settings, 3, false);
    for node in 2..=40 {
        let seed = crate::gossip::simulated::address_of(1);
        world.gossip_mut(node).expect("it runs").learn(1, seed);
        set(&mut world, node, b"name", &node.to_le_bytes());
    }
    agree(&mut world, 20_000);
    assert_eq!(value(&world, 40, 39, b"name"), Some(39_u64.to_le_bytes().to_vec()));
}

#[test]
fn members_that_start_together_agree_soon() {
    let mut world = World::strangers(60, Settings::default(), 4);
    for node in 1..=60 {
        set(&mut world, node, b"name", &node.to_le_bytes());
    }
    agree(&mut world, 5_000);
    assert_eq!(sum(&world, |of| of.counters().deaths), 0);
}

#[test]
fn two_nodes_and_one_alone_work() {
    let mut world = world(2, 5);
    set(&mut world, 1, b"a", b"1");
    agree(&mut world, 1_000);
    world.kill(2);
    agree(&mut world, 3_000);
    world.run(1_000);
    world.start(2);
    let address = crate::gossip::simulated::address_of(1);
    world.gossip_mut(2).expect("it runs").learn(1, address);
    agree(&mut world, 3_000);
}

#[test]
fn where_everybody_has_news_in_every_round_nobodys_is_left_behind() {
    const NODES: usize = 150;
    for seed in 0..3 {
        let mut world = world(NODES, seed);
        let (mut behind, mut looks) = (vec![0_u64; NODES], 0_u64);
        for round in 0..40_u64 {
            for node in 1..=NODES as NodeId {
                set(&mut world, node, b"load", &[round as u8; 40]);
            }
            world.run(100);
            if round < 10 {
                continue;
            }
            looks += 1;
            for node in 1..=NODES as NodeId {
                let version = |at| world.gossip(at)?.node(node).map(|view| view.version);
                let newest = version(node).expect("it runs");
                let others = (1..=NODES as NodeId).step_by(7).filter(|at| *at != node);
                behind[node as usize - 1] +=
                    others.filter_map(version).map(|known| newest - known).sum::<u64>();
            }
        }
        let third = NODES / 3;
        let mean = |of: &[u64]| {
            of.iter().sum::<u64>() as f64 / (of.len() as u64 * looks * NODES as u64 / 7) as f64
        };
        let (low, high) = (mean(&behind[..third]), mean(&behind[NODES - third..]));
        let worst = behind.iter().max().map(|worst| mean(&[*worst])).expect("a node");
        println!(
            "seed {seed}: changes behind: low ids {low:.2}, high ids {high:.2}, worst {worst:.2}"
        );
        assert!((high / low - 1.0).abs() < 0.1, "{low} for low ids and {high} for high ones");
        assert!(worst < 2.0 * (low + high) / 2.0, "{worst} for one, {low} and {high} for thirds");
    }
}
