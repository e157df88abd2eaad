//! Notices that a peer makes no progress, with at most one timer a connection.

use super::Engine;
use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// A timer that is armed lazily: progress costs a clock reading, not a timer.
pub struct Stall<E> {
    engine: E,
    armed: Option<Armed>,
}

struct Armed {
    limit: Duration,
    sleep: Pin<Box<dyn Future<Output = ()>>>,
}

impl<E: Engine> Stall<E> {
    /// A timer that is not armed.
    pub const fn new(engine: E) -> Self {
        Self { engine, armed: None }
    }

    /// What it was made with.
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Whether nothing has moved since `since` for `limit`; wakes the task when that comes true.
    pub fn poll(&mut self, cx: &mut Context<'_>, since: Instant, limit: Duration) -> Poll<()> {
        // A timer armed for another limit could fire too late; one for this limit never does,
        // for `since` only moves forward.
        self.armed = self.armed.take().filter(|armed| armed.limit == limit);
        loop {
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                self.armed = None;
                return Poll::Ready(());
            }
            let engine = &self.engine;
            let armed = self
                .armed
                .get_or_insert_with(|| Armed { limit, sleep: Box::pin(engine.sleep(left)) });
            if armed.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
        }
    }
}

/// The longest that [`close`] waits for the peer.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// The most that it discards, bytes: as much as a client sends in that time that does not look for an answer.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// The most that it discards at once.
const DISCARDED_AT_ONCE: usize = 16 << 10;

/// Closes a stream so that the peer can still read what was written: writes the `rest`, ends the writing side and
/// discards what the peer sends until it hangs up, or it was much, or time is over. Closing with unread bytes
/// would reset the connection and with it destroy an answer on its way.
pub async fn close<S, E>(stream: &mut S, rest: &[u8], engine: E, stall_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Engine,
{
    let mut stall = Stall::new(engine);
    let started = Instant::now();
    let limit = stall_timeout.min(LINGER_MAX);
    let (mut rest, mut discarded, mut left) = (rest, vec![0; DISCARDED_AT_ONCE], LINGER_BYTES_MAX);
    let (mut closed, mut place) = (false, None);
    poll_fn(|cx| {
        if stall.poll(cx, started, limit).is_ready() {
            return Poll::Ready(());
        }
        ready!(stall.engine().poll_enter(cx.waker(), true, &mut place));
        while !rest.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written @ 1..)) => rest = &rest[written..],
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !closed {
            match Pin::new(&mut *stream).poll_close(cx) {
                Poll::Ready(Ok(())) => closed = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        match Pin::new(&mut *stream).poll_read(cx, &mut discarded) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(read)) => {
                left = left.saturating_sub(read);
                if left == 0 {
                    return Poll::Ready(());
                }
                // One piece a turn: a peer that floods must not hold the core.
                stall.engine().again(cx.waker(), true);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}
