//! The HTTP door through a real socket.

use super::{Site, serve_http};
use crate::server::{
    Drain, Engine, Limits,
    testing::{LIMITS, Socket, TestEngine, TestNode, be_late, with_server},
};
use crate::wire::secret::Secret;
use async_io::Timer;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

fn site(token: Option<Secret>) -> Site {
    Site {
        loopback: true,
        token,
        metrics: |stats, memory| {
            let vectors = memory.map_or(0, |memory| memory.count);
            format!("cores {} vectors {vectors}\n", stats.cores.len())
        },
    }
}

fn with_http<C: Future<Output = ()>>(
    client: impl FnOnce(SocketAddr, Rc<TestNode>, Rc<Drain>) -> C,
) {
    let serve =
        |stream, node, drain| serve_http(stream, node, LIMITS, TestEngine, drain, site(None));
    with_server(serve, client);
}

/// Sends bytes and reads what comes until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = Socket::connect(address).await.unwrap();
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

async fn post(address: SocketAddr, headers: &str, body: &str) -> String {
    let len = body.len();
    let head = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
    let request = format!("{head}{headers}Content-Length: {len}\r\n\r\n{body}");
    exchange(address, request.as_bytes()).await
}

const JSON: &str = "Content-Type: application/json\r\nAccept: application/json\r\n";

