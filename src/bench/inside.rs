//! A node of this process with its doors: for measurements whose agents tell what they saw.

use super::swarm;
use crate::{
    config::Config,
    metrics::prometheus,
    node::{Node, NodeBuilder},
    server::{
        Limits,
        listen::{Addresses, Keys, Listen, Listeners},
    },
};
use std::{io, time::Duration};

/// Starts a durable node with the agents that `with` adds to it. It asks for no token. Where it
/// listens comes with it.
///
/// # Errors
/// When it does not start.
pub(super) fn start(
    config: Config,
    with: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> io::Result<(Node, Addresses)> {
    let (at, server) = (config.listen(), &config.server);
    let listeners = Listeners::new(Listen {
        token: None,
        rpc: at.rpc,
        http: at.http,
        keys: Keys { rpc: config.listen_key("rpc"), http: config.listen_key("http") },
        max_connections: server.max_connections,
        limits: Limits {
            max_frame_bytes: server.max_frame_bytes,
            max_payload_bytes: config.tasks.max_payload_bytes,
            max_in_flight: server.max_in_flight,
            write_buffer_bytes: server.write_buffer_bytes,
            stall_timeout: Duration::from_millis(server.stall_timeout_ms),
        },
        metrics: prometheus::render,
    });
    let opened = listeners.clone();
    let builder = NodeBuilder::new(config).durable();
    let builder = builder.on_core(move |gateway| opened.open(&gateway));
    let node = with(builder).start().map_err(swarm::failed)?;
    let addresses = listeners.addresses().expect("a node that started listens");
    Ok((node, addresses))
}
