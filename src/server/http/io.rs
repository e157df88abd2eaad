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
/// A stream for hyper.
pub struct Io<S, E> {
    stream: S,
    activity: Rc<Activity>,
    stall_timeout: Duration,
    reading: Stall<E>,
    writing: Stall<E>,
    blocked_since: Option<Instant>,
    /// hyper's buffer may be uninitialised, which only unsafe code can fill in place.
    piece: Box<[u8]>,
    /// Bytes that were read and written since others had their turn.
    moved: usize,
}

impl<S, E: Engine> Io<S, E> {
    pub fn new(stream: S, engine: E, activity: Rc<Activity>, stall_timeout: Duration) -> Self {
        Self {
            stream,
            activity,
            stall_timeout,
            reading: Stall::new(engine.clone()),
            writing: Stall::new(engine),
            blocked_since: None,
            piece: vec![0; PIECE].into(),
            moved: 0,
        }
    }

    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Waits until others had their turn, when much was read and written, or something and it is due and
    /// `may_wait`. What is written must not: hyper says why it ends a connection, and does not wait until it can.
    fn poll_turn(&mut self, cx: &mut Context<'_>, may_wait: bool) -> Poll<()> {
        let is_over = || may_wait && self.moved > 0 && self.reading.engine().is_over(true);
        if self.moved < TURN_BYTES && !is_over() {
            return Poll::Ready(());
        }
        self.moved = 0;
        self.reading.engine().again(cx.waker(), true);
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
        ready!(this.poll_turn(cx, true));
        let room = buffer.remaining().min(this.piece.len());
        let piece = &mut this.piece[..room];
        let arrived = ready!(Pin::new(&mut this.stream).poll_read(cx, piece))?;
        this.moved += arrived;
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
        ready!(this.poll_turn(cx, false));
        let bytes = &bytes[..bytes.len().min(WRITTEN_AT_ONCE)];
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Ready(taken) => {
                this.moved += taken.as_ref().copied().unwrap_or(0);
                this.blocked_since = None;
                Poll::Ready(taken)
            }
            Poll::Pending => {
                let since = *this.blocked_since.get_or_insert_with(Instant::now);
                ready!(this.writing.poll(cx, since, this.stall_timeout));
                Poll::Ready(Err(timed_out()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
