//! Three nodes' logs, linked over real sockets, on real disks.

use super::{DEADLINE, Scratch, settings};
use coreflow::{
    consensus::{
        News, Record,
        cluster::{Address, Answer, Ask},
        lane::LaneLog,
        open::{OpenLog, Seat, open},
        peers::{Config, Limits, NodeId, Timing},
    },
    runtime::doorbell::Doorbell,
    wire::id::TaskId,
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

pub const PARTITIONS: u16 = 4;

/// A node, and what its shards would know.
pub struct Replica {
    pub id: NodeId,
    pub log: OpenLog,
    /// What each partition heard, by the numbers of the tasks.
    heard: Vec<BTreeSet<u128>>,
    leads: Vec<bool>,
}

/// One of 16 million of the loopback, as somebody else may take a port of 127.0.0.1 before the node does.
pub fn free_address() -> SocketAddr {
    let [one, two, three] = std::array::from_fn(|_| fastrand::u8(1..=254));
    let address = (Ipv4Addr::new(127, one, two, three), 0);
    let listener = TcpListener::bind(address).expect("there are ports");
    listener.local_addr().expect("it is bound")
}

/// The place of a node among others.
pub fn seat(id: NodeId, voters: &[NodeId], nodes: &[(NodeId, Address)]) -> Seat {
    let listen = nodes.iter().find(|(node, _)| *node == id).expect("it is listed").1.peers;
    Seat {
        node: id,
        voters: voters.to_vec(),
        partitions: Some(PARTITIONS),
        tick_ms: 20,
        nodes: nodes.to_vec(),
        links: Some(Config {
            cluster: 7,
            node: id,
            listen,
            secret: None,
            signing: None,
            seed: id,
            limits: Limits::default(),
            timing: Timing::default(),
        }),
        ..Seat::alone()
    }
}

/// The node of a seat, with a folder of its own.
pub fn start(scratch: &Scratch, seat: &Seat) -> Replica {
    let bell = Doorbell::new().expect("there are descriptors");
    let mut heard = vec![BTreeSet::new(); usize::from(PARTITIONS)];
    let folder = scratch.0.join(seat.node.to_string());
    let log = open(settings(&folder, 32, 4096), seat, &[bell], &mut |replayed| match replayed {
        coreflow::consensus::recovery::Replayed::Record(_, partition, record, _) => {
            take(&mut heard[usize::from(partition)], &record);
        }
        coreflow::consensus::recovery::Replayed::Anew(partition) => {
            heard[usize::from(partition)].clear();
        }
    });
    Replica { id: seat.node, log: log.expect("it opens"), heard, leads: vec![false; 4] }
}

fn take(heard: &mut BTreeSet<u128>, record: &Record<'_>) {
    if let Record::Requeued { id } = record {
        heard.insert(id.random);
    }
}

impl Replica {
    fn lane(&mut self, partition: usize) -> &mut LaneLog {
        &mut self.log.lanes[partition]
    }

    /// Takes all news.
    pub fn turn(&mut self) {
        for partition in 0..self.log.lanes.len() {
            self.lane(partition).flush();
            while let Some(news) = self.lane(partition).next_news() {
                match news {
                    News::Foreign(foreign) => {
                        let heard = &mut self.heard[partition];
                        foreign.records(|_, record| take(heard, &record)).expect("it is whole");
                    }
                    News::Lead => self.leads[partition] = true,
                    News::Follow { .. } => {
                        self.leads[partition] = false;
                        self.heard[partition].clear();
                    }
                    News::Committed(_)
                    | News::Beside(_)
                    | News::CaughtUp
                    | News::Compacted(_)
                    | News::Claimed(_)
                    | News::Read(_) => {}
                }
            }
        }
    }
}

pub fn wait_until(
    replicas: &mut [Replica],
    what: &str,
    mut holds: impl FnMut(&mut [Replica]) -> bool,
) {
    let late = Instant::now() + DEADLINE;
    loop {
        replicas.iter_mut().for_each(Replica::turn);
        if holds(replicas) {
            return;
        }
        assert!(Instant::now() < late, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Who leads a partition, if anybody does.
pub fn leader(replicas: &[Replica], partition: usize) -> Option<usize> {
    replicas.iter().position(|replica| replica.leads[partition])
}

pub fn all_led(replicas: &mut [Replica]) -> bool {
    (0..usize::from(PARTITIONS)).all(|partition| leader(replicas, partition).is_some())
}

/// Appends, at the leader of each partition, what it does not have. Leaders change also when nothing
/// fails, and what one had not committed is lost then.
fn append_missing(replicas: &mut [Replica], numbers: &BTreeSet<u128>) {
    for partition in 0..usize::from(PARTITIONS) {
        let Some(at) = leader(replicas, partition) else { continue };
        let missing: Vec<_> = numbers.difference(&replicas[at].heard[partition]).copied().collect();
        for random in missing {
            let id = TaskId { partition: partition as u16, random };
            replicas[at].lane(partition).append(Record::Requeued { id });
            // What a leader appends it need not be told.
            replicas[at].heard[partition].insert(random);
        }
    }
}

/// Waits until all replicas have these numbers, and appends what they lack.
pub fn spread(replicas: &mut [Replica], what: &str, numbers: &BTreeSet<u128>) {
    wait_until(replicas, what, |replicas| {
        append_missing(replicas, numbers);
        all_heard(replicas, numbers)
    });
}

pub fn all_heard(replicas: &[Replica], numbers: &BTreeSet<u128>) -> bool {
    replicas.iter().all(|replica| replica.heard.iter().all(|heard| heard == numbers))
}

#[test]
fn three_logs_say_the_same_also_after_a_leader_is_gone_and_one_joins() {
    let scratch = Scratch::new("replication");
    let address = |_| Address { peers: free_address(), rpc: free_address() };
    let nodes: Vec<_> = (1..=4).map(|id| (id, address(id))).collect();
    let (three, fourth) = (&nodes[..3], nodes[3]);
    let mut replicas: Vec<_> =
        (1..=3).map(|id| start(&scratch, &seat(id, &[1, 2, 3], three))).collect();
    wait_until(&mut replicas, "all partitions are led", all_led);

    let mut numbers: BTreeSet<u128> = (1..=50).collect();
    spread(&mut replicas, "all hear of all", &numbers);

    // The node that leads the first partition ends; the others go on.
    let gone = leader(&replicas, 0).expect("it is led");
    let gone = replicas.remove(gone);
    let gone_id = gone.id;
    drop(gone);
    wait_until(&mut replicas, "all partitions are led by two", all_led);
    numbers.insert(51);
    spread(&mut replicas, "both hear", &numbers);

    // It comes back and hears what it missed; what it has from its disk it knows already.
    replicas.push(start(&scratch, &seat(gone_id, &[1, 2, 3], three)));
    wait_until(&mut replicas, "it catches up", |it| all_heard(it, &numbers));
    numbers.insert(52);
    spread(&mut replicas, "all three hear", &numbers);

    // A fourth one that knows nothing joins.
    replicas.push(start(&scratch, &seat(fourth.0, &[], &nodes)));
    let know = replicas[0].log.cluster.ask(Ask::Know(fourth.0, fourth.1)).expect("there is room");
    let mut learned = 0;
    wait_until(&mut replicas, "it is a member of all", |replicas| {
        if learned < PARTITIONS {
            learned = 0;
            for replica in replicas.iter() {
                let change = coreflow::consensus::raft::Change::AddLearners(vec![fourth.0]);
                let _ = replica.log.cluster.ask(Ask::Change(change));
            }
        }
        let status = replicas[3].log.cluster.status();
        let is_voter = |members: &coreflow::consensus::raft::Members| members.is_voter(fourth.0);
        learned = status.partitions.iter().filter(|it| is_voter(&it.members)).count() as u16;
        learned == PARTITIONS
    });
    assert_eq!(futures_lite::future::block_on(know), Ok(Answer::Done));
    wait_until(&mut replicas, "the fourth has all", |it| all_heard(it, &numbers));
    numbers.insert(53);
    spread(&mut replicas, "all four hear", &numbers);
    let status = replicas[1].log.cluster.status();
    assert_eq!(status.nodes.len(), 4);
    assert!(status.nodes.iter().all(|node| node.is_connected), "{status:?}");
    assert_eq!(status.nodes[3].address, Some(fourth.1));
}
