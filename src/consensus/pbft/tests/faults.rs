//! What a correct replica does with what a faulty one signs, orders and asks for.

use super::{
    super::{
        Batch, Dropped, Message, Request, Settings,
        batch::link,
        keys::Statement,
        message::{PrePrepare, StatusReport, Vote},
    },
    world::{World, block, keys, settings},
};
use bytes::Bytes;

/// An order that node 1 signs for entry 1 of view 0.
fn order(data: Bytes) -> PrePrepare {
    let batch = Batch::own(0, 1, data);
    let (view, seq, parent) = (0, 1, [0; 32]);
    let chain = link(&parent, seq, batch.digest());
    let signature = keys(1, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
    PrePrepare { view, seq, parent, signature, batch }
}

/// Orders that node 1 signs for the entries from 1 on of view 0, in a row.
fn orders(data: impl IntoIterator<Item = Bytes>) -> Vec<PrePrepare> {
    let (view, mut parent) = (0, [0; 32]);
    let order = |(seq, data)| {
        let batch = Batch::own(view, 1, data);
        let chain = link(&parent, seq, batch.digest());
        let signature = keys(1, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
        let order = PrePrepare { view, seq, parent, signature, batch };
        parent = chain;
        order
    };
    (1..).zip(data).map(order).collect()
}

#[test]
fn a_primary_that_orders_two_entries_at_one_place_is_left() {
    let mut world = World::new(4, 1);
    world.collect();
    let group = world.group(2);
    assert_eq!(group.step(1, Message::PrePrepare(order(block(1)))), Ok(()));
    let second = group.step(1, Message::PrePrepare(order(block(2))));
    assert_eq!(second, Err(Dropped::Contradiction));
    assert_eq!((group.view(), group.status().counters.caught), (1, 1));
}

#[test]
fn who_signs_badly_is_not_listened_to_for_a_while() {
    let mut world = World::new(4, 1);
    world.tick();
    let vote = |seq, signer| {
        let (view, chain) = (0, [7; 32]);
        let signature = keys(signer, 4).sign(Statement::Prepare { view, seq, chain: &chain });
        Message::Prepare(Vote { view, seq, chain, signature })
    };
    let pause = world.settings.timing.status_ms;
    let group = world.group(2);
    assert_eq!(group.step(3, vote(1, 4)), Err(Dropped::Signature));
    let verified = group.status().verified;
    for seq in 1..=9 {
        assert_eq!(group.step(3, vote(seq, 3)), Err(Dropped::Distrusted));
    }
    assert_eq!(group.status().verified, verified);
    assert_eq!(group.step(4, vote(1, 4)), Ok(()), "others are");
    let report = Message::Status(StatusReport::default());
    assert_eq!(group.step(3, report), Ok(()), "what is not signed is taken");
    // Each pause is twice the one before, and after each it is believed.
    let (group, mut until) = (world.group(2), pause);
    for (pauses, seq) in (1..=3).zip(1..) {
        group.tick(until - 1);
        assert_eq!(group.step(3, vote(seq, 3)), Err(Dropped::Distrusted));
        group.tick(until);
        assert_eq!(group.step(3, vote(seq, 3)), Ok(()));
        assert_eq!(group.step(3, vote(9, 4)), Err(Dropped::Signature));
        until += pause << pauses;
    }
    assert_eq!(world.group(2).status().counters.distrusted, 4);
}

#[test]
fn a_replica_is_not_blamed_for_what_a_client_sends_under_one_number() {
    let mut world = World::new(4, 1);
    world.collect();
    world.network.clear();
    let keys_of_client = keys(100, 4);
    let good = Request::new(&keys_of_client, 100, 1, block(1));
    let forged = Request { operation: block(2), ..good.clone() };
    assert_eq!(world.group(2).step(100, Message::Request(good.clone())), Ok(()));
    assert_eq!(world.group(2).step(100, Message::Request(forged)), Err(Dropped::Duplicate));
    world.collect();
    let handed: Vec<_> =
        world.network.iter().filter(|(from, to, _)| (*from, *to) == (2, 1)).collect();
    let handed = handed.into_iter().filter_map(|(.., message)| match message {
        Message::Request(request) => Some(request.clone()),
        _ => None,
    });
    assert_eq!(handed.collect::<Vec<_>>(), [good.clone(), good]);
}

#[test]
fn orders_that_cannot_be_accepted_take_no_more_room_than_they_may() {
    let settings = Settings { early_bytes: 10_000, ..settings() };
    let mut world = World::with(4, 1, settings);
    world.collect();
    let orders = orders((1..=8).map(|number| Bytes::from(vec![number; 3_000])));
    let group = world.group(2);
    let taken = orders[1..].iter().map(|it| group.step(1, Message::PrePrepare(it.clone())));
    let kept = taken.filter(|taken| *taken == Ok(())).count();
    assert_eq!(kept, 3);
    let dropped = group.status().counters.dropped;
    let full = Dropped::ALL.iter().position(|why| *why == Dropped::Full).expect("it is one");
    assert_eq!(dropped[full], 4);
    // What comes next always has room, and those behind it that are there follow.
    assert_eq!(group.step(1, Message::PrePrepare(orders[0].clone())), Ok(()));
    assert_eq!(group.status().accepted, 4);
    assert_eq!(group.step(1, Message::PrePrepare(orders[4].clone())), Ok(()));
    assert_eq!(group.status().accepted, 5);
}

#[test]
fn a_primary_that_orders_more_than_there_is_room_for_is_followed_as_entries_are_committed() {
    let settings = Settings { accepted_bytes: 10_000, ..settings() };
    let mut world = World::with(4, 1, settings);
    world.collect();
    let orders = orders((1..=8).map(|number| Bytes::from(vec![number; 3_000])));
    for order in orders {
        for id in 2..=4 {
            assert_eq!(world.group(id).step(1, Message::PrePrepare(order.clone())), Ok(()));
        }
    }
    let mut most = 0;
    // One is the next, and behind it three have room.
    assert_eq!(world.group(2).status().accepted, 4);
    while world.happen() {
        for id in 2..=4 {
            most = most.max(world.group(id).status().accepted_bytes);
        }
    }
    assert!((9_000..=10_000).contains(&most), "{most}");
    for id in 2..=4 {
        assert_eq!(world.group(id).log().last(), 8, "{}", world.describe());
    }
}

#[test]
fn a_primary_orders_no_more_than_it_has_room_for_until_something_is_committed() {
    let settings = Settings { accepted_bytes: 10_000, ..settings() };
    let mut world = World::with(4, 1, settings);
    world.collect();
    let block = || Bytes::from(vec![1; 3_000]);
    let mut proposed = 0;
    for _ in 0..3 {
        while world.group(1).propose(block(), proposed).is_ok() {
            proposed += 1;
        }
        assert_eq!(world.group(1).status().accepted - world.group(1).log().last(), 4);
        while world.happen() {}
        assert_eq!(world.group(1).log().last(), proposed);
    }
    assert_eq!((proposed, world.node(1).tickets.len()), (12, 12));
    // Requests of clients wait alike.
    for _ in 0..9 {
        world.client(100).submit(Bytes::from(vec![2; 6_000])).expect("a client has room for more");
    }
    let mut most = 0;
    while world.happen() {
        most = most.max(world.group(1).status().accepted - world.group(1).log().last());
    }
    assert_eq!((world.client(100).under_way(), most), (0, 2));
}

#[test]
fn a_client_asks_for_no_more_bytes_at_once_than_replicas_keep_of_it() {
    let mut world = World::new(4, 1);
    world.collect();
    let large = |number| Bytes::from(vec![number; 3 << 20]);
    let asked = [1, 2, 3].map(|number| world.client(100).submit(large(number)));
    assert_eq!(asked, [Some(1), Some(2), None]);
    world.run(50);
    let full = Dropped::ALL.iter().position(|why| *why == Dropped::Full).expect("it is one");
    for id in 1..=4 {
        assert_eq!(world.group(id).status().counters.dropped[full], 0);
    }
    assert_eq!(world.client(100).submit(large(3)), Some(3));
    world.run(50);
    assert_eq!(world.client(100).under_way(), 0);
}

#[test]
fn orders_of_others_than_the_primary_and_unsigned_ones_are_dropped() {
    let mut world = World::new(4, 1);
    world.collect();
    let group = world.group(2);
    let sent = group.step(3, Message::PrePrepare(order(block(1))));
    assert_eq!(sent, Err(Dropped::Sender));
    let mut forged = order(block(1));
    forged.signature = order(block(2)).signature;
    assert_eq!(group.step(1, Message::PrePrepare(forged)), Err(Dropped::Signature));
    assert_eq!(group.status().accepted, 0);
}

#[test]
fn a_batch_with_one_forged_request_among_many_is_not_accepted() {
    for count in [1, 2, 50] {
        for forged in [None, Some(count / 2)] {
            let mut world = World::new(4, 1);
            world.collect();
            let keys_of_client = keys(100, 4);
            let request = |at: u64| Request::new(&keys_of_client, 100, at + 1, block(at));
            let mut requests: Vec<_> = (0..count).map(request).collect();
            if let Some(at) = forged {
                requests[at as usize].operation = block(1000);
            }
            let batch = Batch::of_requests(0, &requests);
            let (view, seq, parent) = (0, 1, [0; 32]);
            let chain = link(&parent, seq, batch.digest());
            let signature = keys(1, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
            let order = PrePrepare { view, seq, parent, signature, batch };
            let group = world.group(2);
            assert_eq!(group.step(1, Message::PrePrepare(order)), Ok(()));
            let is_accepted = group.status().accepted == 1;
            assert_eq!(is_accepted, forged.is_none(), "{count} requests, {forged:?}");
            assert_eq!(group.view(), u64::from(forged.is_some()));
        }
    }
}

#[test]
fn a_request_is_not_ordered_twice() {
    let mut world = World::new(4, 1);
    world.client(100).submit(block(1));
    world.run(50);
    let request = Request::new(&keys(100, 4), 100, 1, block(1));
    let batch = Batch::of_requests(0, &[request]);
    let (view, seq, parent) = (0, 2, world.group(2).log().chain());
    let chain = link(&parent, seq, batch.digest());
    let signature = keys(1, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
    let group = world.group(2);
    let order = PrePrepare { view, seq, parent, signature, batch };
    assert_eq!(group.step(1, Message::PrePrepare(order)), Ok(()));
    assert_eq!((group.status().accepted, group.view()), (1, 1));
}

#[test]
fn what_is_ordered_and_voted_for_outside_the_water_marks_is_dropped() {
    let mut world = World::new(4, 1);
    world.collect();
    let high = 2 * world.settings.checkpoint_every;
    let (view, parent, chain) = (0, [0; 32], [7; 32]);
    let order = |seq| {
        let batch = Batch::own(view, 1, block(seq));
        let chain = link(&parent, seq, batch.digest());
        let signature = keys(1, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
        Message::PrePrepare(PrePrepare { view, seq, parent, signature, batch })
    };
    let prepare = |seq| {
        let signature = keys(3, 4).sign(Statement::Prepare { view, seq, chain: &chain });
        Message::Prepare(Vote { view, seq, chain, signature })
    };
    let commit = |seq| {
        let signature = keys(3, 4).sign(Statement::Commit { view, seq, chain: &chain });
        Message::Commit(Vote { view, seq, chain, signature }, 0)
    };
    let group = world.group(2);
    for (seq, taken) in [(0, Err(Dropped::Seq)), (high, Ok(())), (high + 1, Err(Dropped::Seq))] {
        assert_eq!(group.step(1, order(seq)), taken, "an order of {seq}");
        assert_eq!(group.step(3, prepare(seq)), taken, "a prepare of {seq}");
        assert_eq!(group.step(3, commit(seq)), taken, "a commit of {seq}");
    }
    assert!(group.slots.keys().all(|seq| *seq == high), "nothing is kept of others");
}
