//! What a message asks: pure, without the node.

use super::{
    Era, Headers, LEGACY_LATEST, MODERN_VERSION, Response, Transport, is_legacy,
    jsonrpc::{self, INVALID_PARAMS, INVALID_REQUEST, Id, METHOD_NOT_FOUND, PARSE_ERROR},
    modern, tools,
};
use crate::{
    server::{Limits, request::Request},
    wire::{
        api::Error,
        json::{self, Document, Json},
    },
};

/// What to do with a message.
#[derive(Debug)]
pub enum Decision {
    /// The answer needs nothing from the node.
    Respond(Response),
    /// A notification or a response, which is not answered.
    Notified {
        /// The request whose answer the client no longer wants.
        cancelled: Option<Id>,
    },
    /// A tool is to run.
    Call(ToolCall),
}

/// A tool to run.
#[derive(Debug)]
pub struct ToolCall {
    /// The rules that its answer follows.
    pub era: Era,
    /// What its answer repeats.
    pub id: Id,
    /// What the tool asks of the node, or what is wrong with its arguments.
    pub request: Result<Request, Error>,
}

/// Reads one message.
pub fn decide(text: &mut [u8], transport: Transport<'_>, limits: &Limits) -> Decision {
    let document = match Document::parse(text, limits.max_frame_bytes) {
        Ok(document) => document,
        Err(error @ json::Error::TooLarge(_)) => {
            return refuse(413, &Id::null(), INVALID_REQUEST, &error.to_string());
        }
        Err(error) => return refuse(400, &Id::null(), PARSE_ERROR, &error.to_string()),
    };
    let message = document.root();
    if message.is_array() {
        let text = "JSON-RPC batches are not part of this protocol: send one message at a time";
        return refuse(400, &Id::null(), INVALID_REQUEST, text);
    }
    if message.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
        let text = r#"a message is an object with "jsonrpc": "2.0""#;
        return refuse(400, &Id::null(), INVALID_REQUEST, text);
    }
    match (message.get("method").map(Json::as_str), message.get("id")) {
        (Some(Some(method)), Some(id)) => match Id::read(id) {
            Some(id) => request(message, id, method, transport, limits),
            None => refuse(400, &Id::null(), INVALID_REQUEST, "an id is a string or an integer"),
        },
        (Some(Some(method)), None) => notification(message, method, transport),
        (Some(None), _) => refuse(400, &Id::null(), INVALID_REQUEST, "a method is a string"),
        (None, _) => response(message, transport),
    }
}

fn refuse(status: u16, id: &Id, code: i32, message: &str) -> Decision {
    Decision::Respond(jsonrpc::error(status, id, code, message))
}

/// The version that the HTTP headers name.
fn header_version<'a>(transport: Transport<'a>) -> Option<&'a str> {
    match transport {
        Transport::Http(headers) => headers.protocol_version.as_deref(),
        Transport::Stdio => None,
    }
}

fn notification(message: Json<'_, '_>, method: &str, transport: Transport<'_>) -> Decision {
    if let Some(version) = header_version(transport)
        && version != MODERN_VERSION
        && !is_legacy(version)
    {
        return Decision::Respond(jsonrpc::unsupported_version(&Id::null(), version));
    }
    let cancelled = message.get("params").and_then(|params| params.get("requestId"));
    let cancelled = cancelled.filter(|_| method == "notifications/cancelled").and_then(Id::read);
    Decision::Notified { cancelled }
}

/// A message without a method: this server asks clients nothing, so a response fits no request
/// of its own; older revisions accept one all the same.
fn response(message: Json<'_, '_>, transport: Transport<'_>) -> Decision {
    let is_response = message.get("result").is_some() || message.get("error").is_some();
    if is_response && header_version(transport) != Some(MODERN_VERSION) {
        return Decision::Notified { cancelled: None };
    }
    refuse(400, &Id::null(), INVALID_REQUEST, "a request needs a method")
}

