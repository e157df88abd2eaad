//! One connection: a state machine that is polled, and owns everything the connection has.

mod intake;

#[cfg(test)]
pub(super) use self::intake::LONG_REQUEST;
use self::intake::LongRequest;
use super::{
    lent::LentAttempts,
    work::{Answer, Work},
};
use crate::{
    node::gateway::Offer,
    server::{
        Engine, Limits,
        auth::{self, Gate},
        buffers::{Input, Output},
        stall::Stall,
    },
    wire::msgpack::Scanner,
};
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use futures_util::stream::FuturesUnordered;
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

/// Bytes from which on what is to be written is much, and what was read of a request that is not whole.
const MUCH_OUTPUT: usize = 32 << 10;
const MUCH_INPUT: usize = 64 << 10;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was answered and written; the stream can be closed politely.
    Flushed,
    /// The same, and from here on the stream is a trunk of another node.
    Trunk(Offer),
    /// The peer is gone or too slow; nothing more can be said to it.
    Lost,
}

/// Whether new requests are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    Open,
    /// The node drains: what is in flight decides how long that takes.
    Draining,
    /// The client ended its side or sent what cannot be understood: what is in flight gets the
    /// stall timeout to end.
    Closed(Instant),
}

/// What a connection does in a round, one after the other. A round may be over behind any of them; the next one goes
/// on there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Collect,
    Write,
    Read,
}

/// The connection; `M` starts a future `F` for a piece of work.
pub struct Connection<S, E: Engine, M, F> {
    stream: S,
    limits: Limits,
    gate: Gate,
    start: M,
    /// What is next.
    stage: Stage,
    /// Its place in the line, while it is put off.
    place: Option<E::Place>,
    /// Whether bytes were written or read since the first stage.
    has_moved: bool,
    input: Input,
    scanner: Scanner,
    /// Whether `input` holds no whole frame.
    scanned_out: bool,
    /// Whether pattern memory was asked when requests were last begun.
    asks_memory: bool,
    /// What is read aside before anything behind it.
    long: Option<LongRequest>,
    output: Output,
    in_flight: FuturesUnordered<Pin<Box<F>>>,
    /// What ended when it began.
    ended: VecDeque<Answer>,
    calls_in_flight: usize,
    bytes_in_flight: usize,
    /// Attempts that another node lends, which count as no call.
    lent: LentAttempts<Pin<Box<F>>>,
    intake: Intake,
    /// What is to become of the stream when everything is answered.
    becomes: Option<Offer>,
    stall: Stall<E>,
    /// Since when the client owes the token.
    owes_token_since: Option<Instant>,
    /// Since when the client owes the rest of a frame.
    owes_bytes_since: Option<Instant>,
    /// Since when the client takes no answers.
    blocked_since: Option<Instant>,
}

