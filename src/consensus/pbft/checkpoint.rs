//! Checkpoints and garbage collection (OSDI '99, §4.3).
//!
//! Each [`super::group::Settings::checkpoint_every`] entries a replica says what it has come to: the
//! chain and the digest of the clients' table. When a quorum says the same, that is stable: what was
//! said about entries up to it is forgotten, and the water marks move.
//!
//! Invariants worth naming
//! - A replica's stable checkpoint is one that it has come to itself; one that it has not is its
//!   target.

use super::{
    certificate::Stable,
    group::{Group, Head},
    keys::Statement,
    message::Checkpoint,
    notes::Note,
    outputs::Dropped,
    trust::Proof,
};
use std::{collections::BTreeMap, sync::Arc};

/// Checkpoints of a replica that are kept.
pub(super) const CHECKPOINTS_KEPT: usize = 4;

impl Group {
    pub(super) fn take_checkpoint(
        &mut self,
        from: u64,
        checkpoint: Checkpoint,
    ) -> Result<(), Dropped> {
        let Checkpoint { seq, chain, table, signature } = checkpoint;
        if seq <= self.stable.seq || !seq.is_multiple_of(self.settings.checkpoint_every) {
            return Err(Dropped::Seq);
        }
        let peer = self.peers.get(&from).ok_or(Dropped::Sender)?;
        if peer.checkpoints.iter().any(|known| known.seq == seq) {
            return Err(Dropped::Duplicate);
        }
        self.look(from, Proof::Checkpoint)?;
        let statement = Statement::Checkpoint { seq, chain: &chain, table: &table };
        if !self.keys.has_signed(from, statement, &signature) {
            return Err(Dropped::Signature);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.checkpoints.push_back(checkpoint);
            if peer.checkpoints.len() > CHECKPOINTS_KEPT {
                peer.checkpoints.pop_front();
            }
        }
        self.find_stable(seq);
        Ok(())
    }

    /// Looks whether a quorum says the same of an entry.
    pub(super) fn find_stable(&mut self, seq: u64) {
        let mut said: BTreeMap<(_, _), Vec<_>> = BTreeMap::new();
        let own = self.own_checkpoints.iter().map(|checkpoint| (self.me, checkpoint));
        let others = self.peers.iter().flat_map(|(node, peer)| {
            peer.checkpoints.iter().map(move |checkpoint| (*node, checkpoint))
        });
        for (node, checkpoint) in own.chain(others).filter(|(_, checkpoint)| checkpoint.seq == seq)
        {
            let votes = said.entry((checkpoint.chain, checkpoint.table)).or_default();
            votes.push((node, checkpoint.signature));
        }
        let quorum = self.members.quorum();
        let stable = said.into_iter().find(|(_, votes)| votes.len() >= quorum);
        let Some(((chain, table), mut votes)) = stable else { return };
        votes.sort_unstable();
        votes.truncate(quorum);
        self.learn_stable(Arc::new(Stable { seq, chain, table, votes }));
    }

    pub(super) fn take_stable(&mut self, from: u64, stable: &Arc<Stable>) -> Result<(), Dropped> {
        let known = self.target.as_ref().map_or(0, |target| target.seq).max(self.stable.seq);
        if stable.seq <= known {
            return Err(Dropped::Duplicate);
        }
        self.look(from, Proof::Stable)?;
        let is_valid = stable.seq.is_multiple_of(self.settings.checkpoint_every)
            && stable.is_valid(&self.members, &mut self.keys);
        if !is_valid {
            self.distrust(from);
            return Err(Dropped::Proof);
        }
        self.learn_stable(stable.clone());
        Ok(())
    }

    /// A checkpoint is stable.
    pub(super) fn learn_stable(&mut self, stable: Arc<Stable>) {
        let known = self.target.as_ref().map_or(0, |target| target.seq).max(self.stable.seq);
        if stable.seq <= known {
            return;
        }
        self.note(&Note::Stable(stable.clone()));
        if self.target.is_none() {
            self.target_ms = self.now;
        }
        self.target = Some(stable);
        self.reach_target();
    }

    /// The target becomes the stable checkpoint when this replica has come to it.
    pub(super) fn reach_target(&mut self) {
        let committed = self.committed();
        let Some(target) = self.target.take_if(|target| target.seq <= committed) else { return };
        let chain = self.log.chain_at(target.seq);
        if chain.is_some_and(|chain| chain != target.chain) {
            self.diverge(target.seq);
            return;
        }
        self.collect(target);
    }

    /// Forgets what was said about entries up to a stable checkpoint.
    pub(super) fn collect(&mut self, stable: Arc<Stable>) {
        let Stable { seq, chain, .. } = *stable;
        self.stable = stable;
        self.slots = self.slots.split_off(&(seq + 1));
        for peer in self.peers.values_mut() {
            peer.checkpoints.retain(|checkpoint| checkpoint.seq > seq);
        }
        if self.accepted.seq < seq {
            self.accepted = Head { seq, chain };
            self.projected = self.table.clone();
        }
        if self.prepared < seq {
            self.prepared = seq;
            self.send_commits();
        }
        if self.compact_to > self.log.point().index {
            self.compact(self.compact_to);
        }
    }

    /// Forgets nothing behind its point, of what it was told to forget until now.
    pub fn keep(&mut self) {
        self.compact_to = self.log.point().index;
    }

    /// Forgets entries up to an index, which were told; every replica does that by itself. Behind
    /// its stable checkpoint it forgets nothing: what a later one allows is done then.
    pub fn compact(&mut self, index: u64) {
        self.compact_to = self.compact_to.max(index.min(self.committed()));
        if self.log.compact(self.compact_to.min(self.stable.seq)) {
            let point = self.log.point().clone();
            self.note(&Note::Compacted(point));
        }
    }
}
