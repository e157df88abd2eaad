//! Changes of the membership.

use super::*;
use raft::eraftpb::{Message, MessageType};

fn grown(nodes: u64) -> Cluster {
    let faults = Faults { delay_ms: 2, write_ms: 1, ..Faults::default() };
    let settings = |node, seed| Settings { balance: true, ..settings(node, seed) };
    Cluster::with_settings(11, nodes, 3, 1, faults, settings)
}

fn voters(cluster: &mut Cluster) -> Vec<u64> {
    let leader = cluster.until_leader(0);
    let members = &cluster.node(leader).replicas[0].members;
    if members.is_joint() { Vec::new() } else { members.voters.clone() }
}

/// Asks a node for a change until those that would remain gave a sign of life, or did not.
fn outcome(cluster: &mut Cluster, id: u64, change: &Change) -> Result<(), ChangeRefused> {
    for _ in 0..TICK_MS * 15 {
        let answer = cluster.driver(id).change(0, change);
        cluster.pump(id);
        if answer != Err(ChangeRefused::Unproven) {
            return answer;
        }
        cluster.step();
    }
    panic!("it is never known whether {change:?} may be");
}

/// Asks the leader until the change is done.
fn change(cluster: &mut Cluster, change: &Change) {
    cluster.until("the change is taken", |cluster| {
        let Some(leader) = cluster.leader(0) else { return false };
        let answer = cluster.driver(leader).change(0, change);
        cluster.pump(leader);
        answer.is_ok()
    });
}

#[test]
fn a_learner_that_caught_up_is_promoted() {
    let mut cluster = grown(4);
    cluster.commit(0, 300, 500);
    let leader = cluster.until_leader(0);
    cluster.driver(leader).compact(0, 100);
    change(&mut cluster, &Change::AddLearners(vec![4]));
    cluster.until("it has a vote", |cluster| voters(cluster) == [1, 2, 3, 4]);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    assert_eq!(cluster.node(4).log(0).first(), 101, "it was told the point");
    assert!(!cluster.checkers[0].committed.is_empty());
}

#[test]
fn a_learner_that_did_not_catch_up_gets_no_vote() {
    let mut cluster = grown(4);
    cluster.commit(0, 300, 50);
    cluster.crash(4);
    change(&mut cluster, &Change::AddLearners(vec![4]));
    cluster.run(2000);
    let leader = cluster.until_leader(0);
    let refused = cluster.driver(leader).change(0, &Change::Promote(vec![4]));
    assert!(matches!(refused, Err(ChangeRefused::NotCaughtUp { node: 4, .. })), "{refused:?}");
    assert_eq!(voters(&mut cluster), [1, 2, 3]);
}

#[test]
fn three_nodes_become_five_and_three_others_again() {
    let mut cluster = grown(5);
    cluster.commit(0, 50, 100);
    change(&mut cluster, &Change::AddLearners(vec![4, 5]));
    cluster.until("five vote", |cluster| voters(cluster) == [1, 2, 3, 4, 5]);
    cluster.commit(0, 50, 100);
    // Two of five fail, and work goes on.
    cluster.crash(1);
    cluster.crash(2);
    cluster.commit(0, 50, 100);
    cluster.start(1);
    cluster.start(2);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    change(&mut cluster, &Change::Remove(vec![1, 2]));
    cluster.until("three vote", |cluster| voters(cluster) == [3, 4, 5]);
    cluster.crash(1);
    cluster.crash(2);
    cluster.crash(3);
    cluster.commit(0, 50, 100);
    cluster.start(3);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
}

#[test]
fn a_leader_that_is_to_leave_hands_over_first() {
    let mut cluster = grown(3);
    let leader = cluster.until_leader(0);
    cluster.commit(0, 10, 100);
    cluster.run(100);
    let refused = outcome(&mut cluster, leader, &Change::Remove(vec![leader]));
    let Err(ChangeRefused::HandingOver { to }) = refused else { panic!("{refused:?}") };
    cluster.until("the other leads", |cluster| cluster.leader(0) == Some(to));
    change(&mut cluster, &Change::Remove(vec![leader]));
    cluster.until("it has left", |cluster| !voters(cluster).contains(&leader));
    cluster.commit(0, 10, 100);
    assert!(!cluster.node(leader).replicas[0].is_leader());
}

