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
    Limits,
    memory::MemoryReply,
    reply::{self, Reply},
    request::Request,
    worker::WorkerSession,
};
use crate::{
    node::gateway::Gateway,
    wire::{api::Error, json, msgpack::Reader},
};
use decide::{Decision, ToolCall};
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
    /// One JSON-RPC message; none for what is not answered.
    pub body: Option<Vec<u8>>,
}

/// Answers one message; `text` is overwritten by the parser.
///
/// Dropping the future withdraws a tool's wait, never its work.
pub async fn handle<G: Gateway>(
    gateway: Rc<G>,
    text: &mut [u8],
    transport: Transport<'_>,
    limits: &Limits,
) -> Response {
    match decide::decide(text, transport, limits) {
        Decision::Respond(response) => response,
        Decision::Notified { .. } => Response { status: 202, body: None },
        Decision::Call(call) => run_tool(gateway, call, limits).await,
    }
}

/// Runs a tool; what it objects to is part of its result, for the model to read.
async fn run_tool<G: Gateway>(gateway: Rc<G>, call: ToolCall, limits: &Limits) -> Response {
    let request = Request::parse(call.tool.method, &call.arguments, limits);
    let outcome = match request {
        Ok(request) => request.run(gateway.clone(), &WorkerSession::default()).await,
        Err(error) => Err(error),
    };
    let mut is_error = outcome.is_err();
    let pieces = match outcome {
        Ok(Reply::Memory(MemoryReply::Written(pieces))) => pieces,
        Ok(reply) => vec![written(|out| reply.write(out))],
        Err(error) => vec![written(|out| reply::error(out, &error))],
    };
    let structured = match to_json(&*gateway, &pieces).await {
        Ok(structured) => structured,
        Err(json::Unrepresentable) => {
            is_error = true;
            let text = "the result has no JSON form; MessagePack-RPC can read it";
            let answer = written(|out| reply::error(out, &Error::Invalid(text.into())));
            let mut structured = Vec::new();
            json::from_msgpack(&answer, &mut structured).expect("an error has a JSON form");
            structured
        }
    };
    jsonrpc::tool_result(&*gateway, (call.era, &call.id), &structured, is_error).await
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Bytes that a step writes, about.
const STEP_BYTES: usize = 8 << 10;

/// One value in pieces as JSON; between steps others have their turn.
async fn to_json<G: Gateway>(
    gateway: &G,
    pieces: &[Vec<u8>],
) -> Result<Vec<u8>, json::Unrepresentable> {
    let (mut transcoder, mut out, mut is_end) = (json::Transcoder::default(), Vec::new(), false);
    for piece in pieces {
        let mut reader = Reader::new(piece);
        while !reader.is_empty() {
            if is_end {
                return Err(json::Unrepresentable);
            }
            is_end = transcoder.step(&mut reader, STEP_BYTES, &mut out)?;
            gateway.breathe().await;
        }
    }
    if is_end { Ok(out) } else { Err(json::Unrepresentable) }
}

#[cfg(test)]
mod tests;
