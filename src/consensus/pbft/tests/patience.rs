//! What nobody can make correct replicas do: leave a primary that does what it can, or verify without an end.

use super::{
    super::{
        Batch, Company, Driver, Dropped, Keys, Message, Request, Restore, Settings, Terms,
        batch::link,
        certificate::{Certificate, Stable},
        keys::{Signature, Statement},
        message::ViewChange,
    },
    world::{World, identity, keys, ring, settings},
};
use bytes::Bytes;
use std::sync::Arc;

/// A client that is no node.
const CLIENT: u64 = 100;

fn request(number: u64) -> Request {
    Request::new(&keys(CLIENT, 4), CLIENT, number, Bytes::from(format!("request {number}")))
}

fn views(world: &mut World) -> Vec<u64> {
    (1..=4).map(|id| world.group(id).view()).collect()
}

#[test]
fn a_client_that_fills_its_room_at_the_primary_has_it_not_replaced() {
    const FAR: u64 = 1 << 40;
    let mut world = World::new(4, 1);
    world.client(CLIENT);
    for id in [2, 3] {
        world.group(id).step(CLIENT, Message::Request(request(FAR))).expect("it is taken");
    }
    // Whenever the primary may be asked for that, its room for the client is full.
    let (mut next, until) = (1, world.now + 1_500);
    while world.now < until {
        while world.group(1).step(CLIENT, Message::Request(request(next))).is_ok() {
            next += 1;
        }
        // It never rests, so time passes with what happens.
        let has_happened = (0..60).all(|_| world.happen());
        world.now += if has_happened { 1 } else { 10 };
        world.tick();
    }
    assert!(next > 200, "{next}");
    assert_eq!(views(&mut world), [0; 4]);
    world.until(500, |world| {
        (1..=4).all(|id| world.group(id).table.executed_in(CLIENT, FAR).is_some())
    });
    assert_eq!(views(&mut world), [0; 4]);
}

#[test]
fn who_takes_up_too_much_for_the_primary_alone_has_it_not_replaced() {
    for is_awaited in [false, true] {
        let mut world = World::new(4, 6);
        world.client(CLIENT);
        world.group(1).crowd([CLIENT], [CLIENT]);
        // By their tables it takes up less: no more than one that tells the truth, or more than that.
        for id in 2..=4 {
            world.group(id).crowd([], (!is_awaited).then_some(CLIENT));
            world.group(id).step(CLIENT, Message::Request(request(7))).expect("it is taken");
        }
        world.run(1_500);
        assert_eq!(views(&mut world) == [0; 4], !is_awaited, "{:?}", views(&mut world));
        // It is done when there is room again, and waited for from then on.
        let since = world.now;
        (1..=4).for_each(|id| world.group(id).crowd([], []));
        world.until(600, |world| (1..=4).all(|id| world.group(id).has_executed(CLIENT, 7)));
        assert!(world.now - since < 600 && views(&mut world)[0] == views(&mut world)[3]);
    }
}

#[test]
fn a_primary_that_orders_all_but_one_request_of_a_client_is_left() {
    let mut world = World::new(4, 2);
    world.client(CLIENT);
    for number in 1..60 {
        for id in 1..=4 {
            if (id, number) != (1, 5) {
                let _ = world.group(id).step(CLIENT, Message::Request(request(number)));
            }
        }
        let until = world.now + 20;
        while world.now < until {
            // The primary takes no notice of it.
            world.collect();
            world.network.retain(|(_, to, it)| match it {
                Message::Request(request) => (*to, request.timestamp) != (1, 5),
                _ => true,
            });
            if !world.happen() {
                world.now += 10;
                world.tick();
            }
        }
    }
    assert!((2..=4).all(|id| world.group(id).view() == 1), "{:?}", views(&mut world));
    assert!((2..=4).all(|id| world.group(id).has_executed(CLIENT, 5)));
}

#[test]
fn a_client_that_asks_for_ever_lower_numbers_has_few_of_them_verified() {
    let mut world = World::new(4, 3);
    world.tick();
    let group = world.group(2);
    for number in 0..1_000 {
        let _ = group.step(CLIENT, Message::Request(request(5_000 - number)));
    }
    assert!(group.verified() <= 64 + 16, "{}", group.verified());
}

/// What a node knows of all.
fn company(node: u64) -> Company {
    Company {
        node,
        identity: identity(node),
        ring: ring(4),
        cluster: 7,
        generation: 1,
        nodes: vec![1, 2, 3, 4],
        terms: Terms { key_ttl_ms: 1, payload_bytes_max: 1 },
    }
}

