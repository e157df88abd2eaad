//! Clients that are no replicas: each asks one partition, some things at once, and sends again what is
//! not answered.

use crate::{node::Group, operation::Operation};
use coreflow::consensus::pbft::{Client, Message, client::Finished, keys::Digest};
use std::collections::BTreeMap;

/// A correct client.
pub struct Asker {
    /// Its number, which is its address too.
    pub id: u64,
    /// The partition that it asks.
    pub partition: u16,
    client: Client,
    waiting: BTreeMap<u64, Operation>,
    number: u64,
    /// It asks how far the log is, in which an answer up to this entry was accepted before.
    asked_behind: Option<u64>,
}

impl Asker {
    /// A client that has asked for nothing yet.
    pub fn new(group: &Group, id: u64, partition: u16) -> Self {
        let (members, keys) = (group.members(partition), group.keys(id, partition));
        let client = Client::new(id, members, keys, group.settings.timing);
        Self { id, partition, client, waiting: BTreeMap::new(), number: 0, asked_behind: None }
    }

    /// Asks for something more, if it may.
    pub fn ask(&mut self, filling: usize) -> Option<(Operation, bytes::Bytes)> {
        let what = Operation { author: self.id, number: self.number + 1 };
        let data = what.encode(filling);
        let timestamp = self.client.submit(data.clone())?;
        self.number += 1;
        self.waiting.insert(timestamp, what);
        Some((what, data))
    }

    /// Asks how far the log is, after an answer up to an entry was accepted by somebody.
    pub fn ask_head(&mut self, accepted: u64) {
        self.client.ask_head();
        self.asked_behind = Some(accepted);
    }

    /// What a quorum says of that: what was accepted before, the last entry, and the chain behind it.
    pub fn take_head(&mut self) -> Option<(u64, u64, Digest)> {
        let (seq, chain) = self.client.head().filter(|_| self.asked_behind.is_some())?;
        Some((self.asked_behind.take()?, seq, chain))
    }

    /// Hears a replica.
    pub fn hear(&mut self, from: u64, message: &Message) {
        // What it drops is counted nowhere: liars may say anything.
        let _ = self.client.step(from, message);
    }

    /// Time passes.
    pub fn tick(&mut self, now_ms: u64) {
        self.client.tick(now_ms);
    }

    /// What it sends.
    pub fn take_letters(&mut self) -> impl Iterator<Item = (u64, Message)> {
        let letters = self.client.take_letters().into_iter();
        letters.flat_map(|letter| letter.to.into_iter().map(move |to| (to, letter.message.clone())))
    }

    /// What is done, in which entry, and whether it was fast.
    pub fn take_done(&mut self) -> Vec<(Operation, u64, bool)> {
        let done = self.client.take_finished().into_iter();
        done.map(|Finished { timestamp, seq, is_fast, .. }| {
            let what = self.waiting.remove(&timestamp).expect("it waits for it");
            (what, seq, is_fast)
        })
        .collect()
    }

    /// What it waits for.
    pub fn under_way(&self) -> usize {
        self.waiting.len()
    }
}
