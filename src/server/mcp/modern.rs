//! What revision 2026-07-28 demands of each request before its method counts.

use super::{
    MODERN_VERSION, Response, Transport,
    jsonrpc::{self, HEADER_MISMATCH, INVALID_PARAMS, Id},
};
use crate::wire::json::{self, Json};

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// Whether parameters carry a version of their own, as only modern clients send it.
pub fn is_stamped(params: Json<'_, '_>) -> bool {
    params.get("_meta").and_then(|meta| meta.get(VERSION_KEY)).is_some()
}

/// Checks what the client says of itself, then that the headers say the same, then the version:
/// a client that contradicts itself is told so before it is told to use another version.
pub fn check(
    id: &Id,
    method: &str,
    params: Option<Json<'_, '_>>,
    transport: Transport<'_>,
) -> Result<(), Response> {
    let meta = params.and_then(|params| params.get("_meta"));
    let version = meta.and_then(|meta| meta.get(VERSION_KEY)).and_then(Json::as_str);
    let capabilities = meta.and_then(|meta| meta.get(CAPABILITIES_KEY));
    let Some(version) = version else {
        let text = format!("params._meta needs {VERSION_KEY}, a string");
        return Err(jsonrpc::error(400, id, INVALID_PARAMS, &text));
    };
    if !capabilities.is_some_and(Json::is_object) {
        let text = format!("params._meta needs {CAPABILITIES_KEY}, an object");
        return Err(jsonrpc::error(400, id, INVALID_PARAMS, &text));
    }
    if let Transport::Http(headers) = transport {
        let mismatch = |header: &str, what: &str| {
            let text = format!("Header mismatch: {header} is missing or is not the body's {what}");
            Err(jsonrpc::error(400, id, HEADER_MISMATCH, &text))
        };
        if headers.protocol_version.as_deref() != Some(version) {
            return mismatch("MCP-Protocol-Version", VERSION_KEY);
        }
        if headers.method.as_deref() != Some(method) {
            return mismatch("Mcp-Method", "method");
        }
        let name = params.and_then(|params| params.get("name")).and_then(Json::as_str);
        if let Some(name) = name.filter(|_| method == "tools/call")
            && !headers.name.as_deref().is_some_and(|header| is_encoding_of(header, name))
        {
            return mismatch("Mcp-Name", "params.name");
        }
    }
    if version == MODERN_VERSION { Ok(()) } else { Err(jsonrpc::unsupported_version(id, version)) }
}

/// Whether a header's value says `text`: plainly, or as `=?base64?…?=`.
fn is_encoding_of(header: &str, text: &str) -> bool {
    match header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => header == text,
        Some(encoded) => {
            let mut expected = Vec::new();
            json::base64(&mut expected, text.as_bytes());
            encoded.as_bytes() == expected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_may_be_encoded() {
        assert!(is_encoding_of("task_create", "task_create"));
        assert!(is_encoding_of("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"));
        assert!(!is_encoding_of("=?base64?SGVsbG8?=", "Hello"), "not canonical");
        assert!(!is_encoding_of("a", "b"));
    }
}
