//! Byzantine agreement without disks and links: four replicas in one thread, messages encoded and
//! decoded, everything signed and verified.
//!
//! - `agreement/proposals`: the primary proposes ten entries of a block of 100 operations, 6 KiB, each;
//!   all four commit them.
//! - `agreement/requests`: a client signs 100 requests of 64 bytes and sends them to the primary; its
//!   requests are finished by tentative answers of three, and all four commit them.
//! - `agreement/sign` and `agreement/verify`: one vote, and one identity.
//!
//! `cargo bench --bench agreement`. The middle one of the three times is the estimate for one iteration.
//! `thrpt` counts operations in a second that one core does the work of all four replicas for.

use bytes::Bytes;
use coreflow::consensus::{
    engine::Event,
    pbft::{
        Client, Group, Identity, Keys, Members, Message, Restore, Ring, Settings, Timing, Write,
    },
    place::Place,
};
use criterion::{Criterion, Throughput};
use std::{collections::VecDeque, hint::black_box, time::Duration};

const NODES: u64 = 4;
const CLIENT: u64 = 100;
const CLUSTER: u128 = 1;
const BLOCK_BYTES: usize = 6 << 10;
const OPERATIONS: u64 = 100;
const ENTRIES: u64 = 10;
const REQUEST_BYTES: usize = 64;
const REQUESTS: usize = 100;

fn identity(id: u64) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&id.to_le_bytes());
    Identity::from_secret(&secret)
}

fn keys(id: u64) -> Keys {
    let all = (1..=NODES).chain([CLIENT]);
    let ring = Ring::new(all.map(|id| (id, identity(id).public()))).expect("they are keys");
    Keys::new(identity(id), ring, CLUSTER, 0)
}

fn members() -> Members {
    Members::new(0, &(1..=NODES).collect::<Vec<_>>()).expect("they are four")
}

/// Four replicas, a client, and what is on its way between them.
struct Cluster {
    groups: Vec<Group>,
    client: Client,
    /// To, from, and the message as bytes.
    network: VecDeque<(u64, u64, Bytes, Vec<Bytes>)>,
    tickets: u64,
    committed: [u64; NODES as usize],
    finished: usize,
}

impl Cluster {
    fn new() -> Self {
        let settings = Settings::default();
        let group = |id| {
            let restore = Restore::new(0, settings.checkpoint_every);
            Group::new(id, members(), keys(id), settings, restore).expect("it is fresh")
        };
        let client = Client::new(CLIENT, members(), keys(CLIENT), Timing::default());
        let mut cluster = Self {
            groups: (1..=NODES).map(group).collect(),
            client,
            network: VecDeque::new(),
            tickets: 0,
            committed: [0; NODES as usize],
            finished: 0,
        };
        cluster.run();
        cluster
    }

    /// Lets everything happen that can.
    fn run(&mut self) {
        loop {
            self.take_outputs();
            let Some((to, from, head, parts)) = self.network.pop_front() else { return };
            let message = Message::decode(&head, &parts).expect("it was encoded");
            match to {
                CLIENT => drop(self.client.step(from, &message)),
                node => drop(self.groups[node as usize - 1].step(from, message)),
            }
        }
    }

    fn take_outputs(&mut self) {
        for (node, group) in (1..).zip(&mut self.groups) {
            while group.has_ready() {
                let ready = group.take_ready();
                for letter in ready.letters {
                    let (mut head, mut parts) = (Vec::new(), Vec::new());
                    letter.message.encode(&mut head, &mut parts);
                    let head = Bytes::from(head);
                    for to in letter.to {
                        self.network.push_back((to, node, head.clone(), parts.clone()));
                    }
                }
                for write in ready.writes {
                    if let Write::Entry { term, index, .. } = write {
                        group.placed(index, term, Place { generation: 1, offset: 0 });
                    }
                }
                for event in ready.events {
                    if let Event::Committed { index, .. } = event {
                        self.committed[node as usize - 1] = index;
                    }
                }
                ready.wait.into_iter().for_each(|number| group.persisted(number));
            }
        }
        for letter in self.client.take_letters() {
            let (mut head, mut parts) = (Vec::new(), Vec::new());
            letter.message.encode(&mut head, &mut parts);
            let head = Bytes::from(head);
            for to in letter.to {
                self.network.push_back((to, CLIENT, head.clone(), parts.clone()));
            }
        }
        self.finished += self.client.take_finished().len();
    }

    fn propose(&mut self, block: &Bytes) {
        let before = self.committed;
        for _ in 0..ENTRIES {
            self.tickets += 1;
            let primary = &mut self.groups[0];
            primary.propose(block.clone(), self.tickets).expect("it leads and has room");
        }
        self.run();
        let is_done = (0..before.len()).all(|at| self.committed[at] == before[at] + ENTRIES);
        assert!(is_done, "{before:?} {:?}", self.committed);
    }

    fn ask(&mut self, operation: &Bytes) {
        let (mut left, before) = (REQUESTS, self.finished);
        while left > 0 {
            while left > 0 && self.client.submit(operation.clone()).is_some() {
                left -= 1;
            }
            self.run();
        }
        assert_eq!(self.finished, before + REQUESTS, "all are answered");
    }
}

fn bench_agreement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("agreement");
    let mut cluster = Cluster::new();
    let block = Bytes::from(vec![1; BLOCK_BYTES]);
    group.throughput(Throughput::Elements(ENTRIES * OPERATIONS));
    group.bench_function("proposals", |bencher| bencher.iter(|| cluster.propose(&block)));
    let mut cluster = Cluster::new();
    let operation = Bytes::from(vec![1; REQUEST_BYTES]);
    group.throughput(Throughput::Elements(REQUESTS as u64));
    group.bench_function("requests", |bencher| bencher.iter(|| cluster.ask(&operation)));
    let (signer, verifier) = (identity(1), Ring::new([(1, identity(1).public())]));
    let verifier = verifier.expect("it is a key");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sign", |bencher| {
        bencher.iter(|| signer.sign_bytes(black_box(&[3; 100])));
    });
    let signature = signer.sign_bytes(&[3; 100]);
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert!(verifier.has_signed_bytes(1, black_box(&[3; 100]), &signature)));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    bench_agreement(&mut criterion);
    criterion.final_summary();
}