impl<S, E, M, F> Connection<S, E, M, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Engine,
    M: Fn(Work) -> F,
    F: Future<Output = Answer>,
{
    pub fn new(stream: S, limits: Limits, engine: E, gate: Gate, start: M) -> Self {
        let is_open = gate.is_open();
        let most = if is_open { usize::MAX } else { auth::STRANGER_BYTES_MAX };
        Self {
            stream,
            limits,
            gate,
            start,
            stage: Stage::Start,
            place: None,
            has_moved: false,
            input: Input::new(),
            scanner: Scanner::new(limits.max_frame_bytes.min(most)),
            scanned_out: true,
            asks_memory: false,
            long: None,
            output: Output::default(),
            in_flight: FuturesUnordered::new(),
            ended: VecDeque::new(),
            calls_in_flight: 0,
            bytes_in_flight: 0,
            lent: LentAttempts::new(&limits),
            intake: Intake::Open,
            becomes: None,
            stall: Stall::new(engine),
            owes_token_since: (!is_open).then(Instant::now),
            owes_bytes_since: None,
            blocked_since: None,
        }
    }

    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Whether no new requests are read.
    pub fn is_ending(&self) -> bool {
        self.intake != Intake::Open
    }

    /// Takes no new requests; the connection ends when those in flight are answered.
    pub fn drain(&mut self) {
        self.intake = Intake::Draining;
    }

    /// Goes one round: starts what was read, collects what ended, writes once, reads once.
    ///
    /// One round a poll, or less where the time of the core's futures is over, then the executor's turn: a busy
    /// connection must not hold its core.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let is_much = self.has_much();
        let entered = self.stall.engine().poll_enter(cx.waker(), is_much, &mut self.place);
        // One that is late has a bounded part of all stages: others wait for it, and it waited for them.
        let is_late = ready!(entered);
        let is_whole = self.stage == Stage::Start;
        loop {
            let Ok(()) = self.do_stage(cx, is_late) else { return Poll::Ready(End::Lost) };
            if self.stage == Stage::Start {
                return self.end_round(cx, is_whole);
            }
            if !is_late && self.is_time_over() {
                self.again(cx);
                return Poll::Pending;
            }
        }
    }

    /// All was looked at, at once or not: whether the connection has ended, and what it waits for.
    fn end_round(&mut self, cx: &mut Context<'_>, is_whole: bool) -> Poll<End> {
        let has_moved = std::mem::take(&mut self.has_moved);
        let is_over = self.in_flight.is_empty()
            && self.ended.is_empty()
            && self.lent.is_empty()
            && self.long.is_none();
        let ended = self.is_ending() && is_over && self.output.pending() == 0;
        if ended {
            return Poll::Ready(match self.becomes {
                Some(_) if !self.input.unread().is_empty() => End::Lost,
                Some(offer) => End::Trunk(offer),
                None => End::Flushed,
            });
        }
        if self.poll_stalled(cx).is_ready() {
            return Poll::Ready(End::Lost);
        }
        // What ended in the midst of a round that was not whole was not looked at.
        if has_moved || !is_whole || (self.has_room() && !self.scanned_out) {
            self.again(cx);
        }
        Poll::Pending
    }

    fn do_stage(&mut self, cx: &mut Context<'_>, is_late: bool) -> Result<(), End> {
        self.stage = match self.stage {
            Stage::Start => {
                self.start_frames(cx);
                Stage::Collect
            }
            Stage::Collect => {
                let is_done = self.collect_answers(cx);
                // What was not collected is to be looked at again.
                self.has_moved |= !is_done;
                if is_done || is_late { Stage::Write } else { Stage::Collect }
            }
            Stage::Write => {
                self.has_moved |= self.write(cx)?;
                Stage::Read
            }
            Stage::Read => {
                self.has_moved |= self.read(cx)?;
                Stage::Start
            }
        };
        Ok(())
    }

    /// Whether there is much to do, which takes long turns.
    fn has_much(&self) -> bool {
        self.output.pending() >= MUCH_OUTPUT
            || self.input.unread().len() >= MUCH_INPUT
            || self.asks_memory
    }

    /// Whether others should have their turn.
    fn is_time_over(&self) -> bool {
        self.stall.engine().is_over(self.has_much())
    }

    /// Goes on when others had it.
    fn again(&self, cx: &mut Context<'_>) {
        self.stall.engine().again(cx.waker(), self.has_much());
    }

    /// Whether another request may begin.
    fn has_room(&self) -> bool {
        self.intake == Intake::Open
            && self.long.is_none()
            && self.calls_in_flight < self.limits.max_in_flight
            && self.bytes_in_flight < self.limits.max_frame_bytes
            && self.output.pending() < self.limits.write_buffer_bytes
    }

    /// Appends answers of what has ended; false where more may have, and others should have their turn. However late it
    /// is, one of each sort is appended, so that none waits for ever.
    fn collect_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let all_calls = self.collect_calls(cx);
        self.collect_lent(cx) && all_calls
    }

    fn collect_calls(&mut self, cx: &mut Context<'_>) -> bool {
        // What is not collected keeps its turn, so that no more large results come.
        while self.output.held() < self.limits.write_buffer_bytes {
            let ended = match self.ended.pop_front() {
                None => Pin::new(&mut self.in_flight).poll_next(cx),
                answer => Poll::Ready(answer),
            };
            let Poll::Ready(Some(answer)) = ended else { break };
            self.calls_in_flight -= answer.calls;
            self.bytes_in_flight -= answer.bytes;
            if let Some(offer) = answer.trunk() {
                self.becomes = Some(offer);
                self.intake = Intake::Closed(Instant::now());
            }
            answer.write(&mut self.output);
            if self.is_time_over() {
                return false;
            }
        }
        true
    }

    fn collect_lent(&mut self, cx: &mut Context<'_>) -> bool {
        self.lent.collect(cx);
        while self.output.held() < self.limits.write_buffer_bytes
            && let Some(answer) = self.lent.next()
        {
            answer.write(&mut self.output);
            if self.is_time_over() {
                return false;
            }
        }
        true
    }

    /// Writes once; whether the client took anything.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.output.poll_write(&mut self.stream, cx) {
            Poll::Ready(Ok(progress)) => {
                self.blocked_since = None;
                Ok(progress)
            }
            Poll::Ready(Err(_)) => Err(End::Lost),
            Poll::Pending => {
                self.blocked_since.get_or_insert_with(Instant::now);
                Ok(false)
            }
        }
    }

    /// Reads once, when there is room for requests; whether bytes came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.has_room() || !self.scanned_out {
            self.owes_bytes_since = None;
            return Ok(false);
        }
        match self.input.poll_fill(&mut self.stream, cx) {
            Poll::Ready(Ok(0)) if self.scanner.in_value() || !self.input.unread().is_empty() => {
                Err(End::Lost)
            }
            Poll::Ready(Ok(0)) => {
                self.intake = Intake::Closed(Instant::now());
                Ok(false)
            }
            Poll::Ready(Ok(_)) => {
                self.scanned_out = false;
                self.owes_bytes_since = None;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::Lost),
            Poll::Pending => {
                if self.input.unread().is_empty() {
                    self.owes_bytes_since = None;
                } else {
                    self.owes_bytes_since.get_or_insert_with(Instant::now);
                }
                Ok(false)
            }
        }
    }

    /// Ready when the client has made none of the progress it owes for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed_since = if let Intake::Closed(since) = self.intake { Some(since) } else { None };
        let waits =
            [self.owes_token_since, self.owes_bytes_since, self.blocked_since, closed_since];
        match waits.into_iter().flatten().min() {
            Some(since) => self.stall.poll(cx, since, self.limits.stall_timeout),
            None => Poll::Pending,
        }
    }
}
