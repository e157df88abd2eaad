//! What goes wrong in a run.

use super::{Due, World};
use crate::{faults::Fault, trace::note};
use std::collections::BTreeSet;

/// Disks are slow for so long before all lose their power, at most, microseconds.
const SNUFF_US_MAX: u64 = 300_000;

impl World {
    pub(super) fn crash(&mut self, at: usize, for_us: u64) {
        let node = &mut self.nodes[at];
        if node.driver.is_some() {
            note!(self.trace, "{} crashes", node.id);
            node.crash(&mut self.rng);
            self.summary.crashes += 1;
            self.later(for_us, Due::Start(at));
        }
    }

    pub(super) fn fail(&mut self) {
        self.later(1_000, Due::Fault);
        if self.is_healed {
            return;
        }
        let Some(fault) = self.faults.strike(&mut self.rng) else { return };
        note!(self.trace, "{fault:?}");
        let until_us = self.now_us + self.rng.u64(1_000..4_000_000);
        let at = self.rng.usize(..self.nodes.len());
        let nodes = self.group.nodes.clone();
        let for_us = until_us - self.now_us;
        let one = self.nodes[at].id;
        match fault {
            Fault::Crash => self.crash(at, for_us),
            Fault::Blackout => self.black_out(),
            Fault::Cut => {
                let other = nodes[self.rng.usize(..nodes.len())];
                self.network.cut(one, other, until_us);
            }
            Fault::Isolate => self.isolate(one, until_us),
            Fault::Part => {
                let part: BTreeSet<_> = nodes.iter().copied().filter(|_| self.rng.bool()).collect();
                for from in &nodes {
                    for to in nodes.iter().filter(|to| part.contains(from) != part.contains(to)) {
                        self.network.cut(*from, *to, until_us);
                    }
                }
            }
            Fault::Slow => self.nodes[at].slow_until_us = until_us,
            Fault::Stumble => self.nodes[at].stumbles = true,
            Fault::Snuff => {
                self.snuffs_from_us = Some(self.now_us + self.rng.u64(..SNUFF_US_MAX));
                self.nodes.iter_mut().for_each(|node| node.slow_until_us = until_us);
            }
            Fault::Strand => self.nodes[at].stranded_us = for_us,
        }
    }

    fn isolate(&mut self, one: u64, until_us: u64) {
        let clients = self.askers.iter().map(|asker| asker.id);
        for other in self.group.nodes.iter().copied().chain(clients) {
            self.network.cut(one, other, until_us);
            self.network.cut(other, one, until_us);
        }
    }

    /// A node that is to be stranded is, if it leads and has nothing under way.
    pub(super) fn strand(&mut self, at: usize) {
        let node = &self.nodes[at];
        let (one, for_us) = (node.id, node.stranded_us);
        if for_us > 0 && !self.is_healed && node.leads_idly() {
            note!(self.trace, "{one} is stranded");
            let until_us = self.now_us + for_us;
            (self.nodes[at].stranded_us, self.nodes[at].quiet_until_us) = (0, until_us);
            self.isolate(one, until_us);
        }
    }

    /// All lose their power at once.
    pub(super) fn black_out(&mut self) {
        for at in 0..self.nodes.len() {
            let for_us = self.rng.u64(1_000..1_000_000);
            self.crash(at, for_us);
        }
    }

    /// Somebody is answered: what follows from that at once is still done.
    pub(super) fn snuff(&mut self) {
        let is_due = |from_us: &mut u64| *from_us <= self.now_us;
        if self.snuffs_from_us.take_if(is_due).is_some() && !self.is_healed {
            self.nodes.iter_mut().for_each(|node| node.slow_until_us = 0);
            self.later(0, Due::Blackout);
        }
    }
}
