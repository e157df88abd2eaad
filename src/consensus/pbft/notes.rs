//! What a replica must not forget beside entries, as bytes that are opaque to the log thread.

use super::{
    certificate::{Certificate, Stable},
    codec::{certificate, put_certificate, put_stable, stable},
    group::{Group, Head, Unplaced, WINDOW_MAX},
    keys::Digest,
    log::Point,
    outputs::Write,
    ready::AfterDisk,
    slot::Proposal,
    table::Table,
    wire::{Put, Reader},
};
use crate::consensus::malformed::Malformed;
use bytes::Bytes;
use std::sync::Arc;

/// The view of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its number.
    pub view: u64,
    /// Whether it has begun.
    pub is_active: bool,
    /// The stable checkpoint that it began with.
    pub floor: Head,
    /// What was ordered again when it began.
    pub choices: Vec<(u64, Proposal)>,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An entry is prepared.
    Certificate(Arc<Certificate>),
    /// The view; the last one counts.
    View(View),
    /// A checkpoint of a quorum.
    Stable(Arc<Stable>),
    /// Everything up to an entry is committed, with this chain behind it.
    Committed(Head),
    /// The log begins behind this point; what is above it stays.
    Compacted(Point),
    /// The log is what was written behind this point.
    Installed(Point),
    /// Numbers of requests below this may have been used.
    Numbers(u64),
    /// An entry is accepted in a view that did not begin with it.
    Accepted(u64, Proposal),
}

impl Note {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Certificate(certificate) => {
                out.put_u8(1);
                put_certificate(certificate, &mut out);
            }
            Self::View(View { view, is_active, floor, choices }) => {
                out.put_u8(2);
                out.put_u64(*view);
                out.put_flag(*is_active);
                out.put_u64(floor.seq);
                out.put_digest(&floor.chain);
                out.put_u32(choices.len() as u32);
                for (seq, choice) in choices {
                    put_proposal(*seq, choice, &mut out);
                }
            }
            Self::Stable(stable) => {
                out.put_u8(3);
                put_stable(stable, &mut out);
            }
            Self::Committed(Head { seq, chain }) => {
                out.put_u8(4);
                out.put_u64(*seq);
                out.put_digest(chain);
            }
            Self::Compacted(point) => {
                out.put_u8(5);
                put_point(point, &mut out);
            }
            Self::Installed(point) => {
                out.put_u8(6);
                put_point(point, &mut out);
            }
            Self::Numbers(below) => {
                out.put_u8(7);
                out.put_u64(*below);
            }
            Self::Accepted(seq, proposal) => {
                out.put_u8(8);
                out.put_u64(proposal.view);
                put_proposal(*seq, proposal, &mut out);
            }
        }
        out.into()
    }

    /// Reads a note.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, &[]);
        let from = &mut reader;
        let note = match from.u8()? {
            1 => Self::Certificate(Arc::new(certificate(from)?)),
            2 => Self::View(view(from)?),
            3 => Self::Stable(Arc::new(stable(from)?)),
            4 => Self::Committed(Head { seq: from.u64()?, chain: from.digest()? }),
            5 => Self::Compacted(point(from)?),
            6 => Self::Installed(point(from)?),
            7 => Self::Numbers(from.u64()?),
            8 => {
                let view = from.u64()?;
                let (seq, accepted) = proposal(view, from)?;
                Self::Accepted(seq, accepted)
            }
            kind => return Err(Malformed::Kind(kind)),
        };
        reader.end()?;
        Ok(note)
    }
}

fn put_proposal(seq: u64, proposal: &Proposal, out: &mut Vec<u8>) {
    out.put_u64(seq);
    out.put_digest(&proposal.parent);
    out.put_digest(&proposal.digest);
    out.put_signature(&proposal.signature);
}

fn proposal(view: u64, from: &mut Reader<'_>) -> Result<(u64, Proposal), Malformed> {
    let seq = from.u64()?;
    let (parent, digest, signature) = (from.digest()?, from.digest()?, from.signature()?);
    Ok((seq, Proposal::new(view, seq, parent, digest, signature)))
}

fn put_point(point: &Point, out: &mut Vec<u8>) {
    out.put_u64(point.index);
    out.put_u64(point.term);
    out.put_digest(&point.chain);
    point.table.encode(out);
}

