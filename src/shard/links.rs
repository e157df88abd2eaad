//! A core's ends of the mesh: what leaves it, batched, and what arrives.
//!
//! Invariants worth naming:
//! - What is put in for one core arrives there in that order: a batch that a full ring refuses
//!   waits in front of everything that is put in after it.
//! - [`Links::push`] refuses when the way is full. [`Links::push_owed`] never does: it is for
//!   answers and news, whose number the asker's own limits bound.
//! - Messages of a core to itself take the same way without a ring, so the same limits hold.

use crate::{
    runtime::{
        doorbell::Doorbell,
        mesh::{Link, Port},
    },
    wire::{
        batch::{Batch, BatchBuilder, Content, Header, Limits},
        id::{AgentId, CoreIndex},
    },
};
use std::collections::{HashMap, VecDeque};

/// The way to the target is full, or its mailbox is: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

struct Way {
    /// The rings; `None` for the core itself.
    link: Option<Link<Batch>>,
    open: BatchBuilder,
    /// When the oldest message of `open` was put in, microseconds.
    opened_us: u64,
    /// Batches that the ring had no room for, oldest first; for the core itself, its ring.
    waiting: VecDeque<Batch>,
    /// Used buffers of the core itself; those of others come back in their return ring.
    pool: Vec<Batch>,
    bell_due: bool,
}

/// A core's ends of the mesh.
pub struct Links {
    index: usize,
    ways: Vec<Way>,
    bells: Vec<Doorbell>,
    /// Agents whose mailbox is full, with their type.
    closed: HashMap<AgentId, u16>,
    ring_batches: usize,
    timeout_us: u64,
    shared_payload_bytes: usize,
    /// Messages put in since the last flush of everything.
    unsent: bool,
    /// Told to the receivers in every batch, in thousandths.
    pub load: u32,
}

impl Links {
    /// The ends of `port`; batches leave at `limits` or when their oldest message is
    /// `timeout_us` old.
    pub fn new(port: Port<Batch>, limits: Limits, ring_batches: usize, timeout_us: u64) -> Self {
        let way = |link| Way {
            link,
            open: BatchBuilder::new(limits),
            opened_us: 0,
            waiting: VecDeque::new(),
            pool: Vec::new(),
            bell_due: false,
        };
        Self {
            index: port.index,
            ways: port.links.into_iter().map(way).collect(),
            bells: port.bells,
            closed: HashMap::new(),
            ring_batches,
            timeout_us,
            shared_payload_bytes: limits.shared_payload_bytes,
            unsent: false,
            load: 0,
        }
    }

    /// Buffers for batches that were allocated because no used one had come back.
    pub fn buffers_made(&self) -> u64 {
        self.ways.iter().map(|way| way.open.buffers_made()).sum()
    }

    /// Worker cores of the node.
    pub fn cores(&self) -> usize {
        self.ways.len()
    }

    /// Puts a message in for an agent's core, or refuses when the way is full.
    #[inline]
    pub fn push(
        &mut self,
        now_us: u64,
        core: CoreIndex,
        header: Header,
        content: impl Content,
    ) -> Result<(), Full> {
        let way = &mut self.ways[core as usize];
        if way.open.is_full() && !way.depart(self.load, self.ring_batches) {
            return Err(Full);
        }
        if way.open.is_empty() {
            way.opened_us = now_us;
            self.unsent = true;
        }
        content.put(&mut way.open, header);
        Ok(())
    }

    /// Puts an answer or news in, also when the way is full.
    pub fn push_owed(
        &mut self,
        now_us: u64,
        core: CoreIndex,
        header: Header,
        content: impl Content,
    ) {
        let way = &mut self.ways[core as usize];
        if way.open.is_full() && !way.depart(self.load, self.ring_batches) {
            way.put_aside(self.load);
        }
        let pushed = self.push(now_us, core, header, content);
        assert_eq!(pushed, Ok(()), "a new batch has room");
    }

    /// Whether [`Links::push`] to this core would be refused now.
    pub fn is_full(&mut self, core: CoreIndex) -> bool {
        let way = &mut self.ways[core as usize];
        way.open.is_full() && !way.depart(self.load, self.ring_batches)
    }

    /// Whether an agent's mailbox is full, as far as this core knows.
    #[inline]
    pub fn is_closed(&self, agent: AgentId) -> bool {
        !self.closed.is_empty() && self.closed.contains_key(&agent)
    }

    /// Whether the mailbox of any agent of a type is full.
    pub fn is_type_closed(&self, type_index: u16) -> bool {
        self.closed.values().any(|closed| *closed == type_index)
    }