fn request(
    message: Json<'_, '_>,
    id: Id,
    method: &str,
    transport: Transport<'_>,
    limits: &Limits,
) -> Decision {
    let params = message.get("params");
    if params.is_some_and(|params| !params.is_object()) {
        return refuse(400, &id, INVALID_PARAMS, "params must be an object");
    }
    if let Transport::Http(Headers { repeated: Some(header), .. }) = transport {
        let text = format!("the header {header} was sent more than once");
        return refuse(400, &id, jsonrpc::HEADER_MISMATCH, &text);
    }
    let is_modern = header_version(transport) == Some(MODERN_VERSION)
        || method == "server/discover"
        || params.is_some_and(modern::is_stamped);
    let era = if is_modern { Era::Modern } else { Era::Legacy };
    let checked = match era {
        Era::Modern => modern::check(&id, method, params, transport),
        Era::Legacy => check_legacy(&id, method, transport),
    };
    match checked {
        Ok(()) => dispatch(era, id, method, params, limits),
        Err(response) => Decision::Respond(response),
    }
}

/// After `initialize` a legacy client names the version it agreed on in a header; revisions
/// before 2025-06-18 do not know that header.
fn check_legacy(id: &Id, method: &str, transport: Transport<'_>) -> Result<(), Response> {
    match header_version(transport) {
        Some(version) if method != "initialize" && !is_legacy(version) => {
            Err(jsonrpc::unsupported_version(id, version))
        }
        _ => Ok(()),
    }
}

fn dispatch(
    era: Era,
    id: Id,
    method: &str,
    params: Option<Json<'_, '_>>,
    limits: &Limits,
) -> Decision {
    let response = match (era, method) {
        (Era::Legacy, "initialize") => initialize(&id, params),
        (Era::Legacy, "ping") => jsonrpc::result(era, &id, ""),
        (Era::Modern, "server/discover") => jsonrpc::discovered(&id),
        (_, "tools/list") => {
            let cursor = params.and_then(|params| params.get("cursor"));
            if cursor.is_some_and(|cursor| !cursor.is_null()) {
                return invalid_params(era, &id, "there is only one page of tools: no cursor fits");
            }
            jsonrpc::tool_list(era, &id)
        }
        (_, "tools/call") => return call(era, id, params, limits),
        _ => {
            let status = if era == Era::Modern { 404 } else { 200 };
            let text = format!("Method not found: {method:.60}");
            return refuse(status, &id, METHOD_NOT_FOUND, &text);
        }
    };
    Decision::Respond(response)
}

/// Modern errors have an HTTP status; to a legacy client another status than 200 means that the
/// transport failed.
fn invalid_params(era: Era, id: &Id, message: &str) -> Decision {
    let status = if era == Era::Modern { 400 } else { 200 };
    refuse(status, id, INVALID_PARAMS, message)
}

/// Agrees on the client's version, or offers the newest that begins this way.
fn initialize(id: &Id, params: Option<Json<'_, '_>>) -> Response {
    let offered = params.and_then(|params| params.get("protocolVersion")).and_then(Json::as_str);
    match offered {
        Some(version) if is_legacy(version) => jsonrpc::initialized(id, version),
        Some(_) => jsonrpc::initialized(id, LEGACY_LATEST),
        None => jsonrpc::error(200, id, INVALID_PARAMS, "initialize needs a protocolVersion"),
    }
}

fn call(era: Era, id: Id, params: Option<Json<'_, '_>>, limits: &Limits) -> Decision {
    let Some(name) = params.and_then(|params| params.get("name")).and_then(Json::as_str) else {
        return invalid_params(era, &id, "tools/call needs the name of a tool");
    };
    let Some(tool) = tools::find(name) else {
        return invalid_params(era, &id, &format!("Unknown tool: {name:.60}"));
    };
    const EMPTY_MAP: u8 = 0x80;
    let mut arguments = Vec::new();
    match params.and_then(|params| params.get("arguments")).filter(|value| !value.is_null()) {
        None => arguments.push(EMPTY_MAP),
        Some(value) if value.is_object() => json::to_msgpack(value, &mut arguments),
        Some(_) => return invalid_params(era, &id, "arguments must be an object"),
    }
    let mut request = Request::parse(tool.method, &arguments, limits);
    if let Ok(request) = &mut request {
        request.prepare();
    }
    Decision::Call(ToolCall { era, id, request })
}
