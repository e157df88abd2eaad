//! What one node, and a few of them, do.

mod deaths;
mod input;
mod lies;
mod maps;
mod spread;

use super::{Event, Gossip, NodeId, Settings, simulated::World};

/// Hosts that are members and know each other.
fn world(count: usize, seed: u64) -> World {
    World::informed(count, Settings::default(), seed, false)
}

/// Lets time go on until all agree.
fn agree(world: &mut World, limit_ms: u64) {
    let agreed = world.run_until(limit_ms, &mut |_, _, _| (), |world| {
        world.now_ms().is_multiple_of(100) && world.disagreement().is_none()
    });
    assert!(agreed, "after {limit_ms} ms: {:?}", world.disagreement());
}

/// Sets a key of a host.
fn set(world: &mut World, node: NodeId, key: &[u8], value: &[u8]) {
    world.gossip_mut(node).expect("it runs").set(key, value).expect("an allowed entry");
}

/// What a host knows of another's key.
fn value(world: &World, at: NodeId, node: NodeId, key: &[u8]) -> Option<Vec<u8>> {
    world.gossip(at).expect("it runs").value(node, key).map(<[u8]>::to_vec)
}

/// Sums a counter over all running hosts.
fn sum(world: &World, figure: impl Fn(&Gossip) -> u64) -> u64 {
    world.running().map(|node| figure(world.gossip(node).expect("it runs"))).sum()
}

/// Ignores what is seen.
fn unseen(_: u64, _: NodeId, _: Event) {}
