//! Our streams as hyper wants them, with the clocks that hyper would need `Send` timers for.

use crate::server::{Engine, stall::Stall};
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// Where a connection is in its exchange of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A request's head has begun.
    Head,
    /// A request is being answered; its body has a clock of its own.
    Request,
}

/// What the service tells the stream under it.
#[derive(Debug)]
pub struct Activity {
    phase: Cell<Phase>,
    since: Cell<Instant>,
}

impl Activity {
    /// A connection that has just been made.
    pub fn new() -> Self {
        Self { phase: Cell::new(Phase::Idle), since: Cell::new(Instant::now()) }
    }

    /// A request's head is whole.
    pub fn begin_request(&self) {
        self.enter(Phase::Request);
    }

    /// The request is answered, as far as the service is concerned.
    pub fn end_request(&self) {
        self.enter(Phase::Idle);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }
}

/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// The most that is read at once, bytes.
const PIECE: usize = 16 << 10;
/// The most that is written at once, bytes.
const WRITTEN_AT_ONCE: usize = 32 << 10;
/// The most that is read and written until others have their turn, bytes: hyper goes on for as long as it can.
const TURN_BYTES: usize = 64 << 10;

/// What was done since the connection's future was polled.
#[derive(Debug, Default)]
pub struct Turn {
    /// Bytes that were read and written.
    moved: Cell<usize>,
    /// Others should have their turn: nothing more is read or written, and it was said that there is more to do.
    is_over: Cell<bool>,
}

impl Turn {
    /// The future is polled.
    pub fn begin(&self) {
        self.moved.set(0);
        self.is_over.set(false);
    }

    fn count(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes);
    }
}

/// A stream for hyper.
///
/// hyper may end a connection with an answer in its buffer, for which it asked the stream once: where it says no to a
/// request whose body goes on. So what the stream cannot write at that time it keeps, up to a bound.
pub struct Io<S, E> {
    stream: S,
    activity: Rc<Activity>,
    turn: Rc<Turn>,
    stall_timeout: Duration,
    reading: Stall<E>,
    writing: Stall<E>,
    blocked_since: Option<Instant>,
    /// hyper's buffer may be uninitialised, which only unsafe code can fill in place.
    piece: Box<[u8]>,
    /// Bytes that hyper had written and that were not.
    kept: Vec<u8>,
}

impl<S, E: Engine> Io<S, E> {
    pub fn new(
        stream: S,
        engine: E,
        activity: Rc<Activity>,
        turn: Rc<Turn>,
        stall_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            activity,
            turn,
            stall_timeout,
            reading: Stall::new(engine.clone()),
            writing: Stall::new(engine),
            blocked_since: None,
            piece: vec![0; PIECE].into(),
            kept: Vec::new(),
        }
    }

    /// The stream, and what is to be written to it yet.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.kept)
    }

    /// Waits until others had their turn, when much was read and written, or something and it is due.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let moved = self.turn.moved.get();
        let is_over = || moved > 0 && self.reading.engine().is_over(true);
        if !self.turn.is_over.get() {
            if moved < TURN_BYTES && !is_over() {
                return Poll::Ready(());
            }
            self.turn.is_over.set(true);
            self.reading.engine().again(cx.waker(), true);
        }
        Poll::Pending
    }

    /// An error when the client owes bytes for too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = match self.activity.phase.get() {
            Phase::Idle => KEEP_ALIVE,
            Phase::Head => self.stall_timeout,
            Phase::Request => return Poll::Pending,
        };
        self.reading.poll(cx, self.activity.since.get(), limit).map(|()| timed_out())
    }
}

impl<S: AsyncWrite + Unpin, E: Engine> Io<S, E> {
    /// Writes once; an error when the client takes nothing for too long.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(taken) => {
                self.turn.count(taken.as_ref().copied().unwrap_or(0));
                self.blocked_since = None;
                Poll::Ready(taken)
            }
            Poll::Pending => {
                let since = *self.blocked_since.get_or_insert_with(Instant::now);
                ready!(self.writing.poll(cx, since, self.stall_timeout));
                Poll::Ready(Err(timed_out()))
            }
        }
    }

    fn poll_write_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let kept = std::mem::take(&mut self.kept);
            let written = self.poll_write_some(cx, &kept);
            self.kept = kept;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.kept.drain(..written)),
            }
        }
        self.kept = Vec::new();
        Poll::Ready(Ok(()))
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl<S, E> hyper::rt::Read for Io<S, E>
where
    S: AsyncRead + Unpin,
    E: Engine + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Checked before reading: a client that drips a byte a second never lets a read wait.
        if let Poll::Ready(error) = this.poll_overdue(cx) {
            return Poll::Ready(Err(error));
        }
        ready!(this.poll_turn(cx));
        let room = buffer.remaining().min(this.piece.len());
        let piece = &mut this.piece[..room];
        let arrived = ready!(Pin::new(&mut this.stream).poll_read(cx, piece))?;
        this.turn.count(arrived);
        if arrived > 0 && this.activity.phase.get() == Phase::Idle {
            this.activity.enter(Phase::Head);
        }
        buffer.put_slice(&piece[..arrived]);
        Poll::Ready(Ok(()))
    }
}

impl<S, E> hyper::rt::Write for Io<S, E>
where
    S: AsyncWrite + Unpin,
    E: Engine + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_write_kept(cx))?;
        let bytes = &bytes[..bytes.len().min(WRITTEN_AT_ONCE)];
        let written = this.poll_write_some(cx, bytes);
        if written.is_pending() {
            this.kept.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_kept(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
