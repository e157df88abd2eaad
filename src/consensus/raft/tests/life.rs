//! What a cluster does when nothing is random.

use super::*;

const CALM: Faults = Faults { lost: 0, doubled: 0, delay_ms: 0, reorders: false, write_ms: 0 };

fn calm(nodes: u64) -> Cluster {
    Cluster::new(3, nodes, nodes, 1, CALM)
}

#[test]
fn a_single_voter_needs_no_messages_and_no_election() {
    let mut cluster = calm(1);
    assert_eq!(cluster.leader(0), Some(1), "it leads before any time passes");
    cluster.commit(0, 100, 50);
    assert_eq!(cluster.messages, 0);
    assert_eq!(cluster.node(1).replicas[0].won.len(), 100);
    assert_eq!(cluster.node(1).log(0).cached_bytes(), 0, "nobody will ask for its entries");
    cluster.crash(1);
    cluster.start(1);
    assert_eq!(cluster.leader(0), Some(1));
    assert!(cluster.node(1).replicas[0].applied > 100, "everything is told again");
    assert_eq!(cluster.checkers[0].committed.len(), 103 - 1, "and two entries began the terms");
}

#[test]
fn proposals_beyond_the_bounds_are_refused_until_some_are_committed() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    let tickets = (0..200).filter_map(|_| cluster.propose(leader, 0, 8)).count();
    assert_eq!(tickets, 64);
    let full = cluster.driver(leader).propose(0, block(1000, 8), 1000);
    assert_eq!(full, Err(Refused::Busy));
    cluster.run(50);
    assert!(cluster.propose(leader, 0, 8).is_some());
    cluster.run(50);
    // One that is larger than all bytes that may be under way is taken, alone.
    assert!(cluster.propose(leader, 0, 100 << 10).is_some());
    assert!(cluster.propose(leader, 0, 8).is_none());
    cluster.until("it is settled", |cluster| cluster.is_settled(0));
}

#[test]
fn only_the_leader_takes_proposals_and_the_others_tell_who_that_is() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.run(100);
    let follower = 1 + leader % 3;
    let refused = cluster.driver(follower).propose(0, block(1, 8), 1);
    assert_eq!(refused, Err(Refused::NotLeader { leader: Some(leader) }));
    assert_eq!(cluster.driver(follower).read(0, 1), refused);
}

#[test]
fn a_follower_that_is_far_behind_gets_a_point_and_entries_from_the_disk() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.commit(0, 50, 2000);
    let behind = 1 + leader % 3;
    cluster.crash(behind);
    cluster.commit(0, 400, 2000);
    let cached = cluster.node(leader).log(0).cached_bytes();
    assert!(cached <= 8 << 10, "{cached} bytes are in memory");
    cluster.driver(leader).compact(0, 200);
    cluster.start(behind);
    cluster.until("it has caught up", |cluster| cluster.is_settled(0));
    assert_eq!(cluster.node(behind).log(0).first(), 201);
    assert!(cluster.node(leader).fetches > 0);
    // It goes on as it is after another start.
    cluster.run(200);
    cluster.crash(behind);
    cluster.start(behind);
    assert_eq!(cluster.node(behind).log(0).first(), 201);
    cluster.commit(0, 5, 10);
    cluster.until("it has caught up", |cluster| cluster.is_settled(0));
}

#[test]
fn leadership_is_handed_over_without_an_election_timeout() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.commit(0, 10, 50);
    cluster.run(100);
    let next = 1 + leader % 3;
    let begun = cluster.now_ms;
    cluster.driver(leader).transfer(0, next).unwrap();
    cluster.until("it leads", |cluster| cluster.leader(0) == Some(next));
    assert!(cluster.now_ms - begun < TICK_MS * 10, "{} ms", cluster.now_ms - begun);
    cluster.commit(0, 10, 50);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    let follower = Some(Role::Follower { leader: Some(next) });
    assert_eq!(cluster.node(leader).replicas[0].role, follower);
}

