//! One connection: a state machine that is polled, and owns everything the connection has.
//!
//! A long request is read aside: until it is, nothing behind it is begun, so that requests begin in the order
//! in which they came.

use super::{
    frame::{self, Call},
    lent::LentAttempts,
    work::{Answer, Groups, Work},
};
use crate::{
    node::gateway::Offer,
    server::{
        Engine, Limits,
        auth::{self, Gate, Said},
        buffers::{Input, Output},
        memory::{self, MemoryRequest},
        request::Request,
        stall::Stall,
    },
    wire::{
        api::Error,
        msgpack::{Scan, Scanner},
    },
};
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use futures_util::stream::FuturesUnordered;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

/// Bytes from which on what is to be written is much, and what was read of a request that is not whole.
const MUCH_OUTPUT: usize = 32 << 10;
const MUCH_INPUT: usize = 64 << 10;

/// Bytes from which on a request is read aside.
pub(super) const LONG_REQUEST: usize = 16 << 10;

/// Values of requests that are looked at to find where they end, until the clock is.
const SCANNED_AT_ONCE: usize = 512;

/// Bytes of requests that are read until the clock is looked at, where one counts as so many more.
const READ_AT_ONCE: usize = 8 << 10;
const REQUEST_BYTES: usize = 512;

/// Bytes of requests of pattern memory that are read in one round: their numbers are copied.
const MEMORY_AT_ONCE: usize = 16 << 10;

/// Texts from which on one of them is read aside: names are compared with each other.
const MANY_TEXTS: usize = 256;

/// When another node may lend again that has lent too much on one connection, milliseconds.
const LENT_RETRY_MS: u64 = 10;

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

/// A request that is read aside.
struct LongRequest {
    /// Its bytes.
    len: usize,
    /// Ends with its msgid and what it asks; none when it is no request.
    read: Pin<Box<dyn Future<Output = Option<Read>>>>,
}

/// A request that was read: its msgid, and what it asks or what is wrong with it.
type Read = (Option<u32>, Result<Request, Error>);

