//! MessagePack-RPC, as its public specification has it.
//!
//! A client sends requests `[0, msgid, method, params]` and notifications `[2, method, params]`;
//! the node answers each request with `[1, msgid, error, result]`. `params` is an array with one
//! map, or the map itself; `result` is a map; an error is `{code, message, retry_after_ms?}`.
//!
//! Where the node asks for a token, a connection says it first: `auth {token}`; one of another node proves
//! the cluster's secret instead (`node/greeting.rs`). Until then everything else is answered `unauthorized`, a
//! request may only be short, and the stall timeout runs.
//!
//! Requests of one connection run side by side and are answered as they end, so answers may come
//! in another order: a long wait holds up nothing behind it.
//!
//! What ends a connection: bytes that are no MessagePack-RPC message (answered `invalid` with a
//! nil msgid), the token wrong five times, a frame beyond the limit (answered `too_large`), a client that stalls in the middle
//! of a frame or does not read its answers for the stall timeout, and a drain.

mod connection;
pub(crate) mod frame;
mod lent;
mod work;

use super::{Drain, Engine, Limits, auth::Gate, stall, worker::WorkerSession};
use crate::{
    node::gateway::{Gateway, Offer},
    wire::secret::Secret,
};
use connection::{Connection, End};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{future::poll_fn, pin::pin, rc::Rc};

/// Serves one connection until it ends; what its client still waits for is withdrawn then. `token` is
/// what the client must say first. Tells when the connection goes on as a trunk of another node.
pub async fn serve_rpc<S, G, E>(
    stream: S,
    gateway: Rc<G>,
    limits: Limits,
    engine: E,
    drain: Rc<Drain>,
    token: Option<Secret>,
) -> Option<(Offer, S)>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    G: Gateway,
    E: Engine,
{
    let session = Rc::new(WorkerSession::new(&limits));
    let start = |work| work::run(gateway.clone(), session.clone(), work);
    let gate = Gate::new(token, gateway.known());
    let mut connection = Connection::new(stream, limits, engine.clone(), gate, start);
    let mut draining = pin!(drain.begun());
    let polite = poll_fn(|cx| {
        if !connection.is_ending() && draining.as_mut().poll(cx).is_ready() {
            connection.drain();
        }
        connection.poll(cx)
    });
    let end = polite.await;
    if let Some(worker) = session.take() {
        gateway.clone().leave(worker).await;
    }
    match end {
        End::Flushed => {
            stall::close(&mut connection.into_stream(), &[], engine, limits.stall_timeout).await;
        }
        End::Trunk(offer) => return Some((offer, connection.into_stream())),
        End::Lost => {}
    }
    None
}

#[cfg(test)]
mod tests;
