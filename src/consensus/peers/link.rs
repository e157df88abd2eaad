//! The life of the link to one peer, as a state machine: it is told the time and what arrived, and
//! tells what to do.
//!
//! ```text
//! lower id:   Waiting ──dial──► Connecting ──► Opened ──challenge──► Greeting ──hello──► InUse
//!                ▲ backoff ──────────┴────────────┴─────────────────────┴──────lost───────┘
//! higher id:  Idle ──hello, judged──► InUse ──lost──► Idle
//! ```

use super::{
    Limits, NodeId, Timing,
    counters::LinkCounters,
    frame::{Frame, FrameError, Kind, Messages},
    hello::{Hello, Identity, Nonce, Refusal},
    message::Message,
    outgoing::Outgoing,
    proof::{Challenge, Side},
};
use std::io::IoSlice;

/// Why a connection is not in use any more, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// The network failed.
    #[error("{0}")]
    Failed(std::io::ErrorKind),
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// No connection and handshake within the time for it.
    #[error("no connection was made in time")]
    Late,
    /// Bytes that are no frame.
    #[error(transparent)]
    Broken(#[from] FrameError),
    /// This node refuses the other one.
    #[error("this node refuses the other one: {0}")]
    Refused(Refusal),
    /// The other node refuses this one.
    #[error("the other node refuses this one: {0}")]
    RefusedByPeer(Refusal),
    /// A frame that does not belong there.
    #[error("a frame came that does not belong there")]
    Unexpected,
    /// The peer dialled again.
    #[error("the other node made a new connection")]
    Replaced,
    /// The peer is none any more.
    #[error("the node is no peer any more")]
    Removed,
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.kind())
    }
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The node is no peer.
    #[error("node {0} is no peer")]
    NoPeer(NodeId),
    /// No frame may be that large.
    #[error("a message of {bytes} bytes is larger than a frame of {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It has more shared parts than can be told.
    #[error("a message has {0} shared parts, at most 65,535 are allowed")]
    TooManyParts(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer dials.
    Idle,
    /// This node dials at that time.
    Waiting { until_ms: u64 },
    /// TCP connects.
    Connecting { late_ms: u64 },
    /// The challenge is not here.
    Opened { late_ms: u64 },
    /// The hello is sent, its answer is not here.
    Greeting { late_ms: u64, challenge: Challenge },
    /// Messages flow.
    InUse { since_ms: u64 },
}

/// What a frame meant.
#[derive(Debug)]
pub enum Taken<'a> {
    /// Nothing to tell.
    Nothing,
    /// The handshake is done.
    Connected,
    /// Messages of the peer.
    Messages(Messages<'a>),
}

/// See the file.
#[derive(Debug)]
pub struct Link {
    me: Identity,
    peer: NodeId,
    timing: Timing,
    limits: Limits,
    state: State,
    outgoing: Outgoing,
    random: fastrand::Rng,
    /// Dials and short lives of connections in a row, for the backoff.
    failures: u32,
    /// Connections that this node made.
    attempts: u64,
    /// The peer's name of the last connection that was let in.
    let_in: Nonce,
    heard_ms: u64,
    wrote_ms: u64,
    counters: LinkCounters,
}

impl Link {
    /// A link that is not connected; a seed of its own makes its pauses unlike those of others.
    pub fn new(
        me: Identity,
        peer: NodeId,
        timing: Timing,
        limits: Limits,
        seed: u64,
        now_ms: u64,
    ) -> Self {
        let dials = me.node < peer;
        Self {
            me,
            peer,
            timing,
            limits,
            state: if dials { State::Waiting { until_ms: now_ms } } else { State::Idle },
            outgoing: Outgoing::default(),
            random: fastrand::Rng::with_seed(seed),
            failures: 0,
            attempts: 0,
            let_in: Nonce::default(),
            heard_ms: now_ms,
            wrote_ms: now_ms,
            counters: LinkCounters::default(),
        }
    }

    /// What it counted.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// What it may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether messages flow.
    pub fn is_in_use(&self) -> bool {
        matches!(self.state, State::InUse { .. })
    }

