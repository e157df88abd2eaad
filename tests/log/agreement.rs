//! Four nodes' logs that agree by PBFT, linked over real sockets, on real disks; and folders that are
//! started as what they are not.

use super::{
    Scratch,
    replication::{
        PARTITIONS, Replica, all_heard, all_led, free_address, leader, seat, spread, start,
        wait_until,
    },
    settings,
};
use coreflow::{
    consensus::{
        cluster::{Address, Answer, Ask, PartitionStatus},
        open::{OpenError, Seat, open},
        pbft::{Company, Identity, Ring, Terms},
        peers::{NodeId, Signing},
    },
    runtime::doorbell::Doorbell,
};
use futures_lite::future::block_on;
use std::collections::BTreeSet;

const NODES: [NodeId; 4] = [1, 2, 3, 4];

fn identity(node: NodeId) -> Identity {
    Identity::from_secret(&[node as u8; 32])
}

/// The place of a node among others that sign, in a life of theirs.
fn signing(id: NodeId, generation: u64, nodes: &[(NodeId, Address)]) -> Seat {
    let keys = NODES.map(|node| (node, identity(node).public()));
    let ring = Ring::new(keys).expect("they are keys");
    let company = Company {
        node: id,
        identity: identity(id),
        ring: ring.clone(),
        cluster: 7,
        generation,
        nodes: NODES.to_vec(),
        terms: Terms { key_ttl_ms: 60_000, payload_bytes_max: 1 << 20 },
    };
    let mut seat = seat(id, &NODES, nodes);
    let links = seat.links.as_mut().expect("it has links");
    links.signing = Some(Signing { identity: identity(id), ring });
    links.cluster = company.genesis();
    Seat { company: Some(company), ..seat }
}

fn addresses() -> Vec<(NodeId, Address)> {
    let address = || Address { peers: free_address(), rpc: free_address() };
    NODES.map(|id| (id, address())).to_vec()
}

