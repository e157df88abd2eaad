//! How much of what somebody signs is verified.
//!
//! Verifying takes most of a replica's time. What correct replicas send is signed well, in a few messages
//! between two reports; so whoever sends a signature that is none is not listened to for a while, which
//! doubles each time, and of proofs, which hold many signatures, a few are looked at between two
//! reports of this replica. What was not looked at comes again with the next report.
//!
//! Invariants worth naming
//! - Nobody who signs well is refused for long, whatever others send: a correct replica hands nothing on
//!   that it has not verified.
//! - Who is not listened to is asked and helped as before, and what it sends unsigned is taken.

use super::{group::Group, message::Message, outputs::Dropped};

/// A pause is at most two to the power of this status periods.
const DOUBLINGS: u32 = 6;

/// What holds many signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A view change.
    Change,
    /// A new view.
    NewView,
    /// A checkpoint of a quorum.
    Stable,
    /// Entries that are proven to be committed.
    Proven,
    /// A checkpoint of the sender, of which more come at once.
    Checkpoint,
}

/// How many of each are looked at between two reports, in the order of [`Proof`].
const LOOKS: [u32; 5] = [2, 2, 2, 2, 64];

/// What somebody has earned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trust {
    /// Pauses so far that followed each other closely.
    pauses: u32,
    /// Nothing signed is verified before this time, milliseconds.
    from_ms: u64,
    /// Proofs that were looked at since this replica's last report.
    looks: [u32; LOOKS.len()],
}

impl Group {
    /// Whether a message with signatures is to be verified; others always are taken.
    pub(super) fn check_trust(&self, from: u64, message: &Message) -> Result<(), Dropped> {
        let is_signed = match message {
            Message::Request(_)
            | Message::PrePrepare(_)
            | Message::Prepare(_)
            | Message::Commit(..)
            | Message::Reply(_)
            | Message::Checkpoint(_)
            | Message::Stable(_)
            | Message::ViewChange(_)
            | Message::NewView(_)
            | Message::Proven(_) => true,
            Message::Status(_)
            | Message::BatchAsk(..)
            | Message::BatchTell(..)
            | Message::DigestsAsk(..)
            | Message::Digests(_)
            | Message::EntriesAsk(..)
            | Message::Entries(_)
            | Message::ReadAsk(..)
            | Message::ReadTell(..)
            | Message::HeadAsk(_)
            | Message::HeadTell(..)
            | Message::Owed(_) => false,
        };
        let is_paused = self.trusts.get(&from).is_some_and(|trust| self.now < trust.from_ms);
        if is_signed && is_paused { Err(Dropped::Distrusted) } else { Ok(()) }
    }

    /// Whether one more proof of a member is looked at before the next report.
    pub(super) fn look(&mut self, from: u64, proof: Proof) -> Result<(), Dropped> {
        let looks = &mut self.trusts.entry(from).or_default().looks[proof as usize];
        if *looks >= LOOKS[proof as usize] {
            return Err(Dropped::Full);
        }
        *looks += 1;
        Ok(())
    }

    /// Proofs are looked at again.
    pub(super) fn begin_looks(&mut self) {
        self.trusts.values_mut().for_each(|trust| trust.looks = [0; LOOKS.len()]);
    }

    /// Somebody has sent a signature or a proof that is none.
    pub(super) fn distrust(&mut self, from: u64) {
        let (now, timing) = (self.now, self.settings.timing);
        self.counters.distrusted += 1;
        let trust = self.trusts.entry(from).or_default();
        if now >= trust.from_ms + timing.patience_max_ms {
            trust.pauses = 0;
        }
        trust.from_ms = now + (timing.status_ms << trust.pauses.min(DOUBLINGS));
        trust.pauses += 1;
    }
}