/// The replicas of node 1 in two partitions.
fn driver(settings: Settings) -> Driver {
    let groups = (0..2).map(|partition| Restore::new(partition, settings.checkpoint_every));
    Driver::new(settings, &company(1), groups.collect()).expect("it is fit")
}

/// Certificates of so many entries of a partition, behind each other.
fn certificates(partition: u16, entries: u64) -> Vec<Certificate> {
    let keys: Vec<_> = (1..=4).map(|node| company(node).keys(partition)).collect();
    let primary = u64::from(partition) + 1;
    let (mut parent, mut all) = ([0; 32], Vec::new());
    for seq in 1..=entries {
        let batch = Batch::own(0, primary, Bytes::from_static(b"x"));
        let (digest, chain) = (*batch.digest(), link(&parent, seq, batch.digest()));
        let prepare = Statement::Prepare { view: 0, seq, chain: &chain };
        let pre_prepare = Statement::PrePrepare { view: 0, seq, chain: &chain };
        all.push(Certificate {
            view: 0,
            seq,
            parent,
            digest,
            primary: keys[primary as usize - 1].sign(pre_prepare),
            prepares: [3, 4].map(|node| (node, keys[node as usize - 1].sign(prepare))).into(),
            commits: Vec::new(),
        });
        parent = chain;
    }
    all
}

/// A valid view change of whose keys these are.
fn change(keys: &Keys, replica: u64, view: u64, prepared: &[Certificate]) -> Message {
    let (stable, signature) = (Stable::default(), Signature::NONE);
    let prepared = prepared.to_vec();
    let mut change = ViewChange { view, stable, prepared, replica, signature };
    change.sign(keys);
    Message::ViewChange(Arc::new(change))
}

#[test]
fn who_wants_ever_higher_views_in_all_partitions_uses_up_its_own_credit_alone() {
    let settings = settings();
    let entries = 2 * settings.checkpoint_every;
    let mut driver = driver(settings);
    driver.advance(0);
    let prepared = [0, 1].map(|partition| certificates(partition, entries));
    let keys = |node| [0, 1].map(|partition| company(node).keys(partition));
    let (liar, honest) = (keys(4), keys(3));
    let (mut dropped, mut outputs) = (0, Default::default());
    let seconds = 3;
    for at in 1..=seconds * 100 {
        driver.advance(at * 10);
        driver.take_ready(&mut outputs);
        for partition in 0..2 {
            let of = usize::from(partition);
            let higher = change(&liar[of], 4, 100_000 + at, &prepared[of]);
            dropped += u32::from(driver.step(partition, 4, higher) == Err(Dropped::Full));
        }
    }
    // Five changes of each partition, and five hundred signatures a second.
    let one = entries * 3 + 1;
    let most = 2 * 5 * ((entries + 1) * 4 + 1) + 500 * seconds + one;
    assert!(driver.verified() <= most, "{} of {most}", driver.verified());
    // Two thirds of them would have been looked at between two reports.
    assert!(dropped > 450, "{dropped}");
    for partition in 0..2 {
        let of = usize::from(partition);
        let taken = driver.step(partition, 3, change(&honest[of], 3, 200_000, &prepared[of]));
        assert_eq!(taken, Ok(()));
    }
}

#[test]
fn a_view_that_begins_and_goes_no_further_does_not_end_the_patience_with_the_next() {
    let mut world = World::new(4, 5);
    let mut firsts = std::collections::BTreeMap::new();
    let until = world.now + 20_000;
    while world.now < until {
        if let Some(leader) = world.leader() {
            let group = world.group(leader);
            let (view, first) = (group.view(), group.bar + 1);
            if firsts.insert(view, first).is_none() {
                (0..2).for_each(|ticket| group.propose(Bytes::from_static(b"x"), ticket).unwrap());
            }
        }
        // The first entry of each reign is committed, and nobody takes part in what comes behind it.
        world.collect();
        world.network.retain(|(_, _, message)| match message {
            Message::Prepare(vote) => firsts.get(&vote.view) == Some(&vote.seq),
            _ => true,
        });
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
    }
    // By 300 ms each they would have left more than sixty.
    let (view, committed) = (world.group(2).view(), world.group(2).log().last());
    assert!((3..12).contains(&view), "{view}");
    assert!(committed + 1 >= view, "{committed} of {view}");
}
