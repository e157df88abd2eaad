//! How far a change is, by what nodes say.

use super::{
    aim::{Aim, Said},
    nodes,
    seen::{AgreementSeen, NodeSeen, PartitionSeen, Seen},
};
use std::net::SocketAddr;

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);
const JOIN: Aim = Aim::Member { node: 4, peers: HERE, rpc: HERE };

fn partition(partition: u16, leader: u64, voters: &[u64], learners: &[u64]) -> PartitionSeen {
    let (voters, learners) = (voters.to_vec(), learners.to_vec());
    PartitionSeen {
        partition,
        leader: Some(leader),
        term: 1,
        voters,
        learners,
        ..Default::default()
    }
}

fn seen(node: u64, partitions: &[PartitionSeen]) -> Seen {
    Seen { node, partitions: partitions.to_vec(), ..Seen::default() }
}

#[test]
fn a_node_has_joined_when_it_votes_everywhere_by_what_leaders_say() {
    let voters = [1, 2, 3];
    let begin = [partition(0, 1, &voters, &[]), partition(1, 2, &voters, &[])];
    let progress = JOIN.progress(&[seen(1, &begin), seen(2, &begin)]);
    assert_eq!((progress.is_reached, progress.ask), (false, vec![1, 2]));
    // One catches up: that goes on by itself.
    let half = [partition(0, 1, &voters, &[4]), partition(1, 2, &voters, &[])];
    let progress = JOIN.progress(&[seen(1, &half), seen(2, &half)]);
    assert_eq!((progress.is_reached, progress.ask), (false, vec![2]));
    assert_eq!(progress.text, "node 4 has a vote in 0 of 2 partitions, catches up in 1");
    let all = [partition(0, 1, &[1, 2, 3, 4], &[]), partition(1, 2, &[1, 2, 3, 4], &[])];
    let progress = JOIN.progress(&[seen(1, &all), seen(2, &all)]);
    assert!(progress.is_reached && progress.ask.is_empty());
    // A follower's view counts for nothing: its leader may be far ahead.
    let progress = JOIN.progress(&[seen(1, &all)]);
    assert!(!progress.is_reached);
    assert!(progress.text.ends_with("1 have no leader that answers"), "{}", progress.text);
    assert!(!JOIN.progress(&[]).is_reached);
}

#[test]
fn a_joint_change_is_not_over() {
    let mut joint = partition(0, 1, &[1, 2, 3, 4], &[]);
    joint.outgoing = vec![1, 2, 3];
    assert!(!JOIN.progress(&[seen(1, &[joint.clone()])]).is_reached);
    joint.voters = vec![1, 3];
    let leave = Aim::Gone { node: 2 };
    assert!(!leave.progress(&[seen(1, &[joint])]).is_reached);
    assert!(leave.progress(&[seen(1, &[partition(0, 1, &[1, 3], &[])])]).is_reached);
    assert!(!leave.progress(&[seen(1, &[partition(0, 1, &[1, 3], &[2])])]).is_reached);
}

#[test]
fn of_two_that_say_they_lead_the_later_term_counts() {
    let old = partition(0, 1, &[1, 2, 3], &[]);
    let new = PartitionSeen { term: 2, ..partition(0, 2, &[2, 3], &[]) };
    let leave = Aim::Gone { node: 1 };
    let (old, new) = (seen(1, &[old]), seen(2, &[new]));
    for seen in [[&old, &new], [&new, &old]] {
        assert!(leave.progress(&seen.map(Clone::clone)).is_reached);
    }
}

#[test]
fn a_transfer_asks_the_leader_of_its_partition_alone() {
    let both = [partition(0, 1, &[1, 2], &[]), partition(1, 2, &[1, 2], &[])];
    let nodes = [seen(1, &both), seen(2, &both)];
    let progress = Aim::Leads { partition: 1, node: 1 }.progress(&nodes);
    assert_eq!((progress.is_reached, progress.ask), (false, vec![2]));
    assert_eq!(progress.text, "node 2 leads partition 1");
    assert!(Aim::Leads { partition: 1, node: 2 }.progress(&nodes).is_reached);
    assert!(!Aim::Leads { partition: 7, node: 2 }.progress(&nodes).is_reached);
}