    /// Notes that an agent's mailbox is full, or that it has room again.
    pub fn set_closed(&mut self, agent: AgentId, type_index: Option<u16>) {
        match type_index {
            Some(type_index) => self.closed.insert(agent, type_index),
            None => self.closed.remove(&agent),
        };
    }

    /// Payloads of at least this many bytes should be made once and sent by reference.
    pub fn shared_payload_bytes(&self) -> usize {
        self.shared_payload_bytes
    }

    /// The next batch from a core; from the core itself what it sent since the last look.
    #[inline]
    pub fn take(&mut self, core: usize) -> Option<Batch> {
        let way = &mut self.ways[core];
        match &mut way.link {
            Some(link) => link.incoming.pop(),
            None if !way.waiting.is_empty() => way.waiting.pop_front(),
            None if !way.open.is_empty() => Some(way.open.seal(self.load, way.pool.pop())),
            None => None,
        }
    }

    /// Hands a used batch back to the core that it came from.
    #[inline]
    pub fn give_back(&mut self, core: usize, mut batch: Batch) {
        batch.release();
        let way = &mut self.ways[core];
        match &mut way.link {
            // A full return ring means that the sender has buffers enough: this one is freed.
            Some(link) => drop(link.give_back.push(batch)),
            None => way.pool.push(batch),
        }
    }

    /// Whether a batch waits to be taken.
    #[inline]
    pub fn has_arrivals(&self) -> bool {
        self.ways.iter().any(|way| match &way.link {
            Some(link) => !link.incoming.is_empty(),
            None => !way.waiting.is_empty() || !way.open.is_empty(),
        })
    }

    /// Whether something waits to leave.
    pub fn has_departures(&self) -> bool {
        self.ways
            .iter()
            .any(|way| way.link.is_some() && (!way.waiting.is_empty() || !way.open.is_empty()))
    }

    /// Sends everything that was put in, as far as the rings have room: for a core that has
    /// nothing else to do.
    #[inline]
    pub fn flush(&mut self) {
        if !self.unsent {
            return;
        }
        let mut rest = false;
        for way in self.ways.iter_mut().filter(|way| way.link.is_some()) {
            way.depart(self.load, self.ring_batches);
            rest |= !way.open.is_empty() || !way.waiting.is_empty();
        }
        self.unsent = rest;
        self.ring_bells();
    }

    /// Sends what is due at a busy core: batches that are full or old, and those whose receiver
    /// has taken everything before.
    #[inline]
    pub fn flush_due(&mut self, now_us: u64) {
        if !self.unsent {
            return;
        }
        for way in &mut self.ways {
            let Some(link) = &way.link else { continue };
            let due = !way.waiting.is_empty()
                || way.open.is_full()
                || !way.open.is_empty()
                    && (now_us.saturating_sub(way.opened_us) >= self.timeout_us
                        || link.outgoing.is_drained());
            if due {
                way.depart(self.load, self.ring_batches);
            }
        }
        self.ring_bells();
    }

    #[inline]
    fn ring_bells(&mut self) {
        for (core, way) in self.ways.iter_mut().enumerate() {
            if std::mem::take(&mut way.bell_due) && core != self.index {
                self.bells[core].ring_if_parked();
            }
        }
    }
}

impl Way {
    /// Moves what waits and then the open batch into the ring; false when the open batch could
    /// not leave.
    fn depart(&mut self, load: u32, ring_batches: usize) -> bool {
        let Some(link) = &mut self.link else {
            if self.waiting.len() >= ring_batches {
                return false;
            }
            self.put_aside(load);
            return true;
        };
        while let Some(batch) = self.waiting.pop_front() {
            if let Err(batch) = link.outgoing.push(batch) {
                self.waiting.push_front(batch);
                return false;
            }
            self.bell_due = true;
        }
        if self.open.is_empty() {
            return true;
        }
        if link.outgoing.is_full() {
            return false;
        }
        let sealed = self.open.seal(load, link.returned.pop());
        self.bell_due = true;
        let pushed = link.outgoing.push(sealed);
        assert!(pushed.is_ok(), "the ring had room and this is its only producer");
        true
    }

    /// Closes the open batch and lets it wait.
    fn put_aside(&mut self, load: u32) {
        if !self.open.is_empty() {
            let used = match &mut self.link {
                Some(link) => link.returned.pop(),
                None => self.pool.pop(),
            };
            let sealed = self.open.seal(load, used);
            self.waiting.push_back(sealed);
        }
    }
}

#[cfg(test)]
mod tests;