#[test]
fn a_change_that_leaves_no_reachable_majority_is_refused() {
    let mut cluster = grown(3);
    let leader = cluster.until_leader(0);
    cluster.run(100);
    let (gone, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
    cluster.crash(gone);
    cluster.run(TICK_MS * 15);
    let refused = outcome(&mut cluster, leader, &Change::Remove(vec![other]));
    assert_eq!(refused, Err(ChangeRefused::NoQuorum { reachable: 1, voters: 2 }));
    // The one that is gone may be removed.
    assert_eq!(outcome(&mut cluster, leader, &Change::Remove(vec![gone])), Ok(()));
}

#[test]
fn a_node_that_has_just_died_does_not_count_for_those_that_remain() {
    // However long ago it was heard of, also before anybody could have noticed.
    for passed_ms in [0, 1, 5, TICK_MS, 3 * TICK_MS, 8 * TICK_MS] {
        let mut cluster = grown(3);
        let leader = cluster.until_leader(0);
        cluster.run(100);
        let (gone, other) = (1 + leader % 3, 1 + (leader + 1) % 3);
        cluster.crash(gone);
        // What it said before is not on its way any more.
        cluster.run(5 + passed_ms);
        let refused = outcome(&mut cluster, leader, &Change::Remove(vec![other]));
        let expected = Err(ChangeRefused::NoQuorum { reachable: 1, voters: 2 });
        assert_eq!(refused, expected, "after {passed_ms} ms");
        // An answer to an earlier question does not count for a later one.
        cluster.start(gone);
        cluster.run(100);
        cluster.crash(gone);
        cluster.run(5);
        assert_eq!(outcome(&mut cluster, leader, &Change::Remove(vec![other])), expected);
    }
}

#[test]
fn changes_that_make_no_sense_are_refused_with_the_reason() {
    let mut cluster = grown(3);
    let leader = cluster.until_leader(0);
    cluster.run(100);
    let mut ask = |change: Change| cluster.driver(leader).change(0, &change);
    assert_eq!(ask(Change::AddLearners(vec![])), Err(ChangeRefused::Malformed));
    assert_eq!(ask(Change::AddLearners(vec![0])), Err(ChangeRefused::Malformed));
    assert_eq!(ask(Change::AddLearners(vec![9, 9])), Err(ChangeRefused::Malformed));
    assert_eq!(ask(Change::AddLearners(vec![1])), Err(ChangeRefused::AlreadyMember(1)));
    assert_eq!(ask(Change::Promote(vec![1])), Err(ChangeRefused::NotLearner(1)));
    assert_eq!(ask(Change::Remove(vec![9])), Err(ChangeRefused::NotMember(9)));
    assert_eq!(ask(Change::AddLearners((10..30).collect())), Err(ChangeRefused::TooMany));
    assert_eq!(ask(Change::AddLearners(vec![9])), Ok(()));
    assert_eq!(ask(Change::AddLearners(vec![8])), Err(ChangeRefused::Pending));
}

/// A cluster whose node 3 was taken out while it was cut off, and what the leader has applied.
fn left_behind() -> (Cluster, u64) {
    let mut cluster = grown(4);
    cluster.commit(0, 50, 100);
    cluster.isolate(3);
    change(&mut cluster, &Change::Remove(vec![3]));
    cluster.until("two vote", |cluster| voters(cluster) == [1, 2]);
    cluster.commit(0, 10, 100);
    let leader = cluster.until_leader(0);
    let applied = cluster.node(leader).replicas[0].applied;
    (cluster, applied)
}

/// What a node asks, within a second or so.
fn question(cluster: &mut Cluster, id: u64) -> u64 {
    cluster.questions.clear();
    cluster.until("it asks", |cluster| cluster.questions.iter().any(|(node, ..)| *node == id));
    cluster.questions.iter().find(|(node, ..)| *node == id).expect("it was seen").2
}

#[test]
fn who_was_taken_out_forgets_its_log_when_it_is_told_so_and_begins_again_as_a_member() {
    let (mut cluster, applied) = left_behind();
    let asked = question(&mut cluster, 3);
    cluster.driver(3).disown(0, asked ^ 1, applied);
    cluster.pump(3);
    for wrong in [0, u64::MAX] {
        cluster.driver(3).disown(0, asked, wrong);
        cluster.pump(3);
    }
    assert!(cluster.node(3).log(0).last() > 0, "a wrong answer tells it nothing");
    cluster.driver(3).disown(0, asked, applied);
    cluster.pump(3);
    for round in 0..2 {
        cluster.until("it is written", |cluster| !cluster.node(3).is_writing());
        let log = cluster.node(3).log(0);
        assert_eq!((log.last(), log.hard_state().votes_from), (0, applied), "{round}");
        assert!(log.members().voters.is_empty());
        cluster.crash(3);
        cluster.start(3);
    }
    cluster.cut.clear();
    change(&mut cluster, &Change::AddLearners(vec![3]));
    cluster.until("it has a vote again", |cluster| voters(cluster) == [1, 2, 3]);
    cluster.commit(0, 10, 100);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
    // It counts: with another one it is the majority.
    let leader = cluster.until_leader(0);
    cluster.crash(leader);
    cluster.commit(0, 10, 100);
}

#[test]
fn who_forgot_its_log_has_no_vote_until_it_holds_it_again() {
    let (mut cluster, applied) = left_behind();
    let asked = question(&mut cluster, 3);
    cluster.driver(3).disown(0, asked, applied);
    cluster.pump(3);
    let (term, from) = (cluster.node(3).log(0).hard_state().term, 1);
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote] {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (from, 3, term + 5);
        (message.index, message.log_term) = (applied - 1, term);
        cluster.driver(3).step(0, message).expect("it is no error");
        let mut outputs = Outputs::default();
        cluster.driver(3).take_ready(&mut outputs);
        assert!(outputs.messages.is_empty() && outputs.writes.is_empty(), "{outputs:?}");
    }
}

