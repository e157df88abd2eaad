//! A cluster in memory, under faults that a seed decides, and what it promises.

mod bytes;
mod check;
mod cluster;
mod faults;
mod life;
mod log;
mod members;
mod speed;

use self::cluster::{Cluster, Faults};
use super::{
    driver::{Driver, Settings},
    group::{Limits, Refused},
    membership::{Change, ChangeRefused, Members},
    outputs::{Event, HardState, Kind, Outputs, Point, Role, Stored, Write},
    restore::Restore,
};
use ::bytes::Bytes;

const TICK_MS: u64 = 10;

fn settings(node: u64, seed: u64) -> Settings {
    let limits = Limits { cache_bytes: 8 << 10, proposals: 64, proposal_bytes: 64 << 10 };
    Settings { node, seed, tick_ms: TICK_MS, limits, balance: false }
}

/// A block that carries the number of its proposal.
fn block(ticket: u64, bytes: usize) -> Bytes {
    let mut data = vec![0x5a; bytes.max(8)];
    data[..8].copy_from_slice(&ticket.to_le_bytes());
    data.into()
}
