//! The protocol over a pair of streams, one message a line.

use super::{
    Response, Transport,
    decide::{Decision, ToolCall, decide},
    jsonrpc::{self, INVALID_REQUEST, Id},
    run_tool,
};
use crate::{
    node::gateway::Gateway,
    server::{
        Engine, Limits,
        buffers::{Input, Output},
        stall::Stall,
    },
};
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use futures_util::{
    future::{AbortHandle, Abortable, Aborted},
    stream::FuturesUnordered,
};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

/// Serves the one client of a process until it closes `reader`; what is in flight then has the
/// stall timeout to be answered.
///
/// Requests run side by side; a client that does not read stops being read.
pub async fn serve_stdio<R, W, G, E>(
    reader: R,
    writer: W,
    gateway: Rc<G>,
    limits: Limits,
    engine: E,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    G: Gateway,
    E: Engine,
{
    let start = |call: ToolCall| {
        let (gateway, engine) = (gateway.clone(), engine.clone());
        async move {
            let id = call.id.clone();
            (id, run_tool(gateway, &engine, call).await)
        }
    };
    let mut session = Session {
        reader,
        writer,
        limits,
        start,
        lines: Lines::new(limits.max_frame_bytes),
        output: Output::default(),
        in_flight: FuturesUnordered::new(),
        aborts: Vec::new(),
        closed_since: None,
        stall: Stall::new(engine.clone()),
    };
    poll_fn(|cx| session.poll(cx)).await
}

/// The client's side of the process; `M` starts a future `F` for a tool call.
struct Session<R, W, E, M, F> {
    reader: R,
    writer: W,
    limits: Limits,
    start: M,
    lines: Lines,
    output: Output,
    in_flight: FuturesUnordered<Abortable<F>>,
    /// What the client can still cancel.
    aborts: Vec<(Id, AbortHandle)>,
    /// When the client closed its side.
    closed_since: Option<Instant>,
    stall: Stall<E>,
}

impl<R, W, E, M, F> Session<R, W, E, M, F>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    E: Engine,
    M: Fn(ToolCall) -> F,
    F: Future<Output = (Id, Response)>,
{
    /// Goes one round: starts what was read, collects what ended, writes once, reads once.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_room()
            && let Some(decision) = self.lines.next(&self.limits)
        {
            self.follow(decision);
        }
        self.collect(cx);
        let wrote = match self.output.poll_write(&mut self.writer, cx) {
            Poll::Ready(wrote) => wrote?,
            Poll::Pending => false,
        };
        let flushed = match Pin::new(&mut self.writer).poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| true)?,
            Poll::Pending => false,
        };
        let read = self.read(cx)?;
        if let Some(since) = self.closed_since {
            let written = flushed && self.output.pending() == 0;
            let answered = written && self.in_flight.is_empty();
            if answered || self.stall.poll(cx, since, self.limits.stall_timeout).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        if wrote || read || (self.has_room() && !self.lines.is_waiting) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.limits.max_in_flight
            && self.output.pending() < self.limits.write_buffer_bytes
    }

    fn follow(&mut self, decision: Decision) {
        match decision {
            Decision::Respond(response) => self.append(response),
            Decision::Notified { cancelled } => {
                let wanted = |(id, _): &&(Id, AbortHandle)| Some(id) == cancelled.as_ref();
                self.aborts.iter().filter(wanted).for_each(|(_, abort)| abort.abort());
            }
            Decision::Call(call) => {
                let (abort, registration) = AbortHandle::new_pair();
                self.aborts.push((call.id.clone(), abort));
                self.in_flight.push(Abortable::new((self.start)(call), registration));
            }
        }
    }

    fn collect(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = Pin::new(&mut self.in_flight).poll_next(cx) {
            match ended {
                Ok((id, response)) => {
                    let place = self.aborts.iter().position(|(other, _)| *other == id);
                    place.map(|place| self.aborts.swap_remove(place));
                    self.append(response);
                }
                // What was cancelled must not be answered.
                Err(Aborted) => self.aborts.retain(|(_, abort)| !abort.is_aborted()),
            }
        }
    }

    fn append(&mut self, response: Response) {
        if let Some(body) = response.body {
            body.into_iter().for_each(|piece| self.output.append(piece));
            self.output.end().push(b'\n');
        }
    }

    /// Reads once, when there is room for requests; whether bytes came.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.closed_since.is_some() || !self.lines.is_waiting || !self.has_room() {
            return Ok(false);
        }
        match self.lines.input.poll_fill(&mut self.reader, cx) {
            Poll::Ready(arrived) => {
                if arrived? == 0 {
                    self.closed_since = Some(Instant::now());
                    return Ok(false);
                }
                self.lines.is_waiting = false;
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }
}

/// Cuts what arrives into lines.
struct Lines {
    input: Input,
    bytes_max: usize,
    /// Bytes of the line's beginning that hold no newline.
    searched: usize,
    /// Whether the line is too long already and its rest is thrown away.
    skipping: bool,
    /// Whether no whole line is left.
    is_waiting: bool,
}

impl Lines {
    const fn new(bytes_max: usize) -> Self {
        let input = Input::new();
        Self { input, bytes_max, searched: 0, skipping: false, is_waiting: true }
    }

    /// Decides on the next line.
    fn next(&mut self, limits: &Limits) -> Option<Decision> {
        loop {
            let unread = self.input.unread();
            let newline = unread[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(len) = newline.map(|at| self.searched + at) else {
                self.searched = unread.len();
                self.is_waiting = true;
                if self.searched <= self.bytes_max {
                    return None;
                }
                self.input.consume(self.searched);
                self.searched = 0;
                let is_news = !std::mem::replace(&mut self.skipping, true);
                return is_news.then(|| Decision::Respond(too_long(self.bytes_max)));
            };
            self.searched = 0;
            let is_blank = unread[..len].iter().all(u8::is_ascii_whitespace);
            let line = &mut self.input.consume(len + 1)[..len];
            if !std::mem::take(&mut self.skipping) && !is_blank {
                return Some(decide(line, Transport::Stdio, limits));
            }
        }
    }
}

fn too_long(bytes_max: usize) -> Response {
    let text = format!("a message may have {bytes_max} bytes");
    jsonrpc::error(413, &Id::null(), INVALID_REQUEST, &text)
}