#[test]
fn that_it_has_no_vote_is_on_the_disk_before_its_log_is_forgotten_there() {
    let (mut cluster, applied) = left_behind();
    let asked = question(&mut cluster, 3);
    let before = cluster.node(3).log(0).hard_state();
    cluster.driver(3).disown(0, asked, applied);
    let mut outputs = Outputs::default();
    cluster.driver(3).take_ready(&mut outputs);
    let mute = HardState { votes_from: applied, ..before };
    let writes = [
        Write::HardState(mute),
        Write::Installed(Point::default()),
        Write::HardState(HardState { commit: 0, ..mute }),
    ];
    assert!(before.commit > 0);
    assert!(outputs.writes.iter().map(|(_, write)| write).eq(&writes), "{:?}", outputs.writes);
}

#[test]
fn an_answer_that_comes_after_a_leader_was_heard_of_changes_nothing() {
    let (mut cluster, applied) = left_behind();
    let asked = question(&mut cluster, 3);
    cluster.cut.clear();
    change(&mut cluster, &Change::AddLearners(vec![3]));
    cluster.until("it has a vote again", |cluster| voters(cluster) == [1, 2, 3]);
    cluster.driver(3).disown(0, asked, applied);
    cluster.pump(3);
    assert!(cluster.node(3).log(0).last() >= applied);
    cluster.until("all agree", |cluster| cluster.is_settled(0));
}

#[test]
fn who_hears_a_leader_or_holds_nothing_asks_nothing() {
    let mut cluster = grown(4);
    cluster.commit(0, 5, 100);
    cluster.run(3000);
    assert!(cluster.questions.is_empty(), "{:?}", cluster.questions);
}
