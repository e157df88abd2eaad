//! Protocol engines: MessagePack-RPC, HTTP and the Model Context Protocol, over a [`Gateway`].
//!
//! A connection is one future that owns its socket, its buffers and its requests. It lives on the
//! core that accepted it; dropping it withdraws everything its client still waits for.
//!
//! Invariants worth naming:
//!
//! - A protocol knows neither listeners nor the executor: it is given a stream, a [`Gateway`], an
//!   [`Engine`] for time and a [`Drain`] to listen to. [`listen`] joins it to a core's sockets.
//! - Every buffer is bounded by [`Limits`]. A client that stops reading, or stops in the middle
//!   of a request, loses its connection and costs nobody else anything.
//! - All doors speak through one vocabulary: [`request`](self) parses parameters and runs them,
//!   `reply` writes the answers, both as MessagePack; JSON is a transcription of that.
//!
//! [`Gateway`]: crate::node::gateway::Gateway

mod auth;
mod buffers;
mod cluster;
mod drain;
mod here;
pub mod http;
mod large;
pub mod listen;
pub mod mcp;
mod memory;
mod params;
mod pieces;
mod reply;
mod request;
pub mod rpc;
mod stall;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub use drain::Drain;

use std::{
    task::{Poll, Waker},
    time::Duration,
};

/// Time, as the executor of a core keeps it.
pub trait Engine: Clone + Unpin + 'static {
    /// A place in the line of those for which there was no time.
    type Place: Unpin + 'static;

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;

    /// Polls a future again that has more to do, or much more, when others had their turn if that is due.
    fn again(&self, waker: &Waker, _is_much: bool) {
        waker.wake_by_ref();
    }

    /// Whether a connection may be served now: true when there is no time left and it should do no more than it must.
    /// While it may not it waits in a line, where `place` is its own, and is polled again when it is its turn.
    fn poll_enter(
        &self,
        _: &Waker,
        _is_much: bool,
        _place: &mut Option<Self::Place>,
    ) -> Poll<bool> {
        Poll::Ready(false)
    }

    /// Whether futures of this core, or those with much to do, have gone on for so long that others should have
    /// their turn.
    fn is_over(&self, _is_much: bool) -> bool {
        false
    }

    /// Does work that would hold the core while others wait, elsewhere where that is possible. It waits for
    /// nobody.
    fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        async { work() }
    }
}

/// What one connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, bytes: a MessagePack-RPC frame or an HTTP body.
    pub max_frame_bytes: usize,
    /// Largest payload of a task or a message, bytes.
    pub max_payload_bytes: usize,
    /// Requests of one connection that may wait for their answer; reading stops there.
    pub max_in_flight: usize,
    /// Answers that may wait for the client to read, bytes; reading stops there.
    pub write_buffer_bytes: usize,
    /// How long a client may make no progress in the middle of a request, or while answers wait
    /// for it to read.
    pub stall_timeout: Duration,
}