#[test]
fn what_can_never_be_is_said_at_once() {
    let both = [partition(0, 1, &[1, 2], &[3]), partition(1, 2, &[1, 2], &[3])];
    let nodes = [seen(1, &both), seen(2, &both)];
    let leads = |partition, node| Aim::Leads { partition, node }.impossible(&nodes);
    assert_eq!(leads(1, 1), None);
    assert_eq!(leads(1, 3).expect("a learner"), "node 3 has no vote in partition 1");
    assert_eq!(leads(7, 1).expect("no such one"), "there is no partition 7: there are 2, from 0");
    assert_eq!(Aim::Gone { node: 1 }.impossible(&nodes), None);
    let alone = [seen(1, &[partition(0, 1, &[1], &[])])];
    assert!(Aim::Gone { node: 1 }.impossible(&alone).is_some());
    assert_eq!(Aim::Gone { node: 2 }.impossible(&alone), None);
    assert_eq!(leads_nowhere(), None, "nobody answered yet");
}

fn leads_nowhere() -> Option<String> {
    Aim::Leads { partition: 7, node: 1 }.impossible(&[])
}

#[test]
fn nodes_are_told_of_another_address_of_a_member() {
    let at = |rpc| NodeSeen {
        id: 4,
        peers: Some(HERE),
        rpc: Some(rpc),
        member: true,
        connected: true,
        leads: 0,
        status: None,
        load: None,
    };
    let there = SocketAddr::new(HERE.ip(), 8);
    let view = |node, rpc| Seen { node, nodes: vec![at(rpc)], ..Seen::default() };
    assert_eq!(JOIN.untold(&[view(1, HERE), view(2, HERE)]), None);
    assert_eq!(JOIN.untold(&[view(1, HERE), view(2, there)]), Some(2));
    assert_eq!(JOIN.untold(&[view(4, there)]), None, "it knows itself where it is");
    assert_eq!(JOIN.untold(&[Seen { node: 1, ..Seen::default() }]), None, "joining tells it");
}

#[test]
fn only_what_can_never_be_ends_at_once() {
    assert_eq!(Said::of("too_many"), Said::Never);
    assert_eq!(Said::of("no_quorum"), Said::NotNow);
    for outcome in
        ["begun", "pending", "already_member", "not_member", "handing_over", "not_leader"]
    {
        assert_eq!(Said::of(outcome), Said::GoesOn, "{outcome}");
    }
}

#[test]
fn a_turn_is_not_waited_for_that_nobody_takes_up() {
    let aim = Aim::Leads { partition: 0, node: 3 };
    let view = |agreement, connected| {
        let it = PartitionSeen { agreement, ..partition(0, 1, &[1, 2, 3, 4], &[]) };
        let away = NodeSeen {
            id: 3,
            peers: None,
            rpc: None,
            member: true,
            connected,
            leads: 0,
            status: None,
            load: None,
        };
        [Seen { nodes: vec![away], ..seen(1, &[it]) }]
    };
    let agrees = Some(AgreementSeen::default());
    assert_eq!(aim.impossible(&view(agrees, true)), None);
    let why = aim.impossible(&view(agrees, false)).expect("its turn would pass, again and again");
    assert_eq!(why, "node 3 is not connected with node 1, which leads");
    assert_eq!(aim.impossible(&view(None, false)), None, "raft gives it up by itself");
}

#[test]
fn of_each_node_its_cores_and_capacity_are_shown_and_of_one_that_is_gone_none() {
    let node = |id, status: &str, load| NodeSeen {
        id,
        peers: Some(HERE),
        rpc: None,
        member: true,
        connected: true,
        leads: 3,
        status: Some(status.into()),
        load,
    };
    let all = vec![node(1, "alive", Some([8, 5, 40, 31, 24])), node(2, "dead", None)];
    let mut text = Vec::new();
    nodes(&Seen { node: 1, nodes: all, ..Seen::default() }).write(&mut text).expect("memory");
    let text = String::from_utf8(text).expect("text");
    let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let headings = ["CORES", "AGENTS", "CAPACITY", "RUNNING", "QUEUED"];
    assert_eq!(words[0][7..], headings, "{text}");
    assert_eq!(words[1][6..], ["alive", "8", "5", "40", "31", "24"], "{text}");
    assert_eq!(words[2][6..], ["dead", "-", "-", "-", "-", "-"], "{text}");
}
