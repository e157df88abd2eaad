//! The first stage of a connection: requests are found in what was read, read, and begun.
//!
//! A long request is read aside: until it is, nothing behind it is begun, so that requests begin in the order
//! in which they came.

use super::{
    super::{
        frame::{self, Call},
        work::{Answer, Groups, Work},
    },
    Connection, Intake,
};
use crate::{
    server::{
        Engine,
        auth::{self, Gate, Said},
        memory::{self, MemoryRequest},
        request::Request,
    },
    wire::{
        api::Error,
        msgpack::{Scan, Scanner},
    },
};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

/// Bytes from which on a request is read aside.
pub(in super::super) const LONG_REQUEST: usize = 16 << 10;

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

/// A request that is read aside.
pub(super) struct LongRequest {
    /// Its bytes.
    len: usize,
    /// Ends with its msgid and what it asks; none when it is no request.
    read: Pin<Box<dyn Future<Output = Option<Read>>>>,
}

/// A request that was read: its msgid, and what it asks or what is wrong with it.
type Read = (Option<u32>, Result<Request, Error>);

impl<S, E, M, F> Connection<S, E, M, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Engine,
    M: Fn(Work) -> F,
    F: Future<Output = Answer>,
{
    pub(super) fn start_frames(&mut self, cx: &mut Context<'_>) {
        self.start_long(cx);
        let mut groups = Groups::default();
        let (mut memory_bytes, mut until_look) = (0, READ_AT_ONCE);
        self.asks_memory = false;
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
                groups.take().into_iter().for_each(|work| self.begin(cx, work));
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
            if let Ok(Request::Memory(request)) = &request {
                memory_bytes += len;
                self.asks_memory = true;
                if !matches!(request, MemoryRequest::Put(_)) {
                    // It begins by itself, which may take as long as to read many others.
                    until_look = 0;
                }
            }
            self.take_in(cx, &mut groups, msgid, request, len);
        }
        if let Some(work) = groups.take() {
            self.begin(cx, work);
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
            if let Ok(request) = &mut request {
                request.prepare();
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
        self.take_in(cx, &mut groups, msgid, request, len);
        groups.take().into_iter().for_each(|work| self.begin(cx, work));
    }

    /// Begins a request of so many bytes, or tells what is wrong with it.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
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
                groups.add(msgid, request, 0, |work| self.begin(cx, work));
            }
            Ok(request) => {
                self.calls_in_flight += 1;
                self.bytes_in_flight += len;
                groups.add(msgid, request, len, |work| self.begin(cx, work));
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

    /// Begins work whose calls and bytes are counted already. It goes as far as it can at once, where the clock is looked
    /// at after some requests: later all that is new would have its first turn in one go.
    fn begin(&mut self, cx: &mut Context<'_>, work: Work) {
        let is_lent_attempt = work.is_lent_attempt();
        let mut begun = Box::pin((self.start)(work));
        match (begun.as_mut().poll(cx), is_lent_attempt) {
            (Poll::Ready(answer), true) => self.lent.end(answer),
            (Poll::Ready(answer), false) => self.ended.push_back(answer),
            (Poll::Pending, true) => self.lent.begin(begun),
            (Poll::Pending, false) => self.in_flight.push(begun),
        }
    }

    /// Says what was wrong and takes nothing more: after such bytes no frame's start is known.
    fn refuse_client(&mut self, msgid: Option<u32>, error: &Error) {
        frame::refuse(self.output.end(), msgid, error);
        self.intake = Intake::Closed(Instant::now());
    }
}
