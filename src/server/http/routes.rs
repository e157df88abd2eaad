//! What each path answers.

use super::{Site, body::Pieces, guard};
use crate::{
    node::gateway::Gateway,
    server::{Engine, Limits, mcp, memory::MemoryRequest, pieces, reply::Reply},
    wire::json,
};
use bytes::Bytes;
use futures_lite::future::or;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
        HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use std::rc::Rc;

type Answer = Response<Pieces>;

const JSON: &str = "application/json";
const STATUS_PAGE: &str = include_str!("status.html");

/// The page runs only what it brings along and talks only to its own node.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Answers one request.
pub async fn answer<G: Gateway, E: Engine>(
    request: Request<Incoming>,
    gateway: Rc<G>,
    limits: &Limits,
    engine: &E,
    site: &Site,
) -> Answer {
    if let Some(reason) = guard::refusal(request.headers(), site.loopback) {
        return refusal(StatusCode::FORBIDDEN, "forbidden", reason);
    }
    let path = request.uri().path();
    if let Some(token) = &site.token
        && !matches!(path, "/healthz" | "/readyz")
        && !guard::says(request.headers(), token)
    {
        return unauthorized();
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/mcp" if request.method() == Method::POST => {
            post_mcp(request, gateway, limits, engine).await
        }
        "/mcp" => not_allowed("POST"),
        "/" | "/stats.json" | "/metrics" | "/healthz" | "/readyz" if !is_read => {
            not_allowed("GET, HEAD")
        }
        "/" => {
            let mut page = respond(StatusCode::OK, "text/html; charset=utf-8", STATUS_PAGE);
            let policy = HeaderValue::from_static(PAGE_POLICY);
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            page
        }
        "/stats.json" => respond_with(StatusCode::OK, JSON, stats_json(gateway, engine).await),
        "/metrics" => {
            // A node whose memory does not answer has its other figures all the same.
            let memory = gateway.clone().memory_stats(0).await.ok();
            let (render, stats) = (site.metrics, gateway.stats());
            let text = engine.aside(move || render(&stats, memory.as_ref())).await;
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        "/healthz" => respond(StatusCode::OK, JSON, r#"{"status":"ok"}"#),
        "/readyz" => match gateway.readiness() {
            Ok(()) => respond(StatusCode::OK, JSON, r#"{"status":"ready"}"#),
            Err(why) => {
                let mut body = br#"{"status":"not ready","reason":"#.to_vec();
                json::string(&mut body, &why);
                body.push(b'}');
                respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
            }
        },
        _ => refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
    }
}

/// The node's figures; with those of its memory as one more field, where they are told.
async fn stats_json<G: Gateway, E: Engine>(gateway: Rc<G>, engine: &E) -> Pieces {
    let stats = gateway.stats();
    let memory = (MemoryRequest::Stats { sample: 0 }).run(gateway).await.ok();
    let write = move || {
        let (mut msgpack, mut text) = (Vec::new(), Vec::new());
        Reply::Stats(stats).write(&mut msgpack);
        json::from_msgpack(&msgpack, &mut text).expect("figures have a JSON form");
        if let Some(memory) = memory {
            assert_eq!(text.pop(), Some(b'}'), "the figures are an object");
            text.extend_from_slice(b",\"memory\":");
            msgpack.clear();
            memory.write(&mut msgpack);
            json::from_msgpack(&msgpack, &mut text).expect("figures have a JSON form");
            text.push(b'}');
        }
        vec![text]
    };
    engine.aside(write).await.into()
}

async fn post_mcp<G: Gateway, E: Engine>(
    request: Request<Incoming>,
    gateway: Rc<G>,
    limits: &Limits,
    engine: &E,
) -> Answer {
    if !is_json(request.headers()) {
        let text = "the body must be application/json";
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", text);
    }
    if !accepts_json(request.headers()) {
        let text = "answers are application/json: Accept must allow it";
        return refusal(StatusCode::NOT_ACCEPTABLE, "invalid", text);
    }
    let headers = mcp_headers(request.headers());
    let message = match collect(request.into_body(), limits, engine).await {
        Ok(message) => message,
        Err(refused) => return *refused,
    };
    let response = mcp::handle(gateway, engine, message, headers, limits).await;
    let status = StatusCode::from_u16(response.status).expect("the protocol uses known statuses");
    match response.body {
        Some(body) => respond_with(status, JSON, body.into()),
        None => {
            let mut empty = Response::new(Pieces::default());
            *empty.status_mut() = status;
            empty
        }
    }
}

/// Reads a body whole, in pieces, within the limits of size and stalling.
async fn collect<E: Engine>(
    mut body: Incoming,
    limits: &Limits,
    engine: &E,
) -> Result<Vec<Vec<u8>>, Box<Answer>> {
    let too_large = || {
        let text = format!("a body may have {} bytes", limits.max_frame_bytes);
        Box::new(refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &text))
    };
    if body.size_hint().lower() > limits.max_frame_bytes as u64 {
        return Err(too_large());
    }
    let mut collected = pieces::Pieces::default();
    loop {
        let next = async { Some(body.frame().await) };
        let stalled = async {
            engine.sleep(limits.stall_timeout).await;
            None
        };
        match or(next, stalled).await {
            Some(None) => return Ok(collected.into_vec()),
            Some(Some(Ok(frame))) => {
                // Trailers are of no interest here.
                let Ok(data) = frame.into_data() else { continue };
                if collected.len() + data.len() > limits.max_frame_bytes {
                    return Err(too_large());
                }
                collected.append(&data);
            }
            Some(Some(Err(_))) => {
                let text = "the body broke off";
                return Err(Box::new(refusal(StatusCode::BAD_REQUEST, "invalid", text)));
            }
            None => {
                let text = "the body stalled";
                return Err(Box::new(refusal(StatusCode::REQUEST_TIMEOUT, "invalid", text)));
            }
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| media_type(value).eq_ignore_ascii_case(JSON))
}

/// Whether an answer in JSON is welcome; a client that does not say takes anything.
fn accepts_json(headers: &HeaderMap) -> bool {
    let values: Vec<_> = headers.get_all(ACCEPT).iter().collect();
    let ranges = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let mut types = ranges.map(media_type);
    values.is_empty()
        || types.any(|range| {
            [JSON, "application/*", "*/*"].iter().any(|known| range.eq_ignore_ascii_case(known))
        })
}

/// A media type without its parameters.
fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or("").trim()
}

/// The headers that mirror parts of a message.
fn mcp_headers(headers: &HeaderMap) -> mcp::Headers {
    let mut repeated = None;
    let mut text = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        if values.next().is_some() {
            repeated = Some(name);
        }
        value
    };
    mcp::Headers {
        protocol_version: text("mcp-protocol-version"),
        method: text("mcp-method"),
        name: text("mcp-name"),
        repeated,
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let text = format!("this path takes {allowed}");
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "invalid", &text);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn unauthorized() -> Answer {
    let text = "this node asks for a token: send Authorization: Bearer TOKEN, with what its \
                server.token_file holds";
    let mut answer = refusal(StatusCode::UNAUTHORIZED, "unauthorized", text);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let mut body = format!(r#"{{"error":{{"code":"{code}","message":"#).into_bytes();
    json::string(&mut body, message);
    body.extend_from_slice(b"}}");
    respond(status, JSON, body)
}

fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    respond_with(status, media_type, vec![body].into())
}

fn respond_with(status: StatusCode, media_type: &'static str, body: Pieces) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