fn point(from: &mut Reader<'_>) -> Result<Point, Malformed> {
    Ok(Point {
        index: from.u64()?,
        term: from.u64()?,
        chain: from.digest()?,
        table: Table::decode(from)?,
    })
}

fn view(from: &mut Reader<'_>) -> Result<View, Malformed> {
    let (view, is_active) = (from.u64()?, from.flag()?);
    let floor = Head { seq: from.u64()?, chain: from.digest()? };
    let count = from.count(WINDOW_MAX as usize, 136)?;
    let choices = (0..count).map(|_| proposal(view, from)).collect::<Result<_, Malformed>>()?;
    Ok(View { view, is_active, floor, choices })
}

impl Group {
    /// Writes a note.
    pub(super) fn note(&mut self, note: &Note) {
        self.writes.push(Write::Note(note.encode()));
    }

    /// Says what is committed, and why, when that was not written. Nothing waits for it: what is
    /// committed is found again with the others. But if all were started again, nobody would know of
    /// the last commits any more, and one that has left their view would wait for the next checkpoint.
    pub(super) fn note_commit(&mut self) {
        if !self.is_commit_noted {
            self.is_commit_noted = true;
            let new = self.slots.range(self.noted + 1..=self.log.last().max(self.noted + 1));
            let proofs: Vec<_> = new.filter_map(|(_, slot)| slot.proof.clone()).collect();
            proofs.into_iter().for_each(|proof| self.note(&Note::Certificate(proof)));
            self.noted = self.log.last();
            let head = Head { seq: self.committed(), chain: self.log.chain() };
            self.note(&Note::Committed(head));
        }
    }

    /// Writes again what must not be lost and may lie in old segments only.
    pub fn restate(&mut self) {
        // What a transfer has written is not known to be needed, and may be freed.
        self.abandon_transfer();
        self.note(&Note::Compacted(self.log.point().clone()));
        self.note(&Note::Stable(self.stable.clone()));
        if let Some(target) = self.target.clone() {
            self.note(&Note::Stable(target));
        }
        self.restate_slots();
        let mut choices = Vec::new();
        for (seq, slot) in &self.slots {
            choices.extend(slot.choice.filter(|_| self.is_active).map(|choice| (*seq, choice)));
        }
        let (view, is_active, floor) = (self.view, self.is_active, self.floor);
        self.note(&Note::View(View { view, is_active, floor, choices }));
        self.is_commit_noted = false;
        self.note_commit();
        if self.numbers_below > 0 {
            self.note(&Note::Numbers(self.numbers_below));
        }
    }

    /// Writes certificates again, and the batches of entries that are not committed: of each index the
    /// one that was written last is the last again.
    fn restate_slots(&mut self) {
        let written = self.written_upto();
        let seqs: Vec<_> = self.slots.keys().copied().collect();
        for seq in seqs {
            let Some(slot) = self.slots.get(&seq) else { continue };
            let (certificate, proof) = (slot.certificate.clone(), slot.proof.clone());
            let mut batches: Vec<_> = slot.batches.clone();
            let last = slot.written.map(|written| written.digest);
            batches.sort_by_key(|batch| Some(*batch.digest()) == last);
            for batch in batches.iter().filter(|_| seq > written) {
                let (term, index) = (batch.origin() + 1, seq);
                let (heads, data) = (batch.heads().clone(), batch.data().clone());
                self.writes.push(Write::Entry { term, index, heads, data });
                self.unplaced.push_back(Unplaced { index, term, transfer: None });
                self.after_disk.push(AfterDisk::Written { seq, digest: *batch.digest() });
            }
            // Where it lies now it is not yet.
            let is_moved = |it: &Digest| batches.iter().any(|batch| batch.digest() == it);
            let moved = self.slots.get_mut(&seq).and_then(|slot| slot.written.as_mut());
            if let Some(moved) = moved.filter(|it| seq > written && is_moved(&it.digest)) {
                moved.is_durable = false;
            }
            let bound = self.slots.get(&seq).and_then(|slot| slot.bound);
            if let Some(bound) = bound.filter(|bound| self.is_active && bound.view == self.view) {
                self.note(&Note::Accepted(seq, bound));
            }
            if let Some(certificate) = certificate {
                self.note(&Note::Certificate(certificate));
            }
            if let Some(proof) = proof {
                self.note(&Note::Certificate(proof));
            }
        }
    }
}
