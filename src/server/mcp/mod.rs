//! The Model Context Protocol, both eras at once.
//!
//! *Legacy* clients (2025-03-26 to 2025-11-25) begin with `initialize`; *modern* ones (2026-07-28)
//! put their version and capabilities into `_meta` of each request. The era is chosen for each
//! request by what it carries, so no session is kept and any core can answer any request.
//!
//! The protocol knows no transport: a message goes in, at most one comes out. Deciding what a
//! message asks is a pure function; only tools wait for the node.

mod decide;
mod jsonrpc;
mod modern;
pub mod stdio;
mod tools;

use super::{
    Engine, Limits,
    memory::MemoryReply,
    pieces::{APPEND_BYTES, Pieces},
    reply::{self, Reply},
    worker::WorkerSession,
};
use crate::{
    node::gateway::Gateway,
    wire::{api::Error, json, msgpack::Reader},
};
use decide::{Decision, ToolCall};
use jsonrpc::Id;
use std::rc::Rc;

/// Revisions that this server speaks, newest first.
pub const VERSIONS: [&str; 4] = [MODERN_VERSION, LEGACY_LATEST, "2025-06-18", "2025-03-26"];
const MODERN_VERSION: &str = "2026-07-28";
const LEGACY_LATEST: &str = "2025-11-25";

/// Whether a revision begins with `initialize`.
fn is_legacy(version: &str) -> bool {
    VERSIONS.contains(&version) && version != MODERN_VERSION
}

/// Which rules a request follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug)]
pub enum Transport<'a> {
    /// Streamable HTTP, with the headers that mirror parts of the body.
    Http(&'a Headers),
    /// One message a line: no headers.
    Stdio,
}

/// The headers of a POST that the protocol knows.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// `MCP-Protocol-Version`
    pub protocol_version: Option<String>,
    /// `Mcp-Method`
    pub method: Option<String>,
    /// `Mcp-Name`
    pub name: Option<String>,
    /// The name of one of these that was sent twice.
    pub repeated: Option<&'static str>,
}

/// What goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status for HTTP; other transports ignore it.
    pub status: u16,
    /// One JSON-RPC message, in pieces; none for what is not answered.
    pub body: Option<Vec<Vec<u8>>>,
}

/// Bytes from which on a message is long: to read or to write it would hold the core.
const LONG_BYTES: usize = 8 << 10;

/// Does work for a message of so many bytes, aside if that is much.
async fn work_on<E: Engine, T: Send + 'static>(
    engine: &E,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < LONG_BYTES { work() } else { engine.aside(work).await }
}

/// Answers one message that came over HTTP, in pieces.
///
/// Dropping the future withdraws a tool's wait, never its work.
pub async fn handle<G: Gateway, E: Engine>(
    gateway: Rc<G>,
    engine: &E,
    message: Vec<Vec<u8>>,
    headers: Headers,
    limits: &Limits,
) -> Response {
    let (bytes, limits) = (message.iter().map(Vec::len).sum(), *limits);
    let read = move || decide::decide(&mut message.concat(), Transport::Http(&headers), &limits);
    match work_on(engine, bytes, read).await {
        Decision::Respond(response) => response,
        Decision::Notified { .. } => Response { status: 202, body: None },
        Decision::Call(call) => run_tool(gateway, engine, call).await,
    }
}

/// Runs a tool; what it objects to is part of its result, for the model to read.
async fn run_tool<G: Gateway, E: Engine>(
    gateway: Rc<G>,
    engine: &E,
    ToolCall { era, id, request }: ToolCall,
) -> Response {
    let outcome = match request {
        Ok(request) => request.run(gateway, &WorkerSession::default()).await,
        Err(error) => Err(error),
    };
    let is_error = outcome.is_err();
    let pieces = match outcome {
        Ok(Reply::Memory(MemoryReply::Written(pieces))) => pieces,
        Ok(reply) => vec![written(|out| reply.write(out))],
        Err(error) => vec![written(|out| reply::error(out, &error))],
    };
    let bytes = pieces.iter().map(Vec::len).sum();
    work_on(engine, bytes, move || tool_answer(era, &id, &pieces, is_error)).await
}

/// What answers a tool's call: the MessagePack of its result, in pieces, as JSON.
fn tool_answer(era: Era, id: &Id, pieces: &[Vec<u8>], is_error: bool) -> Response {
    if let Ok(structured) = to_json(pieces) {
        return jsonrpc::tool_result(era, id, &structured, is_error);
    }
    let text = "the result has no JSON form; MessagePack-RPC can read it";
    let answer = written(|out| reply::error(out, &Error::Invalid(text.into())));
    let structured = to_json(&[answer]).expect("an error has a JSON form");
    jsonrpc::tool_result(era, id, &structured, true)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// One value in pieces as JSON, in pieces.
fn to_json(pieces: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, json::Unrepresentable> {
    let (mut transcoder, mut out, mut is_end) =
        (json::Transcoder::default(), Pieces::default(), false);
    for piece in pieces {
        let mut reader = Reader::new(piece);
        while !reader.is_empty() {
            if is_end {
                return Err(json::Unrepresentable);
            }
            is_end = transcoder.step(&mut reader, APPEND_BYTES, out.end())?;
        }
    }
    if is_end { Ok(out.into_vec()) } else { Err(json::Unrepresentable) }
}

#[cfg(test)]
mod tests;