    /// Whether TCP connects.
    pub fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Messages that wait, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        self.outgoing.queued()
    }

    /// Queues a message, also while there is no connection; the oldest ones go when there are too
    /// many.
    ///
    /// # Errors
    /// It can never be sent.
    pub fn send(&mut self, message: Message) -> Result<(), SendError> {
        let Limits { frame_bytes: limit, queue_bytes, queue_messages, .. } = self.limits;
        let (bytes, parts) = (message.plain_bytes(), message.parts.len());
        let refused = if bytes > limit {
            Err(SendError::TooLarge { bytes, limit })
        } else if parts > usize::from(u16::MAX) {
            Err(SendError::TooManyParts(parts))
        } else {
            self.outgoing.push(message, queue_bytes, queue_messages, &mut self.counters);
            Ok(())
        };
        self.counters.refused_messages += u64::from(refused.is_err());
        refused
    }

    /// Whether to dial now; the answer to yes is [`Link::opened`] or [`Link::lost`].
    pub fn dial(&mut self, now_ms: u64) -> bool {
        let is_due = matches!(self.state, State::Waiting { until_ms } if until_ms <= now_ms);
        if is_due {
            self.attempts += 1;
            self.state = State::Connecting { late_ms: now_ms + self.timing.handshake_ms };
        }
        is_due
    }

    /// Dials without the rest of the pause: the peer is somewhere else.
    pub fn hurry(&mut self, now_ms: u64) {
        if let State::Waiting { until_ms } = &mut self.state {
            *until_ms = now_ms;
            self.failures = 0;
        }
    }

    /// TCP is connected.
    pub fn opened(&mut self) {
        if let State::Connecting { late_ms } = self.state {
            self.state = State::Opened { late_ms };
        }
    }

    /// A connection, which was told that challenge, came with a hello that was judged; whatever
    /// connection was in use must have been given up before. The answer is under way, and messages
    /// flow.
    pub fn accepted(&mut self, now_ms: u64, challenge: &Challenge, nonce: Nonce) {
        self.attempts += 1;
        self.let_in = nonce;
        self.say_hello(Side::Listens, challenge, nonce);
        self.begin(now_ms);
    }

    /// Whether a hello is from a connection that the peer gave up before it made the one in use.
    pub fn is_stale(&self, nonce: Nonce) -> bool {
        self.is_in_use()
            && nonce.instance == self.let_in.instance
            && nonce.attempt <= self.let_in.attempt
    }

    fn nonce(&self) -> Nonce {
        Nonce { instance: self.me.instance, attempt: self.attempts }
    }

    fn say_hello(&mut self, side: Side, challenge: &Challenge, answers: Nonce) {
        let Identity { cluster, node: from, .. } = self.me;
        let (to, nonce, proof) = (self.peer, self.nonce(), Default::default());
        let hello = Hello { cluster, from, to, nonce, answers, proof, signature: None };
        let hello = hello.proven(&self.me, side, challenge);
        self.outgoing.begin_small(Kind::Hello, &hello.encode());
    }

    fn begin(&mut self, now_ms: u64) {
        self.state = State::InUse { since_ms: now_ms };
        (self.heard_ms, self.wrote_ms) = (now_ms, now_ms);
        self.counters.connects += 1;
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// The connection is of no use; the caller says so with [`Link::lost`].
    pub fn take<'a>(&mut self, now_ms: u64, frame: Frame<'a>) -> Result<Taken<'a>, Lost> {
        self.counters.frames_in += 1;
        match (self.state, frame) {
            (State::Opened { late_ms }, Frame::Challenge(challenge)) => {
                self.state = State::Greeting { late_ms, challenge };
                self.say_hello(Side::Dials, &challenge, Nonce::default());
                Ok(Taken::Nothing)
            }
            (State::Greeting { challenge, .. }, Frame::Hello(hello)) => {
                let (me, nonce) = (&self.me, self.nonce());
                hello.judge_answer(me, &challenge, self.peer, nonce).map_err(Lost::Refused)?;
                self.begin(now_ms);
                Ok(Taken::Connected)
            }
            (State::Opened { .. } | State::Greeting { .. }, Frame::Refusal(refusal)) => {
                Err(Lost::RefusedByPeer(refusal))
            }
            (State::InUse { .. }, Frame::Messages(messages)) => Ok(Taken::Messages(messages)),
            (State::InUse { .. }, Frame::KeepAlive) => Ok(Taken::Nothing),
            _ => Err(Lost::Unexpected),
        }
    }

    /// So many bytes were read.
    pub fn read(&mut self, now_ms: u64, bytes: usize) {
        self.heard_ms = now_ms;
        self.counters.bytes_in += bytes as u64;
    }

    /// A message was told.
    pub fn told(&mut self) {
        self.counters.messages_in += 1;
    }

    /// What is to be written, as far as there is place; tells how many places were filled.
    pub fn unwritten<'a>(&'a mut self, into: &mut [IoSlice<'a>]) -> usize {
        if self.is_in_use() {
            let Limits { compresses, frame_bytes, .. } = self.limits;
            self.outgoing.begin_messages(compresses, frame_bytes, &mut self.counters);
        }
        self.outgoing.unwritten(into)
    }

    /// Whether there is something to write.
    pub fn has_unwritten(&self) -> bool {
        self.outgoing.is_under_way() || (self.is_in_use() && self.outgoing.queued().0 > 0)
    }

    /// So many bytes were written.
    pub fn written(&mut self, now_ms: u64, bytes: usize) {
        self.wrote_ms = now_ms;
        self.counters.bytes_out += bytes as u64;
        self.outgoing.advance(bytes, &mut self.counters);
    }

    /// Time has passed, and what had arrived by then was read: a node that itself was away for a
    /// while must not think that its peers were.
    ///
    /// # Errors
    /// The connection took too long, or nothing was heard on it.
    pub fn turn(&mut self, now_ms: u64) -> Result<(), Lost> {
        match self.state {
            State::Connecting { late_ms }
            | State::Opened { late_ms }
            | State::Greeting { late_ms, .. }
                if late_ms <= now_ms =>
            {
                Err(Lost::Late)
            }
            State::InUse { .. } if self.silent_ms() <= now_ms => Err(Lost::Silent),
            State::InUse { .. } => {
                if self.keepalive_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                    self.outgoing.begin_small(Kind::KeepAlive, &[]);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn silent_ms(&self) -> u64 {
        self.heard_ms + self.timing.silence_ms
    }

    /// `None` when something else is to be written.
    fn keepalive_ms(&self) -> Option<u64> {
        (!self.has_unwritten()).then_some(self.wrote_ms + self.timing.keepalive_ms)
    }

    /// When [`Link::turn`] or [`Link::dial`] has something to do; `None` when only the peer has.
    pub fn next_ms(&self) -> Option<u64> {
        match self.state {
            State::Idle => None,
            State::Waiting { until_ms: at_ms }
            | State::Connecting { late_ms: at_ms }
            | State::Opened { late_ms: at_ms }
            | State::Greeting { late_ms: at_ms, .. } => Some(at_ms),
            State::InUse { .. } => {
                let keepalive_ms = self.keepalive_ms().unwrap_or(u64::MAX);
                Some(self.silent_ms().min(keepalive_ms))
            }
        }
    }

    /// The connection is gone, or none was made; tells whether messages could flow on it.
    pub fn lost(&mut self, now_ms: u64, why: Lost) -> bool {
        self.outgoing.cut(&mut self.counters);
        self.counters.broken_frames += u64::from(matches!(why, Lost::Broken(_)));
        let is_refusal = matches!(why, Lost::Refused(_) | Lost::RefusedByPeer(_));
        self.counters.refusals += u64::from(is_refusal);
        let was_in_use = match self.state {
            State::InUse { since_ms } => {
                self.counters.losses += 1;
                // A connection that breaks again and again is no reason to dial at once each time.
                if now_ms.saturating_sub(since_ms) >= self.timing.backoff_max_ms {
                    self.failures = 0;
                }
                true
            }
            State::Connecting { .. } | State::Opened { .. } | State::Greeting { .. } => {
                self.counters.failed_dials += 1;
                false
            }
            State::Idle | State::Waiting { .. } => return false,
        };
        self.state = if self.me.node < self.peer {
            State::Waiting { until_ms: now_ms + self.pause_ms() }
        } else {
            State::Idle
        };
        was_in_use
    }

    /// The other side was refused before there was a connection.
    pub fn refused(&mut self) {
        self.counters.refusals += 1;
    }

    /// Twice as long each time, and shortened by up to half, so that nodes that lost each other
    /// together do not come back together.
    fn pause_ms(&mut self) -> u64 {
        let Timing { backoff_first_ms, backoff_max_ms, .. } = self.timing;
        let doubled = backoff_first_ms.saturating_mul(1 << self.failures.min(20));
        let longest = doubled.min(backoff_max_ms);
        self.failures = self.failures.saturating_add(1);
        self.random.u64(longest / 2..=longest)
    }
}