/// Why a folder is not opened.
fn refusal(scratch: &Scratch, folder: NodeId, seat: &Seat) -> String {
    let settings = settings(&scratch.0.join(folder.to_string()), 32, 4096);
    let bell = Doorbell::new().expect("there are descriptors");
    match open(settings, seat, &[bell], &mut |_| panic!("nothing is read")) {
        Err(error @ OpenError::Foreign { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opens"),
    }
}

/// Asks whoever leads the first partition for a node until it leads.
fn transfer(replicas: &mut [Replica], to: NodeId) {
    wait_until(replicas, "it is handed over", |replicas| {
        let Some(at) = leader(replicas, 0) else { return false };
        if replicas[at].id == to {
            return true;
        }
        let asked = replicas[at].log.cluster.ask(Ask::Transfer { partition: 0, to });
        // Somebody else may lead by now.
        let answer = block_on(asked.expect("there is room")).expect("it is answered");
        assert!(matches!(answer, Answer::Done | Answer::NotLeader { .. }), "{answer:?}");
        false
    });
}

#[test]
fn four_logs_agree_also_after_a_primary_is_gone_and_all_were_handed_over() {
    let scratch = Scratch::new("agreement");
    let nodes = addresses();
    let mut replicas: Vec<_> =
        NODES.iter().map(|id| start(&scratch, &signing(*id, 1, &nodes))).collect();
    wait_until(&mut replicas, "all partitions are led", all_led);
    let mut numbers: BTreeSet<u128> = (1..=50).collect();
    spread(&mut replicas, "all hear of all", &numbers);

    // The first partition goes round: to the one before, over all others.
    let first = leader(&replicas, 0).expect("it is led");
    let (first, before) = (replicas[first].id, NODES[(first + 3) % 4]);
    transfer(&mut replicas, before);
    // Who led before hears how the view begins a moment later.
    wait_until(&mut replicas, "who led knows who leads", |replicas| {
        let follower = replicas.iter().find(|replica| replica.id == first).expect("it runs");
        let asked = follower.log.cluster.ask(Ask::Transfer { partition: 0, to: first });
        let answer = block_on(asked.expect("there is room"));
        assert!(matches!(answer, Ok(Answer::NotLeader { .. })), "{answer:?}");
        answer == Ok(Answer::NotLeader { leader: Some(before) })
    });
    numbers.insert(51);
    spread(&mut replicas, "all hear after that", &numbers);

    // A primary ends; the others go on, and it catches up when it is back.
    let gone = leader(&replicas, 0).expect("it is led");
    let gone = replicas.remove(gone).id;
    wait_until(&mut replicas, "all partitions are led by three", all_led);
    numbers.insert(52);
    spread(&mut replicas, "three hear", &numbers);
    replicas.push(start(&scratch, &signing(gone, 1, &nodes)));
    wait_until(&mut replicas, "it catches up", |it| all_heard(it, &numbers));
    numbers.insert(53);
    spread(&mut replicas, "all four hear", &numbers);

    // All end, and what they agreed on is there.
    replicas.clear();
    replicas.extend(NODES.iter().map(|id| start(&scratch, &signing(*id, 1, &nodes))));
    wait_until(&mut replicas, "all partitions are led again", all_led);
    wait_until(&mut replicas, "all have all", |it| all_heard(it, &numbers));
    let committed = |replica: &Replica| {
        let status = replica.log.cluster.status();
        let of = |it: &PartitionStatus| Some((it.committed, it.agreement?.chain));
        status.partitions.iter().map(of).collect::<Option<Vec<_>>>()
    };
    wait_until(&mut replicas, "all have the same chains", |replicas| {
        let first = committed(&replicas[0]);
        first.is_some_and(|it| it.len() == usize::from(PARTITIONS))
            && replicas.iter().all(|it| committed(it) == committed(&replicas[0]))
    });
}

#[test]
fn a_folder_that_is_started_as_what_it_is_not_says_what_it_is() {
    let scratch = Scratch::new("whose");
    let nodes = addresses();
    drop(start(&scratch, &signing(1, 1, &nodes)));
    drop(start(&scratch, &seat(2, &NODES, &nodes)));
    let alone = refusal(&scratch, 1, &Seat::alone());
    assert!(alone.contains("node 1 of a cluster whose nodes agree by PBFT; start it"), "{alone}");
    let raft = refusal(&scratch, 1, &seat(1, &NODES, &nodes));
    assert!(raft.contains("agree by pbft, and consensus.protocol is \"raft\""), "{raft}");
    let later = refusal(&scratch, 1, &signing(1, 2, &nodes));
    assert!(later.contains("begun with consensus.generation = 1, which is 2 now"), "{later}");
    let other = refusal(&scratch, 1, &signing(2, 1, &nodes));
    assert!(other.contains("that of node 1, and this is node 2"), "{other}");
    let alone = refusal(&scratch, 2, &Seat::alone());
    assert!(alone.contains("node 2 of a cluster; start it"), "{alone}");
    let signs = refusal(&scratch, 2, &signing(2, 1, &nodes));
    assert!(signs.contains("agree by raft, and consensus.protocol is \"pbft\""), "{signs}");
    // As what they are they start.
    drop(start(&scratch, &signing(1, 1, &nodes)));
    drop(start(&scratch, &seat(2, &NODES, &nodes)));
}

#[test]
fn a_node_that_is_in_another_life_of_the_cluster_is_not_heard() {
    let scratch = Scratch::new("lives");
    let nodes = addresses();
    let lives = [1, 1, 1, 2];
    let mut replicas: Vec<_> = NODES
        .iter()
        .zip(lives)
        .map(|(id, generation)| start(&scratch, &signing(*id, generation, &nodes)))
        .collect();
    let mut stranger = replicas.split_off(3);
    wait_until(&mut replicas, "three agree", all_led);
    let numbers: BTreeSet<u128> = (1..=20).collect();
    spread(&mut replicas, "three hear of all", &numbers);
    let is_known = |replica: &Replica, node: NodeId| {
        let status = replica.log.cluster.status();
        status.nodes.iter().any(|it| it.id == node && it.is_connected)
    };
    assert!(is_known(&replicas[0], 2) && !is_known(&replicas[0], 4));
    assert!(NODES[..3].iter().all(|node| !is_known(&stranger[0], *node)));
    stranger.iter_mut().for_each(Replica::turn);
    assert!(all_heard(&stranger, &BTreeSet::new()));

    // In the life of the others it catches up, once its folder is an empty one.
    drop(stranger);
    std::fs::remove_dir_all(scratch.0.join("4")).expect("it is there");
    replicas.push(start(&scratch, &signing(4, 1, &nodes)));
    wait_until(&mut replicas, "it catches up", |it| all_heard(it, &numbers));
}
