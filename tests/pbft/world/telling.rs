//! What replicas tell, and what the oracle says of it.

use super::{Due, World};
use crate::{operation::Operation, trace::note};
use coreflow::consensus::{
    engine::{Event, Role},
    pbft::Answer,
};

impl World {
    pub(super) fn told(&mut self, at: usize, is_villain: bool, partition: u16, event: Event) {
        let node = &mut self.nodes[at];
        let (id, shard) = (node.id, usize::from(partition));
        match event {
            Event::Committed { index, term, ticket, data, place, .. } => {
                let data = data.or_else(|| node.read(place));
                node.shards[shard].told = index;
                if is_villain {
                    return;
                }
                let data = data.expect("what is committed is in memory or on the disk");
                let all = Operation::names(&data);
                note!(self.trace, "{id} in {partition} commits {index} {ticket:?}: {all:?}");
                self.oracle.commit(id, partition, index, Some(term), ticket, data);
                // A point may have taken its place in the same turn.
                if let Some(chain) = node.chain_at(partition, index) {
                    self.oracle.chain(id, partition, index, chain);
                }
                self.summary.proposals += u64::from(ticket.is_some());
            }
            Event::Installed { index } => {
                node.shards[shard].told = index;
                if !is_villain {
                    note!(self.trace, "{id} in {partition} goes on behind {index}");
                    self.oracle.install(id, partition, index);
                    self.summary.installed += 1;
                }
            }
            Event::Role(role) => {
                let leads = match role {
                    Role::Leader { term } => Some(term),
                    Role::Follower { .. } => None,
                };
                node.shards[shard].leads = leads;
                if leads.is_some() && node.stumbles && !self.is_healed {
                    node.stumbles = false;
                    let (run, us) = (node.run, self.rng.u64(..=self.disk_us));
                    self.later(us, Due::End(at, run));
                }
                if !is_villain {
                    note!(self.trace, "{id} in {partition}: {role:?}");
                    self.oracle.role(id, partition, leads);
                }
            }
            Event::Lost { ticket } if !is_villain => {
                note!(self.trace, "{id} in {partition} loses {ticket}");
                self.oracle.lose(id, partition, ticket);
                self.summary.lost += 1;
            }
            Event::Read { context } => {
                let Some(asked_at) = node.shards[shard].reads.remove(&context) else {
                    panic!("{id} in {partition} answers a read that nobody asked for");
                };
                let told = node.shards[shard].told;
                assert!(
                    is_villain || told >= asked_at,
                    "{id} in {partition} read at {told} what was finished up to {asked_at}"
                );
                self.summary.reads += u64::from(!is_villain);
            }
            Event::ReadLost { context } => {
                let read = node.shards[shard].reads.remove(&context);
                assert!(read.is_some(), "{id} in {partition} loses a read that nobody asked for");
            }
            Event::Membership(_) | Event::Lost { .. } => {}
        }
    }

    pub(super) fn answered(&mut self, at: usize, partition: u16, answer: Answer) {
        let node = &mut self.nodes[at];
        let Answer { ticket, index, is_fast } = answer;
        let what = node.shards[usize::from(partition)].requests.remove(&ticket);
        let what = what.unwrap_or_else(|| panic!("{} is answered {ticket} again", node.id));
        note!(self.trace, "{} in {partition} is answered {what:?} at {index} {is_fast}", node.id);
        self.oracle.accept(partition, what, index);
        *(if is_fast { &mut self.summary.fast } else { &mut self.summary.slow }) += 1;
        self.snuff();
    }
}
