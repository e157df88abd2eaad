//! Messages that go out: JSON-RPC 2.0 results and errors.

use super::{Era, MODERN_VERSION, Response, VERSIONS, tools::TOOLS};
use crate::{
    server::pieces::{APPEND_BYTES, Pieces},
    wire::json,
};
use std::fmt::Write;

/// Not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but no JSON-RPC request.
pub const INVALID_REQUEST: i32 = -32600;
/// A method that this server does not have.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Wrong parameters.
pub const INVALID_PARAMS: i32 = -32602;
/// HTTP headers and body disagree.
pub const HEADER_MISMATCH: i32 = -32020;
/// A protocol revision that this server does not speak.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// How long a client may keep what the program's build decides, milliseconds.
const CACHE_MS: u32 = 3_600_000;

const INSTRUCTIONS: &str = "coreflow runs swarms of agents and remembers for them. Create a task with \
    task_create, then read its outcome with task_result and a wait_ms; agent_list shows which agent \
    types exist. Before you begin something look with memory_search for what was learned before, and \
    keep what should be known next time with memory_store; memory_stats tells how texts are compared. \
    swarm_health tells whether the node takes work.";

/// A request's id as JSON text, ready to be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// The id of an answer to what had none that could be read.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Reads an id: a string or an integer.
    pub fn read(value: json::Json<'_, '_>) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(Self(quoted(text)));
        }
        let signed = value.as_i64().map(|number| number.to_string());
        signed.or_else(|| value.as_u64().map(|number| number.to_string())).map(Self)
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::string(&mut out, text);
    String::from_utf8(out).expect("JSON text is UTF-8")
}

/// An error; `status` is for HTTP.
pub fn error(status: u16, id: &Id, code: i32, message: &str) -> Response {
    error_with_data(status, id, code, message, "")
}

/// The error for a revision that is not spoken, which says what is.
pub fn unsupported_version(id: &Id, requested: &str) -> Response {
    let data = format!(
        r#","data":{{"supported":{},"requested":{}}}"#,
        supported_versions(),
        quoted(requested)
    );
    error_with_data(400, id, UNSUPPORTED_VERSION, "Unsupported protocol version", &data)
}

fn error_with_data(status: u16, id: &Id, code: i32, message: &str, data: &str) -> Response {
    let (id, message) = (&id.0, quoted(message));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{data}}}}}"#
    );
    Response { status, body: Some(vec![body.into_bytes()]) }
}

/// A result whose fields, without braces, are `fields`.
pub fn result(era: Era, id: &Id, fields: &str) -> Response {
    let mut body = begin_result(era, id, !fields.is_empty());
    body.extend_from_slice(fields.as_bytes());
    body.extend_from_slice(RESULT_END);
    Response { status: 200, body: Some(vec![body]) }
}

/// What closes what [`begin_result`] opened.
const RESULT_END: &[u8] = b"}}";

/// What stands in front of the fields of a result.
fn begin_result(era: Era, id: &Id, has_fields: bool) -> Vec<u8> {
    let comma = if !has_fields || era == Era::Legacy { "" } else { "," };
    let stamp = match era {
        Era::Legacy => String::new(),
        Era::Modern => format!(
            r#""resultType":"complete","_meta":{{"io.modelcontextprotocol/serverInfo":{}}}"#,
            server_info()
        ),
    };
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{{stamp}{comma}"#, id.0).into_bytes()
}

/// The result of `initialize`.
pub fn initialized(id: &Id, version: &str) -> Response {
    let fields = format!(
        r#""protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{},"instructions":{}"#,
        server_info(),
        quoted(INSTRUCTIONS)
    );
    result(Era::Legacy, id, &fields)
}

/// The result of `server/discover`.
pub fn discovered(id: &Id) -> Response {
    let fields = format!(
        r#""supportedVersions":{},"capabilities":{{"tools":{{}}}},"instructions":{},{}"#,
        supported_versions(),
        quoted(INSTRUCTIONS),
        caching()
    );
    result(Era::Modern, id, &fields)
}

/// The result of `tools/list`.
pub fn tool_list(era: Era, id: &Id) -> Response {
    let mut fields = String::from(r#""tools":["#);
    for (index, tool) in TOOLS.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let description = quoted(tool.description);
        write!(
            fields,
            r#"{comma}{{"name":"{}","title":"{}","description":{description},"inputSchema":{{"type":"object","properties":{{{}}},"required":{},"additionalProperties":false}},"annotations":{{{},"openWorldHint":false}}}}"#,
            tool.name, tool.title, tool.properties, tool.required, tool.hints,
        )
        .expect("a string takes every write");
    }
    fields.push(']');
    if era == Era::Modern {
        fields.push(',');
        fields.push_str(&caching());
    }
    result(era, id, &fields)
}

/// The result of a tool: `structured` is a JSON object in pieces, repeated as text for clients and models
/// that read only that.
pub fn tool_result(era: Era, id: &Id, structured: &[Vec<u8>], is_error: bool) -> Response {
    let mut body = Pieces::default();
    body.append(&begin_result(era, id, true));
    body.append(br#""content":[{"type":"text","text":""#);
    for part in structured.iter().flat_map(|piece| piece.chunks(APPEND_BYTES)) {
        json::escaped(body.end(), part);
    }
    body.append(br#""}],"structuredContent":"#);
    structured.iter().for_each(|piece| body.append(piece));
    body.append(format!(r#","isError":{is_error}"#).as_bytes());
    body.append(RESULT_END);
    Response { status: 200, body: Some(body.into_vec()) }
}

fn caching() -> String {
    format!(r#""ttlMs":{CACHE_MS},"cacheScope":"public""#)
}

fn server_info() -> String {
    format!(r#"{{"name":"coreflow","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

/// The revisions as a JSON array, newest first.
fn supported_versions() -> String {
    assert_eq!(VERSIONS[0], MODERN_VERSION);
    format!(r#"["{}"]"#, VERSIONS.join(r#"",""#))
}
