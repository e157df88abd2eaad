//! HTTP/1: the Model Context Protocol, metrics, health and the status page.
//!
//! | path | what |
//! |---|---|
//! | `/mcp` | the Model Context Protocol, POST |
//! | `/metrics` | figures for Prometheus |
//! | `/healthz` | 200 for as long as the process serves |
//! | `/readyz` | 200 while the node takes work, otherwise 503 |
//! | `/stats.json` | the answer of `node.stats` |
//! | `/` | a page that shows it |
//!
//! Where the node asks for a token, every path but `/healthz` and `/readyz` wants it, as
//! `Authorization: Bearer TOKEN`.
//!
//! hyper parses and frames; time is kept here: a request's head must be whole within the stall
//! timeout of its first byte, a body and the reading of answers must not pause for longer.

mod body;
mod guard;
mod io;
mod routes;

use super::{Drain, Engine, Limits, stall};
use crate::{
    node::gateway::Gateway,
    wire::{api::NodeStats, memory::MemoryStats, secret::Secret},
};
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::{server::conn::http1, service::service_fn};
use io::{Activity, Io, Turn};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::ready,
};

/// What differs between the HTTP doors of different nodes.
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether the listener is bound to the loopback: then only requests that name a loopback
    /// host are served, so that no web page can reach the node through a name of its own.
    pub loopback: bool,
    /// What a client must send.
    pub token: Option<Secret>,
    /// Writes the figures in Prometheus' text format.
    pub metrics: RenderMetrics,
}

/// Writes the figures of a node, and of its memory where it has one.
pub type RenderMetrics = fn(&NodeStats, Option<&MemoryStats>) -> String;

/// Bytes of a request's head; hyper answers 431 beyond.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Serves one connection until it ends.
pub async fn serve_http<S, G, E>(
    stream: S,
    gateway: Rc<G>,
    limits: Limits,
    engine: E,
    drain: Rc<Drain>,
    site: Site,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    G: Gateway,
    E: Engine,
{
    let activity = Rc::new(Activity::new());
    let turn = Rc::new(Turn::default());
    let io = Io::new(stream, engine.clone(), activity.clone(), turn.clone(), limits.stall_timeout);
    let service = service_fn(|request| {
        let (gateway, engine, activity) = (gateway.clone(), engine.clone(), activity.clone());
        let site = &site;
        // On the heap because hyper leaves the stream open for a polite close only then.
        Box::pin(async move {
            activity.begin_request();
            let response = routes::answer(request, gateway, &limits, &engine, site).await;
            activity.end_request();
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(io, service);
    let mut draining = pin!(drain.begun());
    let (mut is_draining, mut place) = (false, None);
    // A connection that ended badly was told so by hyper where that was still possible.
    let _ended = poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        ready!(engine.poll_enter(cx.waker(), true, &mut place));
        turn.begin();
        connection.poll_without_shutdown(cx)
    })
    .await;
    let (mut stream, rest) = connection.into_parts().io.into_parts();
    stall::close(&mut stream, &rest, engine, limits.stall_timeout).await;
}

#[cfg(test)]
mod tests;
