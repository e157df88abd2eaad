//! Many requests to one node under way, a bounded number of them; what is refused for want of room is
//! sent again when the node says.
//!
//! Nothing here blocks for longer than [`LOOK`], so that an interruption is noticed.

use super::super::remote::{Remote, Trouble};
use crate::client::{self, ClientError, Receiver, Refusal, Sender, View};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Requests under way.
pub(super) const WINDOW: usize = 512;
/// Bytes of requests under way, at most, and one request more.
const WINDOW_BYTES: usize = 4 << 20;
/// How long nothing may be answered, or everything be refused for want of room, where the caller does
/// not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The longest look for answers, and for room to write.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause that is taken for `retry_after_ms`.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A connection on which requests are pipelined, each known by a number of the caller's.
pub(super) struct Pipeline {
    sender: Sender,
    receiver: Receiver,
    method: &'static str,
    patience: Duration,
    /// Requests that have no answer, with their parameters.
    under_way: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    /// Those of them that are to be sent again, and when.
    full: Vec<u64>,
    again_at: Instant,
    /// When something was last answered well, and whether something was refused since for want of room.
    progress: Instant,
    is_refused: bool,
    /// Nothing is sent again any more.
    is_ending: bool,
}

impl Pipeline {
    /// Another connection to the node of `remote`, for requests of one method.
    pub(super) fn open(
        remote: &Remote,
        method: &'static str,
        patience: Duration,
    ) -> Result<Self, Trouble> {
        let (sender, receiver) = client::connect(remote.target(), patience).map_err(lost)?;
        let now = Instant::now();
        Ok(Self {
            sender,
            receiver,
            method,
            patience,
            under_way: BTreeMap::new(),
            bytes: 0,
            full: Vec::new(),
            again_at: now,
            progress: now,
            is_refused: false,
            is_ending: false,
        })
    }

    /// The lowest number that has no answer.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.under_way.keys().next().copied()
    }

    /// Whether another request may be sent before answers are taken.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < WINDOW && self.bytes < WINDOW_BYTES
    }

    /// Requests under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Puts a request behind those that wait to be written.
    pub(super) fn push(&mut self, number: u64, params: Vec<u8>) {
        if self.under_way.is_empty() {
            self.note_progress();
        }
        self.send(number, &params);
        self.bytes += params.len();
        self.under_way.insert(number, params);
    }

    /// Sends nothing again any more: who was refused for want of room stays without an answer. The
    /// lowest number of those that wait so.
    pub(super) fn end(&mut self) -> Option<u64> {
        self.is_ending = true;
        let full = std::mem::take(&mut self.full);
        full.iter().for_each(|number| self.forget(*number));
        full.into_iter().min()
    }

    /// For how long nothing was answered well, and whether that is for want of room.
    pub(super) fn stands_still(&self) -> Option<(Duration, &'static str)> {
        let why = match self.is_refused {
            true => "the node has had no room",
            false => "the node has not answered",
        };
        (!self.under_way.is_empty()).then(|| (self.progress.elapsed(), why))
    }

    fn note_progress(&mut self) {
        (self.progress, self.is_refused) = (Instant::now(), false);
    }

    fn forget(&mut self, number: u64) {
        let params = self.under_way.remove(&number).unwrap_or_default();
        self.bytes -= params.len();
    }

    fn send(&mut self, number: u64, params: &[u8]) {
        let method = self.method;
        self.sender.push(number as u32, method, |out| out.extend_from_slice(params));
    }

    /// Writes what waits, and takes the answers that come within a moment: `take` gets each of them,
    /// and refusals that waiting does not help against.
    ///
    /// # Errors
    /// That of `take`, after which further answers may be taken; what ended the connection; patience
    /// that came to its end.
    pub(super) fn turn(
        &mut self,
        mut take: impl FnMut(u64, Result<View<'_>, Refusal>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.send_again();
        self.sender.flush_within(LOOK).map_err(lost)?;
        // Some may have been left by a turn that ended early.
        if !self.take_arrived(&mut take)? {
            let until_again = match self.full.is_empty() {
                true => LOOK,
                false => self.again_at.saturating_duration_since(Instant::now()),
            };
            self.receiver.fill(LOOK.min(until_again)).map_err(lost)?;
            self.take_arrived(&mut take)?;
        }
        match self.stands_still() {
            Some((still, why)) if still > self.patience => {
                Err(Trouble::Failed(format!("{why} for {} s", still.as_secs())))
            }
            _ => Ok(()),
        }
    }

    /// Takes the answers that have arrived; whether there were any.
    fn take_arrived(
        &mut self,
        take: &mut impl FnMut(u64, Result<View<'_>, Refusal>) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        let mut took = false;
        while let Some(answer) = self.receiver.buffered().map_err(lost)? {
            took = true;
            let Some(msgid) = answer.msgid else {
                let refusal = answer.outcome.err().map(Refusal::of);
                let text = refusal.map_or("the node ended the connection".into(), |it| it.message);
                return Err(Trouble::Failed(text));
            };
            // Fewer than 2^32 are under way, so the lower bits tell which it is.
            let number = self.under_way.keys().find(|number| **number as u32 == msgid).copied();
            let Some(number) = number else {
                return Err(Trouble::Failed("the node answered what nobody asked".into()));
            };
            let outcome = answer.outcome.map_err(Refusal::of);
            if let Err(Refusal { retry_after_ms: Some(ms), .. }) = outcome
                && !self.is_ending
            {
                let again_at = Instant::now() + Duration::from_millis(ms).min(PAUSE_MOST);
                self.again_at =
                    if self.full.is_empty() { again_at } else { self.again_at.max(again_at) };
                self.full.push(number);
                self.is_refused = true;
                continue;
            }
            let is_well = outcome.is_ok();
            let taken = take(number, outcome);
            self.forget(number);
            if is_well {
                self.note_progress();
            }
            taken?;
        }
        Ok(took)
    }

    /// Sends what was refused for want of room, when the node's pause is over.
    fn send_again(&mut self) {
        if self.full.is_empty() || Instant::now() < self.again_at {
            return;
        }
        for number in std::mem::take(&mut self.full) {
            let params = std::mem::take(self.under_way.get_mut(&number).expect("under way"));
            self.send(number, &params);
            self.under_way.insert(number, params);
        }
    }
}

fn lost(error: ClientError) -> Trouble {
    match error {
        ClientError::Refused(refusal) => refusal.into(),
        error => Trouble::Failed(error.to_string()),
    }
}