#[test]
fn what_was_lost_may_be_committed_later_and_is_told_without_a_ticket() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.commit(0, 1, 50);
    cluster.run(100);
    // The entry reaches a follower, and no answer comes back.
    let (heir, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.cut.extend([(leader, other), (heir, leader), (other, leader)]);
    let ticket = cluster.propose(leader, 0, 50).expect("it leads");
    cluster.run(3);
    cluster.isolate(leader);
    cluster.until("it steps down", |cluster| !cluster.node(leader).replicas[0].is_leader());
    assert!(cluster.node(leader).replicas[0].lost.contains(&ticket));
    cluster.until("another leads", |cluster| cluster.leader(0).is_some());
    assert_eq!(cluster.leader(0), Some(heir), "only that one has the entry");
    cluster.cut.clear();
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    assert!(cluster.checkers[0].has(ticket), "it is committed after all");
    assert!(!cluster.node(leader).replicas[0].won.contains(&ticket));
}

#[test]
fn a_read_is_confirmed_by_a_majority_and_lost_without_one() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.driver(leader).read(0, 77).unwrap();
    cluster.run(20);
    assert_eq!(cluster.node(leader).replicas[0].reads, [77]);
    cluster.isolate(leader);
    cluster.driver(leader).read(0, 78).unwrap();
    cluster.until("it steps down", |cluster| !cluster.node(leader).replicas[0].is_leader());
    assert_eq!(cluster.node(leader).replicas[0].reads, [77]);
}

#[test]
fn leaders_are_spread_and_stay_where_they_are() {
    let settings = |node, seed| Settings { balance: true, ..settings(node, seed) };
    let mut cluster = Cluster::with_settings(5, 3, 3, 6, CALM, settings);
    let is_spread = |cluster: &mut Cluster| {
        (0..6).all(|partition| cluster.leader(partition) == Some(1 + u64::from(partition) % 3))
    };
    cluster.until("leaders are spread", is_spread);
    let terms = |cluster: &mut Cluster| -> Vec<u64> {
        let driver = cluster.driver(1);
        (0..6).map(|partition| driver.status(partition).expect("it exists").term).collect()
    };
    let before = terms(&mut cluster);
    cluster.run(5000);
    assert!(is_spread(&mut cluster));
    assert_eq!(terms(&mut cluster), before, "nothing was handed over again");
    // What a node led comes back to it after it was away.
    cluster.crash(2);
    cluster.until("others lead", |cluster| {
        (0..6).all(|partition| cluster.leader(partition).is_some_and(|leader| leader != 2))
    });
    cluster.start(2);
    cluster.until("leaders are spread again", is_spread);
}

#[test]
fn a_node_that_could_not_be_reached_for_a_moment_gets_back_what_it_led_though_nobody_submits() {
    let settings = |node, seed| Settings { balance: true, ..settings(node, seed) };
    let mut cluster = Cluster::with_settings(6, 3, 3, 3, CALM, settings);
    let is_spread = |cluster: &mut Cluster| {
        (0..3).all(|partition| cluster.leader(partition) == Some(1 + u64::from(partition)))
    };
    cluster.until("leaders are spread", is_spread);
    cluster.driver(1).transfer(0, 2).unwrap();
    cluster.until("the other one leads", |cluster| cluster.leader(0) == Some(2));
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    cluster.run(10 * TICK_MS);
    // The connection is lost and made again; nothing was under way.
    cluster.driver(2).unreachable(1);
    cluster.until("leaders are spread again", is_spread);
}

#[test]
fn blocks_of_all_partitions_share_one_write() {
    let mut cluster = Cluster::new(3, 1, 1, 8, CALM);
    cluster.run(10);
    let before = cluster.node(1).writes;
    for partition in 0..8 {
        let taken = cluster.driver(1).propose(partition, block(100, 20), 100);
        taken.expect("it leads");
        cluster.node(1).replicas[usize::from(partition)].outstanding.insert(100);
    }
    cluster.pump(1);
    assert_eq!(cluster.node(1).writes, before + 1, "the commit index travels with the next one");
    assert!(cluster.nodes[0].replicas.iter().all(|replica| replica.won.contains(&100)));
}

#[test]
fn a_node_that_slept_does_not_conclude_that_the_leader_is_gone() {
    let mut cluster = calm(3);
    let leader = cluster.until_leader(0);
    cluster.run(100);
    let follower = 1 + leader % 3;
    let now_ms = cluster.now_ms;
    let term = cluster.driver(follower).status(0).expect("it exists").term;
    cluster.driver(follower).advance(now_ms + 60_000);
    cluster.pump(follower);
    assert_eq!(cluster.driver(follower).status(0).expect("it exists").term, term);
    let role = cluster.node(follower).replicas[0].role;
    assert_eq!(role, Some(Role::Follower { leader: Some(leader) }));
}
