//! What goes wrong, and how often.

use crate::{
    network::Network,
    node::Node,
    trace::{Trace, note},
};
use coreflow::consensus::{cluster::Ask, members::Change, simulated::Tear};

/// Which faults a run has, each as how many of a hundred thousand steps begin one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A process ends, between two turns.
    pub crash: u32,
    /// The power is lost during a write.
    pub tear: u32,
    /// Most nodes lose their power at about the same time.
    pub blackout: u32,
    /// A process ends in good order.
    pub leave: u32,
    /// A process stands still, or one of its threads.
    pub pause: u32,
    /// A connection breaks.
    pub cut: u32,
    /// Nothing gets from one node to another, or from and to a node, for a time.
    pub clog: u32,
    /// A disk is full for a time.
    pub full: u32,
    /// A partition is handed over.
    pub transfer: u32,
    /// Somebody asks that a node joins or leaves.
    pub change: u32,
}

impl Faults {
    /// Faults of a run: some kinds at all, and those as often as it comes.
    pub fn random(rng: &mut fastrand::Rng, changes: bool) -> Self {
        let mut often = |most: u32| if rng.u32(..3) == 0 { 0 } else { rng.u32(1..=most) };
        Self {
            crash: often(200),
            tear: often(400),
            blackout: often(60),
            leave: often(60),
            pause: often(120),
            cut: often(300),
            clog: often(200),
            full: often(30),
            transfer: often(100),
            change: if changes { rng.u32(50..400) } else { 0 },
        }
    }

    /// Perhaps begins a fault.
    pub fn strike(
        &self,
        nodes: &mut [Node],
        network: &Network,
        rng: &mut fastrand::Rng,
        trace: &Trace,
        now_us: u64,
    ) {
        let mut dice = rng.u32(..100_000);
        let mut is_it = |chance: u32| {
            let hit = dice < chance;
            dice = if hit { u32::MAX } else { dice - chance };
            hit
        };
        let at = rng.usize(..nodes.len());
        let id = at as u64 + 1;
        let other = 1 + rng.u64(..nodes.len() as u64);
        if is_it(self.crash) {
            note!(trace, "fault: {id} crashes");
            crash(&mut nodes[at], network);
        } else if is_it(self.tear) {
            let tear = match rng.bool() {
                true => Tear::Prefix(rng.usize(..24)),
                false => Tear::Scattered(rng.u64(..)),
            };
            note!(trace, "fault: {id} loses its power in the next write: {tear:?}");
            nodes[at].disk.tear_next_write(tear);
        } else if is_it(self.blackout) {
            for node in nodes {
                match rng.u32(..4) {
                    0 => {}
                    1 => {
                        note!(trace, "fault: {} crashes with others", node.id);
                        crash(node, network);
                        node.disk.lose_power(now_us);
                    }
                    _ => {
                        let sectors = rng.usize(..3) * 8;
                        note!(trace, "fault: {} loses its power: {sectors}", node.id);
                        node.disk.tear_next_write(Tear::Prefix(sectors));
                    }
                }
            }
        } else if is_it(self.leave) {
            note!(trace, "fault: {id} leaves");
            nodes[at].leave();
        } else if is_it(self.pause) {
            let until_us = now_us + rng.u64(1_000..1_500_000);
            let what = rng.u32(..3);
            note!(trace, "fault: {id} stands still until {until_us}: {what}");
            if what != 1 {
                nodes[at].keeper_busy_us = nodes[at].keeper_busy_us.max(until_us);
            }
            // Not longer than that: keys are used again for a second more.
            if what != 2 && nodes[at].shard_busy_us < now_us {
                nodes[at].shard_busy_us = until_us;
            }
        } else if is_it(self.cut) && id != other {
            network.cut(id, other);
        } else if is_it(self.clog) && id != other {
            let for_us = rng.u64(1_000..2_000_000);
            let what = rng.u32(..3);
            note!(trace, "fault: {id} and {other} are clogged for {for_us}: {what}");
            for third in 1..=nodes.len() as u64 {
                let is_concerned = third != id && (what == 2 || third == other);
                if is_concerned {
                    network.clog(id, third, for_us);
                }
                if is_concerned && what > 0 {
                    network.clog(third, id, for_us);
                }
            }
        } else if is_it(self.full) {
            let is_full = rng.bool();
            note!(trace, "fault: the disk of {id} is full: {is_full}");
            nodes[at].disk.set_capacity(is_full.then_some(0));
        } else if is_it(self.transfer) && id != other {
            let partition = rng.u16(..4);
            if let Some(running) = &nodes[at].running
                && partition < running.cluster.leaders.partitions()
            {
                note!(trace, "fault: {id} hands {partition} over to {other}");
                drop(running.cluster.ask(Ask::Transfer { partition, to: other }));
            }
        } else if is_it(self.change) {
            let change = match rng.u32(..3) {
                0 => Change::Remove(vec![other]),
                1 => Change::Promote(vec![other]),
                _ => Change::AddLearners(vec![other]),
            };
            note!(trace, "fault: all are asked for {change:?}");
            for running in nodes.iter().filter_map(|node| node.running.as_ref()) {
                drop(running.cluster.ask(Ask::Change(change.clone())));
            }
        }
    }
}

/// A process ends at once.
pub fn crash(node: &mut Node, network: &Network) {
    node.kill();
    network.set_up(node.id, false);
}
