//! What a correct replica does with what a faulty one says.

use super::{
    super::{
        Batch, Dropped, Group, Letter, Message, Request, Settings, Write,
        batch::link,
        certificate::{Certificate, Stable},
        keys::{Signature, Statement},
        message::{Entries, PrePrepare, StatusReport, ViewChange, Vote},
        new_view::choose,
    },
    world::{World, keys, members, settings},
};
use bytes::Bytes;
use std::sync::Arc;

fn block(number: u64) -> Bytes {
    Bytes::from(format!("block {number}"))
}

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

/// A certificate of a whole view, signed by all.
fn certificate(view: u64, seq: u64, parent: [u8; 32], batch: &Batch) -> Certificate {
    let digest = *batch.digest();
    let chain = link(&parent, seq, &digest);
    let primary = members(4).primary(view);
    let backups = (1..=4).filter(|node| *node != primary).take(2);
    let prepare =
        |node| (node, keys(node, 4).sign(Statement::Prepare { view, seq, chain: &chain }));
    let prepares = backups.map(prepare).collect();
    let primary = keys(primary, 4).sign(Statement::PrePrepare { view, seq, chain: &chain });
    Certificate { view, seq, parent, digest, primary, prepares, commits: Vec::new() }
}

fn change(view: u64, replica: u64, prepared: Vec<Certificate>) -> Arc<ViewChange> {
    let (stable, signature) = (Stable::default(), Signature::NONE);
    let mut change = ViewChange { view, stable, prepared, replica, signature };
    change.sign(&keys(replica, 4));
    Arc::new(change)
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
fn few_view_changes_of_one_replica_are_verified_between_two_reports() {
    let mut world = World::new(4, 1);
    world.tick();
    let period = world.settings.timing.status_ms;
    let group = world.group(2);
    let send =
        |group: &mut Group, view| group.step(3, Message::ViewChange(change(view, 3, vec![])));
    assert_eq!([send(group, 1), send(group, 2)], [Ok(()), Ok(())]);
    let verified = group.status().verified;
    for view in 3..20 {
        assert_eq!(send(group, view), Err(Dropped::Full));
    }
    assert_eq!(group.status().verified, verified);
    group.tick(2 * period);
    assert_eq!(send(group, 3), Ok(()));
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
fn a_new_view_takes_the_certificate_of_the_highest_view_and_what_follows_from_it() {
    let (first, second) = (Batch::own(0, 1, block(1)), Batch::own(1, 2, block(2)));
    let third = Batch::own(0, 1, block(3));
    let old = certificate(0, 1, [0; 32], &first);
    let new = certificate(1, 1, [0; 32], &second);
    let follows_old = certificate(0, 2, old.chain(), &third);
    let changes = [
        change(2, 1, vec![old.clone(), follows_old.clone()]),
        change(2, 3, vec![new.clone()]),
        change(2, 4, vec![]),
    ];
    // What follows an entry that is not chosen is not either.
    assert_eq!(choose(&changes).1, [&new]);
    let changes = [change(2, 1, vec![old.clone(), follows_old.clone()]), change(2, 4, vec![])];
    assert_eq!(choose(&changes).1, [&old, &follows_old]);
}

#[test]
fn a_view_change_with_a_certificate_that_is_none_is_dropped() {
    let batch = Batch::own(0, 1, block(1));
    let good = certificate(0, 1, [0; 32], &batch);
    let mut unsigned = good.clone();
    unsigned.prepares[0].1 = Signature::NONE;
    let mut twice = good.clone();
    twice.prepares[1] = twice.prepares[0];
    let mut few = good.clone();
    few.prepares.pop();
    let mut other = good.clone();
    other.digest = [9; 32];
    let later = certificate(0, 2, [0; 32], &batch);
    let future = certificate(1, 1, [0; 32], &batch);
    for (prepared, is_good) in [
        (vec![good.clone()], true),
        (vec![unsigned], false),
        (vec![twice], false),
        (vec![few], false),
        (vec![other], false),
        (vec![later], false),
        (vec![future], false),
    ] {
        let mut world = World::new(4, 1);
        world.collect();
        let taken = world.group(2).step(3, Message::ViewChange(change(1, 3, prepared)));
        assert_eq!(taken, if is_good { Ok(()) } else { Err(Dropped::Proof) });
    }
    let mut world = World::new(4, 1);
    world.collect();
    let taken = world.group(2).step(4, Message::ViewChange(change(1, 3, vec![good])));
    assert_eq!(taken, Err(Dropped::Sender));
}

#[test]
fn a_new_view_that_leaves_out_what_is_prepared_is_dropped() {
    let batch = Batch::own(0, 1, block(1));
    let good = certificate(0, 1, [0; 32], &batch);
    let mut world = World::new(4, 1);
    world.collect();
    let changes = vec![change(1, 2, vec![]), change(1, 3, vec![good]), change(1, 4, vec![])];
    let (proposals, signature) = (Vec::new(), Signature::NONE);
    let mut new_view = super::super::message::NewView { view: 1, changes, proposals, signature };
    new_view.sign(&keys(2, 4));
    let taken = world.group(3).step(2, Message::NewView(Arc::new(new_view)));
    assert_eq!(taken, Err(Dropped::Proof));
    assert_eq!(world.group(3).view(), 0);
}

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
fn a_primary_that_orders_nothing_for_a_client_is_left() {
    let mut world = World::new(4, 7);
    world.collect();
    let asked = world.client(100).submit(block(1));
    assert_eq!(asked, Some(1));
    let until = world.now + 5000;
    while world.client(100).under_way() > 0 {
        assert!(world.now < until, "{}", world.describe());
        world.collect();
        // The primary of the first view does not hear of requests.
        world.network.retain(|(_, to, it)| *to != 1 || !matches!(it, Message::Request(_)));
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
    }
    assert!(world.group(2).view() > 0);
}

#[test]
fn nodes_whose_requests_nobody_takes_leave_no_view_for_them() {
    let mut world = World::new(4, 9);
    world.collect();
    for id in [1, 2, 3] {
        world.group(id).request(block(id), id).expect("there is room");
        world.node(id).asked.insert(id);
    }
    // Nodes 1, 2 and 3 take up all that they may, and all but 2 know it.
    for id in [1, 3, 4] {
        world.group(id).crowd([1, 2, 3], []);
    }
    let until = world.now + 20_000;
    while world.now < until {
        world.collect();
        if !world.happen() {
            world.now += 10;
            world.tick();
        }
        // What is still held of others was taken before they were known to take up all.
        if world.now < until - 19_900 {
            world.group(2).crowd([1, 3], []);
        }
    }
    let views = [1, 2, 3, 4].map(|id| world.group(id).view());
    assert_eq!(views, [0; 4], "{}", world.describe());
    assert_eq!(world.group(1).log().last(), 0, "a primary orders its own no more than theirs");
    // There is room again.
    for id in 1..=4 {
        world.group(id).crowd([], []);
    }
    world.until(30_000, |world| (1..=3).all(|id| world.node(id).answers.len() == 1));
    assert_eq!(world.group(2).view(), 0);
}

#[test]
fn reads_are_confirmed_by_a_quorum_and_not_by_a_primary_that_was_left() {
    let mut world = World::new(4, 8);
    world.collect();
    world.group(1).propose(block(1), 1).expect("it leads");
    world.group(1).read(7).expect("it leads");
    world.until(500, |world| world.node(1).reads == [7]);
    assert_eq!(world.node(1).told.len(), 1);
    world.cut = vec![1];
    world.until(3000, |world| world.group(2).view() > 0 && world.leader() != Some(1));
    // It does not know that it was left.
    if world.group(1).read(8).is_ok() {
        world.run(1000);
        assert_eq!(world.node(1).reads, [7]);
    }
    let mut client = world.client(101).clone();
    client.ask_head();
    world.cut.clear();
    for Letter { to, message } in client.take_letters() {
        for node in to {
            let _ = world.group(node).step(101, message.clone());
        }
    }
    world.clients.insert(101, client);
    world.run(100);
    let head = world.client(101).head().map(|(seq, _)| seq);
    assert_eq!(head, Some(1));
}

#[test]
fn replicas_that_wait_for_different_views_come_together() {
    let mut world = World::new(4, 9);
    world.collect();
    // The primary of view 2 is gone; one replica has given view 2 up already, and what they said of
    // that was lost.
    world.kill(3);
    for (id, view) in [(1, 2), (2, 2), (4, 2), (1, 3)] {
        world.group(id).leave(view);
        world.collect();
    }
    world.network.clear();
    world.until(20_000, |world| world.leader().is_some() && world.group(2).view() >= 3);
    let leader = world.leader().expect("somebody leads");
    world.group(leader).propose(block(1), 1).expect("it leads");
    world.until(5000, |world| world.node(leader).tickets == [(1, 1)]);
}

#[test]
fn a_primary_that_gives_its_view_up_is_followed_at_once() {
    let mut world = World::new(4, 10);
    world.collect();
    world.group(1).propose(block(1), 1).expect("it leads");
    world.run(50);
    world.group(1).abdicate();
    // Long before anybody loses patience.
    world.until(100, |world| world.leader() == Some(2));
    assert_eq!(world.same_head(), Some(1));
}

#[test]
fn a_primary_that_was_left_without_knowing_tells_nobody_that_the_entry_of_another_is_its_own() {
    let mut world = World::new(4, 11);
    world.collect();
    world.cut = vec![1];
    world.group(1).propose(block(1), 1).expect("it leads, as far as it knows");
    world.group(1).propose(block(2), 2).expect("it leads, as far as it knows");
    let others = |world: &mut World| (2..=4).find(|id| world.group(*id).leads().is_ok());
    world.until(5000, |world| others(world).is_some());
    let leader = others(&mut world).expect("it was looked for");
    world.group(leader).propose(block(3), 3).expect("it leads");
    world.until(500, |world| (2..=4).all(|id| world.node(id).told.contains_key(&1)));
    // Somebody proves what was committed, and keeps back that there is another view.
    let group = world.group(leader);
    let proof = group.slots[&1].proof(1, 3).expect("it is committed");
    let batch = group.log().in_memory(1).cloned().expect("it is kept");
    world.group(1).step(4, Message::Proven(vec![(proof, batch)])).expect("it is true");
    world.until(500, |world| world.node(1).told.contains_key(&1));
    assert_eq!(world.node(1).told[&1].1, block(3));
    assert_eq!(world.node(1).tickets, []);
    assert_eq!(world.node(1).lost, [1, 2]);
    assert!(world.group(1).leads().is_err());
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