#[test]
fn every_path_answers() {
    with_http(|address, _, _| async move {
        for (path, status, part) in [
            ("/", "200 OK", "<title>coreflow</title>"),
            ("/healthz", "200 OK", r#"{"status":"ok"}"#),
            ("/readyz", "200 OK", r#"{"status":"ready"}"#),
            ("/metrics", "200 OK", "cores 2 vectors 0"),
            ("/stats.json", "200 OK", r#""totals":{"agents":2"#),
            ("/stats.json", "200 OK", r#"],"memory":{"count":0,"dimension":2"#),
            ("/nothing", "404 Not Found", r#"{"error":{"code":"not_found""#),
            ("/mcp", "405 Method Not Allowed", "this path takes POST"),
        ] {
            let answer = get(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {answer}");
            assert!(answer.contains(part), "{path}: {answer}");
        }
        let delete = b"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(exchange(address, delete).await.contains("allow: POST\r\n"));
    });
}

#[test]
fn a_node_that_knows_no_leader_is_not_ready_and_says_why() {
    with_http(|address, node, _| async move {
        node.leaderless.set(true);
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let reason = r#"{"status":"not ready","reason":"nobody is known to lead"#;
        assert!(answer.contains(reason), "{answer}");
    });
}

#[test]
fn a_tool_is_called_over_http() {
    with_http(|address, _, _| async move {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"task_create","arguments":{"type":"echo","payload":1}}}"#;
        let answer = post(address, JSON, body).await;
        assert!(answer.contains(r#""structuredContent":{"id":"t0-0"#), "{answer}");
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(post(address, JSON, body).await.starts_with("HTTP/1.1 202 Accepted\r\n"));
    });
}

#[test]
fn other_media_types_are_refused() {
    with_http(|address, _, _| async move {
        let plain = "Content-Type: text/plain\r\n";
        assert!(post(address, plain, "{}").await.starts_with("HTTP/1.1 415"));
        assert!(post(address, "", "{}").await.starts_with("HTTP/1.1 415"));
        let pages = "Content-Type: application/json; charset=utf-8\r\nAccept: text/html\r\n";
        assert!(post(address, pages, "{}").await.starts_with("HTTP/1.1 406"));
    });
}

#[test]
fn pages_of_other_sites_are_refused() {
    with_http(|address, _, _| async move {
        let origin = format!("{JSON}Origin: http://evil.example\r\n");
        assert!(post(address, &origin, "{}").await.starts_with("HTTP/1.1 403"));
        let host = b"GET /stats.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        assert!(exchange(address, host).await.starts_with("HTTP/1.1 403"));
        let own = format!("{JSON}Origin: http://localhost:3000\r\n");
        assert!(post(address, &own, "{}").await.starts_with("HTTP/1.1 400"));
    });
}

#[test]
fn large_bodies_are_refused_whether_announced_or_not() {
    with_http(|address, _, _| async move {
        let large = "x".repeat(LIMITS.max_frame_bytes + 1);
        let answer = post(address, JSON, &large).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
        let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
        let chunked = format!("{head}{JSON}\r\n{chunk}");
        assert!(exchange(address, chunked.as_bytes()).await.starts_with("HTTP/1.1 413"));
    });
}

/// Time that is never over.
#[derive(Clone)]
struct Leisure;

impl Engine for Leisure {
    type Place = ();

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        TestEngine.sleep(duration)
    }
}

#[test]
fn a_body_that_is_refused_is_refused_wherever_others_have_their_turn() {
    let limit = Rc::new(Cell::new(0));
    let bytes_max = limit.clone();
    let serve = move |stream, node, drain| {
        let limits = Limits { max_frame_bytes: bytes_max.get(), ..LIMITS };
        serve_http(stream, node, limits, Leisure, drain, site(None))
    };
    with_server(serve, |address, _, _| async move {
        let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
        for kib in (40..=80).step_by(2) {
            let body =
                |bytes: usize| format!("{head}{JSON}\r\n{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
            limit.set(kib << 10);
            let large = body(4 * LIMITS.max_frame_bytes);
            let answer = exchange(address, large.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "a limit of {kib} KiB: {answer}");
            // What goes on with no length of a chunk.
            limit.set(usize::MAX);
            let broken = body(kib << 10) + "what is this\r\n";
            let answer = exchange(address, broken.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "broken behind {kib} KiB: {answer}");
        }
    });
}

#[test]
fn a_head_that_drips_is_cut_off() {
    with_http(|address, _, _| async move {
        let mut stream = Socket::connect(address).await.unwrap();
        let mut sent = 0;
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".iter().chain(&[b'x'; 1000]) {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sent += 1;
            Timer::after(Duration::from_millis(10)).await;
        }
        assert!(sent < 1000, "the connection outlived the stall timeout");
    });
}

#[test]
fn a_body_that_stalls_is_cut_off() {
    with_http(|address, _, _| async move {
        let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n";
        let answer = exchange(address, format!("{head}{JSON}\r\n{{").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    });
}

#[test]
fn what_is_not_http_is_told_so() {
    with_http(|address, _, _| async move {
        let answer = exchange(address, &[0x94, 0, 1, 0xa1, b'x', 0x90, b'\r', b'\n']).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    });
}

#[test]
fn a_drain_closes_idle_connections_and_finishes_requests() {
    with_http(|address, node, drain| async move {
        let create = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"task_create","arguments":{"type":"slow","payload":1}}}"#;
        post(address, JSON, create).await;
        let mut idle = Socket::connect(address).await.unwrap();
        let wait = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"task_result","arguments":{"id":"t0-00000000000000000000000000000000","wait_ms":9}}}"#;
        let mut busy = Socket::connect(address).await.unwrap();
        let head = format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\n{JSON}");
        let request = format!("{head}Content-Length: {}\r\n\r\n{wait}", wait.len());
        busy.write_all(request.as_bytes()).await.unwrap();
        while node.waiting.get() == 0 {
            Timer::after(Duration::from_millis(1)).await;
        }
        drain.begin();
        let mut rest = String::new();
        assert_eq!(idle.read_to_string(&mut rest).await.unwrap(), 0);
        busy.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains(r#"\"status\":\"done\""#), "{rest}");
    });
}

#[test]
fn a_node_with_a_token_tells_strangers_only_that_it_lives() {
    let token = Secret::parse(b"0123456789abcdef").unwrap();
    let serve = move |stream, node, drain| {
        serve_http(stream, node, LIMITS, TestEngine, drain, site(Some(token.clone())))
    };
    with_server(serve, |address, _, _| async move {
        let get = |path: &'static str, headers: &'static str| async move {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
            exchange(address, format!("{head}{headers}\r\n").as_bytes()).await
        };
        for path in ["/healthz", "/readyz"] {
            assert!(get(path, "").await.starts_with("HTTP/1.1 200"), "{path}");
        }
        for path in ["/", "/stats.json", "/metrics", "/mcp", "/nothing"] {
            let answer = get(path, "").await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
            assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
            assert!(answer.contains(r#"{"error":{"code":"unauthorized""#), "{answer}");
        }
        for wrong in [
            "Authorization: Bearer 0123456789abcdeF\r\n",
            "Authorization: Basic 0123456789abcdef\r\n",
            "Authorization: 0123456789abcdef\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer 0123456789abcdef\r\nAuthorization: Bearer x\r\n",
        ] {
            assert!(get("/metrics", wrong).await.starts_with("HTTP/1.1 401"), "{wrong}");
        }
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            let header = format!("Authorization: {right}\r\n").leak();
            assert!(get("/metrics", header).await.starts_with("HTTP/1.1 200"), "{right}");
        }
        // The token does not make up for a page of another site.
        let page = "Authorization: Bearer 0123456789abcdef\r\nOrigin: http://evil.example\r\n";
        assert!(get("/metrics", page).await.starts_with("HTTP/1.1 403"));
    });
}

#[test]
fn a_long_message_and_a_long_answer_come_through_whole_however_they_are_cut() {
    with_http(|address, _, _| async move {
        // Each quote is two bytes in the message, and four in the text that repeats the result.
        let said = "said \\\"it\\\" \u{e9} ".repeat(2500);
        let call = |name: &str, arguments: &str| {
            let params = format!(r#"{{"name":"{name}","arguments":{arguments}}}"#);
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
        };
        let put = format!(r#"{{"key":"a","vector":[1,0],"metadata":{{"said":"{said}"}}}}"#);
        let put = call("memory_store", &put);
        assert!(put.len() > 32 << 10 && put.len() < LIMITS.max_frame_bytes);
        let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
        for chunk in [put.len(), 5000, 37] {
            let mut request = format!("{head}{JSON}\r\n").into_bytes();
            for part in put.as_bytes().chunks(chunk) {
                request.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                request.extend_from_slice(part);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
            let answer = exchange(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:.300}");
            assert!(answer.ends_with(r#""isError":false}}"#), "{answer}");
        }
        let answer = post(address, JSON, &call("memory_retrieve", r#"{"key":"a"}"#)).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains(&format!(r#""metadata":{{"said":"{said}"}}"#)));
        let twice = said.replace('\\', r"\\").replace('"', r#"\""#);
        assert!(body.contains(&format!(r#"\"metadata\":{{\"said\":\"{twice}\"}}"#)));
        assert!(body.ends_with(r#""isError":false}}"#));
    });
}

#[test]
fn all_that_ends_a_connection_is_said_on_a_core_that_is_always_late() {
    be_late();
    large_bodies_are_refused_whether_announced_or_not();
    a_head_that_drips_is_cut_off();
    a_body_that_stalls_is_cut_off();
    what_is_not_http_is_told_so();
    a_drain_closes_idle_connections_and_finishes_requests();
    a_long_message_and_a_long_answer_come_through_whole_however_they_are_cut();
}
