//! `coreflow serve`.

use super::{
    common::{Common, failed},
    interrupt::Interrupt,
};
use crate::{
    config::Config,
    metrics::prometheus,
    node::{Node, NodeBuilder},
    server::{
        Limits,
        listen::{Addresses, Keys, Listen, Listeners},
    },
};
use clap::Args;
use futures_lite::future;
use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// What connections have at least to finish after a drain that took all of its time.
const CLOSE_AT_LEAST: Duration = Duration::from_millis(200);

/// Serve MessagePack-RPC and HTTP (MCP, metrics, health) until SIGTERM or SIGINT
///
/// The signal stops accepting work, lets what was accepted end within server.drain_ms, and exits
/// 0; a second one exits at once.
#[derive(Args, Debug)]
pub struct ServeArgs {}

/// Runs the subcommand; with `--json`, where the node listens goes to `out`.
pub fn run(
    ServeArgs {}: &ServeArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let config = match common.load_or_explain(err) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match serve(config, common.json, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn serve(config: Config, json: bool, out: &mut dyn Write) -> io::Result<()> {
    // Signals that come while the node starts wait until it runs.
    let mut interrupt = Interrupt::listen()?;
    let drain = Duration::from_millis(config.server.drain_ms);
    let listeners = Listeners::new(listen(&config)?);
    doubt(&config);
    // A start that fails here leaves the log as it was.
    listeners.check()?;
    let opened = listeners.clone();
    let node =
        NodeBuilder::new(config).durable().on_core(move |gateway| opened.open(&gateway)).start();
    let node = node?;
    if let Some(addresses) = listeners.addresses() {
        announce(&node, addresses, json, out)?;
    }
    future::block_on(interrupt.first());
    stop(node, drain)
}

/// Lets what was accepted end, then the answers to it leave, then the cores stop.
pub(super) fn stop(node: Node, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    tracing::info!(
        drain_ms = limit.as_millis() as u64,
        "no new work; a second signal exits at once"
    );
    let unended = node.drain(limit);
    if unended > 0 {
        tracing::warn!(unended, "tasks had not ended when the drain was over");
    }
    let left = deadline.saturating_duration_since(Instant::now()).max(CLOSE_AT_LEAST);
    if node.close_doors(left) > 0 {
        tracing::warn!("connections were cut off");
    }
    node.shutdown()?;
    tracing::info!("stopped");
    Ok(())
}

fn listen(config: &Config) -> io::Result<Listen> {
    let server = &config.server;
    let at = config.listen();
    Ok(Listen {
        token: config.token()?,
        rpc: at.rpc,
        http: at.http,
        keys: Keys { rpc: config.listen_key("rpc"), http: config.listen_key("http") },
        max_connections: server.max_connections,
        limits: limits(config),
        metrics: prometheus::render,
    })
}

/// What one connection may cost.
pub(super) fn limits(config: &Config) -> Limits {
    let server = &config.server;
    Limits {
        max_frame_bytes: server.max_frame_bytes,
        max_payload_bytes: config.tasks.max_payload_bytes,
        max_in_flight: server.max_in_flight,
        write_buffer_bytes: server.write_buffer_bytes,
        stall_timeout: Duration::from_millis(server.stall_timeout_ms),
    }
}

/// Warns of what was perhaps meant otherwise.
fn doubt(config: &Config) {
    if config.cluster.node == 0 && !config.node.is_empty() {
        tracing::warn!(
            nodes = config.node.len(),
            "the configuration lists nodes, and this one is alone: cluster.node says which it is"
        );
    }
}

fn announce(
    node: &Node,
    Addresses { rpc, http }: Addresses,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let topology = node.topology();
    let (workers, raft) = (&topology.workers, &topology.raft);
    tracing::info!(?workers, ?raft, "pinned");
    let shared = topology.shared();
    if !shared.is_empty() {
        tracing::info!(?shared, "too few cores for a raft group of its own: these serve both");
    }
    tracing::info!(%rpc, http = %format_args!("http://{http}/"), "serving");
    if json {
        writeln!(out, r#"{{"rpc":"{rpc}","http":"{http}","pid":{}}}"#, std::process::id())?;
        out.flush()?;
    }
    Ok(())
}