/// The connection; `M` starts a future `F` for a piece of work.
pub struct Connection<S, E, M, F> {
    stream: S,
    limits: Limits,
    gate: Gate,
    start: M,
    /// What is next.
    stage: Stage,
    /// There was no time for any stage in the last round.
    was_put_off: bool,
    /// Whether bytes were written or read since the first stage.
    has_moved: bool,
    input: Input,
    scanner: Scanner,
    /// Whether `input` holds no whole frame.
    scanned_out: bool,
    /// What is read aside before anything behind it.
    long: Option<LongRequest>,
    output: Output,
    in_flight: FuturesUnordered<F>,
    calls_in_flight: usize,
    bytes_in_flight: usize,
    /// Attempts that another node lends, which count as no call.
    lent: LentAttempts<F>,
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
            was_put_off: false,
            has_moved: false,
            input: Input::new(),
            scanner: Scanner::new(limits.max_frame_bytes.min(most)),
            scanned_out: true,
            long: None,
            output: Output::default(),
            in_flight: FuturesUnordered::new(),
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
        let is_whole = self.stage == Stage::Start;
        // Who was put off has all stages, however little time is left.
        let may_split = !std::mem::take(&mut self.was_put_off);
        if may_split && self.is_time_over() {
            self.was_put_off = true;
            self.stall.engine().again_first(cx.waker());
            return Poll::Pending;
        }
        loop {
            let Ok(()) = self.do_stage(cx) else { return Poll::Ready(End::Lost) };
            if self.stage == Stage::Start {
                return self.end_round(cx, is_whole);
            }
            if may_split && self.is_time_over() {
                self.again(cx);
                return Poll::Pending;
            }
        }
    }

    /// All was looked at, at once or not: whether the connection has ended, and what it waits for.
    fn end_round(&mut self, cx: &mut Context<'_>, is_whole: bool) -> Poll<End> {
        let has_moved = std::mem::take(&mut self.has_moved);
        let is_over = self.in_flight.is_empty() && self.lent.is_empty() && self.long.is_none();
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

    fn do_stage(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.stage = match self.stage {
            Stage::Start => {
                self.start_frames(cx);
                Stage::Collect
            }
            Stage::Collect => {
                if self.collect_answers(cx) {
                    Stage::Write
                } else {
                    Stage::Collect
                }
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
        self.output.pending() >= MUCH_OUTPUT || self.input.unread().len() >= MUCH_INPUT
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

    fn start_frames(&mut self, cx: &mut Context<'_>) {
        self.start_long(cx);
        let mut groups = Groups::default();
        let (mut memory_bytes, mut until_look) = (0, READ_AT_ONCE);
        while self.has_room() && !self.scanned_out && memory_bytes < MEMORY_AT_ONCE {
            if until_look == 0 {
                if self.is_time_over() {
                    break;
                }
                until_look = READ_AT_ONCE;
            }
            let Some(scan) = self.scanner.scan_some(self.input.unread(), SCANNED_AT_ONCE) else {
                until_look = 0;
                continue;
            };
            let len = match scan {
                Scan::Complete(len) => len,
                Scan::Incomplete => {
                    self.scanned_out = true;
                    break;
                }
                Scan::Invalid(reason) => {
                    self.refuse_client(None, &Error::Invalid(reason.into()));
                    break;
                }
                Scan::TooLarge if !self.gate.is_open() => {
                    let msgid = frame::msgid_of_part(self.input.unread());
                    self.refuse_client(msgid, &Gate::refusal());
                    break;
                }
                Scan::TooLarge => {
                    let msgid = frame::msgid_of_part(self.input.unread());
                    let limit = self.limits.max_frame_bytes;
                    let text = format!("a request may have {limit} bytes");
                    self.refuse_client(msgid, &Error::TooLarge(text));
                    break;
                }
            };
            until_look = until_look.saturating_sub(len + REQUEST_BYTES);
            if self.gate.is_open() && self.is_long(len) {
                groups.take().into_iter().for_each(|work| self.begin(work));
                self.read_long(len);
                self.start_long(cx);
                continue;
            }
            let Some(call) = Call::parse(self.input.consume(len)) else {
                let text = "not a MessagePack-RPC request or notification";
                self.refuse_client(None, &Error::Invalid(text.into()));
                break;
            };
            let msgid = call.msgid;
            if call.method == auth::METHOD || !self.gate.is_open() {
                let said = match call.method {
                    auth::METHOD => match call.fields() {
                        Ok(params) => self.gate.hear(params),
                        Err(error) => Said::Wrong(error),
                    },
                    _ => Said::Wrong(Gate::refusal()),
                };
                self.answer_stranger(msgid, said);
                continue;
            }
            let request =
                call.fields().and_then(|params| Request::parse(call.method, params, &self.limits));
            if let Ok(Request::Memory(_)) = request {
                memory_bytes += len;
            }
            self.take_in(&mut groups, msgid, request, len);
        }
        if let Some(work) = groups.take() {
            self.begin(work);
        }
    }

    /// Whether the request of so many bytes that was found last takes long to read.
    fn is_long(&self, len: usize) -> bool {
        let is_of_memory = || {
            let call = Call::parse(&self.input.unread()[..len]);
            call.is_some_and(|call| call.method.starts_with(memory::METHODS))
        };
        len >= LONG_REQUEST || self.scanner.texts_of_last() >= MANY_TEXTS && is_of_memory()
    }

    /// Has a long request read aside.
    fn read_long(&mut self, len: usize) {
        let (frame, range) = self.input.take(len);
        let limits = self.limits;
        let read = move || {
            let call = Call::parse(&frame[range])?;
            let fields = call.fields();
            let mut request = fields.and_then(|it| Request::parse(call.method, it, &limits));
            if let Ok(Request::Memory(MemoryRequest::PutBatch(batch))) = &mut request {
                batch.read_all();
            }
            Some((call.msgid, request))
        };
        let read = Box::pin(self.stall.engine().aside(read));
        self.long = Some(LongRequest { len, read });
    }

    /// Begins a long request that was read.
    fn start_long(&mut self, cx: &mut Context<'_>) {
        let Some(long) = &mut self.long else { return };
        let Poll::Ready(read) = long.read.as_mut().poll(cx) else { return };
        let len = long.len;
        self.long = None;
        let Some((msgid, request)) = read else {
            let text = "not a MessagePack-RPC request or notification";
            return self.refuse_client(None, &Error::Invalid(text.into()));
        };
        let mut groups = Groups::default();
        self.take_in(&mut groups, msgid, request, len);
        groups.take().into_iter().for_each(|work| self.begin(work));
    }

    /// Begins a request of so many bytes, or tells what is wrong with it.
    fn take_in(
        &mut self,
        groups: &mut Groups,
        msgid: Option<u32>,
        request: Result<Request, Error>,
        len: usize,
    ) {
        match request {
            Ok(request) if request.is_lent_attempt() => {
                // It is answered when it ends, which may take long, and what is behind it must be read
                // meanwhile: other attempts, whose time goes on, and that one is given up.
                if !self.lent.has_room() {
                    let error = Error::Backpressure(LENT_RETRY_MS);
                    return frame::refuse(self.output.end(), msgid, &error);
                }
                groups.add(msgid, request, 0, |work| self.begin(work));
            }
            Ok(request) => {
                self.calls_in_flight += 1;
                self.bytes_in_flight += len;
                groups.add(msgid, request, len, |work| self.begin(work));
            }
            Err(error) => {
                if msgid.is_some() {
                    frame::refuse(self.output.end(), msgid, &error);
                }
            }
        }
    }

    /// Answers what was said about the token, or instead of it.
    fn answer_stranger(&mut self, msgid: Option<u32>, said: Said) {
        match (said, msgid) {
            (Said::Right, msgid) => {
                self.owes_token_since = None;
                self.scanner = Scanner::new(self.limits.max_frame_bytes);
                if let Some(msgid) = msgid {
                    frame::done(self.output.end(), msgid);
                }
            }
            (Said::Challenged(challenge, proof), Some(msgid)) => {
                frame::challenged(self.output.end(), msgid, &challenge, &proof);
            }
            (Said::Wrong(error), Some(_)) => frame::refuse(self.output.end(), msgid, &error),
            (Said::Challenged(..) | Said::Wrong(_), None) => {}
            (Said::WrongAtLast(error), _) => self.refuse_client(msgid, &error),
        }
    }

    /// Begins work whose calls and bytes are counted already.
    fn begin(&mut self, work: Work) {
        let is_lent_attempt = work.is_lent_attempt();
        let begun = (self.start)(work);
        if is_lent_attempt { self.lent.begin(begun) } else { self.in_flight.push(begun) }
    }

    /// Says what was wrong and takes nothing more: after such bytes no frame's start is known.
    fn refuse_client(&mut self, msgid: Option<u32>, error: &Error) {
        frame::refuse(self.output.end(), msgid, error);
        self.intake = Intake::Closed(Instant::now());
    }

    /// Appends answers of what has ended; false where more may have, and others should have their turn.
    fn collect_answers(&mut self, cx: &mut Context<'_>) -> bool {
        // What is not collected keeps its turn, so that no more large results come.
        while self.output.held() < self.limits.write_buffer_bytes
            && let Poll::Ready(Some(answer)) = Pin::new(&mut self.in_flight).poll_next(cx)
        {
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
        self.lent.collect(cx);
        while self.output.held() < self.limits.write_buffer_bytes
            && let Some(answer) = self.lent.next()
        {
            answer.write(&mut self.output);
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
