//! What shards and clients ask for.

use super::{Due, World};
use crate::{operation::Operation, trace::note};

impl World {
    /// A node's shards ask for something.
    pub(super) fn ask(&mut self, at: usize) {
        let us = self.rng.u64(500..=self.pace_ms * 1_000);
        self.later(us, Due::Shards(at));
        self.tend_duties(at);
        self.strand(at);
        let node = &mut self.nodes[at];
        let is_villain = self.villains.contains_key(&node.id);
        let Some(driver) = &mut node.driver else { return };
        if self.is_over {
            return;
        }
        let is_quiet = node.quiet_until_us > self.now_us;
        for (partition, shard) in (0..).zip(&mut node.shards) {
            let (filling, times) = (self.rng.usize(..200), self.rng.u32(..3));
            let (times, seldom) = if is_quiet { (0, 2) } else { (times, 20) };
            if shard.leads.is_some() && self.rng.u32(..seldom) == 0 {
                self.last_ticket += 1;
                if driver.read(partition, self.last_ticket).is_ok() {
                    shard.reads.insert(self.last_ticket, self.oracle.finished_upto(partition));
                }
            }
            for _ in 0..times {
                self.last_number += 1;
                self.last_ticket += 1;
                let (ticket, number) = (self.last_ticket, (1 << 48) + self.last_number);
                let what = Operation { author: node.id, number };
                let data = what.encode(filling);
                if let Some(term) = shard.leads {
                    if driver.propose(partition, data.clone(), ticket).is_ok() && !is_villain {
                        note!(self.trace, "{} in {partition} proposes {number}: {ticket}", node.id);
                        self.oracle.ask(partition, what, &data, Some(term));
                        self.oracle.open(node.id, partition, ticket, what);
                    }
                } else if self.rng.u32(..4) == 0
                    && driver.request(partition, data.clone(), ticket).is_ok()
                    && !is_villain
                {
                    note!(self.trace, "{} in {partition} requests {number}: {ticket}", node.id);
                    self.oracle.ask(partition, what, &data, None);
                    shard.requests.insert(ticket, what);
                }
            }
        }
        self.turn(at);
    }

    pub(super) fn client(&mut self, at: usize) {
        let us = self.rng.u64(1_000..=self.pace_ms * 2_000);
        self.later(us, Due::Client(at));
        let (filling, asks) = (self.rng.usize(..700), self.rng.bool() && !self.is_over);
        let asker = &mut self.askers[at];
        asker.tick(self.now_us / 1_000);
        if asks && let Some((what, data)) = asker.ask(filling) {
            note!(self.trace, "{} asks {} for {what:?}", asker.id, asker.partition);
            self.oracle.ask(asker.partition, what, &data, None);
        }
        if self.rng.u32(..4) == 0 {
            let accepted = self.oracle.accepted_upto(self.askers[at].partition);
            self.askers[at].ask_head(accepted);
        }
        self.client_letters(at);
    }
}
