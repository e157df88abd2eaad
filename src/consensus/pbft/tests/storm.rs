//! Messages are lost, come late or twice, nodes stop and start, all at once: nothing that was told is
//! undone, and when it is over everything that was asked for is done.

use super::world::World;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Runs a storm.
pub fn storm(seed: u64, count: u64) {
    let mut world = World::new(count, seed);
    world.is_fifo = seed.is_multiple_of(2);
    world.loss = world.rng.u32(..20);
    world.twice = world.rng.u32(..20);
    let faulty_at_once = (count - 1) / 3;
    let mut ticket = 0;
    let mut proposed = BTreeSet::new();
    let mut submitted: Vec<(u64, u64)> = Vec::new();
    let mut down: Vec<u64> = Vec::new();
    for _ in 0..world.rng.usize(20..60) {
        for _ in 0..world.rng.usize(..40) {
            world.happen();
        }
        match world.rng.u32(..20) {
            0..=5 => {
                if let Some(leader) = world.leader() {
                    ticket += 1;
                    let data = Bytes::from(format!("block {ticket}"));
                    if world.group(leader).propose(data, ticket).is_ok() {
                        proposed.insert((leader, ticket));
                    }
                }
            }
            6..=9 => {
                let client = world.rng.u64(100..103);
                let data = Bytes::from(vec![b'r'; world.rng.usize(1..2000)]);
                if let Some(timestamp) = world.client(client).submit(data) {
                    submitted.push((client, timestamp));
                }
            }
            10 => {
                let id = world.rng.u64(1..=count);
                if !down.contains(&id) {
                    ticket += 1;
                    let data = Bytes::from(format!("request {ticket}"));
                    if world.group(id).request(data, ticket).is_ok() {
                        world.node(id).asked.insert(ticket);
                    }
                }
            }
            11..=12 => {
                let ms = world.rng.u64(..400);
                world.run(ms);
            }
            13..=14 => {
                // All may lose power at once.
                let is_all = world.rng.u32(..8) == 0;
                let ids: Vec<_> = (1..=count).filter(|id| !down.contains(id)).collect();
                for id in ids {
                    let is_hit = is_all || world.rng.u32(..3) == 0;
                    if is_hit && (is_all || down.len() as u64 <= faulty_at_once) {
                        world.kill(id);
                        down.push(id);
                    }
                }
            }
            15..=16 => {
                for id in std::mem::take(&mut down) {
                    world.start(id);
                }
            }
            17 => {
                let id = world.rng.u64(1..=count);
                if !down.contains(&id) {
                    let last = world.group(id).log().last();
                    let index = world.rng.u64(..=last);
                    world.group(id).compact(index);
                }
            }
            18 => {
                let cut = world.rng.u64(1..=count);
                world.cut = if world.cut.is_empty() { vec![cut] } else { Vec::new() };
            }
            _ => {
                if let Some(leader) = world.leader() {
                    let context = world.rng.u64(1..1000);
                    let _ = world.group(leader).read(context);
                }
            }
        }
    }
    (world.loss, world.twice, world.cut) = (0, 0, Vec::new());
    down.into_iter().for_each(|id| world.start(id));
    world.until(60_000, |world| {
        world.leader().is_some()
            && world.same_head().is_some_and(|head| world.highest_answer() <= head)
            && world.clients.values().all(|client| client.under_way() == 0)
            && world.nodes.iter().all(|node| node.asked.is_empty())
    });
    tell(&world);
    for (client, client_state) in &mut world.clients {
        let mut wanted: Vec<_> =
            submitted.iter().filter(|(of, _)| of == client).map(|it| it.1).collect();
        let mut finished: Vec<_> =
            client_state.take_finished().into_iter().map(|it| it.timestamp).collect();
        wanted.sort_unstable();
        finished.sort_unstable();
        assert_eq!(wanted, finished);
    }
    let done = world.truth.values().filter(|(_, data)| !data.starts_with(b"block"));
    let bytes: usize = done.map(|(_, data)| data.len()).sum();
    let all_bytes: u64 = submitted.len() as u64;
    assert!(bytes as u64 >= all_bytes);
    for node in &world.nodes {
        let mut told = BTreeSet::new();
        for (ticket, _) in &node.tickets {
            assert!(told.insert(*ticket), "a ticket is told once");
        }
        for ticket in &node.lost {
            assert!(told.insert(*ticket), "a ticket is told once");
        }
        for answer in &node.answers {
            let data = world.truth.get(&answer.index).map(|(_, data)| data.clone());
            let data = data.unwrap_or_default();
            let wanted = format!("request {}", answer.ticket).into_bytes();
            let is_there = data.windows(wanted.len()).any(|part| part == wanted);
            assert!(is_there, "{answer:?} at node {}: {data:?}", node.id);
        }
        assert_eq!(node.group.as_ref().map(|group| group.status().diverged), Some(None));
        for (index, entry) in &node.told {
            assert_eq!(world.truth.get(index), Some(entry));
        }
    }
}

/// What happened in it, added up.
fn tell(world: &World) {
    let all = world.nodes.iter().filter_map(|node| node.group.as_ref()).map(|it| it.status());
    let (mut changes, mut transferred, mut view) = (0, 0, 0);
    for status in all {
        changes += status.counters.view_changes;
        transferred += status.counters.transferred;
        view = view.max(status.view);
    }
    let installed: usize = world.nodes.iter().map(|node| node.installed.len()).sum();
    let entries = world.truth.len();
    println!(
        "{entries} entries, view {view}, {changes} view changes since the last starts, \
         {transferred} entries transferred, {installed} points installed"
    );
}

/// The seeds to run: `PBFT_SEEDS=a..b`, or some.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let given = std::env::var("PBFT_SEEDS").ok();
    let range = given.as_deref().and_then(|given| {
        let (first, last) = given.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    });
    range.unwrap_or(0..default)
}

#[test]
fn four_nodes_weather_a_storm() {
    for seed in seeds(40) {
        println!("PBFT_SEEDS={seed}..{} cargo test four_nodes_weather", seed + 1);
        storm(seed, 4);
    }
}

#[test]
fn seven_nodes_weather_a_storm() {
    for seed in seeds(10) {
        println!("PBFT_SEEDS={seed}..{} cargo test seven_nodes_weather", seed + 1);
        storm(seed, 7);
    }
}
