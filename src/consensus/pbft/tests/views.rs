//! Leaving a view and beginning one: what makes a replica leave, and what it believes of others who do.

use super::{
    super::{
        Batch, Dropped, Group, Letter, Message,
        batch::link,
        certificate::{Certificate, Stable},
        keys::{Signature, Statement},
        message::{Reply, ViewChange},
        new_view::choose,
    },
    world::{World, block, keys, members},
};
use std::sync::Arc;

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
fn a_primary_that_orders_nothing_for_a_client_is_left() {
    let mut world = World::new(4, 7);
    world.collect();
    let asked = world.client(100).submit(block(1));
    assert_eq!(asked, Some(1));
    // The primary of the first view does not hear of requests.
    let is_lost = |_, to, it: &Message| to == 1 && matches!(it, Message::Request(_));
    world.until_without(5_000, is_lost, |world| world.client(100).under_way() == 0);
    assert!(world.group(2).view() > 0);
}

/// Without that a primary would never order again what it has undone, and a backup would leave whoever does.
#[cfg(feature = "planted-bugs")]
#[test]
#[should_panic(expected = "is as if it had never been")]
fn what_is_not_undone_is_noticed() {
    crate::planted::plant(Some(crate::planted::Bug::KeptTentative));
    what_too_few_have_answered_tentatively_is_undone_by_the_next_view();
}

#[test]
fn what_too_few_have_answered_tentatively_is_undone_by_the_next_view() {
    for seed in 0..20 {
        let mut world = World::new(4, seed);
        world.is_fifo = seed % 2 == 0;
        world.client(100).submit(block(1));
        let Letter { message: second, .. } = {
            world.client(101).submit(block(2));
            world.client(101).take_letters().remove(0)
        };
        // The next primary knows of a request that this one never hears of.
        world.deliver(101, 2, second);
        let is_request = |it: &Message| matches!(it, Message::Request(_));
        // Node 3 alone prepares the first entry, of which node 4 does not hear.
        world.until_without(
            200,
            |from, to, it| match it {
                Message::Request(_) => (from, to) != (100, 1),
                Message::PrePrepare(_) => to == 4,
                Message::Prepare(_) => to != 3,
                Message::Commit(..) => true,
                _ => false,
            },
            |world| world.group(3).slots.get(&1).is_some_and(|slot| slot.answered == Some(0)),
        );
        let group = world.group(3);
        assert!(!group.projected.is_fresh(100, 1), "it is executed tentatively");
        let chain = group.accepted.chain;
        // One that lies answers as well: f answers more are as many as there may be.
        let (timestamps, is_tentative, signature) = (vec![1], true, Signature::NONE);
        let mut reply =
            Reply { view: 0, client: 100, timestamps, seq: 1, chain, is_tentative, signature };
        reply.sign(&keys(1, 4));
        world.deliver(1, 100, Message::Reply(reply));
        // The next view begins without what node 3 says, and nobody tells its primary of the first request.
        [1, 2, 4].into_iter().for_each(|id| world.group(id).leave(1));
        world.until_without(
            2_000,
            |from, _, it| is_request(it) || from == 3 && matches!(it, Message::ViewChange(_)),
            |world| (1..=4).all(|id| world.node(id).told.len() == 1),
        );
        assert_eq!(world.client(100).under_way(), 1, "nobody has answered for a quorum");
        for id in [3, 4] {
            assert_eq!(world.node(id).told[&1].1, block(2));
        }
        // Node 4 never heard of that entry.
        let state = |group: &Group| {
            let (log, accepted) = (&group.log, group.accepted);
            (log.last(), log.chain(), group.table.clone(), group.projected.clone(), accepted)
        };
        let states = [3, 4].map(|id| state(world.group(id)));
        assert_eq!(states[0], states[1], "it is as if it had never been, seed {seed}");
        world.until(2_000, |world| (100..=101).all(|id| world.client(id).under_way() == 0));
        let seq = |world: &mut World, id| world.client(id).take_finished()[0].seq;
        assert_eq!([seq(&mut world, 100), seq(&mut world, 101)], [2, 1]);
        world.until(500, |world| world.same_head() == Some(2));
        for id in 1..=4 {
            let status = world.group(id).status();
            assert_eq!((status.view, status.counters.caught), (1, 0), "nobody is accused of that");
            let told: Vec<_> = world.node(id).told.values().map(|it| it.1.clone()).collect();
            assert_eq!(told, [block(2), block(1)]);
        }
        // Nor does the disk, on which it lies.
        world.kill(3);
        world.start(3);
        world.until(2_000, |world| world.same_head() == Some(2) && world.node(3).told.len() == 2);
        assert_eq!(world.nodes[2].told, world.nodes[3].told);
    }
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
fn a_primary_whose_view_too_few_share_for_reads_leaves_it_though_nothing_is_ordered() {
    let mut world = World::new(4, 21);
    world.group(1).propose(block(1), 1).expect("it leads");
    world.until(500, |world| world.same_head() == Some(1));
    // One has left the view alone, and another one is faulty: it says nothing of views any more.
    world.group(2).suspect(0);
    world.run(200);
    world.kill(4);
    let views = |world: &mut World| [1, 2, 3].map(|id| world.group(id).view());
    // As long as nobody asks for anything there is no reason.
    world.run(3_000);
    assert_eq!(views(&mut world), [0, 1, 0]);
    world.group(1).read(7).expect("it leads");
    world.until(2_000, |world| world.leader() == Some(2));
    assert_eq!(world.node(1).reads, [0; 0]);
    world.group(2).read(8).expect("it leads");
    world.until(500, |world| world.node(2).reads == [8]);
    // Without a quorum nobody leaves anything.
    world.kill(3);
    world.run(1_000);
    let before = world.group(2).view();
    world.group(2).read(9).expect("it was not told otherwise");
    world.run(3_000);
    assert_eq!((world.group(2).view(), world.node(2).reads.len()), (before, 1));
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
