//! How fast it is on one thread; for orientation, so it runs only when it is asked for.

use super::*;
use crate::consensus::raft::message;
use std::{collections::VecDeque, time::Instant};

/// A task's record is about as long.
const OPERATION_BYTES: usize = 64;
const PROPOSALS: u64 = 100_000;
/// Proposals that wait together while a write is under way.
const TOGETHER: u64 = 32;

fn node(id: u64, nodes: u64) -> Driver {
    let limits = Limits { cache_bytes: 32 << 20, proposals: 1024, proposal_bytes: 64 << 20 };
    let settings = Settings { node: id, seed: 1, tick_ms: 10, limits, balance: false };
    let voters: Vec<u64> = (1..=nodes).collect();
    Driver::new(settings, vec![Restore::with_voters(0, &voters)]).expect("it is fresh")
}

/// Proposals that were committed at the leader per second; messages travel as bytes, writes are
/// done at once.
fn rate(nodes: u64, operations: usize) -> f64 {
    let mut drivers: Vec<_> = (1..=nodes).map(|id| node(id, nodes)).collect();
    let data = Bytes::from(vec![7; operations * OPERATION_BYTES]);
    let mut outputs = Outputs::default();
    let mut network = VecDeque::new();
    let (mut proposed, mut committed, mut now_ms) = (0, 0, 0);
    let mut leader = None;
    let mut begun = Instant::now();
    while committed < PROPOSALS {
        match leader {
            None => {
                now_ms += 10;
                drivers.iter_mut().for_each(|driver| driver.advance(now_ms));
            }
            Some(at) => {
                let driver: &mut Driver = &mut drivers[at];
                for _ in 0..TOGETHER {
                    if driver.propose(0, data.clone(), proposed).is_err() {
                        break;
                    }
                    proposed += 1;
                }
            }
        }
        for (at, driver) in drivers.iter_mut().enumerate() {
            while driver.has_ready() {
                driver.take_ready(&mut outputs);
                for (partition, message) in &outputs.messages {
                    let mut bytes = Vec::new();
                    message::encode(*partition, message, &mut bytes);
                    network.push_back((message.to, Bytes::from(bytes)));
                }
                for (_, event) in &outputs.events {
                    match event {
                        Event::Committed { ticket: Some(_), .. } => committed += 1,
                        Event::Role(Role::Leader { .. }) => {
                            leader = Some(at);
                            begun = Instant::now();
                        }
                        _ => {}
                    }
                }
                driver.persisted(outputs.batch);
            }
        }
        for (to, bytes) in network.drain(..) {
            let (partition, message) = message::decode(&bytes).expect("it was encoded here");
            drivers[to as usize - 1].step(partition, message).expect("it is sound");
        }
    }
    PROPOSALS as f64 / begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement, not a promise"]
fn proposals_and_operations_a_second() {
    for nodes in [1, 3, 5] {
        for operations in [1, 100] {
            let proposals = rate(nodes, operations);
            let millions = proposals * operations as f64 / 1e6;
            println!(
                "{nodes} nodes, {operations:3} operations an entry: \
                 {proposals:9.0} entries/s, {millions:5.2} M operations/s"
            );
        }
    }
}
