//! Which requests of each client are executed: each is once (OSDI '99, §4.2).
//!
//! A client numbers its requests upwards, may leave numbers out, and may have some under way at once
//! that are executed in any order. Of each client the last [`REMEMBERED`] executed numbers are
//! remembered; whatever is at or below the highest that was forgotten counts as executed. A client
//! that keeps its numbers under way within that many of each other never meets it.
//!
//! Invariants worth naming
//! - The table follows from the log alone, so that all replicas have the same behind an entry.
//! - It grows with the clients in the ring, and not with requests.

use super::{
    keys::{Digest, hash},
    wire::{Put, Reader},
};
use crate::consensus::malformed::Malformed;
use std::{collections::BTreeMap, collections::VecDeque};

/// Executed requests of a client that are remembered one by one.
pub const REMEMBERED: usize = 128;
/// Clients in a table at most.
pub const CLIENTS_MAX: usize = 1 << 16;

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    /// Everything up to this counts as executed.
    below: u64,
    /// What was executed above that, and in which entry; ascending.
    recent: VecDeque<(u64, u64)>,
}

/// The executed requests of all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table {
    clients: BTreeMap<u64, Client>,
}

impl Table {
    /// Whether a request was not executed.
    pub fn is_fresh(&self, client: u64, timestamp: u64) -> bool {
        let Some(known) = self.clients.get(&client) else { return true };
        timestamp > known.below
            && known.recent.binary_search_by_key(&timestamp, |(number, _)| *number).is_err()
    }

    /// The entry that a request was executed in, when that is remembered.
    pub fn executed_in(&self, client: u64, timestamp: u64) -> Option<u64> {
        let known = self.clients.get(&client)?;
        let at = known.recent.binary_search_by_key(&timestamp, |(number, _)| *number).ok()?;
        Some(known.recent[at].1)
    }

    /// The highest number that a client is known to have used.
    pub fn last(&self, client: u64) -> u64 {
        let known = self.clients.get(&client);
        known.map_or(0, |known| known.recent.back().map_or(known.below, |(number, _)| *number))
    }

    /// A request is executed in an entry.
    pub fn execute(&mut self, client: u64, timestamp: u64, seq: u64) {
        let known = self.clients.entry(client).or_default();
        let Err(at) = known.recent.binary_search_by_key(&timestamp, |(number, _)| *number) else {
            return;
        };
        if timestamp <= known.below {
            return;
        }
        known.recent.insert(at, (timestamp, seq));
        if known.recent.len() > REMEMBERED
            && let Some((forgotten, _)) = known.recent.pop_front()
        {
            known.below = forgotten;
        }
    }

    /// Its digest; that of an empty one is zero, as at the beginning of the log.
    pub fn digest(&self) -> Digest {
        if self.clients.is_empty() {
            return [0; 32];
        }
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        hash(&[b"table", &bytes])
    }

    /// Appends it as bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.clients.len() as u32);
        for (client, Client { below, recent }) in &self.clients {
            out.put_u64(*client);
            out.put_u64(*below);
            out.put_u32(recent.len() as u32);
            for (timestamp, seq) in recent {
                out.put_u64(*timestamp);
                out.put_u64(*seq);
            }
        }
    }

    /// Reads it.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(CLIENTS_MAX, 20)?;
        let mut clients = BTreeMap::new();
        for _ in 0..count {
            let (number, below) = (reader.u64()?, reader.u64()?);
            let count = reader.count(REMEMBERED, 16)?;
            let recent: VecDeque<_> = (0..count)
                .map(|_| Ok((reader.u64()?, reader.u64()?)))
                .collect::<Result<_, Malformed>>()?;
            clients.insert(number, Client { below, recent });
        }
        Ok(Self { clients })
    }
}
