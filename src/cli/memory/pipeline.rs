//! Many requests to one node under way, a bounded number of them; what is refused for want of room is
//! sent again when the node says.

use super::super::remote::{Remote, Trouble};
use crate::client::{self, ClientError, Receiver, Refusal, Sender, View};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// Requests under way.
pub(super) const WINDOW: usize = 512;
/// Bytes of requests under way, at most, and one request more.
const WINDOW_BYTES: usize = 4 << 20;
/// How long nothing may be answered, or everything be refused for want of room.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest look for answers, so that an interruption is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause that is taken for `retry_after_ms`.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A connection on which requests are pipelined, each known by a number of the caller's.
pub(super) struct Pipeline {
    sender: Sender,
    receiver: Receiver,
    method: &'static str,
    /// Requests that have no answer, with their parameters.
    under_way: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    /// Those of them that are to be sent again after a pause.
    full: Vec<u64>,
    pause: Duration,
    /// When something was last answered well.
    progress: Instant,
}

/// Why a request did not do what it should.
pub(super) enum Stop {
    /// The node refused this one.
    Refused(u64, Refusal),
    /// Nothing more can be asked.
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Pipeline {
    /// Another connection to the node of `remote`, for requests of one method.
    pub(super) fn open(remote: &Remote, method: &'static str) -> Result<Self, Trouble> {
        let (sender, receiver) = client::connect(remote.target(), PATIENCE).map_err(lost)?;
        let (under_way, progress) = (BTreeMap::new(), Instant::now());
        let (full, pause) = (Vec::new(), Duration::ZERO);
        Ok(Self { sender, receiver, method, under_way, bytes: 0, full, pause, progress })
    }

    /// The lowest number that has no answer.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.under_way.keys().next().copied()
    }

    /// Whether another request may be sent before answers are taken.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < WINDOW && self.bytes < WINDOW_BYTES
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Puts a request behind those that wait to be written.
    pub(super) fn push(&mut self, number: u64, params: Vec<u8>) {
        if self.under_way.is_empty() {
            self.progress = Instant::now();
        }
        self.send(number, &params);
        self.bytes += params.len();
        self.under_way.insert(number, params);
    }

    /// Gives up a request that was refused.
    pub(super) fn forget(&mut self, number: u64) {
        let params = self.under_way.remove(&number).unwrap_or_default();
        self.bytes -= params.len();
    }

    fn send(&mut self, number: u64, params: &[u8]) {
        let method = self.method;
        self.sender.push(number as u32, method, |out| out.extend_from_slice(params));
    }

    /// Writes what waits, and takes the answers that come within a moment.
    ///
    /// # Errors
    /// The first refusal that waiting does not help against; what ended the connection.
    pub(super) fn turn(
        &mut self,
        mut take: impl FnMut(u64, View<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Stop> {
        self.sender.flush().map_err(lost)?;
        self.receiver.fill(LOOK).map_err(lost)?;
        while let Some(answer) = self.receiver.buffered().map_err(lost)? {
            let Some(msgid) = answer.msgid else {
                let refusal = answer.outcome.err().map(Refusal::of);
                let text = refusal.map_or("the node ended the connection".into(), |it| it.message);
                return Err(Trouble::Failed(text).into());
            };
            // Fewer than 2^32 are under way, so the lower bits tell which it is.
            let number = self.under_way.keys().find(|number| **number as u32 == msgid).copied();
            let Some(number) = number else {
                return Err(Trouble::Failed("the node answered what nobody asked".into()).into());
            };
            match answer.outcome {
                Ok(value) => {
                    take(number, value)?;
                    let params = self.under_way.remove(&number).unwrap_or_default();
                    self.bytes -= params.len();
                    self.progress = Instant::now();
                }
                Err(error) => {
                    let refusal = Refusal::of(error);
                    match refusal.retry_after_ms {
                        Some(ms) => {
                            self.pause = self.pause.max(Duration::from_millis(ms)).min(PAUSE_MOST);
                            self.full.push(number);
                        }
                        None => return Err(Stop::Refused(number, refusal)),
                    }
                }
            }
        }
        if self.progress.elapsed() > PATIENCE && !self.under_way.is_empty() {
            let (seconds, first) = (PATIENCE.as_secs(), self.full.first());
            let text = match first {
                Some(_) => format!("the node has had no room for {seconds} s"),
                None => format!("the node has not answered for {seconds} s"),
            };
            return Err(Trouble::Failed(text).into());
        }
        if !self.full.is_empty() {
            thread::sleep(std::mem::take(&mut self.pause));
            for number in std::mem::take(&mut self.full) {
                let params = std::mem::take(self.under_way.get_mut(&number).expect("under way"));
                self.send(number, &params);
                self.under_way.insert(number, params);
            }
        }
        Ok(())
    }
}

fn lost(error: ClientError) -> Trouble {
    match error {
        ClientError::Refused(refusal) => refusal.into(),
        error => Trouble::Failed(error.to_string()),
    }
}
